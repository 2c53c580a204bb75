"""A form with a file in it (multipart/form-data), on its way through: only its `model` field is looked at, and rewritten.

Rule: nothing is held that was not needed to find that field, and what is held is bounded by the body limit; the rest is read
from the client while it is sent on, so a slow upstream slows its own client only.
Surprise: curl sends fields in the order of its options, so the file may come first; then it is held until the field is found.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from email.message import Message

from aiohttp import web

from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.validate import invalid
from ds2d.web.body import pieces_of

MAX_FIELD = 512
"""Bytes of a model's name."""

MAX_PART_HEAD = 8 * 1024
"""Bytes of a part's headers."""

_NAME = re.compile(rb'\bcontent-disposition:[^\r\n]*[;\s]name="?([^"\r\n;]*)"?', re.IGNORECASE)


class FormUpload:
    """One form. `find_model` first, then `form` once."""

    def __init__(self, request: web.Request, limit: int, seconds: float) -> None:
        self._kind = request.headers.get("Content-Type", "")
        self._length = request.content_length
        self._rest = pieces_of(request, limit, seconds)
        self._held = bytearray()
        self._place: tuple[int, int] | None = None
        self._mark = _boundary(self._kind)
        self.begun = False

    async def find_model(self) -> str:
        """The `model` field. Raises INVALID_REQUEST where there is none, and what reading a body raises."""
        looked = 0
        while True:
            end = self._look(looked)
            if self._place is not None:
                start, end = self._place
                return bytes(self._held[start:end]).decode("utf-8", "replace").strip()
            looked = max(0, end)
            try:
                self._held += await anext(self._rest)
            except StopAsyncIteration:
                raise invalid("model", "required field is missing.") from None

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
            yield piece

    def _look(self, at: int) -> int:
        """Look for the field from `at` on, at the beginning of a part; where to go on looking."""
        while (part := self._held.find(self._mark, at)) >= 0:
            head_at = part + len(self._mark)
            head_end = self._held.find(b"\r\n\r\n", head_at)
            if head_end < 0:
                if len(self._held) - head_at > MAX_PART_HEAD:
                    raise invalid("body", "a part's headers are too long.")
                return part
            named = _NAME.search(self._held, head_at, head_end)
            if named is not None and named.group(1) == b"model":
                return self._take(head_end + 4, part)
            at = head_end
        return len(self._held) - len(self._mark)

    def _take(self, start: int, part: int) -> int:
        end = self._held.find(b"\r\n" + self._mark, start)
        if end < 0:
            if len(self._held) - start > MAX_FIELD + len(self._mark):
                raise invalid("model", f"at most {MAX_FIELD} bytes.")
            return part
        if end - start > MAX_FIELD:
            raise invalid("model", f"at most {MAX_FIELD} bytes.")
        self._place = start, end
        return end


def _boundary(kind: str) -> bytes:
    """What every part begins with. Raises INVALID_REQUEST for what is no form."""
    message = Message()
    message["Content-Type"] = kind
    boundary = message.get_param("boundary")
    if message.get_content_type() != "multipart/form-data" or not isinstance(boundary, str) or not 1 <= len(boundary) <= 70:
        raise GatewayError(ErrorKind.INVALID_REQUEST, "The body must be multipart/form-data.")
    return b"--" + boundary.encode("utf-8", "replace")
