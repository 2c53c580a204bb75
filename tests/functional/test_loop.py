"""The event loop has time for everybody: what takes long is done elsewhere, and how late the loop comes is told."""

from __future__ import annotations

import asyncio
import io
import json
from pathlib import Path
from typing import Any

import pytest

from ds2d.core.gather import AT_ONCE
from ds2d.service import gauges
from ds2d.service.gauges import LoopLag
from tests.functional.harness import CARRIERS, config_for, running
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


async def test_a_large_body_and_many_turns_leave_the_loop_alone(tmp_path: Path) -> None:
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        await until(lambda: ds2d.daemon.counter.loaded)
        large = json.dumps({"model": "deepseek-nope", "messages": [{"role": "user", "content": "word " * 800_000}]}).encode()
        upstream.answer_as_completion()
        async with watching_the_loop() as stall:
            turns = [ds2d.ask(path, body) for path, body, _, _ in QUESTIONS.values() if "completions" not in path]
            answers = await asyncio.gather(*turns, ds2d.ask("/v1/chat/completions", data=io.BytesIO(large), method="POST"))
        assert [status for status, _, _ in answers] == [200, 200, 200, 404]
        assert stall.worst < SLACK


def asking(*messages: dict[str, Any]) -> bytes:
    """A question to a model that nobody has: it is read and understood, and reaches no server of the test's."""
    return json.dumps({"model": "deepseek-nope", "messages": messages}).encode()


VERY_LARGE = {
    "text of 28 MB": lambda: asking({"role": "user", "content": "word " * 5_600_000}),
    "16 MB of small messages": lambda: asking(*[{"role": "user", "content": "word " * 60}] * 49_000),
    "an image of 20 MB": lambda: asking(
        {
            "role": "user",
            "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64," + "QUJD" * 5_000_000}}],
        }
    ),
}


@pytest.mark.parametrize("shape", VERY_LARGE)
async def test_very_large_bodies_leave_the_loop_alone(tmp_path: Path, shape: str) -> None:
    body = io.BytesIO(VERY_LARGE[shape]())
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        await until(lambda: ds2d.daemon.counter.loaded)
        async with watching_the_loop() as stall:
            status, answer, _ = await ds2d.ask("/v1/chat/completions", data=body, method="POST")
        assert status == 404, answer
        assert stall.worst < SLACK


@pytest.mark.parametrize("carrier", CARRIERS)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses", "/v1/messages"])
async def test_a_large_question_arrives_whole(tmp_path: Path, carrier: str, path: str) -> None:
    text = 'A line of "code" \\ and 好.\n' * 350_000
    said = {"input": text} if "responses" in path else {"messages": [{"role": "user", "content": text}], "max_tokens": 9}
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url), carrier=carrier) as ds2d:
        body = io.BytesIO(json.dumps({"model": "deepseek-chat", **said}).encode())
        status, answer, _ = await ds2d.ask(path, data=body, method="POST", headers={"Idempotency-Key": "once"})
        assert status == 200, answer
        (seen,) = upstream.seen
        assert len(seen.raw) > AT_ONCE
        assert seen.body["messages"] == [{"role": "user", "content": text}]


async def test_what_is_recalled_for_a_large_question_is_looked_up_on_the_loop(tmp_path: Path) -> None:
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        _, first, _ = await ds2d.ask("/v1/responses", {"model": "deepseek-chat", "input": "My name is Ada."})
        more = {"model": "deepseek-chat", "input": "word " * 300_000, "previous_response_id": first["id"]}
        status, answer, _ = await ds2d.ask("/v1/responses", data=io.BytesIO(json.dumps(more).encode()), method="POST")
        assert status == 200, answer
        assert upstream.seen[-1].body["messages"][0]["content"] == "My name is Ada."


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
