"""What the tests of the Responses dialect share: envelopes with known ids, and a strict checker of event streams.

The checker is written from openai-responses.md 5 and 6 and knows nothing of the encoder. It also feeds every event and the
final object to the official SDK's types.
"""

from __future__ import annotations

import itertools
import typing
from typing import Any

import msgspec
import orjson
from openai.types.responses import Response, ResponseStreamEvent

from ds2d.core.events import Event
from ds2d.core.request import Envelope, Inbound
from ds2d.dialects import openai_responses

Event_ = dict[str, Any]
TERMINAL = {"response.completed", "response.incomplete", "response.failed"}
LIFECYCLE = TERMINAL | {"response.created", "response.queued", "response.in_progress"}


def envelope(body: dict[str, Any], inbound: dict[str, Any] | None = None, **rest: Any) -> Envelope:
    """An envelope for this body, with ids that count up."""
    request = openai_responses.parse(Inbound({"model": "m", "input": "hi"} | body, **(inbound or {})))
    numbers = itertools.count(1)
    return Envelope(
        request, "m", "req_1", 1_700_000_000, lambda prefix: f"{prefix}{next(numbers):024d}", lambda: 1_700_000_009, **rest
    )


def stream(events: list[Event], body: dict[str, Any] | None = None, **rest: Any) -> bytes:
    """What a client gets for these events."""
    return openai_responses.Encoder(envelope(body or {}, **rest)).feed(events)


def frames(data: bytes) -> list[tuple[str, Any]]:
    """The (event name, data) pairs of a stream; comments are skipped, the end mark is ("", "[DONE]")."""
    found: list[tuple[str, Any]] = []
    assert data.endswith(b"\n\n")
    for block in data.decode().split("\n\n")[:-1]:
        lines = block.split("\n")
        if block.startswith(":"):
            continue
        if len(lines) == 1:
            assert lines[0] == "data: [DONE]"
            found.append(("", "[DONE]"))
            continue
        assert len(lines) == 2
        assert lines[0].startswith("event: ")
        assert lines[1].startswith("data: ")
        found.append((lines[0][7:], orjson.loads(lines[1][6:])))
    return found


class Checked(msgspec.Struct):
    """A stream that follows the contract: its events, and the response of the last one."""

    events: list[Event_]
    response: dict[str, Any]

    def types(self) -> list[str]:
        return [event["type"].removeprefix("response.") for event in self.events]

    def of(self, kind: str) -> list[Event_]:
        return [event for event in self.events if event["type"] == "response." + kind]


def check(data: bytes) -> Checked:
    """Fail unless this is a whole stream as the contract has it."""
    pairs = frames(data)
    assert pairs[-1] == ("", "[DONE]"), "[DONE] ends the stream"
    assert [name for name, _ in pairs].count("") == 1
    events = [event for _, event in pairs[:-1]]
    for position, (name, event) in enumerate(pairs[:-1]):
        assert event["type"] == name
        assert event["sequence_number"] == position, "numbers from 0, without gaps"
    first, last = events[0], events[-1]
    assert first["type"] == "response.created"
    assert first["id"] == first["response"]["id"]
    assert first["status"] == first["response"]["status"]
    assert last["type"] in TERMINAL
    assert sum(event["type"] in TERMINAL for event in events) == 1, "exactly one terminal event"
    _check_start(events)
    items = _Items(first["response"]["id"])
    for event in events:
        if event["type"] not in LIFECYCLE:
            items.take(event)
        else:
            assert event["response"]["id"] == first["response"]["id"]
    assert items.open is None, "every item is closed"
    assert last["response"]["output"] == items.done, "the final output is the done items, same order and ids"
    _check_ending(last)
    for event in events:
        validate_event(event)
    validate_response(last["response"])
    return Checked(events, last["response"])


def _check_start(events: list[Event_]) -> None:
    kinds = [event["type"] for event in events]
    began = "response.in_progress" in kinds
    if events[0]["response"]["status"] == "queued":
        assert kinds[:2] == ["response.created", "response.queued"]
        assert not began or kinds[2] == "response.in_progress"
    else:
        assert kinds[:2] == ["response.created", "response.in_progress"]
    for event in events[:3]:
        if event["type"] in LIFECYCLE - TERMINAL:
            assert event["response"]["output"] == []
            assert event["response"]["usage"] is None


def _check_ending(last: Event_) -> None:
    response = last["response"]
    kind = last["type"].removeprefix("response.")
    assert response["status"] == kind or (kind == "failed" and response["status"] == "cancelled")
    assert (response["error"] is not None) == (response["status"] == "failed")
    assert (response["incomplete_details"] is not None) == (kind == "incomplete")
    assert (response["completed_at"] is not None) == (kind == "completed")
    if kind in ("completed", "incomplete"):
        usage = response["usage"]
        assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
        assert response["output"], "an answer has at least one item"


