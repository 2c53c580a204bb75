"""The messages of a chat body (openai-chat.md 3).

Rule: a message that needs no change goes on as the client's own dictionary; one that does is copied at its top level only.
Every tool answer belongs to a call of the assistant message before it, and ids are unique, or upstreams mix results up.
Surprise: reasoning arrives under two names and leaves under one; the older `function` messages carry no id, so one is made
from their position.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from ds2d.core.errors import ErrorKind
from ds2d.core.request import Message
from ds2d.core.untracked import MANY, untracked
from ds2d.core.validate import check_image_url, decode_base64, invalid, is_base64, split_data_url
from ds2d.dialects.openai_chat.views import (
    Assistant,
    AudioPart,
    AudioURLPart,
    FilePart,
    FunctionAnswer,
    ImagePart,
    MessageView,
    RefusalPart,
    ToolAnswer,
    VideoURLPart,
)

Raw = dict[str, Any]
Media = tuple[str, str]
"""Path and kind of a part."""

MEDIA = (AudioPart, AudioURLPart, VideoURLPart)
"""Parts that only some servers take."""

DROPPED = frozenset(("cache_control", "prompt_cache_breakpoint"))
"""Marks for a provider's prompt cache; servers here find common prefixes by themselves."""

GONE = DROPPED | {"audio", "refusal", "function_call", "reasoning", "tool_calls", "reasoning_content"}
"""Keys of assistant messages that are written anew or left out."""


def read_messages(raw: list[Raw], views: list[MessageView]) -> tuple[list[Message], tuple[str, ...], Media | None]:
    """The messages in chat form, the paths of all images, and the first part that only some servers take. `views` have checked
    the types of `raw`."""
    many = len(raw) > MANY
    calls = _Calls(many=many)
    images: list[str] = []
    media: list[Media] = []
    messages: list[Any] = untracked([], many=many)
    for index, (message, view) in enumerate(zip(raw, views, strict=True)):
        path = f"messages[{index}]"
        kind = type(view)
        if kind is not ToolAnswer and kind is not FunctionAnswer:
            calls.all_answered()
        if isinstance(view, Assistant):
            message = _assistant(message, view, path, index, calls)
        elif isinstance(view, ToolAnswer):
            calls.answer(view.tool_call_id, path)
        elif isinstance(view, FunctionAnswer):
            message = {"role": "tool", "tool_call_id": calls.answer_by_name(view.name), "content": view.content or ""}
        messages.append(_tidy(message, view, path, images, media))
    return messages, tuple(images), media[0] if media else None


class _Calls:
    """Calls of the latest assistant message that wait for their answer, and all ids so far."""

    def __init__(self, *, many: bool) -> None:
        self._open: dict[str, str] = {}
        self._named: dict[str, deque[str]] = {}
        self._seen: set[str] = untracked(set(), many=many)

    def begin(self, call_id: str, name: str) -> None:
        if call_id in self._seen:
            raise invalid("messages", f"the tool call id '{call_id[:64]}' occurs twice.")
        self._seen.add(call_id)
        self._open[call_id] = name
        if name in self._named:
            self._named[name].append(call_id)
        else:
            self._named[name] = deque((call_id,))

    def answer(self, call_id: str, path: str) -> None:
        if self._open.pop(call_id, None) is None:
            raise invalid("messages", f"{path} answers no tool call of the assistant message before it.")

    def answer_by_name(self, name: str) -> str:
        waiting = self._named.get(name)
        while waiting and waiting[0] not in self._open:
            waiting.popleft()
        if not waiting:
            raise invalid("messages", f"the function message '{name[:64]}' answers no call of the assistant message before it.")
        del self._open[waiting[0]]
        return waiting.popleft()

    def all_answered(self) -> None:
        if self._open:
            raise invalid("messages", f"the tool call '{next(iter(self._open))[:64]}' has no answer.")


