"""Looking at running turns and ending one; the event stream."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest

from ds2d.state import feed
from ds2d.web.admin import live
from tests.functional.admin import ACCOUNTS, ADMIN, HASH, administered, log_in
from tests.functional.harness import ADMIN_KEY, Running
from tests.functional.scripted import Scene, Wait, chunk, sse

ASK: dict[str, Any] = {"model": "deepseek-chat", "stream": True, "messages": [{"role": "user", "content": "Hi"}]}


async def test_a_running_turn_is_seen_and_cancelled_in_its_dialects_words(tmp_path: Path) -> None:
    async with administered(tmp_path, accounts=ACCOUNTS) as (ds2d, upstream):
        wait = Wait()
        upstream.scenes.append(Scene([*sse(chunk({"content": "before"}), done=False), wait]))
        task = asyncio.create_task(ds2d.ask("/v1/chat/completions", ASK, headers={"x-request-id": "mine"}))
        await wait.reached.wait()
        while not ds2d.daemon.service.turns["mine"].first:  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0)
        _, answer, _ = await ds2d.ask("/admin/requests", **ADMIN)
        [turn] = answer["running"]
        assert (turn["request_id"], turn["used"], turn["answering"]) == ("mine", "deepseek-chat", True)
        assert (await ds2d.ask("/admin/requests/mine", **ADMIN))[1]["state"] == "running"
        assert (await ds2d.ask("/admin/requests/mine", method="DELETE", **ADMIN))[1] == {"success": True, "id": "mine"}
        status, text, _ = await task
        assert status == 200
        assert "before" in text
        assert '"code":"cancelled"' in text
        assert "[DONE]" not in text
        await upstream.seen[0].closed.wait()
        wait.until.set()
        _, answer, _ = await ds2d.ask("/admin/requests/mine", **ADMIN)
        assert answer["state"] == "ended" or answer["cause"] == "cancelled"
        assert ds2d.daemon.queue.running == 0


async def events(ds2d: Running, count: int, last: str = "") -> list[tuple[str, str, dict[str, Any]]]:
    """Event, id and data of the first few; the config changes once the first is there."""
    headers = {"Authorization": f"Bearer {ADMIN_KEY}", **({"Last-Event-ID": last} if last else {})}
    found: list[tuple[str, str, dict[str, Any]]] = []
    fields: dict[str, str] = {}
    async with ds2d.http.get(ds2d.url + "/admin/events", headers=headers) as reply:
        assert reply.status == 200
        assert reply.headers["Content-Type"].startswith("text/event-stream")
        assert "Access-Control-Allow-Origin" not in reply.headers
        assert reply.headers["Server"] == "ds2d"
        if last:
            await ds2d.ask("/admin/keys", {"key": "k-later"}, **ADMIN)
        async for raw in reply.content:
            line = raw.decode().rstrip("\r\n")
            if line:
                name, _, value = line.partition(": ")
                fields[name] = value
            elif "data" in fields:
                found.append((fields["event"], fields["id"], json.loads(fields["data"])))
                fields = {}
                if len(found) == count:
                    return found
                await ds2d.ask("/admin/keys", {"key": f"k-{len(found)}"}, **ADMIN)
    raise AssertionError("the stream ended")


async def test_the_event_stream_tells_the_state_and_then_what_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    async with administered(tmp_path, accounts=ACCOUNTS) as (ds2d, _):
        monkeypatch.setattr(ds2d.daemon.series, "_wall", lambda: now)  # with the next minute a step of the charts begins
        (first, _, state), (second, last, delta) = await events(ds2d, 2)
        assert (first, second) == ("snapshot", "delta")
        assert state.keys() == {"queue", "accounts", "requests", "upstreams", "config", "series"}
        assert state["upstreams"]["gpu"]["state"] == "ready"
        assert state["accounts"].keys() == {
            "user@example.com",
            *(name for name in state["accounts"] if name.startswith("token:")),
        }
        assert delta == {"config": {"generation": state["config"]["generation"] + 1}}, "only what changed"
        [(event, _, again)] = await events(ds2d, 1, last)
        assert (event, again["config"]["generation"]) == ("delta", state["config"]["generation"] + 2), "it goes on where it was"
        [(event, _, _)] = await events(ds2d, 1, "another-1")
        assert event == "snapshot"


async def test_a_stream_ends_with_the_login_that_asked_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "TRUST_SECONDS", 0.0)
    async with administered(tmp_path, accounts=ACCOUNTS) as (ds2d, _):
        token = await log_in(ds2d)
        headers = {"Authorization": f"Bearer {token}"}
        async with ds2d.http.get(ds2d.url + "/admin/events", headers=headers) as reply:
            assert (await reply.content.readline()).startswith(b"id: ")
            await ds2d.ask(
                "/admin/settings/password", {"new_password": "another-admin-password"}, **ADMIN
            )  # a change, so a message
            rest = await reply.content.read()
        assert b"event: delta" not in rest


async def test_an_open_stream_ends_at_once_when_its_login_is_revoked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No clock and no message does it here: the change itself."""
    monkeypatch.setattr(live, "TRUST_SECONDS", 3600.0)
    monkeypatch.setattr(feed, "PAUSE", 3600.0)
    async with administered(tmp_path) as (ds2d, _):
        token = await log_in(ds2d)
        async with ds2d.http.get(ds2d.url + "/admin/events", headers={"Authorization": f"Bearer {token}"}) as reply:
            await reply.content.readuntil(b"\r\n\r\n")
            ds2d.change(log={"level": "debug"})
            assert (await ds2d.ask("/admin/verify", key=token))[0] == 200
            assert not reply.content.at_eof(), "another change is no reason"
            ds2d.change(admin={"password_hash": HASH, "jwt_valid_after_unix": 2**33})
            assert await asyncio.wait_for(reply.content.read(), 10) == b""
