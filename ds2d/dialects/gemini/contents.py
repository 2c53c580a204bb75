"""`contents` as chat messages (gemini.md 4).

Rule: contents of one side in a row are one turn. A model's turn is one message, so that its calls stand together; in a user's
turn the answers to them come first, wherever they stood, and every call has one before the model speaks again.
Surprise: ids are optional. A call without one gets an id made from its place, the same in every later turn; an answer without
one belongs to the first open call of its name (the SDK's automatic calling answers so, clients.md).
"""

from __future__ import annotations

import binascii
from collections import deque
from collections.abc import Callable
from typing import Any

import orjson

from ds2d.core.request import Message
from ds2d.core.validate import invalid
from ds2d.dialects.gemini.fields import join, level, several, standard_base64, text
from ds2d.dialects.gemini.parts import Part, read_part, shown

Unseal = Callable[[str], str | None]

_USER_ROLES = frozenset(("user", "function", "tool"))


def read_contents(body: dict[str, Any], at: str, unseal: Unseal) -> tuple[list[Message], tuple[str, ...], tuple[str, str] | None]:
    """The messages of a body, system instruction first, the paths of all images, and path and kind of the first sound."""
    path = join(at, "contents")
    raw = body.get("contents")
    if not raw:
        raise invalid(path, "required field is missing.")
    talk = _Talk(path, unseal)
    contents = [raw] if isinstance(raw, str) else several(raw, path)
    for index, content in enumerate(contents):
        where = path if isinstance(raw, str | dict) else f"{path}[{index}]"
        talk.take(_content(content, where), where, index)
    messages, images = talk.end()
    if not messages:
        raise invalid(path, "holds nothing to answer.")
    return _system(body.get("systemInstruction"), join(at, "systemInstruction")) + messages, images, talk.media


def _content(raw: Any, path: str) -> dict[str, Any]:
    """A content's members; text alone is what a user says, and so is a bare part."""
    if isinstance(raw, str):
        return {"parts": [raw]}
    members = level(raw, path)
    return members if "parts" in members or "role" in members or not members else {"parts": [raw]}


def _system(raw: Any, path: str) -> list[Message]:
    if raw is None:
        return []
    words = []
    for i, part in enumerate(several(_content(raw, path).get("parts", []), f"{path}.parts")):
        piece = shown(read_part(part, f"{path}.parts[{i}]"), f"{path}.parts[{i}]")
        if piece is not None and piece["type"] != "text":
            raise invalid(f"{path}.parts[{i}]", "only text is accepted here.")
        words.append(piece["text"] if piece else "")
    joined = "\n".join(word for word in words if word)
    return [{"role": "system", "content": joined}] if joined else []


