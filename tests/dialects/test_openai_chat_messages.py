"""openai-chat.md 3: messages and their parts."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.request import ChatRequest
from ds2d.core.validate import check_image_sizes
from tests.dialects.chat_questions import HELLO, PIXEL, ask, call, refusal


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


@pytest.mark.parametrize("at", [0, 999, 1000, 1001, 2499])
def test_very_many_messages_are_checked_as_a_few_are(at: int) -> None:
    many: list[dict[str, Any]] = [{"role": "user", "content": str(number)} for number in range(2500)]
    assert messages_of(*many) == many
    assert where(*many[:at], {"role": "user", "content": 5}, *many[at + 1 :]) == f"messages[{at}].content"


def test_there_may_be_a_hundred_thousand_messages_and_no_more() -> None:
    many = [{"role": "user", "content": "x"}] * 100_000
    assert len(messages_of(*many)) == 100_000
    assert where(*many, many[0]) == "messages"


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
