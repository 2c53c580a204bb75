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


@pytest.mark.parametrize("broken", ['{"keys": [', '{"keys": "mine"}', '{"server": {"state_dir": 7}}'])
def test_a_broken_file_is_what_going_back_is_for(path: Path, capsys: Any, broken: str) -> None:
    assert main(["config", "diff"]) == 0  # the second generation is in force, and kept
    path.write_text(broken)
    path.chmod(0o600)
    assert main(["config", "rollback"]) == 0
    told = capsys.readouterr()
    assert "error: " in told.err, "what is wrong with the file is said, too"
    assert "generation 2 is in force again, as generation 2" in told.out
    assert json.loads(path.read_text()) == NEW, "the last that was sound, where none is named"
    path.write_text(broken)
    assert main(["config", "rollback", "1"]) == 0
    assert json.loads(path.read_text()) == OLD
    path.write_text(broken)
    assert main(["config", "rollback", "77"]) == 1
    assert path.read_text() == broken


def test_a_broken_file_that_names_its_state_folder_leads_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    good = {"server": {"state_dir": "elsewhere"}}
    file = tmp_path / "config.json"
    file.write_text(json.dumps(good))
    assert main(["config", "diff", "1"]) == 0
    file.write_text(json.dumps({**good, "unknown": 1}))
    assert main(["config", "rollback"]) == 0
    assert json.loads(file.read_text()) == good


def test_what_is_not_kept_is_said(path: Path, capsys: Any) -> None:
    assert main(["config", "rollback", "77"]) == 1
    assert "there are: 2, 1" in capsys.readouterr().err
    path.write_text("{")
    assert main(["config", "diff"]) == 1


@pytest.mark.parametrize("action", ["diff", "rollback"])
def test_where_there_is_nothing_nothing_is_made(
    action: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["config", action]) == 1
    assert "there are: none" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_gone_comes_back(path: Path) -> None:
    path.unlink()
    assert main(["config", "rollback"]) == 0
    assert json.loads(path.read_text()) == OLD
