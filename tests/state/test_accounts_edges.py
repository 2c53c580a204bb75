"""The account queue at its edges: what it says of itself, what outlives an edit of the config, and whose word counts for whom."""

from __future__ import annotations

import asyncio

import pytest

from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.load import Load
from ds2d.core.settings import BreakerSpec, Secret
from ds2d.state.accounts import AccountQueue, Lease, Want
from ds2d.state.explain import MAX_LOOKED, skipped
from ds2d.state.shared_accounts import SharedQueue
from tests.state.test_accounts import refusal
from tests.state.test_breakers import end, fail, fault
from tests.state.world import Limits, Time, World, account, settle, upstream

OVERLOADED = fault(ErrorKind.UPSTREAM_OVERLOADED)
RATE = fault(ErrorKind.UPSTREAM_RATE_LIMITED, retry_after=50)


def now_of(world: World) -> dict[str, int]:
    return {name: size.now for name, size in world.queue.sizes().items()}


# What it says of itself


async def test_before_there_is_a_config_nobody_can_be_served_and_everything_has_a_size() -> None:
    time = Time()
    queue = AccountQueue(Limits(account_max_queue=7), clock=time, wall=time, call_later=time.call_later)
    assert {size.now for size in queue.sizes().values()} == {0}
    assert (queue.capacity, queue.bound, queue.current(), queue.rotate()) == (0, 7, None, None)
    assert queue.account_of("gpu") is None
    assert queue.gauged("gpu", Load(running=1, waiting=0)) is False


async def test_sizes_are_those_of_what_is_held() -> None:
    world = World("ab", account_max_inflight=1, account_max_queue=9, min_request_gap_ms=5000)
    held = [await world.run(caller="x"), await world.run(caller="y")]
    for caller, model in (("x", "m"), ("x", "n"), ("z", "m")):
        world.ask(caller=caller, model=model)
    await settle()
    world.accounts = [account("b")]
    world.apply()
    assert now_of(world) == {
        "running": 2,
        "waiting": 3,
        "accounts_leaving": 1,
        "lanes": 2,
        "callers_waiting": 2,
        "callers_remembered": world.queue.sizes()["callers_remembered"].now,
        "changes_expected": 2,
    }
    assert {name: size.bound for name, size in world.queue.sizes().items() if name in ("running", "waiting")} == {
        "running": 2,  # more run than there are slots now
        "waiting": 9,
    }
    assert world.queue.waiting_by_caller == {"x": 2, "z": 1}
    world.queue.release(held[0])
    assert now_of(world)["accounts_leaving"] == 0
    world.time.advance(5)  # the gap
    world.queue.release(held[1])
    await settle()
    assert world.queue.waiting_by_caller == {"x": 2}


async def test_an_account_that_went_leaves_with_its_last_lease() -> None:
    world = World("ab", account_max_inflight=2)
    leases = [await world.run() for _ in range(4)]
    on_a = [lease for lease in leases if lease.account.label == "a"]
    world.accounts = [account("b")]
    world.apply()
    world.queue.release(on_a[0])
    world.accounts = [account("a"), account("b")]
    world.apply()
    assert world.in_use() == {"a": 1, "b": 2}
    assert (await world.run()).account.label == "a"
    assert (await refusal(world.ask(patience=0))).kind is ErrorKind.QUEUE_TIMEOUT


async def test_the_wait_is_told_by_how_long_answers_took_and_is_a_second_at_least() -> None:
    world = World("a", account_max_inflight=1)
    assert world.queue.expected_wait() == 1.0
    lease = await world.run()
    world.time.advance(30)
    world.queue.release(lease)
    assert world.queue.expected_wait() == 30.0


def test_an_upstreams_account_is_found_for_calls_that_are_no_turn() -> None:
    listed = [account("a", disabled=True), account("b")]
    world = World(listed, [upstream(), upstream("taker", direct_token=True), upstream("other")])
    found = world.queue.account_of("gpu")
    assert found is not None
    assert found.label == "b"
    taker = world.queue.account_of("taker")
    assert taker is not None
    assert not taker.direct
    assert world.queue.account_of("nobody") is None
    world = World([account("a", disabled=True)])
    assert world.queue.account_of("gpu") is None


