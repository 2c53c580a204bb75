"""Stored responses: whose they are, how long they stay, how much room they take, what a chain holds."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.events import Reasoning, Text, ToolArgs, ToolEnd, ToolStart
from ds2d.core.letting_go import AT_ONCE
from ds2d.dialects import openai_responses
from ds2d.state import response_routes as routes
from ds2d.state import responses
from ds2d.state.responses import MANY_ITEMS, Entry, Limits, Segment, prepare, stored_item
from tests.dialects.responses_kit import validate_response
from tests.state.responses_world import STOP, World


def body(world: World, name: str, caller: str = "me") -> dict[str, Any]:
    value: dict[str, Any] = orjson.loads(routes.retrieve(world.store, caller, name))
    return value


def missing(world: World, name: str, caller: str = "me") -> None:
    """It is not there, and says so as an unknown id does."""
    with pytest.raises(GatewayError) as caught:
        routes.retrieve(world.store, caller, name)
    assert (caught.value.status, caught.value.row.openai_code) == (404, "response_not_found")
    assert caught.value.message == f"Response with id {name!r} was not found."


def roles(world: World, previous: str, **more: Any) -> list[tuple[str, Any]]:
    request = world.envelope("me", previous_response_id=previous, **more).request
    return [(message["role"], message.get("content")) for message in request.messages]


def test_what_was_answered_is_found_as_it_was_sent() -> None:
    world = World()
    name = world.answered("forty-two", metadata={"a": "b"})
    found = body(world, name)
    validate_response(found)
    assert found["id"] == name
    assert found["output"][0]["content"][0]["text"] == "forty-two"
    assert found["metadata"] == {"a": "b"}


def test_foreign_unknown_deleted_and_expired_look_the_same() -> None:
    world = World(ttl_seconds=900)
    name = world.answered()
    missing(world, name, caller="you")
    missing(world, "resp_unknown")
    routes.delete(world.store, "me", name)
    missing(world, name)
    name = world.answered()
    world.now += 899.9
    assert body(world, name)["id"] == name
    world.now += 0.1
    missing(world, name)
    assert (world.store.bytes, len(world.store)) == (0, 0)


def test_deleting_says_what_was_deleted_and_only_to_its_owner() -> None:
    world = World()
    name = world.answered()
    with pytest.raises(GatewayError):
        routes.delete(world.store, "you", name)
    assert orjson.loads(routes.delete(world.store, "me", name)) == {"id": name, "object": "response", "deleted": True}
    with pytest.raises(GatewayError):
        routes.delete(world.store, "me", name)


def test_a_new_lifetime_holds_for_what_is_stored_already() -> None:
    world = World(ttl_seconds=900)
    old = world.answered()
    world.now += 100
    new = world.answered()
    world.store.apply(Limits(ttl_seconds=60))
    missing(world, old)
    world.store.apply(Limits(ttl_seconds=3600))
    world.now += 3000
    assert body(world, new)


def test_store_false_is_respected() -> None:
    world = World()
    missing(world, world.answered(store=False))
    assert world.store.bytes == 0


def test_the_oldest_goes_when_room_is_needed() -> None:
    world = World(max_bytes=100_000)
    names = [world.answered("x" * 20_000) for _ in range(10)]
    assert world.store.bytes <= 100_000
    kept = [name for name in names if world.store.find("me", name)]
    assert kept == names[-len(kept) :]
    assert len(kept) == 4
    world.store.apply(Limits(max_bytes=50_000))
    assert [name for name in names if world.store.find("me", name)] == names[-2:]


def test_one_that_is_too_large_costs_nobody_else_its_place() -> None:
    world = World(max_bytes=50_000)
    name = world.answered()
    large = world.answered("x" * 60_000)
    missing(world, large)
    assert body(world, name)


def test_the_count_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ds2d.state.responses.MAX_COUNT", 3)
    world = World()
    names = [world.answered() for _ in range(5)]
    assert [name for name in names if world.store.find("me", name)] == names[2:]


# Chains --------------------------------------------------------------------------------------------------------------


def test_a_chain_holds_all_items_and_none_of_the_old_instructions() -> None:
    world = World()
    first = world.answered("one", input="1", instructions="Old.")
    second = world.answered("two", input="2", previous_response_id=first, instructions="Newer.")
    history = [("user", "1"), ("assistant", "one"), ("user", "2"), ("assistant", "two")]
    assert roles(world, second, input="3", instructions="New.") == [("system", "New."), *history, ("user", "3")]
    assert roles(world, first, input="2b") == [*history[:2], ("user", "2b")]


def test_a_chain_survives_its_predecessors() -> None:
    world = World(ttl_seconds=900)
    first = world.answered("one", input="1")
    second = world.answered("two", input="2", previous_response_id=first)
    routes.delete(world.store, "me", first)
    world.now += 600
    third = world.answered("three", input="3", previous_response_id=second)
    world.now += 600
    missing(world, second)
    assert [said for _, said in roles(world, third, input="4")] == ["1", "one", "2", "two", "3", "three", "4"]


def test_a_chain_whose_predecessor_goes_while_it_is_answered() -> None:
    world = World()
    first = world.answered("one", input="1")
    made = world.envelope("me", previous_response_id=first, input="2")
    routes.delete(world.store, "me", first)
    openai_responses.Encoder(made).feed([Text("two"), STOP])
    world.store.put("me", made.request.reply)
    assert [said for _, said in roles(world, made.request.reply.id, input="3")] == ["1", "one", "2", "two", "3"]


def test_a_foreign_response_cannot_be_chained() -> None:
    world = World()
    first = world.answered(caller="you")
    with pytest.raises(GatewayError) as caught:
        world.envelope("me", previous_response_id=first)
    assert caught.value.kind is ErrorKind.PREVIOUS_RESPONSE_NOT_FOUND


def test_a_long_chain_costs_its_own_pieces_only() -> None:
    world = World()
    name = world.answered("x" * 10_000)
    alone = world.store.bytes
    for _ in range(50):
        name = world.answered("x" * 10_000, previous_response_id=name)
    assert world.store.bytes < 51 * alone * 1.2


@pytest.mark.parametrize("mode", ["summary", "text", "off"])
def test_reasoning_and_calls_come_back_in_a_chain(mode: str) -> None:
    world = World()
    made = world.envelope("me", tools=[{"type": "custom", "name": "patch"}])
    made.settings = {"responses.reasoning_events": mode}
    call = [ToolStart(0, "c1", "patch"), ToolArgs(0, '{"input": "a\\nb"}'), ToolEnd(0)]
    openai_responses.Encoder(made).feed([Reasoning("think"), *call, STOP])
    world.store.put("me", made.request.reply)
    shown = body(world, made.request.reply.id)["output"]
    assert ("reasoning" in [item["type"] for item in shown]) == (mode != "off")
    output = [{"type": "custom_tool_call_output", "call_id": "c1", "output": "ok"}]
    request = world.envelope("me", previous_response_id=made.request.reply.id, input=output).request
    assert request.messages[1]["reasoning_content"] == "think"
    assert orjson.loads(request.messages[1]["tool_calls"][0]["function"]["arguments"]) == {"input": "a\nb"}


# Items ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["in the index", "in sets of their own"])
def _places(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the item ids of a response are: those of one with few items, and with many."""
    if request.param != "in the index":
        monkeypatch.setattr(responses, "MANY_ITEMS", 1)


