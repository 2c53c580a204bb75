"""The one way out: HTTP calls to upstreams, with our own clock round every wait.

Rule: a call either gives an `Exchange` whose status is known, or raises a `GatewayError` that says what failed; leaving
the `with` block always frees the connection (closed unless the answer was read to its end).
Surprise: the HTTP library's read time-out is not enough (a broken chunk in mid-body can leave its reader waiting for
ever), and its proxy variables would catch loopback traffic, so both are ours (reliability.md, upstreams; config.md 2).
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager
from typing import Any, Protocol, TypeVar

import aiohttp

from ds2d.core.calls import Call, Compute, Reply, Script, Step
from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.pipeline import Pipeline
from ds2d.core.settings import Timeouts, UpstreamSpec
from ds2d.core.sizes import Size, Sizes
from ds2d.net.address import join_url, proxy_for
from ds2d.net.inflate import Inflater

logger = logging.getLogger("ds2d.net")

MAX_ERROR_BODY = 64 * 1024
"""Bytes of an error answer that are read; the rest says nothing new."""

ERROR_SECONDS = 5.0
"""How long an error answer may take to say more than its status."""

DRAIN_SECONDS = 1.0
"""How long the end of a finished answer may take to arrive before its connection is closed instead of kept."""

MAX_CONTEXTS = 64
"""Authorities' files that are kept ready, older states of the same file included."""

MAX_DRAINS = 1000
"""Ends of answers that are waited for at once; the connections of more are closed instead of kept."""

Write = Callable[[bytes], Awaitable[None]]
T = TypeVar("T")


class Exchange(Protocol):
    """A call that was answered: its status, and a body that is read once, by `pump` or by `read`."""

    status: int
    headers: dict[str, str]

    async def pump(self, pipeline: Pipeline, write: Write) -> None:
        """Push the body through the pipeline, one read at a time, and write what comes out. Returns when the pipeline has
        its ending (it always has one then). Raises only what `write` raises, and CancelledError."""

    async def whole(self, limit: int) -> Reply:
        """The whole answer, its body cut at `limit` bytes. Raises GatewayError: UPSTREAM_TIMEOUT, UPSTREAM_DISCONNECTED."""

    async def read(self, limit: int) -> Reply:
        """An error answer, its body cut at `limit` bytes and where it breaks or stalls: the status counts all the same."""


class HttpExchange:
    """An answer of a real server."""

    def __init__(self, response: aiohttp.ClientResponse, timeouts: Timeouts, started: float, stream: bool) -> None:
        self._response = response
        self._timeouts = timeouts
        self._started = started
        self._stream = stream
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.headers.items()}
        self._inflater = Inflater.for_encoding(self.headers.get("content-encoding", ""))

    async def pump(self, pipeline: Pipeline, write: Write) -> None:
        try:
            fault = await self._faults(pipeline, write)
            if fault is not None and (out := pipeline.fail(fault)):
                await write(out)
        finally:
            if not pipeline.heard_out:  # whoever ended it, nothing more of this answer is wanted
                self._response.close()

    async def _faults(self, pipeline: Pipeline, write: Write) -> GatewayError | None:
        """Pump until the end; what broke on the way, if anything did."""
        try:
            await self._pump(pipeline, write)
        except TimeoutError:
            return GatewayError(ErrorKind.UPSTREAM_TIMEOUT, "The upstream stopped sending.")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            logger.info("upstream answer broke: %s", type(error).__name__)
            return GatewayError(ErrorKind.UPSTREAM_DISCONNECTED, "The upstream broke off its answer.")
        return None

    async def _pump(self, pipeline: Pipeline, write: Write) -> None:
        loop = asyncio.get_running_loop()
        end = self._started + self._timeouts.total
        first = self._timeouts.first_payload if self._stream else self._timeouts.answer
        inflater = self._inflater
        content = self._response.content
        seen = 0
        async with asyncio.timeout_at(min(self._started + first, end)) as clock:
            while pipeline.ending is None:
                chunk = await content.readany()
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
                    gap = self._timeouts.payload_gap if seen else first
                    clock.reschedule(min(loop.time() + gap, end))

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
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise GatewayError(ErrorKind.UPSTREAM_DISCONNECTED, "The upstream broke off its answer.") from error
        return Reply(self.status, self.headers, bytes(held[:limit]))

    async def _collect(self, held: bytearray, limit: int) -> None:
        """Read into `held` until the end, or until there is as much as wanted."""
        while chunk := await self._response.content.readany():
            for piece in [chunk] if self._inflater is None else self._inflater.feed(chunk):
                held += piece
                if len(held) >= limit:
                    return
                await asyncio.sleep(0)  # as above: a read that expands leaves others their turn


class ScriptExchange:
    """An answer that an embedded upstream wrote."""

    status = 200

    def __init__(self, script: Script) -> None:
        self._script = script
        self.headers = {"content-type": script.content_type}

    async def pump(self, pipeline: Pipeline, write: Write) -> None:
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


