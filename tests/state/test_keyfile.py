"""Keys of the installation: made once, private, and never half a key."""

from __future__ import annotations

from pathlib import Path

import pytest

from ds2d.state.keyfile import KEY_BYTES, load_key


def test_a_key_is_made_once_and_private(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    key = load_key(folder, "seal.key")
    assert len(key) == KEY_BYTES
    assert load_key(folder, "seal.key") == key
    assert (folder / "seal.key").stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700
    assert [path.name for path in folder.iterdir()] == ["seal.key"]
    assert load_key(folder, "jwt.key") != key


def test_a_key_that_is_there_is_only_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = load_key(tmp_path, "seal.key")
    monkeypatch.setattr("os.open", lambda *_: pytest.fail("something was written"))
    assert load_key(tmp_path, "seal.key") == key


def test_a_damaged_key_is_named_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "seal.key").write_bytes(b"short")
    with pytest.raises(OSError, match=r"seal\.key"):
        load_key(tmp_path, "seal.key")
    assert (tmp_path / "seal.key").read_bytes() == b"short"
