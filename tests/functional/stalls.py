"""How long the event loop was busy between two looks at it, in its own thread's CPU time: other processes do not count."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass


@dataclass
class Stall:
    """The longest so far, in seconds of CPU."""

    worst: float = 0.0


@contextlib.asynccontextmanager
async def watching_the_loop() -> AsyncIterator[Stall]:
    """Look at every turn of the loop while the body of the `with` runs. The test's own clients and servers count, too."""
    stall = Stall()

    async def look() -> None:
        before = time.thread_time()
        while True:
            await asyncio.sleep(0)
            now = time.thread_time()
            stall.worst = max(stall.worst, now - before)
            before = now

    looking = asyncio.create_task(look())
    try:
        yield stall
    finally:
        looking.cancel()
        await asyncio.wait({looking})
