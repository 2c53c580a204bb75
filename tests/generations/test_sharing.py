"""What generations share is counted once and by one of them, and comes back from the dead."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.settings import BreakerSpec, KeySpec
from ds2d.generations import follow
from ds2d.state.leases import Lease, Want
from ds2d.state.ledger_file import Recovered
from ds2d.state.ledger_schema import Row
from ds2d.state.shared_accounts import AGREE
from tests.generations.world import WANT, World, ask, caller, in_use, through, until
from tests.state.world import account, upstream

Make = Callable[..., World]
DOWN = GatewayError(ErrorKind.UPSTREAM_ERROR, "500")


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Make]:
    """Makes worlds, and ends them."""
    made: list[World] = []

    def world(**fields: Any) -> World:
        made.append(World(tmp_path, **fields))
        return made[-1]

    yield world
    for one in made:
        await one.close()


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is found at a path of these tests, so looking need not take long."""
    monkeypatch.setattr(follow, "SEEK_SECONDS", 0.02)
    monkeypatch.setattr(follow, "SEEK_EVERY", 0.005)


async def test_what_an_older_process_holds_is_counted_by_the_newest(make: Make) -> None:
    world = make(account_max_inflight=2)
    older, newer = world.process(), world.process()
    running = await older.queue.acquire(WANT, 1)
    bond = await world.follow(older, newer)
    assert in_use(newer) == 1
    second = await older.queue.acquire(WANT, 1)  # decided there
    assert in_use(newer) == 2
    waits = ask(newer)
    await asyncio.sleep(0)
    assert not waits.done()
    older.queue.release(running)
    newer.queue.release(await waits)
    older.queue.release(second)
    await through(bond)
    assert (in_use(older), in_use(newer)) == (0, 0)


async def test_who_waited_waits_on_in_the_same_order_and_keeps_its_clock(make: Make) -> None:
    world = make(account_max_inflight=1)
    older, newer = world.process(), world.process()
    running = await older.queue.acquire(WANT, 1)
    first, second, late = ask(older), ask(older), ask(older, patience=10)
    await asyncio.sleep(0)
    world.time.advance(4)
    bond = await world.follow(older, newer)
    await through(bond)
    assert (older.queue.waiting, newer.queue.waiting) == (0, 3)
    world.time.advance(6)
    with pytest.raises(GatewayError) as refused:
        await late
    assert refused.value.kind is ErrorKind.QUEUE_TIMEOUT
    older.queue.release(running)
    lease = await first
    assert lease.waited == 10
    assert not second.done()
    older.queue.release(lease)
    older.queue.release(await second)
    await through(bond)
    assert in_use(newer) == 0


async def test_a_client_that_leaves_leaves_no_place_behind(make: Make) -> None:
    world = make(account_max_inflight=1)
    older, newer = world.process(), world.process()
    bond = await world.follow(older, newer)
    running = await older.queue.acquire(WANT, 1)
    waits = ask(older)
    await until(lambda: newer.queue.waiting == 1)
    waits.cancel()
    await until(lambda: newer.queue.waiting == 0)
    again = ask(older)
    await until(lambda: newer.queue.waiting == 1)
    older.queue.release(running)
    again.cancel()  # perhaps granted already, perhaps not: it comes back either way
    await asyncio.gather(again, return_exceptions=True)
    if not again.cancelled():
        older.queue.release(again.result())
    await through(bond)
    assert (in_use(older), in_use(newer), newer.queue.waiting) == (0, 0, 0)


async def test_a_client_that_leaves_before_it_is_admitted_leaves_nothing_reserved(make: Make) -> None:
    spec = KeySpec(name="k", max_inflight=1)
    world = make()
    older, newer = world.process(), world.process()
    bond = await world.follow(older, newer)
    asks = asyncio.create_task(older.quotas.enter(caller(spec), 10, 10))
    await asyncio.sleep(0)  # put to the newer one, which has not read it yet
    asks.cancel()
    await asyncio.gather(asks, return_exceptions=True)
    await through(bond)
    meter = newer.quotas.meter("k")
    assert (meter.inflight, meter.reserved) == (0, [0, 0])
    newer.quotas.admit(caller(spec), 1, 1)


