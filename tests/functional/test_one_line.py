"""What a person can get wrong with files and folders is said in a line, with what to do; never a traceback."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from tests.functional.admin import administered
from tests.functional.harness import ADMIN_KEY, config_for, running
from tests.functional.processes import ds2d
from tests.functional.scripted import scripted_upstream
from tests.functional.test_cli_live import ds2d as ds2d_here
from tests.functional.test_doctor import pointing_at

DEMO: dict[str, Any] = {"keys": ["sk-one-line-0123456789"], "upstreams": [{"name": "demo", "kind": "demo"}]}


@pytest.mark.parametrize("folder", ["file", "file/below", "/proc/nowhere"])
def test_a_state_folder_that_cannot_be_is_said(tmp_path: Path, folder: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "config.json").write_text(json.dumps({**DEMO, "server": {"state_dir": folder, "port": 0}}))
    done = ds2d(tmp_path, "serve")
    assert done.returncode == 1
    assert "error: the state folder cannot be used: " in done.stderr
    assert folder in done.stderr
    assert "Traceback" not in done.stderr


async def test_a_capture_is_its_owner_s_only_and_one_that_cannot_be_written_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DS2D_ADMIN_KEY", ADMIN_KEY)
    async with administered(tmp_path, capture={"enabled": True}) as (live, _):
        body = {"model": "deepseek-chat", "messages": [{"role": "user", "content": "Hi"}]}
        await live.ask("/v1/chat/completions", body)
        [item] = live.daemon.captures.newest()
        path = tmp_path / "capture.json"
        path.write_text("")
        path.chmod(0o644)
        for words in (("--out", str(path)), ("--golden", str(tmp_path / "case"))):
            assert await ds2d_here("capture", "export", item.id, "--url", live.url, *words) == 0
        for file in (path, tmp_path / "case" / "upstream.openai.json"):
            assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
        for option in ("--out", "--golden"):
            assert await ds2d_here("capture", "export", item.id, "--url", live.url, option, "/proc/nowhere/x") == 1
            assert "error: /proc/nowhere" in capsys.readouterr().err


async def test_a_report_that_cannot_be_written_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as live:
        config = pointing_at(live, live.port)
        assert await ds2d_here("doctor", "--config", str(config), "--report", "/proc/nowhere/r.md") == 1
    said = capsys.readouterr()
    assert "error: /proc/nowhere/r.md cannot be written" in said.err
    assert "# ds2d doctor" in said.out
