"""The one way out: HTTP calls to upstreams, with our own clock round every wait.

Rule: a call either gives an `Exchange` whose status is known, or raises a `GatewayError` that says what failed; leaving
the `with` block always frees the connection (closed unless the answer was read to its end). A kept connection that its server
closes in the very moment of a call is nobody's fault: the call is made once more, over a new one (docs/routing.md).
Surprise: plain HTTP goes over connections of our own (links.py), TLS and proxies over the HTTP library, and nobody above can
tell. The library's proxy variables would catch loopback traffic, so which proxy is asked is our decision (config.md 2).
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Generator
from functools import partial
from math import inf
from types import SimpleNamespace, TracebackType
from typing import Any, TypeVar
from urllib.parse import urlsplit

import aiohttp
import msgspec

from ds2d.core.calls import Call, Compute, Reply, Script, Step
from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.settings import UpstreamSpec
from ds2d.core.sizes import Size, Sizes
from ds2d.core.trace import outgoing
from ds2d.net.address import join_url, proxy_for
from ds2d.net.exchange import Exchange, HttpExchange, ScriptExchange
from ds2d.net.links import DRAIN_SECONDS, HELD, READ, CutError, LinkAnswer, Place, StaleError, place_of, request_head
from ds2d.net.pool import MAX_UNUSED, Pool

PIECE = 256 * 1024
"""Bytes of a body that are encrypted and sent at once."""

MAX_ERROR_BODY = 64 * 1024
"""Bytes of an error answer that are read; the rest says nothing new."""

MAX_CONTEXTS = 64
"""Authorities' files that are kept ready, older states of the same file included."""

MAX_DRAINS = 1000
"""Ends of answers that are waited for at once; the connections of more are closed instead of kept."""

AT_ONCE = 1.0
"""Seconds within which a kept connection has to end for its server not to have seen what was asked: a server that meant to close
it has done so on its own clock, and all that is left is the way of the news. Who works on a question for longer has read it."""

T = TypeVar("T")


