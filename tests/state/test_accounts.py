"""The account queue: who runs, who waits, who is refused, and that nothing is ever lost."""

from __future__ import annotations

import asyncio

import pytest

from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.state.accounts import Lease
from tests.state.world import World, account, settle, upstream


async def refusal(ask: asyncio.Task[Lease]) -> GatewayError:
    await settle()
    assert ask.done(), "it waits"
    error = ask.exception()
    assert isinstance(error, GatewayError)
    return error


async def test_accounts_take_turns() -> None:
    world = World("abc")
    order = []
    for _ in range(7):
        lease = await world.run()
        order.append(lease.account.label)
        world.queue.release(lease)
    assert order == list("abcabca")


async def test_a_busy_account_is_passed_over_and_keeps_its_turn() -> None:
    world = World("ab", account_max_inflight=1)
    first = await world.run()
    second = await world.run()
    world.queue.release(second)
    assert (await world.run()).account.label == "b"
    world.queue.release(first)
    assert (await world.run()).account.label == "a"


async def test_as_many_run_as_there_are_slots_as_many_wait_and_the_next_is_refused_at_once() -> None:
    world = World("ab", account_max_inflight=2)
    running = [await world.run() for _ in range(4)]
    waiting = [world.ask() for _ in range(4)]
    await settle()
    assert (world.queue.running, world.queue.waiting) == (4, 4)
    error = await refusal(world.ask())
    assert error.kind is ErrorKind.QUEUE_FULL
    assert error.retry_after
    for lease in running:
        world.queue.release(lease)
    await settle()
    assert all(ask.done() for ask in waiting)
    assert [ask.result().position for ask in waiting] == [1, 2, 3, 4]


async def test_the_queue_has_its_own_bound_and_the_slots_a_global_one() -> None:
    world = World("ab", account_max_inflight=5, global_max_inflight=3, account_max_queue=1)
    running = [await world.run() for _ in range(3)]
    waiting = world.ask()
    await settle()
    assert (await refusal(world.ask())).kind is ErrorKind.QUEUE_FULL
    world.queue.release(running[0])
    await settle()
    assert waiting.done()
    assert world.queue.running == 3


async def test_a_freed_slot_goes_to_the_first_who_can_use_it() -> None:
    two = [account("a"), account("b", on="other")]
    world = World(two, [upstream(), upstream("other")], account_max_inflight=1, account_max_queue=3)
    on_gpu, on_other = await world.run(upstreams=("gpu",)), await world.run(upstreams=("other",))
    for_gpu, for_other, for_any = world.ask(upstreams=("gpu",)), world.ask(upstreams=("other",)), world.ask()
    await settle()
    world.queue.release(on_other)
    await settle()
    assert (for_gpu.done(), for_other.done(), for_any.done()) == (False, True, False)
    world.queue.release(for_other.result())
    await settle()
    assert (for_gpu.done(), for_any.done()) == (False, True)
    world.queue.release(on_gpu)
    await settle()
    assert for_gpu.done()


async def test_arrival_counts_across_those_who_wait_for_different_accounts() -> None:
    world = World("ab", account_max_inflight=1, account_max_queue=9)
    on_a, _ = await world.run(pin="a"), await world.run(pin="b")
    asks = [world.ask(pin="a"), world.ask(), world.ask(pin="a"), world.ask()]
    for ask in asks:
        await settle()
        world.queue.release(on_a)
        await settle()
        on_a = ask.result()


async def test_a_wait_ends_in_time_and_says_how_long_it_was() -> None:
    world = World(account_max_inflight=1, account_max_queue=9)
    lease = await world.run()
    patient, impatient = world.ask(patience=60), world.ask(patience=10)
    await settle()
    world.time.advance(10)
    error = await refusal(impatient)
    assert (error.kind, error.status) == (ErrorKind.QUEUE_TIMEOUT, 429)
    assert not patient.done()
    world.time.advance(5)
    world.queue.release(lease)
    await settle()
    assert patient.result().waited == 15
    assert world.time.pending == 0


async def test_without_patience_nobody_waits() -> None:
    world = World(account_max_inflight=1)
    await world.run(patience=0)
    assert (await refusal(world.ask(patience=0))).kind is ErrorKind.QUEUE_TIMEOUT


async def test_a_pin_takes_any_of_the_names_and_an_unknown_one_is_refused_without_naming_it() -> None:
    world = World([account("a", email="a@example.com"), account("b")])
    token = world.accounts[1].identifiers[-1]
    for pin, label in (("A@example.com ", "a"), ("b", "b"), (token, "b")):
        assert (await world.run(pin=pin)).account.label == label
    error = await refusal(world.ask(pin="nobody@example.com"))
    assert (error.kind, error.status) == (ErrorKind.MODEL_UNAVAILABLE, 503)
    assert "nobody" not in error.message
    assert error.retry_after