class _Items:
    """Follows one item after the other, and folds their events."""

    def __init__(self, response_id: str) -> None:
        self.response_id = response_id
        self.done: list[Event_] = []
        self.open: Event_ | None = None
        self.part: Event_ | None = None
        self.parts: list[Event_] = []
        self.text = ""
        self.logprobs: list[Any] = []
        self.text_done = True
        self.ids: set[str] = set()

    def take(self, event: Event_) -> None:
        kind = event["type"].removeprefix("response.")
        assert event["response_id"] == self.response_id
        assert "status" not in event
        assert event["output_index"] == len(self.done)
        if kind == "output_item.added":
            self._added(event["item"])
        elif kind == "output_item.done":
            self._item_done(event["item"])
        else:
            assert self.open is not None, f"{kind} outside an item"
            assert event["item_id"] == self.open["id"]
            {
                "content_part.added": self._part_added,
                "content_part.done": self._part_done,
                "reasoning_summary_part.added": self._part_added,
                "reasoning_summary_part.done": self._part_done,
                "output_text.delta": self._delta,
                "refusal.delta": self._delta,
                "reasoning_summary_text.delta": self._delta,
                "reasoning_text.delta": self._delta,
                "function_call_arguments.delta": self._delta,
                "custom_tool_call_input.delta": self._delta,
                "output_text.done": self._text_done,
                "refusal.done": self._text_done,
                "reasoning_summary_text.done": self._text_done,
                "reasoning_text.done": self._text_done,
                "function_call_arguments.done": self._text_done,
                "custom_tool_call_input.done": self._text_done,
            }[kind](event)

    def _added(self, item: Event_) -> None:
        assert self.open is None, "an item is closed before the next opens"
        assert item["id"] not in self.ids, "ids are not used twice"
        self.ids.add(item["id"])
        if item["type"] != "reasoning":
            assert item["status"] == "in_progress"
        empty = {"message": ("content", []), "reasoning": ("summary", []), "function_call": ("arguments", "")}
        empty["custom_tool_call"] = ("input", "")
        if item["type"] in empty:
            key, value = empty[item["type"]]
            assert item[key] == value
        self.open, self.parts, self.part, self.text = item, [], None, ""
        self.text_done = item["type"] not in ("function_call", "custom_tool_call")

    def _part_added(self, event: Event_) -> None:
        assert self.part is None, "one part at a time"
        assert self._index(event) == len(self.parts)
        self.part, self.text, self.logprobs, self.text_done = event["part"], "", [], False
        assert (self.part["refusal"] if self.part["type"] == "refusal" else self.part["text"]) == ""

    def _delta(self, event: Event_) -> None:
        assert not self.text_done, "no delta after done"
        assert event["delta"], "no empty delta"
        self._check_place(event)
        self.text += event["delta"]
        self.logprobs += event.get("logprobs", [])

    def _text_done(self, event: Event_) -> None:
        assert not self.text_done
        self._check_place(event)
        kind = event["type"].split(".")[1]
        name = {"refusal": "refusal", "function_call_arguments": "arguments", "custom_tool_call_input": "input"}.get(kind, "text")
        assert event[name] == self.text, "done text is the joined deltas"
        if name in ("arguments", "input"):
            assert self.open is not None
            assert event["name"] == self.open["name"]
            assert event["call_id"] == self.open["call_id"]
        if kind == "output_text":
            assert event["logprobs"] == self.logprobs
        self.text_done = True

    def _part_done(self, event: Event_) -> None:
        assert self.part is not None
        assert self.text_done, "text.done comes before part.done"
        self._check_place(event)
        part = event["part"]
        assert part["type"] == self.part["type"]
        assert (part["refusal"] if part["type"] == "refusal" else part["text"]) == self.text
        self.parts.append(part)
        self.part = None

    def _item_done(self, item: Event_) -> None:
        assert self.open is not None
        assert self.part is None, "every part is closed"
        assert self.text_done
        assert item["id"] == self.open["id"]
        assert item["type"] == self.open["type"]
        assert item["status"] in ("completed", "incomplete")
        if item["type"] == "message":
            assert item["content"] == self.parts
            assert item["content"], "no message without a part"
        elif item["type"] == "reasoning":
            assert item["summary"] + item.get("content", []) == self.parts
        elif item["type"] == "function_call":
            assert item["arguments"] == self.text
        elif item["type"] == "custom_tool_call":
            assert item["input"] == self.text
        if "call_id" in item:
            assert item["call_id"] != item["id"]
        self.done.append(item)
        self.open = None

    def _index(self, event: Event_) -> int:
        index = event["summary_index"] if "reasoning_summary" in event["type"] else event["content_index"]
        assert isinstance(index, int)
        return index

    def _check_place(self, event: Event_) -> None:
        assert self.open is not None
        if self.open["type"] in ("message", "reasoning"):
            assert self._index(event) == len(self.parts)
        else:
            assert event["call_id"] == self.open["call_id"]


def _event_types() -> dict[str, Any]:
    union = typing.get_args(ResponseStreamEvent)[0]
    return {typing.get_args(kind.model_fields["type"].annotation)[0]: kind for kind in typing.get_args(union)}


_SDK_EVENTS = _event_types()
_SDK_ONLY_CODEX = {"context_length_exceeded", "insufficient_quota"}


def validate_event(event: Event_) -> None:
    """Against the SDK's strict type; error codes that only Codex knows stand in for one the SDK knows."""
    if "response" in event:
        event = event | {"response": _known_code(event["response"])}
    _SDK_EVENTS[event["type"]].model_validate(event, strict=True)


def validate_response(response: dict[str, Any]) -> None:
    """Against the SDK's strict type."""
    Response.model_validate(_known_code(response), strict=True)


def _known_code(response: dict[str, Any]) -> dict[str, Any]:
    error = response["error"]
    if error is None or error["code"] not in _SDK_ONLY_CODEX:
        return response
    return response | {"error": error | {"code": "server_error"}}
