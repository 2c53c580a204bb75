"""What the service needs of the world: clocks, ids, token counts, work in the background."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Any

from ds2d.core.layouts import lay_out
from ds2d.core.request import ChatRequest
from ds2d.core.seal import Sealer
from ds2d.core.sizes import Size, Sizes
from ds2d.core.tokens import rough_request
from ds2d.net.counter import TokenCounter
from ds2d.state.reasoning import ReasoningMemory

MANY_TOKENS = 10_000
"""Tokens of a request, about, above which its prompt is laid out in a thread."""


def utc_now() -> datetime:
    """The wall clock, for rows and dates."""
    return datetime.now(UTC)


class _Randomness:
    """Random bytes, asked of the system by the thousand: a system call an id costs more than the id."""

    def __init__(self) -> None:
        self._bytes = b""
        self._at = 0

    def hex(self, count: int) -> str:
        """So many bytes as hex digits; each byte is given out once."""
        if self._at + count > len(self._bytes):
            self._bytes, self._at = secrets.token_bytes(4096), 0
        start, self._at = self._at, self._at + count
        return self._bytes[start : self._at].hex()


_randomness = _Randomness()


def new_id(prefix: str) -> str:
    """An opaque id: the prefix and 24 hex digits; 32 for stored responses, whose id is half of what opens them.

    A request's begins with the time in milliseconds: ids in no order would cost the ledger a page of its index a turn.
    """
    if prefix == "req_":
        return f"{prefix}{time.time_ns() // 1_000_000:012x}{_randomness.hex(6)}"
    return prefix + _randomness.hex(16 if prefix == "resp_" else 12)


MAX_TASKS = 100_000
"""More than all who may `spawn` can have running at once: connections, background responses, counts after the end."""


class Toolbox:
    """What the service needs of the world: clocks, ids, token counts, tracked background work."""

    def __init__(self, counter: TokenCounter, sealer: Sealer, reasoning: ReasoningMemory) -> None:
        self._counter = counter
        self._sealer = sealer
        self.reasoning = reasoning
        self._tasks: set[asyncio.Task[None]] = set()

    monotonic = staticmethod(time.monotonic)
    new_id = staticmethod(new_id)

    def now(self) -> int:
        return int(time.time())

    def seal(self, text: str) -> str:
        return self._sealer.seal(text)

    @property
    def exact(self) -> bool:
        """Whether tokens are counted now; else counts are estimates."""
        return self._counter.loaded

    async def count_text(self, text: str) -> int:
        return await self._counter.count(text)

    async def count_request(self, request: ChatRequest) -> int:
        """Prompt tokens with what the chat template adds. Images count nothing: only a server knows."""
        if self.rough_request(request) < MANY_TOKENS:
            prompt = lay_out(request)
        else:
            prompt = await asyncio.get_running_loop().run_in_executor(None, lay_out, request)
        return await self._counter.count(prompt.text) + prompt.more

    def rough_request(self, request: ChatRequest) -> int:
        """The same without counting or laying out, within some 40 %: for numbers that must not cost time."""
        return rough_request(request)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run after-work that nobody waits for until the daemon stops."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def sizes(self) -> Sizes:
        """Work that nobody waits for: counts after the end, a life sign a stream, background responses. Its bound is theirs."""
        return {"tasks": Size(len(self._tasks), MAX_TASKS)}

    async def close(self) -> None:
        """End what still runs."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