def test_of_many_accounts_those_whose_turn_is_next_are_shown() -> None:
    world = World("abcd", [upstream(), upstream("empty")])
    nearest = world.queue.roster.nearest
    assert [slot.account.label for slot in nearest(world.want(), 5)] == ["a", "b", "c", "d", "empty"]
    assert [slot.account.label for slot in nearest(world.want(upstreams=("empty",)), 5)] == ["a", "b", "c", "d", "empty"]
    assert [slot.account.label for slot in nearest(world.want(upstreams=("gone", "gpu")), 2)] == ["a", "b"]


async def test_the_wait_is_told_by_how_fast_the_queue_moves() -> None:
    world = World("a", account_max_inflight=1, account_max_queue=9)
    leases = [await world.run()]
    asks = [world.ask() for _ in range(3)]
    await settle()
    for ask in asks[:2]:
        world.time.advance(7)
        world.queue.release(leases[-1])
        await settle()
        leases.append(ask.result())
    assert world.queue.expected_wait() == 14.0  # one waits still, and the next would be the second


async def test_the_time_in_which_nobody_waited_says_nothing_about_speed() -> None:
    world = World("a", account_max_inflight=1)
    for _ in range(2):
        lease = await world.run()
        ask = world.ask()
        await settle()
        world.time.advance(7)
        world.queue.release(lease)
        await settle()
        world.time.advance(7)
        world.queue.release(ask.result())
        world.time.advance(1000)
    assert world.queue.expected_wait() == pytest.approx(7.0)


async def test_who_waited_in_vain_is_told_how_long() -> None:
    world = World("a", account_max_inflight=1)
    await world.run()
    ask = world.ask(patience=30)
    await settle()
    world.time.advance(30)
    error = await refusal(ask)
    assert (error.kind, error.message[:32]) == (ErrorKind.QUEUE_TIMEOUT, "No account was free within 30 s.")


async def test_who_leaves_in_the_very_tick_in_which_its_time_is_up_has_left() -> None:
    world = World("a", account_max_inflight=1)
    await world.run()
    ask = world.ask(patience=30)
    await settle()
    ask.cancel()
    world.time.advance(30)
    await settle()
    assert ask.cancelled()
    assert world.queue.waiting == 0


async def test_a_wait_of_no_time_is_refused_as_such_and_a_short_one_is_waited() -> None:
    world = World("a", account_max_inflight=1)
    await world.run()
    assert (await refusal(world.ask(patience=0))).message.startswith("No account was free within 0 s.")
    short = world.ask(patience=0.5)
    await settle()
    assert not short.done()
    short.cancel()


async def test_a_cool_down_that_ends_with_ones_patience_is_waited_for() -> None:
    world = World("a")
    await fail(world, 1, RATE)
    patient, hasty = world.ask(patience=50), world.ask(patience=49)
    await settle()
    assert not patient.done()
    assert (await refusal(hasty)).kind is ErrorKind.MODEL_UNAVAILABLE
    patient.cancel()
    world = World("a", account_max_inflight=2)
    lease, _ = await world.run(), await world.run()
    patient, hasty = world.ask(patience=50), world.ask(patience=49)
    await settle()
    lease.report(RATE)
    assert (await refusal(hasty)).kind is ErrorKind.MODEL_UNAVAILABLE
    assert not patient.done()
    patient.cancel()


async def test_an_upstream_without_accounts_is_unavailable_and_no_hindrance() -> None:
    world = World([account("a"), account("b", on="off", disabled=True)], [upstream(), upstream("off")])
    for names in (("gone",), ("off",), ("gone", "off")):
        assert (await refusal(world.ask(upstreams=names))).kind is ErrorKind.MODEL_UNAVAILABLE
    assert (await world.run(upstreams=("gone", "off", "gpu"))).account.label == "a"
    assert world.queue.capacity == 2
    world.apply()
    assert world.queue.capacity == 2


# Between callers


async def order_of(world: World, lease: Lease, asks: dict[str, asyncio.Task[Lease]]) -> list[str]:
    """Who is served after whom, one at a time."""
    order: list[str] = []
    while len(order) < len(asks):
        world.queue.release(lease)
        await settle()
        name = next(name for name, ask in asks.items() if ask.done() and name not in order)
        order.append(name)
        lease = asks[name].result()
    return order


