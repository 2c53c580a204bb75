"""The objects of a very large question, let go of a few at a time.

Surprise: to free fifty thousand of them is one step for the interpreter, of 20 to 50 ms in which no other thread has its turn.
Whoever is about to drop the last reference to their list drops them from it first. To free one text of 250 MB is as long a step,
and that is what Python makes of 63 MB with an emoji in them: the system takes back one page after the other.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Iterator
from typing import Any

from ds2d.core.gather import width_of

WIDTHS = {0x7F: 1, 0xFF: 1, 0xFFFF: 2, 0x10FFFF: 4}
"""Bytes that each character takes, by the highest one of a text."""

HUGE = 64 * 1024 * 1024
"""Bytes in memory from which a text is worth a thread."""

MINE = 2
"""References to what only one variable holds, as sys.getrefcount counts: its own is one of them."""

AT_ONCE = 500
"""Objects that are let go of in one step, of less than a millisecond."""


def drop(items: list[Any]) -> None:
    """Empty the list. In a thread others have their turn in between."""
    while items:
        del items[-AT_ONCE:]


def huge_texts(items: list[Any]) -> list[str]:
    """The texts in these, JSON as they are, that take very long to free."""
    return [text for text in _texts(items) if sys.getsizeof(text) > HUGE]


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for child in value.values() if isinstance(value, dict) else value:
            yield from _texts(child)


def hollow(texts: list[str]) -> list[str]:
    """In a thread: empty the list, and have the system take the memory of its texts back while others have their turn. Returns
    those that somebody else holds, as they were."""
    advise = getattr(ctypes.CDLL(None), "madvise", None)  # a CDLL's function runs without the interpreter's lock
    held = []
    while texts:
        text = texts.pop()
        if sys.getrefcount(text) != MINE:
            held.append(text)
        elif advise is not None and hasattr(mmap, "MADV_DONTNEED"):
            begin, end = inside(text)
            advise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), mmap.MADV_DONTNEED)
    return held


def inside(text: str) -> tuple[int, int]:
    """Where the pages begin and end that hold nothing but characters of this text. What Python says of its size is not asked: it
    counts the UTF-8 that whoever wrote it as JSON may have left with it, which lies elsewhere."""
    width = WIDTHS[width_of([text])]
    begin = -(-(id(text) + object.__sizeof__(text)) // mmap.PAGESIZE) * mmap.PAGESIZE
    return begin, (id(text) + len(text) * width) // mmap.PAGESIZE * mmap.PAGESIZE