async def test_a_second_attempt_goes_elsewhere_and_back_only_where_there_is_nowhere_else() -> None:
    world = World("ab")
    first = await world.run()
    second = await world.run(avoid=frozenset({first.account.id}))
    assert second.account.label == "b"
    assert (await world.run(avoid=frozenset({first.account.id, second.account.id}))).account.label in ("a", "b")


async def test_an_upstream_without_accounts_counts_as_one_of_64() -> None:
    world = World([account("a")], [upstream(), upstream("plain"), upstream("small", max_inflight=3)])
    assert [(slot.account.label, slot.limit) for slot in world.queue.slots] == [("a", 2), ("plain", 64), ("small", 3)]
    assert world.queue.capacity == 69
    assert (await world.run(upstreams=("plain",))).account.label == "plain"


async def test_an_upstream_whose_only_account_is_disabled_has_no_implicit_one() -> None:
    world = World([account("a", disabled=True)])
    error = await refusal(world.ask())
    assert error.kind is ErrorKind.MODEL_UNAVAILABLE
    assert world.queue.capacity == 0


async def test_callers_with_their_own_token_take_no_slot_of_an_account() -> None:
    world = World("a", [upstream(direct_token=True, max_inflight=1)], account_max_inflight=1)
    lease = await world.run(direct=True)
    assert lease.account.direct
    await world.run()
    assert world.queue.capacity == 1


async def test_among_servers_the_least_loaded_goes_first() -> None:
    world = World([], [upstream("small", max_inflight=2), upstream("large", max_inflight=8)])
    taken = [(await world.run()).account.label for _ in range(10)]
    assert sorted(taken[:5]) == ["large"] * 4 + ["small"]
    assert sorted(taken) == ["large"] * 8 + ["small"] * 2


async def test_weights_share_the_turns_where_routing_is_weighted() -> None:
    world = World([account("a", weight=3), account("b")], routing="weighted", account_max_inflight=100)
    taken = [(await world.run()).account.label for _ in range(40)]
    assert taken.count("a") == 30


async def test_an_account_that_comes_back_gets_no_burst_for_the_time_it_was_away() -> None:
    world = World("ab", account_max_inflight=1)
    away = await world.run()
    for _ in range(20):
        world.queue.release(await world.run())
    world.queue.release(away)
    order = []
    for _ in range(4):
        lease = await world.run()
        order.append(lease.account.label)
        world.queue.release(lease)
    assert order == ["a", "b", "a", "b"]


# The race, pinned


async def test_a_slot_granted_in_the_tick_of_the_cancel_comes_back() -> None:
    world = World(account_max_inflight=1, account_max_queue=9)
    first = await world.run()
    cancelled, patient = world.ask(), world.ask()
    await settle()
    world.queue.release(first)  # grants it; its task has not run since
    cancelled.cancel()
    await settle()
    assert cancelled.cancelled()
    assert patient.done()
    world.queue.release(patient.result())
    assert world.in_use() == {"a": 0}


async def test_a_waiter_cancelled_in_the_tick_before_the_grant_is_passed_over() -> None:
    world = World(account_max_inflight=1, account_max_queue=9)
    first = await world.run()
    cancelled, patient = world.ask(), world.ask()
    await settle()
    cancelled.cancel()  # still stands in its lane
    world.queue.release(first)
    await settle()
    assert patient.done()
    assert world.queue.waiting == 0


async def test_a_waiter_cancelled_in_the_tick_its_time_is_up_leaves_nothing_behind() -> None:
    world = World(account_max_inflight=1)
    lease = await world.run()
    ask = world.ask(patience=5)
    await settle()
    world.time.advance(5)
    ask.cancel()
    await settle()
    assert ask.cancelled()
    world.queue.release(lease)
    assert (world.queue.running, world.queue.waiting) == (0, 0)


async def test_one_who_leaves_frees_its_place() -> None:
    world = World(account_max_inflight=1, account_max_queue=1)
    await world.run()
    ask = world.ask()
    await settle()
    ask.cancel()
    await settle()
    assert world.queue.waiting == 0
    assert world.time.pending == 0
    ask = world.ask()
    await settle()
    assert not ask.done()
    ask.cancel()


# Config changes


async def test_running_leases_are_counted_across_an_edit_and_a_higher_limit_wakes_waiters() -> None:
    world = World("ab", account_max_inflight=1)
    await world.run()
    await world.run()
    ask = world.ask()
    await settle()
    world.apply(account_max_inflight=2)
    await settle()
    assert ask.result().account.label == "a"
    assert world.in_use() == {"a": 2, "b": 1}


async def test_a_lower_limit_lets_leases_run_out_before_anybody_else_runs() -> None:
    world = World(account_max_inflight=3)
    leases = [await world.run() for _ in range(3)]
    world.apply(account_max_inflight=1)
    ask = world.ask()
    for lease in leases[:2]:
        world.queue.release(lease)
        await settle()
        assert not ask.done()
    world.queue.release(leases[2])
    await settle()
    assert ask.done()