@pytest.mark.usefixtures("_places")
def test_items_are_found_by_their_own_id_by_their_owner() -> None:
    world = World()
    name = world.answered("said")
    message = body(world, name)["output"][0]
    assert world.store.recall("me", message["id"]) == message
    assert world.store.recall("you", message["id"]) is None
    own = orjson.loads(routes.input_items(world.store, "me", name, {}))["data"][0]
    found = world.store.recall("me", own["id"])
    assert isinstance(found, dict)
    assert found["content"] == [{"type": "input_text", "text": "hi"}]
    routes.delete(world.store, "me", name)
    assert world.store.recall("me", message["id"]) is None


@pytest.mark.usefixtures("_places")
def test_an_item_that_was_referred_to_lives_on_in_the_later_response() -> None:
    world = World(ttl_seconds=900)
    message = body(world, world.answered("said"))["output"][0]
    world.now += 600
    world.answered("later", input=[{"type": "item_reference", "id": message["id"]}, {"role": "user", "content": "go on"}])
    world.now += 600
    assert world.store.recall("me", message["id"]) == message


@pytest.mark.parametrize("many", [[1], [2], [1, 2], []])
def test_of_an_item_that_came_twice_the_later_one_is_found(monkeypatch: pytest.MonkeyPatch, many: list[int]) -> None:
    """However many items its responses have."""
    world = World()
    for turn in (1, 2):
        monkeypatch.setattr(responses, "MANY_ITEMS", 1 if turn in many else 1000)
        world.answered("said", input=[{"role": "user", "content": f"take {turn}", "id": "msg_own"}])
        world.now += 1
    found = world.store.recall("me", "msg_own")
    assert isinstance(found, dict)
    assert found["content"][0]["text"] == "take 2"


