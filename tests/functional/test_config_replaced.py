"""A token, a server or its name is replaced in config.json while turns run on the old one or wait for it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from tests.functional.harness import Running, config_for, running
from tests.functional.scripted import Scene, Seen, Wait, refuse, say, scripted_upstream
from tests.functional.storm import ASK, CHAT, STREAM
from tests.functional.test_queue import until

Asked = asyncio.Task[tuple[int, Any, dict[str, str]]]


def held_stream() -> tuple[Scene, Wait]:
    """A streamed answer that stops in its middle, until it is let go."""
    held = Wait()
    frames = say("Hel", "lo")
    return Scene([*frames[:2], held, *frames[2:]]), held


@contextlib.asynccontextmanager
async def one_runs_and_one_waits(folder: Path) -> AsyncIterator[tuple[Running, Wait, Asked, Asked]]:
    """The daemon; what holds the answer that runs; the question that gets it, and the one that waits for its slot."""
    async with scripted_upstream() as upstream:
        config = config_for(upstream.base_url)
        config["upstreams"][0]["max_inflight"] = 1
        async with running(folder, config) as ds2d:
            scene, held = held_stream()
            upstream.scenes.append(scene)
            first = asyncio.create_task(ds2d.ask(CHAT, STREAM))
            await held.reached.wait()
            second = asyncio.create_task(ds2d.ask(CHAT, ASK))
            await until(lambda: ds2d.daemon.queue.waiting == 1)
            yield ds2d, held, first, second


async def test_a_late_refusal_of_the_old_token_does_not_put_the_new_one_aside(tmp_path: Path) -> None:
    async with scripted_upstream() as upstream:
        config = config_for(upstream.base_url, accounts=[{"name": "a", "token": "tok-old"}])
        async with running(tmp_path, config) as ds2d:
            held = Wait()
            refusal = Scene([b'{"error": {"message": "no such key"}}', held], 401, content_type="application/json")

            def decide(seen: Seen) -> Scene | None:
                return refusal if seen.headers["authorization"] == "Bearer tok-old" else None

            upstream.decide = decide
            turn = asyncio.create_task(ds2d.ask(CHAT, ASK))
            await held.reached.wait()
            ds2d.change(accounts=[{"name": "a", "token": "tok-new"}])
            held.until.set()
            assert (await turn)[0] == 200, "the new token was there to be tried"
            assert (await ds2d.ask(CHAT, ASK))[0] == 200


async def test_streams_that_end_with_the_old_server_say_nothing_against_the_new_one(tmp_path: Path) -> None:
    async with scripted_upstream() as old, scripted_upstream() as new:
        config = config_for(old.base_url)
        async with running(tmp_path, config) as ds2d:
            scenes, helds = zip(*(held_stream() for _ in range(6)), strict=True)
            old.scenes += scenes
            turns = [asyncio.create_task(ds2d.ask(CHAT, STREAM)) for _ in scenes]
            await asyncio.gather(*(held.reached.wait() for held in helds))
            ds2d.change(upstreams=[{**config["upstreams"][0], "base_url": new.base_url, "poll_seconds": 60}])
            await until(lambda: ds2d.daemon.catalog.states() == {"gpu": "ready"})
            await old.stop()
            await asyncio.gather(*turns)
            assert ds2d.daemon.catalog.states() == {"gpu": "ready"}
            assert (await ds2d.ask(CHAT, ASK))[0] == 200


async def test_a_stream_that_ends_well_at_the_old_server_does_not_make_the_new_one_ready(tmp_path: Path) -> None:
    async with scripted_upstream() as old, scripted_upstream() as new:
        config = config_for(old.base_url)
        await new.stop()
        async with running(tmp_path, config) as ds2d:
            scene, held = held_stream()
            old.scenes.append(scene)
            turn = asyncio.create_task(ds2d.ask(CHAT, STREAM))
            await held.reached.wait()
            ds2d.change(upstreams=[{**config["upstreams"][0], "base_url": new.base_url, "poll_seconds": 60}])
            await until(lambda: ds2d.daemon.catalog.states() == {"gpu": "down"})
            held.until.set()
            assert (await turn)[0] == 200
            assert ds2d.daemon.catalog.states() == {"gpu": "down"}


async def test_who_waits_while_the_server_moves_brings_its_new_token_to_the_new_address(tmp_path: Path) -> None:
    """The new token is the new server's: the old one must not even see it."""
    async with scripted_upstream() as old, scripted_upstream() as new:
        config = config_for(old.base_url, accounts=[{"name": "a", "token": "tok-old", "max_inflight": 1}])
        async with running(tmp_path, config) as ds2d:
            scene, held = held_stream()
            old.scenes.append(scene)
            first = asyncio.create_task(ds2d.ask(CHAT, STREAM))
            await held.reached.wait()
            second = asyncio.create_task(ds2d.ask(CHAT, ASK))
            await until(lambda: ds2d.daemon.queue.waiting == 1)
            moved = {**config["upstreams"][0], "base_url": new.base_url}
            ds2d.change(upstreams=[moved], accounts=[{"name": "a", "token": "tok-new", "max_inflight": 1}])
            held.until.set()
            assert ((await first)[0], (await second)[0]) == (200, 200)
            assert [seen.headers["authorization"] for seen in old.seen] == ["Bearer tok-old"]
            assert [seen.headers["authorization"] for seen in new.seen] == ["Bearer tok-new"]
            assert ds2d.daemon.queue.running == 0


