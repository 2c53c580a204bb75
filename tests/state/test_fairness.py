"""Who goes first among those who wait."""

from __future__ import annotations

import asyncio

import pytest

from ds2d.state.accounts import Lease
from ds2d.state.fairness import MAX_LEAD, USUAL_COST, DrainRate, FairShare
from tests.state.world import World, settle


async def served(world: World, lease: Lease, asks: dict[str, list[asyncio.Task[Lease]]], turns: int) -> str:
    """Whose requests ran, in order, when one slot is given back again and again."""
    order = ""
    for _ in range(turns):
        world.queue.release(lease)
        await settle()
        for name, tasks in asks.items():
            if tasks and tasks[0].done():
                lease = tasks.pop(0).result()
                order += name
                break
    return order


def crowd(world: World, name: str, count: int, weight: float = 1.0) -> list[asyncio.Task[Lease]]:
    return [world.ask(caller=name, weight=weight) for _ in range(count)]


async def one_slot() -> tuple[World, Lease]:
    world = World(account_max_inflight=1, account_max_queue=1000)
    return world, await world.run(caller="s")


async def test_one_script_with_500_requests_delays_a_person_by_one_slots_time() -> None:
    world, lease = await one_slot()
    asks = {"s": crowd(world, "s", 500)}
    await settle()
    asks["p"] = crowd(world, "p", 1)
    await settle()
    assert world.queue.waiting_by_caller == {"s": 500, "p": 1}
    assert await served(world, lease, asks, 3) == "pss"
    for ask in asks["s"]:
        ask.cancel()
    await settle()


async def test_within_a_caller_it_is_first_come_first_served() -> None:
    world, lease = await one_slot()
    asks = crowd(world, "s", 20)
    await settle()
    for ask in asks:
        world.queue.release(lease)
        await settle()
        assert ask.done()
        lease = ask.result()


async def test_callers_with_as_much_to_ask_take_turns_by_weight() -> None:
    world, lease = await one_slot()
    asks = {"a": crowd(world, "a", 30), "b": crowd(world, "b", 30, weight=3)}
    await settle()
    order = await served(world, lease, asks, 24)
    assert order.count("b") == 18
    for ask in asks["a"] + asks["b"]:
        ask.cancel()
    await settle()


async def test_who_used_many_tokens_lately_comes_after_who_used_few() -> None:
    world, lease = await one_slot()
    lease.charge(5000)
    asks = {"s": crowd(world, "s", 5), "p": crowd(world, "p", 5)}
    await settle()
    assert await served(world, lease, asks, 10) == "pppppsssss"


@pytest.mark.parametrize("how", ["left", "expired"])
async def test_who_left_the_queue_unserved_has_used_nothing(how: str) -> None:
    world, lease = await one_slot()
    gone = [world.ask(patience=10, caller="p") for _ in range(10)]
    asks = {"s": crowd(world, "s", 10)}
    await settle()
    if how == "left":
        for ask in gone:
            ask.cancel()
    else:
        world.time.advance(10)
    await settle()
    assert world.queue.waiting_by_caller == {"s": 10}
    await asyncio.gather(*gone, return_exceptions=True)
    asks["p"] = crowd(world, "p", 1)
    await settle()
    assert "p" in await served(world, lease, asks, 2)
    for ask in asks["s"]:
        ask.cancel()
    await settle()


def test_the_past_holds_nobody_back_for_longer_than_its_bound() -> None:
    share = FairShare()
    share.granted(share.tag("s", 1, True))
    share.settle("s", 1, 10**9)
    assert share.tag("s", 1, True) <= 2 * MAX_LEAD


def test_endless_newcomers_cannot_starve_who_waits() -> None:
    share = FairShare()
    share.granted(share.tag("s", 1, True))
    share.settle("s", 1, 10**9)
    waiting = share.tag("s", 1, True)
    for number in range(10_000):
        newcomer = share.tag(f"n{number}", 1, True)
        if newcomer > waiting:
            break
        share.granted(newcomer)
    assert newcomer > waiting


def test_callers_of_the_past_take_no_memory() -> None:
    share = FairShare()
    for number in range(10_000):
        share.granted(share.tag(f"n{number}", 1, True))
    assert len(share._ends) < 1000


def test_the_drain_rate_is_measured_while_somebody_waits() -> None:
    drain = DrainRate()
    assert drain.wait(3, 2) == 3
    drain.answered(10)
    assert drain.wait(1, 2) == 5
    for now in (0, 4, 8):
        drain.granted(now)
    assert drain.wait(2, 2) == 8
    drain.emptied()
    drain.granted(1000)  # the idle time before says nothing
    assert drain.wait(2, 2) == 8


def test_a_request_is_taken_to_use_the_usual_until_it_is_known() -> None:
    share = FairShare()
    first = share.tag("s", 2, True)
    assert share.tag("s", 2, False) == first + USUAL_COST / 2
