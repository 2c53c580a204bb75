"""The event loop has time for everybody: what takes long is done elsewhere, and how late the loop comes is told."""

from __future__ import annotations

import asyncio
import io
import json
from pathlib import Path

import pytest

from ds2d.app import BIG_TEXT
from ds2d.service import gauges
from ds2d.service.gauges import LoopLag
from tests.functional.harness import config_for, running
from tests.functional.scripted import scripted_upstream
from tests.functional.stalls import watching_the_loop
from tests.functional.test_every_dialect import QUESTIONS
from tests.functional.test_queue import until

SLACK = 0.05
"""Seconds of the loop's own CPU. The promise is 20 ms of a quiet machine; the test's clients and servers are in the same loop."""


async def test_long_token_counts_leave_the_loop_alone(tmp_path: Path) -> None:
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        await until(lambda: ds2d.daemon.tokenizer.loaded)
        text = "All the words of a long answer, once more. " * 50_000
        assert len(text) > BIG_TEXT
        async with watching_the_loop() as stall:
            counted = await ds2d.daemon.toolbox.count_text(text)
        assert counted > 400_000
        assert stall.worst < 0.02


async def test_large_bodies_and_many_turns_leave_the_loop_alone(tmp_path: Path) -> None:
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        await until(lambda: ds2d.daemon.tokenizer.loaded)
        large = json.dumps({"model": "deepseek-nope", "messages": [{"role": "user", "content": "word " * 800_000}]}).encode()
        upstream.answer_as_completion()
        async with watching_the_loop() as stall:
            turns = [ds2d.ask(path, body) for path, body, _, _ in QUESTIONS.values() if "completions" not in path]
            answers = await asyncio.gather(*turns, ds2d.ask("/v1/chat/completions", data=io.BytesIO(large), method="POST"))
        assert [status for status, _, _ in answers] == [200, 200, 200, 404]
        assert stall.worst < SLACK


async def test_how_late_the_loop_comes_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gauges, "LOOK_SECONDS", 0.0)
    ticks = iter([10.0, 10.0, 10.0, 10.5, 10.5, 10.5, *[11.0] * 1000])
    lag = LoopLag(lambda: next(ticks))
    assert (lag.last, lag.worst) == (0.0, 0.0)
    task = asyncio.create_task(lag.run())
    await until(lambda: lag.sizes()["looks"].now >= 4)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert lag.worst == 0.5
    assert lag.last == 0.0
    assert lag.sizes()["looks"].bound == gauges.WINDOW_LOOKS
