"""The one door: what is sound is swapped, what is not changes nothing, whoever writes and however."""

from __future__ import annotations

import json
import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ds2d.config.files import ConflictError
from ds2d.config.notices import ConfigErrors
from ds2d.config.schema import Config
from ds2d.config.source import Source, SourceError
from ds2d.config.store import PATIENCE, RETRY, ConfigStore, Outcome
from tests.config.store_world import Watched, set_attempts, text


@pytest.fixture(name="path")
def _path(tmp_path: Path) -> Path:
    path = tmp_path / "config.json"
    path.write_text(text(3))
    return path


# ways in which editors write a file; they yield where somebody else could look


def rename_over(path: Path, content: str) -> Iterator[None]:
    draft = path.with_suffix(".swp")
    draft.write_text(content)
    yield
    os.replace(draft, path)


def truncate_and_write(path: Path, content: str) -> Iterator[None]:
    with path.open("w") as file:
        yield
        file.write(content)


def backup_and_rename(path: Path, content: str) -> Iterator[None]:
    os.replace(path, f"{path}~")
    yield
    draft = path.with_suffix(".new")
    draft.write_text(content)
    yield
    os.replace(draft, path)


def symlink_swap(path: Path, content: str) -> Iterator[None]:
    folder = path.parent / f"v{len(os.listdir(path.parent))}"
    folder.mkdir()
    (folder / "config.json").write_text(content)
    link = path.parent / "link"
    link.symlink_to(folder / "config.json")
    yield
    os.replace(link, path)


def delete_and_recreate(path: Path, content: str) -> Iterator[None]:
    path.unlink()
    yield
    path.touch()
    yield
    path.write_text(content)


