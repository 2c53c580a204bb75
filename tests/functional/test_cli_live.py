"""The verbs that look at a running daemon and at real upstreams, as an operator types them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from ds2d.cli import main
from tests.functional.admin import administered
from tests.functional.harness import ADMIN_KEY, config_for, running
from tests.functional.scripted import scripted_upstream


async def ds2d(*words: str) -> int:
    """Run a command line beside the daemon's loop."""
    return await asyncio.get_running_loop().run_in_executor(None, main, words)


async def test_status_says_how_the_daemon_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as live:
        assert await ds2d("status", "--url", live.url) == 0
        out = capsys.readouterr().out
        assert out.startswith("ready\n")
        assert "gpu: ready (vllm), 1 models" in out
        live.path.write_text("{")
        live.daemon.store.reload()
        assert await ds2d("status", "--url", live.url, "--json") == 0
        assert json.loads(capsys.readouterr().out)["config"]["problem"]
    assert await ds2d("status", "--url", live.url) == 1
    assert "is the daemon running?" in capsys.readouterr().err


async def test_models_shows_the_step_that_matched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with scripted_upstream("org/tiny") as upstream:
        file = tmp_path / "config.json"
        file.write_text(json.dumps(config_for(upstream.base_url, model_aliases={"mine": "org/tiny"})))
        assert await ds2d("models", "--config", str(file)) == 0
        assert "org/tiny" in capsys.readouterr().out
        for name, step in (
            ("org/tiny", "listed"),
            ("mine", "alias"),
            ("gpt-4o", "built-in alias"),
            ("deepseek-chat", "native id"),
        ):
            assert await ds2d("models", name, "--config", str(file), "--json") == 0
            route = json.loads(capsys.readouterr().out)
            assert (route["step"], route["targets"][0]["model"]) == (step, "org/tiny"), name
        assert await ds2d("models", "deepseek-nope", "--config", str(file)) == 1
        assert "does not exist" in capsys.readouterr().err


async def test_a_config_that_is_not_sound_is_named_not_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "config.json"
    file.write_text('{"server": {"port": "x"}}')
    for verb in (("models",), ("status",), ("config", "show")):
        assert await ds2d(*verb, "--config", str(file)) == 1
        assert "server.port" in capsys.readouterr().err


async def test_test_all_names_the_account_that_does_not_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    accounts = [{"name": "good", "upstream": "gpu", "token": "tok-a"}, {"name": "bad", "upstream": "gone", "token": "tok-b"}]
    gone = {"name": "gone", "kind": "openai", "base_url": "http://127.0.0.1:9/v1"}
    async with administered(tmp_path, accounts=accounts) as (live, _):
        words = ("test-all", "--url", live.url)
        assert await ds2d(*words) == 1
        assert "DS2D_ADMIN_KEY" in capsys.readouterr().err
        monkeypatch.setenv("DS2D_ADMIN_KEY", ADMIN_KEY)
        live.change(upstreams=[*live.config()["upstreams"], gone])
        assert await ds2d(*words) == 1
        out, err = capsys.readouterr()
        assert err == ""
        lines = sorted(out.splitlines())
        assert lines[0] == "1 of 2 work"
        assert lines[1].startswith("FAILED  bad  ")
        assert lines[2].startswith("ok      good  ")
        live.change(accounts=accounts[:1])
        assert await ds2d(*words, "--json") == 0
        assert json.loads(capsys.readouterr().out)["success"] == 1
        assert await ds2d(*words, "--message", "Hello") == 0
        assert "Hello from upstream." in capsys.readouterr().out
        monkeypatch.setenv("DS2D_ADMIN_KEY", "adm-wrong")
        assert await ds2d(*words) == 1
        assert "answered 401" in capsys.readouterr().err
