"""HTTP/1.1 answers as bytes: the head, and the three ways in which a body can be framed.

Rule: strict and bounded. What RFC 9112 lets two readers read in two ways (a length that is no number, a chunk without its
line end, two lengths that differ) is no answer, and nothing here waits, so each read is one call.
Surprise: all whole chunks of one read come out as one piece: the pipeline is called once a read, not once a chunk.
"""

from __future__ import annotations

import re
from typing import Protocol

import msgspec

MAX_HEAD = 64 * 1024
"""Bytes of a head, the interim ones before it included, and of trailers."""

MAX_LINE = 4096
"""Bytes of a chunk's size line with its extensions."""

CRLF = b"\r\n"
_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: [^\r\n\x00]*)?\r\n")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):([^\r\n\x00]*)\r\n")
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n\x00]*)?")
_LENGTH = re.compile(r"[0-9]{1,18}")

_sizes: dict[bytes, int] = {}  # size lines seen, which are few: a look-up costs a third of the match
_MAX_SIZES = 8192


class BadAnswerError(ValueError):
    """The server does not speak HTTP as it should."""


class Body(Protocol):
    """How much of what arrives belongs to the answer. `excess`: more came than that."""

    done: bool
    excess: bool

    def feed(self, data: bytes) -> bytes: ...


class Head(msgspec.Struct):
    """A final head. `headers` have lower-case names, of repeated ones the last. `keep`: the connection may serve again."""

    status: int
    headers: dict[str, str]
    body: Body
    keep: bool


class Chunked:
    """A body in chunks."""

    __slots__ = ("_held", "_left", "_trailer", "done", "excess")

    def __init__(self) -> None:
        self.done = False
        self.excess = False
        self._held = b""
        self._left = 0  # of the running chunk with its line end; 0 where a size line comes next
        self._trailer = -1  # bytes of trailers so far; -1 before the last chunk

    def feed(self, data: bytes) -> bytes:
        """What of this read is content. Raises BadAnswerError."""
        if self._held:
            data = self._held + data
            self._held = b""
        if self._trailer >= 0:
            self._end(data, 0)
            return b""
        pos, end, left = 0, len(data), self._left
        parts = []
        while pos < end:
            if left:
                stop = pos + left - 2
                if stop >= end:
                    parts.append(data[pos:])
                    left -= end - pos
                    break
                if stop > pos:
                    parts.append(data[pos:stop])
                if data[stop : stop + 2] != CRLF:
                    left = 2
                    self._hold(data, stop, 2, b"\r")
                    break
                pos, left = stop + 2, 0
                continue
            line = data.find(b"\r\n", pos)
            if line < 0:
                self._hold(data, pos, MAX_LINE)
                break
            size = _sizes.get(data[pos:line])
            if size is None:
                size = _size_of(data[pos:line])
            pos = line + 2
            if not size:
                self._trailer = 0
                self._end(data, pos)
                break
            left = size + 2
        self._left = left
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _hold(self, data: bytes, start: int, limit: int, only: bytes = b"") -> None:
        """Keep the beginning of a line until its end comes."""
        held = data[start:]
        if len(held) >= limit or (only and held != only):
            raise BadAnswerError("a chunk is not framed as it should be")
        self._held = held

    def _end(self, data: bytes, pos: int) -> None:
        """After the last chunk: trailers, which nobody wants, up to a blank line."""
        while (line := data.find(CRLF, pos)) >= 0:
            self._trailer += line + 2 - pos
            if line == pos:
                self.done, self.excess = True, line + 2 < len(data)
                return
            pos = line + 2
        self._held = data[pos:]
        if self._trailer + len(self._held) > MAX_HEAD:
            raise BadAnswerError("trailers without an end")


class Sized:
    """A body of so many bytes."""

    __slots__ = ("_left", "done", "excess")

    def __init__(self, size: int) -> None:
        self._left = size
        self.done = not size
        self.excess = False

    def feed(self, data: bytes) -> bytes:
        """What of this read is content."""
        left = self._left - len(data)
        if left > 0:
            self._left = left
            return data
        self.done, self.excess = True, left < 0
        return data[:left] if left else data


class Endless:
    """A body that lasts as long as its connection."""

    __slots__ = ("done", "excess")

    def __init__(self) -> None:
        self.done = self.excess = False

    def feed(self, data: bytes) -> bytes:
        """Everything is content."""
        return data


def read_head(data: bytes, end: int) -> Head | None:
    """The head in `data` up to its blank line, which ends at `end`; None for an interim one. Raises BadAnswerError."""
    start = _STATUS.match(data)
    if start is None:
        raise BadAnswerError("no status line")
    pos, last = start.end(), end - 2
    headers: dict[str, str] = {}
    while pos < last:
        field = _FIELD.match(data, pos)
        if field is None:
            raise BadAnswerError("a header line is none")
        name, value = field[1].decode("ascii").lower(), field[2].strip(b" \t").decode("utf-8", "surrogateescape")
        if headers.get(name, value) != value and name in ("content-length", "transfer-encoding"):
            raise BadAnswerError("two framings")
        headers[name] = value
        pos = field.end()
    status = int(start[2])
    if status < 200:
        if status == 101:
            raise BadAnswerError("another protocol was not asked for")
        return None
    body = _body_of(status, headers)
    connection = headers.get("connection", "").lower()
    lasts = "keep-alive" in connection if start[1] == b"0" else "close" not in connection
    return Head(status, headers, body, lasts and not isinstance(body, Endless))


def _body_of(status: int, headers: dict[str, str]) -> Body:
    if status in (204, 304):
        return Sized(0)
    coding, length = headers.get("transfer-encoding"), headers.get("content-length")
    if coding is not None:
        if coding.lower() != "chunked" or length is not None:
            raise BadAnswerError("a framing that nobody asked for")
        return Chunked()
    if length is None:
        return Endless()
    if not _LENGTH.fullmatch(length):
        raise BadAnswerError("a length that is no number")
    return Sized(int(length))


def _size_of(line: bytes) -> int:
    found = _SIZE.fullmatch(line)
    if found is None:
        raise BadAnswerError("a chunk without a size")
    size = int(found[1], 16)
    if len(line) <= 4 and len(_sizes) < _MAX_SIZES:
        _sizes[line] = size
    return size
