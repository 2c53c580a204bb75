"""anthropic-messages.md 6 and 9: what a client sees of an answer, checked by a reader that is as strict as the strictest."""

from __future__ import annotations

from typing import Any

import anthropic.types as sdk
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.events import Ending, Event, Failure, Finish, Reasoning, Text, ToolArgs, ToolEnd, ToolStart, Usage, fold
from ds2d.core.pipeline import Pipeline
from ds2d.core.request import ChatRequest
from ds2d.core.sse import Record
from ds2d.dialects.claude import Encoder, render
from ds2d.dialects.claude.reply import Reply
from tests.dialects.answers import answers, envelope
from tests.dialects.claude_checker import Reader, frames

USAGE = Usage(100, 20, reasoning=5, cached=60)


def request(thinking: Any = "shown", **fields: Any) -> ChatRequest:
    return ChatRequest("claude-x", [], reply=Reply(thinking=thinking, names=fields.pop("names", {})), **fields)


def finish(reason: Any = "stop", stop: str | None = None) -> Finish:
    return Finish((Ending(reason, stop),), USAGE)


def call(index: int, *pieces: str, broken: bool = False, name: str = "f") -> list[Event]:
    return [
        ToolStart(index, f"toolu_{index}", name),
        *(ToolArgs(index, piece) for piece in pieces),
        ToolEnd(index, broken=broken),
    ]


def stream(*events: Event, asked: ChatRequest | None = None, **fields: Any) -> bytes:
    """One event a batch, as the slowest upstream sends them."""
    encoder = Encoder(envelope(asked or request(), **fields))
    return b"".join(encoder.feed([event]) for event in events)


def read(*events: Event, asked: ChatRequest | None = None, **fields: Any) -> Reader:
    return Reader(stream(*events, asked=asked, **fields))


def content(*events: Event, asked: ChatRequest | None = None) -> list[dict[str, Any]]:
    reader = read(*events, asked=asked)
    assert reader.error is None
    return list(reader.message["content"])


def kinds(blocks: list[dict[str, Any]]) -> list[str]:
    return [block["type"] for block in blocks]


# The events and their order ------------------------------------------------------------------------------------------


def test_the_whole_sequence_as_it_stands_in_the_contract() -> None:
    names = [name for name, _ in frames(stream(Reasoning("hm"), Text("Hi"), *call(0, '{"a":1}'), finish("tool_calls")))]
    block = ["content_block_start", "content_block_delta", "content_block_stop"]
    assert names == ["message_start", "ping", *block * 3, "message_delta", "message_stop"]


def test_reasoning_text_and_two_calls_are_four_blocks_in_order() -> None:
    blocks = content(Reasoning("hm"), Text("Hi"), *call(0, '{"a":', "1}"), *call(1, '{"b":2}', name="g"), finish("tool_calls"))
    assert blocks == [
        {"type": "thinking", "thinking": "hm", "signature": ""},
        {"type": "text", "text": "Hi"},
        {"type": "tool_use", "id": "toolu_0", "name": "f", "input": {"a": 1}},
        {"type": "tool_use", "id": "toolu_1", "name": "g", "input": {"b": 2}},
    ]


def test_text_and_calls_in_turns_are_a_block_each() -> None:
    blocks = content(Text("a"), *call(0, "{}"), Text("b"), *call(1, "{}"), finish("tool_calls"))
    assert kinds(blocks) == ["text", "tool_use", "text", "tool_use"]


def test_reasoning_after_text_is_a_new_thinking_block() -> None:
    assert kinds(content(Reasoning("a"), Text("b"), Reasoning("c"), finish())) == ["thinking", "text", "thinking"]


def test_pieces_of_one_kind_share_a_block() -> None:
    assert content(Text("Hel"), Text("lo"), finish()) == [{"type": "text", "text": "Hello"}]