async def test_the_dead_give_back_everything(make: Make) -> None:
    spec = KeySpec(name="k", max_inflight=2)
    world = make(account_max_inflight=2)
    older, newer = world.process(), world.process()
    await older.queue.acquire(WANT, 1)
    await older.quotas.enter(caller(spec), 10, 10)
    bond = await world.follow(older, newer)
    await older.queue.acquire(WANT, 1)
    await older.quotas.enter(caller(spec), 10, 10)
    lost = ask(older)
    await until(lambda: newer.queue.waiting == 1)
    assert newer.quotas.meter("k").inflight == 2
    with pytest.raises(GatewayError):
        newer.quotas.admit(caller(spec), 1, 1)
    mine = ask(newer)
    await asyncio.sleep(0)
    await bond.kill_the_older()
    newer.queue.release(await mine)
    assert (in_use(newer), newer.queue.waiting) == (0, 0)
    meter = newer.quotas.meter("k")
    assert (meter.inflight, meter.reserved) == (0, [0, 0])
    lost.cancel()


async def test_without_a_leader_a_process_decides_for_itself_by_its_own_count(make: Make) -> None:
    world = make(account_max_inflight=2)
    older, newer = world.process(), world.process()
    bond = await world.follow(older, newer)
    running = await older.queue.acquire(WANT, 1)
    for _ in range(2):
        newer.queue.release(await newer.queue.acquire(WANT, 1))
    theirs = await newer.queue.acquire(WANT, 1)
    waits = [ask(older), ask(older)]
    await until(lambda: newer.queue.waiting == 2)
    bond.guest.close()  # the newer process is killed
    lease = await waits[0]
    assert not waits[1].done()
    assert older.queue.leader is None
    older.queue.release(running)
    older.queue.release(await waits[1])
    older.queue.release(lease)
    assert in_use(older) == 0
    newer.queue.release(theirs)
    bond.following.stop()


async def test_a_breaker_stays_open_and_its_probe_stays_the_only_one(make: Make) -> None:
    world = make(breaker=BreakerSpec(failures=1, open_seconds=30))
    older, newer, newest = world.process(), world.process(), world.process()
    failed = await older.queue.acquire(WANT, 1)
    failed.report(DOWN)
    older.queue.release(failed)
    bond = await world.follow(older, newer)
    with pytest.raises(GatewayError) as refused:
        await newer.queue.acquire(WANT, 0)
    assert "Circuit breaker open" in refused.value.message
    bond.following.stop()
    world.time.advance(31)
    probe = await newer.queue.acquire(WANT, 1)
    bond = await world.follow(newer, newest)
    waits = ask(newest)
    await asyncio.sleep(0)
    assert not waits.done()
    probe.report(None)
    newest.queue.release(await waits)
    newer.queue.release(probe)
    await through(bond)
    assert in_use(newest) == 0


async def test_a_probe_that_dies_with_its_process_blocks_nobody(make: Make) -> None:
    world = make(breaker=BreakerSpec(failures=1, open_seconds=30))
    older, newer = world.process(), world.process()
    failed = await older.queue.acquire(WANT, 1)
    failed.report(DOWN)
    older.queue.release(failed)
    world.time.advance(31)
    await older.queue.acquire(WANT, 1)
    bond = await world.follow(older, newer)
    waits = ask(newer)
    await asyncio.sleep(0)
    assert not waits.done()
    await bond.kill_the_older()
    newer.queue.release(await waits)


async def test_rates_and_quotas_go_on_where_they_were(make: Make) -> None:
    spec = KeySpec(name="k", key=None, rpm=3, max_tokens=100)
    world = make()
    older, newer = world.process(), world.process()
    (await older.quotas.enter(caller(spec), 5, 5)).settle(20, 20)
    running = await older.quotas.enter(caller(spec), 5, 5)
    bond = await world.follow(older, newer)
    assert newer.quotas.meter("k").reserved == [5, 5]
    newer.quotas.admit(caller(spec), 1, 1).settle(1, 1)
    with pytest.raises(GatewayError) as refused:
        newer.quotas.admit(caller(spec), 1, 1)
    assert refused.value.kind is ErrorKind.RATE_LIMITED
    running.settle(30, 28)
    await through(bond)
    assert newer.quotas.meter("k").total == [51, 49]
    assert newer.quotas.meter("k").reserved == [0, 0]
    world.time.advance(61)
    with pytest.raises(GatewayError) as refused:
        newer.quotas.admit(caller(spec), 1, 1)
    assert refused.value.kind is ErrorKind.QUOTA_EXHAUSTED


async def test_what_was_used_is_counted_though_nobody_knows_the_permit(make: Make) -> None:
    world = make()
    older, newer = world.process(), world.process()
    bond = await world.follow(older, newer)
    bond.following.settled(77, "k", 3, 4)
    await through(bond)
    assert newer.quotas.meter("k").total == [3, 4]


async def test_what_a_killed_process_had_used_is_counted_whoever_finds_it(make: Make) -> None:
    world = make()
    older, newer = world.process(), world.process()
    bond = await world.follow(older, newer)
    older.quotas.recovered([Recovered("k", 3, 4)])
    await through(bond)
    newer.quotas.recovered([Recovered("k", 1, 1)])
    assert newer.quotas.meter("k").total == [4, 5]


