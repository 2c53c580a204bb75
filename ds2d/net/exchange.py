"""An answered call: its status, and its body on the way to whoever wants it, with our own clock round every wait.

Rule: one behaviour, two carriers. Where the connection is ours (links.py) a stream is carried inside the network's read
(carrier.py), else by the loop below; both feed, write and fail alike, and the same tests drive both.
Surprise: the HTTP library's read time-out is not enough (a broken chunk in mid-body can leave its reader waiting for ever),
so the clocks are ours (reliability.md, upstreams).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

import aiohttp

from ds2d.core.calls import Reply, Script
from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.pipeline import Pipeline
from ds2d.core.settings import Timeouts
from ds2d.net.carrier import Carrier, Clocks, Outlet
from ds2d.net.inflate import Inflater, UnreadableError
from ds2d.net.links import LinkAnswer

logger = logging.getLogger("ds2d.net")

ERROR_SECONDS = 5.0
"""How long an error answer may take to say more than its status."""

Write = Callable[[bytes], Awaitable[None]]


class Exchange(Protocol):
    """A call that was answered: its status, and a body that is read once, by `pump`, `whole` or `read`."""

    status: int
    headers: dict[str, str]

    async def pump(self, pipeline: Pipeline, write: Write, outlet: Outlet | None = None) -> None:
        """Push the body through the pipeline, one read at a time, and write what comes out; straight to `outlet` where one is
        given and ready, but never its first bytes: by `write` the turn knows that its answer has begun, and a client that got
        life signs is ready before it has. Returns when the pipeline has its ending (it always has one then). Raises only what
        `write` raises, and CancelledError."""

    async def whole(self, limit: int) -> Reply:
        """The whole answer, its body cut at `limit` bytes. Raises GatewayError: UPSTREAM_TIMEOUT, UPSTREAM_DISCONNECTED."""

    async def read(self, limit: int) -> Reply:
        """An error answer, its body cut at `limit` bytes and where it breaks or stalls: the status counts all the same."""


class Answer(Protocol):
    """What carries an answer: the HTTP library's response, or a connection of ours. `headers` have lower-case names."""

    @property
    def status(self) -> int: ...
    @property
    def headers(self) -> dict[str, str]: ...
    async def readany(self) -> bytes: ...
    def close(self) -> None: ...


class HttpExchange:
    """An answer of a real server."""

    def __init__(self, answer: Answer, timeouts: Timeouts, started: float, stream: bool) -> None:
        self._answer = answer
        self._timeouts = timeouts
        self._started = started
        self._stream = stream
        self.status = answer.status
        self.headers = answer.headers
        self._inflater = Inflater.for_encoding(self.headers.get("content-encoding", ""))

    async def pump(self, pipeline: Pipeline, write: Write, outlet: Outlet | None = None) -> None:
        try:
            fault = await self._faults(pipeline, write, outlet)
            if fault is not None and (out := pipeline.fail(fault)):
                await write(out)
        finally:
            if not pipeline.heard_out:  # whoever ended it, nothing more of this answer is wanted
                self._answer.close()

    async def _faults(self, pipeline: Pipeline, write: Write, outlet: Outlet | None) -> GatewayError | None:
        """Pump until the end; what broke on the way, if anything did."""
        try:
            if isinstance(self._answer, LinkAnswer) and self._inflater is None:
                await Carrier(self._answer, pipeline, write, outlet, self._clocks()).run()
            else:
                await self._pump(pipeline, write)
        except TimeoutError:
            return GatewayError(ErrorKind.UPSTREAM_TIMEOUT, "The upstream stopped sending.")
        except UnreadableError:
            return _unreadable()
        except (aiohttp.ClientError, OSError, ValueError) as error:
            logger.info("upstream answer broke: %s", type(error).__name__)
            return GatewayError(ErrorKind.UPSTREAM_DISCONNECTED, "The upstream broke off its answer.")
        return None

    def _clocks(self) -> Clocks:
        timeouts = self._timeouts
        first = timeouts.first_payload if self._stream else timeouts.answer
        return Clocks(self._started + first, first, timeouts.payload_gap, self._started + timeouts.total)

    async def _pump(self, pipeline: Pipeline, write: Write) -> None:
        loop = asyncio.get_running_loop()
        clocks = self._clocks()
        inflater = self._inflater
        answer = self._answer
        seen = 0
        async with asyncio.timeout_at(min(clocks.first_at, clocks.end)) as clock:
            while pipeline.ending is None:
                chunk = await answer.readany()
                pieces = [chunk] if inflater is None else inflater.feed(chunk)
                for piece in pieces:
                    out = pipeline.feed(piece) if chunk else b""
                    if out:
                        clock.reschedule(None)  # a slow client is not a silent upstream; the writer has its own clock
                        await write(out)
                    if inflater is not None:
                        await asyncio.sleep(0)  # one read can expand to a thousand times as much: others have their turn
                if not chunk:
                    out = pipeline.finish()
                    if out:
                        await write(out)
                    return
                if pipeline.records != seen or clock.when() is None:
                    seen = pipeline.records
                    gap = clocks.gap if seen else clocks.first
                    clock.reschedule(min(loop.time() + gap, clocks.end))

    async def read(self, limit: int) -> Reply:
        held = bytearray()
        now = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout_at(min(now + ERROR_SECONDS, self._started + self._timeouts.answer)):
                await self._collect(held, limit)
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            logger.info("an error answer broke: %s", type(error).__name__)
        return Reply(self.status, self.headers, bytes(held[:limit]))

    async def whole(self, limit: int) -> Reply:
        held = bytearray()
        try:
            async with asyncio.timeout_at(self._started + self._timeouts.answer):
                await self._collect(held, limit)
        except TimeoutError:
            raise GatewayError(ErrorKind.UPSTREAM_TIMEOUT, "The upstream did not answer in time.") from None
        except UnreadableError:
            raise _unreadable() from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise GatewayError(ErrorKind.UPSTREAM_DISCONNECTED, "The upstream broke off its answer.") from error
        return Reply(self.status, self.headers, bytes(held[:limit]))

    async def _collect(self, held: bytearray, limit: int) -> None:
        """Read into `held` until the end, or until there is as much as wanted. Raises what breaks it, ValueError where it is cut
        though its framing is whole: a text has no end of its own."""
        while chunk := await self._answer.readany():
            for piece in [chunk] if self._inflater is None else self._inflater.feed(chunk):
                held += piece
                if len(held) >= limit:
                    return
                await asyncio.sleep(0)  # as above: a read that expands leaves others their turn
        if held and self._inflater is not None and self._inflater.is_cut:
            raise ValueError("cut compressed data")


def _unreadable() -> GatewayError:
    return GatewayError(ErrorKind.UPSTREAM_GARBLED, "The upstream sent an encoding that was not asked for.")


class ScriptExchange:
    """An answer that an embedded upstream wrote."""

    status = 200

    def __init__(self, script: Script) -> None:
        self._script = script
        self.headers = {"content-type": script.content_type}

    async def pump(self, pipeline: Pipeline, write: Write, outlet: Outlet | None = None) -> None:
        for wait, piece in self._script.pieces:
            if wait:
                await asyncio.sleep(wait)
            out = pipeline.feed(piece)
            if out:
                await write(out)
            if pipeline.ending is not None:
                return
        out = pipeline.finish()
        if out:
            await write(out)

    async def whole(self, limit: int) -> Reply:
        return Reply(200, self.headers, b"".join(piece for _, piece in self._script.pieces)[:limit])

    read = whole
