"""The account queue under everything at once: random rounds on a fake clock, and a state machine in tiny worlds."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.settings import BreakerSpec
from ds2d.state.accounts import Lease
from ds2d.state.slots import Standing
from tests.state.world import World, account, settle, upstream

FAULTS = (
    GatewayError(ErrorKind.UPSTREAM_ERROR, "It failed."),
    GatewayError(ErrorKind.UPSTREAM_AUTH, "It refused."),
    GatewayError(ErrorKind.UPSTREAM_RATE_LIMITED, "Too many.", retry_after=3),
    GatewayError(ErrorKind.UPSTREAM_REJECTED, "The caller's fault."),
)


class Crowd:
    """Requests on a world, and what must be true of them whatever happens."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.asks: list[asyncio.Task[Lease]] = []
        self.leases: list[Lease] = []
        self.arrivals: list[tuple[asyncio.Task[Lease], Any]] = []
        self.were: dict[str, int] = {}
        self.refused: list[ErrorKind] = []

    async def ask(self, patience: float, **want: Any) -> None:
        bound, waiting = self.world.queue.bound, self.world.queue.waiting
        task = self.world.ask(patience, **want)
        self.asks.append(task)
        self.arrivals.append((task, self.world.want(**want).lane))
        await settle()
        if task.done() and (error := task.exception()):
            assert isinstance(error, GatewayError)
            assert error.kind is not ErrorKind.QUEUE_FULL or waiting >= bound
            assert error.retry_after
        assert self.world.queue.waiting <= max(bound, waiting)

    def collect(self) -> None:
        """Take over what was granted; drop what was refused."""
        for task in [task for task in self.asks if task.done()]:
            self.asks.remove(task)
            if task.cancelled():
                continue
            if error := task.exception():
                assert isinstance(error, GatewayError)
                self.refused.append(error.kind)
            else:
                self.leases.append(task.result())

    def release(self, index: int, outcome: GatewayError | None = None, report: bool = True) -> None:
        lease = self.leases.pop(index % len(self.leases))
        if report:
            lease.report(outcome)
        self.world.queue.release(lease)

    def check(self) -> None:
        """The rules of the queue, at rest."""
        queue = self.world.queue
        self.collect()
        held: dict[int, int] = {}
        for lease in self.leases:
            held[id(lease.slot)] = held.get(id(lease.slot), 0) + 1
        for slot in queue.slots:
            assert slot.inflight == held.get(id(slot), 0)
            assert slot.inflight <= max(slot.limit, self.were.get(slot.account.id, 0)), "a limit was passed"
            assert slot.budget.inflight == sum(other.inflight for other in _of_budget(queue, slot))
        self.were = {slot.account.id: slot.inflight for slot in [*queue.slots, *queue.roster.leaving.values()]}
        assert queue.running == len(self.leases)
        assert queue.waiting == len(self.asks) == sum(queue.waiting_by_caller.values())
        self.no_one_waits_in_vain()
        self.no_one_was_overtaken()

    def no_one_waits_in_vain(self) -> None:
        queue = self.world.queue
        full = queue.limits.global_max_inflight and queue.running >= queue.limits.global_max_inflight
        for lane in queue._lanes.values():
            looks = [slot.outlook(lane.want.model, self.world.time.now).standing for slot in lane.slots()]
            assert full or Standing.READY not in looks, "an account is free for somebody who waits"
            assert looks, "nobody can ever serve them"

    def no_one_was_overtaken(self) -> None:
        waiting: set[Any] = set()
        for task, lane in self.arrivals:
            if not task.done():
                waiting.add(lane)
            elif not task.cancelled() and task.exception() is None:
                assert lane not in waiting, "who came later runs"
        self.arrivals = [(task, lane) for task, lane in self.arrivals if not task.done()]

    async def go_home(self) -> None:
        for task in self.asks:
            task.cancel()
        await settle()
        self.collect()
        while self.leases:
            self.release(0, report=False)
        queue = self.world.queue
        assert (queue.running, queue.waiting, queue._lanes, queue.roster.leaving) == (0, 0, {}, {})
        assert all(slot.inflight == slot.budget.inflight == slot.pool.server.inflight == 0 for slot in queue.slots)
        assert self.world.time.pending == 0


def _of_budget(queue: Any, slot: Any) -> list[Any]:
    return [other for other in [*queue.slots, *queue.roster.leaving.values()] if other.budget is slot.budget]


ACCOUNTS = [
    account("a"), account("b", max_inflight=3), account("c", group="g"), account("d", group="g"), account("e", on="other")
]  # fmt: skip


