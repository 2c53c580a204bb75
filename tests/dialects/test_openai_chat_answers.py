"""openai-chat.md 5 and 6: what a client gets, streamed and whole, and that both say the same."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.events import (
    Ending,
    Event,
    Failure,
    Finish,
    Reasoning,
    Text,
    ToolArgs,
    ToolEnd,
    ToolStart,
    Usage,
    fold,
)
from ds2d.core.models import ModelInfo
from ds2d.core.request import ChatRequest, Envelope, Inbound
from ds2d.dialects.openai_chat import Encoder, parse, render, render_error, render_model, render_models
from tests.dialects.answers import answers, envelope

USAGE = Usage(10, 20, reasoning=5, cached=4)
COUNTED = {
    "prompt_tokens": 10,
    "completion_tokens": 20,
    "total_tokens": 30,
    "prompt_tokens_details": {"cached_tokens": 4},
    "completion_tokens_details": {"reasoning_tokens": 5},
}


def asked(**fields: Any) -> Envelope:
    """The envelope of a question with these fields."""
    body = {"model": "the-model", "messages": [{"role": "user", "content": "x"}], "stream": True, **fields}
    return envelope(parse(Inbound(body)))


def stream(batches: list[list[Event]], env: Envelope | None = None) -> list[Any]:
    """The frames of a stream, parsed; the end mark is the string."""
    encoder = Encoder(env or envelope())
    data = b"".join(encoder.feed(batch) for batch in batches)
    assert data.endswith(b"\n\n")
    frames = data[:-2].split(b"\n\n")
    assert all(frame.startswith(b"data: ") and b"\n" not in frame for frame in frames)
    return [frame[6:].decode() if frame == b"data: [DONE]" else orjson.loads(frame[6:]) for frame in frames]


def whole(events: list[Event], env: Envelope | None = None) -> Any:
    return orjson.loads(render(fold(events), env or envelope()))


def finish(reason: Any = "stop", usage: Usage | None = USAGE, **fields: Any) -> Finish:
    return Finish((Ending(reason),), usage, **fields)


def deltas(frames: list[Any]) -> list[dict[str, Any]]:
    return [choice["delta"] for frame in frames if isinstance(frame, dict) for choice in frame["choices"]]


# An independent reading of section 6 ---------------------------------------------------------------------------------


class Checker:
    """Follows a stream frame by frame, as section 6 says it must be, and puts the answer together."""

    def __init__(self, *, include_usage: bool) -> None:
        self.include_usage = include_usage
        self.constant: dict[str, Any] | None = None
        self.choices: dict[int, dict[str, Any]] = {}
        self.usage: Any = None
        self.done = False

    def read(self, frames: list[Any]) -> dict[str, Any]:
        for frame in frames:
            assert not self.done, "something after [DONE]"
            if frame == "[DONE]":
                assert self.usage, "usage is never omitted"
                assert all(choice["finish_reason"] for choice in self.choices.values())
                self.done = True
            else:
                self._chunk(frame)
        assert self.done
        return {"choices": [self._choice(index) for index in range(len(self.choices))], "usage": self.usage}

    def _chunk(self, chunk: dict[str, Any]) -> None:
        constant = {name: chunk[name] for name in ("id", "object", "created", "model")}
        assert constant == (self.constant or constant)
        self.constant = constant
        assert chunk["object"] == "chat.completion.chunk"
        assert chunk["id"].startswith("chatcmpl-")
        assert isinstance(chunk["created"], int)
        assert self.usage is None, "a chunk after the usage"
        if not chunk["choices"]:
            assert self.include_usage
            assert all(choice["finish_reason"] for choice in self.choices.values())
            self.usage = chunk["usage"]
            return
        (choice,) = chunk["choices"]
        self._delta(choice)
        if self.include_usage:
            assert chunk["usage"] is None
        elif "usage" in chunk:
            assert choice["finish_reason"]
            self.usage = chunk["usage"]

    def _delta(self, choice: dict[str, Any]) -> None:
        delta = choice["delta"]
        assert choice["logprobs"] is None
        known = self.choices.get(choice["index"])
        if known is None:
            assert delta in ({"role": "assistant"}, {"role": "assistant", "content": ""})
            assert choice["finish_reason"] is None
            self.choices[choice["index"]] = {"text": "", "refusal": "", "reasoning": "", "calls": [], "finish_reason": None}
            return
        assert known["finish_reason"] is None, "something after the finish of a choice"
        if choice["finish_reason"] is not None:
            assert delta == {}
            known["finish_reason"] = choice["finish_reason"]
            return
        ((name, value),) = delta.items()
        if name == "reasoning_content":
            assert not known["text"], "reasoning after text"
            assert not known["refusal"]
            assert not known["calls"]
            known["reasoning"] += value
        elif name == "tool_calls":
            self._call(known["calls"], value)
        else:
            known[{"content": "text", "refusal": "refusal"}[name]] += value
        assert value

    def _call(self, calls: list[Any], entries: list[Any]) -> None:
        (entry,) = entries
        if "id" in entry:
            assert entry["index"] == len(calls)
            assert entry["type"] == "function"
            assert entry["function"]["arguments"] == ""
            calls.append({"id": entry["id"], "type": "function", "function": dict(entry["function"])})
        else:
            assert entry == {"index": len(calls) - 1, "function": {"arguments": entry["function"]["arguments"]}}
            calls[-1]["function"]["arguments"] += entry["function"]["arguments"]

    def _choice(self, index: int) -> dict[str, Any]:
        seen = self.choices[index]
        content = seen["text"] or (None if seen["calls"] or seen["refusal"] else "")
        message = {"role": "assistant", "content": content, "refusal": seen["refusal"] or None}
        if seen["reasoning"]:
            message["reasoning_content"] = seen["reasoning"]
        if seen["calls"]:
            message["tool_calls"] = seen["calls"]
        return {"index": index, "message": message, "finish_reason": seen["finish_reason"], "logprobs": None}


@given(answers(), st.booleans())
def test_any_answer_streams_by_the_rules_and_says_what_the_whole_one_says(
    batches: list[list[Event]], include_usage: bool
) -> None:
    env = asked(stream_options={"include_usage": include_usage})
    seen = Checker(include_usage=include_usage).read(stream(batches, env))
    body = whole([event for batch in batches for event in batch], env)
    assert seen == {"choices": body["choices"], "usage": body["usage"]}


# Streams -------------------------------------------------------------------------------------------------------------


def test_the_frames_of_a_plain_answer_byte_by_byte() -> None:
    encoder = Encoder(envelope())
    head = b'data: {"id":"chatcmpl-000000000000000000000001","object":"chat.completion.chunk",'
    head += b'"created":1700000000,"model":"the-model","choices":['
    tail = b',"finish_reason":null,"logprobs":null}]}\n\n'
    assert encoder.feed([Text("你\u2028好")]) == (
        head + b'{"index":0,"delta":{"role":"assistant","content":""}' + tail
        + head + b'{"index":0,"delta":{"content":"' + "你\u2028好".encode() + b'"}' + tail
    )  # fmt: skip
    assert encoder.keep_alive() == b": keep-alive\n\n"
    assert encoder.feed([]) == b""
    assert encoder.feed([Finish((Ending("stop"),), Usage(1, 2))]) == (
        head + b'{"logprobs":null,"index":0,"delta":{},"finish_reason":"stop"}]'
        b',"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}\n\ndata: [DONE]\n\n'
    )


def test_nothing_is_written_before_the_first_event() -> None:
    encoder = Encoder(envelope())
    assert encoder.keep_alive() == b": keep-alive\n\n"
    assert encoder.feed([Text("a")]).count(b'"role"') == 1
    assert b'"role"' not in encoder.feed([Text("b")])


def test_two_parallel_calls_count_up_and_the_arguments_are_intact() -> None:
    pieces = ['{"city":"K', "ö", "ln\\", 'u2028"}']
    events: list[Event] = [ToolStart(0, "call_a", "f"), *(ToolArgs(0, piece) for piece in pieces), ToolEnd(0)]
    events += [ToolStart(1, "call_b", "g"), ToolArgs(1, "{}"), ToolEnd(1)]
    body = Checker(include_usage=False).read(stream([events, [finish("tool_calls")]]))
    calls = body["choices"][0]["message"]["tool_calls"]
    assert [call["id"] for call in calls] == ["call_a", "call_b"]
    assert calls[0]["function"]["arguments"] == "".join(pieces)
    assert body["choices"][0]["finish_reason"] == "tool_calls"


@pytest.mark.parametrize(
    ("reason", "called", "expected"),
    [
        ("stop", True, "tool_calls"),
        ("tool_calls", True, "tool_calls"),
        ("length", True, "length"),
        ("tool_calls", False, "stop"),
        ("stop", False, "stop"),
        ("content_filter", False, "content_filter"),
    ],
)
def test_a_finish_says_tool_calls_exactly_where_there_are_some(reason: Any, called: bool, expected: str) -> None:
    events: list[Event] = [ToolStart(0, "call_a", "f"), ToolArgs(0, "{}"), ToolEnd(0)] if called else [Text("a")]
    assert stream([events, [finish(reason)]])[-2]["choices"][0]["finish_reason"] == expected
    assert whole([*events, finish(reason)])["choices"][0]["finish_reason"] == expected


def test_usage_stands_on_the_finish_chunk_unless_a_chunk_of_its_own_was_asked_for() -> None:
    batches: list[list[Event]] = [[Text("a")], [finish()]]
    *before, last, end = stream(batches)
    assert (last["usage"], end) == (COUNTED, "[DONE]")
    assert not any("usage" in chunk for chunk in before)
    *before, last, end = stream(batches, asked(stream_options={"include_usage": True}))
    assert (last["choices"], last["usage"]) == ([], COUNTED)
    assert all(chunk["usage"] is None for chunk in before)


def test_running_usage_stands_on_every_chunk() -> None:
    env = asked(stream_options={"include_usage": True, "continuous_usage_stats": True})
    running = [None, Usage(10, 1), Usage(10, 2)]
    env.usage = lambda: running[0]
    encoder = Encoder(env)
    seen = []
    for event in (Text("a"), Text("b"), finish()):
        frames = encoder.feed([event]).removesuffix(b"data: [DONE]\n\n").split(b"\n\n")[:-1]
        seen.append([chunk["usage"] and chunk["usage"]["completion_tokens"] for chunk in (orjson.loads(f[6:]) for f in frames)])
        running.pop(0) if len(running) > 1 else None
    assert seen == [[None, None], [1], [2, 20]]


def test_running_usage_needs_the_final_one_to_be_asked_for_too() -> None:
    env = asked(stream_options={"continuous_usage_stats": True})
    env.usage = lambda: USAGE
    assert ["usage" in frame for frame in stream([[Text("a")], [finish()]], env)[:-1]] == [False, False, True]


def test_usage_details_stand_where_they_are_known_even_as_zero() -> None:
    none = whole([finish(usage=Usage(1, 2))])["usage"]
    zero = whole([finish(usage=Usage(1, 2, reasoning=0, cached=0, cache_write=0))])["usage"]
    assert none == {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    assert zero["prompt_tokens_details"] == {"cached_tokens": 0, "cache_write_tokens": 0}
    assert zero["completion_tokens_details"] == {"reasoning_tokens": 0}


def test_usage_that_nobody_counted_is_estimated_never_left_out() -> None:
    env = asked()
    env.prompt_tokens = lambda: 7
    assert stream([[Text("a")], [finish(usage=None)]], env)[-2]["usage"]["prompt_tokens"] == 7
    assert whole([Text("a"), finish(usage=None)], env)["usage"]["total_tokens"] == 7


def test_with_several_choices_usage_comes_once_after_all_have_finished() -> None:
    frames = stream([[Text("a", 1), Text("b", 0), Text("c", 1)], [Finish((Ending("stop"), Ending("length")), USAGE)]])
    assert [frame["choices"][0]["index"] for frame in frames[:-1]] == [0, 1, 1, 0, 1, 0, 1]
    assert ["usage" in frame for frame in frames[:-1]] == [False] * 6 + [True]
    assert [frame["choices"][0]["finish_reason"] for frame in frames[-3:-1]] == ["stop", "length"]


def test_an_empty_answer_has_its_role_and_its_finish() -> None:
    assert deltas(stream([[finish()]])) == [{"role": "assistant", "content": ""}, {}]
    assert whole([finish()])["choices"][0]["message"] == {"role": "assistant", "content": "", "refusal": None}


def test_blank_text_before_reasoning_waits_for_text() -> None:
    frames = stream([[Text("\n"), Reasoning("hm"), Text("\n"), Text("a")], [finish()]])
    assert deltas(frames)[1:-1] == [{"reasoning_content": "hm"}, {"content": "\n"}, {"content": "\n"}, {"content": "a"}]


def test_reasoning_after_text_has_no_place() -> None:
    events: list[Event] = [Reasoning("a"), Text("b"), Reasoning("c"), finish()]
    assert deltas(stream([events]))[1:-1] == [{"reasoning_content": "a"}, {"content": "b"}]
    assert whole(events)["choices"][0]["message"]["reasoning_content"] == "a"


@pytest.mark.parametrize("env", [asked(include_reasoning=True), envelope(reasoning_field="both")])
def test_reasoning_goes_out_under_both_names_where_asked(env: Envelope) -> None:
    events: list[Event] = [Reasoning("a"), Text("b"), finish()]
    assert deltas(stream([events], env))[1] == {"reasoning_content": "a", "reasoning": "a"}
    message = whole(events, env)["choices"][0]["message"]
    assert (message["reasoning_content"], message["reasoning"]) == ("a", "a")


def test_a_refusal_stands_in_place_of_content() -> None:
    events: list[Event] = [Text("I will not.", refusal=True), finish()]
    assert deltas(stream([events]))[1] == {"refusal": "I will not."}
    message = whole(events)["choices"][0]["message"]
    assert (message["content"], message["refusal"]) == (None, "I will not.")


def test_a_failure_is_an_error_frame_without_finish_or_end_mark() -> None:
    error = GatewayError(ErrorKind.UPSTREAM_DISCONNECTED, "The upstream went away.")
    frames = stream([[Text("a")], [Failure(error)]])
    assert frames[-1] == {
        "error": {"message": "The upstream went away.", "type": "server_error", "code": "upstream_disconnected", "param": None}
    }
    assert "[DONE]" not in frames
    assert all(choice["finish_reason"] is None for frame in frames[:-1] for choice in frame["choices"])
    with pytest.raises(GatewayError) as caught:
        whole([Text("a"), Failure(error)])
    assert caught.value is error


def test_fields_of_the_upstream_ride_on_their_choice_or_chunk() -> None:
    logprobs = {"content": [{"token": "a", "logprob": -0.1, "bytes": [97], "top_logprobs": []}], "refusal": None}
    ending = Ending("stop", stop="END", extra={"token_ids": [2]})
    last = Finish((ending,), USAGE, extra={"system_fingerprint": "fp", "id": "theirs", "prompt_logprobs": None})
    events: list[Event] = [Text("a", extra={"logprobs": logprobs, "token_ids": [1]}), Text("b"), last]
    asked = envelope(ChatRequest("the-model", [], params={"logprobs": True}))
    frames = stream([events], asked)
    assert frames[1]["choices"][0]["logprobs"] == logprobs
    assert frames[1]["choices"][0]["token_ids"] == [1]
    assert frames[2]["choices"][0]["logprobs"] is None
    assert (frames[3]["choices"][0]["stop_reason"], frames[3]["choices"][0]["token_ids"]) == ("END", [2])
    assert (frames[3]["system_fingerprint"], frames[3]["prompt_logprobs"]) == ("fp", None)
    body = whole(events, asked)
    assert (body["choices"][0]["logprobs"], body["choices"][0]["token_ids"]) == (logprobs, [1, 2])
    assert (body["choices"][0]["stop_reason"], body["system_fingerprint"]) == ("END", "fp")
    assert body["id"].startswith("chatcmpl-")


def test_an_upstreams_fields_never_stand_in_for_ours() -> None:
    theirs = {"index": 9, "delta": {"content": "x"}, "message": "x", "finish_reason": "abort"}
    events: list[Event] = [
        Text("a", extra=theirs),
        Finish((Ending("stop", extra=theirs),), USAGE, extra={"usage": 1, "choices": 1}),
    ]
    frames = stream([events])
    assert [frame["choices"][0]["index"] for frame in frames[:-1]] == [0, 0, 0]
    assert [frame["choices"][0]["finish_reason"] for frame in frames[:-1]] == [None, None, "stop"]
    assert frames[-2]["usage"] == COUNTED
    choice = whole(events)["choices"][0]
    assert (choice["index"], choice["message"]["content"], choice["finish_reason"]) == (0, "a", "stop")


def test_a_service_tier_is_echoed_as_default_where_one_was_sent() -> None:
    events: list[Event] = [Text("a"), finish()]
    env = asked(service_tier="priority")
    assert all(frame["service_tier"] == "default" for frame in stream([events], env)[:-1])
    assert whole(events, env)["service_tier"] == "default"
    assert "service_tier" not in whole(events)


def test_legacy_functions_get_one_function_call() -> None:
    env = asked(functions=[{"name": "f"}, {"name": "g"}])
    events: list[Event] = [ToolStart(0, "call_a", "f"), ToolArgs(0, '{"a"'), ToolArgs(0, ":1}"), ToolEnd(0)]
    events += [ToolStart(1, "call_b", "g"), ToolArgs(1, "{}"), ToolEnd(1), finish("tool_calls")]
    frames = stream([events], env)
    assert deltas(frames)[1:-1] == [
        {"function_call": {"name": "f", "arguments": ""}},
        {"function_call": {"arguments": '{"a"'}},
        {"function_call": {"arguments": ":1}"}},
    ]
    assert frames[-2]["choices"][0]["finish_reason"] == "function_call"
    choice = whole(events, env)["choices"][0]
    assert choice["message"]["function_call"] == {"name": "f", "arguments": '{"a":1}'}
    assert (choice["finish_reason"], "tool_calls" in choice["message"]) == ("function_call", False)


# Whole answers, errors, models ---------------------------------------------------------------------------------------


def test_a_whole_answer_has_every_field() -> None:
    events: list[Event] = [
        Reasoning("hm"),
        Text("hi"),
        ToolStart(0, "call_a", "f"),
        ToolArgs(0, "{}"),
        ToolEnd(0),
        finish("tool_calls"),
    ]
    assert whole(events) == {
        "id": "chatcmpl-000000000000000000000001",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "the-model",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": "hi",
                    "refusal": None,
                    "reasoning_content": "hm",
                    "tool_calls": [{"id": "call_a", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
                },
                "finish_reason": "tool_calls",
                "logprobs": None,
            }
        ],
        "usage": COUNTED,
        "system_fingerprint": None,
    }


def test_content_is_null_where_calls_are_the_answer() -> None:
    body = whole([ToolStart(0, "call_a", "f"), ToolArgs(0, "{}"), ToolEnd(0), finish("tool_calls")])
    assert body["choices"][0]["message"]["content"] is None


def test_an_error_has_all_four_keys() -> None:
    error = GatewayError(ErrorKind.MODEL_NOT_FOUND, "The model 'x' does not exist.", param="model")
    assert orjson.loads(render_error(error, "req_1")) == {
        "error": {
            "message": "The model 'x' does not exist.",
            "type": "invalid_request_error",
            "code": "model_not_found",
            "param": "model",
        }
    }


def test_the_model_list() -> None:
    model = ModelInfo(
        "org/m", 5, "org", "ready", max_model_len=4096, extra={"root": "/mnt/m", "id": "theirs", "permission": [{"id": "p"}]}
    )
    plain = ModelInfo("n", 6, "ds2d", "down")
    listed = orjson.loads(render_models([model, plain], Inbound({})))
    assert listed["object"] == "list"
    assert listed["data"][0] == orjson.loads(render_model(model, Inbound({})))
    assert listed["data"][0] == {
        "id": "org/m",
        "object": "model",
        "created": 5,
        "owned_by": "org",
        "state": "ready",
        "max_model_len": 4096,
        "root": "/mnt/m",
        "permission": [{"id": "p"}],
    }
    assert listed["data"][1] == {
        "id": "n",
        "object": "model",
        "created": 6,
        "owned_by": "ds2d",
        "state": "down",
        "permission": [],
    }
