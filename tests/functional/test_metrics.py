"""/metrics after real turns: what was counted, under which labels, and who may read it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.functional.admin import ADMIN, HASH
from tests.functional.harness import KEY, config_for, running
from tests.functional.scrape import CHAT, GAUGES, mixed_run, scrape
from tests.functional.scripted import Scene, Wait, say, scripted_upstream
from tests.functional.test_every_dialect import QUESTIONS
from tests.functional.test_queue import until

DIALECTS = {"openai_chat", "openai_completions", "openai_responses", "claude", "gemini"}
ASK = QUESTIONS["chat"][1]


async def test_a_mixed_run_of_all_dialects_is_counted(tmp_path: Path) -> None:
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as live:
        turns = await mixed_run(live, upstream)
        page = await scrape(live)
        value = page.value
        assert value("ds2d_turns_total") == turns
        assert page.labels("ds2d_turns_total", "dialect") == DIALECTS
        for dialect in DIALECTS - {"openai_chat"}:
            assert value("ds2d_turns_total", dialect=dialect, outcome="completed", upstream="gpu") == 2, dialect
        assert value("ds2d_turns_total", outcome="rejected", model="other", upstream="none") == 1
        assert value("ds2d_turns_unfinished_total", outcome="rejected", cause="model_not_found") == 1
        assert value("ds2d_streams_cut_total", cause="upstream_disconnected") == 1
        assert value("ds2d_upstream_attempts_total", upstream="gpu", end="answered") == turns - 2
        assert value("ds2d_upstream_attempts_total", upstream="gpu", end="upstream_disconnected") == 1
        assert value("ds2d_tokens_total", kind="prompt") > 10 * 7
        assert (value("ds2d_tokens_total", kind="cached"), value("ds2d_tokens_total", kind="reasoning")) == (4, 2)
        assert value("ds2d_tool_calls_total") == 1
        assert value("ds2d_tool_calls_mended_total", how="trailing_comma") == 1
        assert value("ds2d_tool_calls_rejected_total", why="undeclared") == 1
        assert value("ds2d_turn_duration_seconds_count") == turns - 1
        assert value("ds2d_time_to_first_token_seconds_count") == 7
        assert value("ds2d_time_per_output_token_seconds_count") == 6
        assert value("ds2d_queue_wait_seconds_bucket", le="0") == turns - 1
        assert value("ds2d_overhead_seconds_count") == turns - 1
        assert 0 < value("ds2d_overhead_seconds_sum") < 60
        assert value("ds2d_http_requests_total", dialect="openai_chat", code="401") == 1
        assert value("ds2d_http_requests_total", dialect="openai_chat", code="400") == 1
        assert value("ds2d_account_inflight", account="gpu", upstream="gpu") == 0
        assert value("ds2d_account_state", account="gpu", state="ready") == 1
        assert value("ds2d_upstream_state", upstream="gpu", state="ready") == 1
        assert value("ds2d_upstream_state", upstream="gpu") == 1
        assert value("ds2d_config_generation") == 1
        assert value("ds2d_config_last_reload_ok") == 1
        assert value("ds2d_build_info") == 1
        assert value("ds2d_process_resident_memory_bytes") > 10e6
        held = live.daemon.sizes()
        shown = page.labels("ds2d_held_entries", "what") | {f"{what}_bytes" for what in page.labels("ds2d_held_bytes", "what")}
        assert shown == set(held)
        assert KEY not in page.text
        assert "Hello" not in page.text


async def test_whoever_watches_turns_may_fail_and_no_turn_does(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as live:
        live.daemon.books.listeners.insert(0, lambda row, turn: 1 / 0)
        assert (await live.ask(CHAT, ASK))[0] == 200
        assert (await live.ask(CHAT, {**ASK, "model": "deepseek-nope"}))[0] == 404
        assert (await scrape(live)).value("ds2d_turns_total") == 2
    assert caplog.text.count("somebody who watches turns failed") == 2


async def test_what_a_server_says_of_itself_is_passed_on(tmp_path: Path) -> None:
    async with scripted_upstream() as upstream:
        upstream.gauges = GAUGES
        async with running(tmp_path, config_for(upstream.base_url)) as live:
            value = (await scrape(live)).value
    assert (value("ds2d_upstream_running", upstream="gpu"), value("ds2d_upstream_waiting", upstream="gpu")) == (3, 1)
    assert value("ds2d_upstream_cache_use_ratio", upstream="gpu") == 0.25
    assert (value("ds2d_upstream_prefix_queries_total"), value("ds2d_upstream_prefix_hits_total")) == (40, 10)


async def test_what_runs_and_waits_is_read_in_the_moment(tmp_path: Path) -> None:
    accounts = [{"name": "a", "token": "tok-a", "max_inflight": 1}]
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url, accounts=accounts)) as live:
        held, frames = Wait(), say("Hel", "lo")
        upstream.scenes.append(Scene([*frames[:2], held, *frames[2:]]))
        first = asyncio.create_task(live.ask(CHAT, {**ASK, "stream": True}))
        await held.reached.wait()
        second = asyncio.create_task(live.ask(CHAT, ASK))
        await until(lambda: live.daemon.queue.waiting == 1, 20)
        page = await scrape(live)
        assert page.value("ds2d_account_inflight", account="a") == page.value("ds2d_account_inflight_limit", account="a") == 1
        assert (page.value("ds2d_queue_waiting"), page.value("ds2d_turns_running")) == (1, 2)
        assert (page.value("ds2d_turns_streaming"), page.value("ds2d_answer_pieces")) == (1, 2)
        assert page.value("ds2d_upstream_inflight", upstream="gpu") == 1
        held.until.set()
        await asyncio.gather(first, second)
        page = await scrape(live)
        assert (page.value("ds2d_queue_waiting"), page.value("ds2d_turns_running")) == (0, 0)
        waited = page.value("ds2d_queue_wait_seconds_count") - page.value("ds2d_queue_wait_seconds_bucket", le="0")
        assert waited == 1


async def test_a_thousand_invented_names_make_no_series(tmp_path: Path) -> None:
    async with running(tmp_path, {"keys": [KEY], "upstreams": [{"name": "demo", "kind": "demo"}]}) as live:

        async def ask(name: str) -> int:
            return (await live.ask(CHAT, {**ASK, "model": name}))[0]

        assert await ask("deepseek-chat") == 200
        before = len((await scrape(live)).samples)
        names = [f"{stem}-invented-{number}" for number in range(200) for stem in ("gpt", "claude", "deepseek", "o3", "nobody")]
        seen: set[int] = set()
        for start in range(0, len(names), 50):
            seen |= set(await asyncio.gather(*map(ask, names[start : start + 50])))
        assert seen <= {200, 404, 429}
        assert {200, 404} <= seen
        page = await scrape(live)
        models = page.labels("ds2d_turns_total", "model")
        assert models <= {"deepseek-chat", "deepseek-reasoner", "other"}
        assert page.value("ds2d_turns_total") == len(names) + 1
        assert len(page.samples) < before + 150
        assert "invented" not in page.text


async def test_models_that_only_a_server_lists_have_labels_up_to_a_bound(tmp_path: Path) -> None:
    names = [f"org/model-{number}" for number in range(120)]
    async with scripted_upstream(*names) as upstream, running(tmp_path, config_for(upstream.base_url)) as live:
        for name in names:
            assert (await live.ask(CHAT, {**ASK, "model": name}))[0] == 200
        models = (await scrape(live)).labels("ds2d_turns_total", "model")
        assert len(models) == 101
        assert "other" in models


async def test_series_go_with_the_names_they_are_about_and_keys_are_named_by_setting_only(tmp_path: Path) -> None:
    keys = [KEY, {"key": "sk-team-0123456789", "name": "team-a"}]
    async with scripted_upstream() as upstream, running(tmp_path, {**config_for(upstream.base_url), "keys": keys}) as live:
        await live.ask(CHAT, ASK, key="sk-team-0123456789")
        page = await scrape(live)
        assert "team-a" not in page.text
        live.change(metrics={"key_labels": True})
        await live.ask(CHAT, ASK, key="sk-team-0123456789")
        await live.ask(CHAT, ASK)
        page = await scrape(live)
        assert page.value("ds2d_key_turns_total", key="team-a", outcome="completed") == 1
        assert page.value("ds2d_key_turns_total", key="other") == 1
        assert page.value("ds2d_key_tokens_total", key="team-a", kind="prompt") == 7
        live.change(metrics={}, upstreams=[{**live.config()["upstreams"][0], "name": "renamed"}])
        page = await scrape(live)
        assert "team-a" not in page.text
        assert '"gpu"' not in page.text
        live.path.write_text("{")
        live.daemon.store.reload()
        async with asyncio.timeout(20):  # a look that began before may say for a moment that all is well
            while (await scrape(live)).value("ds2d_config_last_reload_ok") != 0:
                continue


async def test_turns_that_went_on_alone_and_retries_that_joined_them(tmp_path: Path) -> None:
    config = {"runtime": {"retry_grace_seconds": 30}}
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url, **config)) as live:
        held, frames = Wait(), say("Hel", "lo")
        upstream.scenes.append(Scene([*frames[:2], held, *frames[2:]]))
        key = {"Idempotency-Key": "the-same"}
        first = asyncio.create_task(live.ask(CHAT, {**ASK, "stream": True}, headers=key))
        await held.reached.wait()
        first.cancel()
        await asyncio.wait({first})
        await until(lambda: live.daemon.service.repeats.alone == 1, 20)
        second = asyncio.create_task(live.ask(CHAT, {**ASK, "stream": True}, headers=key))
        await until(lambda: live.daemon.service.repeats.joined == 1, 20)
        held.until.set()
        assert (await second)[0] == 200
        page = await scrape(live)
    assert page.value("ds2d_turns_orphaned_total") == page.value("ds2d_retries_joined_total") == 1
    assert page.value("ds2d_upstream_attempts_total") == 1


FORWARDED = {"X-Forwarded-For": "203.0.113.9"}


@pytest.mark.parametrize(
    ("access", "answers"),
    [
        ("open", {"nobody": 200, "forwarded": 200, "key": 200, "admin": 200}),
        ("auto", {"nobody": 200, "forwarded": 401, "key": 200, "admin": 200}),
        ("key", {"nobody": 401, "forwarded": 401, "key": 200, "admin": 401}),
        ("admin", {"nobody": 401, "forwarded": 401, "key": 401, "admin": 200}),
        ("off", {"nobody": 404, "forwarded": 404, "key": 404, "admin": 404}),
    ],
)
async def test_who_may_read(tmp_path: Path, access: str, answers: dict[str, int]) -> None:
    asking: dict[str, dict[str, Any]] = {
        "nobody": {"key": None},
        "forwarded": {"key": None, "headers": FORWARDED},
        "key": {"key": KEY},
        "admin": ADMIN,
    }
    config = {"keys": [KEY], "metrics": {"access": access}, "admin": {"password_hash": HASH}}
    async with running(tmp_path, config) as live:
        assert {who: (await live.ask("/metrics", **how))[0] for who, how in asking.items()} == answers


async def test_auto_on_a_listener_that_others_can_reach_is_for_the_operator(tmp_path: Path) -> None:
    config = {"keys": [KEY], "admin": {"password_hash": HASH}, "server": {"host": "0.0.0.0"}}
    async with running(tmp_path, config) as live:
        assert (await live.ask("/metrics", key=None))[0] == 401
        assert (await live.ask("/metrics", **ADMIN))[0] == 200
