"""Server-sent events as bytes: cut a stream into records, and the parts that frames are built from.

Rule: a record is handed on when its blank line has arrived; half a record is held, never guessed at.
Surprise: servers end lines with LF, CRLF or CR, and a CRLF or a blank line may arrive in two reads
(WHATWG HTML, 9.2.6 "Interpreting an event stream").
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from ds2d.core.errors import ErrorKind, GatewayError

MAX_RECORD = 16 * 1024 * 1024
"""Bytes of one unfinished record, above which the upstream is taken to be broken (reliability.md, upstreams)."""

BOM = b"\xef\xbb\xbf"


class Record(msgspec.Struct, frozen=True, gc=False):
    """One event: its data lines joined by newlines, and its name (empty if the stream gave none)."""

    data: bytes
    event: bytes = b""


class Splitter:
    """Bytes in, whole records out. Comments and events without data vanish here."""

    def __init__(self, limit: int = MAX_RECORD) -> None:
        self._limit = limit
        self._held: list[bytes] = []  # pieces, not one growing string: feeding stays linear
        self._held_size = 0
        self._after_cr = False
        self._at_start = True

    def feed(self, chunk: bytes) -> list[Record]:
        """Take one network read; return the records that it completed.

        Raises GatewayError(UPSTREAM_GARBLED) when an unfinished record grows past the limit.
        """
        if chunk.find(b"\n") == len(chunk) - 2 and self._is_one(chunk):
            return [Record(chunk[6:-2])]
        text = self._with_line_feeds(chunk)
        if text.startswith(b"\n") and self._held and self._held[-1].endswith(b"\n"):
            self._held[-1] = self._held[-1][:-1]
            text = b"\n" + text
        start, *rest = text.split(b"\n\n")
        self._hold(start)
        if not rest:
            return []
        blocks = [self._release(), *rest[:-1]]
        self._hold(rest[-1])
        records = []
        for block in blocks:
            if block.startswith(b"data: ") and b"\n" not in block:  # nearly every block of every server
                records.append(Record(block[6:]))
            elif (record := _parse(block)) is not None:
                records.append(record)
        return records

    def _is_one(self, chunk: bytes) -> bool:
        """Whether the read, which has its first line feed before its last byte, is one usual record and nothing else: what comes
        alone as it is made."""
        begins = chunk.startswith(b"data: ") and not (self._held or self._after_cr or self._at_start)
        return begins and chunk.endswith(b"\n\n") and b"\r" not in chunk and len(chunk) <= self._limit

    def finish(self) -> list[Record]:
        """The body has ended. A record without its blank line counts only if it is the end mark: servers that
        close right after `data: [DONE]` said all they had to say."""
        record = _parse(self._release())
        return [record] if record and record.data == b"[DONE]" else []

    def _hold(self, text: bytes) -> None:
        if text:
            self._held.append(text)
            self._held_size += len(text)
        if self._held_size > self._limit:
            raise GatewayError(ErrorKind.UPSTREAM_GARBLED, f"The upstream sent an event longer than {self._limit} bytes.")

    def _release(self) -> bytes:
        block = b"".join(self._held)
        self._held, self._held_size = [], 0
        if self._at_start:
            self._at_start = False
            block = block.removeprefix(BOM)
        return block

    def _with_line_feeds(self, chunk: bytes) -> bytes:
        """The chunk with every line end as LF, also one whose CR came with the last read."""
        if self._after_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]
            self._after_cr = False
        if chunk:
            self._after_cr = chunk.endswith(b"\r")
        if b"\r" in chunk:
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        return chunk


class WholeBody:
    """The same two methods for an answer that is one JSON body: everything is one record, at the end of the body.

    Blank lines before the JSON are legal: DeepSeek sends them while a request waits (upstreams.md 6).
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> list[Record]:
        """Take one network read. Raises GatewayError(UPSTREAM_GARBLED) past the limit (bytes)."""
        self._size += len(chunk)
        if self._size > self._limit:
            raise GatewayError(ErrorKind.UPSTREAM_GARBLED, f"The upstream sent an answer longer than {self._limit} bytes.")
        self._held.append(chunk)
        return []

    def finish(self) -> list[Record]:
        """The body has ended: what it said, if anything but blank space."""
        body = b"".join(self._held).strip()
        self._held = []
        return [Record(body)] if body else []


class Tapped:
    """Either of them, with every read told to somebody else as well."""

    def __init__(self, splitter: Splitter | WholeBody, listener: Callable[[bytes], None]) -> None:
        self._splitter = splitter
        self._listener = listener

    def feed(self, chunk: bytes) -> list[Record]:
        """Tell and hand on."""
        self._listener(chunk)
        return self._splitter.feed(chunk)

    def finish(self) -> list[Record]:
        """The body has ended."""
        return self._splitter.finish()


def _parse(block: bytes) -> Record | None:
    """One record from its lines; None if none of them is data."""
    data: list[bytes] = []
    event = b""
    for line in block.split(b"\n"):
        name, _, value = line.partition(b":")
        if name == b"data":
            data.append(value.removeprefix(b" "))
        elif name == b"event":
            event = value.removeprefix(b" ")
    return Record(b"\n".join(data), event) if data else None