def test_an_empty_answer_has_no_block_at_all() -> None:
    names = [name for name, _ in frames(stream(finish()))]
    assert names == ["message_start", "ping", "message_delta", "message_stop"]


def test_nothing_follows_the_ending() -> None:
    encoder = Encoder(envelope(request()))
    encoder.feed([Text("a"), finish()])
    assert encoder.feed([finish()]) == b""
    assert encoder.keep_alive() == b""


def test_life_signs_are_comments_before_the_message_and_pings_after() -> None:
    encoder = Encoder(envelope(request()))
    signs = [encoder.keep_alive()]
    out = signs[0] + encoder.feed([Text("a")])
    signs.append(encoder.keep_alive())
    assert signs == [b": keep-alive\n\n", b'event: ping\ndata: {"type":"ping"}\n\n']
    assert Reader(out + signs[1] + encoder.feed([finish()])).pings == 2


# Thinking --------------------------------------------------------------------------------------------------------------


def test_hidden_thinking_leaves_no_trace_between_texts() -> None:
    assert content(Reasoning("x"), Text("a"), Reasoning("y"), Text("b"), finish(), asked=request("hidden")) == [
        {"type": "text", "text": "ab"}
    ]


def test_omitted_thinking_is_an_empty_block() -> None:
    blocks = content(Reasoning("x"), Reasoning("y"), Text("a"), finish(), asked=request("omitted"))
    assert blocks[0] == {"type": "thinking", "thinking": "", "signature": ""}
    assert kinds(blocks) == ["thinking", "text"]


# Arguments -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pieces", [(), (" ",), ("{}",)])
def test_no_arguments_are_an_empty_object(pieces: tuple[str, ...]) -> None:
    out = stream(*call(0, *pieces), Text("after"), finish("tool_calls"))
    assert b'"partial_json":"{}"' in out
    assert Reader(out).message["content"][0]["input"] == {}


@pytest.mark.parametrize("cut", ['{"a":{"b":[1,2', '{"a":{"b":[1,2]', '{"path":"/tmp/x', '{"q":"say \\"hi'])
@pytest.mark.parametrize("follow", [[Text("after")], call(1, "{}"), []])
def test_a_missing_end_is_closed(cut: str, follow: list[Event]) -> None:
    blocks = content(*call(0, cut[:4], cut[4:]), *follow, finish("tool_calls"))
    assert isinstance(blocks[0]["input"], dict)
    assert blocks[0]["input"]


HOPELESS = ['{"a":tru', '{"a" 1}', '{"a":1}}', "[1]", '"text"', "null", '{"a":"\\', "plain words", '{"a":1,']


@pytest.mark.parametrize("text", HOPELESS)
@pytest.mark.parametrize("follow", [[Text("after")], call(1, "{}"), []])
def test_what_cannot_become_an_object_ends_the_stream_in_an_error(text: str, follow: list[Event]) -> None:
    out = stream(Text("a"), *call(0, text), *follow, finish("tool_calls"))
    reader = Reader(out)
    assert reader.error is not None
    assert len(reader.message["content"]) == 2
    assert b"after" not in out
    assert reader.error["error"]["type"] == "api_error"
    assert reader.error["error"]["code"] == "upstream_error"
    assert reader.error["request_id"] == "req_1"


def test_a_call_reported_broken_is_not_mended() -> None:
    assert read(*call(0, '{"a":1', broken=True), finish("tool_calls")).error is not None


def test_the_ending_that_a_broken_call_turns_into_a_failure_can_be_asked_for() -> None:
    """What the ledger records must be what the client was told."""
    encoder = Encoder(envelope(request()))
    encoder.feed(call(0, '{"a":tru'))
    settled = encoder.settle(finish("tool_calls"))
    assert isinstance(settled, Failure)
    assert (settled.error.kind, settled.usage) == (ErrorKind.MALFORMED_CALL, USAGE)
    assert encoder.settle(finish("length")) == finish("length")


