"""A capture of a real server's turn: exported by the command, played again, and the same bytes as a golden case."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from ds2d.cli import main
from scripts.real_upstream import texts
from tests.functional.admin import HASH
from tests.functional.harness import ADMIN_KEY, config_for, running
from tests.functional.real_upstream import RealServer
from tests.golden.streams import Case

TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": texts.WEATHER_NAME,
        "parameters": {
            "type": "object",
            "properties": {"location": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["location", "days"],
        },
    },
}


@pytest.mark.real
async def test_a_real_turn_is_exported_played_again_and_kept(
    real_vllm: RealServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DS2D_ADMIN_KEY", ADMIN_KEY)
    monkeypatch.chdir(tmp_path)
    config = config_for(real_vllm.base_url, capture={"enabled": True}, admin={"password_hash": HASH})
    async with running(tmp_path, config) as ds2d:
        body = {"model": real_vllm.model, "stream": True, "temperature": 0, "messages": [{"role": "user", "content": "Hello"}]}
        for tools in ([], [TOOL]):
            status, _, _ = await ds2d.ask("/v1/chat/completions", {**body, **({"tools": tools} if tools else {})})
            assert status == 200
        _, answer, _ = await ds2d.ask("/admin/dev/captures", key=ADMIN_KEY)
        for number, item in enumerate(answer["items"]):
            export = ["capture", "export", item["id"], "--url", ds2d.url]
            assert await asyncio.to_thread(main, [*export, "--out", f"{number}.json"]) == 0
            assert await asyncio.to_thread(main, [*export, "--golden", f"case-{number}"]) == 0
    for number in range(2):
        assert await asyncio.to_thread(main, ["replay", f"{number}.json"]) == 0
        case = Case(tmp_path / f"case-{number}")
        assert case.decode() == case.decode(range(0, len(case.raw), 7))
        changed = json.loads((tmp_path / f"{number}.json").read_text())
        changed["client_body"] = changed["client_body"].replace("stop", "length")
        (tmp_path / "changed.json").write_text(json.dumps(changed))
        assert await asyncio.to_thread(main, ["replay", "changed.json"]) == 1