async def test_a_removed_account_runs_out_and_counts_again_when_it_comes_back() -> None:
    world = World("ab", account_max_inflight=1)
    lease = await world.run()
    a, b = world.accounts
    world.accounts = [b]
    world.apply()
    assert world.queue.running == 1
    world.accounts = [a, b]
    world.apply()
    assert world.in_use() == {"a": 1, "b": 0}
    world.queue.release(lease)
    assert world.in_use() == {"a": 0, "b": 0}


async def test_those_who_waited_for_an_account_that_went_are_told_at_once() -> None:
    world = World("ab", account_max_inflight=1)
    await world.run(pin="a")
    ask = world.ask(pin="a")
    await settle()
    world.accounts = world.accounts[1:]
    world.apply()
    assert (await refusal(ask)).kind is ErrorKind.MODEL_UNAVAILABLE


async def test_waiters_for_any_account_go_on_to_one_that_was_added() -> None:
    world = World("a", account_max_inflight=1)
    await world.run()
    ask = world.ask()
    await settle()
    world.accounts = [*world.accounts, account("new")]
    world.apply()
    await settle()
    assert ask.result().account.label == "new"


async def test_config_order_is_the_order_of_lists() -> None:
    world = World("abc")
    world.accounts.reverse()
    world.apply()
    assert [slot.account.label for slot in world.queue.slots] == ["c", "b", "a"]


# Groups and gaps


async def test_accounts_of_a_group_share_slots_and_gap() -> None:
    grouped = [account("a", group="company", max_inflight=3), account("b", group="company"), account("c")]
    world = World(grouped, account_max_inflight=2, min_request_gap_ms=2000)
    assert world.queue.capacity == 5
    assert [(await world.run()).account.label for _ in range(2)] == ["a", "c"]
    ask = world.ask(pin="b")
    await settle()
    assert not ask.done()
    world.time.advance(2)
    await settle()
    assert ask.result().waited == 2
    world.time.advance(2)
    assert (await world.run(pin="a")).account.label == "a"
    world.time.advance(2)
    blocked = world.ask(pin="b")
    await settle()
    assert not blocked.done()  # three run on the group
    blocked.cancel()


@pytest.mark.parametrize(("gap", "wait"), [(0, 0.0), (2000, 2.0), (900_000, 600.0)])
async def test_a_gap_that_was_made_shorter_is_waited_for_no_longer(gap: int, wait: float) -> None:
    world = World("a", min_request_gap_ms=600_000, account_max_inflight=10)
    await world.run()
    second = world.ask(patience=3600)
    await settle()
    world.apply(min_request_gap_ms=gap)
    if wait:
        world.time.advance(wait - 0.1)
        await settle()
        assert not second.done()
        world.time.advance(0.1)
    await settle()
    assert second.done()


async def test_a_throttled_request_waits_its_gap_and_is_not_refused() -> None:
    world = World("a", min_request_gap_ms=2000, account_max_inflight=10)
    await world.run()
    asks = [world.ask() for _ in range(3)]
    await settle()
    for done in range(3):
        assert sum(ask.done() for ask in asks) == done
        world.time.advance(2)
        await settle()
    assert [ask.result().waited for ask in asks] == [2, 4, 6]


async def test_nobody_overtakes_when_the_timer_is_late() -> None:
    world = World("ab", min_request_gap_ms=2000, account_max_inflight=10)
    await world.run()
    await world.run()
    first = world.ask()
    await settle()
    world.time.now += 2  # time has passed, no timer has run
    second = await world.run(pin="b")
    await settle()
    assert first.done()
    assert (first.result().account.label, second.account.label) == ("a", "b")


# What people see


async def test_rotate_moves_on_to_the_following_account() -> None:
    world = World("abc")
    current = world.queue.current()
    assert current is not None
    assert current.account.label == "a"
    following = world.queue.rotate()
    assert following is not None
    assert following.account.label == "b"
    assert (await world.run()).account.label == "b"
    alone = World("a")
    same = alone.queue.rotate()
    assert same is not None
    assert same.account.label == "a"


async def test_the_expected_wait_comes_from_how_fast_the_queue_moves() -> None:
    world = World(account_max_inflight=1, account_max_queue=4)
    lease = await world.run()
    asks = [world.ask(patience=1000) for _ in range(4)]
    await settle()
    for ask in asks[:2]:
        world.time.advance(8)
        world.queue.release(lease)
        await settle()
        lease = ask.result()
    more = [world.ask(patience=1000) for _ in range(2)]
    await settle()
    error = await refusal(world.ask())
    assert error.retry_after == pytest.approx(5 * 8)
    for ask in more + asks[2:]:
        ask.cancel()