async def test_turns_that_end_in_an_older_process_are_told_once(make: Make) -> None:
    world = make()
    oldest, older, newest = world.process(), world.process(), world.process()
    bond = await world.follow(oldest, older)
    row = Row("req_1", "k", "k", "openai_chat", "m", 1000.0, state="completed", prompt_tokens=3)
    bond.following.closed(row)
    await through(bond)
    assert world.ended == [row]
    bond.guest.relay = (await world.follow(older, newest)).following
    bond.following.closed(row)  # said before it knew of the newest
    await until(lambda: world.ended == [row, row])


@pytest.mark.parametrize("seed", range(20))
async def test_any_order_of_events_keeps_the_limit_and_leaks_nothing(make: Make, seed: int) -> None:
    """Requests come, wait, leave and end in two processes; in the end one of them is killed."""
    chance = random.Random(seed)
    world = make(account_max_inflight=3)
    older, newer = world.process(), world.process()
    running: list[tuple[bool, Lease]] = []
    asking: list[tuple[bool, asyncio.Task[Lease]]] = [(True, ask(older)) for _ in range(chance.randrange(6))]
    await asyncio.sleep(0)
    bond = await world.follow(older, newer)
    for _ in range(60):
        old = chance.random() < 0.5
        what = chance.random()
        if what < 0.5:
            asking.append((old, ask(older if old else newer)))
        elif what < 0.7 and asking:
            asking.pop(chance.randrange(len(asking)))[1].cancel()
        elif running:
            mine, lease = running.pop(chance.randrange(len(running)))
            (older if mine else newer).queue.release(lease)
        if chance.random() < 0.6:
            await through(bond)
        for one in [one for one in asking if one[1].done()]:
            asking.remove(one)
            running.append((one[0], one[1].result()))
        assert in_use(newer) <= 3
        assert len(running) <= 3
    if chance.random() < 0.5:
        await bond.kill_the_older()
        running = [one for one in running if not one[0]]
        asking, dead = [one for one in asking if not one[0]], [one for one in asking if one[0]]
        for _, task in dead:
            task.cancel()
    for mine, lease in running:
        (older if mine else newer).queue.release(lease)
    for mine, task in asking:
        (older if mine else newer).queue.release(await task)
    if not bond.left:
        await through(bond)
    assert (in_use(newer), newer.queue.waiting, newer.queue.running) == (0, 0, 0)


async def test_a_config_that_one_process_has_first_fails_nobody(make: Make) -> None:
    """Both read the same file, but not in the same moment: whoever is ahead waits for the other."""
    world = make()
    older, newer = world.process(), world.process()
    bond = await world.follow(older, newer)
    more = ([upstream(), upstream("other")], [*world.accounts, account("b", "other")], world.limits)
    other = Want(("other",), "m", caller="k")
    older.queue.apply(*more)
    asked = ask(older, want=other)
    await through(bond)
    assert not asked.done()
    newer.queue.apply(*more)
    older.queue.release(await asked)
    less = ([upstream("new")], [account("c", "new")], world.limits)
    newer.queue.apply(*less)
    asked = ask(older, want=other)
    await through(bond)
    assert not asked.done()
    older.queue.apply(*less)
    world.time.advance(AGREE)
    with pytest.raises(GatewayError) as refused:  # its servers have gone: the turn looks for its model's new ones
        await asked
    assert refused.value.kind is ErrorKind.MODEL_UNAVAILABLE
    older.queue.release(await ask(older, want=Want(("new",), "m", caller="k")))
    await through(bond)
    assert (in_use(older), in_use(newer)) == (0, 0)


async def test_an_account_that_only_the_leader_has_read_of_is_waited_for(make: Make) -> None:
    world = make()
    older, newer = world.process(), world.process()
    bond = await world.follow(older, newer)
    more = ([upstream()], [account("b")], world.limits)
    newer.queue.apply(*more)
    asked = ask(older)
    await through(bond)
    assert not asked.done()
    older.queue.apply(*more)
    lease = await asked
    assert lease.account.label == "b"
    older.queue.release(lease)
    gone = ask(older)
    await through(bond)
    newer.queue.apply([upstream()], [account("c")], world.limits)
    older.queue.release(await gone)
    late = ask(older)
    await through(bond)
    assert in_use(newer) == 1
    late.cancel()
    await asyncio.gather(late, return_exceptions=True)
    await through(bond)
    assert (in_use(older), in_use(newer)) == (0, 0)
