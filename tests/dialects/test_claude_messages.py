"""anthropic-messages.md 3 and 9: turns of blocks become chat messages, and what cannot is refused by its path."""

from __future__ import annotations

from typing import Any

import pytest

from tests.dialects.claude_requests import (
    HELLO,
    IMAGE,
    IMAGE_PART,
    PIXEL,
    ask,
    messages,
    refusal,
    result,
    said,
    tail,
    text,
    use,
    user,
)


@pytest.mark.parametrize(
    ("entry", "path"),
    [
        ({"role": "tool", "content": "x"}, "messages.0.role"),
        ({"role": "user"}, "messages.0.content"),
        ({"role": "user", "content": 5}, "messages.0.content"),
        ({"role": "user", "content": ""}, "messages.0.content"),
        ({"role": "user", "content": []}, "messages.0.content"),
        (user(text("")), "messages.0.content.0.text"),
        (user({"text": "x"}), "messages.0.content.0.type"),
        (user({"type": "video"}), "messages.0.content.0.type"),
        (user({"type": "thinking", "thinking": "x", "signature": ""}), "messages.0.content.0.type"),
        (user(use("a")), "messages.0.content.0.type"),
        (user(result("a")), "messages.0.content.0.tool_use_id"),
        (user({"type": "image", "source": {"type": "file", "file_id": "f"}}), "messages.0.content.0.source.type"),
        (user({"type": "document", "source": {"type": "base64", "data": "JVBE"}}), "messages.0.content.0.source.type"),
        (
            user({"type": "image", "source": {"type": "base64", "media_type": "image/tiff", "data": PIXEL}}),
            "messages.0.content.0",
        ),
        (user({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "!!"}}), "messages.0.content.0"),
        (user({"type": "image", "source": {"type": "url", "url": "file:///etc/passwd"}}), "messages.0.content.0"),
        (said(IMAGE), "messages.0.content.0.type"),
        (said({"type": "tool_use", "id": "a", "name": "read"}), "messages.0.content.0.input"),
        (said({"type": "tool_use", "id": "a", "name": "read", "input": "{}"}), "messages.0.content.0.input"),
        (said({"type": "tool_use", "name": "read", "input": {}}), "messages.0.content.0.id"),
    ],
)
def test_a_bad_block_is_refused_by_its_path(entry: Any, path: str) -> None:
    assert refusal(messages=[entry, *HELLO]).param == path


def test_messages_of_one_role_in_a_row_are_one_turn() -> None:
    assert messages(user("a"), user(text("b"), text("c")), said("d"), said(text("e"))) == [
        user("a\n\nb\n\nc"),
        {"role": "assistant", "content": "d\n\ne", "prefix": True},
    ]


def test_pieces_of_one_answer_are_joined_as_they_were_produced() -> None:
    assert messages(user("a"), said(text("Hel"), text("lo")), user("b"))[1] == {"role": "assistant", "content": "Hello"}


def test_a_last_assistant_message_is_a_prefill() -> None:
    assert messages(user("a"), said("{"))[-1] == {"role": "assistant", "content": "{", "prefix": True}


@pytest.mark.parametrize("content", ["", [], [text("")]])
def test_an_empty_prefill_is_none(content: Any) -> None:
    assert messages(user("a"), {"role": "assistant", "content": content}) == [user("a")]


def test_thinking_becomes_the_reasoning_of_its_turn() -> None:
    thinking = {"type": "thinking", "thinking": "hm", "signature": "whatever"}
    assert messages(user("go"), said(thinking, text("Hi"), use("a", path="x")), user(result("a", "ok")))[1] == {
        "role": "assistant",
        "content": "Hi",
        "reasoning_content": "hm",
        "tool_calls": [{"id": "a", "type": "function", "function": {"name": "read", "arguments": '{"path":"x"}'}}],
    }


def test_an_omitted_thinking_block_is_no_reasoning_so_that_the_memory_can_help() -> None:
    thinking = {"type": "thinking", "thinking": "", "signature": ""}
    assert "reasoning_content" not in messages(user("go"), said(thinking, use("a")), user(result("a")))[1]


@pytest.mark.parametrize(
    "block",
    [
        {"type": "redacted_thinking", "data": "x"},
        {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}},
        {"type": "web_search_tool_result", "tool_use_id": "s", "content": []},
        {"type": "mcp_tool_use", "id": "s"},
        {"type": "container_upload", "file_id": "f"},
        {"type": "compaction", "content": "x"},
    ],
)
def test_blocks_of_services_are_dropped_from_history(block: dict[str, Any]) -> None:
    assert messages(user("a"), said(block, text("b")), user("c")) == [user("a"), said("b"), user("c")]
    assert messages(user("a"), said(block), user("c")) == [user("a"), user("c")]