class Client:
    """Owner of the connections to all upstreams. Make it inside the running loop; `close` it.

    `own_connections`: plain HTTP goes over connections of ours, else everything goes over the HTTP library.
    """

    def __init__(self, own_connections: bool = True) -> None:
        self._pool = Pool() if own_connections else None
        self._session = _session(keep=True)
        self._once: aiohttp.ClientSession | None = None
        """For connections that are new and not kept."""
        self._tls: dict[tuple[str, str], ssl.SSLContext] = {}
        self._reading = asyncio.Lock()
        self._drains: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Close every connection; drains that still run end with them."""
        for task in list(self._drains):
            task.cancel()
        await asyncio.gather(*self._drains, return_exceptions=True)
        await self._session.close()
        if self._once is not None:
            await self._once.close()
        if self._pool is not None:
            await self._pool.close()

    def sizes(self) -> Sizes:
        """What is kept beside the connections, which are as many as turns and looks."""
        unused = self._pool.unused if self._pool is not None else 0
        return {
            "tls_contexts": Size(len(self._tls), MAX_CONTEXTS),
            "drains": Size(len(self._drains), MAX_DRAINS),
            "unused_connections": Size(unused, MAX_UNUSED),
        }

    def open(self, call: Call | Script, on_sent: Callable[[], object] = lambda: None) -> Opening:
        """Make the call; the body of the `with` has its answer. `on_sent` hears when there is a connection on which it goes out.

        Raises GatewayError: UPSTREAM_UNREACHABLE (connect, DNS, TLS), UPSTREAM_TIMEOUT (no headers in time),
        UPSTREAM_DISCONNECTED (closed before an answer), UPSTREAM_GARBLED (no HTTP).
        """
        return Opening(self, call, on_sent)

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

    async def request(
        self, call: Call, upstream: UpstreamSpec, started: float, on_sent: Callable[[], object]
    ) -> LinkAnswer | LibraryAnswer:
        """`open` without the `with`, `started` on the loop's clock: whoever gets an answer from here owes it one `let_go`."""
        url = join_url(upstream.base_url or "", call.path)
        due = started + min(upstream.timeouts.headers if call.stream else upstream.timeouts.answer, upstream.timeouts.total)
        proxy = proxy_for(url, upstream.proxy)
        ours = self._pool is not None and proxy is None and call.form is None
        place = place_of(call.method, url) if ours else None
        try:
            if place is not None:
                try:
                    return await self._ask(call, place, upstream.timeouts.connect, due, on_sent)
                except StaleError:
                    return await self._ask(call, place, upstream.timeouts.connect, due, on_sent, fresh=True)
            try:
                return await self._library(call, upstream, url, proxy, due, on_sent)
            except StaleError:
                return await self._library(call, upstream, url, proxy, due, on_sent, fresh=True)
        except (aiohttp.ConnectionTimeoutError, UnreachableError) as error:
            raise GatewayError(ErrorKind.UPSTREAM_UNREACHABLE, "The upstream could not be reached.") from error
        except TimeoutError as error:
            raise GatewayError(ErrorKind.UPSTREAM_TIMEOUT, "The upstream did not answer in time.") from error
        except (aiohttp.ServerDisconnectedError, CutError) as error:
            raise GatewayError(ErrorKind.UPSTREAM_DISCONNECTED, "The upstream closed the connection.") from error
        except (aiohttp.ClientConnectionError, OSError) as error:
            if isinstance(error.__cause__, GatewayError):  # a form that was to be sent on stopped coming
                raise error.__cause__ from None
            raise GatewayError(ErrorKind.UPSTREAM_UNREACHABLE, "The upstream could not be reached.") from error
        except (aiohttp.ClientError, ValueError) as error:
            raise GatewayError(ErrorKind.UPSTREAM_GARBLED, "The upstream sent something that is not HTTP.") from error

    async def _ask(
        self, call: Call, place: Place, connect: float, due: float, on_sent: Callable[[], object], fresh: bool = False
    ) -> LinkAnswer:
        """Over a connection of ours. Raises UnreachableError, TimeoutError, CutError, BadAnswerError; StaleError, unless it is to
        be a fresh one, where it may be asked once more."""
        assert self._pool is not None
        loop = self._pool.loop
        head = request_head(place, call)
        link = None if fresh else self._pool.take(place)
        if link is None:
            soon = loop.time() + connect
            try:
                async with asyncio.timeout_at(min(soon, due)):
                    link = await self._pool.connect(place)
            except TimeoutError:
                raise (UnreachableError() if soon <= due else TimeoutError()) from None
            except OSError as error:
                raise UnreachableError from error
        asked = loop.time()
        answer = link.ask(head, call.body)
        on_sent()
        clock = loop.call_at(due, answer.late)
        try:
            await answer.arrived
        except StaleError as error:
            if loop.time() - asked > AT_ONCE:
                raise CutError from error
            raise
        except BaseException:
            answer.close()
            raise
        finally:
            clock.cancel()
        return answer

    async def _library(
        self,
        call: Call,
        upstream: UpstreamSpec,
        url: str,
        proxy: str | None,
        due: float,
        on_sent: Callable[[], object],
        fresh: bool = False,
    ) -> LibraryAnswer:
        """Over the HTTP library: TLS and proxies. Raises what it raises; StaleError as `_ask` does."""
        session, way = self._session, Way(on_sent)
        if fresh:
            session = self._once = self._once or _session(keep=False)
        headers, data = dict(call.headers), call.form or call.body
        if call.form is None and call.body is not None and len(call.body) > PIECE:
            headers["content-length"], data = str(len(call.body)), _pieces(call.body)
        async with asyncio.timeout_at(due):
            trusted = await self._trust(upstream) if "https" in (urlsplit(url).scheme, urlsplit(proxy or "").scheme) else True
            try:
                response = await session.request(
                    call.method,
                    url,
                    data=data,
                    headers=headers,
                    allow_redirects=False,
                    proxy=proxy,
                    ssl=trusted,
                    timeout=aiohttp.ClientTimeout(total=None, connect=upstream.timeouts.connect),  # with look-up and TLS
                    trace_request_ctx=way,
                )
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
                if call.form is None and way.ended_unread(error):  # a form has been sent on while it came
                    raise StaleError from error
                raise
        return LibraryAnswer(response, self._drains)

    async def _trust(self, upstream: UpstreamSpec) -> ssl.SSLContext | aiohttp.Fingerprint:
        """What to trust: the system's authorities, or the upstream's own, read anew when its file has changed. Reading them
        takes a thread some 40 ms."""
        if upstream.pin:
            return trust(upstream)
        key = (upstream.ca_file or "", upstream.ca_digest)
        if key in self._tls:
            return self._tls[key]
        async with self._reading:
            if key not in self._tls:
                made = await asyncio.to_thread(authorities, upstream.ca_file)
                if len(self._tls) >= MAX_CONTEXTS:
                    self._tls.clear()  # of files that were changed since
                self._tls[key] = made
            return self._tls[key]


