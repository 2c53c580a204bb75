"""What a decoder knows while an answer runs, and what recorded streams cannot show (openai-chat.md 6, 8)."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from ds2d.core.errors import ErrorKind
from ds2d.core.events import Event, Failure, Finish, Reasoning, Text, ToolArgs, ToolEnd, ToolStart, Usage
from ds2d.core.request import ChatRequest
from ds2d.core.sse import Record
from ds2d.upstreams.openai import Decoder
from tests.upstreams.asking import ask, target, tool

DONE = Record(b"[DONE]")


def chunk(delta: dict[str, Any] | None = None, reason: str | None = None, index: int = 0, **more: Any) -> Record:
    choice = {"index": index, "delta": delta or {}, "finish_reason": reason}
    return Record(orjson.dumps({"id": "up-1", "choices": [choice], **more}))


def call(arguments: str, **head: Any) -> dict[str, Any]:
    name = head.pop("name", None)
    function = {"name": name, "arguments": arguments} if name else {"arguments": arguments}
    return {"tool_calls": [{"index": head.pop("index", 0), **head, "function": function}]}


def decoded(request: ChatRequest, *records: Record, flavour: str = "generic", **at: Any) -> list[Event]:
    decoder = Decoder(request, target(flavour, **at))
    return decoder.feed(list(records)) + decoder.finish()


def test_usage_and_id_are_known_while_the_answer_runs() -> None:
    decoder = Decoder(ask(), target())
    assert (decoder.usage, decoder.answer_id) == (None, None)
    decoder.feed([chunk({"content": "a"}, usage={"prompt_tokens": 3, "completion_tokens": 1})])
    assert (decoder.usage, decoder.answer_id) == (Usage(3, 1), "up-1")
    decoder.feed([chunk({"content": "b"}, usage={"prompt_tokens": 3, "completion_tokens": 2}), chunk({"content": "c"})])
    assert decoder.usage == Usage(3, 2)


def test_a_call_ends_with_its_choice_not_with_the_stream() -> None:
    decoder = Decoder(ask(), target())
    decoder.feed([chunk(call("{}", id="x", name="f"))])
    assert decoder.feed([chunk({}, "tool_calls")]) == [ToolEnd(0)]


def test_what_came_before_a_fault_in_the_same_read_is_not_lost() -> None:
    events = decoded(ask(), chunk({"content": "a"}), Record(b"{broken"), chunk({"content": "b"}))
    assert events[0] == Text("a")
    assert isinstance(events[1], Failure)
    assert (len(events), events[1].error.kind) == (2, ErrorKind.UPSTREAM_GARBLED)


def nested(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


@pytest.mark.parametrize("field", [b"created", b"odd"])
@pytest.mark.parametrize("levels", [250, 900, 100_000])
def test_what_is_nested_too_deeply_to_be_written_again_is_a_fault(field: bytes, levels: int) -> None:
    deep = b'{"choices":[{"index":0,"delta":{"content":"a"}}],"x":[],"' + field + b'":' + nested(levels) + b"}"
    event = decoded(ask(), Record(deep))[-1]
    assert isinstance(event, Failure)
    assert event.error.kind is ErrorKind.UPSTREAM_GARBLED


def test_a_field_that_is_not_looked_at_may_hold_anything_but_not_break_the_reader() -> None:
    deep = b'{"choices":[{"index":0,"delta":{"content":"a"}}],"created":' + nested(100_000) + b"}"
    assert isinstance(decoded(ask(), Record(deep))[-1], Failure)


@pytest.mark.parametrize("beside", [{"error": None}, {"error": {}}, {"detail": "x"}, {"message": "x"}])
def test_a_chunk_with_choices_is_an_answer_whatever_stands_beside_them(beside: dict[str, Any]) -> None:
    events = decoded(ask(), chunk({"content": "a"}, "stop", **beside), DONE)
    assert events[0] == Text("a")
    assert isinstance(events[1], Finish)


def test_of_several_choices_each_keeps_the_usage_that_was_believed() -> None:
    decoder = Decoder(ask(params={"n": 2}), target())
    for index, said in ((0, 3), (1, 4), (1, -1)):
        decoder.feed([chunk({"content": "a"}, index=index, usage={"prompt_tokens": 6, "completion_tokens": said})])
    assert decoder.usage == Usage(6, 7)


def test_many_brackets_are_no_depth() -> None:
    flat = b'{"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":"stop"}],"odd":[' + b"[]," * 500 + b"1]}"
    assert isinstance(decoded(ask(), Record(flat), DONE)[-1], Finish)


@pytest.mark.parametrize(
    "data", [b"[]", b"7", b'"x"', b"true", b'{"choices":7}', b'{"choices":[7]}', b'{"choices":[{"delta":7}]}']
)
def test_json_of_another_shape_is_a_fault(data: bytes) -> None:
    (event,) = decoded(ask(), Record(data))
    assert isinstance(event, Failure)
    assert event.error.kind is ErrorKind.UPSTREAM_GARBLED


@pytest.mark.parametrize("word", [{"a": 1}, 7, ["b"]])
def test_thoughts_that_are_no_text_are_a_fault(word: Any) -> None:
    (event,) = decoded(ask(), chunk({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": word}]}]}))
    assert isinstance(event, Failure)
    assert event.error.kind is ErrorKind.UPSTREAM_GARBLED


@pytest.mark.parametrize("event", [b"", b"ping"])
def test_an_event_with_empty_data_says_nothing(event: bytes) -> None:
    nothing = Record(b"", event)
    said = decoded(ask(), nothing, chunk({"content": "a"}), nothing, chunk({}, "stop"), nothing)
    assert said == decoded(ask(), chunk({"content": "a"}), chunk({}, "stop"))


def test_a_piece_of_thoughts_without_text_says_nothing() -> None:
    pieces = [{"type": "text", "text": None}, {"type": "text", "text": "So."}, {"type": "other"}]
    events = decoded(ask(), chunk({"content": [{"type": "thinking", "thinking": pieces}]}, "stop"), DONE)
    assert [event.text for event in events if isinstance(event, Reasoning)] == ["So."]


def test_ids_that_the_conversation_has_already_are_made_anew_and_the_same_each_time() -> None:
    earlier = {"id": "call_0", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    request = ask([{"role": "assistant", "content": None, "tool_calls": [earlier]}], tools=[tool()])

    def ids() -> list[str]:
        records = (chunk(call("{}", id="call_0", name="f")), chunk(call("{}", index=1, name="f")), chunk({}, "stop"), DONE)
        return [event.id for event in decoded(request, *records) if isinstance(event, ToolStart)]

    first = ids()
    assert first == ids()
    assert len({*first, "call_0"}) == 3
    assert all(made.startswith("call_") and len(made) == 29 for made in first)


def test_a_prompt_is_echoed_where_the_server_does_not_do_it() -> None:
    request = ask([], prompt=["one ", "two "], params={"echo": True, "n": 2})
    records = [chunk({"content": str(index)}, "stop", index) for index in range(4)]

    def texts(flavour: str) -> list[str]:
        said = [""] * 4
        for event in decoded(request, *records, DONE, flavour=flavour):
            if isinstance(event, Text):
                said[event.choice] += event.text
        return said

    assert texts("generic") == ["one 0", "one 1", "two 2", "two 3"]
    assert texts("vllm") == ["0", "1", "2", "3"]


def test_a_server_asked_by_chat_echoes_nothing_by_itself() -> None:
    request = ask([], prompt="one ", params={"echo": True})
    events = decoded(request, chunk({"content": "0"}, "stop"), DONE, flavour="vllm", facts={"completions": False})
    assert events[:2] == [Text("one "), Text("0")]


def test_reading_falls_back_to_the_careful_way_and_finds_the_same() -> None:
    """More odd records in a row than the narrow view puts up with, then plain ones."""
    odd = [chunk({"content": "a"}, odd=number) for number in range(12)]
    events = decoded(
        ask(), *odd, chunk({"content": "b"}), chunk(call("{", id="x", name="f")), chunk(call("}")), chunk({}, "stop")
    )
    assert events[11:-1] == [Text("a"), Text("b"), ToolStart(0, "x", "f"), ToolArgs(0, "{"), ToolArgs(0, "}"), ToolEnd(0)]
    assert isinstance(events[-1], Finish)
    assert events[-1].extra == {"odd": 11}


def test_a_failure_carries_what_is_known_of_usage() -> None:
    events = decoded(ask(), chunk({"content": "a"}, usage={"prompt_tokens": 3, "completion_tokens": 1}), DONE)
    assert isinstance(events[-1], Failure)
    assert events[-1].usage == Usage(3, 1)
