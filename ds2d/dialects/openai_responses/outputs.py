"""Output items as they grow: each writer opens its item, takes text, and closes it with every event between
(openai-responses.md 5, "Order").

Rule: done texts are the joined deltas, and the item of `output_item.done` is the item of the final object, bytes and all.
Surprise: a custom tool's input comes wrapped in JSON and goes out raw; the emulated hosted tools (shell and friends) are
held until they are whole, because their item carries an object.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Protocol

import orjson

from ds2d.dialects.openai_responses.custom import InputReader
from ds2d.dialects.openai_responses.frames import Frames
from ds2d.dialects.openai_responses.objects import Item, Native
from ds2d.dialects.openai_responses.tools import native_action

ItemStatus = Literal["in_progress", "completed", "incomplete"]


class Writer(Protocol):
    """One open item. `shown`: whether the client sees it at all."""

    id: str
    shown: bool

    def open(self) -> None:
        """Announce the item."""

    def feed(self, text: str) -> None:
        """Take a piece of its text."""

    def close(self, status: ItemStatus) -> tuple[bytes, bytes]:
        """Write the closing events; the item as JSON for the client, and for the next turn of a chain."""

    def partial(self) -> Item:
        """The item as far as it has come."""


class MessageWriter:
    """A message of the assistant: parts of text or refusal, one after the other."""

    shown = True

    def __init__(self, frames: Frames, new_id: str, index: int) -> None:
        self.id = new_id
        self._frames = frames
        self._index = index
        self._content: list[Item] = []
        self._pieces: list[str] = []
        self._logprobs: list[Item] = []
        self._refusal: bool | None = None  # kind of the open part; None: no part is open
        self._place: dict[str, Any] = {}
        self._head = b""

    def open(self) -> None:
        self._frames.event("response.output_item.added", {"output_index": self._index, "item": self._item("in_progress")})

    def begin(self, *, refusal: bool) -> None:
        """Make a part of this kind the open one."""
        if self._refusal is refusal:
            return
        self._end_part()
        self._refusal = refusal
        self._place = {"item_id": self.id, "output_index": self._index, "content_index": len(self._content)}
        self._frames.event("response.content_part.added", self._place | {"part": _part("", refusal=refusal)})
        if refusal:
            self._head = self._frames.delta_head("response.refusal.delta", self._place)
        else:
            self._head = self._frames.delta_head("response.output_text.delta", self._place | {"logprobs": []})

    def feed(self, text: str) -> None:
        self._pieces.append(text)
        self._frames.delta(self._head, text)

    def feed_scored(self, text: str, logprobs: list[Item]) -> None:
        """A piece of text with the log probabilities of its tokens."""
        self._pieces.append(text)
        self._logprobs += logprobs
        self._frames.event("response.output_text.delta", self._place | {"delta": text, "logprobs": logprobs})

    def close(self, status: ItemStatus) -> tuple[bytes, bytes]:
        self._end_part()
        data = orjson.dumps(self._item(status))
        self._frames.event("response.output_item.done", {"output_index": self._index, "item": orjson.Fragment(data)})
        return data, data

    def partial(self) -> Item:
        item = self._item("in_progress")
        if self._refusal is not None:
            open_part = _part("".join(self._pieces), refusal=self._refusal, logprobs=self._logprobs)
            item["content"] = [*self._content, open_part]
        return item

    def _end_part(self) -> None:
        if self._refusal is None:
            return
        text = "".join(self._pieces)
        part = _part(text, refusal=self._refusal, logprobs=self._logprobs)
        if self._refusal:
            self._frames.event("response.refusal.done", self._place | {"refusal": text})
        else:
            self._frames.event("response.output_text.done", self._place | {"text": text, "logprobs": self._logprobs})
        self._frames.event("response.content_part.done", self._place | {"part": part})
        self._content.append(part)
        self._pieces, self._logprobs, self._refusal = [], [], None

    def _item(self, status: ItemStatus) -> Item:
        return {"id": self.id, "type": "message", "status": status, "role": "assistant", "content": self._content}


def _part(text: str, *, refusal: bool, logprobs: list[Item] | None = None) -> Item:
    if refusal:
        return {"type": "refusal", "refusal": text}
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs or []}


class ReasoningWriter:
    """What the model thinks, as summary, as text, or unseen (`responses.reasoning_events`).

    Unseen it still makes an item if the client asked for `encrypted_content`: a stateless client can only send back
    what it got (section 7).
    """

    def __init__(self, frames: Frames, new_id: str, index: int, mode: str, seal: Callable[[str], str] | None) -> None:
        self.id = new_id
        self.shown = mode != "off" or seal is not None
        self._frames = frames
        self._index = index
        self._mode = mode
        self._seal = seal
        self._pieces: list[str] = []
        self._place: dict[str, Any] = {"item_id": new_id, "output_index": index}
        self._place |= {"summary_index": 0} if mode == "summary" else {"content_index": 0}
        self._head = b""

    def open(self) -> None:
        if not self.shown:
            return
        item = {"id": self.id, "type": "reasoning", "status": "in_progress", "summary": []}
        self._frames.event("response.output_item.added", {"output_index": self._index, "item": item})
        if self._mode == "off":
            return
        part = _thought(self._mode, "")
        if self._mode == "summary":
            self._frames.event("response.reasoning_summary_part.added", self._place | {"part": part})
            self._head = self._frames.delta_head("response.reasoning_summary_text.delta", self._place)
        else:
            self._frames.event("response.content_part.added", self._place | {"part": part})
            self._head = self._frames.delta_head("response.reasoning_text.delta", self._place)

    def feed(self, text: str) -> None:
        self._pieces.append(text)
        if self._mode != "off":
            self._frames.delta(self._head, text)

    def close(self, status: ItemStatus) -> tuple[bytes, bytes]:
        text = "".join(self._pieces)
        memory = orjson.dumps(self._item(status, text, "summary" if self._mode == "off" else self._mode))
        if not self.shown:
            return b"", memory
        item = self._item(status, text, self._mode)
        if self._seal is not None:
            item["encrypted_content"] = self._seal(text)
        if self._mode == "summary":
            self._frames.event("response.reasoning_summary_text.done", self._place | {"text": text})
            self._frames.event("response.reasoning_summary_part.done", self._place | {"part": _thought("summary", text)})
        elif self._mode == "text":
            self._frames.event("response.reasoning_text.done", self._place | {"text": text})
            self._frames.event("response.content_part.done", self._place | {"part": _thought("text", text)})
        data = orjson.dumps(item)
        self._frames.event("response.output_item.done", {"output_index": self._index, "item": orjson.Fragment(data)})
        return data, memory

    def partial(self) -> Item:
        return self._item("in_progress", "".join(self._pieces), self._mode)

    def _item(self, status: ItemStatus, text: str, mode: str) -> Item:
        item: Item = {"id": self.id, "type": "reasoning", "status": status, "summary": []}
        if mode == "summary":
            item["summary"] = [_thought("summary", text)]
        elif mode == "text":
            item["content"] = [_thought("text", text)]
        return item


def _thought(mode: str, text: str) -> Item:
    return {"type": "summary_text" if mode == "summary" else "reasoning_text", "text": text}


class CallWriter:
    """A call of a function, whose arguments go out as they come, or of a custom tool, whose raw input goes out as it can be
    read from them."""

    shown = True

    def __init__(self, frames: Frames, new_id: str, index: int, call_id: str, native: Native) -> None:
        self.id = new_id
        self._frames = frames
        self._index = index
        self._native = native
        self._reader = InputReader() if native.kind == "custom" else None
        self._field = "input" if self._reader else "arguments"
        self._event = "response.custom_tool_call_input" if self._reader else "response.function_call_arguments"
        self._call_id = call_id
        self._pieces: list[str] = []
        self._place = {"item_id": new_id, "output_index": index, "call_id": call_id}
        self._head = b""

    def open(self) -> None:
        self._frames.event("response.output_item.added", {"output_index": self._index, "item": self._item("in_progress", "")})
        self._head = self._frames.delta_head(f"{self._event}.delta", self._place)

    def feed(self, text: str) -> None:
        self._write(self._reader.feed(text) if self._reader else text)

    def close(self, status: ItemStatus) -> tuple[bytes, bytes]:
        if self._reader:
            self._write(self._reader.finish())
        text = "".join(self._pieces)
        self._frames.event(f"{self._event}.done", self._place | {"name": self._native.name, self._field: text})
        return _finish_item(self._frames, self._index, self._item(status, text))

    def partial(self) -> Item:
        return self._item("in_progress", "".join(self._pieces))

    def _write(self, text: str) -> None:
        if text:
            self._pieces.append(text)
            self._frames.delta(self._head, text)

    def _item(self, status: ItemStatus, text: str) -> Item:
        kind = "custom_tool_call" if self._reader else "function_call"
        item: Item = {"id": self.id, "type": kind, "status": status, "call_id": self._call_id}
        space = {"namespace": self._native.namespace} if self._native.namespace else {}
        return item | {"name": self._native.name, self._field: text} | space


class ActionWriter:
    """A call of an emulated hosted tool: the item comes whole, in its own type, or as a function call if it is no action."""

    shown = True

    def __init__(self, frames: Frames, new_id: str, index: int, call_id: str, native: Native) -> None:
        self.id = new_id
        self._frames = frames
        self._index = index
        self._call_id = call_id
        self._native = native
        self._pieces: list[str] = []

    def open(self) -> None:
        """Nothing yet: the item's type is not known."""

    def feed(self, text: str) -> None:
        self._pieces.append(text)

    def close(self, status: ItemStatus) -> tuple[bytes, bytes]:
        arguments = "".join(self._pieces)
        action = native_action(self._native.kind, arguments) if status == "completed" else None
        if action is None:
            plain = CallWriter(self._frames, self.id, self._index, self._call_id, self._native)
            plain.open()
            plain.feed(arguments)
            return plain.close(status)
        item: Item = {"id": self.id, "type": f"{self._native.kind}_call", "status": status, "call_id": self._call_id}
        announced = item | action | {"status": "in_progress"}
        self._frames.event("response.output_item.added", {"output_index": self._index, "item": announced})
        return _finish_item(self._frames, self._index, item | action)

    def partial(self) -> Item:
        item: Item = {"id": self.id, "type": "function_call", "status": "in_progress", "call_id": self._call_id}
        return item | {"name": self._native.name, "arguments": "".join(self._pieces)}


def _finish_item(frames: Frames, index: int, item: Item) -> tuple[bytes, bytes]:
    data = orjson.dumps(item)
    frames.event("response.output_item.done", {"output_index": index, "item": orjson.Fragment(data)})
    return data, data
