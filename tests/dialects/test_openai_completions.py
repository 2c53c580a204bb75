"""openai-chat.md 8: a prompt continued, streamed and whole."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.events import Ending, Event, Failure, Finish, Reasoning, Text, ToolArgs, ToolEnd, ToolStart, Usage, fold
from ds2d.core.request import ChatRequest, Envelope, Inbound
from ds2d.dialects.openai_completions import Encoder, parse, render, render_error
from tests.dialects.answers import answers, envelope

USAGE = Usage(3, 4)
COUNTED = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}


def ask(**fields: Any) -> ChatRequest:
    return parse(Inbound({"model": "m", "prompt": "Once", **fields}))


def refused(**fields: Any) -> str | None:
    with pytest.raises(GatewayError) as caught:
        ask(**fields)
    assert caught.value.status == 400
    return caught.value.param


def asked(**fields: Any) -> Envelope:
    return envelope(ask(stream=True, **fields))


def stream(batches: list[list[Event]], env: Envelope | None = None) -> list[Any]:
    encoder = Encoder(env or envelope())
    frames = b"".join(encoder.feed(batch) for batch in batches).removesuffix(b"\n\n").split(b"\n\n")
    return ["[DONE]" if frame == b"data: [DONE]" else orjson.loads(frame.removeprefix(b"data: ")) for frame in frames]


def whole(events: list[Event], env: Envelope | None = None) -> Any:
    return orjson.loads(render(fold(events), env or envelope()))


@pytest.mark.parametrize("prompt", ["", "Once", ["a"], ["a", "b"], [1, 2, 0], [[1], [2, 3]], ["x"] * 2048])
def test_a_prompt_goes_on_as_it_came(prompt: object) -> None:
    request = ask(prompt=prompt)
    assert request.prompt is prompt
    assert request.messages == []


@pytest.mark.parametrize(
    ("prompt", "param"),
    [
        (None, "prompt"),
        ([], "prompt"),
        ({}, "prompt"),
        (5, "prompt"),
        (["a", 1], "prompt"),
        ([1, [2]], "prompt"),
        ([[1], "a"], "prompt"),
        ([[]], "prompt[0]"),
        ([[1], [True]], "prompt[1][0]"),
        ([-1], "prompt[0]"),
        ([1.5], "prompt[0]"),
        (["x"] * 2049, "prompt"),
    ],
)
def test_a_prompt_that_is_none(prompt: object, param: str) -> None:
    assert refused(prompt=prompt) == param


def test_a_missing_prompt_is_named() -> None:
    with pytest.raises(GatewayError) as caught:
        parse(Inbound({"model": "m"}))
    assert caught.value.param == "prompt"


def test_max_tokens_is_16_where_none_is_given_and_may_be_zero() -> None:
    assert [ask(**fields).max_tokens for fields in ({}, {"max_tokens": None}, {"max_tokens": 0}, {"max_tokens": 9})] == [
        16,
        16,
        0,
        9,
    ]


@pytest.mark.parametrize(
    ("field", "inside", "outside"),
    [
        ("logprobs", [0, 5], [-1, 6, True, "1"]),
        ("n", [1, 128], [0, 129]),
        ("temperature", [0, 2], [-1, 2.1]),
        ("stop", ["a", ["a"] * 16], ["", ["a"] * 17]),
        ("echo", [True, False], [1, "yes"]),
        ("suffix", ["end"], [1]),
        ("seed", [1], [2**63]),
        ("logit_bias", [{"1": 1}], [{"1": 101}]),
    ],
)
def test_fields_within_their_limits_go_on_and_others_are_refused(field: str, inside: list[object], outside: list[object]) -> None:
    for value in inside:
        assert ask(**{field: value}).params == {field: value}
    for value in outside:
        assert refused(**{field: value}) == field


def test_max_tokens_and_stream_options_have_limits_too() -> None:
    assert refused(max_tokens=-1) == "max_tokens"
    assert refused(stream_options={"include_usage": True}) == "stream_options"
    assert refused(model="") == "model"


def test_an_empty_suffix_is_none() -> None:
    assert ask(suffix="").params == {}


@pytest.mark.parametrize("fields", [{"best_of": 1}, {"best_of": 3, "n": 3}, {"best_of": 1, "stream": True}])
def test_best_of_is_taken_where_it_changes_nothing(fields: dict[str, Any]) -> None:
    assert "best_of" not in ask(**fields).params


@pytest.mark.parametrize(
    "fields",
    [{"best_of": 2}, {"best_of": 1, "n": 2}, {"best_of": 0}, {"best_of": 21, "n": 21}, {"best_of": 2, "n": 2, "stream": True}],
)
def test_best_of_is_refused_otherwise(fields: dict[str, Any]) -> None:
    assert refused(**fields) == "best_of"


def test_extras_ride_along_and_ignored_fields_do_not() -> None:
    assert ask(top_k=3, guided_regex="a+", metadata={}, request_id="x", best_of=1).extra == {"top_k": 3, "guided_regex": "a+"}


def test_the_frames_of_a_stream_byte_by_byte() -> None:
    encoder = Encoder(envelope())
    head = b'data: {"id":"cmpl-000000000000000000000001","object":"text_completion",'
    head += b'"created":1700000000,"model":"the-model","choices":['
    assert encoder.feed([Text("x", 1)]) == head + b'{"index":1,"text":"x","finish_reason":null,"logprobs":null}]}\n\n'
    assert encoder.keep_alive() == b": keep-alive\n\n"
    assert encoder.feed([Finish((Ending("length"),), USAGE)]) == (
        head + b'{"logprobs":null,"index":0,"text":"","finish_reason":"length"}]'
        b',"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}}\n\ndata: [DONE]\n\n'
    )


@given(answers(calls=False), st.booleans())
def test_any_answer_streams_by_the_rules_and_says_what_the_whole_one_says(
    batches: list[list[Event]], include_usage: bool
) -> None:
    env = asked(stream_options={"include_usage": include_usage})
    *frames, end = stream(batches, env)
    assert end == "[DONE]"
    texts: dict[int, str] = {}
    reasons: dict[int, str] = {}
    usages = []
    for frame in frames:
        assert frame["object"] == "text_completion"
        assert (frame["id"], frame["created"], frame["model"]) == (frames[0]["id"], 1_700_000_000, "the-model")
        usages += [frame["usage"]] if frame.get("usage") else []
        assert ("usage" in frame) == (include_usage or bool(frame.get("usage")))
        for choice in frame["choices"]:
            assert choice["index"] not in reasons
            texts[choice["index"]] = texts.get(choice["index"], "") + choice["text"]
            if choice["finish_reason"]:
                reasons[choice["index"]] = choice["finish_reason"]
    assert frames[-1].get("usage")
    assert (frames[-1]["choices"] == []) == include_usage
    body = whole([event for batch in batches for event in batch], env)
    assert [usages, texts, reasons] == [
        [body["usage"]],
        {choice["index"]: choice["text"] for choice in body["choices"]},
        {choice["index"]: choice["finish_reason"] for choice in body["choices"]},
    ]


def test_a_whole_answer_numbers_choices_prompt_by_prompt() -> None:
    events: list[Event] = [Text("a"), Text("b", 1), Text("c", 2), Text("d", 3), Finish((Ending("stop"),) * 4, USAGE)]
    assert whole(events) == {
        "id": "cmpl-000000000000000000000001",
        "object": "text_completion",
        "created": 1_700_000_000,
        "model": "the-model",
        "choices": [{"index": i, "text": text, "logprobs": None, "finish_reason": "stop"} for i, text in enumerate("abcd")],
        "usage": COUNTED,
    }


def test_reasoning_and_calls_have_no_place() -> None:
    events: list[Event] = [Reasoning("hm"), Text("a"), ToolStart(0, "c", "f"), ToolArgs(0, "{}"), ToolEnd(0)]
    events.append(Finish((Ending("tool_calls"),), USAGE))
    *frames, _ = stream([events])
    assert [frame["choices"][0]["text"] for frame in frames] == ["a", ""]
    assert frames[-1]["choices"][0]["finish_reason"] == "stop"
    assert (whole(events)["choices"][0]["text"], whole(events)["choices"][0]["finish_reason"]) == ("a", "stop")


LEGACY = {"tokens": ["On", "ce"], "token_logprobs": [None, -0.5], "top_logprobs": [None, {"ce": -0.5}], "text_offset": [0, 2]}


def test_log_probabilities_in_this_format_pass() -> None:
    events: list[Event] = [Text("Once", extra={"logprobs": LEGACY}), Finish((Ending("stop", "END", {"token_ids": [1]}),), USAGE)]
    frames = stream([events])
    assert frames[0]["choices"][0]["logprobs"] == LEGACY
    assert (frames[1]["choices"][0]["stop_reason"], frames[1]["choices"][0]["token_ids"]) == ("END", [1])
    assert whole(events)["choices"][0]["logprobs"] == LEGACY


def test_chats_log_probabilities_become_this_formats() -> None:
    def chat(token: str, top: list[Any]) -> dict[str, Any]:
        return {"logprobs": {"content": [{"token": token, "logprob": -1.0, "bytes": None, "top_logprobs": top}], "refusal": None}}

    events: list[Event] = [
        Text("On", extra=chat("On", [{"token": "On", "logprob": -1.0}])),
        Text("ce", extra=chat("ce", [])),
        Finish((Ending("stop"),), USAGE),
    ]
    frames = stream([events])
    assert [frame["choices"][0]["logprobs"] for frame in frames[:2]] == [
        {"tokens": ["On"], "token_logprobs": [-1.0], "top_logprobs": [{"On": -1.0}], "text_offset": [0]},
        {"tokens": ["ce"], "token_logprobs": [-1.0], "top_logprobs": [None], "text_offset": [2]},
    ]
    assert whole(events)["choices"][0]["logprobs"] == {
        "tokens": ["On", "ce"],
        "token_logprobs": [-1.0, -1.0],
        "top_logprobs": [{"On": -1.0}, None],
        "text_offset": [0, 2],
    }


def test_running_usage_stands_on_every_chunk() -> None:
    env = asked(stream_options={"include_usage": True, "continuous_usage_stats": True})
    env.usage = lambda: Usage(3, 1)
    frames = stream([[Text("a")], [Finish((Ending("stop"),), USAGE)]], env)
    assert [frame["usage"]["completion_tokens"] for frame in frames[:-1]] == [1, 1, 4]


def test_a_failure_is_an_error_frame_without_end_mark() -> None:
    error = GatewayError(ErrorKind.SHUTTING_DOWN, "The gateway is shutting down.")
    frames = stream([[Text("a")], [Failure(error)]])
    assert frames[1:] == [orjson.loads(render_error(error, "req_1"))]
    assert frames[1]["error"]["code"] == "shutting_down"
    with pytest.raises(GatewayError):
        whole([Failure(error)])
