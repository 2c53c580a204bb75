"""Secrets taken out of texts and structures."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds2d.core.redact import MASK, SECRET_NAMES, mask, redact


@pytest.mark.parametrize(
    ("secret", "seen"),
    [
        ("sk-abcdefghijkxy", "sk-ab…xy"),
        ("sha256:ab12" + "0" * 60, "sha256:ab12…"),
        ("short", "…"),
        ("elevenchars", "…"),
        ("", "…"),
    ],
)
def test_a_mask_tells_long_secrets_apart_and_nothing_of_short_ones(secret: str, seen: str) -> None:
    assert mask(secret) == seen


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("Authorization: Bearer abcdefghijklmnop", "Authorization: Bearer abcde…op"),
        ("basic dXNlcjpwYXNz", "basic dXNlc…Nz"),
        ("GET /v1beta/models?key=AIzaSyABCDEFGH&alt=sse", "GET /v1beta/models?key=AIzaS…GH&alt=sse"),
        ("http://user:pass@host:80/x", "http://…@host:80/x"),
        ("the key sk-0123456789abcdef is bad", "the key sk-01…ef is bad"),
        ("adm-0123456789abcdef", "adm-0…ef"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl", "eyJhb…Jl"),
        ("scrypt:32768:8:1:c2FsdA==:aGFzaA==", "scryp…=="),
        (
            "nothing here: task-force, sk-, mask@home, http://host/a@b",
            "nothing here: task-force, sk-, mask@home, http://host/a@b",
        ),
    ],
)
def test_secrets_are_known_by_their_form(text: str, seen: str) -> None:
    assert redact(text) == seen


@pytest.mark.parametrize("name", sorted(SECRET_NAMES))
def test_secrets_are_known_by_their_field(name: str) -> None:
    for spelling in (name, name.upper(), name.replace("_", "-").title()):
        assert redact({spelling: "verysecretvalue"}) == {spelling: "verys…ue"}


def test_what_is_masked_keeps_its_place_and_type() -> None:
    value = {
        "token": {"$env": "X"},
        "password": "",
        "max_tokens": 5,
        "keys": ["plain", None, 1.5],
        "secret": ["also fine"],
        3: True,
    }
    assert redact(value) == value


def test_given_secrets_are_masked_wherever_they_stand() -> None:
    value = {"a": ["x hunter22 y"], "hunter22": "see hunter22hunter22"}
    assert "hunter22" not in json.dumps(redact(value, ["hunter22"]))
    assert redact("abc", ["abc", ""]) == "abc", "three letters are no secret but a word"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(JSON, st.text(alphabet="abcdefghijklmnop", min_size=8, max_size=20), st.text(max_size=5), st.text(max_size=5))
def test_a_planted_secret_is_found_in_anything(value: Any, secret: str, before: str, after: str) -> None:
    planted = {"v": value, "text": f"{before}{secret}{after}", f"{before}{secret}": [secret]}
    assert secret not in json.dumps(redact(planted, [secret]), ensure_ascii=False)


@pytest.mark.parametrize(
    "text",
    ["Bearer " * 20000, "://" * 50000, "eyJ" * 50000, "eyJ" + "a" * 200000, "?key=" * 30000, "sk-" * 50000, "scrypt:1" * 20000],
)
def test_hostile_text_is_only_text(text: str) -> None:
    assert len(redact(text)) <= len(text) + text.count(MASK)
