"""Streams that go straight from the upstream's read to the client's connection: that they do, and what happens around it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from ds2d.net import links
from ds2d.web.server import Connection
from ds2d.web.streaming import ClientStream
from tests.functional.harness import KEY, Running, config_for, running
from tests.functional.scripted import END, Scene, ScriptedUpstream, Wait, chunk, say, scripted_upstream, sse, usage, whole
from tests.functional.test_queue import until

QUESTION: dict[str, Any] = {"model": "deepseek-chat", "messages": [{"role": "user", "content": "x"}]}
own_connections = pytest.mark.skipif(
    os.environ.get("DS2D_TEST_CARRIER") == "library", reason="this run is about the other carrier"
)


def head_of(version: str, body: bytes) -> bytes:
    head = f"POST /v1/chat/completions HTTP/{version}\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode()


async def ask(ds2d: Running, stream: bool = True) -> tuple[int, Any]:
    status, answer, _ = await ds2d.ask("/v1/chat/completions", {**QUESTION, "stream": stream})
    return status, answer


@own_connections
async def test_all_but_the_first_output_is_put_without_waking_a_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = {"put": 0, "write": 0}
    put, write = ClientStream.put, ClientStream.write

    def counted_put(self: ClientStream, data: bytes) -> bool:
        counts["put"] += 1
        return put(self, data)

    async def counted_write(self: ClientStream, data: bytes) -> None:
        counts["write"] += 1
        await write(self, data)

    monkeypatch.setattr(ClientStream, "put", counted_put)
    monkeypatch.setattr(ClientStream, "write", counted_write)
    waits = [Wait() for _ in range(5)]
    frames = say("a", "b", "c", "d", "e")
    pieces: list[Any] = frames[:1]
    for frame, wait in zip(frames[1:6], waits, strict=True):
        pieces += [wait, frame]
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        upstream.scenes.append(Scene([*pieces, *frames[6:]]))
        asked = asyncio.create_task(ask(ds2d))
        for done, wait in enumerate(waits):
            await wait.reached.wait()
            await until(lambda done=done: counts["put"] + counts["write"] >= done)
            wait.until.set()
        status, text = await asked
        assert status == 200
        assert text.endswith("data: [DONE]\n\n")
        assert counts["put"] >= 3
        assert counts["write"] <= 3  # the first, and the last frame


@own_connections
async def test_a_client_that_takes_nothing_holds_its_upstream_back(tmp_path: Path) -> None:
    sent = 0
    block = sse(chunk({"content": "x" * 60_000}), done=False)[0]

    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        frames = [block] * 1000  # 60 MB
        first, last = chunk({"role": "assistant", "content": ""}), sse(chunk({}, "stop"), usage())
        upstream.scenes.append(Scene([*sse(first, done=False), *frames, *last]))
        reader, writer = await asyncio.open_connection("127.0.0.1", ds2d.port, limit=2**16)
        body = b'{"model":"deepseek-chat","stream":true,"messages":[{"role":"user","content":"x"}]}'
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        await until(lambda: bool(upstream.seen))
        (seen,) = upstream.seen
        paused = asyncio.Event()
        pause = links.Link.pause

        def told(self: links.Link) -> None:
            paused.set()
            pause(self)

        links.Link.pause = told  # type: ignore[method-assign]
        try:
            await asyncio.wait_for(paused.wait(), 20)
        finally:
            links.Link.pause = pause  # type: ignore[method-assign]
        assert not seen.done.is_set()
        while data := await reader.read(2**20):  # now it reads, and gets everything
            sent += len(data)
            if b"[DONE]" in data[-100:]:
                break
        assert sent > 60_000_000
        writer.close()


@own_connections
@pytest.mark.parametrize("retries", [False, True], ids=["once", "sdk"])
@pytest.mark.parametrize("speaks", [False, True], ids=["silent", "flowing"])
async def test_the_upstream_is_closed_in_the_moment_in_which_the_client_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, speaks: bool, retries: bool
) -> None:
    """Not when its task runs again: of many that go at once the last would wait for what is done about all the others."""
    closed: list[bool] = []
    lost = Connection.connection_lost

    def told(self: Connection, error: BaseException | None) -> None:
        lost(self, error)
        closed.append(all(link._answer is None for link in open_links(ds2d)))

    async with scripted_upstream() as upstream:
        settings = config_for(upstream.base_url)
        settings["upstreams"][0]["poll_seconds"] = 3600
        async with running(tmp_path, settings) as ds2d:
            wait = Wait()
            upstream.scenes.append(Scene([*(say("a")[:2] if speaks else []), wait]))
            reader, writer = await asyncio.open_connection("127.0.0.1", ds2d.port)
            body = b'{"model":"deepseek-chat","stream":true,"messages":[{"role":"user","content":"x"}]}'
            more = b"x-stainless-retry-count: 0\r\n" if retries else b""
            head, end = head_of("1.1", body).split(b"\r\n\r\n")
            writer.write(head + b"\r\n" + more + b"\r\n" + end + body)
            await wait.reached.wait()
            if speaks:
                await reader.readuntil(b'"content":"a"')
            await until(lambda: all(turn.pipeline is not None for turn in ds2d.daemon.service.turns.values()))
            assert any(link._answer is not None for link in open_links(ds2d))
            monkeypatch.setattr(Connection, "connection_lost", told)
            writer.transport.abort()
            await until(lambda: bool(closed))
            assert closed == [True]


def open_links(ds2d: Running) -> set[links.Link]:
    pool = ds2d.daemon.client._pool
    assert pool is not None
    return pool.links


@pytest.mark.parametrize("more", ["", "Connection: keep-alive\r\n"])
async def test_a_client_of_http_1_0_gets_its_stream(tmp_path: Path, more: str) -> None:
    """Without chunks its end is the end of the connection: one that was to be kept was waited on until it was idle for long."""
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        reader, writer = await asyncio.open_connection("127.0.0.1", ds2d.port)
        body = b'{"model":"deepseek-chat","stream":true,"messages":[{"role":"user","content":"x"}]}'
        writer.write(head_of("1.0", body).replace(b"\r\n\r\n", f"\r\n{more}\r\n".encode()) + body)
        async with asyncio.timeout(20):
            head, _, text = (await reader.read()).partition(b"\r\n\r\n")
        assert b"chunked" not in head.lower()
        assert text.endswith(b"data: [DONE]\n\n")
        writer.close()


def connections(upstream: ScriptedUpstream) -> set[Any]:
    return set(upstream._writers)


async def test_connections_are_used_again_after_streams_and_whole_answers(tmp_path: Path) -> None:
    async with scripted_upstream() as upstream:
        settings = config_for(upstream.base_url)
        settings["upstreams"][0]["poll_seconds"] = 3600
        async with running(tmp_path, settings) as ds2d:
            assert (await ask(ds2d))[0] == 200
            before = connections(upstream)
            for stream in (True, False, True):
                assert (await ask(ds2d, stream))[0] == 200
            assert connections(upstream) == before


async def test_a_connection_that_the_server_closed_meanwhile_is_not_used(tmp_path: Path) -> None:
    async with scripted_upstream() as upstream:
        settings = config_for(upstream.base_url)
        settings["upstreams"][0]["poll_seconds"] = 3600
        async with running(tmp_path, settings) as ds2d:
            for _ in range(3):
                assert (await ask(ds2d))[0] == 200
                for writer in connections(upstream):
                    writer.close()
                await until(lambda: not connections(upstream))


async def test_an_answer_that_says_close_is_whole_and_its_connection_is_not_kept(tmp_path: Path) -> None:
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        scene = whole({"content": "Hello"})
        scene.headers["Connection"] = "close"
        scene.pieces.append(b"")  # the last chunk
        scene.pieces.append(END)
        upstream.scenes.append(scene)
        status, answer = await ask(ds2d, stream=False)
        assert (status, answer["choices"][0]["message"]["content"]) == (200, "Hello")
        assert (await ask(ds2d))[0] == 200
