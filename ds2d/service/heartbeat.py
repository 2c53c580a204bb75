"""Life signs for clients whose upstream is silent (errors.md 3).

Rule: none before the turn has its account, so that a wait in the queue keeps its status, and none after its ending. The clock
runs on over further attempts: whoever waits does not know of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from ds2d.core.errors import GatewayError
from ds2d.service.turn import Sink


class Heartbeat:
    """Life signs for a client while its upstream is silent (errors.md 3). Costs one timer an attempt, nothing a chunk.

    `sign` gives one, b"" for none now; it may be replaced. `since` is the loop's time from which on there was silence.
    """

    def __init__(
        self,
        sink: Sink,
        seconds: float,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        sign: Callable[[], bytes],
        since: float,
    ) -> None:
        self.sign = sign
        self._sink = sink
        self._seconds = seconds
        self._spawn = spawn
        self._loop = asyncio.get_running_loop()
        self._last = since
        self._timer = self._loop.call_at(max(since, sink.last_write) + seconds, self._fire)

    def stop(self) -> None:
        """The answer has its ending: no life sign may follow."""
        self._timer.cancel()

    def _fire(self) -> None:
        last = max(self._last, self._sink.last_write)
        due = last + self._seconds
        if due > self._loop.time():
            self._timer = self._loop.call_at(due, self._fire)
            return
        self._last = self._loop.time()
        self._timer = self._loop.call_later(self._seconds, self._fire)
        if sign := self.sign():
            self._spawn(self._beat(sign))

    async def _beat(self, sign: bytes) -> None:
        try:
            await self._sink.write(sign)
        except GatewayError:
            return  # the client has gone: the turn notices by itself
