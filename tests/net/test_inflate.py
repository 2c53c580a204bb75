"""Compressed answers: the same bytes however they are cut, and never more at once than a step."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds2d.net.inflate import STEP, Inflater, UnreadableError

PLAIN = {"text": b"data: one\n\n" * 40_000, "a step": b"x" * STEP, "nothing": b"", "long matches": b"\0" * (3 * STEP + 258)}


def inflater() -> Inflater:
    made = Inflater.for_encoding("gzip")
    assert made is not None
    return made


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress], ids=["gzip", "deflate"])
@given(cuts=st.lists(st.floats(0, 1), max_size=5))
def test_any_cut_expands_to_the_same(pack: object, name: str, cuts: list[float]) -> None:
    packed = pack(PLAIN[name])  # type: ignore[operator]
    at = [0, *sorted(int(cut * len(packed)) for cut in cuts), len(packed)]
    expand = inflater()
    pieces = [piece for a, b in pairwise(at) for piece in expand.feed(packed[a:b])]
    assert b"".join(pieces) == PLAIN[name]
    assert all(0 < len(piece) <= STEP for piece in pieces)


def test_what_was_flushed_comes_at_once() -> None:
    pack, expand = zlib.compressobj(wbits=31), inflater()
    for size in (10, STEP, STEP * 2 + 258):
        text = b"\0" * size
        assert b"".join(expand.feed(pack.compress(text) + pack.flush(zlib.Z_SYNC_FLUSH))) == text


def test_what_follows_the_end_is_not_kept() -> None:
    expand = inflater()
    assert b"".join(expand.feed(gzip.compress(b"all") + b"more")) == b"all"
    tracemalloc.start()
    for _ in range(100):
        assert list(expand.feed(b"x" * STEP)) == []
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < STEP


def test_what_is_not_compressed_is_an_error_and_one_of_an_unknown_encoding_is_another() -> None:
    with pytest.raises(ValueError, match="broken"):
        list(inflater().feed(b"plain text"))
    unreadable = Inflater.for_encoding("br")
    assert unreadable is not None
    with pytest.raises(UnreadableError):
        list(unreadable.feed(b"plain text"))
    assert Inflater.for_encoding(" Identity ") is None
