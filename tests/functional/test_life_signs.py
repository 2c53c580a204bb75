"""Clients whose upstream has not even said a status get life signs, and after them whatever would have come without."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.functional.harness import KEY, Running, config_for, running
from tests.functional.scripted import RESET, Scene, ScriptedUpstream, Wait, say, scripted_upstream
from tests.functional.test_every_dialect import ENDS, QUESTIONS
from tests.functional.test_queue import until

SIGNS = dict.fromkeys(QUESTIONS, b": keep-alive\n\n") | {"gemini": b"\n"}
HEAD = b"HTTP/1.1 %b\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


class World:
    """A daemon before an upstream that says its status when the test lets it."""

    def __init__(self, ds2d: Running, upstream: ScriptedUpstream) -> None:
        self.ds2d = ds2d
        self.upstream = upstream
        self.waits: list[Wait] = []

    def says_late(self, head: bytes, pieces: list[bytes]) -> None:
        """The next request is answered like this, when its `Wait` is let go."""
        self.waits.append(Wait())
        self.upstream.scenes.append(Scene([self.waits[-1], HEAD % head, *pieces], raw=True))

    async def ask(self, dialect: str) -> tuple[aiohttp.ClientResponse, str]:
        """A streamed question; the upstream goes on once a life sign has come."""
        reply = await self.start(dialect)
        return reply, (await reply.content.read()).decode()

    async def start(self, dialect: str) -> aiohttp.ClientResponse:
        """The same; what follows the life sign is still to be read."""
        _, body, path, more = QUESTIONS[dialect]
        reply = await self.ds2d.http.post(self.ds2d.url + path, json={**body, **more}, headers={"Authorization": f"Bearer {KEY}"})
        got = await reply.content.readuntil(b"\n") if dialect == "gemini" else await reply.content.readuntil(b"\n\n")
        assert got == SIGNS[dialect]
        for wait in self.waits:
            wait.until.set()
        return reply


@pytest.fixture
async def world(tmp_path: Path) -> Any:
    async with scripted_upstream() as upstream:
        config = config_for(upstream.base_url, server={"keepalive_seconds": 1})
        async with running(tmp_path, config) as ds2d:
            yield World(ds2d, upstream)


@pytest.mark.parametrize("dialect", ["chat", "responses", "claude", "gemini"])
async def test_they_come_before_the_upstreams_status_and_the_answer_follows(world: World, dialect: str) -> None:
    world.says_late(b"200 OK", say("late but whole"))
    reply, rest = await world.ask(dialect)
    assert reply.status == 200
    assert reply.content_type == "text/event-stream"
    assert "late but whole" in rest
    assert ENDS[dialect] in rest


@pytest.mark.parametrize("dialect", ["chat", "responses", "claude", "gemini"])
async def test_a_failure_after_them_is_told_in_the_stream(world: World, dialect: str) -> None:
    for _ in range(3):
        world.says_late(b"500 Internal Server Error", [b"out of memory"])
    _, rest = await world.ask(dialect)
    assert '"error":' in rest
    assert ENDS[dialect] not in rest


async def test_another_attempt_may_follow_them(world: World) -> None:
    """A life sign is nothing of an answer."""
    world.says_late(b"503 Service Unavailable", [b"busy"])
    world.upstream.scenes.append(Scene(say("from the second attempt")))
    _, rest = await world.ask("chat")
    assert "from the second attempt" in rest
    assert ENDS["chat"] in rest
    assert len(world.upstream.seen) == 2


@pytest.mark.parametrize("dialect", ["chat", "responses", "claude", "gemini"])
async def test_an_answer_that_began_after_them_and_broke_is_not_begun_again(
    world: World, dialect: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The bytes that follow a life sign take a shorter way to the client; they are an answer's beginning all the same."""
    held = Wait()
    world.says_late(b"200 OK", [*say("the beginning", finish="")[:2], held, RESET])
    world.upstream.scenes.append(Scene(say("another answer")))
    reply = await world.start(dialect)
    got = b""
    while b"the beginning" not in got:
        got += await reply.content.readany()
    held.until.set()
    rest = (await reply.content.read()).decode()
    assert "another answer" not in rest
    assert '"error":' in rest
    assert ENDS[dialect] not in rest
    (turn,) = world.ds2d.daemon.books.recent
    assert [attempt["end"] for attempt in turn["tries"]] == ["upstream_disconnected"]
    assert "first_ms=" in caplog.text
    assert "first_ms=-" not in caplog.text


