"""The conversation, from Claude's turns of blocks to chat messages (anthropic-messages.md 3).

Rule: messages made from the first turns do not change when more turns follow: upstreams cache prompts by prefix.
Surprise: results of calls stand in user messages here and are messages of their own in chat, directly behind the calls and in
their order; system messages in between stay where they are, but behind the results.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import orjson

from ds2d.core.errors import GatewayError
from ds2d.core.gather import joined
from ds2d.core.names import upstream_name
from ds2d.core.request import IMAGE_BELOW, NOTHING, Message, ToolCall
from ds2d.core.validate import MAX_QUOTED, invalid
from ds2d.dialects.claude.blocks import Content, add_block, drop, read_content
from ds2d.dialects.claude.fields import array, mapping, one_of, text

BILLING = "x-anthropic-billing-header:"
"""Claude Code's first system block; it differs from conversation to conversation (clients.md, fact 7)."""

_ROLES = ("user", "assistant", "system")


class Conversation(msgspec.Struct, frozen=True):
    """The messages, the paths of all images in them, and by its path the call of each image that stood in a result."""

    messages: list[Message]
    images: tuple[str, ...]
    result_images: Mapping[str, str]


class _Pending(msgspec.Struct):
    """Calls of the last assistant turn that want results. `at`: index of that turn in the output."""

    ids: dict[str, None]
    at: int
    path: str


class _UserTurn(msgspec.Struct):
    """Consecutive user messages: one turn. `results`: by call id, with the path of the block."""

    content: Content
    results: dict[str, tuple[Content, str, str]] = {}


def read_system(raw: Any) -> list[Message]:
    """`system` of the body as at most one message."""
    words = _system_text(raw, "system")
    return [Message(role="system", content=words)] if words else []


def _system_text(raw: Any, path: str) -> str:
    if raw is None:
        return ""
    if isinstance(raw, str):
        return _without_billing(raw)
    found = []
    for index, entry in enumerate(array(raw, path)):
        block = mapping(entry, f"{path}.{index}")
        one_of(block.get("type"), f"{path}.{index}.type", ("text",))
        words = block.get("text")
        if not isinstance(words, str):
            raise invalid(f"{path}.{index}.text", "must be a string.")
        if not words.startswith(BILLING):
            found.append(words)
    return "\n\n".join(words for words in found if words)


def _without_billing(words: str) -> str:
    """A client that joins its system blocks itself leaves the billing line as the first of the string."""
    return words.partition("\n")[2].lstrip("\n") if words.startswith(BILLING) else words


def read_messages(raw: Any) -> Conversation:
    """`messages` of the body. Raises GatewayError with the path of what is wrong."""
    entries = array(raw, "messages") if raw is not None else []
    if not entries:
        raise invalid("messages", "at least one message is required.")
    reader = _Reader(len(entries) - 1)
    for index, entry in enumerate(entries):
        reader.add(mapping(entry, f"messages.{index}"), index)
    return reader.finish()


class _Reader:
    """Builds the chat messages; a user turn is open until another role speaks."""

    def __init__(self, last: int) -> None:
        self._last = last
        self._out: list[Message] = []
        self._images: list[str] = []
        self._result_images: dict[str, str] | None = None
        self._user: _UserTurn | None = None
        self._said: _AssistantTurn | None = None
        self._said_at = 0
        self._pending: _Pending | None = None
        self._ids: set[str] = set()
        self._role = ""

    def add(self, message: dict[str, Any], index: int) -> None:
        path = f"messages.{index}"
        role = one_of(message.get("role"), f"{path}.role", _ROLES)
        if role != "user":
            self._end_user_turn()
        if role != "assistant":
            self._end_assistant_turn()
        if role == "system":
            self._add_system(message, path)
        elif role == "user":
            self._add_user(message, path)
        else:
            self._add_assistant(message, path, final=index == self._last)
        self._role = role

    def finish(self) -> Conversation:
        self._end_user_turn()
        if self._pending:
            raise _unanswered(self._pending, list(self._pending.ids))
        self._end_assistant_turn()
        if not self._out:
            raise invalid("messages", "at least one message with content is required.")
        if self._role == "assistant" and self._out[-1]["role"] == "assistant":
            self._out[-1]["prefix"] = True
        return Conversation(self._out, tuple(self._images), self._result_images or NOTHING)

    def _add_system(self, message: dict[str, Any], path: str) -> None:
        words = _system_text(message.get("content"), f"{path}.content")
        if words:
            self._out.append(Message(role="system", content=words))

    def _add_user(self, message: dict[str, Any], path: str) -> None:
        turn = self._user = self._user or _UserTurn(Content(), {})
        for block, kind, at in _blocks(message, path):
            if kind == "tool_result":
                self._add_result(turn, block, at)
            else:
                add_block(turn.content, block, kind, at)

    def _add_result(self, turn: _UserTurn, block: dict[str, Any], path: str) -> None:
        call = text(block.get("tool_use_id"), f"{path}.tool_use_id")
        if self._pending is None or call not in self._pending.ids:
            raise invalid(
                f"{path}.tool_use_id",
                f"unexpected `tool_use_id` found in `tool_result` blocks: {call[:MAX_QUOTED]}. "
                "Each `tool_result` block must have a corresponding `tool_use` block in the previous message.",
            )
        if call in turn.results:
            raise invalid(
                f"{path}.tool_use_id", f"each `tool_use` must have a single result, found more for {call[:MAX_QUOTED]}."
            )
        prefix = "Error: " if block.get("is_error") is True else ""
        turn.results[call] = (read_content(block.get("content"), f"{path}.content"), prefix, path)

    def _end_user_turn(self) -> None:
        turn, self._user = self._user, None
        if turn is None:
            return
        shown = self._place_results(turn)
        shown.extend(turn.content)
        self._images += shown.images
        if shown.parts:
            self._out.append(Message(role="user", content=shown.rendered()))

    def _place_results(self, turn: _UserTurn) -> Content:
        """Tool messages behind their calls; the images in them come back, since only users can show some in chat."""
        shown = Content()
        pending, self._pending = self._pending, None
        if pending is None:
            return shown
        missing = [call for call in pending.ids if call not in turn.results]
        if missing:
            raise _unanswered(pending, missing)
        answers: list[Message] = []
        for call in pending.ids:
            content, prefix, _ = turn.results[call]
            words = content.text or (IMAGE_BELOW if content.images else "")
            answers.append(Message(role="tool", tool_call_id=call, content=prefix + words))
            shown.parts += [part for part in content.parts if part["type"] == "image_url"]
            shown.images += content.images
            if content.images:
                self._result_images = self._result_images or {}
                self._result_images |= dict.fromkeys(content.images, call)
        self._out[pending.at + 1 : pending.at + 1] = answers
        return shown

    def _add_assistant(self, message: dict[str, Any], path: str, *, final: bool) -> None:
        if self._pending and self._role != "assistant":
            raise _unanswered(self._pending, list(self._pending.ids))
        turn = _AssistantTurn()
        for block, kind, at in _blocks(message, path, may_be_empty=final):
            turn.add(block, kind, at)
        for call in turn.calls:
            if call["id"] in self._ids:
                raise invalid(path, f"`tool_use` ids must be unique, found twice: {call['id'][:MAX_QUOTED]}.")
            self._ids.add(call["id"])
        if turn.calls:
            ids = self._pending.ids if self._pending else {}
            ids.update(dict.fromkeys(call["id"] for call in turn.calls))
            self._pending = _Pending(ids, len(self._out) - (self._said is not None), path)
        if self._said is not None:
            self._said.join(turn)
        elif turn.said_anything:
            self._said, self._said_at = turn, len(self._out)
            self._out.append(Message(role="assistant", content=None))  # it is written when the turn is over

    def _end_assistant_turn(self) -> None:
        if self._said is not None:
            self._out[self._said_at] = self._said.message()
            self._said = None


