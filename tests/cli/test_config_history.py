"""`ds2d config diff` and `ds2d config rollback`: earlier configs from the state folder, without their secrets on the screen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ds2d.cli import main

OLD = {"_note": "mine", "keys": ["sk-old-key-0123456789"], "accounts": [{"name": "a", "token": "tok-old-0123456789"}]}
NEW = {
    "_note": "mine",
    "keys": ["sk-old-key-0123456789", "sk-new-key-0123456789"],
    "runtime": {"max_attempts": 2},
    "accounts": [],
}


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A config of which the first generation is kept, edited since."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(OLD))
    assert main(["config", "diff", "1"]) == 0
    file.write_text(json.dumps(NEW))
    return file


def test_the_difference_is_told_without_secrets(path: Path, capsys: Any) -> None:
    assert main(["config", "diff"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        '+ keys[1] = "sk-ne…89"',
        '- accounts[0] = {"name": "a", "token": "tok-o…89"}',
        '+ runtime = {"max_attempts": 2}',
    ]


def test_going_back_is_a_new_generation(path: Path, capsys: Any) -> None:
    path.chmod(0o600)
    assert main(["config", "rollback"]) == 0
    assert json.loads(path.read_text()) == OLD
    assert path.stat().st_mode & 0o777 == 0o600
    assert "generation 1 is in force again, as generation 3" in capsys.readouterr().out
    assert main(["config", "rollback", "2"]) == 0
    assert json.loads(path.read_text()) == NEW


def test_what_is_not_kept_is_said(path: Path, capsys: Any) -> None:
    assert main(["config", "rollback", "77"]) == 1
    assert "there are: 2, 1" in capsys.readouterr().err
    path.write_text("{")
    assert main(["config", "diff"]) == 1