@pytest.mark.parametrize("told", [True, False], ids=["after the first", "before any"])
async def test_they_go_on_while_another_attempt_waits_in_the_queue_but_do_not_begin_there(tmp_path: Path, told: bool) -> None:
    """Who has had one hears nothing of the attempts and their waits; who has had none may still get a status."""
    config = {"server": {"keepalive_seconds": 1}, "runtime": {"account_max_inflight": 1, "account_max_queue": 10}}
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url, **config)) as ds2d:
        ds2d.change(accounts=[{"name": "one", "upstream": "gpu", "token": "t"}])
        fails, runs, frames = Wait(), Wait(), say("from", " another")
        upstream.scenes.append(Scene([fails, HEAD % b"500 Internal Server Error", b"out of memory"], raw=True))
        upstream.scenes.append(Scene([*frames[:2], runs, *frames[2:]]))
        _, body, path, more = QUESTIONS["chat"]
        asked = {**body, **more}
        headers = {"Authorization": f"Bearer {KEY}"}
        asking = asyncio.create_task(ds2d.http.post(ds2d.url + path, json=asked, headers=headers))
        await fails.reached.wait()
        if told:
            assert await (await asking).content.readuntil(b"\n\n") == SIGNS["chat"]
        other = asyncio.create_task(ds2d.ask(path, asked))
        await until(lambda: ds2d.daemon.queue.waiting == 1)
        fails.until.set()
        await runs.reached.wait()
        await until(lambda: ds2d.daemon.queue.waiting == 1)
        if told:
            assert await (await asking).content.readuntil(b"\n\n") == SIGNS["chat"]
        else:
            _, late = await asyncio.wait((asking,), timeout=1.5)  # longer than the clock under test
            assert late
        runs.until.set()
        assert "another" in (await other)[1]
        assert ENDS["chat"] in await (await asking).text()


async def test_a_whole_answer_keeps_its_status_open(world: World) -> None:
    hold = Wait()
    world.upstream.scenes.append(Scene([hold, b"HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\n\r\n{}"], raw=True))
    path, body, _, _ = QUESTIONS["chat"]
    asking = asyncio.create_task(world.ds2d.ask(path, body))
    await hold.reached.wait()
    hold.until.set()
    status, _, _ = await asking
    assert status == 400


async def test_who_follows_a_background_response_gets_them_too(world: World) -> None:
    """From its own request, and from a later one that asks for the events again."""
    world.says_late(b"200 OK", say("late but whole"))
    body = {"model": "deepseek-chat", "input": "Hello", "background": True, "stream": True}
    key = {"Authorization": f"Bearer {KEY}"}
    begun = await world.ds2d.http.post(world.ds2d.url + "/v1/responses", json=body, headers=key)
    first = await begun.content.readuntil(b"\n\n")
    made = json.loads(first.partition(b"data: ")[2])["response"]["id"]
    try:
        async with asyncio.timeout(5):
            again = await world.ds2d.http.get(f"{world.ds2d.url}/v1/responses/{made}?stream=true&starting_after=1", headers=key)
            assert await again.content.readuntil(b"\n\n") == b": keep-alive\n\n"
            await begun.content.readuntil(b": keep-alive\n\n")
    finally:
        world.waits[0].until.set()
    for reply in (begun, again):
        rest = (await reply.content.read()).decode()
        assert ("late but whole" in rest, rest.endswith("data: [DONE]\n\n")) == (True, True)
    status, whole, _ = await world.ds2d.ask(f"/v1/responses/{made}?stream=true")
    assert (status, "keep-alive" in whole) == (200, False)