async def test_the_clock_of_fairness_goes_with_the_tags_of_those_who_are_served() -> None:
    world = World("a", account_max_inflight=1, account_max_queue=99)
    lease = await world.run(caller="x")
    first = {name: world.ask(caller="x") for name in ("x1", "x2", "x3")}
    await settle()
    for name in ("x1", "x2"):
        world.queue.release(lease)
        await settle()
        lease = first[name].result()
    asks = {"x3": first["x3"], **{name: world.ask(caller="y") for name in ("y1", "y2", "y3")}}
    await settle()
    assert await order_of(world, lease, asks) == ["y1", "x3", "y2", "y3"]


async def test_what_a_caller_used_long_ago_is_forgiven_when_it_comes_again() -> None:
    world = World("a", account_max_inflight=1, account_max_queue=99)
    lease = await world.run(caller="heavy")
    lease.charge(1_000_000)
    asks = {f"y{number}": world.ask(caller="y") for number in range(30)}
    await settle()
    asks["heavy"] = world.ask(caller="heavy")
    await settle()
    assert (await order_of(world, lease, asks)).index("heavy") == 21  # 20 usual requests of lead, and one of the same place


async def test_who_is_served_at_once_moves_the_clock_by_no_more_than_that_either() -> None:
    two = [account("a"), account("b", on="other")]
    world = World(two, [upstream(), upstream("other")], account_max_inflight=1, account_max_queue=99)
    lease = await world.run(caller="heavy", upstreams=("gpu",))
    lease.charge(1_000_000)
    asks = {f"y{number}": world.ask(caller="y", upstreams=("gpu",)) for number in range(30)}
    await settle()
    await world.run(caller="heavy", upstreams=("other",))
    asks["newcomer"] = world.ask(caller="newcomer", upstreams=("gpu",))
    await settle()
    assert (await order_of(world, lease, asks)).index("newcomer") == 21


# Rotation by hand


async def test_the_next_account_is_one_that_may_be_used_and_can_serve() -> None:
    world = World([account("a", disabled=True), account("b"), account("c")], [upstream(direct_token=True)])
    current = world.queue.current()
    assert current is not None
    assert current.account.label == "b"
    await fail(world, 1, fault(ErrorKind.UPSTREAM_AUTH), pin="b")
    current = world.queue.current()
    assert current is not None
    assert current.account.label == "c"
    await fail(world, 1, fault(ErrorKind.UPSTREAM_BILLING, retry_after=50), pin="c")
    assert world.queue.current() is not None  # nobody can serve: whoever is listed


async def test_an_account_in_a_cool_down_is_not_the_current_one() -> None:
    world = World("ab")
    await fail(world, 1, fault(ErrorKind.UPSTREAM_BILLING, retry_after=50), pin="a")
    for _ in range(2):
        current = world.queue.rotate()
        assert current is not None
        assert current.account.label == "b"


# What outlives what


async def test_new_limits_count_at_once() -> None:
    world = World("a", account_max_inflight=1, account_max_queue=5)
    await world.run()
    world.apply(account_max_queue=1)
    world.ask()
    await settle()
    assert (await refusal(world.ask())).kind is ErrorKind.QUEUE_FULL


async def test_a_group_in_use_is_in_use_after_an_edit_too() -> None:
    grouped = [account("a", group="g"), account("b", group="g")]
    world = World(grouped, account_max_inflight=2)
    leases = [await world.run(), await world.run()]
    world.apply()
    assert (await refusal(world.ask(patience=0))).kind is ErrorKind.QUEUE_TIMEOUT
    world.queue.release(leases[0])
    await world.run()
    assert (await refusal(world.ask(patience=0))).kind is ErrorKind.QUEUE_TIMEOUT


async def test_what_a_group_shares_is_handed_over_as_its_own() -> None:
    queue, fresh = SharedQueue(Limits(), clock=Time()), SharedQueue(Limits(), clock=Time())
    for one in (queue, fresh):
        one.apply([upstream()], [account("a", group="g"), account("b", group="g")], Limits())
    lease = await queue.acquire(Want(upstreams=("gpu",), model="m"), 0)
    lease.report(RATE)
    fresh.load(queue.save())
    with pytest.raises(GatewayError) as caught:
        await fresh.acquire(Want(upstreams=("gpu",), model="m"), 0)
    assert caught.value.kind is ErrorKind.MODEL_UNAVAILABLE


