"""What comes back from a client is what we gave it, or nothing."""

import base64
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds2d.core import seal
from ds2d.core.seal import Sealer

SEALER = Sealer(b"k" * 32)
ALPHABET = string.ascii_letters + string.digits + "-_"
TEXT = "The user wants a file listing. 用户想要列表。" * 20


@given(st.text())
def test_a_sealed_text_comes_back_whole(text: str) -> None:
    assert SEALER.unseal(SEALER.seal(text)) == text


def test_equal_texts_give_equal_tokens_so_that_prompts_stay_cached() -> None:
    assert SEALER.seal(TEXT) == Sealer(b"k" * 32).seal(TEXT)


def test_a_token_is_url_safe_and_shorter_than_long_text() -> None:
    token = SEALER.seal(TEXT)
    assert token.replace("-", "").replace("_", "").isalnum()
    assert len(token) < len(TEXT) / 2


def test_a_token_of_another_key_is_foreign() -> None:
    assert Sealer(b"other").unseal(SEALER.seal(TEXT)) is None


@given(st.integers(0, 10_000), st.sampled_from("ABab09-_=. é\n"))
def test_one_other_character_anywhere_makes_it_nothing(position: int, character: str) -> None:
    token = SEALER.seal(TEXT)
    position %= len(token)
    altered = token[:position] + character + token[position + 1 :]
    assert SEALER.unseal(altered) == (TEXT if altered == token else None)


@given(st.integers(0, 10_000))
def test_a_cut_token_is_nothing(length: int) -> None:
    token = SEALER.seal(TEXT)
    assert SEALER.unseal(token[: length % len(token)]) is None


@given(st.text())
def test_foreign_text_is_nothing(token: str) -> None:
    assert SEALER.unseal(token) is None


@pytest.mark.parametrize(
    "token", ["", "ds1_", "ds1_A", "gAAAAABk", "skip_thought_signature_validator", "ds2_" + SEALER.seal("x")[4:]]
)
def test_tokens_of_others_and_of_other_versions_are_nothing(token: str) -> None:
    assert SEALER.unseal(token) is None


def test_the_last_character_has_one_spelling() -> None:
    token = next(token for number in range(50) if len(token := SEALER.seal(str(number))) % 4 == 2)
    raw = base64.urlsafe_b64decode(token[4:] + "==")
    others = [token[:-1] + last for last in ALPHABET if base64.urlsafe_b64decode(token[4:-1] + last + "==") == raw]
    assert len(others) == 16
    assert [other for other in others if SEALER.unseal(other) is not None] == [token]


def test_a_small_token_that_holds_a_huge_text_is_not_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    token = SEALER.seal("x" * 100_000)
    monkeypatch.setattr(seal, "MAX_TEXT", 50_000)
    assert len(token) < 1000
    assert SEALER.unseal(token) is None
