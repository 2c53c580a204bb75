"""The end of a process, in every dialect: what runs is finished, or ended in its own words (reliability.md, promise 8)."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from ds2d.app import QUIET_SECONDS
from tests.functional.harness import KEY, Running, config_for, running
from tests.functional.scripted import Scene, ScriptedUpstream, Wait, chunk, scripted_upstream, sse, usage
from tests.functional.test_every_dialect import ENDS, QUESTIONS

HEADERS = {"Authorization": f"Bearer {KEY}"}
ERRORS = {
    "chat": '"code":"shutting_down"',
    "completions": '"code":"shutting_down"',
    "responses": "event: response.failed",
    "claude": '"type":"overloaded_error"',
    "gemini": '"status":"UNAVAILABLE"',
}
"""What tells of it in the stream."""


def held(dialect: str, wait: Wait, *, streamed: bool) -> Scene:
    """An answer that stops in the middle until the test says so."""
    if dialect == "completions":
        head = {"id": "cmpl-up", "object": "text_completion", "created": 1763640000, "model": "up"}
        choice = {"index": 0, "text": "one ", "logprobs": None, "finish_reason": None}
        end = {**choice, "text": "two", "finish_reason": "stop"}
        pieces = sse(
            {**head, "choices": [choice]}, {**head, "choices": [end]}, {**head, "choices": [], "usage": usage()["usage"]}
        )
    else:
        pieces = sse(chunk({"role": "assistant", "content": "one "}), chunk({"content": "two"}), chunk({}, "stop"), usage())
    if streamed:
        return Scene([pieces[0], wait, *pieces[1:]])
    message = {"message": {"role": "assistant", "content": "one two"}, "text": "one two"}
    whole = {**chunk(), "object": "chat.completion", "choices": [{"index": 0, "finish_reason": "stop", **message}],
        "usage": usage()["usage"]}  # fmt: skip
    return Scene([wait, json.dumps(whole).encode()], content_type="application/json")


@contextlib.asynccontextmanager
async def draining(ds2d: Running) -> AsyncIterator[asyncio.Event]:
    """A drain that has begun; the event ends it at once."""
    at_once = asyncio.Event()
    drain = asyncio.create_task(ds2d.daemon.drain(at_once))
    while not ds2d.daemon.draining:  # noqa: ASYNC110 - it is set in the first step of the drain
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    try:
        yield at_once
    finally:
        at_once.set()
        async with asyncio.timeout(20):
            await drain


async def kept(ds2d: Running) -> aiohttp.ClientSession:
    """A client with one accepted connection."""
    http = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1), headers=HEADERS)
    async with http.get(ds2d.url + "/healthz") as reply:
        await reply.read()
    return http


def question(upstream: ScriptedUpstream, dialect: str, *, streamed: bool) -> tuple[Wait, str, dict[str, Any]]:
    """A question whose answer is held: the hold, its path and its body."""
    wait = Wait()
    upstream.scenes.append(held(dialect, wait, streamed=streamed))
    path, body, stream_path, more = QUESTIONS[dialect]
    return wait, stream_path if streamed else path, {**body, **more} if streamed else body


@pytest.mark.parametrize("dialect", QUESTIONS)
async def test_what_runs_is_finished_and_who_is_connected_is_served_once(tmp_path: Path, dialect: str) -> None:
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        probe, caller = await kept(ds2d), await kept(ds2d)
        wait, path, body = question(upstream, dialect, streamed=True)
        whole_wait, whole_path, whole_body = question(upstream, dialect, streamed=False)
        async with probe, caller, ds2d.http.post(ds2d.url + path, json=body, headers=HEADERS) as stream:
            await wait.reached.wait()
            whole = asyncio.create_task(ds2d.ask(whole_path, whole_body))
            await whole_wait.reached.wait()
            async with draining(ds2d):
                async with probe.get(ds2d.url + "/readyz") as reply:
                    assert (reply.status, reply.headers["Connection"]) == (503, "close")
                with pytest.raises(aiohttp.ClientConnectorError):
                    await probe.get(ds2d.url + "/readyz")
                late_wait, late_path, late_body = question(upstream, dialect, streamed=True)
                async with caller.post(ds2d.url + late_path, json=late_body) as late:
                    assert (late.status, late.headers["Connection"]) == (200, "close")
                    for one in (wait, whole_wait, late_wait):
                        one.until.set()
                    assert ENDS[dialect] in await late.text()
                assert ENDS[dialect] in await stream.text()
                status, answer, _ = await whole
                assert (status, "one two" in json.dumps(answer)) == (200, True)


@pytest.mark.parametrize("how", ["at_once", "time_up"])
@pytest.mark.parametrize("dialect", QUESTIONS)
async def test_what_does_not_end_is_ended_in_its_own_words(tmp_path: Path, dialect: str, how: str) -> None:
    seconds = {"server": {"drain_seconds": 0 if how == "time_up" else 600}}
    limit = {"runtime": {"account_max_inflight": 2, "queue_timeout_seconds": 600}}
    accounts = [{"name": "a", "upstream": "gpu", "token": "t"}]
    async with (
        scripted_upstream() as upstream,
        running(tmp_path, config_for(upstream.base_url, accounts=accounts, **seconds, **limit)) as ds2d,
    ):
        wait, path, body = question(upstream, dialect, streamed=True)
        whole_wait, whole_path, whole_body = question(upstream, dialect, streamed=False)
        async with ds2d.http.post(ds2d.url + path, json=body, headers=HEADERS) as stream:
            await wait.reached.wait()
            whole = asyncio.create_task(ds2d.ask(whole_path, whole_body))
            await whole_wait.reached.wait()
            queued = asyncio.create_task(ds2d.ask(path, body))
            while ds2d.daemon.queue.waiting == 0:  # noqa: ASYNC110 - no event of ours
                await asyncio.sleep(0.01)
            async with draining(ds2d) as at_once:
                if how == "at_once":
                    at_once.set()
                text = await stream.text()
                assert ERRORS[dialect] in text
                assert ENDS[dialect] not in text
                for status, answer, headers in (await whole, await queued):
                    assert (status, headers["connection"]) == (503, "close")
                    assert answer["error"]["message"] == "The gateway is shutting down."
        async with asyncio.timeout(20):
            await upstream.seen[0].closed.wait()
            await upstream.seen[1].closed.wait()
        assert ds2d.daemon.queue.running == 0


@pytest.mark.parametrize("sent", ["half_a_head", "half_a_body"])
async def test_a_request_that_is_still_arriving_is_served(tmp_path: Path, sent: str) -> None:
    path, body, _, _ = QUESTIONS["chat"]
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Length: {len(data)}\r\n\r\n".encode()
    cut = 40 if sent == "half_a_head" else len(head) + 10
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        reader, writer = await asyncio.open_connection("127.0.0.1", ds2d.port)
        writer.write((head + data)[:cut])
        runner = ds2d.daemon.listener.runner
        assert runner is not None
        while not runner.owes_answers():  # noqa: ASYNC110 - no event of ours
            await asyncio.sleep(0.01)
        drain = asyncio.create_task(ds2d.daemon.drain(asyncio.Event()))
        await asyncio.sleep(3 * QUIET_SECONDS)  # a drain that took no notice would be over
        assert not drain.done()
        writer.write((head + data)[cut:])
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 200")
        assert b"Connection: close" in answer
        async with asyncio.timeout(20):
            await drain
        writer.close()
