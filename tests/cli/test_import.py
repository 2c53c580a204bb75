"""Configs of other gateways: samples of each become sound configs of ours, and what is left behind is named."""

from __future__ import annotations

import json
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ds2d.cli import main
from ds2d.config.importers import REGISTRY
from tests.config.world import parsed

SAMPLES = Path(__file__).parents[1] / "config" / "imports"
FILES = {"ds2api": "ds2api.json", "litellm": "litellm.yaml", "one-api": "one-api.json"}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DS2D_CONFIG", "DS2API_CONFIG_PATH", "DS2API_CONFIG_JSON", "DS2D_CONFIG_JSON", "CONFIG_JSON", "STATE_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def config() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path("config.json").read_text())
    return found


def imported(kind: str, file: Path | None = None) -> dict[str, Any]:
    assert main(["import", kind, str(file or SAMPLES / FILES[kind])]) == 0
    return config()


@pytest.mark.parametrize("kind", REGISTRY)
def test_a_sample_becomes_a_sound_config_and_a_second_time_changes_nothing(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    imported(kind)
    raw = Path("config.json").read_bytes()
    assert parsed(raw).keys
    assert "not carried over: " in capsys.readouterr().err
    imported(kind)
    assert Path("config.json").read_bytes() == raw
    assert "nothing to do" in capsys.readouterr().out


@pytest.mark.parametrize("kind", REGISTRY)
def test_a_dry_run_prints_the_difference_masked_and_writes_nothing(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["import", kind, str(SAMPLES / FILES[kind]), "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "+ keys" in printed
    assert "0123456789" not in printed
    assert not list(tmp_path.iterdir())


def test_the_reference_systems_file_keeps_names_and_says_what_its_accounts_are(capsys: pytest.CaptureFixture[str]) -> None:
    found = parsed(json.dumps(imported("ds2api")).encode())
    assert [(key.name, key.remark) for key in found.keys] == [("app one", "the first"), (None, "")]
    assert found.claude_mapping.slow == "deepseek-reasoner"
    told = capsys.readouterr().err
    assert "2 logins of a chat site" in told
    assert "compat" in told


def test_servers_of_litellm_become_upstreams_and_its_models_point_at_them(capsys: pytest.CaptureFixture[str]) -> None:
    found = imported("litellm")
    assert found["models"]["deepseek-chat"] == {
        "upstream": ["hosted_vllm", "hosted_vllm-2"], "model": "deepseek-ai/DeepSeek-V3.1", "context": 163840,
    }  # fmt: skip
    assert found["models"]["deepseek-reasoner"]["extra_body"] == {"temperature": 0.6}
    assert {upstream["base_url"] for upstream in found["upstreams"]} == {
        "http://10.0.0.5:8000/v1", "http://10.0.0.6:8000/v1", "http://10.0.0.7:8000/v1", "https://api.deepseek.com",
        "http://127.0.0.1:11434/v1",
    }  # fmt: skip
    tokens = {account["upstream"]: account["token"] for account in found["accounts"]}
    assert tokens["deepseek"] == {"$env": "DEEPSEEK_API_KEY"}
    assert found["runtime"] == {"max_attempts": 3, "routing": "weighted", "breaker": {"open_seconds": 30}}
    assert found["model_aliases"] == {"gpt-4o": "deepseek-chat"}
    told = capsys.readouterr().err
    left = ("anthropic", "rpm", "fallbacks", "success_callback", "database_url", "made by the proxy", "not used", "pattern")
    assert [word for word in left if word not in told] == []


def test_without_the_yaml_package_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    assert main(["import", "litellm", str(SAMPLES / "litellm.yaml")]) == 1
    assert "pip install 'ds2d[yaml]'" in capsys.readouterr().err
    Path("same.json").write_text('{"model_list": []}')
    assert main(["import", "litellm", "same.json"]) == 0


def test_channels_become_upstreams_and_tokens_keys(capsys: pytest.CaptureFixture[str]) -> None:
    found = imported("one-api")
    assert found["models"]["gpt-4o"] == {"upstream": ["gpu-host"], "model": "deepseek-ai/DeepSeek-V3.1"}
    assert [account["token"] for account in found["accounts"] if account["upstream"] == "deepseek"] == [
        "sk-ds-one-0123456789", "sk-ds-two-0123456789",
    ]  # fmt: skip
    first, second = found["keys"]
    assert first == {
        "key": "sk-Qm7fT2vW9xYzAbCdEfGhIjKlMnOpQrStUvWxYz0123456789", "name": "team-a",
        "models": ["deepseek-chat", "deepseek-reasoner"],
    }  # fmt: skip
    assert (second["disabled"], second["expires_at"]) == (True, "2027-01-01T00:00:00Z")
    told = capsys.readouterr().err
    left = ("Anthropic", "'old': is disabled", "priority 10", "allow_ips", "quotas count money", "groups")
    assert [word for word in left if word not in told] == []


@pytest.mark.parametrize("journal", ["DELETE", "WAL"])
def test_the_database_itself_gives_the_same(tmp_path: Path, journal: str) -> None:
    sample = json.loads((SAMPLES / "one-api.json").read_text())
    with closing(sqlite3.connect("one-api.db")) as database:
        database.execute(f"PRAGMA journal_mode = {journal}")
        for table, rows in sample.items():
            columns = list(dict.fromkeys(name for row in rows for name in row))
            names = ", ".join(f"[{name}]" for name in columns)
            database.execute(f"CREATE TABLE {table} ({names})")
            marks = ", ".join("?" * len(columns))
            database.executemany(f"INSERT INTO {table} VALUES ({marks})", [[row.get(name) for name in columns] for row in rows])
        database.commit()
    from_database = imported("one-api", Path("one-api.db"))
    Path("config.json").unlink()
    assert from_database == imported("one-api")


def test_an_answer_of_their_api_is_taken_as_it_came(capsys: pytest.CaptureFixture[str]) -> None:
    sample = json.loads((SAMPLES / "one-api.json").read_text())
    rows = [{name: value for name, value in row.items() if name != "key"} for row in sample["channels"]]
    Path("answer.json").write_text(json.dumps({"success": True, "message": "", "data": {"items": rows, "total": 4}}))
    assert "accounts" not in imported("one-api", Path("answer.json"))
    assert "'GPU host': has no key in this file" in capsys.readouterr().err


def test_what_is_here_already_stays(capsys: pytest.CaptureFixture[str]) -> None:
    ours = {"_note": "mine", "keys": [{"key": "sk-litellm-master-0123456789", "name": "me"}], "runtime": {"max_attempts": 5}}
    Path("config.json").write_text(json.dumps(ours))
    found = imported("litellm")
    assert found["_note"] == "mine"
    assert found["keys"] == ours["keys"]
    assert "~ runtime.max_attempts = 5 -> 3" in capsys.readouterr().out
    assert main(["config", "rollback"]) == 0
    assert config() == ours


@pytest.mark.parametrize(
    ("kind", "text", "said"),
    [
        ("ds2api", "[1]", "object"),
        ("litellm", "keys: [a]", "model_list"),
        ("litellm", "a: [", "no YAML"),
        ("litellm", '{"model_list": [{"model_name": "x"}]}', "litellm_params"),
        ("one-api", "a,b", "neither a SQLite file nor JSON"),
        ("one-api", "{}", "neither channels nor tokens"),
        ("one-api", "SQLite format 3\0 and no more", "cannot be read"),
    ],
)
def test_a_file_of_another_kind_is_refused_in_a_sentence(
    kind: str, text: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("file").write_text(text)
    assert main(["import", kind, "file"]) == 1
    assert said in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"file"}


def test_a_config_that_would_not_be_sound_is_not_written(capsys: pytest.CaptureFixture[str]) -> None:
    Path("file").write_text(json.dumps({"server": {"port": 99999}}))
    assert main(["import", "ds2api", "file"]) == 1
    assert "server.port" in capsys.readouterr().err
    assert not Path("config.json").exists()
