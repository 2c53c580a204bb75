"""The command line: what each verb prints, and its exit code."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ds2d import __version__
from ds2d.cli import VERBS, main
from ds2d.cli.scan import Found
from ds2d.core.secrets import hash_key, verify_password
from tests.config.world import parsed

VARIABLES = ("DS2D_CONFIG", "DS2API_CONFIG_PATH", "DS2API_CONFIG_JSON", "DS2D_CONFIG_JSON", "CONFIG_JSON", "DS2D_ENV_FILE",
             "PORT", "LOG_LEVEL", "STATE_DIRECTORY", "CREDENTIALS_DIRECTORY", "DS2API_ADMIN_KEY")  # fmt: skip


@pytest.fixture(name="here")
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, and an environment that says nothing."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(name="found")
def _found(monkeypatch: pytest.MonkeyPatch) -> list[Found]:
    """What a look at the usual ports finds."""
    servers: list[Found] = []
    monkeypatch.setattr("ds2d.cli.init.scan", lambda _: servers)
    return servers


def test_every_verb_has_a_module_a_summary_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    usage = capsys.readouterr().out
    for name, entry in VERBS.items():
        assert name in usage
        assert entry.summary in usage
        assert main([name, "--help"]) == 0
        said = capsys.readouterr().out
        assert f"usage: ds2d {name}" in said
        assert "Rule:" not in said  # that is for developers
        assert "Surprise:" not in said


def test_asked_wrongly(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert main(["confg"]) == 2
    assert "did you mean config?" in capsys.readouterr().err
    assert main(["config"]) == 2
    assert main(["version", "--nonsense"]) == 2


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version"]) == main(["--version"]) == 0
    assert capsys.readouterr().out == f"ds2d {__version__}\n" * 2
    assert main(["version", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["version"] == __version__


def test_the_module_is_the_command(here: Path) -> None:
    command = [sys.executable, "-m", "ds2d", "version"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60, cwd=Path(__file__).parents[2])
    assert (done.returncode, done.stdout) == (0, f"ds2d {__version__}\n")


# init


def test_init_makes_a_config_that_works_and_keeps_only_hashes(
    here: Path, found: list[Found], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["init"]) == 0
    printed = capsys.readouterr().out
    env = dict(line.removeprefix("export ").split("=", 1) for line in (here / ".ds2d.env").read_text().splitlines())
    key, admin_key = env["DS2D_KEY"].strip("'"), env["DS2D_ADMIN_KEY"].strip("'")
    raw = (here / "config.json").read_text()
    assert key.startswith("sk-")
    assert admin_key.startswith("adm-")
    for secret in (key, admin_key):
        assert printed.count(secret) == 1
        assert secret not in raw
        assert len(secret) >= 40
    config = parsed(raw.encode())
    assert config.warnings == ()
    assert config.keys[0].digest == hash_key(key).removeprefix("sha256:")
    assert verify_password(config.admin.password_hash, admin_key)
    assert [upstream.kind for upstream in config.upstreams] == ["demo"]
    assert {stat.S_IMODE((here / name).stat().st_mode) for name in ("config.json", ".ds2d.env")} == {0o600}


def test_two_inits_make_different_keys(here: Path, found: list[Found]) -> None:
    made = []
    for name in ("a", "b"):
        (here / name).mkdir()
        assert main(["init", "--config", f"{name}/config.json"]) == 0
        made.append((here / name / ".ds2d.env").read_text())
    assert made[0] != made[1]


def test_two_configs_in_one_folder_keep_each_their_keys(here: Path, found: list[Found]) -> None:
    assert main(["init"]) == 0
    first = (here / ".ds2d.env").read_text()
    assert main(["init", "--config", "other.json"]) == 0
    assert (here / ".ds2d.env").read_text() == first
    other = here / ".other.ds2d.env"
    assert "export DS2D_KEY='sk-" in other.read_text()
    assert stat.S_IMODE(other.stat().st_mode) == 0o600


def test_a_shell_understands_the_environment_file(here: Path, found: list[Found]) -> None:
    assert main(["init"]) == 0
    shell = subprocess.run(["sh", "-c", ". ./.ds2d.env && env"], capture_output=True, text=True, timeout=60, check=True, cwd=here)
    assert "DS2D_KEY=sk-" in shell.stdout
    assert "DS2D_ADMIN_KEY=adm-" in shell.stdout


def test_servers_that_were_found_become_the_upstreams(here: Path, found: list[Found], capsys: pytest.CaptureFixture[str]) -> None:
    found += [
        Found("vllm", "http://127.0.0.1:8000/v1", ("deepseek-v3",)),
        Found("llamacpp", "http://127.0.0.1:8080/v1", needs_key=True),
        Found("ollama", "http://127.0.0.1:11434/v1"),
    ]
    assert main(["init"]) == 0
    document = json.loads((here / "config.json").read_text())
    assert document["upstreams"] == [
        {"name": "vllm", "kind": "openai", "base_url": "http://127.0.0.1:8000/v1"},
        {"name": "ollama", "kind": "openai", "base_url": "http://127.0.0.1:11434/v1"},
    ]
    printed = capsys.readouterr().out
    assert "deepseek-v3" in printed
    assert "wants a key" in printed


def test_init_touches_nothing_that_exists(here: Path, found: list[Found], capsys: pytest.CaptureFixture[str]) -> None:
    (here / "config.json").write_text("mine")
    (here / ".ds2d.env").write_text("mine too")
    assert main(["init"]) == 1
    assert "exists already" in capsys.readouterr().err
    assert (here / "config.json").read_text() == "mine"
    assert (here / ".ds2d.env").read_text() == "mine too"


def test_init_does_not_follow_a_link_that_leads_nowhere(here: Path, found: list[Found]) -> None:
    (here / "config.json").symlink_to("elsewhere")
    assert main(["init"]) == 1
    assert sorted(os.listdir(here)) == ["config.json"]


def test_init_in_a_folder_that_is_not_there_says_so(here: Path, found: list[Found], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "--config", "no/where/config.json"]) == 1
    assert "No such file or directory" in capsys.readouterr().err


def test_init_as_json(here: Path, found: list[Found], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "--json", "--no-scan"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert set(result) == {"config", "env", "key", "admin_key"}
    assert Path(result["config"]) == here / "config.json"


# check-config


def test_a_good_file_is_called_good(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "config.json").write_text('{"keys": ["a"]}')
    assert main(["check-config"]) == 0
    assert capsys.readouterr().out == f"{here}/config.json: good\n"


def test_every_error_is_printed_with_its_path(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "x.json").write_text('{"port": 1, "server": {"port": -1}, "keys": [{"key": {"$env": "GONE"}}]}')
    assert main(["check-config", "x.json"]) == 1
    printed = capsys.readouterr()
    assert printed.err.splitlines() == [
        "error: port: unknown key (did you mean server.port?)",
        "error: server.port: must be 0 to 65535",
    ]
    assert printed.out == f"{here}/x.json: 2 errors\n"
    assert main(["check-config", "--json", "x.json"]) == 1
    assert [error["path"] for error in json.loads(capsys.readouterr().out)["errors"]] == ["port", "server.port"]


def test_what_is_odd_is_a_warning_and_no_error(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "config.json").write_text('{"keys": [{"key": {"$env": "GONE"}}]}')
    assert main(["check-config"]) == 0
    assert capsys.readouterr().err.startswith("warning: keys[0].key: the variable GONE is not set")


def test_a_missing_file_and_one_that_is_no_json(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-config", "gone.json"]) == 1
    assert "the config file is missing" in capsys.readouterr().err
    (here / "x.json").write_text("{")
    assert main(["check-config", "x.json"]) == 1
    assert "not JSON" in capsys.readouterr().err


def test_a_config_in_a_variable_is_checked_under_its_name(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CONFIG_JSON", '{"x": 1}')
    assert main(["check-config"]) == 1
    assert capsys.readouterr().out == "$CONFIG_JSON: 1 error\n"


# config show, config schema


def test_show_tells_value_and_origin_and_no_secret(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "config.json").write_text('{"keys": ["sk-planted-0123456789"], "runtime": {"max_attempts": 4}}')
    monkeypatch.setenv("PORT", "81")
    assert main(["config", "show"]) == 0
    printed = capsys.readouterr().out
    assert "runtime.max_attempts = 4  # file\n" in printed
    assert "server.port = 81  # $PORT\n" in printed
    assert 'server.host = "127.0.0.1"  # default\n' in printed
    assert "planted" not in printed
    assert main(["config", "show", "--changed"]) == 0
    assert [line.partition(" =")[0] for line in capsys.readouterr().out.splitlines()[1:]] == [
        "keys", "runtime.max_attempts", "server.port",
    ]  # fmt: skip


def test_show_as_json(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "config.json").write_text('{"keys": ["sk-planted-0123456789"], "runtime": {"max_attempts": 4}}')
    assert main(["config", "show", "--json"]) == 0
    printed = capsys.readouterr().out
    result = json.loads(printed)
    assert result["values"]["runtime"]["max_attempts"] == 4
    assert result["origins"]["runtime.max_attempts"] == "file"
    assert "planted" not in printed


def test_show_without_a_file_shows_the_defaults(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "show"]) == 0
    assert capsys.readouterr().out.startswith(f"# read from nothing ({here}/config.json is missing)\n")


def test_show_of_a_broken_file_says_what_is_wrong(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "config.json").write_text('{"x": 1}')
    assert main(["config", "show"]) == 1
    assert capsys.readouterr().err == "error: x: unknown key\n"


def test_the_schema_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "schema"]) == 0
    schema: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert schema["properties"]["server"]["$ref"] == "#/$defs/Server"


def test_a_terminal_that_is_not_utf_8_gets_what_it_can_show(here: Path) -> None:
    (here / "config.json").write_text(json.dumps({"keys": ["sk-0123456789abcdef"]}))
    environ = {**os.environ, "PYTHONIOENCODING": "latin-1", "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-m", "ds2d", "keys", "list"], env=environ, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"\\u2026" in done.stdout


def test_a_folder_that_is_gone_is_said(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    gone = here / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert main(["check-config"]) == 1
    assert capsys.readouterr().err == "error: the folder in which this was started is no longer there\n"
