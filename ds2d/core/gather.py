"""Pieces of many megabytes put together, without a step that takes long.

Surprise: to join them is one step, and so is to make a `bytearray` of that length, which is filled with zeros: both take the
interpreter for as long as the system needs for that many new pages. A mapping gets its pages as they are written to.
"""

from __future__ import annotations

from collections.abc import Sequence
from mmap import mmap

AT_ONCE = 8 * 1024 * 1024
"""Bytes that are joined in one step, of one or two milliseconds: their memory is mostly used again."""


def gathered(pieces: Sequence[bytes]) -> memoryview:
    """All of them in one memory."""
    size = sum(map(len, pieces))
    if size <= AT_ONCE:
        return memoryview(b"".join(pieces))
    whole, at = memoryview(mmap(-1, size)), 0
    for piece in pieces:
        whole[at : at + len(piece)] = piece
        at += len(piece)
    return whole
