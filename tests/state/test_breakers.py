"""When accounts are put aside and how they come back, seen through the queue."""

from __future__ import annotations

import pytest

from ds2d.core.errors import MATRIX, ErrorKind, GatewayError
from ds2d.core.settings import BreakerSpec, Secret
from ds2d.state.accounts import Lease
from ds2d.state.breakers import CAUSES, MAX_COOL_DOWN, Cause, judge
from tests.state.test_accounts import refusal
from tests.state.world import World, account, settle, upstream


def fault(kind: ErrorKind = ErrorKind.UPSTREAM_ERROR, **fields: object) -> GatewayError:
    return GatewayError(kind, str(fields.pop("message", "The upstream failed.")), **fields)  # type: ignore[arg-type]


async def fail(world: World, times: int = 1, error: GatewayError | None = None, **want: object) -> None:
    for _ in range(times):
        end(world, await world.run(**want), error or fault())  # type: ignore[arg-type]


def end(world: World, lease: Lease, error: GatewayError | None = None) -> None:
    lease.report(error)
    world.queue.release(lease)


async def test_five_faults_open_the_breaker_of_that_model_and_the_answer_says_so() -> None:
    world = World()
    await fail(world, 4)
    end(world, await world.run())  # an answer in between: the count starts again
    await fail(world, 5)
    error = await refusal(world.ask())
    assert (error.kind, error.status) == (ErrorKind.MODEL_UNAVAILABLE, 503)
    assert error.message == "Circuit breaker open for model: m"
    assert error.retry_after == 60
    assert (await world.run(model="another")).account.label == "a"


async def test_an_open_breaker_lets_one_probe_go_first_and_closes_by_its_answer() -> None:
    world = World(account_max_inflight=3)
    await fail(world, 5)
    world.time.advance(60)
    probe = await world.run()
    others = [world.ask() for _ in range(2)]
    await settle()
    assert not any(ask.done() for ask in others)
    probe.report(None)
    await settle()
    assert all(ask.done() for ask in others)


async def test_a_failed_probe_opens_it_again_and_sends_the_others_off() -> None:
    world = World()
    await fail(world, 5)
    world.time.advance(60)
    probe = await world.run()
    other = world.ask()
    await settle()
    end(world, probe, fault())
    assert (await refusal(other)).kind is ErrorKind.MODEL_UNAVAILABLE
    world.time.advance(59)
    assert (await refusal(world.ask())).kind is ErrorKind.MODEL_UNAVAILABLE
    world.time.advance(1)
    end(world, await world.run())
    await world.run()


async def test_a_probe_whose_client_left_makes_room_for_the_next() -> None:
    world = World()
    await fail(world, 5)
    world.time.advance(60)
    world.queue.release(await world.run())
    assert await world.run()


async def test_an_answer_to_a_question_from_before_does_not_close_it() -> None:
    world = World(account_max_inflight=9)
    early = await world.run()
    await fail(world, 5)
    end(world, early)
    assert (await refusal(world.ask())).kind is ErrorKind.MODEL_UNAVAILABLE


async def test_waiters_go_on_to_another_account_when_one_opens() -> None:
    world = World("ab", account_max_inflight=1, breaker=BreakerSpec(failures=1))
    first, second = await world.run(), await world.run()
    ask = world.ask()
    await settle()
    end(world, first, fault())
    await settle()
    assert not ask.done()
    world.queue.release(second)
    await settle()
    assert ask.result().account.label == "b"


async def test_what_the_caller_did_wrong_counts_for_nothing() -> None:
    world = World(breaker=BreakerSpec(failures=1))
    for kind, row in MATRIX.items():
        if kind not in CAUSES:
            await fail(world, 1, fault(kind))
            assert row.status != 503 or kind.value in (
                "model_unavailable", "empty_answer", "malformed_call", "shutting_down", "ledger_unavailable"
            )  # fmt: skip
    assert await world.run()
    assert world.queue.slots[0].failures == 0


async def test_causes_are_kept_apart() -> None:
    world = World()
    await fail(world, 4)
    await fail(world, 4, fault(ErrorKind.UPSTREAM_OVERLOADED))
    await fail(world, 4, fault(ErrorKind.UPSTREAM_RATE_LIMITED))
    assert await world.run()


async def test_refused_credentials_put_the_whole_account_aside_at_once_and_come_back_by_time() -> None:
    world = World("ab")
    await fail(world, 1, fault(ErrorKind.UPSTREAM_AUTH), pin="a")
    assert (await refusal(world.ask(pin="a", model="another"))).retry_after == 60
    assert (await world.run()).account.label == "b"
    world.time.advance(60)
    end(world, await world.run(pin="a"))
    end(world, await world.run(pin="a"))


async def test_a_new_credential_is_not_judged_by_the_old_one() -> None:
    world = World()
    await fail(world, 1, fault(ErrorKind.UPSTREAM_AUTH))
    world.accounts = [account("a", remark="edited")]
    world.apply()
    assert (await refusal(world.ask())).kind is ErrorKind.MODEL_UNAVAILABLE
    world.accounts = [account("a")]
    world.accounts[0] = type(world.accounts[0])(name="a", upstream="gpu", token=Secret("renewed"))
    world.apply()
    assert await world.run()


