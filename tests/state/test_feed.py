"""The one stream of changes: what a watcher gets, what one who comes back gets, and what watching costs."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from typing import Any

import pytest

from ds2d.state import feed as module
from ds2d.state.feed import Feed, Message, State, difference


class World:
    """A state to look at, and a clock that moves only by sleeping and by looking."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, cost: float = 0.0) -> None:
        self.state: State = {"a": {"x": 1}}
        self.now = 0.0
        self.looks = 0
        self.cost = cost
        self.feed = Feed(self.look, lambda: self.now, "me")
        real = asyncio.sleep

        async def sleep(seconds: float) -> None:
            self.now += seconds
            await real(0)

        monkeypatch.setattr(module.asyncio, "sleep", sleep)

    def look(self) -> State:
        self.looks += 1
        self.now += self.cost
        return {topic: dict(values) for topic, values in self.state.items()}

    async def some(self, count: int, last: str = "", change: Any = None) -> list[Message]:
        found: list[Message] = []
        async with aclosing(self.feed.follow(last)) as messages:
            async for message in messages:
                found.append(message)
                if len(found) == count:
                    return found
                if change:
                    change(len(found))
        raise AssertionError


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


async def test_the_state_comes_first_and_then_only_what_differs(world: World) -> None:
    def change(count: int) -> None:
        world.state = [{"a": {"x": 2}, "b": {"y": 0}}, {"b": {}}][count - 1]

    messages = await world.some(3, change=change)
    assert [message.event for message in messages] == ["snapshot", "delta", "delta"]
    assert json.loads(messages[1].data) == {"a": {"x": 2}, "b": {"y": 0}}
    assert json.loads(messages[2].data) == {"b": {"y": None}, "a": {"x": None}}


async def test_who_comes_back_gets_what_was_missed_also_while_nobody_watched(world: World) -> None:
    [first] = await world.some(1)
    world.state, world.now = {"a": {"x": 7}}, 100.0
    [missed] = await world.some(1, first.id)
    assert (missed.event, json.loads(missed.data)) == ("delta", {"a": {"x": 7}})


@pytest.mark.parametrize("last", ["other-1", "me-99", "me-", "me-x", "me-²", "nonsense", "me-" + "9" * 40])
async def test_an_id_that_is_none_of_ours_gets_the_whole_state(world: World, last: str) -> None:
    [first] = await world.some(1, last)
    assert first.event == "snapshot"


async def test_what_is_kept_is_bounded_and_a_watcher_too_far_behind_gets_the_whole_state(world: World) -> None:
    [first] = await world.some(1)
    for number in range(module.KEPT + 5):
        world.state, world.now = {"a": {"x": number + 2}}, world.now + 10
        await world.some(1, first.id)
    assert (await world.some(1, first.id))[0].event == "snapshot"
    size = world.feed.sizes()["deltas_bytes"]
    assert 0 < size.now <= size.bound


async def test_a_look_is_shared_and_what_it_costs_decides_when_the_next_one_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, cost=0.05)

    def change(_count: int) -> None:
        world.state = {"a": {"x": world.now}}

    await asyncio.gather(world.some(4, change=change), world.some(4, change=change))
    assert world.looks * world.cost / world.now <= 1.5 / module.SHARE * world.looks / (world.looks - 1)


def test_the_difference_of_equal_states_is_nothing() -> None:
    assert difference({"a": {"x": [1]}}, {"a": {"x": [1]}}) == {}
