"""What the admin API gives the console: figures over time, keys with their use, checks of a text, generations, setups."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from ds2d.state.series import recalled
from tests.functional.admin import ADMIN, administered
from tests.functional.harness import KEY
from tests.functional.scripted import Scene, chunk, sse

ASK: dict[str, Any] = {"model": "deepseek-chat", "stream": True, "messages": [{"role": "user", "content": "Hi"}]}
CHAT = "/v1/chat/completions"


async def test_a_turn_shows_in_the_figures_and_in_its_key_s_use(tmp_path: Path) -> None:
    async with administered(tmp_path, keys=[{"key": KEY, "name": "team", "max_tokens": 1000}]) as (ds2d, upstream):
        usage = {"usage": {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}}
        upstream.scenes.append(Scene(sse(chunk({"content": "one"}), chunk({}, "stop"), {**chunk({}), "choices": [], **usage})))
        await ds2d.ask(CHAT, ASK)
        await ds2d.ask(CHAT, {**ASK, "model": "nobody-knows"})
        _, answer, _ = await ds2d.ask("/admin/series", **ADMIN)
        steps = answer["hour"]["steps"]
        assert sum(step["turns"] for step in steps) == 2
        assert sum(step["completion_tokens"] for step in steps) == 5
        assert next(step["first_ms"] for step in steps if step["first_ms"])["p50"] > 0
        assert answer["day"]["causes"] == {"model_not_found": 1}
        _, answer, _ = await ds2d.ask("/admin/keys", **ADMIN)
        [key] = answer["keys"]
        assert (key["name"], key["used"]["day"]) == ("team", {"prompt_tokens": 7, "completion_tokens": 5})
        assert key["quotas"] == [{"kind": "tokens", "limit": 1000, "used": 12, "reserved": 0}]
        assert KEY not in json.dumps(answer)


async def test_a_text_is_checked_without_being_taken(tmp_path: Path) -> None:
    async with administered(tmp_path) as (ds2d, _):
        before = ds2d.path.read_bytes()
        good = json.dumps({**ds2d.config(), "runtime": {"account_max_inflight": 9}})
        for text, valid, said in (
            (good, True, "runtime"),
            ('{"keys": [', False, "not JSON"),
            ('{"keys": [], "keys": []}', False, "more than once"),
            ('{"runtime": {"account_max_inflight": "many"}, "nonsense": 1}', False, "nonsense"),
            (r'{"x": "\ud800"}', False, "half a character"),
        ):
            status, answer, _ = await ds2d.ask("/admin/config/check", {"text": text}, **ADMIN)
            assert (status, answer["valid"]) == (200, valid), answer
            assert said in json.dumps(answer)
        assert ds2d.path.read_bytes() == before
        assert (await ds2d.ask("/admin/config/check", {"text": 1}, **ADMIN))[0] == 400
        assert "runtime" in (await ds2d.ask("/admin/config/schema", **ADMIN))[1]["properties"]


async def test_a_generation_says_how_it_differs_and_no_secret(tmp_path: Path) -> None:
    async with administered(tmp_path) as (ds2d, _):
        first = ds2d.daemon.config().generation
        ds2d.change(runtime={"account_max_inflight": 7}, keys=["sk-another-0123456789"])
        _, answer, _ = await ds2d.ask(f"/admin/config/generations/{first}", **ADMIN)
        assert {change["path"] for change in answer["changes"]} == {"runtime", "keys[0]"}
        assert "runtime" not in answer["config"]
        assert KEY not in json.dumps(answer)
        assert "sk-another-0123456789" not in json.dumps(answer)
        for wrong in ("0", "x", "99999999999999999999"):
            assert (await ds2d.ask(f"/admin/config/generations/{wrong}", **ADMIN))[0] == 404


async def test_every_client_is_told_how_to_come_here(tmp_path: Path) -> None:
    async with administered(tmp_path) as (ds2d, _):
        body = {"base_url": ds2d.url, "key": KEY, "model": "deepseek-chat"}
        _, answer, _ = await ds2d.ask("/admin/connect", body, **ADMIN)
        found = {one["client"]: one for one in answer["clients"]}
        assert f"export ANTHROPIC_BASE_URL={ds2d.url}\n" in found["claude-code"]["exports"]
        assert f"{ds2d.url}/v1" in found["codex"]["files"][0]["text"]
        assert (await ds2d.ask("/admin/connect", {"key": KEY}, **ADMIN))[0] == 400
        assert KEY not in (tmp_path / "state" / "audit.log").read_text() if (tmp_path / "state" / "audit.log").exists() else True


async def test_a_capture_names_the_request_it_is_of(tmp_path: Path) -> None:
    async with administered(tmp_path, capture={"enabled": True}) as (ds2d, _):
        await ds2d.ask(CHAT, ASK, headers={"x-request-id": "mine"})
        _, answer, _ = await ds2d.ask("/admin/dev/captures", **ADMIN)
        assert answer["items"][0]["request_id"] == "mine"


async def test_the_figures_of_the_last_day_outlive_a_restart(tmp_path: Path) -> None:
    async with administered(tmp_path) as (ds2d, upstream):
        done = {"usage": {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}}
        upstream.scenes.append(Scene(sse(chunk({"content": "one"}), chunk({}, "stop"), {**chunk({}), "choices": [], **done})))
        await ds2d.ask(CHAT, ASK)
        await ds2d.ask(CHAT, {**ASK, "model": "nobody-knows"})
    series = recalled(tmp_path / "state", time.time() + 1)
    shown = series.shown()
    assert sum(step["completion_tokens"] for step in shown["hour"]["steps"]) == 5
    assert shown["day"]["causes"] == {"model_not_found": 1}
    async with administered(tmp_path) as (ds2d, _):
        while True:
            _, answer, _ = await ds2d.ask("/admin/series", **ADMIN)
            if answer["day"]["causes"]:
                break
        assert sum(step["turns"] for step in answer["hour"]["steps"]) == 2