class Client:
    """Owner of the connections to all upstreams. Make it inside the running loop; `close` it."""

    def __init__(self) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=30),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
            auto_decompress=False,
            skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent"),
            headers={"Accept-Encoding": "identity", "User-Agent": "ds2d"},
        )
        self._tls: dict[tuple[str, str], ssl.SSLContext] = {}
        self._drains: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Close every connection; drains that still run end with them."""
        for task in list(self._drains):
            task.cancel()
        await asyncio.gather(*self._drains, return_exceptions=True)
        await self._session.close()

    def sizes(self) -> Sizes:
        """What is kept beside the connections, which are as many as turns and looks."""
        return {"tls_contexts": Size(len(self._tls), MAX_CONTEXTS), "drains": Size(len(self._drains), MAX_DRAINS)}

    @asynccontextmanager
    async def open(self, call: Call | Script) -> AsyncIterator[Exchange]:
        """Make the call; the body of the `with` has its answer.

        Raises GatewayError: UPSTREAM_UNREACHABLE (connect, DNS, TLS), UPSTREAM_TIMEOUT (no headers in time),
        UPSTREAM_DISCONNECTED (closed before an answer), UPSTREAM_GARBLED (no HTTP).
        """
        if isinstance(call, Script):
            yield ScriptExchange(call)
            return
        assert call.upstream is not None, "a call goes to an upstream"
        started = asyncio.get_running_loop().time()
        response = await self._request(call, call.upstream, started)
        whole = False
        try:
            yield HttpExchange(response, call.upstream.timeouts, started, call.stream)
            whole = True
        finally:
            self._let_go(response, whole)

    async def fetch(self, call: Call, limit: int = 4 * 1024 * 1024) -> Reply:
        """A whole answer of any status: polls, logins. Raises what `open` raises."""
        async with self.open(call) as exchange:
            return await exchange.whole(limit)

    async def drive(self, steps: Generator[Step, Any, T]) -> T:
        """Run an upstream's steps and return what they come to: the streaming call, or a login's token."""
        loop = asyncio.get_running_loop()
        result: Any = None
        while True:
            try:
                step = steps.send(result)
            except StopIteration as stop:
                value: T = stop.value
                return value
            if isinstance(step, Compute):
                result = await loop.run_in_executor(None, step.function)
            else:
                result = await self.fetch(step)

    async def _request(self, call: Call, upstream: UpstreamSpec, started: float) -> aiohttp.ClientResponse:
        timeouts = upstream.timeouts
        url = join_url(upstream.base_url or "", call.path)
        clock = timeouts.headers if call.stream else timeouts.answer
        try:
            async with asyncio.timeout_at(started + min(clock, timeouts.total)):
                return await self._session.request(
                    call.method,
                    url,
                    data=call.body,
                    headers=dict(call.headers),
                    allow_redirects=False,
                    proxy=proxy_for(url, upstream.proxy),
                    ssl=self._context(upstream),
                    timeout=aiohttp.ClientTimeout(total=None, connect=timeouts.connect),  # with the name's look-up and TLS
                )
        except aiohttp.ConnectionTimeoutError as error:
            raise GatewayError(ErrorKind.UPSTREAM_UNREACHABLE, "The upstream could not be reached.") from error
        except TimeoutError as error:
            raise GatewayError(ErrorKind.UPSTREAM_TIMEOUT, "The upstream did not answer in time.") from error
        except aiohttp.ServerDisconnectedError as error:
            raise GatewayError(ErrorKind.UPSTREAM_DISCONNECTED, "The upstream closed the connection.") from error
        except (aiohttp.ClientConnectionError, OSError) as error:
            raise GatewayError(ErrorKind.UPSTREAM_UNREACHABLE, "The upstream could not be reached.") from error
        except (aiohttp.ClientError, ValueError) as error:
            raise GatewayError(ErrorKind.UPSTREAM_GARBLED, "The upstream sent something that is not HTTP.") from error

    def _context(self, upstream: UpstreamSpec) -> ssl.SSLContext | aiohttp.Fingerprint | bool:
        """What to trust: the system's authorities, or the upstream's own, read anew when its file has changed."""
        if upstream.pin:
            return aiohttp.Fingerprint(bytes.fromhex(upstream.pin))
        if upstream.ca_file is None:
            return True
        key = (upstream.ca_file, upstream.ca_digest)
        if key not in self._tls:
            if len(self._tls) >= MAX_CONTEXTS:
                self._tls.clear()  # of files that were changed since
            self._tls[key] = ssl.create_default_context(cafile=upstream.ca_file)
        return self._tls[key]

    def _let_go(self, response: aiohttp.ClientResponse, whole: bool) -> None:
        """Keep the connection of an answer that is over, close any other.

        The end of the body may be on its way still: it is waited for after the turn, so that nobody waits for it.
        """
        if not whole or len(self._drains) >= MAX_DRAINS:
            response.close()
        elif response.content.at_eof():
            response.release()
        else:
            task = asyncio.get_running_loop().create_task(_drain(response))
            self._drains.add(task)
            task.add_done_callback(self._drains.discard)


async def _drain(response: aiohttp.ClientResponse) -> None:
    try:
        async with asyncio.timeout(DRAIN_SECONDS):
            while await response.content.readany():
                pass
        response.release()
    except (TimeoutError, aiohttp.ClientError, OSError, asyncio.CancelledError):
        response.close()