class _AssistantTurn:
    """One assistant message: pieces of one answer are put together without anything between them, as they were produced."""

    def __init__(self) -> None:
        self.calls: list[ToolCall] = []
        self._spoke = False
        self._text: list[str] = []
        self._thinking: list[str] = []

    @property
    def said_anything(self) -> bool:
        return bool(self._spoke or self._thinking or self.calls)

    def add(self, block: dict[str, Any], kind: str, path: str) -> None:
        match kind:
            case "text":
                self._spoke = True
                words = text(block.get("text"), f"{path}.text")
                self._text += [words] if words else []
            case "tool_use":
                self.calls.append(_tool_call(block, path))
            case "thinking":
                thinking = block.get("thinking")
                if not isinstance(thinking, str):
                    raise invalid(f"{path}.thinking", "must be a string.")
                self._thinking += [thinking] if thinking else []
            case "redacted_thinking":
                pass
            case _:
                drop(kind, path)

    def message(self) -> Message:
        words = joined(self._text)
        message = Message(role="assistant", content=words if words or not self.calls else None)
        if self._thinking:
            message["reasoning_content"] = joined(self._thinking)
        if self.calls:
            message["tool_calls"] = self.calls
        return message

    def join(self, later: _AssistantTurn) -> None:
        """Consecutive assistant messages are one turn (the API combines them likewise)."""
        if self._text and later._text:
            self._text.append("\n\n")
        self._text += later._text
        self._thinking += later._thinking
        self.calls += later.calls


def _tool_call(block: dict[str, Any], path: str) -> ToolCall:
    arguments = orjson.dumps(mapping(block.get("input"), f"{path}.input")).decode()
    name = upstream_name(text(block.get("name"), f"{path}.name"))
    return {"id": text(block.get("id"), f"{path}.id"), "type": "function", "function": {"name": name, "arguments": arguments}}


def _blocks(message: dict[str, Any], path: str, *, may_be_empty: bool = False) -> list[tuple[dict[str, Any], str, str]]:
    """The blocks of a message with type and path; a string is one text block. Empty: an error, except where a prefill is."""
    content = message.get("content")
    if isinstance(content, str) and content:
        return [({"text": content}, "text", f"{path}.content")]
    if content is None:
        raise invalid(f"{path}.content", "field required.")
    if not isinstance(content, str | list):
        raise invalid(f"{path}.content", "must be a string or an array of blocks.")
    if not content:
        if may_be_empty:
            return []
        raise invalid(f"{path}.content", "must not be empty, except in a final assistant message.")
    found = []
    for index, entry in enumerate(content):
        at = f"{path}.content.{index}"
        block = mapping(entry, at)
        kind = text(block.get("type"), f"{at}.type")
        if not (may_be_empty and kind == "text" and block.get("text") == ""):
            found.append((block, kind, at))
    return found


def _unanswered(pending: _Pending, missing: list[str]) -> GatewayError:
    return invalid(
        pending.path,
        f"`tool_use` ids were found without `tool_result` blocks immediately after: {', '.join(missing)[:MAX_QUOTED]}. "
        "Each `tool_use` block must have a corresponding `tool_result` block in the next message.",
    )