def in_two_halves(path: Path, content: str) -> Iterator[None]:
    with path.open("w") as file:
        file.write(content[: len(content) // 2])
        file.flush()
        yield
        yield
        file.write(content[len(content) // 2 :])


BROKEN = ("{", "", '{"runtime": {"max_attempts": 99}}', '{"x": 1}', '{"keys": [1]}', "[]")
STYLES = [rename_over, truncate_and_write, backup_and_rename, symlink_swap, delete_and_recreate, in_two_halves]


@pytest.mark.parametrize("style", STYLES)
def test_a_thousand_rewrites_one_in_five_broken(path: Path, style: Any) -> None:
    watched = Watched(path)
    good, expected_told = 3, []
    for number in range(1000):
        broken = number % 5 == 4
        value = 1 + number % 7
        content = BROKEN[number // 5 % len(BROKEN)] if broken else text(value)
        for _ in style(path, content):
            watched.time += 0.01
            watched.look()
            assert watched.value == good, "half of a save counted"
            assert number % 5 == 0 or watched.store.problem is None, "half of a save was reported"
        watched.follow()
        if not broken and value != good:
            good = value
            expected_told.append(value)
        assert watched.value == good
        assert (watched.store.problem is not None) == broken
        watched.time += 2
    assert watched.told == expected_told
    assert watched.store.current.generation == 1 + len(expected_told)


def test_half_of_a_save_is_given_its_time_and_no_more(path: Path) -> None:
    watched = Watched(path)
    path.write_text("{")
    begun = watched.time
    assert watched.look() == RETRY
    watched.follow()
    assert PATIENCE <= watched.time - begun < 1
    assert watched.store.problem is not None
    assert watched.store.problem.kind == "invalid"
    assert watched.look() is None, "what was reported is waited for no more"


def test_what_is_json_but_wrong_is_reported_at_once(path: Path) -> None:
    watched = Watched(path)
    path.write_text('{"x": 1}')
    assert watched.look() is None
    assert watched.store.problem is not None


def test_reload_believes_what_is_there_now(path: Path) -> None:
    watched = Watched(path)
    path.write_text("{")
    assert watched.store.reload() is Outcome.REJECTED
    assert watched.store.problem is not None
    path.write_text(text(4))
    assert watched.store.reload() is Outcome.APPLIED
    assert watched.store.reload() is Outcome.UNCHANGED
    assert (watched.value, watched.store.problem) == (4, None)


def test_the_same_content_is_no_change_however_it_is_written(path: Path) -> None:
    watched = Watched(path)
    before = watched.store.current
    path.write_text(path.read_text())
    watched.follow()
    assert watched.store.current is before
    path.write_text(text(3, _note="hello"))
    watched.follow()
    assert watched.told == []
    assert watched.store.current.generation == before.generation
    assert watched.store.current.digest != before.digest, "an editor's base must be the bytes on disk"


def test_a_file_that_came_back_is_no_problem_any_more(path: Path) -> None:
    watched = Watched(path)
    held = path.read_bytes()
    path.unlink()
    watched.follow()
    assert watched.store.problem is not None
    assert watched.store.problem.kind == "missing"
    path.write_bytes(held)
    watched.follow()
    assert watched.store.problem is None
    assert watched.told == []


def test_a_broken_file_is_logged_once_not_with_every_look(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    watched = Watched(path)
    path.write_text('{"x": 1, "y": 2}')
    with caplog.at_level(logging.ERROR, "ds2d.config"):
        for _ in range(5):
            watched.follow()
    assert [record.getMessage() for record in caplog.records] == [
        "config not taken up: x: unknown key", "config not taken up: y: unknown key",
    ]  # fmt: skip


def test_a_secret_s_file_is_watched_too(path: Path) -> None:
    secret = path.parent / "team.key"
    path.write_text('{"keys": [{"key": {"$file": "team.key"}}]}')
    watched = Watched(path)
    assert not watched.store.current.keys[0].usable
    secret.write_text("sk-one\n")
    watched.follow()
    assert watched.store.current.keys[0].key
    assert watched.store.current.keys[0].key.reveal() == "sk-one"
    secret.write_text("sk-two\n")
    watched.follow()
    assert watched.store.current.keys[0].key
    assert watched.store.current.keys[0].key.reveal() == "sk-two"
    secret.unlink()
    watched.follow()
    assert not watched.store.current.keys[0].usable
    assert watched.told == [3, 3, 3]


def test_an_environment_file_is_watched_too(tmp_path: Path) -> None:
    env_file = tmp_path / "env"
    env_file.write_text("CONFIG_JSON='{}'")
    watched = Watched(tmp_path / "none.json", environ={"DS2D_ENV_FILE": str(env_file)})
    env_file.write_text(f"CONFIG_JSON='{text(7)}'")
    watched.follow()
    assert watched.value == 7


def test_subscribers_are_told_in_order_and_one_that_fails_stops_no_other(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = ConfigStore(Source.file(path), keep_history=False)
    told: list[tuple[str, Config]] = []
    store.subscribe(lambda config: told.append(("first", config)))

    def fail(_: Config) -> None:
        raise ValueError

    store.subscribe(fail)
    store.subscribe(lambda config: told.append(("last", config)))
    path.write_text(text(4))
    store.reload()
    assert told == [("first", store.current), ("last", store.current)]
    assert "did not take the config up" in caplog.text


def test_a_snapshot_stays_as_it_was(path: Path) -> None:
    store = ConfigStore(Source.file(path), keep_history=False)
    held = store.current
    path.write_text(text(9))
    store.reload()
    assert (held.runtime.max_attempts, store.current.runtime.max_attempts) == (3, 9)
    with pytest.raises(AttributeError):
        held.runtime.max_attempts = 5  # type: ignore[misc]


def test_a_key_that_needs_a_restart_is_pending_until_it_is_as_before(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = ConfigStore(Source.file(path), keep_history=False)
    path.write_text(text(3, server={"port": 99, "root_path": "/x", "idle_seconds": 5}))
    store.reload()
    assert store.pending_restart == ["server.port", "server.root_path"]
    assert "a restart is needed for: server.port, server.root_path" in caplog.text
    caplog.clear()
    path.write_text(text(3))
    store.reload()
    assert store.pending_restart == []
    assert "restart" not in caplog.text


def test_without_a_file_the_config_is_empty_and_that_is_said(tmp_path: Path) -> None:
    watched = Watched(tmp_path / "config.json")
    assert watched.store.current.keys == ()
    assert watched.store.problem is not None
    assert watched.store.problem.kind == "missing"
    watched.path.write_text(text(5))
    watched.follow()
    assert (watched.value, watched.store.problem) == (5, None)


def test_nothing_starts_with_a_broken_or_forbidden_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_text("{")
    with pytest.raises(ConfigErrors):
        ConfigStore(Source.file(path))

    def forbidden(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", forbidden)
    with pytest.raises(SourceError, match="permission denied"):
        ConfigStore(Source.file(path))


# writing


def test_a_write_keeps_order_notes_mode_and_indentation(path: Path) -> None:
    path.write_text('{\n    "_why": "你好",\n    "runtime": {"max_attempts": 1, "_n": 2},\n    "keys": []\n}\n')
    path.chmod(0o640)
    watched = Watched(path)
    config = watched.store.write(set_attempts(8), based_on=watched.store.current.digest)
    assert path.read_text().startswith('{\n    "_why": "你好",\n    "runtime": {\n        "max_attempts": 8,\n        "_n": 2\n')
    assert list(json.loads(path.read_text())) == ["_why", "runtime", "keys"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert (watched.told, config) == ([8], watched.store.current)
    assert watched.look() is None
    assert watched.store.current is config
    assert watched.told == [8], "the watcher took our own write for somebody else's"


def test_a_write_on_a_stale_base_is_refused(path: Path) -> None:
    watched = Watched(path)
    seen = watched.store.current.digest
    path.write_text(text(5))
    with pytest.raises(ConflictError):
        watched.store.write(set_attempts(8), based_on=seen)
    assert json.loads(path.read_text()) == json.loads(text(5))


def test_a_write_without_a_base_changes_what_is_on_disk_now(path: Path) -> None:
    watched = Watched(path)
    path.write_text(text(5, log={"level": "debug"}))
    watched.store.write(set_attempts(8))
    assert json.loads(path.read_text()) == {"runtime": {"max_attempts": 8}, "log": {"level": "debug"}}
    assert watched.store.current.log.level == "debug"


def test_a_write_that_would_break_the_config_writes_nothing(path: Path) -> None:
    watched = Watched(path)
    before = path.read_bytes()
    with pytest.raises(ConfigErrors):
        watched.store.write(set_attempts(99))
    assert path.read_bytes() == before
    assert (watched.value, watched.store.problem) == (3, None)


def test_a_write_that_changes_nothing_touches_nothing(path: Path) -> None:
    watched = Watched(path)
    before = path.stat()
    assert watched.store.write(lambda document: None) is watched.store.current
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert path.stat().st_ino == before.st_ino


def test_the_first_write_makes_the_file_for_its_owner_only(tmp_path: Path) -> None:
    watched = Watched(tmp_path / "config.json")
    watched.store.write(set_attempts(8))
    assert json.loads(watched.path.read_text()) == {"runtime": {"max_attempts": 8}}
    assert stat.S_IMODE(watched.path.stat().st_mode) == 0o600
    assert watched.store.problem is None


def test_a_write_to_a_broken_file_says_what_is_broken(path: Path) -> None:
    watched = Watched(path)
    path.write_text('{"runtime": ')
    with pytest.raises(ConfigErrors, match="not JSON"):
        watched.store.write(set_attempts(8))


def test_a_config_from_a_variable_changes_in_memory_and_says_so(tmp_path: Path) -> None:
    env_file = tmp_path / "env"
    env_file.write_text(f"CONFIG_JSON='{text(2)}'")
    watched = Watched(tmp_path / "none.json", environ={"DS2D_ENV_FILE": str(env_file)})
    store = watched.store
    assert store.current.env_backed
    store.write(set_attempts(8), based_on=store.current.digest)
    assert (watched.value, store.unsynced) == (8, True)
    watched.follow()
    assert watched.value == 8, "the old variable undid the change"
    store.write(set_attempts(9), based_on=store.current.digest)
    with pytest.raises(ConflictError):
        store.write(set_attempts(1), based_on="0" * 64)
    assert os.listdir(tmp_path) == ["env"]
    env_file.write_text(f"CONFIG_JSON='{text(5)}'")
    watched.follow()
    assert (watched.value, store.unsynced) == (5, False)


@pytest.mark.parametrize("changed", ["secret", "variable"])
def test_an_edit_in_memory_outlives_a_secret_that_is_renewed(tmp_path: Path, changed: str) -> None:
    """The config comes from a variable. An edit may have been the admin's password: the old key must not count again."""
    secret, env_file = tmp_path / "token", tmp_path / "env"
    document = {"upstreams": [{"name": "a", "base_url": "http://a"}], "accounts": [{"token": {"$file": str(secret)}}]}
    secret.write_text("old")
    env_file.write_text(f"CONFIG_JSON='{json.dumps(document)}'")
    watched = Watched(tmp_path / "none.json", environ={"DS2D_ENV_FILE": str(env_file)})
    store = watched.store
    store.write(set_attempts(8))
    if changed == "secret":
        secret.write_text("new")
    else:
        env_file.write_text(f"CONFIG_JSON='{json.dumps(document)}'\nDS2API_ADMIN_KEY=another\n")
    assert store.reload() is Outcome.APPLIED
    assert (watched.value, store.unsynced) == (8, True)
    token = store.current.accounts[0].token
    assert token is not None
    assert token.reveal() == ("new" if changed == "secret" else "old")
    assert store.reload() is Outcome.UNCHANGED
    env_file.write_text(f"CONFIG_JSON='{text(5)}'")
    store.reload()
    assert (watched.value, store.unsynced) == (5, False)


def test_a_look_that_began_before_a_write_is_not_believed(path: Path) -> None:
    watched = Watched(path)
    path.write_text(text(5))
    old = watched.store.examine()
    watched.store.write(set_attempts(8))
    assert watched.store.settle(old, watched.time) == 0.0
    assert watched.value == 8


# generations


def test_a_look_that_began_before_a_problem_was_found_does_not_clear_it(path: Path) -> None:
    store = ConfigStore(Source.file(path))
    look = store.examine()
    path.write_text("{")
    store.reload()
    assert store.settle(look, now=0.0) == 0.0  # look again
    assert store.problem is not None


def test_the_last_ten_generations_are_kept_for_their_owner_only(path: Path) -> None:
    watched = Watched(path, keep_history=True)
    for value in [4, 5, 6, 7, 8, 9, 1, 2, 4, 5, 6, 7]:
        path.write_text(text(value))
        watched.follow()
    kept = watched.store.generations()
    assert [generation.number for generation in kept] == list(range(13, 3, -1))
    assert json.loads(kept[0].path.read_text()) == json.loads(text(7))
    assert {stat.S_IMODE(generation.path.stat().st_mode) for generation in kept} == {0o600}
    folder = kept[0].path.parent
    assert folder == path.parent / "state" / "generations"
    assert {stat.S_IMODE(each.stat().st_mode) for each in (folder, folder.parent)} == {0o700}


def test_numbers_go_on_after_a_restart(path: Path) -> None:
    watched = Watched(path, keep_history=True)
    path.write_text(text(4))
    watched.follow()
    assert watched.store.current.generation == 2
    assert Watched(path, keep_history=True).store.current.generation == 2
    path.write_text(text(5))
    assert Watched(path, keep_history=True).store.current.generation == 3


def test_a_state_folder_that_cannot_be_written_is_said_and_changes_nothing_else(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (path.parent / "state").write_text("in the way")
    watched = Watched(path, keep_history=True)
    path.write_text(text(4))
    watched.follow()
    assert watched.value == 4
    assert "could not be kept" in caplog.text


@pytest.mark.parametrize("half", ["empty", "missing"])
def test_half_of_a_secret_that_is_renewed_is_given_its_time(tmp_path: Path, half: str) -> None:
    """`command > main.token` empties the file first: requests in between must not find the account without its token."""
    secret = tmp_path / "main.token"
    secret.write_text("old")
    path = tmp_path / "config.json"
    account = {"token": {"$file": "main.token"}}
    path.write_text(json.dumps({"upstreams": [{"name": "a", "base_url": "http://a"}], "accounts": [account]}))
    watched = Watched(path)

    def known() -> tuple[str | None, str | None]:
        spec = watched.store.current.accounts[0]
        return spec.problem, spec.token.reveal() if spec.token else None

    def halve() -> None:
        secret.write_text("") if half == "empty" else secret.unlink()

    halve()
    assert (watched.look(), known()) == (RETRY, (None, "old"))
    secret.write_text("new")
    assert (watched.look(), known()) == (None, (None, "new"))
    halve()
    begun = watched.time
    watched.follow()
    assert PATIENCE <= watched.time - begun < 1
    problem, token = known()
    assert problem is not None, "an empty file that stays is what counts"
    assert token is None
    secret.write_text("newest")
    assert (watched.look(), known()) == (None, (None, "newest"))


def test_two_processes_give_no_number_twice(path: Path) -> None:
    """A daemon, and a command that has kept an edit which the daemon never saw: whoever goes back to a number must mean one."""
    daemon = Watched(path, keep_history=True)
    path.write_text(text(7))
    command = ConfigStore(Source.file(path))
    command.write(set_attempts(5))
    daemon.follow()
    assert daemon.store.current.generation == command.current.generation == 3
    path.write_text(text(4))
    daemon.follow()
    assert [kept.number for kept in daemon.store.generations()] == [4, 3, 2, 1]


def test_half_of_an_environment_file_is_given_its_time(tmp_path: Path) -> None:
    """Emptied before it is written anew it names no config: an old file in the working folder would be in force meanwhile."""
    env_file, path = tmp_path / "env", tmp_path / "config.json"
    path.write_text(text(2))
    env_file.write_text(f"CONFIG_JSON='{text(5)}'")
    watched = Watched(path, environ={"DS2D_ENV_FILE": str(env_file)})
    env_file.write_text("")
    assert (watched.look(), watched.value) == (RETRY, 5)
    env_file.write_text(f"CONFIG_JSON='{text(6)}'")
    assert (watched.look(), watched.value) == (None, 6)
    env_file.write_text("")
    begun = watched.time
    watched.follow()
    assert PATIENCE <= watched.time - begun < 1
    assert (watched.value, watched.store.current.env_backed) == (2, False)