async def test_an_implicit_account_has_no_credential_to_put_aside() -> None:
    world = World([])
    await fail(world, 9, fault(ErrorKind.UPSTREAM_AUTH))
    assert await world.run()


async def test_a_direct_callers_bad_token_is_its_own_affair() -> None:
    world = World([], [upstream(direct_token=True)], breaker=BreakerSpec(failures=1))
    await fail(world, 1, fault(ErrorKind.UPSTREAM_AUTH), direct=True)
    await fail(world, 1, fault(ErrorKind.UPSTREAM_RATE_LIMITED, retry_after=50), direct=True)
    assert await world.run(direct=True)


async def test_an_announced_delay_is_waited_out_by_those_who_have_the_time() -> None:
    world = World()
    limit = "The upstream's rate limit for model 'm' is reached (UserByModelByDay). Retry after ~40s."
    await fail(world, 1, fault(ErrorKind.UPSTREAM_RATE_LIMITED, message=limit, retry_after=40))
    error = await refusal(world.ask(patience=39))
    assert error.retry_after == 40
    assert "UserByModelByDay" in error.message
    assert "~40s" in error.message
    ask = world.ask(patience=41)
    await settle()
    assert not ask.done()
    world.time.advance(40)
    await settle()
    assert ask.result().waited == 40


async def test_a_second_attempt_waits_out_no_cool_down() -> None:
    world = World()
    lease = await world.run()
    end(world, lease, fault(ErrorKind.UPSTREAM_RATE_LIMITED, retry_after=5))
    assert (await refusal(world.ask(avoid=frozenset({lease.account.id})))).kind is ErrorKind.MODEL_UNAVAILABLE


async def test_an_answer_does_not_lift_an_announced_delay() -> None:
    world = World()
    early = await world.run()
    await fail(world, 1, fault(ErrorKind.UPSTREAM_RATE_LIMITED, retry_after=100))
    end(world, early)
    assert (await refusal(world.ask())).kind is ErrorKind.MODEL_UNAVAILABLE


async def test_a_group_feels_a_limit_together_but_not_a_bad_token() -> None:
    world = World([account("a", group="g"), account("b", group="g"), account("c")])
    await fail(world, 1, fault(ErrorKind.UPSTREAM_AUTH), pin="a")
    assert (await world.run(pin="b")).account.label == "b"
    await fail(world, 1, fault(ErrorKind.UPSTREAM_RATE_LIMITED, retry_after=100), pin="b")
    assert (await refusal(world.ask(pin="b"))).kind is ErrorKind.MODEL_UNAVAILABLE
    assert (await world.run(pin="c")).account.label == "c"


async def test_reset_lets_everybody_in_and_leaves_running_slots_alone() -> None:
    world = World("ab", breaker=BreakerSpec(failures=1), account_max_inflight=1)
    await world.run(pin="b", model="other")
    await fail(world, 1, fault(), pin="a")
    world.queue.reset()
    assert (await world.run()).account.label == "a"
    assert [(slot.failures, slot.inflight) for slot in world.queue.slots] == [(0, 1), (0, 1)]


async def test_a_server_that_is_seen_to_serve_again_needs_no_probe() -> None:
    world = World([], breaker=BreakerSpec(failures=1))
    await fail(world, 1, fault(ErrorKind.UPSTREAM_UNREACHABLE))
    assert (await refusal(world.ask())).kind is ErrorKind.MODEL_UNAVAILABLE
    world.queue.recovered("gpu")
    assert await world.run()


async def test_the_one_back_first_gives_the_time() -> None:
    world = World("ab", breaker=BreakerSpec(failures=1, open_seconds=60))
    await fail(world, 1, fault(), pin="a")
    world.time.advance(20)
    await fail(world, 1, fault(), pin="b")
    assert (await refusal(world.ask())).retry_after == 40


@pytest.mark.parametrize(
    ("kind", "retry_after", "delay"),
    [
        (ErrorKind.UPSTREAM_RATE_LIMITED, 7, 7),
        (ErrorKind.UPSTREAM_OVERLOADED, 3, 3),
        (ErrorKind.UPSTREAM_RATE_LIMITED, None, None),
        (ErrorKind.UPSTREAM_RATE_LIMITED, 1e9, MAX_COOL_DOWN),
        (ErrorKind.UPSTREAM_ERROR, 7, None),
    ],
)
def test_only_a_limit_announces_its_end(kind: ErrorKind, retry_after: float | None, delay: float | None) -> None:
    verdict = judge(fault(kind, retry_after=retry_after))
    assert verdict is not None
    assert verdict.delay == delay


def test_every_fault_of_an_upstream_has_a_cause() -> None:
    ours = {ErrorKind.UPSTREAM_REJECTED, ErrorKind.UPSTREAM_TOO_LARGE}  # the question's own faults
    assert {kind for kind in ErrorKind if kind.startswith("upstream_")} == set(CAUSES) | ours
    assert set(CAUSES.values()) == set(Cause)
