"""Several servers of one model: the least loaded by its gauges, none that makes requests wait, the one that has the prefix."""

from __future__ import annotations

from typing import Any

import pytest

from ds2d.config.schema import Affinity
from ds2d.core.load import Load
from ds2d.state.explain import skipped
from tests.state.world import World, account, settle, upstream


def servers(count: int = 2, *, limit: int = 64, **limits: Any) -> World:
    return World([], [upstream(name, max_inflight=limit) for name in "abcdefgh"[:count]], **limits)


async def where(world: World, times: int = 1, **want: str) -> str:
    """The servers that the next requests go to, joined."""
    return "".join([(await world.run(**want)).account.upstream for _ in range(times)])


# By its own gauges


async def test_others_who_use_a_server_count() -> None:
    world = servers()
    world.queue.gauged("a", Load(running=3))
    assert await where(world, 5) == "bbbab"


async def test_between_two_looks_our_own_leases_correct_the_gauges() -> None:
    world = servers()
    ours = [await world.run(prefer="a") for _ in range(2)]
    world.queue.gauged("a", Load(running=2))  # both of them ours
    assert world.queue.inflight("a") == 2
    for lease in ours:
        world.queue.release(lease)
    assert sorted(await where(world, 2)) == ["a", "b"]


async def test_a_gauge_that_has_not_seen_our_requests_yet_is_no_sign_of_room() -> None:
    world = servers()
    for _ in range(4):
        await world.run()
    world.queue.gauged("a", Load(running=0))
    assert sorted(await where(world, 4)) == ["a", "a", "b", "b"]


async def test_a_request_that_ended_while_the_gauges_were_read_is_nobody_elses() -> None:
    world = servers()
    world.queue.gauged("a", Load(running=2), 2)
    assert await where(world, 2) == "ab"


async def test_a_server_that_says_nothing_any_more_counts_by_our_leases() -> None:
    world = servers()
    world.queue.gauged("a", Load(running=3))
    world.queue.gauged("a", None)
    assert await where(world, 2) == "ab"


async def test_weighted_routing_takes_turns_whatever_the_gauges_say() -> None:
    world = servers(routing="weighted")
    world.queue.gauged("a", Load(running=30))
    assert await where(world, 4) == "abab"


async def test_running_leases_stay_counted_over_an_edit() -> None:
    world = servers()
    await where(world, 3)
    world.apply(account_max_inflight=5)
    assert (world.queue.inflight("a"), world.queue.inflight("b")) == (2, 1)
    world.upstreams = world.upstreams[:1]
    world.apply()
    assert (world.queue.inflight("a"), world.queue.inflight("b")) == (2, 0)


# Held here rather than there


async def test_while_a_server_makes_requests_wait_the_next_ones_wait_here() -> None:
    world = servers(1)
    ours = [await world.run() for _ in range(5)]
    assert world.queue.gauged("a", Load(running=3, waiting=2))  # look again soon
    waiting = world.ask()
    await settle()
    assert not waiting.done()
    assert skipped(world.queue, world.want()) == [{"account": "a", "reason": "its server makes requests wait"}]
    for lease in ours[:2]:
        world.queue.release(lease)
        await settle()
        assert not waiting.done()  # those two made room for the two that wait there
    world.queue.release(ours[2])
    await settle()
    assert waiting.done()


async def test_held_requests_go_to_a_server_that_has_room() -> None:
    world = servers()
    await where(world, 10)
    world.queue.gauged("a", Load(running=4, waiting=1))
    assert await where(world, 3) == "bbb"
    assert skipped(world.queue, world.want()) == [{"account": "a", "reason": "its server makes requests wait"}]


async def test_a_look_that_finds_room_lets_those_held_go_little_by_little() -> None:
    world = servers(1)
    for _ in range(18):
        await world.run()
    world.queue.gauged("a", Load(running=16, waiting=2))
    waiting = [world.ask() for _ in range(8)]
    await settle()
    assert world.queue.gauged("a", Load(running=16, waiting=2))
    world.queue.gauged("a", Load(running=18))
    await settle()
    assert sum(ask.done() for ask in waiting) == 2  # an eighth more, not all at once
    world.queue.gauged("a", Load(running=20))
    await settle()
    assert sum(ask.done() for ask in waiting) == 4


async def test_one_of_ours_may_always_be_there_whoever_fills_the_server() -> None:
    world = servers(1)
    world.queue.gauged("a", Load(running=200, waiting=50))
    lease = await world.run()
    waiting = world.ask()
    await settle()
    assert not waiting.done()
    world.queue.release(lease)
    await settle()
    assert waiting.done()


async def test_the_room_that_one_account_makes_may_be_another_ones() -> None:
    """What was released has its request gap still to go; the server has room now, and its other account is ready."""
    world = World([account("x", max_inflight=5), account("y", max_inflight=5)], min_request_gap_ms=1000)
    first, _ = await world.run(), await world.run()
    world.time.advance(1)
    later = await world.run()
    assert (first.account.label, later.account.label) == ("x", "x")
    world.queue.gauged("gpu", Load(running=2, waiting=1))
    waiting = world.ask()
    await settle()
    world.queue.release(later)
    await settle()
    assert not waiting.done()
    world.queue.release(first)
    await settle()
    assert (await waiting).account.label == "y"


# Where the prefix is


async def test_the_server_that_knows_the_conversation_goes_first() -> None:
    world = servers()
    assert await where(world, 4, prefer="b") == "bbbb"


@pytest.mark.parametrize("limit", [64, 16])
async def test_company_is_no_reason_to_leave_until_the_ceiling_is_reached(limit: int) -> None:
    world = servers(limit=limit)
    spare = limit // 8
    taken = await where(world, 60 if limit == 64 else 12, prefer="a")
    first = taken.index("b")
    assert first > spare
    load_a, load_b = taken.count("a"), taken.count("b")
    assert load_a <= (load_a + load_b) / 2 * 1.25 + spare + 1


async def test_a_higher_ceiling_keeps_conversations_together_longer() -> None:
    taken = [await where(servers(limit=16, affinity=Affinity(load_ceiling=ceiling)), 15, prefer="a") for ceiling in (1, 2, 100)]
    assert [one.count("a") for one in taken] == sorted(one.count("a") for one in taken)
    assert taken[0].count("a") < taken[2].count("a") == 15


async def test_a_full_server_is_left_even_by_those_it_knows() -> None:
    world = servers()
    await where(world, 4)
    world.queue.gauged("a", Load(running=1, waiting=1))
    assert await where(world, 1, prefer="a") == "b"


async def test_a_server_that_is_not_among_the_wanted_is_no_preference() -> None:
    world = servers()
    assert await where(world, 2, prefer="gone") == "ab"


async def test_order_in_the_queue_does_not_depend_on_preference() -> None:
    world = servers(limit=1)
    held = [await world.run(), await world.run()]
    first, second = world.ask(prefer="b"), world.ask(prefer="a")
    await settle()
    world.queue.release(held[0])  # of a
    await settle()
    assert (first.done(), second.done()) == (True, False)
