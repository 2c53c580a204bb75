"""Clients that leave at any moment, and how long it takes until their upstream knows.

The short form is a test (test_clients.py), the long one `scripts/departures`.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable
from typing import Any

from tests.functional.harness import KEY, Running
from tests.functional.scripted import Scene, ScriptedUpstream, Seen, Wait, say, whole
from tests.functional.test_every_dialect import QUESTIONS
from tests.functional.test_faults import as_text
from tests.functional.test_queue import until

MOMENTS = ("before the head", "before the first payload", "in the middle", "waiting")


class Departure:
    """One client: what it asks, when it leaves, and the upstream's side of it."""

    def __init__(self, number: int, dice: random.Random, moment: str) -> None:
        self.mark = f"departure {number} of a client"
        self.dialect = dice.choice(list(QUESTIONS))
        self.stream = dice.random() < 0.5
        self.moment = moment
        self.held = Wait()
        self.seen: Seen | None = None

    def request(self) -> bytes:
        """The question as bytes."""
        path, body, stream_path, more = QUESTIONS[self.dialect]
        where, what = (stream_path, {**body, **more}) if self.stream else (path, body)
        raw = json.dumps(what).replace('"Hello"', json.dumps(self.mark)).encode()
        head = f"POST {where} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Length: {len(raw)}\r\n\r\n"
        return head.encode() + raw

    def scene(self, seen: Seen) -> Scene:
        """The upstream's answer, held where the client leaves."""
        self.seen = seen
        if self.moment == "before the head":
            return Scene([self.held], raw=True)
        kind = "text/event-stream" if self.stream else "application/json"
        if self.moment == "before the first payload":
            return Scene([self.held], content_type=kind)
        frames = say("Hel", "lo") if self.stream else [piece[:40] for piece in whole({"content": "x"}).pieces]
        if self.dialect == "completions" and self.stream:
            frames = [as_text(frame) for frame in frames]
        return Scene([*frames[:3], self.held], content_type=kind)

    async def leave(self, ds2d: Running) -> float:
        """Come, leave, and tell the seconds until the upstream's connection, or the place in the queue, was free."""
        loop = asyncio.get_running_loop()
        reader, writer = await asyncio.open_connection("127.0.0.1", ds2d.port)
        waiting = ds2d.daemon.queue.waiting
        writer.write(self.request())
        if self.moment == "waiting":
            await until(lambda: ds2d.daemon.queue.waiting == waiting + 1)
        else:
            await self.held.reached.wait()
        if self.stream and self.moment == "in the middle":
            await reader.readuntil(b"Hel")
        began = loop.time()
        writer.transport.abort()
        if self.moment == "waiting":
            await until(lambda: ds2d.daemon.queue.waiting == waiting)
        else:
            assert self.seen is not None
            await self.seen.closed.wait()
        return loop.time() - began


async def departures(ds2d: Running, upstream: ScriptedUpstream, count: int, at_once: int = 10, seed: int = 7) -> list[float]:
    """So many clients leave, `at_once` of them in the same moment; those who wait do so behind as many as may run."""
    dice = random.Random(seed)
    took: list[float] = []
    running = [Departure(number, dice, dice.choice(MOMENTS[:3])) for number in range(count)]
    upstream.decide = _deciding({one.mark: one for one in running})
    for begin in range(0, count, at_once):
        took += await asyncio.gather(*(one.leave(ds2d) for one in running[begin : begin + at_once]))
    took += await _from_the_queue(ds2d, upstream, max(1, count // 10), dice)
    return took


async def _from_the_queue(ds2d: Running, upstream: ScriptedUpstream, count: int, dice: random.Random) -> list[float]:
    """With every slot taken, clients wait and leave, one after the other."""
    blocking = [Departure(10**6 + number, dice, "before the head") for number in range(ds2d.daemon.queue.capacity)]
    upstream.decide = _deciding({one.mark: one for one in blocking})
    leaving = [asyncio.create_task(one.leave_when_told(ds2d)) for one in map(Blocker, blocking)]
    await until(lambda: ds2d.daemon.queue.running == len(blocking))
    took = [await Departure(2 * 10**6 + number, dice, "waiting").leave(ds2d) for number in range(count)]
    for task in leaving:
        task.cancel()
    await asyncio.gather(*leaving, return_exceptions=True)
    await until(lambda: ds2d.daemon.queue.running == 0)
    return took


class Blocker:
    """A client that takes a slot until its task is cancelled."""

    def __init__(self, client: Departure) -> None:
        self._client = client

    async def leave_when_told(self, ds2d: Running) -> None:
        """Hold on."""
        _, writer = await asyncio.open_connection("127.0.0.1", ds2d.port)
        try:
            writer.write(self._client.request())
            await asyncio.Event().wait()
        finally:
            writer.transport.abort()


def _deciding(known: dict[str, Departure]) -> Callable[[Seen], Scene | None]:
    def decide(seen: Seen) -> Scene | None:
        text: Any = json.dumps(seen.body)
        found = next((one for mark, one in known.items() if mark in text), None)
        return found.scene(seen) if found else None

    return decide


def percentile(figures: list[float], per_cent: float) -> float:
    """The smallest figure that so many per cent do not exceed."""
    ordered = sorted(figures)
    return ordered[min(len(ordered) - 1, int(len(ordered) * per_cent / 100))]
