"""A form with a file in it (multipart/form-data), on its way through: only its `model` field is looked at, and rewritten.

Rule: nothing is held that was not needed to find that field, and what is held is bounded by the body limit; the rest is read
from the client while it is sent on, so a slow upstream slows its own client only. A form that two readers could understand
differently (a second `model`, odd headers) is refused: the model that is permitted must be the one that is asked.
Surprise: curl sends fields in the order of its options, so the file may come first; then it is held until the field is found.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from email.message import Message
from typing import NamedTuple

from aiohttp import web

from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.validate import invalid
from ds2d.web.body import pieces_of

MAX_FIELD = 512
"""Bytes of a model's name."""

MAX_PART_HEAD = 8 * 1024
"""Bytes of a part's headers."""

_LINE_END = re.compile(rb"[ \t]*\r\n")
_FIELD = re.compile(rb'\s*;\s*(name|filename\*?)=("(?:[^"\\\r\n]|\\[^\r\n])*"|[^\s;"]+)', re.IGNORECASE)


class Mark(NamedTuple):
    """A delimiter, by its place in the form: `before` is where the part before it ends, `after` where the value of the part
    behind it begins, `name` that part's; an empty name: the form ends here."""

    before: int
    name: str
    after: int


class Marks:
    """The delimiters of a form that arrives in pieces."""

    def __init__(self, boundary: bytes) -> None:
        self._delimiter = b"\r\n--" + boundary
        self._held = bytearray(b"\r\n")  # the first one stands at the beginning of a line that nothing ended
        self._at = -2  # place of the first held byte in the form
        self._over = False

    def feed(self, piece: bytes) -> list[Mark]:
        """Those that are complete with this piece. Raises INVALID_REQUEST for headers that cannot be read for sure."""
        found: list[Mark] = []
        self._held += piece
        while not self._over and (mark := self._next()) is not None:
            found.append(mark)
        return found

    def _next(self) -> Mark | None:
        held = self._held
        while (start := held.find(self._delimiter)) >= 0:
            self._drop(start)
            end = len(self._delimiter)
            if len(held) < end + 2:
                return None
            if held[end : end + 2] == b"--":
                self._over = True
                return Mark(self._at, "", self._at)
            line = _LINE_END.match(held, end)
            if line is not None:
                return self._part(line.end())
            if not held[end:].strip(b" \t\r") and len(held) < MAX_PART_HEAD:
                return None
            self._drop(end)  # it only looked like one
        self._drop(max(0, len(held) - len(self._delimiter) + 1))
        return None

    def _part(self, head: int) -> Mark | None:
        """The part whose headers begin there, once they are complete."""
        end = self._held.find(b"\r\n\r\n", head - 2)
        if end < 0:
            if len(self._held) > MAX_PART_HEAD:
                raise _unreadable()
            return None
        mark = Mark(self._at, _name_in(bytes(self._held[head:end])), self._at + end + 4)
        self._drop(end + 4)
        return mark

    def _drop(self, count: int) -> None:
        del self._held[:count]
        self._at += count


class FormUpload:
    """One form. `find_model` first, then `form` once."""

    def __init__(self, request: web.Request, limit: int, seconds: float) -> None:
        self._kind = request.headers.get("Content-Type", "")
        self._marks = Marks(_boundary(self._kind))
        self._length = request.content_length
        self._rest = pieces_of(request, limit, seconds)
        self._held = bytearray()
        self._place: tuple[int, int] | None = None
        self.begun = False

    async def find_model(self) -> str:
        """The `model` field. Raises INVALID_REQUEST where there is none, and what reading a body raises."""
        start: int | None = None
        async for piece in self._rest:
            self._held += piece
            for mark in self._marks.feed(piece):
                if start is not None and self._place is None:
                    self._place = start, mark.before
                if mark.name == "model":
                    if start is not None:
                        raise _twice()
                    start = mark.after
            if start is not None and self._place is None and len(self._held) - start > 2 * MAX_FIELD:
                break
            if self._place is not None:
                break
        if start is None:
            raise invalid("model", "required field is missing.")
        if self._place is None or self._place[1] - start > MAX_FIELD:
            raise invalid("model", f"at most {MAX_FIELD} bytes, and with an end.")
        return bytes(self._held[start : self._place[1]]).decode("utf-8", "replace").strip()

    def form(self, model: str) -> tuple[str, int | None, AsyncIterator[bytes]]:
        """See core's `Upload`."""
        assert self._place is not None, "find_model comes first"
        start, end = self._place
        name = model.encode()
        length = None if self._length is None else self._length - (end - start) + len(name)
        return self._kind, length, self._pieces(bytes(self._held[:start]) + name, bytes(self._held[end:]))

    async def _pieces(self, before: bytes, after: bytes) -> AsyncIterator[bytes]:
        self.begun = True
        self._held.clear()
        yield before
        if after:
            yield after
        async for piece in self._rest:
            if any(mark.name == "model" for mark in self._marks.feed(piece)):
                raise _twice()
            yield piece


def _boundary(kind: str) -> bytes:
    """What tells the parts apart. Raises INVALID_REQUEST for what is no form."""
    message = Message()
    message["Content-Type"] = kind
    boundary = message.get_param("boundary")
    if message.get_content_type() != "multipart/form-data" or not isinstance(boundary, str) or not 1 <= len(boundary) <= 70:
        raise GatewayError(ErrorKind.INVALID_REQUEST, "The body must be multipart/form-data.")
    return boundary.encode("utf-8", "replace")


def _name_in(head: bytes) -> str:
    """The name of a part. Raises INVALID_REQUEST unless its headers name it once, in a form that everybody reads alike."""
    lines = head.split(b"\r\n")
    told = [line.partition(b":")[2] for line in lines if line.partition(b":")[0].lower() == b"content-disposition"]
    if len(told) != 1 or any(line[:1] in (b" ", b"\t") for line in lines):
        raise _unreadable()
    kind, _, _ = told[0].partition(b";")
    fields = told[0].strip()[len(kind.strip()) :]
    found = list(_FIELD.finditer(fields))
    names = [one.group(2).strip(b'"') for one in found if one.group(1).lower() == b"name"]
    whole = b"".join(one.group(0) for one in found) == fields
    if kind.strip().lower() != b"form-data" or not whole or len(names) != 1 or not names[0] or b"\\" in names[0]:
        raise _unreadable()
    return names[0].decode("utf-8", "replace")


def _unreadable() -> GatewayError:
    return invalid("body", "the headers of a part cannot be read.")


def _twice() -> GatewayError:
    return invalid("model", "given twice.")
