"""Compressed answers of upstreams, expanded in bounded steps.

Rule: we ask for none; a server that compresses all the same is read, and never gets more than `STEP` bytes expanded at
once, so a bomb ends at the bounds of the splitter instead of in memory.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from ds2d.core.errors import ErrorKind, GatewayError

STEP = 64 * 1024
"""Bytes expanded at a time: as many as one read of the network, and some 10 ms of work if they are blank lines."""


class Inflater:
    """gzip or deflate, in pieces."""

    def __init__(self) -> None:
        self._expand = zlib.decompressobj(wbits=32 + zlib.MAX_WBITS)

    @classmethod
    def for_encoding(cls, encoding: str) -> Inflater | None:
        """What a Content-Encoding needs: None for none. Raises GatewayError(UPSTREAM_GARBLED) for one we do not read."""
        name = encoding.strip().lower()
        if name in ("", "identity"):
            return None
        if name in ("gzip", "x-gzip", "deflate"):
            return cls()
        raise GatewayError(ErrorKind.UPSTREAM_GARBLED, "The upstream sent an encoding that was not asked for.")

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """The expanded bytes of one read, in pieces. Raises ValueError when they are not compressed data."""
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