def test_documents_and_search_results_become_text() -> None:
    document = {
        "type": "document",
        "title": "T",
        "context": "C",
        "source": {"type": "text", "media_type": "text/plain", "data": "D"},
    }
    inner = {"type": "document", "source": {"type": "content", "content": [text("E"), IMAGE]}}
    found = {"type": "search_result", "source": "https://x", "title": "S", "content": [text("F")]}
    parts = messages(user(document, inner, found))[0]["content"]
    words = [part["text"] for part in parts if part["type"] == "text"]
    assert words == ["[document: T]", "C", "D", "[document]", "E", "[search result: S]", "https://x", "F"]
    assert IMAGE_PART in parts


def test_images_are_parts_and_their_places_are_known() -> None:
    link = {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}}
    request = ask(messages=[user(text("look"), IMAGE), said("a"), user(link)])
    assert request.messages[0]["content"] == [text("look"), IMAGE_PART]
    assert request.messages[2]["content"] == [{"type": "image_url", "image_url": {"url": "https://x/y.png"}}]
    assert request.images == ("messages.0.content.1", "messages.2.content.0")


# Calls and results -----------------------------------------------------------------------------------------------------


def test_results_stand_in_the_order_of_the_calls_before_what_else_was_said() -> None:
    assert tail(user(text("note"), result("b", "B"), result("a", "A"))) == [
        {"role": "tool", "tool_call_id": "a", "content": "A"},
        {"role": "tool", "tool_call_id": "b", "content": "B"},
        user("note"),
    ]


def test_results_may_come_in_several_messages() -> None:
    assert [message["content"] for message in tail(user(result("a", "A")), user(result("b", "B")))] == ["A", "B"]


@pytest.mark.parametrize(
    ("block", "content"),
    [
        (result("a"), ""),
        (result("a", ""), ""),
        (result("a", "text"), "text"),
        (result("a", [text("x"), text("y")]), "x\n\ny"),
        (result("a", [text("")]), ""),
        (result("a", "bad", is_error=True), "Error: bad"),
        (result("a", is_error=True), "Error: "),
        (result("a", "fine", is_error=False), "fine"),
        (result("a", [{"type": "tool_reference", "tool_name": "x"}, text("z")]), "z"),
    ],
)
def test_what_a_result_says(block: dict[str, Any], content: str) -> None:
    assert tail(user(block, result("b")))[0]["content"] == content


def test_images_in_results_are_shown_by_the_next_user_message() -> None:
    request = ask(messages=[user("go"), said(use("a")), user(result("a", [IMAGE]), text("see?"))])
    assert request.messages[2:] == [
        {"role": "tool", "tool_call_id": "a", "content": "[image below]"},
        {"role": "user", "content": [IMAGE_PART, text("see?")]},
    ]
    assert request.images == ("messages.2.content.0.content.0",)


def test_a_system_note_between_call_and_result_comes_behind_the_result() -> None:
    note = {"role": "system", "content": "note"}
    roles = [message["role"] for message in tail(note, user(result("a"), result("b")))]
    assert roles == ["tool", "tool", "system"]


@pytest.mark.parametrize(
    "entries",
    [
        [said(use("a"))],
        [said(use("a")), user("hi")],
        [said(use("a"), use("b")), user(result("a"))],
        [said(use("a")), {"role": "system", "content": "x"}, said("b")],
    ],
)
def test_every_call_wants_its_result(entries: list[Any]) -> None:
    error = refusal(messages=[user("go"), *entries])
    assert "`tool_use` ids were found without `tool_result` blocks immediately after: " in error.message
    assert error.param == "messages.1"


@pytest.mark.parametrize("block", [result("zz"), result("a")])
def test_every_result_wants_its_call_and_only_one(block: dict[str, Any]) -> None:
    assert refusal(messages=[user("go"), said(use("a")), user(result("a"), block)]).param == "messages.2.content.1.tool_use_id"


def test_ids_of_calls_are_unique() -> None:
    assert (
        "unique" in refusal(messages=[user("go"), said(use("a")), user(result("a")), said(use("a")), user(result("a"))]).message
    )


def test_calls_split_over_two_messages_are_one_turn() -> None:
    found = messages(user("go"), said(text("x"), use("a")), said(use("b")), user(result("b", "B"), result("a", "A")))
    assert [call["id"] for call in found[1]["tool_calls"]] == ["a", "b"]
    assert [message.get("tool_call_id") for message in found[2:]] == ["a", "b"]