async def one_step(rng: random.Random, crowd: Crowd) -> None:
    world = crowd.world
    match rng.choices(range(6), weights=(40, 30, 8, 8, 6, 2))[0]:
        case 0:
            want: dict[str, Any] = {"upstreams": rng.choice((("gpu",), ("other",), ("gpu", "other"))), "model": rng.choice("mn")}
            if rng.random() < 0.1:
                want["pin"] = rng.choice("ae")
            await crowd.ask(rng.choice((0, 1, 30, 60)), **want)
        case 1 if crowd.leases:
            outcome = rng.choice(FAULTS) if rng.random() < 0.2 else None
            crowd.release(rng.randrange(99), outcome, report=rng.random() < 0.9)
        case 2 if crowd.asks:
            rng.choice(crowd.asks).cancel()
            if crowd.leases and rng.random() < 0.5:
                crowd.release(rng.randrange(99))  # in the same tick
        case 3:
            world.time.advance(rng.choice((0.1, 1, 5, 70)))
        case 4:
            limits = {"account_max_inflight": rng.randint(1, 4), "account_max_queue": rng.choice((0, 3, 20))}
            limits |= {"global_max_inflight": rng.choice((0, 0, 2, 5)), "min_request_gap_ms": rng.choice((0, 0, 500))}
            world.apply(**limits)
        case 5:
            world.accounts = rng.sample(ACCOUNTS, rng.randint(1, len(ACCOUNTS)))
            world.apply()


@pytest.mark.parametrize("seed", range(0, 1000, 50))
async def test_nothing_is_lost_passed_or_overtaken_in_random_rounds_while_limits_change(seed: int) -> None:
    for number in range(seed, seed + 50):
        rng = random.Random(number)
        crowd = Crowd(World(list(ACCOUNTS), [upstream(), upstream("other")], breaker=BreakerSpec(failures=2, open_seconds=4)))
        for _ in range(40):
            await one_step(rng, crowd)
            await settle()
            crowd.check()
        await crowd.go_home()


class TinyWorld(RuleBasedStateMachine):
    """One or two accounts, limit one: small enough for hypothesis to find the shortest way to a lost slot."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.crowd = self.loop.run_until_complete(self._start())

    async def _start(self) -> Crowd:
        return Crowd(World("ab", account_max_inflight=1, account_max_queue=3, breaker=BreakerSpec(failures=1, open_seconds=2)))

    def _then(self, action: Any = None) -> None:
        async def go() -> None:
            if action is not None:
                result = action()
                if asyncio.iscoroutine(result):
                    await result
            await settle()

        self.loop.run_until_complete(go())

    @rule(pin=st.sampled_from([None, "a"]), caller=st.sampled_from("xy"))
    def ask(self, pin: str | None, caller: str) -> None:
        self.crowd.arrivals.clear()  # two callers: fairness may let one overtake the other
        self._then(lambda: self.crowd.ask(5, pin=pin, caller=caller))

    @precondition(lambda self: self.crowd.leases)
    @rule(index=st.integers(0, 3), fault=st.sampled_from([None, *FAULTS]))
    def release(self, index: int, fault: GatewayError | None) -> None:
        self._then(lambda: self.crowd.release(index, fault))

    @precondition(lambda self: self.crowd.asks)
    @rule(index=st.integers(0, 3), same_tick=st.booleans(), before=st.booleans())
    def cancel(self, index: int, same_tick: bool, before: bool) -> None:
        def go() -> None:
            if before and same_tick and self.crowd.leases:
                self.crowd.release(0)
            self.crowd.asks[index % len(self.crowd.asks)].cancel()
            if not before and same_tick and self.crowd.leases:
                self.crowd.release(0)

        self._then(go)

    @rule(seconds=st.sampled_from([0.5, 2, 5]))
    def wait(self, seconds: float) -> None:
        self._then(lambda: self.crowd.world.time.advance(seconds))

    @rule(limit=st.integers(1, 2), names=st.sampled_from(["a", "b", "ab"]), gap=st.sampled_from([0, 1000]))
    def edit(self, limit: int, names: str, gap: int) -> None:
        self.crowd.world.accounts = [account(name) for name in names]
        self._then(lambda: self.crowd.world.apply(account_max_inflight=limit, min_request_gap_ms=gap))

    @invariant()
    def the_rules_hold(self) -> None:
        self.crowd.check()

    def teardown(self) -> None:
        self.loop.run_until_complete(self.crowd.go_home())
        self.loop.close()


TestTinyWorld = TinyWorld.TestCase
TestTinyWorld.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