def trust(upstream: UpstreamSpec) -> ssl.SSLContext | aiohttp.Fingerprint:
    """The same, made anew: it reads the authorities' file."""
    return aiohttp.Fingerprint(bytes.fromhex(upstream.pin)) if upstream.pin else authorities(upstream.ca_file)


def authorities(ca_file: str | None = None) -> ssl.SSLContext:
    """Whom to believe what a server says of itself: those in this file, or the system's. Raises OSError.

    The HTTP library's own context is never used: where the command line imported it, it knows no authorities.
    """
    context = ssl.create_default_context(cafile=ca_file)
    context.set_alpn_protocols(["http/1.1"])
    return context


class Opening:
    """What `Client.open` returns: `async with` over an exchange."""

    __slots__ = ("_answer", "_call", "_client", "_on_sent")

    def __init__(self, client: Client, call: Call | Script, on_sent: Callable[[], object]) -> None:
        self._client = client
        self._on_sent = on_sent
        self._call: Call | Script | None = call
        """Until it is answered: its body may be large, and the answer may last long."""
        self._answer: LinkAnswer | LibraryAnswer | None = None

    async def __aenter__(self) -> Exchange:
        call, self._call = self._call, None
        assert call is not None, "a call is made once"
        if isinstance(call, Script):
            self._on_sent()
            return ScriptExchange(call)
        assert call.upstream is not None, "a call goes to an upstream"
        started = asyncio.get_running_loop().time()
        headers = outgoing.get()
        traced = msgspec.structs.replace(call, headers={**call.headers, **headers}) if headers else call
        self._answer = answer = await self._client.request(traced, call.upstream, started, self._on_sent)
        return HttpExchange(answer, call.upstream.timeouts, started, call.stream)

    async def __aexit__(self, kind: type[BaseException] | None, _error: BaseException | None, _tb: TracebackType | None) -> None:
        if self._answer is not None:
            self._answer.let_go(kind is None)


class Way:
    """What is known of the connection that the HTTP library took for a call."""

    def __init__(self, on_sent: Callable[[], object]) -> None:
        self.on_sent = on_sent
        self.kept_since = -inf
        """When the call was given one that had been kept; -inf: a new one."""

    def ended_unread(self, error: aiohttp.ClientError) -> bool:
        """Whether this can be the end of a connection whose server had closed it already: nothing of an answer came."""
        begun = isinstance(error, aiohttp.ServerDisconnectedError) and not isinstance(error.message, str)
        return not begun and asyncio.get_running_loop().time() - self.kept_since <= AT_ONCE


async def _kept(_session: aiohttp.ClientSession, context: SimpleNamespace, _params: object) -> None:
    context.trace_request_ctx.kept_since = asyncio.get_running_loop().time()


async def _sent(_session: aiohttp.ClientSession, context: SimpleNamespace, _params: object) -> None:
    context.trace_request_ctx.on_sent()


def _session(keep: bool) -> aiohttp.ClientSession:
    """The HTTP library, without all that it would do by itself. `keep`: its connections are used again."""
    tracing = aiohttp.TraceConfig()
    tracing.on_connection_reuseconn.append(_kept)
    tracing.on_request_headers_sent.append(_sent)
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=30, force_close=not keep),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None),
        auto_decompress=False,
        read_bufsize=HELD,
        skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent"),
        headers={"Accept-Encoding": "identity", "User-Agent": "ds2d"},
        trace_configs=[tracing],
    )


class UnreachableError(Exception):
    """No connection could be made."""


class LibraryAnswer:
    """An answer that the HTTP library carries."""

    def __init__(self, response: aiohttp.ClientResponse, drains: set[asyncio.Task[None]]) -> None:
        self._response = response
        self._drains = drains
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.headers.items()}
        self.readany = partial(response.content.read, READ)
        self.close = response.close

    def let_go(self, whole: bool) -> None:
        """Keep the connection of an answer that is over, close any other.

        The end of the body may be on its way still: it is waited for after the turn, so that nobody waits for it.
        """
        response = self._response
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


async def _pieces(body: bytes | memoryview) -> AsyncIterator[bytes]:
    for at in range(0, len(body), PIECE):
        yield bytes(body[at : at + PIECE])
