"""A bug of ours in a turn: a traceback in the log, "internal" for the client, and an end for everything that waits."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from ds2d.core.pipeline import Pipeline
from ds2d.state import response_routes
from tests.functional.harness import KEY, config_for, running
from tests.functional.scripted import Scene, Wait, say, scripted_upstream
from tests.functional.test_every_dialect import ENDS, QUESTIONS
from tests.functional.test_queue import until

DIALECTS = ["chat", "responses", "claude", "gemini"]


@pytest.mark.parametrize("when", ["before the first byte", "in the middle"])
@pytest.mark.parametrize("dialect", DIALECTS)
async def test_it_ends_the_stream_in_its_own_words(
    tmp_path: Path, dialect: str, when: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """In the middle, its client got another answer's head inside the stream, and waited for an end for ever."""
    _, body, path, more = QUESTIONS[dialect]
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        held, feed = Wait(), Pipeline.feed
        frames = say("one", " two")
        upstream.scenes.append(Scene([*frames[:2], held, *frames[2:]]))

        def fails(pipeline: Pipeline, chunk: bytes) -> bytes:
            assert when == "in the middle"
            assert b" two" not in chunk
            return feed(pipeline, chunk)

        monkeypatch.setattr(Pipeline, "feed", fails)
        async with asyncio.timeout(20):
            asking: asyncio.Task[Any] = asyncio.create_task(ds2d.ask(path, {**body, **more}))
            await held.reached.wait()
            if when == "in the middle":
                while not any(turn.first for turn in ds2d.daemon.service.turns.values()):  # noqa: ASYNC110 - no event of ours
                    await asyncio.sleep(0.01)
            held.until.set()
            status, answer, _ = await asking
        assert status == (200 if when == "in the middle" else 500)
        assert "Internal error." in str(answer)
        assert ENDS[dialect] not in str(answer)
        assert "bug in a turn" in caplog.text
        await until(lambda: ds2d.daemon.books.recent)
        (turn,) = ds2d.daemon.books.recent
        assert (turn["state"], turn["cause"]) == ("failed", "internal")
        assert (turn["tokens"]["delivered"] > 0) == (when == "in the middle")
        assert (ds2d.daemon.queue.running, ds2d.daemon.service.turns) == (0, {})


async def test_a_stream_that_its_handler_breaks_off_is_an_unfinished_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Not one that goes on with the head of another answer and has a whole end. The connection takes no other request."""

    async def events(*_: Any) -> AsyncIterator[bytes]:
        yield b"event: one\n\n"
        raise ValueError("a bug")

    monkeypatch.setattr(response_routes, "events", events)
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        reader, writer = await asyncio.open_connection("127.0.0.1", ds2d.port)
        head = f"GET /v1/responses/resp_1?stream=true HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n\r\n"
        with contextlib.closing(writer):
            writer.write(head.encode())
            async with asyncio.timeout(20):
                text = (await reader.read()).decode()
        assert text.startswith("HTTP/1.1 200 OK\r\n")
        assert text.endswith("c\r\nevent: one\n\n\r\n"), text
        assert "bug in a handler" in caplog.text
        assert "as HTTP" not in caplog.text, "what the client sent was right"
        assert "status=500" in caplog.text
