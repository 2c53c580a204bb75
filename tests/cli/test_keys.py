"""`ds2d keys`, `ds2d usage` and `ds2d explain`: what they print, what they change, and that nothing shows a key twice."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ds2d.cli import main
from ds2d.core.secrets import hash_key
from ds2d.state.ledger_file import LedgerFile
from ds2d.state.ledger_schema import Row
from tests.state.ledger_world import BEGAN, ended, row


@pytest.fixture(name="here")
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("DS2D_CONFIG", "DS2API_CONFIG_PATH", "DS2API_CONFIG_JSON", "DS2D_CONFIG_JSON", "CONFIG_JSON", "STATE_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "config.json").write_text('{"_comment": "mine", "keys": []}')
    return tmp_path


def config(here: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((here / "config.json").read_text())
    return loaded


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(words) == 0, capsys.readouterr().err
    return capsys.readouterr().out


def made(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    key: str = json.loads(said(capsys, "keys", "add", *words, "--json"))["key"]
    return key


def test_a_new_key_is_shown_once_and_stored_as_a_hash(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = said(capsys, "keys", "add", "team-a", "--max-tokens", "500", "--models", "deepseek-*", "--rpm", "9", "--admin").split()[
        0
    ]
    (entry,) = config(here)["keys"]
    assert entry.pop("created_at").endswith("Z")
    assert entry == {"key": hash_key(key), "name": "team-a", "max_tokens": 500, "models": ["deepseek-*"], "rpm": 9, "admin": True}
    assert config(here)["_comment"] == "mine"
    for words in (["list"], ["show", "team-a"], ["show", key], ["list", "--json"]):
        out = said(capsys, "keys", *words)
        assert key not in out
        assert "team-a" in out
    assert json.loads(said(capsys, "keys", "show", key, "--json"))["max_tokens"] == 500


def test_a_key_is_added_where_the_list_is_null_and_refused_where_it_is_none(here: Path, capsys: Any) -> None:
    (here / "config.json").write_text('{"keys": null, "accounts": null}')
    assert main(["keys", "add", "a"]) == 0
    assert [entry["name"] for entry in config(here)["keys"]] == ["a"]
    assert config(here)["accounts"] is None
    (here / "config.json").write_text('{"keys": "mine"}')
    assert main(["keys", "add", "b"]) == 1
    assert "error: keys: " in capsys.readouterr().err


def test_a_config_that_is_made_by_the_way_is_named(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "add", "a"]) == 0
    assert capsys.readouterr().err == ""
    assert main(["keys", "add", "a", "--config", "typo.json"]) == 0
    assert f"warning: there was no {here / 'typo.json'}" in capsys.readouterr().err


def test_a_key_that_was_revoked_already_is_not_unknown(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made(capsys, "a")
    said(capsys, "keys", "revoke", "a")
    assert main(["keys", "revoke", "a"]) == 1
    assert "revoked already" in capsys.readouterr().err
    assert said(capsys, "keys", "restore", "a") == "restored\n"


@pytest.mark.parametrize("more", [(), ("--daily",)])
def test_usage_of_a_key_that_nobody_knows_is_an_error(
    here: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...]
) -> None:
    made(capsys, "a")
    assert said(capsys, "usage", "export", "--key", "a", *more).count("\n") == 1
    assert main(["usage", "export", "--key", "typo", *more]) == 1
    out = capsys.readouterr()
    assert out.out == ""
    assert "neither the config nor the ledger has this key" in out.err


@pytest.mark.parametrize("seconds", ["-1", "nan", "inf", "x"])
def test_a_span_of_time_is_not_negative(capsys: pytest.CaptureFixture[str], seconds: str) -> None:
    assert main(["upgrade", f"--drain-seconds={seconds}"]) == 2
    assert "--drain-seconds" in capsys.readouterr().err


def test_a_bad_limit_and_a_name_taken_change_nothing(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made(capsys, "team-a")
    before = config(here)
    assert main(["keys", "add", "team-b", "--weight", "5000"]) == 1
    assert "weight" in capsys.readouterr().err
    assert main(["keys", "add", "team-a"]) == 1
    assert "name" in capsys.readouterr().err
    assert config(here) == before


def test_a_key_whose_variable_is_not_here_is_shown_and_revoked(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lost = {"key": {"$env": "DS2D_LOST_KEY"}, "name": "lost"}
    (here / "config.json").write_text(json.dumps({"keys": [lost, {"key": {"$file": "lost.key"}}]}))
    assert "$env:DS2D_LOST_KEY" in said(capsys, "keys", "show", "lost")
    for wanted in ("lost", "$env:DS2D_LOST_KEY", "$file:lost.key"):
        assert said(capsys, "keys", "revoke", wanted).strip() == "revoked"
        assert "REVOKED" in said(capsys, "keys", "list", "--deleted")
        assert said(capsys, "keys", "restore", wanted).strip() == "restored"
    assert config(here)["keys"] == [lost, {"key": {"$file": "lost.key"}}]
    assert json.loads(said(capsys, "keys", "usage", "lost", "--json")) == []


def test_revoke_and_restore(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = made(capsys, "team-a")
    identity = json.loads(said(capsys, "keys", "list", "--json"))[0]["id"]
    assert said(capsys, "keys", "revoke", identity).strip() == "revoked"
    assert config(here)["keys"][0]["deleted_at"].endswith("Z")
    assert json.loads(said(capsys, "keys", "list", "--json")) == []
    assert "REVOKED" in said(capsys, "keys", "list", "--deleted")
    assert main(["keys", "revoke", key]) == 1
    capsys.readouterr()
    assert said(capsys, "keys", "restore", "team-a").strip() == "restored"
    assert "deleted_at" not in config(here)["keys"][0]


def test_an_unknown_key_is_an_error(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "show", "nobody"]) == 1
    assert "no key 'nobody'" in capsys.readouterr().err


def test_a_config_from_a_variable_is_not_changed_here(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DS2D_CONFIG_JSON", '{"keys": []}')
    assert main(["keys", "add", "team-a"]) == 1
    assert "variable" in capsys.readouterr().err


def ledger(here: Path, *turns: Row) -> None:
    file = LedgerFile(here / "state")
    file.open()
    file.write([(number, msgspec.structs.astuple(turn)) for number, turn in enumerate(turns, 1)], "normal")
    file.close()


def test_what_keys_used(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    digest = hash_key(made(capsys, "team-a")).removeprefix("sha256:")
    assert "team-a" not in said(capsys, "keys", "usage"), "no ledger yet"
    ledger(here, ended(row(key=digest)), ended(row(key=digest)), ended(row(key="b", key_name="gone")))
    rows = {one["name"]: one for one in json.loads(said(capsys, "keys", "usage", "--json"))}
    assert (rows["team-a"]["requests"], rows["team-a"]["prompt_tokens"], rows["team-a"]["completion_tokens"]) == (2, 14, 10)
    assert rows["gone"]["requests"] == 1
    assert rows["team-a"]["last_used_at"] == "2026-09-21T14:13:20Z"
    assert "gone" not in said(capsys, "keys", "usage", "team-a")
    used = json.loads(said(capsys, "keys", "show", "team-a", "--json"))["used"]
    assert used["key"] == json.loads(said(capsys, "keys", "list", "--json"))[0]["id"], "the hash of a key is shown nowhere"
    assert used["last_used_at"] == "2026-09-21T14:13:20Z"


def test_export_is_whole_whatever_the_pages(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ds2d.state.usage.page.__kwdefaults__", {"before": 1e18, "key": None, "state": None, "limit": 2})
    ledger(here, *(ended(row(f"req_{number}", began_at=BEGAN + number // 3)) for number in range(7)))
    rows = [json.loads(line) for line in said(capsys, "usage", "export", "--format", "json").splitlines()]
    assert [one["request_id"] for one in rows] == [f"req_{number}" for number in range(7)]
    table = list(csv.DictReader(io.StringIO(said(capsys, "usage", "export"))))
    assert [one["request_id"] for one in table] == [f"req_{number}" for number in range(7)]
    assert (table[0]["prompt_tokens"], table[0]["completion_tokens"], table[0]["state"]) == ("7", "5", "completed")


def test_export_by_time_and_key(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ledger(here, ended(row("old", began_at=BEGAN - 86400)), ended(row("new")), ended(row("other", key="b" * 64)))
    lines = said(capsys, "usage", "export", "--format", "json", "--since", "2026-09-21").splitlines()
    assert [json.loads(line)["request_id"] for line in lines] == ["new", "other"]
    lines = said(capsys, "usage", "export", "--format", "json", "--until", "2026-09-21").splitlines()
    assert [json.loads(line)["request_id"] for line in lines] == ["old"]
    lines = said(capsys, "usage", "export", "--format", "json", "--key", "b" * 64).splitlines()
    assert [json.loads(line)["request_id"] for line in lines] == ["other"]
    daily = [json.loads(line) for line in said(capsys, "usage", "export", "--daily", "--format", "json").splitlines()]
    assert [(one["day"], one["requests"]) for one in daily] == [("2026-09-20", 1), ("2026-09-21", 1), ("2026-09-21", 1)]


def test_export_up_to_the_edges_of_the_calendar(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ledger(here, ended(row("old", began_at=BEGAN)))
    for first, last, days in (("0001-01-01", "0001-01-01", 0), ("0001-01-01", "9999-12-31", 1)):
        lines = said(capsys, "usage", "export", "--daily", "--format", "json", "--since", first, "--until", last).splitlines()
        assert len(lines) == days
    for option, beyond in (("--since", "0001-01-01T00:00:00+10:00"), ("--until", "9999-12-31T23:00:00-10:00")):
        assert main(["usage", "export", "--daily", option, beyond]) == 2
        assert f"argument {option}: invalid moment value" in capsys.readouterr().err


def test_a_name_that_a_client_chose_is_no_formula_in_a_spreadsheet(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ledger(here, ended(row(asked="=cmd|calc")))
    (one,) = csv.DictReader(io.StringIO(said(capsys, "usage", "export")))
    assert one["asked"] == "'=cmd|calc"


def test_explain(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    skipped = [{"account": "one", "reason": "breaker open", "cause": "server", "back_in_seconds": 12.5}]
    why = {
        "model": {"asked": "gpt-4o", "used": "deepseek-chat", "why": "alias"},
        "waited_ms": 20.0,
        "position": 3,
        "tries": [{"account": "two", "upstream": "gpu", "skipped": skipped, "waited_ms": 20.0, "end": "answered", "ms": 40.0}],
        "notes": ["tool_call_renamed"],
    }
    ledger(here, ended(row("req_x", asked="gpt-4o", used="deepseek-chat", why=json.dumps(why), queue_ms=20.0, total_ms=60.0)))
    out = said(capsys, "explain", "req_x")
    for text in (
        "gpt-4o -> deepseek-chat (alias)",
        "place 3",
        "attempt 1 account two on gpu: answered after 40 ms",
        "not one: breaker open, server, back in 12.5 s",
        "tool_call_renamed",
        "7 + 5",
        "total 60.0 ms",
        "completed",
    ):
        assert text in out
    assert json.loads(said(capsys, "explain", "req_x", "--json"))[0]["why"] == why
    assert main(["explain", "req_y"]) == 1
