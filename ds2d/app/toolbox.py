"""What the service needs of the world: clocks, ids, token counts, work in the background."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Any

from ds2d.core.request import ChatRequest
from ds2d.core.seal import Sealer
from ds2d.core.sizes import Size, Sizes
from ds2d.core.tokens import Tokenizer
from ds2d.state.reasoning import ReasoningMemory

BIG_TEXT = 32 * 1024
"""Characters above which tokens are counted in a thread (tokens.md)."""


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
    """An opaque id: the prefix and 24 hex digits; 32 for stored responses, whose id is half of what opens them."""
    return prefix + _randomness.hex(16 if prefix == "resp_" else 12)


MAX_TASKS = 100_000
"""More than all who may `spawn` can have running at once: connections, background responses, counts after the end."""


class Toolbox:
    """What the service needs of the world: clocks, ids, token counts, tracked background work."""

    def __init__(self, tokenizer: Tokenizer, sealer: Sealer, reasoning: ReasoningMemory) -> None:
        self._tokenizer = tokenizer
        self._sealer = sealer
        self.reasoning = reasoning
        self._tasks: set[asyncio.Task[None]] = set()

    monotonic = staticmethod(time.monotonic)
    new_id = staticmethod(new_id)

    def now(self) -> int:
        return int(time.time())

    def seal(self, text: str) -> str:
        return self._sealer.seal(text)

    async def count_text(self, text: str) -> int:
        if len(text) < BIG_TEXT:
            return self._tokenizer.count(text)
        return await asyncio.get_running_loop().run_in_executor(None, self._tokenizer.count, text)

    async def count_request(self, request: ChatRequest) -> int:
        return await asyncio.get_running_loop().run_in_executor(None, self._tokenizer.count_request, request)

    def rough_request(self, request: ChatRequest) -> int:
        return self._tokenizer.rough_request(request)

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
