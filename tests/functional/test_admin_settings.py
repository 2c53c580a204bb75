"""Settings: each one changed while a stream runs, the effect seen without a restart; what is out of bounds is refused by path."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from ds2d.config.describe import keys
from ds2d.web.admin.settings import settings
from tests.functional.admin import ACCOUNTS, ADMIN, administered
from tests.functional.harness import ADMIN_KEY, Running, running
from tests.functional.scripted import Scene, ScriptedUpstream, Wait, chunk, sse, usage

ASK: dict[str, Any] = {"model": "deepseek-chat", "messages": [{"role": "user", "content": "Hi"}]}


async def put(ds2d: Running, **sections: Any) -> tuple[int, Any]:
    status, answer, _ = await ds2d.ask("/admin/settings", sections, method="PUT", **ADMIN)
    return status, answer


@contextlib.asynccontextmanager
async def streaming(ds2d: Running, upstream: ScriptedUpstream) -> AsyncIterator[None]:
    """A stream that has begun and ends, whole, when the body of the `with` has."""
    wait = Wait()
    begin, *rest = sse(chunk({"content": "before "}), chunk({"content": "after"}), chunk({}, "stop"), usage())
    upstream.scenes.append(Scene([begin, wait, *rest]))
    task = asyncio.create_task(ds2d.ask("/v1/chat/completions", {**ASK, "stream": True}))
    await wait.reached.wait()
    yield
    wait.until.set()
    status, text, _ = await task
    assert status == 200
    assert "before " in text
    assert "after" in text
    assert text.rstrip().endswith("data: [DONE]")


async def test_the_limits_of_the_queue(tmp_path: Path) -> None:
    async with administered(tmp_path, accounts=ACCOUNTS[:1]) as (ds2d, upstream), streaming(ds2d, upstream):
        assert (await put(ds2d, runtime={"account_max_inflight": 1, "account_max_queue": 1}))[0] == 200
        held = Wait()
        upstream.scenes.append(Scene([held, b"{}"], content_type="application/json"))
        waiting = asyncio.create_task(ds2d.ask("/v1/chat/completions", ASK))
        while ds2d.daemon.queue.waiting == 0:  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0)
        assert (await ds2d.ask("/v1/chat/completions", ASK))[1]["error"]["code"] == "queue_full"
        assert (await put(ds2d, runtime={"account_max_inflight": 3}))[0] == 200, "the waiter has its slot with this answer"
        await held.reached.wait()
        assert (await put(ds2d, runtime={"global_max_inflight": 2}))[0] == 200
        _, status, _ = await ds2d.ask("/admin/queue/status", **ADMIN)
        assert (status["running"], status["global_max_inflight"], status["max_inflight_per_account"]) == (2, 2, 3)
        waiting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await waiting


async def test_where_names_lead(tmp_path: Path) -> None:
    async with administered(tmp_path) as (ds2d, upstream), streaming(ds2d, upstream):
        ds2d.change(models={"coder": {"model": "their-coder"}, "thinker": {"model": "their-thinker"}})
        assert (await put(ds2d, claude_mapping={"fast": "coder", "slow": "thinker"}, model_aliases={"gpt-9": "coder"}))[0] == 200
        claude = {"max_tokens": 9, "messages": ASK["messages"]}
        for path, body, model in (
            ("/v1/messages", {**claude, "model": "claude-haiku-4-5"}, "their-coder"),
            ("/v1/messages", {**claude, "model": "claude-opus-4-5"}, "their-thinker"),
            ("/v1/chat/completions", {**ASK, "model": "gpt-9"}, "their-coder"),
        ):
            assert (await ds2d.ask(path, body))[0] == 200
            assert upstream.seen[-1].body["model"] == model
        assert (await put(ds2d, model_aliases={"gpt-8": "coder"}))[1]["settings"]["model_aliases"] == {"gpt-8": "coder"}
        assert (await put(ds2d, claude_mapping={"fast": "thinker"}))[1]["settings"]["claude_mapping"] == {
            "fast": "thinker",
            "slow": "thinker",
        }


async def test_tool_calls_written_as_text(tmp_path: Path) -> None:
    text = '<tool_call>{"name": "look", "arguments": {}}</tool_call>'
    tools = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}]
    async with administered(tmp_path) as (ds2d, upstream), streaming(ds2d, upstream):
        upstream.answer_text = text
        asked = {**ASK, "tools": tools}
        seen = {}
        for mode in ("feature_match", "off", "buffered"):
            assert (await put(ds2d, toolcall={"mode": mode, "early_emit_confidence": "low"}))[0] == 200
            message = (await ds2d.ask("/v1/chat/completions", asked))[1]["choices"][0]["message"]
            seen[mode] = bool(message.get("tool_calls"))
        assert seen == {"feature_match": True, "off": False, "buffered": True}
        assert ds2d.daemon.config().toolcall.early_emit_confidence == "low"


async def test_logins_and_stored_responses(tmp_path: Path) -> None:
    async with administered(tmp_path) as (ds2d, upstream), streaming(ds2d, upstream):
        kept = (await ds2d.ask("/v1/responses", {"model": "deepseek-chat", "input": "Hi"}))[1]["id"]
        ds2d.daemon.responses._clock = lambda: time.monotonic() + 31  # half a minute later
        assert (await ds2d.ask(f"/v1/responses/{kept}"))[0] == 200
        assert (await put(ds2d, admin={"jwt_expire_hours": 720}, responses={"store_ttl_seconds": 30}))[0] == 200
        _, login, _ = await ds2d.ask("/admin/login", {"admin_key": ADMIN_KEY}, key=None)
        assert login["expires_in"] == 720 * 3600
        assert (await ds2d.ask(f"/v1/responses/{kept}"))[0] == 404, "for those stored already, too"


async def test_what_has_no_effect_yet_is_kept_and_shown(tmp_path: Path) -> None:
    async with administered(tmp_path) as (ds2d, upstream), streaming(ds2d, upstream):
        assert (await put(ds2d, embeddings={"provider": "deterministic"}, auto_delete={"sessions": True}))[0] == 200
        _, answer, _ = await ds2d.ask("/admin/settings", **ADMIN)
        assert (answer["embeddings"]["provider"], answer["auto_delete"]) == ("deterministic", {"sessions": True})
        assert (await put(ds2d, embeddings={"provider": None}))[1]["settings"]["embeddings"]["provider"] is None
        assert "provider" not in ds2d.config()["embeddings"]


BOUNDS = {
    "admin.jwt_expire_hours": ((1, 720), (0, 721, "24", 1.5, True, None)),
    "runtime.account_max_inflight": ((1, 256), (0, 257, "2")),
    "runtime.account_max_queue": ((0, 200000), (-1, 200001)),
    "runtime.global_max_inflight": ((0, 200000), (-1, 200001)),
    "responses.store_ttl_seconds": ((30, 86400), (29, 86401)),
    "toolcall.mode": (("feature_match", "buffered", "off"), ("on", 1)),
    "toolcall.early_emit_confidence": (("high", "low", "off"), ("medium",)),
    "embeddings.provider": (("upstream", "deterministic", "mock", "builtin"), ("openai", 1)),
    "auto_delete.sessions": ((True, False), ("yes", 1)),
    "claude_mapping.fast": (("deepseek-chat",), ("", 1, [])),
    "claude_mapping.slow": (("deepseek-reasoner",), ("", {})),
}
"""Path to what is accepted and what is refused (admin.md)."""


async def test_bounds_are_those_of_the_contract(tmp_path: Path) -> None:
    named = {path for path, key in settings().items() if key.settings}
    assert set(BOUNDS) | {"model_aliases"} == named, "every setting of the contract stands in the table above"
    async with administered(tmp_path) as (ds2d, _):
        for path, (good, bad) in BOUNDS.items():
            section, _, name = path.partition(".")
            for value in good:
                status, answer = await put(ds2d, **{section: {name: value}})
                assert (status, answer["settings"][section][name]) == (200, value), path
            for value in bad:
                if value is None:
                    continue
                before = ds2d.path.read_bytes()
                status, answer = await put(ds2d, **{section: {name: value}})
                assert (status, path in answer["detail"]) == (400, True), (path, value, answer)
                assert ds2d.path.read_bytes() == before
        for wrong in ({"a": 1}, [], "x", {"": "deepseek-chat"}):
            status, answer = await put(ds2d, model_aliases=wrong)
            assert status == 400
            assert "model_aliases" in answer["detail"]


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"runtime": {"account_max_inflght": 3}}, "runtime.account_max_inflght"),
        ({"runtime": {"breaker": {"failure": 3}}}, "runtime.breaker.failure"),
        ({"server": {"port": 1}}, "server.port"),
        ({"vercel": {"token": "x"}}, "vercel.token"),
        ({"keys": []}, "keys"),
        ({"admin": {"password_hash": "x"}}, "admin.password_hash"),
        ({"runtime": 3}, "runtime"),
    ],
)
async def test_an_unknown_field_is_refused_by_its_path_and_nothing_is_written(tmp_path: Path, body: Any, path: str) -> None:
    async with administered(tmp_path) as (ds2d, _):
        before = ds2d.path.read_bytes()
        status, answer = await put(ds2d, **{**body, "toolcall": {"mode": "off"}})
        assert status == 400
        assert answer["detail"].startswith(f"{path}: ")
        assert ds2d.path.read_bytes() == before


async def test_a_listing_put_back_changes_nothing(tmp_path: Path) -> None:
    async with administered(tmp_path) as (ds2d, _):
        before = ds2d.path.read_bytes()
        _, answer, _ = await ds2d.ask("/admin/settings", **ADMIN)
        assert (await put(ds2d, **answer))[0] == 200
        assert ds2d.path.read_bytes() == before


async def test_what_a_variable_holds_is_shown_and_cannot_be_changed_here(tmp_path: Path) -> None:
    async with administered(tmp_path) as (ds2d, _):
        config = ds2d.config()
    async with running(tmp_path, config, environ={"DS2API_ACCOUNT_MAX_INFLIGHT": "7"}) as ds2d:
        _, answer, _ = await ds2d.ask("/admin/settings", **ADMIN)
        assert answer["runtime"]["account_max_inflight"] == 7
        assert answer["origins"] == {"runtime.account_max_inflight": "$DS2API_ACCOUNT_MAX_INFLIGHT"}
        status, answer = await put(ds2d, runtime={"account_max_inflight": 3})
        assert status == 400
        assert "$DS2API_ACCOUNT_MAX_INFLIGHT" in answer["detail"]


async def test_every_hot_setting_says_what_it_means_and_can_be_set_however_deep_it_stands(tmp_path: Path) -> None:
    async with administered(tmp_path) as (ds2d, _):
        _, answer, _ = await ds2d.ask("/admin/settings", **ADMIN)
        found = answer["bounds"]["runtime.breaker.failures"]
        assert (found["default"], found["min"], found["max"], found["origin"]) == (5, 1, 1000, "default")
        assert all(one["about"] for one in answer["bounds"].values())
        assert not {key.path for key in keys() if key.restart} & answer["bounds"].keys()
        status, answer = await put(ds2d, runtime={"breaker": {"failures": 9}}, server={"open_networks": ["127.0.0.0/8"]})
        assert (status, answer["settings"]["runtime"]["breaker"]["failures"]) == (200, 9)
        assert ds2d.config()["runtime"] == {"breaker": {"failures": 9}}
        assert ds2d.config()["server"] == {"open_networks": ["127.0.0.0/8"]}
        assert ds2d.daemon.config().runtime.breaker.failures == 9


async def test_what_is_only_shown_is_refused_when_it_differs(tmp_path: Path) -> None:
    async with administered(tmp_path) as (ds2d, _):
        _, shown, _ = await ds2d.ask("/admin/settings", **ADMIN)
        assert (await put(ds2d, **shown))[0] == 200
        for name, other in (("jwt_valid_after_unix", 1), ("has_password_hash", False), ("default_password_warning", True)):
            status, answer = await put(ds2d, admin={name: other})
            assert (status, answer["detail"].partition(":")[0]) == (400, f"admin.{name}")


async def test_a_key_that_is_known_but_no_setting_is_not_called_unknown(tmp_path: Path) -> None:
    async with administered(tmp_path) as (ds2d, _):
        for section, name, why in (
            ("server", "port", "needs a restart: change it in the config file"),
            ("server", "max_connections", "needs a restart: change it in the config file"),
            ("admin", "password_hash", "cannot be changed here: POST /admin/settings/password"),
            ("vercel", "token", "cannot be changed here"),
        ):
            status, answer = await put(ds2d, **{section: {name: 5}})
            assert (status, answer["detail"]) == (400, f"{section}.{name}: {why}")
        assert "unknown field (did you mean" in (await put(ds2d, server={"drain_second": 5}))[1]["detail"]
