"""Compressed answers of upstreams, expanded in bounded steps.

Rule: we ask for none; a server that compresses all the same is read, and never gets more than `STEP` bytes expanded at
once, so a bomb ends at the bounds of the splitter instead of in memory.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

STEP = 64 * 1024
"""Bytes expanded at a time: as many as one read of the network, and some 10 ms of work if they are blank lines."""


class UnreadableError(ValueError):
    """An encoding that was not asked for, and that we do not read."""


class Inflater:
    """gzip or deflate, in pieces. `readable`: whether it is one of them; the status of an answer that is not counts all the same,
    so only its body cannot be had."""

    def __init__(self, readable: bool = True) -> None:
        self._readable = readable
        self._expand = zlib.decompressobj(wbits=32 + zlib.MAX_WBITS)

    @classmethod
    def for_encoding(cls, encoding: str) -> Inflater | None:
        """What a Content-Encoding needs: None for none."""
        name = encoding.strip().lower()
        return None if name in ("", "identity") else cls(readable=name in ("gzip", "x-gzip", "deflate"))

    @property
    def is_cut(self) -> bool:
        """Whether more would have to come."""
        return not self._expand.eof

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """The expanded bytes of one read, in pieces. Raises ValueError when they are not compressed data, UnreadableError where
        they are compressed otherwise."""
        if not self._readable:
            raise UnreadableError
        rest = chunk
        more = True
        while more and not self._expand.eof:  # what follows the end is dropped; zlib would keep it
            try:
                piece = self._expand.decompress(rest, STEP)
            except zlib.error as error:
                raise ValueError("broken compressed data") from error
            rest = self._expand.unconsumed_tail
            more = bool(rest) or len(piece) == STEP  # a full piece: there may be more of what was taken in already
            if piece:
                yield piece
