"""Hashes of keys and passwords."""

from __future__ import annotations

import hashlib

import pytest

from ds2d.core.secrets import hash_key, hash_password, is_hashed, is_password_hash, verify_password

STORED = hash_password("correct horse battery", b"0123456789abcdef")


def test_a_password_matches_its_own_hash_only() -> None:
    assert STORED.startswith("scrypt:32768:8:1:")
    assert verify_password(STORED, "correct horse battery")
    assert not verify_password(STORED, "correct horse batterz")
    assert not verify_password(STORED, "")
    assert hash_password("correct horse battery", b"another salt....") != STORED


def test_the_reference_system_s_sha256_hash_is_understood() -> None:
    stored = "sha256:" + hashlib.sha256(b"admin password").hexdigest()
    for spelling in (stored, stored.upper().replace("SHA256", "sha256")):
        assert verify_password(spelling, "admin password")
        assert not verify_password(spelling, "admin passwore")


@pytest.mark.parametrize(
    "stored",
    ["", "admin", "scrypt:...", "scrypt:0:8:1:AAAAAAAAAAAAAAAA:AAAA", STORED.replace("32768", "3"), STORED.replace(":8:", ":-8:"),
     STORED.replace("32768", str(2**30)), STORED.replace(":1:", ":1000:"), STORED[:-8], "bcrypt" + STORED[6:], "sha256:abc",
     STORED + "é"],
)  # fmt: skip
def test_anything_else_matches_nothing_and_costs_nothing(stored: str) -> None:
    assert not is_password_hash(stored)
    assert not verify_password(stored, stored)


def test_a_key_is_hashed_once() -> None:
    digest = hash_key("sk-a")
    assert digest == "sha256:" + hashlib.sha256(b"sk-a").hexdigest()
    assert hash_key(digest) == hash_key(digest.upper().replace("SHA256", "sha256")) == digest
    assert is_hashed(digest)
    assert not is_hashed("sha256:" + "g" * 64)


def test_text_that_is_no_utf_8_is_hashed_all_the_same() -> None:
    assert hash_key("\udcff") != hash_key("\udcfe")
    assert not verify_password(STORED, "\udcff")
