"""config.json edited while clients are served: what was taken away stops at once, what runs goes on, nothing is cut."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from ds2d.config import store as store_module
from ds2d.service import answer as answer_module
from tests.config.test_store import STYLES
from tests.functional.harness import KEY, Running, config_for, running
from tests.functional.scripted import Scene, ScriptedUpstream, Wait, say, scripted_upstream
from tests.functional.storm import ASK, BROKEN, CHAT, STREAM, storm, write
from tests.functional.test_queue import until


@asynccontextmanager
async def streaming(folder: Path, **sections: Any) -> AsyncIterator[tuple[Running, ScriptedUpstream, Wait, asyncio.Task[Any]]]:
    """A daemon with one stream in the middle of its answer."""
    async with scripted_upstream() as upstream, running(folder, config_for(upstream.base_url, **sections)) as ds2d:
        held = Wait()
        frames = say("Hel", "lo")
        upstream.scenes.append(Scene([*frames[:2], held, *frames[2:]]))
        turn = asyncio.create_task(ds2d.ask(CHAT, STREAM))
        await held.reached.wait()
        yield ds2d, upstream, held, turn
        held.until.set()
        await asyncio.wait({turn})


async def finished(held: Wait, turn: asyncio.Task[Any]) -> bool:
    """Whether the stream, let go, ends as it should."""
    held.until.set()
    status, text, _ = await turn
    return status == 200 and "data: [DONE]" in text and '"error"' not in text


async def test_a_key_that_was_removed_stops_at_once_and_its_stream_goes_on(tmp_path: Path) -> None:
    async with streaming(tmp_path) as (ds2d, _, held, turn):
        ds2d.change(keys=["sk-another-0123456789"])
        assert (await ds2d.ask(CHAT, ASK))[0] == 401
        assert (await ds2d.ask(CHAT, ASK, key="sk-another-0123456789"))[0] == 200
        assert await finished(held, turn)


async def test_an_upstream_that_was_removed_ends_no_stream_and_keeps_its_count(tmp_path: Path) -> None:
    async with streaming(tmp_path) as (ds2d, _, held, turn):
        ds2d.change(upstreams=[])
        assert ds2d.daemon.queue.running == 1
        status, answer, _ = await ds2d.ask(CHAT, ASK)
        assert (status, answer["error"]["code"]) == (503, "model_unavailable")
        assert await finished(held, turn)
        assert ds2d.daemon.queue.running == 0


async def test_an_account_that_was_removed_and_comes_back_still_counts_its_turns(tmp_path: Path) -> None:
    listed = [{"name": "a", "token": "tok-a", "max_inflight": 1}]
    async with streaming(tmp_path, accounts=listed, runtime={"queue_timeout_seconds": 0}) as (ds2d, upstream, held, turn):
        ds2d.change(accounts=[])
        ds2d.change(accounts=listed)
        assert (await ds2d.ask(CHAT, ASK))[0] == 429
        assert len(upstream.seen) == 1
        assert await finished(held, turn)
        assert (await ds2d.ask(CHAT, ASK))[0] == 200


@pytest.mark.parametrize("out", [{"disabled": True}, {"token": {"$file": "no-such.token"}}])
async def test_without_an_account_in_use_no_requests_should_come_here(tmp_path: Path, out: dict[str, Any]) -> None:
    """A load balancer would go on sending them, and each would be a 503."""
    account = {"name": "a", "token": "tok-a"}
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url, accounts=[account])) as ds2d:
        assert (await ds2d.ask("/readyz", key=None))[:2] == (200, {"status": "ready"})
        ds2d.change(accounts=[{**account, **out}])
        assert (await ds2d.ask(CHAT, ASK))[0] == 503
        assert (await ds2d.ask("/readyz", key=None))[0] == 503
        ds2d.change(upstreams=[{**ds2d.config()["upstreams"][0], "direct_token": True}])
        assert (await ds2d.ask("/readyz", key=None))[0] == 200, "callers bring their own"
        ds2d.change(accounts=[account], upstreams=config_for(upstream.base_url)["upstreams"])
        assert (await ds2d.ask("/readyz", key=None))[0] == 200


async def test_a_gap_that_was_too_long_by_mistake_ends_with_the_mistake(tmp_path: Path) -> None:
    runtime = {"min_request_gap_ms": 600_000}
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url, runtime=runtime)) as ds2d:
        assert (await ds2d.ask(CHAT, ASK))[0] == 200
        waiting = asyncio.create_task(ds2d.ask(CHAT, ASK))
        await until(lambda: ds2d.daemon.queue.waiting == 1)
        ds2d.change(runtime={"min_request_gap_ms": 60})
        async with asyncio.timeout(20):
            assert (await waiting)[0] == 200
            assert (await ds2d.ask(CHAT, ASK))[0] == 200


LISTED = json.dumps({"object": "list", "data": [{"id": "deepseek-tiny", "object": "model", "owned_by": "vllm"}]}).encode()


async def test_a_question_waits_for_the_first_look_at_an_upstream_that_is_new(tmp_path: Path) -> None:
    looked_at = Wait()
    async with scripted_upstream() as upstream, scripted_upstream() as silent, running(tmp_path, {"keys": [KEY]}) as ds2d:
        upstream.pages["/v1/models"] = Scene([looked_at, LISTED], content_type="application/json")
        silent.pages["/v1/models"] = Scene([Wait(), LISTED], content_type="application/json")
        entries = [
            config_for(one.base_url)["upstreams"][0] | {"name": name} for name, one in (("new", upstream), ("silent", silent))
        ]
        ds2d.change(upstreams=entries)
        turn = asyncio.create_task(ds2d.ask(CHAT, ASK))
        await looked_at.reached.wait()
        assert not turn.done()
        looked_at.until.set()
        status, answer, _ = await turn
        assert status == 200, answer


async def test_it_waits_no_longer_than_that_and_not_for_one_that_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with scripted_upstream() as upstream, running(tmp_path, {"keys": [KEY]}) as ds2d:
        await upstream.stop()
        ds2d.change(upstreams=config_for(upstream.base_url)["upstreams"])
        assert (await ds2d.ask(CHAT, ASK))[0] == 503
        await upstream.start()
        upstream.pages["/v1/models"] = Scene([Wait(), LISTED], content_type="application/json")
        monkeypatch.setattr(answer_module, "FIRST_SECONDS", 0.05)
        ds2d.change(upstreams=config_for(upstream.base_url)["upstreams"])
        assert (await ds2d.ask(CHAT, ASK))[0] == 503


@pytest.mark.parametrize("there", [True, False], ids=["another in its place", "none"])
async def test_who_waits_for_an_upstream_that_goes_is_answered_by_the_one_in_its_place(tmp_path: Path, there: bool) -> None:
    limit = {"runtime": {"account_max_inflight": 1}, "accounts": [{"name": "a", "upstream": "gpu", "token": "t"}]}
    async with streaming(tmp_path, **limit) as (ds2d, _, held, turn), scripted_upstream() as second:
        second.answer_text = "from the second"
        waiting = asyncio.create_task(ds2d.ask(CHAT, ASK))
        await until(lambda: ds2d.daemon.queue.waiting == 1)
        (upstream,) = ds2d.config()["upstreams"]
        others = [{**upstream, "name": "second", "base_url": second.base_url}]
        ds2d.change(accounts=[], upstreams=others if there else [])
        status, answer, _ = await waiting
        assert (status, "from the second" in str(answer)) == ((200, True) if there else (503, False))
        assert await finished(held, turn)
        assert (ds2d.daemon.queue.running, ds2d.daemon.queue.waiting) == (0, 0)


async def test_a_higher_limit_wakes_those_who_wait(tmp_path: Path) -> None:
    listed = [{"name": "a", "token": "tok-a"}]
    async with streaming(tmp_path, accounts=listed, runtime={"account_max_inflight": 1}) as (ds2d, _, held, turn):
        waiting = asyncio.create_task(ds2d.ask(CHAT, ASK))
        await until(lambda: ds2d.daemon.queue.waiting == 1)
        ds2d.change(runtime={"account_max_inflight": 2})
        async with asyncio.timeout(20):
            assert (await waiting)[0] == 200
        assert not turn.done()
        assert await finished(held, turn)


async def test_a_lower_limit_cuts_nobody_and_holds_for_the_next(tmp_path: Path) -> None:
    listed = [{"name": "a", "token": "tok-a"}]
    runtime = {"account_max_inflight": 2, "queue_timeout_seconds": 0}
    async with streaming(tmp_path, accounts=listed, runtime=runtime) as (ds2d, _, held, turn):
        ds2d.change(runtime={**runtime, "account_max_inflight": 1})
        assert (await ds2d.ask(CHAT, ASK))[0] == 429
        assert await finished(held, turn)


async def test_a_running_turn_keeps_the_config_it_started_with(tmp_path: Path) -> None:
    async with streaming(tmp_path) as (ds2d, _, held, turn):
        snapshot = next(iter(ds2d.daemon.service.turns.values())).config
        ds2d.change(runtime={"max_attempts": 1}, model_aliases={"x": "deepseek-chat"})
        assert next(iter(ds2d.daemon.service.turns.values())).config is snapshot
        assert ds2d.daemon.config() is not snapshot
        assert await finished(held, turn)


@pytest.mark.parametrize("broken", BROKEN)
async def test_a_broken_file_changes_nothing_and_is_named(tmp_path: Path, broken: str) -> None:
    async with streaming(tmp_path) as (ds2d, _, held, turn):
        good = ds2d.path.read_text()
        ds2d.path.write_text(broken)
        ds2d.daemon.store.reload()
        assert (await ds2d.ask(CHAT, ASK))[0] == 200
        status, details, _ = await ds2d.ask("/readyz?verbose", key=None)
        assert (status, details["status"]) == (200, "ready")
        assert details["config"]["problem"]
        assert KEY not in json.dumps(details)
        ds2d.path.write_text(good)
        ds2d.daemon.store.reload()
        assert (await ds2d.ask("/readyz?verbose", key=None))[1]["config"]["problem"] == []
        assert await finished(held, turn)


async def test_a_missing_file_changes_nothing_and_is_named(tmp_path: Path) -> None:
    async with streaming(tmp_path) as (ds2d, _, held, turn):
        ds2d.path.unlink()
        ds2d.daemon.store.reload()
        assert (await ds2d.ask(CHAT, ASK))[0] == 200
        assert (await ds2d.ask("/readyz?verbose", key=None))[1]["config"]["problem"]
        assert await finished(held, turn)


async def test_a_key_that_needs_a_restart_is_named_until_it_has_one(tmp_path: Path) -> None:
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        ds2d.change(server={"max_connections": 7})
        details = (await ds2d.ask("/readyz?verbose", key=None))[1]
        assert details["config"]["pending_restart"] == ["server.max_connections"]


async def test_a_write_counts_within_a_second_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within a second of a machine that has one to spare; here only that it is the file system's report that brings it."""
    monkeypatch.setattr(store_module, "POLL", 60)
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        for number, style in enumerate(STYLES):
            await asyncio.to_thread(write, style, ds2d.path, {**ds2d.config(), "model_aliases": {"live": f"alias-{number}"}})
            await until(lambda number=number: ds2d.daemon.config().model_aliases.get("live") == f"alias-{number}", 20)


async def test_a_storm_of_rewrites_fails_no_request_and_cuts_no_stream(tmp_path: Path) -> None:
    """Every editor's way, one in five broken, with pauses in mid-write, watched by the daemon itself."""
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        before = ds2d.daemon.config().generation
        result = await storm(ds2d, writes=200, clients=8)
        assert result.failed == []
        assert result.served > 50
        assert ds2d.daemon.config().generation >= before + result.counted == before + 21
        assert ds2d.daemon.store.problem is None
        assert (ds2d.daemon.queue.running, ds2d.daemon.queue.waiting) == (0, 0)
        assert (await ds2d.ask(CHAT, {**ASK, "model": "storm"}))[0] == 200
