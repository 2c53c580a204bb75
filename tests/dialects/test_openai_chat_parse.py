"""openai-chat.md 2: fields, what is refused and by which path, and recorded bodies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.request import Inbound, ReasoningWish
from ds2d.dialects.openai_chat import parse
from tests.dialects.chat_questions import GOLDEN, HELLO, JSON, ask, refusal

NUMBERS = {  # field: values just inside, values just outside
    "temperature": ([0, 2, 1.5], [-0.01, 2.01, True, "1"]),
    "top_p": ([0, 1, 0.5], [-0.01, 1.01, True, "1"]),
    "n": ([1, 128], [0, 129, 1.5, True, "1"]),
    "presence_penalty": ([-2, 2], [-2.01, 2.01, False]),
    "frequency_penalty": ([-2, 2], [-2.01, 2.01, False]),
    "seed": ([-(2**63), 2**63 - 1], [2**63, -(2**63) - 1, 1e20, True, "7"]),
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, (inside, _) in NUMBERS.items() for value in inside])
def test_a_number_within_its_limits_goes_on_as_it_was_written(name: str, value: object) -> None:
    assert ask(**{name: value}).params == {name: value}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, (_, outside) in NUMBERS.items() for value in outside])
def test_a_number_outside_its_limits_is_refused_by_name(name: str, value: object) -> None:
    assert refusal(**{name: value}).param == name


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize("value", [0, -1, 1.5, True, "10", 2**53])
def test_a_token_limit_is_a_positive_integer(name: str, value: object) -> None:
    assert refusal(**{name: value}).param == name


def test_max_completion_tokens_wins_over_max_tokens() -> None:
    assert ask(max_tokens=5, max_completion_tokens=1).max_tokens == 1
    assert ask(max_tokens=1).max_tokens == 1
    assert ask().max_tokens is None


@pytest.mark.parametrize("stop", ["a", ["a"], ["a"] * 16])
def test_stop_strings_go_on(stop: object) -> None:
    assert ask(stop=stop).params == {"stop": stop}


@pytest.mark.parametrize(
    ("stop", "param"), [("", "stop"), (["a", ""], "stop[1]"), (["a"] * 17, "stop"), ([1], "stop[0]"), (1, "stop")]
)
def test_stop_strings_outside_the_limits_are_refused(stop: object, param: str) -> None:
    assert refusal(stop=stop).param == param


def test_no_stop_string_is_no_stop_field() -> None:
    assert ask(stop=[]).params == {}


def test_logit_bias_maps_token_ids_to_numbers_from_minus_100_to_100() -> None:
    assert ask(logit_bias={"7": -100, "8": 100}).params == {"logit_bias": {"7": -100, "8": 100}}
    for wrong in ({"7": 100.5}, {"7": -101}, {"seven": 1}, {"7": True}, []):
        assert refusal(logit_bias=wrong).param == "logit_bias"


def test_top_logprobs_needs_logprobs_and_is_at_most_20() -> None:
    assert ask(logprobs=True, top_logprobs=20).params == {"logprobs": True, "top_logprobs": 20}
    assert ask(logprobs=True, top_logprobs=0).params["top_logprobs"] == 0
    for fields in ({"logprobs": True, "top_logprobs": 21}, {"top_logprobs": 1}, {"logprobs": False, "top_logprobs": 1}):
        assert refusal(**fields).param == "top_logprobs"
    assert refusal(logprobs=True, top_logprobs=-1).param == "top_logprobs"
    assert refusal(logprobs=1).param == "logprobs"


@pytest.mark.parametrize(
    ("body", "param"), [({}, "model"), ({"model": ""}, "model"), ({"model": None}, "model"), ({"model": 1}, "model")]
)
def test_the_model_is_required(body: dict[str, Any], param: str) -> None:
    with pytest.raises(GatewayError) as caught:
        parse(Inbound({"messages": HELLO, **body}))
    assert caught.value.param == param


@pytest.mark.parametrize("messages", [None, [], "hello", {}])
def test_messages_are_required(messages: object) -> None:
    assert refusal(messages=messages).param == "messages"


def test_a_missing_field_is_named() -> None:
    with pytest.raises(GatewayError) as caught:
        parse(Inbound({"model": "m"}))
    assert caught.value.param == "messages"


def test_null_means_absent() -> None:
    nulls = dict.fromkeys([*NUMBERS, "stop", "max_tokens", "tools", "tool_choice", "stream", "stream_options", "user", "audio"])
    request = ask(**nulls, logit_bias=None, response_format=None, thinking=None, reasoning_effort=None, modalities=None)
    assert (request.params, request.tools, request.stream, request.extra) == ({}, [], False, {})


def test_stream_options_need_a_stream() -> None:
    assert refusal(stream_options={"include_usage": True}).param == "stream_options"
    assert refusal(stream=False, stream_options={}).param == "stream_options"
    assert refusal(stream=True, stream_options={"include_usage": 1}).param == "stream_options.include_usage"
    assert refusal(stream=1).param == "stream"
    assert ask(stream=True, stream_options={"include_usage": True, "include_obfuscation": True}).stream


@pytest.mark.parametrize(
    ("fields", "wish"),
    [
        ({}, ReasoningWish()),
        ({"reasoning_effort": "none"}, ReasoningWish("off")),
        *[
            ({"reasoning_effort": effort}, ReasoningWish("on", effort))
            for effort in ("minimal", "low", "medium", "high", "xhigh", "max")
        ],
        ({"thinking": {"type": "enabled"}}, ReasoningWish("on")),
        ({"thinking": {"type": "disabled"}, "reasoning_effort": "high"}, ReasoningWish("off")),
        ({"thinking": {"type": "enabled"}, "reasoning_effort": "high"}, ReasoningWish("on", "high")),
        ({"thinking": {"type": "enabled"}, "reasoning_effort": "none"}, ReasoningWish("on")),
    ],
)
def test_a_wish_about_reasoning(fields: dict[str, Any], wish: ReasoningWish) -> None:
    assert ask(**fields).reasoning == wish


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"reasoning_effort": "huge"}, "reasoning_effort"),
        ({"reasoning_effort": 1}, "reasoning_effort"),
        ({"thinking": {"type": "adaptive"}}, "thinking.type"),
        ({"thinking": {}}, "thinking.type"),
        ({"thinking": True}, "thinking"),
    ],
)
def test_a_wish_about_reasoning_that_is_none(fields: dict[str, Any], param: str) -> None:
    assert refusal(**fields).param == param


def test_audio_answers_are_refused_by_name() -> None:
    for fields in ({"modalities": ["text", "audio"]}, {"audio": {"voice": "alloy", "format": "wav"}}):
        error = refusal(**fields)
        assert (error.kind, error.param) == (ErrorKind.UNSUPPORTED_PARAMETER, next(iter(fields)))
    assert ask(modalities=["text"]).extra == {}


IGNORED: dict[str, tuple[object, object]] = {  # field: a value of its type, one of another
    "metadata": ({"a": "b"}, "a"),
    "store": (True, "yes"),
    "service_tier": ("auto", 1),
    "prompt_cache_key": ("k", 1),
    "prompt_cache_retention": ("24h", 1),
    "prompt_cache_options": ({"ttl": "1h"}, 1),
    "verbosity": ("low", 1),
    "moderation": ({"model": "x"}, 1),
    "prediction": ({"type": "content", "content": "x"}, 1),
    "web_search_options": ({}, True),
}


@pytest.mark.parametrize("name", IGNORED)
def test_what_is_accepted_and_ignored_goes_nowhere_but_must_have_its_type(name: str) -> None:
    right, wrong = IGNORED[name]
    request = ask(**{name: right})
    assert request.extra == {}
    assert request.params == {}
    assert refusal(**{name: wrong}).param == name


def test_unknown_fields_ride_along_and_dangerous_ones_do_not() -> None:
    extras = {"top_k": 5, "chat_template_kwargs": {"enable_thinking": False}, "guided_json": {"type": "object"}, "new": [1]}
    inner = {"request_id": "x", "session_id": "x", "kv_transfer_params": {}, "ec_transfer_params": {}, "prompt_embeds": "x"}
    assert ask(**extras, **inner, nothing=None).extra == extras


def test_include_reasoning_is_remembered_and_goes_on() -> None:
    request = ask(include_reasoning=True)
    assert request.extra == {"include_reasoning": True}
    assert request.reply.both_names


def test_the_user_is_the_user_or_the_safety_identifier() -> None:
    assert ask(user="u", safety_identifier="s").user == "u"
    assert ask(safety_identifier="s" * 64).user == "s" * 64
    assert refusal(safety_identifier="s" * 65).param == "safety_identifier"
    assert refusal(user=1).param == "user"


def test_requests_that_belong_together_say_so_by_key_or_header() -> None:
    assert ask(prompt_cache_key="k").session == "k"
    assert parse(Inbound({"model": "m", "messages": HELLO}, {"x-session-id": "s"})).session == "s"
    assert ask().session is None


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.json")), ids=lambda path: path.stem)
def test_recorded_bodies_are_taken_as_written_down(path: Path) -> None:
    case = orjson.loads(path.read_bytes())
    request = parse(Inbound(case["body"]))
    seen = {name: getattr(request, name) for name in case["expect"]}
    assert orjson.loads(orjson.dumps(seen, default=_plain)) == case["expect"]


def _plain(value: object) -> object:
    return {name: getattr(value, name) for name in value.__struct_fields__}  # type: ignore[attr-defined]


FIELDS = st.sampled_from(
    [
        "model",
        "messages",
        "tools",
        "tool_choice",
        "response_format",
        "stop",
        "functions",
        "function_call",
        "thinking",
        "stream_options",
    ]
)
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "user", "assistant", "tool", "function"]) | JSON},
        optional={
            "content": JSON
            | st.lists(st.fixed_dictionaries({"type": st.sampled_from(["text", "image_url", "file"])}), max_size=2),
            "tool_calls": JSON,
            "function_call": JSON,
            "refusal": JSON,
        },
    ),
    max_size=3,
)


@given(st.dictionaries(FIELDS, JSON, max_size=5), MESSAGES | JSON)
def test_any_json_is_taken_or_refused(fields: dict[str, Any], messages: Any) -> None:
    try:
        parse(Inbound({"model": "m", "messages": messages, **fields}))
    except GatewayError as error:
        assert error.status == 400  # noqa: PT017 - both outcomes are right
