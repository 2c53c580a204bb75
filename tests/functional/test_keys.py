"""Keys of every kind against the whole daemon: quotas, rates, days, allow lists, and what their holders see."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ds2d.core.secrets import hash_key
from tests.functional.harness import ADMIN_KEY, KEY, Running, config_for, running
from tests.functional.scripted import Scene, Wait, refuse, say, scripted_upstream
from tests.state.ledger_world import until

ASK = {"model": "deepseek-chat", "messages": [{"role": "user", "content": "Hello"}]}
CHAT, CLAUDE = "/v1/chat/completions", "/v1/messages"
CLAUDE_ASK = {**ASK, "max_tokens": 10}
GEMINI = "/v1beta/models/deepseek-chat:generateContent"


def one_key(**fields: Any) -> dict[str, Any]:
    return {"keys": [{"key": KEY, "name": "team-a", **fields}]}


async def code_of(ds2d: Running, **more: Any) -> tuple[int, str | None]:
    status, body, _ = await ds2d.ask(CHAT, {**ASK, **more})
    return status, body["error"]["code"] if status != 200 else None


async def test_a_used_up_quota_is_insufficient_quota_in_every_dialect(tmp_path: Path) -> None:
    async with (
        scripted_upstream() as upstream,
        running(tmp_path, config_for(upstream.base_url, **one_key(max_tokens=20))) as ds2d,
    ):
        assert [await code_of(ds2d) for _ in range(3)] == [
            (200, None),
            (200, None),
            (429, "insufficient_quota"),
        ]  # 12 tokens each
        status, body, headers = await ds2d.ask(CHAT, ASK)
        assert (body["error"]["type"], headers["x-should-retry"]) == ("insufficient_quota", "false")
        assert "retry-after" not in headers
        status, body, _ = await ds2d.ask(CLAUDE, CLAUDE_ASK)
        assert (status, body["error"]["type"]) == (429, "rate_limit_error")
        status, body, _ = await ds2d.ask(GEMINI, {"contents": [{"parts": [{"text": "Hello"}]}]})
        assert (status, body["error"]["status"]) == (429, "RESOURCE_EXHAUSTED")
        assert len(upstream.seen) == 2


async def test_a_quota_that_renews_says_when(tmp_path: Path) -> None:
    config = one_key(max_tokens=5, quota_window="day")
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url, **config)) as ds2d:
        assert (await code_of(ds2d))[0] == 200
        status, body, headers = await ds2d.ask(CHAT, ASK)
        assert status == 429
        assert 1 <= int(headers["retry-after"]) <= 120
        assert (datetime.now(UTC) + timedelta(days=1)).strftime("%Y-%m-%d") in body["error"]["message"]


async def test_use_is_remembered_over_a_restart_and_config_changes_hold_at_once(tmp_path: Path) -> None:
    async with scripted_upstream() as upstream:
        config = config_for(upstream.base_url, **one_key(max_tokens=10))
        async with running(tmp_path, config) as ds2d:
            assert (await code_of(ds2d))[0] == 200
        async with running(tmp_path, config) as ds2d:
            assert (await code_of(ds2d))[1] == "insufficient_quota"
            ds2d.change(**one_key(max_tokens=1000))
            assert (await code_of(ds2d))[0] == 200


async def test_a_running_answer_holds_its_reservation(tmp_path: Path) -> None:
    async with (
        scripted_upstream() as upstream,
        running(tmp_path, config_for(upstream.base_url, **one_key(max_tokens=50))) as ds2d,
    ):
        hold = Wait()
        upstream.scenes.append(Scene([hold, *say("late")]))
        first = asyncio.create_task(ds2d.ask(CHAT, {**ASK, "stream": True}))
        await hold.reached.wait()
        assert await code_of(ds2d) == (429, "insufficient_quota")  # 4096 are reserved without max_tokens
        hold.until.set()
        assert (await first)[0] == 200
        assert (await code_of(ds2d, max_tokens=5))[0] == 200


async def test_who_left_takes_no_place_while_its_answer_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with (
        scripted_upstream() as upstream,
        running(tmp_path, config_for(upstream.base_url, **one_key(max_inflight=1))) as ds2d,
    ):
        gate, hold = asyncio.Event(), Wait()

        async def held(_request: Any) -> int:
            await gate.wait()
            return 6

        monkeypatch.setattr(ds2d.daemon.toolbox, "count_request", held)
        upstream.scenes.append(Scene([hold, *say("late")]))
        first = asyncio.create_task(ds2d.ask(CHAT, {**ASK, "stream": True}))
        await hold.reached.wait()
        assert await code_of(ds2d) == (429, "rate_limit_exceeded")
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        hold.until.set()
        await until(lambda: ds2d.daemon.books.sizes()["counting"].now == 1)
        assert (await code_of(ds2d))[0] == 200
        assert (await ds2d.ask("/v1/usage"))[1]["requests_running"] == 0
        gate.set()
        await until(lambda: ds2d.daemon.books.sizes()["counting"].now == 0)
        assert ds2d.daemon.quotas.meter(hash_key(KEY).removeprefix("sha256:")).inflight == 0


async def test_several_prompts_hold_a_reservation_each(tmp_path: Path) -> None:
    async with (
        scripted_upstream() as upstream,
        running(tmp_path, config_for(upstream.base_url, **one_key(max_tokens=100))) as ds2d,
    ):
        hold = Wait()
        upstream.scenes.append(Scene([hold, b"{}"], content_type="application/json"))
        body = {"model": "deepseek-chat", "prompt": ["one", "two", "three"], "n": 2, "max_tokens": 20}
        first = asyncio.create_task(ds2d.ask("/v1/completions", body))
        await hold.reached.wait()
        (limit,) = (await ds2d.ask("/v1/usage"))[1]["quota"]["limits"]
        assert limit["reserved"] > 3 * 2 * 20
        assert await code_of(ds2d) == (429, "insufficient_quota")
        hold.until.set()
        await first


async def test_rates_are_refused_with_the_time_to_wait_and_told_in_headers(tmp_path: Path) -> None:
    config = config_for("", **one_key(rpm=2, tpm=10_000))
    async with (
        scripted_upstream() as upstream,
        running(tmp_path, {**config, "upstreams": config_for(upstream.base_url)["upstreams"]}) as ds2d,
    ):
        status, _, headers = await ds2d.ask(CHAT, ASK)
        assert status == 200
        assert (headers["x-ratelimit-limit-requests"], headers["x-ratelimit-remaining-requests"]) == ("2", "1")
        assert headers["x-ratelimit-limit-tokens"] == "10000"
        assert int(headers["x-ratelimit-remaining-tokens"]) == 10_000 - 12
        assert headers["x-ratelimit-reset-requests"] in ("1m0s", "60s", "59s")
        status, _, headers = await ds2d.ask(CLAUDE, {**CLAUDE_ASK, "stream": True})
        assert (status, headers["anthropic-ratelimit-requests-remaining"]) == (200, "0")
        assert datetime.fromisoformat(headers["anthropic-ratelimit-requests-reset"]) > datetime.now(UTC)
        status, body, headers = await ds2d.ask(CHAT, ASK)
        assert (status, body["error"]["code"]) == (429, "rate_limit_exceeded")
        assert 55 <= int(headers["retry-after"]) <= 60
        assert headers["x-ratelimit-remaining-requests"] == "0"


async def test_a_key_without_limits_gets_no_limit_headers(tmp_path: Path) -> None:
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        _, _, headers = await ds2d.ask(CHAT, ASK)
        assert not [name for name in headers if "ratelimit" in name]


async def test_max_inflight(tmp_path: Path) -> None:
    async with (
        scripted_upstream() as upstream,
        running(tmp_path, config_for(upstream.base_url, **one_key(max_inflight=1))) as ds2d,
    ):
        hold = Wait()
        upstream.scenes.append(Scene([hold, *say("late")]))
        first = asyncio.create_task(ds2d.ask(CHAT, {**ASK, "stream": True}))
        await hold.reached.wait()
        assert await code_of(ds2d) == (429, "rate_limit_exceeded")
        hold.until.set()
        await first
        assert (await code_of(ds2d))[0] == 200


async def test_days_count_from_the_first_use_where_no_creation_is_noted(tmp_path: Path) -> None:
    async with scripted_upstream() as upstream:
        config = config_for(upstream.base_url, **one_key(active_days=30))
        async with running(tmp_path, config) as ds2d:
            assert (await code_of(ds2d))[0] == 200
            _, body, _ = await ds2d.ask("/v1/usage")
            ends = datetime.fromisoformat(body["expires_at"])
            assert timedelta(days=29) < ends - datetime.now(UTC) <= timedelta(days=30)
            ds2d.daemon.quotas.meter(hash_key(KEY)[7:]).first_used = datetime.now(UTC) - timedelta(days=31)
            assert await code_of(ds2d) == (401, "api_key_expired")
        async with running(tmp_path, config) as ds2d:
            _, body, _ = await ds2d.ask("/v1/usage")
            assert datetime.fromisoformat(body["expires_at"]) == ends


async def test_a_key_holder_sees_their_own_use(tmp_path: Path) -> None:
    other = {"key": "sk-other", "name": "team-b"}
    fields = {"key": KEY, "name": "team-a", "models": ["deepseek-*"], "max_tokens": 1000, "quota_window": "month", "rpm": 60}
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url, keys=[fields, other])) as ds2d:
        await ds2d.ask(CHAT, ASK)
        await ds2d.ask(CHAT, {**ASK, "model": "nobody-knows"}, headers={"x-request-id": "req_bad"})
        await ds2d.ask(CHAT, ASK, key="sk-other")
        _, body, _ = await ds2d.ask("/v1/usage")
        assert body["key"] == "team-a"
        assert body["used"]["month"] == {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
        assert body["quota"]["window"] == "month"
        assert body["quota"]["limits"] == [{"kind": "tokens", "limit": 1000, "used": 12, "reserved": 0, "remaining": 988}]
        assert body["rate_limits"]["requests"]["limit"] == 60
        assert "deepseek-chat" in body["models"]
        (error,) = body["recent_errors"]
        assert (error["request_id"], error["model"], error["cause"]) == ("req_bad", "nobody-knows", "model_not_found")
        assert "gpu" not in str(body)
        status, text, _ = await ds2d.ask("/me")
        assert status == 200
        assert "12 tokens (7 prompt, 5 completion)" in text
        status, _, headers = await ds2d.ask("/me", key=None)
        assert (status, headers["content-type"].split(";")[0]) == (200, "text/html")
        assert "unsafe" not in headers["content-security-policy"]
        assert (await ds2d.ask("/v1/usage", key=None))[0] == 401


async def test_keys_hash_in_config_works_like_the_key(tmp_path: Path) -> None:
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url, keys=[hash_key(KEY)])) as ds2d:
        assert (await code_of(ds2d))[0] == 200


async def test_the_wait_and_the_route_stand_in_headers(tmp_path: Path) -> None:
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        _, _, headers = await ds2d.ask(CHAT, {**ASK, "model": "gpt-4o"})
        assert headers["x-ds2d-route"] == "model=deepseek-chat"
        assert "x-ds2d-queue-position" not in headers
        ds2d.change(upstreams=[{**ds2d.config()["upstreams"][0], "max_inflight": 1}])
        hold = Wait()
        upstream.scenes.append(Scene([hold, *say("late")]))
        first = asyncio.create_task(ds2d.ask(CHAT, {**ASK, "stream": True}))
        await hold.reached.wait()
        second = asyncio.create_task(ds2d.ask(CHAT, {**ASK, "stream": True}))
        await until(lambda: ds2d.daemon.queue.waiting)
        hold.until.set()
        await first
        _, _, headers = await second
        assert headers["x-ds2d-queue-position"] == "1"
        assert int(headers["x-ds2d-queue-wait-ms"]) >= 0
        assert "waited=" in headers["x-ds2d-route"]
        assert "gpu" not in headers["x-ds2d-route"]
        ds2d.change(runtime={"route_header": False})
        assert "x-ds2d-route" not in (await ds2d.ask(CHAT, ASK))[2]


STATS = [
    ("GET", "/v1/tokens/stats"),
    ("POST", "/v1/tokens/rotate"),
    ("POST", "/v1/tokens/reset-stats"),
    ("GET", "/v1/rate-limits/observed"),
]


@pytest.mark.parametrize(("method", "path"), STATS)
async def test_statistics_are_for_the_operator_and_keys_with_the_right(tmp_path: Path, method: str, path: str) -> None:
    keys = [KEY, {"key": "sk-admin", "name": "ops", "admin": True}]
    admin = {"password_hash": hash_key(ADMIN_KEY)}
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url, keys=keys, admin=admin)) as ds2d:
        for key, status in ((None, 401), ("sk-wrong", 401), (KEY, 403), ("sk-admin", 200), (ADMIN_KEY, 200)):
            assert (await ds2d.ask(path, method=method, key=key))[0] == status, key
        ds2d.change(server={"open_token_stats": True, "open_networks": ["127.0.0.0/8"]})
        assert (await ds2d.ask(path, method=method, key=None))[0] == (200 if method == "GET" else 401)


async def test_rotation_and_reset_in_the_callers_language(tmp_path: Path) -> None:
    accounts = [{"name": name, "upstream": "gpu", "token": f"t-{name}"} for name in ("one", "two")]
    keys = [{"key": KEY, "name": "ops", "admin": True}]
    async with (
        scripted_upstream() as upstream,
        running(tmp_path, config_for(upstream.base_url, keys=keys, accounts=accounts)) as ds2d,
    ):
        _, stats, _ = await ds2d.ask("/v1/tokens/stats")
        assert (stats["current_token"], stats["total_tokens"]) == ("one", 2)
        assert {"key", "blocked", "failures", "lastUsed"} <= stats["tokens"][0].keys()
        english = (await ds2d.ask("/v1/tokens/rotate", method="POST"))[1]["message"]
        for wanted, is_english in (
            ("zh;q=0", True),
            ("zh; Q=0.0, en", True),
            ("zh;q=0.3, en;q=0.8", True),
            ("zh;q=x, en", True),
            ("fr, zh;q=0.1", False),
        ):
            said = (await ds2d.ask("/v1/tokens/rotate", method="POST", headers={"Accept-Language": wanted}))[1]["message"]
            assert (said == english) == is_english, wanted
        _, body, _ = await ds2d.ask("/v1/tokens/rotate", method="POST", headers={"Accept-Language": "uk-UA, en;q=0.5"})
        assert (body["success"], body["current_token"]) == (True, "two")
        assert body["message"] == "Перемкнуто на наступний обліковий запис."
        for _ in range(5):
            upstream.scenes.append(refuse(500, {"error": {"message": "boom"}}))
            await ds2d.ask(CHAT, ASK)
        _, body, _ = await ds2d.ask("/v1/tokens/reset-stats", method="POST")
        assert body == {"success": True, "message": "Statistics and circuit breakers were reset."}
        _, stats, _ = await ds2d.ask("/v1/tokens/stats")
        assert [(one["blocked"], one["failures"]) for one in stats["tokens"]] == [(False, 0), (False, 0)]


async def test_a_full_disk_refuses_where_config_has_it_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = config_for("", ledger={"on_disk_full": "refuse"})
    async with (
        scripted_upstream() as upstream,
        running(tmp_path, {**config, "upstreams": config_for(upstream.base_url)["upstreams"]}) as ds2d,
    ):
        ds2d.daemon.ledger.problem = "disk_full"
        assert await code_of(ds2d) == (503, "ledger_unavailable")
        _, body, _ = await ds2d.ask("/readyz?verbose", key=None)
        assert body["ledger"] == "disk_full"
        ds2d.change(ledger={"on_disk_full": "serve"})
        assert (await code_of(ds2d))[0] == 200
