"""The event loop has time for everybody: what takes long is done elsewhere, and how late the loop comes is told."""

from __future__ import annotations

import asyncio
import io
import json
from pathlib import Path

import pytest

from ds2d.service import gauges
from ds2d.service.gauges import LoopLag
from tests.functional.harness import config_for, running
from tests.functional.scripted import scripted_upstream
from tests.functional.stalls import watching_the_loop
from tests.functional.test_every_dialect import QUESTIONS
from tests.functional.test_queue import until

SLACK = 0.05
"""Seconds of the loop's own CPU. The promise is 20 ms of a quiet machine; the test's clients and servers are in the same loop."""


async def test_the_vocabulary_and_long_token_counts_leave_the_loop_alone(tmp_path: Path) -> None:
    """Both are another process's work, so the interpreter is not held either, which a thread's CPU time would not show."""
    config = config_for("http://127.0.0.1:9/v1")
    async with running(tmp_path, config, counting_apart=True) as ds2d, watching_the_loop() as stall:
        await until(lambda: ds2d.daemon.counter.loaded)
        counted = await ds2d.daemon.toolbox.count_text("All the words of a long answer, once more. " * 50_000)
        assert counted > 400_000
        assert stall.worst < 0.02


async def test_large_bodies_and_many_turns_leave_the_loop_alone(tmp_path: Path) -> None:
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        await until(lambda: ds2d.daemon.counter.loaded)
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
    lag = LoopLag(lambda: next(ticks), lambda: True)
    assert (lag.last, lag.worst) == (0.0, 0.0)
    task = asyncio.create_task(lag.run())
    await until(lambda: lag.sizes()["looks"].now >= 4)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert lag.worst == 0.5
    assert lag.last == 0.0
    assert lag.sizes()["looks"].bound == gauges.WINDOW_LOOKS


class Looks:
    """A clock that stands while a look takes place, and goes on by what it sleeps and `late` more."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.late = 0.0
        self.pauses: list[float] = []
        self.more = asyncio.Queue[None]()
        self.done = asyncio.Queue[None]()
        monkeypatch.setattr(gauges.asyncio, "sleep", self._sleep)

    async def look(self) -> None:
        self.more.put_nowait(None)
        await self.done.get()

    async def _sleep(self, seconds: float) -> None:
        self.done.put_nowait(None)
        await self.more.get()
        self.pauses.append(seconds)
        self.now += seconds + self.late


async def test_it_is_seldom_looked_at_while_nothing_runs_and_the_worst_is_that_of_a_minute_still(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    busy = True
    looks = Looks(monkeypatch)
    lag = LoopLag(lambda: looks.now, lambda: busy)
    task = asyncio.create_task(lag.run())
    await looks.done.get()
    looks.late = 0.4
    await looks.look()
    looks.late, busy = 0.0, False
    await looks.look()
    assert lag.worst == pytest.approx(0.4)
    for _ in range(58):
        await looks.look()
    assert lag.worst == pytest.approx(0.4)
    for _ in range(2):
        await looks.look()
    assert lag.worst == 0.0
    assert looks.pauses == [0.1, 0.1, *[1.0] * 60]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
