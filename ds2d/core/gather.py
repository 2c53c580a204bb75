"""Pieces of many megabytes put together, without a step that takes long.

Surprise: to join them is one step, and so is to make a `bytearray` of that length, which is filled with zeros: both take the
interpreter for as long as the system needs for that many new pages. A mapping gets its pages as they are written to; a private
one gets and gives them back in half the time of one that could be shared, which is what Python makes by itself. A text gets
them so as well, but Python itself can make one only at once, or let one grow, which copies it where it does not fit any more and
where its first wide character comes. CPython's own functions can.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Sequence
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap

AT_ONCE = 8 * 1024 * 1024
"""Bytes that are joined in one step, of one or two milliseconds: their memory is mostly used again."""

STEP = 256 * 1024
"""Characters that are copied in one step."""

_KINDS = ((0x10FFFF, re.compile("[\U00010000-\U0010ffff]")), (0xFFFF, re.compile("[\u0100-\uffff]")))
"""How wide the characters of a text may be, widest first, and what one has that is so wide."""

_new = ctypes.pythonapi.PyUnicode_New
_new.restype, _new.argtypes = ctypes.py_object, (ctypes.c_ssize_t, ctypes.c_uint32)
_copy = ctypes.pythonapi.PyUnicode_CopyCharacters
_copy.restype = ctypes.c_ssize_t
_copy.argtypes = (ctypes.c_void_p, ctypes.c_ssize_t, ctypes.py_object, ctypes.c_ssize_t, ctypes.c_ssize_t)
"""It takes the text to write into as an address: only one that nobody else holds may be written to."""

_new_bytes = ctypes.pythonapi.PyBytes_FromStringAndSize
_new_bytes.restype, _new_bytes.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_ssize_t)


def gathered(pieces: Sequence[bytes | memoryview]) -> memoryview:
    """All of them in one memory."""
    size = sum(map(len, pieces))
    if size <= AT_ONCE:
        return memoryview(b"".join(pieces))
    whole, at = memoryview(mmap(-1, size, flags=MAP_PRIVATE | MAP_ANONYMOUS)), 0
    for piece in pieces:
        whole[at : at + len(piece)] = piece
        at += len(piece)
    return whole


def as_bytes(pieces: Sequence[bytes | memoryview]) -> bytes:
    """All of them as bytes, for those who need them as such."""
    size = sum(map(len, pieces))
    if size <= AT_ONCE:
        return b"".join(pieces)
    whole = bytes(_new_bytes(None, size))
    at = id(whole) + bytes.__basicsize__ - 1  # where the bytes themselves begin
    for piece in pieces:
        for begin in range(0, len(piece), STEP):
            part = bytes(piece[begin : begin + STEP])
            ctypes.memmove(at, part, len(part))
            at += len(part)
    return whole


def joined(pieces: list[str]) -> str:
    """All of them in one text. The list is emptied."""
    size = sum(map(len, pieces))
    if size <= AT_ONCE // 4:
        whole = "".join(pieces)
        pieces.clear()
        return whole
    text, at = _new(size, width_of(pieces)), 0
    pieces.reverse()
    while pieces:
        piece = pieces.pop()
        for begin in range(0, len(piece), STEP):
            at += _copy(id(text), at, piece, begin, STEP)
    return str(text)


def width_of(pieces: Sequence[str]) -> int:
    """The highest character that a text of these must be able to hold: 7, 8, 16 or 21 bits."""
    width = 0x7F
    for piece in pieces:
        if piece.isascii():
            continue
        width = max(width, 0xFF)
        for kind, pattern in _KINDS:
            if kind > width and any(pattern.search(piece, at, at + STEP) for at in range(0, len(piece), STEP)):
                width = kind
    return width
