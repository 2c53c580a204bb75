"""openai-chat.md 2 to 4, row by row: what is refused and by which path, and what becomes of the rest."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.request import ChatRequest, Inbound, ReasoningWish, ToolChoice
from ds2d.core.validate import check_image_sizes
from ds2d.dialects.openai_chat import parse

GOLDEN = Path(__file__).parent.parent / "golden" / "requests" / "openai_chat"
HELLO = [{"role": "user", "content": "hello"}]
PIXEL = "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()


def ask(**fields: Any) -> ChatRequest:
    return parse(Inbound({"model": "m", "messages": HELLO, **fields}))


def refusal(**fields: Any) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        ask(**fields)
    assert caught.value.status == 400
    return caught.value


def function(name: str = "f", **fields: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, **fields}}


def call(call_id: str = "call_1", name: str = "f", arguments: str = "{}") -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def named(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


def allowed(*names: str, mode: str = "auto") -> dict[str, Any]:
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": [named(name) for name in names]}}


# Section 2: fields -------------------------------------------------------------------------------------------------

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


# Section 3: messages -----------------------------------------------------------------------------------------------


def messages_of(*messages: dict[str, Any]) -> list[Any]:
    return ask(messages=list(messages)).messages


def where(*messages: dict[str, Any]) -> str | None:
    return refusal(messages=list(messages)).param


def test_messages_that_need_no_change_are_the_clients_own() -> None:
    given_messages = [
        {"role": "system", "content": "be brief", "unknown": 1},
        {"role": "developer", "content": [{"type": "text", "text": "x"}], "name": "d"},
        {"role": "user", "content": "hello", "name": "n"},
        {"role": "assistant", "content": "hi"},
        {"role": "user", "content": "again"},
    ]
    seen = ask(messages=given_messages).messages
    assert seen == given_messages
    assert seen[0] is given_messages[0]


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"role": "robot", "content": "x"}, "messages[0].role"),
        ({"content": "x"}, "messages[0].role"),
        ({"role": "user"}, "messages[0].content"),
        ({"role": "user", "content": None}, "messages[0].content"),
        ({"role": "user", "content": 5}, "messages[0].content"),
        ({"role": "user", "content": "x", "name": 5}, "messages[0].name"),
        ({"role": "system", "content": [{"type": "image_url", "image_url": {"url": PIXEL}}]}, "messages[0].content[0].type"),
        ({"role": "user", "content": [{"type": "refusal", "refusal": "x"}]}, "messages[0].content[0].type"),
        ({"role": "user", "content": [{"type": "text"}]}, "messages[0].content[0].text"),
        ({"role": "user", "content": [{"type": "text", "text": "a"}, {"text": "b"}]}, "messages[0].content[1].type"),
        ({"role": "user", "content": ["text"]}, "messages[0].content[0]"),
        ({"role": "assistant"}, "messages[0].content"),
        ({"role": "assistant", "content": None, "tool_calls": []}, "messages[0].content"),
        ({"role": "assistant", "content": None, "tool_calls": [{"type": "function"}]}, "messages[0].tool_calls[0].id"),
        ({"role": "assistant", "tool_calls": [{"id": "a"}]}, "messages[0].tool_calls[0].function"),
        ({"role": "assistant", "tool_calls": [{"id": "", "function": {}}]}, "messages[0].tool_calls[0].id"),
        (
            {"role": "assistant", "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": {}}}]},
            "messages[0].tool_calls[0].function.arguments",
        ),
        ({"role": "assistant", "content": "x", "reasoning_content": 1}, "messages[0].reasoning_content"),
        ({"role": "assistant", "content": "x", "prefix": 1}, "messages[0].prefix"),
        ({"role": "tool", "content": "x"}, "messages[0].tool_call_id"),
        ({"role": "function", "content": "x"}, "messages[0].name"),
        (5, "messages[0]"),
    ],
)
def test_a_wrong_message_is_refused_by_its_path(message: Any, param: str) -> None:
    assert where(message) == param


def test_an_assistant_message_without_content_needs_a_call_or_a_refusal() -> None:
    assert messages_of(*HELLO, {"role": "assistant", "content": None, "tool_calls": [call()]})[1]["content"] is None
    assert messages_of({"role": "assistant", "refusal": "no"}) == [{"role": "assistant", "content": "no"}]
    parts = [{"type": "refusal", "refusal": "no"}, {"type": "text", "text": "x"}]
    assert messages_of({"role": "assistant", "content": parts})[0]["content"] == [
        {"type": "text", "text": "no"},
        {"type": "text", "text": "x"},
    ]


def test_nulls_of_a_dumped_sdk_message_are_absent() -> None:
    dumped = {"role": "assistant", "content": "x", "refusal": None, "tool_calls": None, "function_call": None, "audio": None}
    assert messages_of(dumped, {"role": "user", "content": "y", "name": None}) == [
        {"role": "assistant", "content": "x"},
        {"role": "user", "content": "y"},
    ]


def test_both_names_of_reasoning_become_one() -> None:
    for name in ("reasoning", "reasoning_content"):
        seen = messages_of({"role": "assistant", "content": "x", name: "because"})
        assert seen == [{"role": "assistant", "content": "x", "reasoning_content": "because"}]
    assert messages_of({"role": "assistant", "content": "x", "reasoning_content": ""})[0]["reasoning_content"] == ""


def test_a_prefix_stays_on_the_message() -> None:
    assert messages_of(*HELLO, {"role": "assistant", "content": "x", "prefix": True})[1]["prefix"] is True


def test_cache_marks_are_dropped() -> None:
    part = {"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}, "prompt_cache_breakpoint": True}
    seen = messages_of({"role": "user", "content": [part], "cache_control": {"type": "ephemeral"}})
    assert seen == [{"role": "user", "content": [{"type": "text", "text": "x"}]}]


def test_calls_and_their_answers_pass_as_they_came() -> None:
    broken = call("b", arguments='{"not json')
    history = [
        {"role": "assistant", "content": None, "tool_calls": [call("a"), broken]},
        {"role": "tool", "tool_call_id": "b", "content": "2"},
        {"role": "tool", "tool_call_id": "a", "content": [{"type": "text", "text": "1"}]},
        {"role": "user", "content": "go on"},
    ]
    assert messages_of(*history) == history


def test_a_call_without_its_type_gets_it() -> None:
    bare = {"id": "a", "function": {"name": "f", "arguments": ""}}
    assert messages_of({"role": "assistant", "tool_calls": [bare]})[0]["tool_calls"] == [{**bare, "type": "function"}]


@pytest.mark.parametrize(
    "history",
    [
        [{"role": "tool", "tool_call_id": "a", "content": "x"}],
        [{"role": "assistant", "tool_calls": [call("a")]}, {"role": "tool", "tool_call_id": "b", "content": "x"}],
        [{"role": "assistant", "tool_calls": [call("a")]}, {"role": "user", "content": "x"}],
        [
            {"role": "assistant", "tool_calls": [call("a"), call("b")]},
            {"role": "tool", "tool_call_id": "a", "content": "x"},
            *HELLO,
        ],
        [{"role": "assistant", "tool_calls": [call("a"), call("a")]}],
        [
            {"role": "assistant", "tool_calls": [call("a")]},
            {"role": "tool", "tool_call_id": "a", "content": "x"},
            {"role": "tool", "tool_call_id": "a", "content": "x"},
        ],
        [
            {"role": "assistant", "tool_calls": [call("a")]},
            {"role": "tool", "tool_call_id": "a", "content": "x"},
            {"role": "assistant", "tool_calls": [call("a")]},
        ],
        [{"role": "function", "name": "f", "content": "x"}],
    ],
)
def test_a_tool_answer_belongs_to_a_call_before_it(history: list[dict[str, Any]]) -> None:
    assert where(*history) == "messages"


def test_the_older_function_messages_become_tool_messages() -> None:
    assert messages_of(
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "function", "name": "f", "content": "42"},
        {"role": "assistant", "content": "", "function_call": {"name": "g", "arguments": "{}"}},
        {"role": "function", "name": "g", "content": None},
    ) == [
        {"role": "assistant", "content": None, "tool_calls": [call("call_legacy_0")]},
        {"role": "tool", "tool_call_id": "call_legacy_0", "content": "42"},
        {"role": "assistant", "content": "", "tool_calls": [call("call_legacy_2", "g")]},
        {"role": "tool", "tool_call_id": "call_legacy_2", "content": ""},
    ]


def user_part(part: dict[str, Any]) -> ChatRequest:
    return ask(messages=[*HELLO, {"role": "user", "content": [{"type": "text", "text": "see"}, part]}])


def part_refusal(part: dict[str, Any]) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        user_part(part)
    return caught.value


@pytest.mark.parametrize("kind", ["png", "jpeg", "gif", "webp", "PNG"])
def test_images_pass_and_their_paths_are_kept(kind: str) -> None:
    part = {"type": "image_url", "image_url": {"url": PIXEL.replace("png", kind), "detail": "low"}}
    request = user_part(part)
    assert request.images == ("messages[1].content[1]",)
    assert request.messages[1]["content"][1] is part


def test_remote_images_pass_unfetched() -> None:
    assert user_part({"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}).images


@pytest.mark.parametrize(
    "url", ["data:image/png;base64,@@@", "data:image/png;base64,", "data:image/bmp;base64,AAAA", "data:image/png,abc"]
)
def test_a_broken_inline_image_is_refused_by_its_own_code(url: str) -> None:
    error = part_refusal({"type": "image_url", "image_url": {"url": url}})
    assert (error.kind, error.param) == (ErrorKind.INVALID_IMAGE, "messages[1].content[1].image_url.url")


@pytest.mark.parametrize(
    ("image", "param"),
    [
        ({"url": "file:///etc/passwd"}, "image_url.url"),
        ({"url": "ftp://example.com/x"}, "image_url.url"),
        ({"url": PIXEL, "detail": "extreme"}, "image_url.detail"),
        ({}, "image_url.url"),
        (PIXEL, "image_url"),
    ],
)
def test_an_image_that_is_none(image: object, param: str) -> None:
    assert part_refusal({"type": "image_url", "image_url": image}).param == f"messages[1].content[1].{param}"


def test_an_image_above_the_configured_size_is_refused_by_its_path() -> None:
    url = "data:image/png;base64," + base64.b64encode(b"x" * 100).decode()
    request = user_part({"type": "image_url", "image_url": {"url": url}})
    check_image_sizes(request, 100)
    with pytest.raises(GatewayError) as caught:
        check_image_sizes(request, 99)
    assert (caught.value.kind, caught.value.param) == (ErrorKind.INVALID_IMAGE, "messages[1].content[1]")


def test_sound_is_base64_in_one_of_two_formats() -> None:
    part = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
    assert user_part(part).messages[1]["content"][1] is part
    for wrong, param in [
        ({"data": "AAAA", "format": "ogg"}, "format"),
        ({"data": "!", "format": "mp3"}, "data"),
        ({"format": "mp3"}, "data"),
    ]:
        assert part_refusal({"type": "input_audio", "input_audio": wrong}).param == f"messages[1].content[1].input_audio.{param}"


@pytest.mark.parametrize("kind", ["video_url", "audio_url"])
def test_vllms_own_parts_pass(kind: str) -> None:
    part = {"type": kind, kind: {"url": "https://example.com/a"}}
    assert user_part(part).messages[1]["content"][1] is part


def test_a_text_file_becomes_text_and_others_are_refused() -> None:
    data = base64.b64encode("größe".encode()).decode()
    part = {"type": "file", "file": {"file_data": f"data:text/markdown;charset=utf-8;base64,{data}", "filename": "a.md"}}
    assert user_part(part).messages[1]["content"][1] == {"type": "text", "text": "größe"}
    for wrong, param in [
        ({"file_id": "file-1"}, "file_id"),
        ({"file_data": "data:application/pdf;base64,AAAA"}, "file_data"),
        ({"file_data": "data:text/plain;base64,@"}, "file_data"),
        ({"file_data": "data:text/plain;base64,/w=="}, "file_data"),
        ({"filename": "a"}, "file_data"),
    ]:
        assert part_refusal({"type": "file", "file": wrong}).param == f"messages[1].content[1].file.{param}"


# Section 4: tools ---------------------------------------------------------------------------------------------------


def test_a_function_without_parameters_gets_an_empty_schema() -> None:
    request = ask(tools=[function("f", description=None, strict=True), function("g", parameters={"type": "object"})])
    assert request.tools == [
        function("f", parameters={"type": "object", "properties": {}}, strict=True),
        function("g", parameters={"type": "object"}),
    ]
    assert request.tool_choice == ToolChoice("auto")


@pytest.mark.parametrize(
    ("tools", "param"),
    [
        ([{"type": "function"}], "tools[0].function"),
        ([{"function": {"name": "f"}}], "tools[0].type"),
        ([function(""), function("f")], "tools[0].function.name"),
        ([function("a" * 65)], "tools[0].function.name"),
        ([function("f.g")], "tools[0].function.name"),
        ([function("f\n")], "tools[0].function.name"),
        ([function("f"), function("f")], "tools[1].function.name"),
        ([function("f", parameters=[])], "tools[0].function.parameters"),
        ([function("f", strict="yes")], "tools[0].function.strict"),
        ([{"type": "bogus"}], "tools[0].type"),
        ([function(f"f{i}") for i in range(1025)], "tools"),
        ({}, "tools"),
    ],
)
def test_a_wrong_tool_is_refused_by_its_path(tools: object, param: str) -> None:
    assert refusal(tools=tools).param == param


def test_1024_tools_with_names_of_64_characters_are_taken() -> None:
    assert len(ask(tools=[function(f"{i:064d}") for i in range(1024)]).tools) == 1024


def test_custom_tools_are_refused_by_name_and_hosted_ones_left_out() -> None:
    error = refusal(tools=[{"type": "custom", "custom": {"name": "c"}}])
    assert (error.kind, error.param, error.row.openai_code) == (ErrorKind.UNSUPPORTED_TOOL, "tools[0]", "unsupported_tool")
    assert refusal(tools=[function()], tool_choice={"type": "custom", "custom": {"name": "c"}}).kind is ErrorKind.UNSUPPORTED_TOOL
    assert ask(tools=[{"type": "web_search_preview"}]).tools == []


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (None, ToolChoice("auto")),
        ("none", ToolChoice("none")),
        ("auto", ToolChoice("auto")),
        ("required", ToolChoice("required")),
        (named("f"), ToolChoice("required", ("f",), named=True)),
        ({"type": "function", "name": "f"}, ToolChoice("required", ("f",), named=True)),
    ],
)
def test_who_may_be_called(choice: object, expected: ToolChoice) -> None:
    request = ask(tools=[function("f"), function("g")], tool_choice=choice)
    assert request.tool_choice == expected
    assert len(request.tools) == 2


@pytest.mark.parametrize("mode", ["auto", "required"])
def test_an_allowed_list_cuts_the_tools(mode: str) -> None:
    request = ask(tools=[function("f"), function("g"), function("h")], tool_choice=allowed("h", "f", mode=mode))
    assert [tool["function"]["name"] for tool in request.tools] == ["f", "h"]
    assert request.tool_choice == ToolChoice(mode, ("h", "f"))


def test_without_tools_only_none_and_auto_make_sense() -> None:
    assert ask().tool_choice.mode == "none"
    assert ask(tools=[]).tool_choice.mode == "none"
    assert ask(tool_choice="auto").tool_choice.mode == "auto"
    for wrong in ("required", named("f"), allowed("f")):
        assert refusal(tool_choice=wrong).param == "tool_choice"


@pytest.mark.parametrize(
    ("choice", "param"),
    [
        (named("g"), "tool_choice"),
        (allowed("f", "g"), "tool_choice"),
        ("any", "tool_choice"),
        ({"type": "tool"}, "tool_choice.type"),
        ({"type": "function"}, "tool_choice.function"),
        ({"type": "allowed_tools"}, "tool_choice.allowed_tools"),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "none", "tools": [named("f")]}}, "tool_choice.allowed_tools.mode"),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": []}}, "tool_choice.allowed_tools.tools"),
    ],
)
def test_a_choice_of_nothing_declared_is_refused(choice: object, param: str) -> None:
    assert refusal(tools=[function("f")], tool_choice=choice).param == param


def test_parallel_calls_are_the_clients_wish() -> None:
    assert ask(parallel_tool_calls=False).parallel_tool_calls is False
    assert ask().parallel_tool_calls is None
    assert refusal(parallel_tool_calls="no").param == "parallel_tool_calls"


def test_legacy_functions_are_tools_called_one_at_a_time() -> None:
    functions = [{"name": "f"}, {"name": "g", "parameters": {"type": "object"}}]
    request = ask(functions=functions, function_call={"name": "g"})
    assert [tool["function"]["name"] for tool in request.tools] == ["f", "g"]
    assert request.tool_choice == ToolChoice("required", ("g",), named=True)
    assert request.parallel_tool_calls is False
    assert request.reply.legacy
    assert ask(functions=functions, function_call="none").tool_choice == ToolChoice("none")
    assert ask(functions=functions).tool_choice == ToolChoice("auto")
    assert refusal(functions=functions, function_call={"name": "h"}).param == "function_call"
    assert refusal(functions=[{"name": "f f"}]).param == "functions[0].name"
    assert refusal(functions=functions, tools=[function()]).param == "functions"


SCHEMA = {"type": "json_schema", "json_schema": {"name": "out", "schema": {"type": "object"}, "strict": True}}


@pytest.mark.parametrize("form", [{"type": "json_object"}, SCHEMA, {"type": "structural_tag", "format": {}}])
def test_a_response_format_goes_on_as_it_is(form: dict[str, Any]) -> None:
    assert ask(response_format=form).response_format is form


def test_the_format_text_is_no_format() -> None:
    assert ask(response_format={"type": "text"}).response_format is None


@pytest.mark.parametrize(
    ("form", "param"),
    [
        ({"type": "xml"}, "response_format.type"),
        ({}, "response_format.type"),
        ("json", "response_format"),
        ({"type": "json_schema"}, "response_format.json_schema"),
        ({"type": "json_schema", "json_schema": {"name": "out"}}, "response_format.json_schema.schema"),
        ({"type": "json_schema", "json_schema": {"name": "out", "schema": []}}, "response_format.json_schema.schema"),
        ({"type": "json_schema", "json_schema": {"name": "o.ut", "schema": {}}}, "response_format.json_schema.name"),
        ({"type": "json_schema", "json_schema": {"schema": {}}}, "response_format.json_schema.name"),
    ],
)
def test_a_wrong_response_format_is_refused_by_its_path(form: object, param: str) -> None:
    assert refusal(response_format=form).param == param


# Whole bodies --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.json")), ids=lambda path: path.stem)
def test_recorded_bodies_are_taken_as_written_down(path: Path) -> None:
    case = orjson.loads(path.read_bytes())
    request = parse(Inbound(case["body"]))
    seen = {name: getattr(request, name) for name in case["expect"]}
    assert orjson.loads(orjson.dumps(seen, default=_plain)) == case["expect"]


def _plain(value: object) -> object:
    return {name: getattr(value, name) for name in value.__struct_fields__}  # type: ignore[attr-defined]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
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
