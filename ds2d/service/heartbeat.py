"""Life signs for clients whose upstream is silent (errors.md 3).

Rule: none before the turn has its account, so that a wait in the queue keeps its status, and none after its ending. The clock
runs on over further attempts and what they wait for: whoever waits does not know of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from ds2d.core.errors import GatewayError
from ds2d.service.turn import Sink


class Heartbeat:
    """Life signs for a client while its upstream is silent (errors.md 3). Costs one timer an attempt, nothing a chunk.

    `sign` gives one, b"" for none now; it may be replaced. Silence counts from the beginning on.
    """

    def __init__(
        self, sink: Sink, seconds: float, spawn: Callable[[Coroutine[Any, Any, None]], None], sign: Callable[[], bytes]
    ) -> None:
        self.sign = sign
        self._sink = sink
        self._seconds = seconds
        self._spawn = spawn
        self._loop = asyncio.get_running_loop()
        self._last = self._loop.time()
        self._timer = self._loop.call_later(seconds, self._fire)

    def go_on(self, sign: Callable[[], bytes]) -> None:
        """A further attempt begins, with its own signs: at once where there was silence for long."""
        self.sign = sign
        self._timer.cancel()
        self._timer = self._loop.call_at(self._due, self._fire)

    def stop(self) -> None:
        """The answer has its ending: no life sign may follow."""
        self._timer.cancel()

    @property
    def _due(self) -> float:
        return max(self._last, self._sink.last_write) + self._seconds

    def _fire(self) -> None:
        if (due := self._due) > self._loop.time():
            self._timer = self._loop.call_at(due, self._fire)
            return
        self._timer = self._loop.call_later(self._seconds, self._fire)
        if sign := self.sign():
            self._last = self._loop.time()
            self._spawn(self._beat(sign))

    async def _beat(self, sign: bytes) -> None:
        try:
            await self._sink.write(sign)
        except GatewayError:
            return  # the client has gone: the turn notices by itself
