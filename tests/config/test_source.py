"""Where the config comes from, by what the environment says (config.md 4)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ds2d.config.source import Source, SourceError, default_path


def test_the_flag_names_the_file_whatever_the_environment_says(tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text('{"_": "mine"}')
    environ = {"DS2API_CONFIG_JSON": "{}", "DS2D_CONFIG": "other.json"}
    source = Source.from_environment(environ, Path("mine.json"), cwd=tmp_path)
    reading = source.read()
    assert (reading.raw, reading.variable) == (b'{"_": "mine"}', None)


def test_a_variable_with_the_whole_config_comes_before_any_file(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    source = Source.from_environment({"CONFIG_JSON": '{"keys": ["a"]}'}, cwd=tmp_path)
    reading = source.read()
    assert (reading.raw, reading.variable) == (b'{"keys": ["a"]}', "CONFIG_JSON")
    assert source.parse(reading).env_backed


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"DS2D_CONFIG": "a.json", "DS2API_CONFIG_PATH": "b.json"}, "a.json"),
        ({"DS2D_CONFIG": "", "DS2API_CONFIG_PATH": "b.json"}, "b.json"),
        ({"STATE_DIRECTORY": "state:other"}, "state/config.json"),
        ({}, "config.json"),
    ],
)
def test_where_the_file_is_looked_for(tmp_path: Path, environ: dict[str, str], expected: str) -> None:
    state = environ.get("STATE_DIRECTORY")
    if state:
        environ = {"STATE_DIRECTORY": f"{tmp_path}/{state}"}
    assert default_path(environ, tmp_path) == tmp_path / expected


def test_a_file_in_the_working_folder_comes_before_the_state_folder(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert default_path({"STATE_DIRECTORY": "/state"}, tmp_path) == tmp_path / "config.json"


def test_an_environment_file_wins_over_the_variables_systemd_made_of_it(tmp_path: Path) -> None:
    env_file = tmp_path / "env"
    env_file.write_text('DS2API_CONFIG_JSON=\'{"keys": [{"$env": "K"}]}\'\nK=new\n')
    source = Source.from_environment({"DS2D_ENV_FILE": str(env_file), "DS2API_CONFIG_JSON": "{}", "K": "old"}, cwd=tmp_path)
    reading = source.read()
    assert reading.raw == b'{"keys": [{"$env": "K"}]}'
    assert reading.environ["K"] == "new"


@pytest.mark.parametrize("what", ["the config file", "the environment file"])
def test_missing_forbidden_and_unreadable_are_told_apart(tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x"
    environ = {"DS2D_ENV_FILE": str(path)} if "environment" in what else {}
    source = Source.from_environment(environ, None if environ else path, cwd=tmp_path)

    def failure() -> tuple[str, str]:
        with pytest.raises(SourceError) as found:
            source.read()
        return found.value.kind, str(found.value)

    assert failure() == ("missing", f"{what} is missing")
    path.mkdir()
    assert failure()[0] == "unreadable"
    path.rmdir()
    path.write_text("")

    def forbidden(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", forbidden)
    assert failure() == ("denied", f"{what} may not be read by this user: permission denied")


def test_every_folder_on_the_way_to_the_file_is_watched(tmp_path: Path) -> None:
    """As Kubernetes lays it out: config.json -> ..data/config.json, ..data -> ..1."""
    (tmp_path / "etc" / "..1").mkdir(parents=True)
    (tmp_path / "etc" / "..1" / "config.json").write_text("{}")
    (tmp_path / "etc" / "..data").symlink_to("..1")
    (tmp_path / "etc" / "config.json").symlink_to("..data/config.json")
    (tmp_path / "link").symlink_to("etc")
    source = Source.file(tmp_path / "link" / "config.json")
    before = source.folders(["/nowhere/at/all"])
    inodes = {inode for _, inode in before.values()}
    assert {folder.stat().st_ino for folder in (tmp_path, tmp_path / "etc", tmp_path / "etc" / "..1")} <= inodes
    (tmp_path / "etc" / "..2").mkdir()
    (tmp_path / "etc" / "new").symlink_to("..2")
    os.replace(tmp_path / "etc" / "new", tmp_path / "etc" / "..data")
    assert source.folders([]) != before
