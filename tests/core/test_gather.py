"""What is put together in steps is what would be put together at once."""

from __future__ import annotations

import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ds2d.core import gather
from ds2d.core.gather import as_bytes, gathered, joined

WIDE = [st.text(st.characters(codec="utf-8", max_codepoint=highest), max_size=40) for highest in (0x7F, 0xFF, 0xFFFF, 0x10FFFF)]


@pytest.fixture(autouse=True)
def _small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gather, "AT_ONCE", 32)
    monkeypatch.setattr(gather, "STEP", 7)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.one_of(WIDE), max_size=12))
def test_a_text_is_the_same_text(pieces: list[str]) -> None:
    """In all that Python knows of it: one that is kept wider than it is would differ from its equals."""
    at_once, text = "".join(pieces), joined(list(pieces))
    assert text == at_once
    assert hash(text) == hash(at_once)
    assert sys.getsizeof(text) == sys.getsizeof(at_once)
    assert text.isascii() == at_once.isascii()
    assert text.encode() == at_once.encode()


def test_pieces_are_let_go_of() -> None:
    pieces = ["a" * 30, "好" * 30]
    assert joined(pieces) == "a" * 30 + "好" * 30
    assert pieces == []


@pytest.mark.parametrize("letter", ["a", "é", "好", "🙂"])
def test_the_widest_character_may_stand_anywhere(letter: str) -> None:
    for at in (0, 6, 7, 50, 99):
        whole = "x" * at + letter + "x" * (99 - at)
        assert joined([whole[:40], "", whole[40:]]) == whole


@given(st.lists(st.binary(max_size=40), max_size=12))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_bytes_are_the_same_bytes(pieces: list[bytes]) -> None:
    at_once = b"".join(pieces)
    assert gathered(pieces) == at_once
    assert as_bytes(pieces) == at_once
    assert as_bytes([memoryview(piece) for piece in pieces]) == at_once
    assert hash(as_bytes(pieces)) == hash(at_once)
