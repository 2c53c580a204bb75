"""What the store tells of itself from its start on, and what a look at an uncertain moment comes to."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from ds2d.config.notices import ConfigErrors
from ds2d.config.source import Source, SourceError
from ds2d.config.store import RETRY, ConfigStore
from tests.config.store_world import Watched, set_attempts, text


@pytest.fixture(name="path")
def _path(tmp_path: Path) -> Path:
    path = tmp_path / "config.json"
    path.write_text(text(3))
    return path


def test_from_the_start_it_tells_where_it_stands_and_what_it_read(path: Path) -> None:
    path.write_text(text(3, _note="hello"))
    store = Watched(path).store
    assert store.path == path
    assert store.document == {"runtime": {"max_attempts": 3}, "_note": "hello"}
    assert (store.current.generation, store.unsynced, store.generations()) == (1, False, [])


def test_the_first_generation_is_kept_unless_no_trace_is_wanted(path: Path) -> None:
    assert [generation.number for generation in ConfigStore(Source.file(path)).generations()] == [1]


def test_what_is_odd_is_said_at_the_start_and_with_every_change(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.write_text(text(3, keys=[{"key": {"$file": "team.key"}}]))
    with caplog.at_level(logging.WARNING, "ds2d.config"):
        watched = Watched(path)
        at_start = caplog.text
        caplog.clear()
        path.write_text(text(4, keys=[{"key": {"$file": "team.key"}}]))
        watched.follow()
    assert watched.store.current.warnings
    for warning in watched.store.current.warnings:
        assert str(warning) in at_start
        assert str(warning) in caplog.text


def test_a_file_that_is_gone_for_a_moment_is_no_problem(path: Path) -> None:
    watched = Watched(path)
    held = path.read_bytes()
    path.unlink()
    assert watched.look() == RETRY
    path.write_bytes(held)
    assert watched.look() is None
    assert watched.store.problem is None


def test_every_half_of_a_save_is_given_its_own_time(path: Path) -> None:
    """However long ago the last one was, and whether or not it became a whole."""
    watched = Watched(path)
    path.write_text("{")
    assert watched.look() == RETRY
    path.write_text(text(4))
    assert watched.look() is None
    watched.time += 100
    path.write_text("{")
    assert watched.look() == RETRY
    watched.follow()
    assert watched.store.problem is not None
    watched.time += 100
    path.unlink()
    assert watched.look() == RETRY


def test_a_variable_that_holds_no_config_is_a_problem_like_a_broken_file(tmp_path: Path) -> None:
    env_file = tmp_path / "env"
    env_file.write_text("CONFIG_JSON='{}'")
    watched = Watched(tmp_path / "none.json", environ={"DS2D_ENV_FILE": str(env_file)})
    env_file.write_text("CONFIG_JSON='neither JSON, nor base64'")
    watched.follow()
    assert watched.store.problem is not None
    assert watched.store.problem.kind == "invalid"


def test_a_look_at_what_is_as_it_was_reads_no_config_anew(path: Path) -> None:
    """Also with secrets in files, one there and one missing."""
    (path.parent / "one.key").write_text("sk-one")
    path.write_text(text(3, keys=[{"key": {"$file": "one.key"}}, {"key": {"$file": "two.key"}}]))
    look = Watched(path).store.examine()
    assert (look.reading, look.config, look.problem) == (None, None, None)


def test_a_document_can_be_checked_without_counting(path: Path) -> None:
    watched = Watched(path)
    watched.store.check({"runtime": {"max_attempts": 5}})
    with pytest.raises(ConfigErrors):
        watched.store.check({"runtime": {"max_attempts": 99}})
    assert (path.read_text(), watched.value, watched.told) == (text(3), 3, [])


def test_a_file_that_may_not_be_read_is_never_written_over(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(path)

    def forbidden(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", forbidden)
    with pytest.raises(SourceError, match="permission denied"):
        watched.store.write(set_attempts(8))
    monkeypatch.undo()
    assert path.read_text() == text(3)