class OneRead:
    """A splitter and a decoder for an upstream that says everything at once."""

    usage = None
    answer_id = None

    def __init__(self, *events: Event) -> None:
        self._events = list(events)

    def feed(self, taken: Any) -> list[Any]:
        return [Record(taken)] if isinstance(taken, bytes) else self._events

    def finish(self) -> list[Any]:
        return []


def test_a_turn_with_a_broken_call_is_recorded_as_the_failure_that_the_client_sees() -> None:
    source = OneRead(Text("a"), *call(0, "[1]"), finish("tool_calls"))
    pipeline = Pipeline(source, source, [], Encoder(envelope(request())))
    out = pipeline.feed(b"x")
    assert isinstance(pipeline.ending, Failure)
    assert pipeline.ending.error.kind is ErrorKind.MALFORMED_CALL
    assert Reader(out + pipeline.close()).error is not None


@pytest.mark.parametrize("reason", ["length", "content_filter"])
@pytest.mark.parametrize("end", [[], [ToolEnd(0)], [ToolEnd(0, broken=True)]])
@pytest.mark.parametrize("text", ['{"a":"unfin', ""])
def test_a_call_that_a_limit_cut_is_closed_as_it_stands(reason: str, end: list[Event], text: str) -> None:
    started: list[Event] = [ToolStart(0, "toolu_0", "f"), *([ToolArgs(0, text)] if text else [])]
    reader = read(*started, *end, finish(reason))
    assert reader.error is None
    assert reader.message["content"][0]["input"] == (text or {})
    assert reader.message["stop_reason"] == {"length": "max_tokens", "content_filter": "refusal"}[reason]


def test_a_whole_call_before_the_limit_stays_whole() -> None:
    assert content(*call(0, '{"a":1}'), finish("length"))[0]["input"] == {"a": 1}


def test_names_come_back_as_the_client_wrote_them() -> None:
    asked = request(names={"short_1234": "mcp__a_very_long_name"})
    assert content(*call(0, "{}", name="short_1234"), finish(), asked=asked)[0]["name"] == "mcp__a_very_long_name"


# How it ends -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("events", "ending", "expected"),
    [
        ([Text("a")], Ending("stop"), ("end_turn", None)),
        ([Text("a")], Ending("stop", "END"), ("stop_sequence", "END")),
        ([Text("a")], Ending("stop", "</s>"), ("end_turn", None)),
        ([Text("a")], Ending("length"), ("max_tokens", None)),
        ([Text("a")], Ending("tool_calls"), ("end_turn", None)),
        (call(0, "{}"), Ending("tool_calls"), ("tool_use", None)),
        (call(0, "{}"), Ending("stop"), ("tool_use", None)),
        ([Text("a")], Ending("content_filter"), ("refusal", None)),
    ],
)
def test_why_it_stopped(events: list[Event], ending: Ending, expected: tuple[str, str | None]) -> None:
    asked = request(params={"stop": ["END", "###"]})
    message = read(*events, Finish((ending,), USAGE), asked=asked).message
    assert (message["stop_reason"], message["stop_sequence"]) == expected
    assert ("stop_details" in message) == (expected[0] == "refusal")


def test_a_failure_is_an_error_event_and_no_stop() -> None:
    reader = read(Text("a"), Failure(GatewayError(ErrorKind.UPSTREAM_DISCONNECTED, "It broke.")))
    assert reader.error == {
        "type": "error",
        "error": {"type": "api_error", "message": "It broke.", "code": "upstream_disconnected", "param": None},
        "request_id": "req_1",
    }


def test_a_failure_before_anything_else_is_only_an_error() -> None:
    names = [name for name, _ in frames(stream(Failure(GatewayError(ErrorKind.UPSTREAM_ERROR, "It broke."))))]
    assert names == ["error"]


# Tokens ----------------------------------------------------------------------------------------------------------------


