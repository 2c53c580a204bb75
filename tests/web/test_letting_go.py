"""Very many objects are let go of a few at each turn of the loop."""

from __future__ import annotations

import asyncio
import ctypes
import mmap
import sys
import weakref
from pathlib import Path

import pytest

from ds2d.core.letting_go import AT_ONCE, HUGE, drop, hollow, huge_texts, inside
from ds2d.web import letting_go
from ds2d.web.letting_go import let_go
from tests.functional.test_queue import until


class One:
    """Something that can be seen to go."""


async def test_some_go_at_each_turn_of_the_loop_and_the_list_itself_is_not_changed() -> None:
    items = [One() for _ in range(AT_ONCE * 3)]
    here = weakref.WeakSet(items)
    let_go(items)
    assert len(items) == AT_ONCE * 3
    items.clear()
    left = [len(here)]
    while here:
        await asyncio.sleep(0)
        left.append(len(here))
    assert left == [AT_ONCE * 3, AT_ONCE * 2, AT_ONCE, 0]


def test_a_list_is_emptied() -> None:
    items = list(range(AT_ONCE * 2 + 1))
    drop(items)
    assert items == []


def resident() -> int:
    """Bytes of memory that the process has from the system (proc(5), statm)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE


def test_a_huge_text_is_found_where_it_stands() -> None:
    text = "a" * (HUGE + 1)
    items = [{"role": "user", "content": text}, {"role": "user", "content": [{"type": "text", "text": text}]}, "short", None, 1]
    assert [id(one) for one in huge_texts(items)] == [id(text)] * 2


def test_a_huge_text_gives_its_memory_back_and_one_that_is_held_stays() -> None:
    held = "é" * (HUGE + 1)
    texts = ["🙂" * (HUGE // 4 + 1), held]
    before = resident()
    assert [id(one) for one in hollow(texts)] == [id(held)]
    assert texts == []
    assert HUGE * 0.9 < before - resident() < HUGE * 1.1
    assert held.count("é") == HUGE + 1


@pytest.mark.parametrize("one", ["a", "é", "你", "🙂"])
def test_only_a_texts_own_characters_are_given_back_though_its_utf_8_counts_as_its_size(one: str) -> None:
    text = one * 100_000
    size = sys.getsizeof(text)
    before = inside(text)
    encode = ctypes.pythonapi.PyUnicode_AsUTF8AndSize
    encode.argtypes, encode.restype = (ctypes.py_object, ctypes.c_void_p), ctypes.c_void_p
    encode(text, None)  # as what writes JSON does
    assert one == "a" or sys.getsizeof(text) > size
    assert inside(text) == before
    begin, end = before
    assert id(text) < begin < end <= id(text) + size
    assert end - begin > size - 3 * mmap.PAGESIZE


async def test_it_does_so_once_its_question_is_let_go_of_by_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(letting_go, "PATIENCE", (0.0,) * 1000)
    items = [{"content": "🙂" * (HUGE // 4 + 1)}]
    before = resident()
    let_go(items)
    for _ in range(4):
        await asyncio.sleep(0)
    assert items[0]["content"].count("🙂") == HUGE // 4 + 1
    items.clear()
    await until(lambda: before - resident() > HUGE * 0.9)