class _Talk:
    """A conversation as far as it has been read: the turn that is open, and the calls that wait for their answers."""

    def __init__(self, path: str, unseal: Unseal) -> None:
        self._path = path
        self._unseal = unseal
        self._messages: list[Any] = []
        self._images: list[str] = []
        self.media: tuple[str, str] | None = None
        self._seen: set[str] = set()
        self._open: dict[str, str] = {}  # id to name
        self._named: dict[tuple[str, bool], deque[tuple[int, str]]] = {}  # by name, and whether we made the id: place and id
        self._speaker = ""
        self._begin()

    def _begin(self) -> None:
        self._texts: list[str] = []
        self._thoughts: list[str] = []
        self._sealed: str | None = None
        self._calls: list[dict[str, Any]] = []
        self._answers: list[Message] = []
        self._says: list[Message] = []

    def take(self, content: dict[str, Any], path: str, index: int) -> None:
        """One content."""
        role = text(content.get("role", "user"), f"{path}.role").lower() or "user"
        if role != "model" and role not in _USER_ROLES:
            raise invalid(f"{path}.role", "must be user or model.")
        speaker = "model" if role == "model" else "user"
        if speaker != self._speaker:
            self._close()
            self._speaker = speaker
        said: list[Part] = []
        for i, raw in enumerate(several(content.get("parts", []), f"{path}.parts")):
            where = f"{path}.parts[{i}]"
            part = read_part(raw, where)
            if speaker == "model":
                self._take_models(part, where, f"call_at_{index}_{i}")
            elif "functionResponse" in part:
                self._take_answer(level(part["functionResponse"], f"{where}.functionResponse"), f"{where}.functionResponse", said)
            else:
                self._show(part, where, said)
        if said:
            self._says.append({"role": "user", "content": _simple(said)})

    def end(self) -> tuple[list[Message], tuple[str, ...]]:
        """The contents have ended; a model's turn may be the last (a prefill), its calls may not."""
        self._close()
        self._check_answered()
        return self._messages, tuple(self._images)

    def _close(self) -> None:
        """The turn that was open is over."""
        if self._speaker == "model":
            self._close_models()
        else:
            self._check_answered()
            self._messages += self._answers + self._says
        self._begin()

    def _check_answered(self) -> None:
        if self._open:
            name = next(iter(self._open.values()))
            raise invalid(self._path, f"the call of '{name[:64]}' has no functionResponse.")

    def _close_models(self) -> None:
        words = "".join(self._texts)
        if not words and not self._calls:
            return
        message: dict[str, Any] = {"role": "assistant", "content": words or None if self._calls else words}
        thoughts = self._sealed or "".join(self._thoughts)
        if thoughts:
            message["reasoning_content"] = thoughts
        if self._calls:
            message["tool_calls"] = self._calls
        self._messages.append(message)

    def _take_models(self, part: Part, path: str, made_id: str) -> None:
        signature = part.get("thoughtSignature")
        if self._sealed is None and isinstance(signature, str):
            self._sealed = _opened(signature, self._unseal)
        if "functionCall" in part:
            self._take_call(level(part["functionCall"], f"{path}.functionCall"), f"{path}.functionCall", made_id)
            return
        piece = shown(part, path)
        if piece is None:
            return
        if piece["type"] != "text":
            raise invalid(path, "a model's turn holds text and calls only.")
        (self._thoughts if part.get("thought") is True else self._texts).append(piece["text"])

    def _take_call(self, call: dict[str, Any], path: str, made_id: str) -> None:
        name = text(call.get("name"), f"{path}.name")
        if not name:
            raise invalid(f"{path}.name", "must not be empty.")
        call_id = text(call.get("id", ""), f"{path}.id") or made_id
        args = call.get("args", {})
        if not isinstance(args, dict):
            raise invalid(f"{path}.args", "must be an object.")
        if call_id in self._seen:
            raise invalid(f"{path}.id", "another call has this id.")
        self._seen.add(call_id)
        self._open[call_id] = name
        self._named.setdefault((name, call_id == made_id), deque()).append((len(self._seen), call_id))
        function = {"name": name, "arguments": orjson.dumps(args).decode()}
        self._calls.append({"id": call_id, "type": "function", "function": function})

    def _take_answer(self, answer: dict[str, Any], path: str, said: list[Part]) -> None:
        name = text(answer.get("name", ""), f"{path}.name")
        call_id = self._answered(text(answer.get("id", ""), f"{path}.id"), name)
        if call_id is None:
            raise invalid(path, "answers no functionCall of the turn before it.")
        del self._open[call_id]
        self._answers.append({"role": "tool", "tool_call_id": call_id, "content": _result(answer.get("response", {}), path)})
        for i, raw in enumerate(several(answer.get("parts", []), f"{path}.parts")):
            self._show(read_part(raw, f"{path}.parts[{i}]"), f"{path}.parts[{i}]", said)

    def _answered(self, call_id: str, name: str) -> str | None:
        """The open call that an answer belongs to: by id, else by name among those that the answer cannot know the id of."""
        if call_id in self._open:
            return call_id
        firsts = [self._first(name, made=True)]
        if not call_id:
            firsts.append(self._first(name, made=False))
        return min((first for first in firsts if first is not None), default=(0, None))[1]

    def _first(self, name: str, *, made: bool) -> tuple[int, str] | None:
        queue = self._named.get((name, made))
        while queue and queue[0][1] not in self._open:
            queue.popleft()
        return queue[0] if queue else None

    def _show(self, part: Part, path: str, said: list[Part]) -> None:
        if "functionCall" in part:
            raise invalid(f"{path}.functionCall", "only the model calls functions.")
        piece = shown(part, path)
        if piece is not None:
            said.append(piece)
            if piece["type"] == "image_url":
                self._images.append(path)
            elif piece["type"] == "input_audio":
                self.media = self.media or (path, "input_audio")


def _simple(parts: list[Part]) -> Any:
    return parts[0]["text"] if len(parts) == 1 and parts[0]["type"] == "text" else parts


def _result(response: Any, path: str) -> str:
    """What a tool said: the one string of the usual wrappings, else the object as JSON."""
    if not isinstance(response, dict):
        raise invalid(f"{path}.response", "must be an object.")
    if len(response) == 1:
        ((key, value),) = response.items()
        if key in ("result", "output") and isinstance(value, str):
            return value
    return orjson.dumps(response).decode()


def _opened(signature: str, unseal: Unseal) -> str | None:
    """The reasoning in a signature of ours; SDKs carry it as bytes, so its base64 may come back in the other alphabet."""
    plain = standard_base64(signature)
    if plain is None:
        return None
    try:
        return unseal(binascii.a2b_base64(plain).decode("ascii"))
    except UnicodeDecodeError:
        return None