async def test_a_group_and_an_account_of_the_same_name_are_two_budgets() -> None:
    world = World([account("a", group="b"), account("b")], account_max_inflight=1)
    world.queue.release(await world.run())
    assert {(await world.run()).account.label, (await world.run()).account.label} == {"a", "b"}
    assert world.queue.capacity == 2


async def test_an_edit_keeps_an_accounts_place_and_gives_it_its_new_shape() -> None:
    world = World("ab", account_max_inflight=1)
    world.accounts = [account("a", max_inflight=3), account("b", weight=2.5)]
    world.apply()
    slots = {slot.account.label: slot for slot in world.queue.slots}
    assert (slots["a"].limit, slots["a"].weight) == (3, 1.0)
    assert slots["b"].weight == 2.5
    assert slots["a"].account.spec == world.accounts[0]
    assert {slot.weight for slot in World([], [upstream()]).queue.slots} == {1.0}


async def test_a_new_credential_clears_the_balance_of_its_budget_and_not_its_rate() -> None:
    world = World("a")
    await fail(world, 1, fault(ErrorKind.UPSTREAM_BILLING, retry_after=500))
    assert (await refusal(world.ask())).kind is ErrorKind.MODEL_UNAVAILABLE
    world.accounts = [account("a", password=Secret("new"))]
    world.apply()
    await fail(world, 1, RATE)
    world.accounts = [account("a", password=Secret("newer"))]
    world.apply()
    assert (await refusal(world.ask(patience=1))).kind is ErrorKind.MODEL_UNAVAILABLE


# Whose word counts for whom


async def test_a_slot_that_the_global_limit_held_back_goes_to_whoever_waits() -> None:
    two = [account("a"), account("b", on="other")]
    world = World(two, [upstream(), upstream("other")], account_max_inflight=1, global_max_inflight=1)
    lease = await world.run(upstreams=("gpu",))
    ask = world.ask(upstreams=("other",))
    await settle()
    world.queue.release(lease)
    await settle()
    assert ask.result().account.label == "b"


async def test_an_answer_clears_what_the_group_had_against_it() -> None:
    world = World([account("a", group="g"), account("b", group="g")], breaker=BreakerSpec(failures=2))
    await fail(world, 1, OVERLOADED)
    end(world, await world.run())
    await fail(world, 1, OVERLOADED)
    assert await world.run()


async def test_faults_without_a_credential_are_counted_one_by_one() -> None:
    world = World([], [upstream()])
    await fail(world, 2, fault(ErrorKind.UPSTREAM_AUTH))
    assert world.queue.slots[0].failures == 2


async def test_moments_that_have_passed_are_forgotten_while_nobody_waits() -> None:
    world = World("a", breaker=BreakerSpec(failures=9))
    for _ in range(3):
        await fail(world, 1, RATE)
        assert now_of(world)["changes_expected"] == 1
        world.time.advance(50)


async def test_a_report_does_not_let_anybody_overtake_those_whose_timer_is_late() -> None:
    world = World("a", account_max_inflight=5, min_request_gap_ms=1000, breaker=BreakerSpec(failures=9))
    lease = await world.run()
    first = world.ask()
    await settle()
    world.time.now += 2  # and no timer has rung
    lease.report(OVERLOADED)
    second = world.ask()
    await settle()
    assert first.done()
    assert not second.done()


async def test_a_probe_that_was_judged_says_nothing_about_the_next_one() -> None:
    world = World("a", account_max_inflight=9)
    await fail(world, 1, fault(ErrorKind.UPSTREAM_AUTH))
    world.time.advance(60)
    first = await world.run()
    first.report(None)
    await fail(world, 1, fault(ErrorKind.UPSTREAM_AUTH))
    world.time.advance(60)
    await world.run()  # the probe of the second time
    world.queue.release(first)
    assert (await refusal(world.ask(patience=0))).kind is ErrorKind.QUEUE_TIMEOUT