def pages(world: World, name: str, **query: str) -> tuple[list[str], bool]:
    page = orjson.loads(routes.input_items(world.store, "me", name, query))
    assert page["object"] == "list"
    ids = [item["id"] for item in page["data"]]
    assert (page["first_id"], page["last_id"]) == ((ids[0], ids[-1]) if ids else (None, None))
    return ids, page["has_more"]


def test_input_items_come_in_pages() -> None:
    world = World()
    items = [{"role": "user", "content": str(n), "id": f"msg_{n}"} for n in range(25)]
    name = world.answered(input=items)
    ids = [item["id"] for item in items]
    assert pages(world, name) == (ids[:4:-1], True)
    assert pages(world, name, after="msg_5") == (ids[4::-1], False)
    assert pages(world, name, order="asc", limit="100") == (ids, False)
    assert pages(world, name, order="asc", limit="2", after="msg_3") == (["msg_4", "msg_5"], True)
    assert pages(world, name, order="asc", after="msg_24") == ([], False)


@pytest.mark.parametrize("query", [{"limit": "0"}, {"limit": "101"}, {"limit": "x"}, {"order": "up"}, {"after": "msg_unknown"}])
def test_bad_pages_are_refused(query: dict[str, str]) -> None:
    world = World()
    name = world.answered()
    with pytest.raises(GatewayError) as caught:
        routes.input_items(world.store, "me", name, query)
    assert (caught.value.status, caught.value.param) == (400, next(iter(query)))


def test_input_items_are_whole_items() -> None:
    numbers = iter("123")
    new_id = lambda prefix: prefix + next(numbers)  # noqa: E731
    said = {"type": "message", "role": "assistant", "content": "x"}
    part = {"type": "output_text", "text": "x", "annotations": [], "logprobs": []}
    assert stored_item(said, new_id) == said | {"id": "msg_1", "status": "completed", "content": [part]}
    reasoning = {"type": "reasoning", "summary": []}
    assert stored_item(reasoning, new_id) == reasoning | {"id": "rs_2"}
    own = {"type": "function_call", "id": "fc_own", "status": "incomplete"}
    assert stored_item(own, new_id) == own


def test_input_items_have_this_dialects_parts_whatever_spelling_came() -> None:
    world = World()
    picture = "data:image/png;base64,iVBORw0KGgo="
    file = {"filename": "a.txt", "file_data": "data:text/plain;base64,eA=="}
    chat = [
        {"type": "text", "text": "look"},
        {"type": "image_url", "image_url": {"url": picture, "detail": "low"}},
        {"type": "image_url", "image_url": picture},
        {"type": "file", "file": file},
        "bare",
        {"type": "input_text", "text": "own"},
    ]
    own = [
        {"type": "input_text", "text": "look"},
        {"type": "input_image", "image_url": picture, "detail": "low"},
        {"type": "input_image", "image_url": picture},
        {"type": "input_file"} | file,
        {"type": "input_text", "text": "bare"},
        {"type": "input_text", "text": "own"},
    ]
    messages = [
        {"role": "user", "content": chat},
        {"role": "assistant", "content": [{"type": "text", "text": "I look."}]},
        {"role": "user", "content": "more"},
    ]
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
    output = {"type": "function_call_output", "call_id": "c", "output": chat[:2]}
    for question in ({"input": None, "messages": messages}, {"input": [*messages, call, output]}):
        name = world.answered(**question)
        listed = orjson.loads(routes.input_items(world.store, "me", name, {"order": "asc"}))["data"]
        assert listed[0]["content"] == own
        assert listed[1]["content"] == [{"type": "output_text", "text": "I look.", "annotations": [], "logprobs": []}]
        assert listed[2]["content"] == [{"type": "input_text", "text": "more"}]
        came = world.envelope("me", **question).request.messages[0]["content"]
        again = world.envelope("me", previous_response_id=name).request.messages[0]["content"]
        assert again == came
    assert listed[4]["output"] == own[:2]