def _assistant(raw: Raw, view: Assistant, path: str, index: int, calls: _Calls) -> Raw:
    tool_calls = _tool_calls(raw, view, path, index)
    for call in tool_calls:
        calls.begin(call["id"], call["function"]["name"])
    content = raw.get("content")
    if view.refusal is not None and (not content or isinstance(content, str)):  # folded from a stream it has "" beside it
        content = (content or "") + view.refusal
    if content is None and not tool_calls:
        raise invalid(f"{path}.content", "required without tool_calls, function_call or refusal.")
    reasoning = view.reasoning_content if view.reasoning_content is not None else view.reasoning
    if tool_calls or reasoning is not None or content is None or not GONE.isdisjoint(raw):
        raw = {name: value for name, value in raw.items() if name not in GONE}
        raw["content"] = content
        if reasoning is not None:
            raw["reasoning_content"] = reasoning
        if tool_calls:
            raw["tool_calls"] = tool_calls
    return raw


def _tool_calls(raw: Raw, view: Assistant, path: str, index: int) -> list[Raw]:
    """Calls of an assistant message; the older single `function_call` becomes one."""
    if not view.tool_calls:
        if view.function_call is None:
            return []
        return [{"id": f"call_legacy_{index}", "type": "function", "function": raw["function_call"]}]
    made = []
    for position, (call, seen) in enumerate(zip(raw["tool_calls"], view.tool_calls, strict=True)):
        where = f"{path}.tool_calls[{position}]"
        if seen.type == "custom":
            raise invalid(f"{where}.type", "custom tools are not offered on this route.", ErrorKind.UNSUPPORTED_TOOL)
        if seen.function is None:
            raise invalid(f"{where}.function", "required field is missing.")
        made.append(call if seen.type else {**call, "type": "function"})
    return made


def _tidy(raw: Raw, view: MessageView, path: str, images: list[str], media: list[Media]) -> Raw:
    """The message without nulls and marks, its parts checked."""
    content = raw.get("content")
    parts = view.content
    if isinstance(parts, list) and isinstance(content, list):
        tidy = [
            _part(part, seen, f"{path}.content[{i}]", images, media)
            for i, (part, seen) in enumerate(zip(content, parts, strict=True))
        ]
        raw = {**raw, "content": tidy}
    if DROPPED.isdisjoint(raw) and None not in raw.values():
        return raw
    return {name: value for name, value in raw.items() if name not in DROPPED and (value is not None or name == "content")}


def _part(raw: Raw, view: Any, path: str, images: list[str], media: list[Media]) -> Raw:
    if isinstance(view, ImagePart):
        check_image_url(view.image_url.url, f"{path}.image_url.url")
        images.append(path)
    elif isinstance(view, FilePart):
        return {"type": "text", "text": _file_text(view, f"{path}.file")}
    elif isinstance(view, RefusalPart):
        return {"type": "text", "text": view.refusal}
    elif isinstance(view, MEDIA):
        media.append((path, raw["type"]))
        if isinstance(view, AudioPart) and not is_base64(view.input_audio.data):
            raise invalid(f"{path}.input_audio.data", "is not valid base64.")
    if DROPPED.isdisjoint(raw):
        return raw
    return {name: value for name, value in raw.items() if name not in DROPPED}


def _file_text(view: FilePart, path: str) -> str:
    """The text of an inline text file: the only kind of file that a model can be shown here."""
    if view.file.file_id is not None:
        raise invalid(f"{path}.file_id", "files are not stored here; send the text.", ErrorKind.UNSUPPORTED_PARAMETER)
    if view.file.file_data is None:
        raise invalid(f"{path}.file_data", "required field is missing.")
    parts = split_data_url(view.file.file_data)
    if parts is None or not parts[0].startswith("text/"):
        raise invalid(f"{path}.file_data", "only data URLs of text files are accepted.", ErrorKind.UNSUPPORTED_PARAMETER)
    data = decode_base64(parts[1])
    try:
        if data is not None:
            return data.decode()
    except UnicodeDecodeError:
        pass
    raise invalid(f"{path}.file_data", "the file is not UTF-8 text in base64.", ErrorKind.UNSUPPORTED_PARAMETER)
