"""A streamed answer from the upstream's connection to the client's, without waking a task for each read.

Rule: what the ordinary loop does (client.py) this does, in the same order: feed, write, and only then think of clocks, ends
and faults; while the client is full the upstream is kept from sending, and its silence is not held against it.
Surprise: the first output of an answer is written by the task, because opening the client's answer must wait; from then on
`data` writes straight to the client's connection, and the task sleeps until there is something to wait for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec

from ds2d.core.pipeline import Pipeline
from ds2d.net.links import LinkAnswer

MAX_PENDING = 16 * 1024
"""Bytes that may wait for the task to write them before the upstream is kept from sending more."""


class Outlet(Protocol):
    """A client's connection that bytes can be given to without waiting, while it is `ready`. `when_lost` is called in the moment
    in which the client has gone, before any task hears of it: many may go at once, and no upstream shall work on for them."""

    when_lost: Callable[[], None] | None

    @property
    def ready(self) -> bool: ...
    def put(self, data: bytes) -> bool: ...
    async def drained(self) -> None: ...


class Clocks(msgspec.Struct):
    """Seconds of the loop's clock (`first_at`, `end`), and from one payload to the next."""

    first_at: float
    first: float
    gap: float
    end: float


class Carrier:
    """One answer's way through the pipeline."""

    def __init__(
        self,
        answer: LinkAnswer,
        pipeline: Pipeline,
        write: Callable[[bytes], Awaitable[None]],
        outlet: Outlet | None,
        clocks: Clocks,
    ) -> None:
        self._answer = answer
        self._pipeline = pipeline
        self._write = write
        self._outlet = outlet
        self._direct: Outlet | None = None  # the outlet, from the first write on
        self._clocks = clocks
        self._loop = asyncio.get_running_loop()
        self._pending: list[bytes] = []
        self._pending_size = 0
        self._busy = False  # the task writes
        self._full = False  # the client takes no more for now
        self._ended = False
        self._error: BaseException | None = None
        self._seen = 0
        self._moved: float | None = None
        self._timer = self._loop.call_at(self._due(), self._check)
        self._waiter: asyncio.Future[None] | None = None

    async def run(self) -> None:
        """Carry until the pipeline has its ending or the body its end. Raises TimeoutError, OSError or ValueError where the
        upstream failed, and what `write` raises."""
        try:
            if self._outlet is not None:
                self._outlet.when_lost = self._answer.close
            self._answer.attach(self)
            while await self._step():
                pass
        finally:
            self._pipeline.unwritten = b"".join(self._pending)
            if self._outlet is not None:
                self._outlet.when_lost = None
            self._timer.cancel()
            self._answer.detach()

    async def _step(self) -> bool:
        """Do what is to be done next, or wait for it; False when all is done."""
        if self._pending or self._full:
            await self._relieve()
        elif self._pipeline.ending is not None:
            return False
        elif self._error is not None:
            raise self._error
        elif self._ended:
            if out := self._pipeline.finish():
                await self._write(out)
            return False
        else:
            self._waiter = self._loop.create_future()
            self._answer.resume()
            await self._waiter
        return True

    async def _relieve(self) -> None:
        """Wait for the client: its clock is its connection's, the upstream's stand still."""
        self._busy = True
        try:
            if self._pending:
                data, self._pending, self._pending_size = b"".join(self._pending), [], 0
                await self._write(data)
                self._direct = self._outlet
            elif self._outlet is not None:
                self._full = False
                await self._outlet.drained()
        finally:
            self._busy = False
            self._moved = self._loop.time()
            self._timer.cancel()
            self._timer = self._loop.call_at(self._due(), self._check)

    # Called by the connection, inside its read

    def data(self, piece: bytes) -> None:
        """Content of the answer."""
        pipeline, outlet = self._pipeline, self._direct
        if pipeline.ending is not None:
            return
        try:
            out = pipeline.feed(piece)
            if out:
                if outlet is not None and outlet.ready and not self._busy and not self._pending:
                    if not outlet.put(out):
                        self._full = True
                        self._answer.pause()
                        self._wake()
                else:
                    self._put_off(out)
        except Exception as error:  # noqa: BLE001 - it is the task's to raise
            self._error = error
            self._wake()
            return
        if out or pipeline.records != self._seen:
            self._seen = pipeline.records
            self._moved = self._loop.time()
        if self._pipeline.ending is not None:
            self._wake()

    def end(self, error: Exception | None) -> None:
        """The body is over, or broken."""
        self._ended = True
        self._error = self._error or error
        self._wake()

    def _put_off(self, out: bytes) -> None:
        self._pending.append(out)
        self._pending_size += len(out)
        if self._pending_size > MAX_PENDING or (self._busy and self._outlet is not None):
            self._answer.pause()
        self._wake()

    def _check(self) -> None:
        """The clock has run out, unless something has happened since it was set."""
        if self._busy or self._pending or self._full:
            return  # it is set anew when the client has taken all
        now = self._loop.time()
        due = self._due()
        if now < due:
            self._timer = self._loop.call_at(due, self._check)
        else:
            self._error = self._error or TimeoutError()
            self._wake()

    def _due(self) -> float:
        if self._moved is None:
            return min(self._clocks.first_at, self._clocks.end)
        return min(self._moved + (self._clocks.gap if self._seen else self._clocks.first), self._clocks.end)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