@pytest.mark.parametrize("error", [OVERLOADED, fault(), fault(ErrorKind.UPSTREAM_AUTH)])
async def test_a_reset_gives_everything_back_to_those_who_wait(error: GatewayError) -> None:
    world = World([account("a", group="g"), account("b")], account_max_inflight=1, breaker=BreakerSpec(failures=1))
    busy = await world.run(pin="b")
    await fail(world, 1, error, pin="a")
    ask = world.ask()
    await settle()
    assert not ask.done()
    world.queue.reset("account:b")
    await settle()
    assert not ask.done()
    world.queue.reset("account:a")
    await settle()
    assert ask.result().account.label == "a"
    slot = world.queue.slots[0]
    assert (slot.failures, slot.last_error) == (0, None)
    world.queue.release(busy)


@pytest.mark.parametrize(("error", "back"), [(fault(), True), (OVERLOADED, True), (fault(ErrorKind.UPSTREAM_AUTH), False)])
async def test_a_server_that_serves_again_takes_those_who_wait_and_forgives_only_its_own_faults(
    error: GatewayError, back: bool
) -> None:
    world = World("ab", account_max_inflight=1, breaker=BreakerSpec(failures=1))
    await world.run(pin="b")
    await fail(world, 1, error, pin="a")
    ask = world.ask()
    await settle()
    world.queue.recovered("other")
    await settle()
    assert not ask.done()
    world.queue.recovered("gpu")
    await settle()
    assert ask.done() is back


async def test_a_server_says_that_it_is_full_and_that_it_is_not() -> None:
    world = World("a", account_max_inflight=9)
    await world.run()
    assert world.queue.gauged("gpu", Load(running=1, waiting=1)) is True
    assert world.queue.gauged("gpu", None) is False


async def test_second_attempts_go_to_others_busy_ones_too_and_to_the_same_where_none_serves() -> None:
    world = World("ab", account_max_inflight=1)
    busy = await world.run(pin="b")
    ask = world.ask(avoid=("account:a",))
    await settle()
    assert not ask.done()  # b is worth waiting for
    world.queue.release(busy)
    await settle()
    assert ask.result().account.label == "b"
    world = World("ab", breaker=BreakerSpec(failures=1))
    await fail(world, 1, pin="b")
    assert (await world.run(avoid=("account:a",))).account.label == "a"


# Time


async def test_nobody_waits_and_no_timer_stands() -> None:
    world = World("a", min_request_gap_ms=1000)
    world.queue.release(await world.run())
    assert world.time.pending == 0
    ask = world.ask()
    await settle()
    assert world.time.pending == 2  # the end of the gap, and of its patience
    other = world.ask()
    await settle()
    assert world.time.pending == 3
    ask.cancel()
    other.cancel()
    await settle()
    assert world.time.pending == 0


async def test_an_earlier_moment_moves_the_timer() -> None:
    world = World("ab", account_max_inflight=5, breaker=BreakerSpec(failures=9))
    a, b = await world.run(), await world.run()
    a.report(fault(ErrorKind.UPSTREAM_RATE_LIMITED, retry_after=50))
    b.report(fault(ErrorKind.UPSTREAM_RATE_LIMITED, retry_after=50))
    ask = world.ask()
    await settle()
    before = world.time.pending
    late = await world.run(model="other", pin="a")
    late.report(fault(ErrorKind.UPSTREAM_RATE_LIMITED, retry_after=10))
    other = world.ask(model="other", pin="a")
    await settle()
    assert world.time.pending == before + 1  # one for its patience, and none more
    world.time.advance(10)
    await settle()
    assert other.done()
    assert not ask.done()
    world.time.advance(40)
    await settle()
    assert ask.done()


@pytest.mark.parametrize(("count", "told"), [(MAX_LOOKED, 3), (MAX_LOOKED + 1, 2)])
async def test_of_many_accounts_only_those_before_one_that_can_serve_were_skipped(count: int, told: int) -> None:
    """A thousand must not be looked at for each request."""
    world = World([account(f"a{number}") for number in range(count)], account_max_inflight=1)
    for number in range(count):
        lease = await world.run()
        assert lease.account.label == f"a{number}"
        if number not in (0, 1, 9):
            world.queue.release(lease)
    named = [one["account"] for one in skipped(world.queue, world.want())]
    assert named == ["a0", "a1", "a9"][:told]