def test_counts_at_the_end_replace_those_at_the_start() -> None:
    usage = read(Text("a"), finish(), prompt_tokens=lambda: 95).message["usage"]
    assert (usage["input_tokens"], usage["cache_read_input_tokens"], usage["output_tokens"]) == (40, 60, 20)
    assert usage["output_tokens_details"] == {"thinking_tokens": 5}


def test_the_start_says_what_was_counted_or_better_what_the_upstream_said() -> None:
    counted = frames(stream(Text("a"), finish(), prompt_tokens=lambda: 95))[0][1]["message"]["usage"]
    told = frames(stream(Text("a"), finish(), prompt_tokens=lambda: 95, usage=lambda: USAGE))[0][1]["message"]["usage"]
    assert counted["input_tokens"] == 95
    assert (told["input_tokens"], told["cache_read_input_tokens"], told["output_tokens"]) == (40, 60, 0)


def test_without_usage_of_the_upstream_the_counted_prompt_stands() -> None:
    usage = read(Text("a"), Finish((Ending("stop"),)), prompt_tokens=lambda: 95).message["usage"]
    assert (usage["input_tokens"], usage["output_tokens"]) == (95, 0)


# Any answer ------------------------------------------------------------------------------------------------------------

EVENT = TypeAdapter(sdk.RawMessageStreamEvent)
SHOWN = st.sampled_from(["shown", "omitted", "hidden"])


@given(answers(choices=1), SHOWN)
def test_any_answer_is_a_stream_that_the_strictest_client_takes(batches: list[list[Event]], thinking: str) -> None:
    encoder = Encoder(envelope(request(thinking)))
    out = b"".join(encoder.feed(batch) for batch in batches)
    assert Reader(out).error is None
    for name, data in frames(out):
        if name != "ping":
            EVENT.validate_python(data)


@given(answers(choices=1), SHOWN)
def test_a_stream_joined_is_the_whole_answer(batches: list[list[Event]], thinking: str) -> None:
    encoder = Encoder(envelope(request(thinking)))
    streamed = Reader(b"".join(encoder.feed(batch) for batch in batches)).message
    whole = orjson.loads(render(fold([event for batch in batches for event in batch]), envelope(request(thinking))))
    assert streamed == whole


@given(answers(choices=1), st.data())
def test_cutting_a_batch_elsewhere_changes_no_byte(batches: list[list[Event]], data: st.DataObject) -> None:
    events = [event for batch in batches for event in batch]
    cut = data.draw(st.integers(0, len(events) - 1))
    first, second = Encoder(envelope(request())), Encoder(envelope(request()))
    halves = [half for half in (events[:cut], events[cut:]) if half]
    assert b"".join(map(first.feed, halves)) == b"".join(second.feed([event]) for event in events)


ODD = [*HOPELESS, '{"a":[1', '{"a":1}', ""]


@given(answers(choices=1), st.data(), st.sampled_from(ODD), st.booleans())
def test_a_call_with_any_arguments_anywhere_ends_the_same_streamed_and_whole(
    batches: list[list[Event]], data: st.DataObject, text: str, broken: bool
) -> None:
    events = [event for batch in batches for event in batch if type(event) not in (ToolStart, ToolArgs, ToolEnd)]
    at = data.draw(st.integers(0, len(events) - 1))
    last = at == len(events) - 1
    events[at:at] = call(0, *([text] if text else []), broken=broken)
    streamed = read(*events)
    if streamed.error is not None:
        with pytest.raises(GatewayError, match="are not a JSON object"):
            render(fold(events), envelope(request()))
        return
    whole = orjson.loads(render(fold(events), envelope(request())))
    if last and streamed.message["stop_reason"] in ("max_tokens", "refusal") and (text != '{"a":1}' or broken):
        assert streamed.message["content"].pop()["type"] == "tool_use"  # closed as it stands here, dropped there
    assert streamed.message == whole