# Any sequence --------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.sampled_from(["put", "chain", "delete", "wait", "shrink"]), st.integers(0, 5)), max_size=30))
def test_the_gauge_is_the_sum_of_what_is_there(steps: list[tuple[str, int]]) -> None:
    world = World(ttl_seconds=60, max_bytes=20_000)
    names: list[str] = []
    for step, number in steps:
        there = [name for name in names if world.store.find("me", name)]
        if step == "put":
            names.append(world.answered("x" * 100 * number))
        elif step == "chain" and there:
            names.append(world.answered("y" * 100 * number, previous_response_id=there[number % len(there)]))
        elif step == "delete" and there:
            routes.delete(world.store, "me", there[number % len(there)])
        elif step == "wait":
            world.now += 10 * number
        elif step == "shrink":
            world.store.apply(Limits(ttl_seconds=60, max_bytes=4_000 * (number + 1)))
        assert world.store.bytes == counted(list(world.store.entries))
        assert world.store.bytes <= 24_000
        held = {(entry.caller, item) for entry in world.store.entries for item in entry.item_ids}
        assert set(world.store._by_item) == held
        assert not world.store._large


def test_a_response_of_many_items_takes_its_set_along() -> None:
    world = World()
    name = world.answered("said", input=[{"role": "user", "content": "x"}] * MANY_ITEMS)
    assert (len(world.store._large["me", name]), len(world.store._by_item)) == (MANY_ITEMS + 1, 0)
    routes.delete(world.store, "me", name)
    assert (world.store._large, world.store._by_item, world.store.bytes) == ({}, {}, 0)


def counted(entries: list[Entry]) -> int:
    pieces: dict[int, Segment] = {id(piece): piece for entry in entries for piece in (*entry.chain, entry.output)}
    return sum(entry.weight for entry in entries) + sum(piece.weight for piece in pieces.values())


@pytest.mark.parametrize("count", [0, 1, 3, AT_ONCE, AT_ONCE * 2 + 1])
def test_items_that_were_written_before_are_stored_like_others(count: int) -> None:
    world = World()
    said = [{"role": "user", "content": f"What is {number}?"} for number in range(count)] + [{"role": "user", "content": "Hi"}]
    replies = [world.envelope("me", input=said).request.reply for _ in range(2)]
    prepare(replies[0])
    stored = [world.store._entry("me", reply) for reply in replies]
    with_ids = [orjson.loads(entry.own.data) for entry in stored]
    for items, entry in zip(with_ids, stored, strict=True):
        assert tuple(item.pop("id") for item in items) == entry.item_ids
        assert len(set(entry.item_ids)) == count + 1
    assert with_ids[0] == with_ids[1]


def test_what_is_restored_twice_is_counted_once() -> None:
    """Two requests at a process that follows fetch the same response at once."""
    world = World()
    world.answered("yes", input="x" * 1000)
    (entry,), size = list(world.store.entries), world.store.bytes
    world.store.delete("me", entry.id)
    for _ in range(2):
        segments = {id(one): Segment(one.data) for one in (*entry.chain, entry.output)}
        own, memory, output = (segments[id(one)] for one in (entry.own, entry.memory, entry.output))
        again = Entry("resp_1", "me", "completed", False, entry.head, own, output, memory, (), entry.item_ids)
        world.store.restore(again, 0)
    assert (len(world.store), world.store.bytes) == (1, size)
    world.store.delete("me", "resp_1")
    assert (len(world.store), world.store.bytes) == (0, 0)