async def test_who_waits_while_the_server_is_renamed_is_served_under_its_new_name(tmp_path: Path) -> None:
    async with one_runs_and_one_waits(tmp_path) as (ds2d, held, first, second):
        ds2d.change(upstreams=[{**ds2d.config()["upstreams"][0], "name": "big-gpu"}])
        assert (await second)[0] == 200
        held.until.set()
        assert (await first)[0] == 200
        assert ds2d.daemon.queue.running == 0


async def test_who_waits_for_a_server_that_is_removed_is_refused_at_once(tmp_path: Path) -> None:
    async with one_runs_and_one_waits(tmp_path) as (ds2d, held, first, second):
        ds2d.change(upstreams=[])
        status, answer, _ = await second
        assert (status, answer["error"]["code"]) == (503, "model_unavailable")
        held.until.set()
        assert (await first)[0] == 200


async def test_a_token_that_is_mended_has_its_server_looked_at_at_once(tmp_path: Path) -> None:
    """A server that refuses the look is left alone for a minute: for so long its models were unknown, whatever was done."""
    async with scripted_upstream() as upstream:
        upstream.pages["/v1/models"] = refuse(401, {"error": {"message": "no such key"}})
        config = config_for(upstream.base_url, accounts=[{"name": "a", "token": "tok-mistyped"}])
        async with running(tmp_path, config) as ds2d:
            by_name = {**ASK, "model": "deepseek-tiny"}
            await until(lambda: upstream.polls > 2)
            assert (await ds2d.ask(CHAT, by_name))[0] == 404
            del upstream.pages["/v1/models"]
            ds2d.change(accounts=[{"name": "a", "token": "tok-right"}])
            await until(lambda: ds2d.daemon.catalog.states() == {"gpu": "ready"}, 10)
            await until(lambda: bool(ds2d.daemon.catalog.details()["gpu"]["models"]), 10)
            assert (await ds2d.ask(CHAT, by_name))[0] == 200


async def test_a_header_that_is_mended_has_the_accounts_back_at_once(tmp_path: Path) -> None:
    """What a server refused may have been in the headers that config adds: then it is no news about the accounts any more."""
    async with scripted_upstream() as upstream:
        config = config_for(upstream.base_url, accounts=[{"name": "a", "token": "tok-a"}])
        config["upstreams"][0]["headers"] = {"x-team": "mistyped"}

        def decide(seen: Seen) -> Scene | None:
            return refuse(401, {"error": {"message": "who?"}}) if seen.headers["x-team"] == "mistyped" else None

        upstream.decide = decide
        async with running(tmp_path, config) as ds2d:
            assert [(await ds2d.ask(CHAT, ASK))[0] for _ in range(2)] == [503, 503]
            ds2d.change(upstreams=[{**config["upstreams"][0], "headers": {"x-team": "right"}}])
            assert (await ds2d.ask(CHAT, ASK))[0] == 200
