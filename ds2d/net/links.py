"""Connections to upstreams over plain HTTP, kept for the next call: one asyncio protocol, no task of its own.

Rule: a connection carries one call at a time and is kept only when its answer was read to its end, nothing came after it and
both sides mean to keep it; whatever else happens it is closed.
Surprise: an answer is either read (`readany`) or handed to a taker, whose `data` runs inside the read itself: that is what
spares a streamed chunk the wake-up of a task. And the buffer that is read into is ours, because an event loop's own is of 256 KB:
what one read brings goes to the client's connection whole, so a client that takes nothing would hold as much (reliability.md).
"""

from __future__ import annotations

import asyncio
import ipaddress
from functools import lru_cache
from typing import Protocol, cast

import msgspec
from yarl import URL

from ds2d.core.calls import Call
from ds2d.net.wire import MAX_HEAD, BadAnswerError, Body, Endless, read_head

DRAIN_SECONDS = 1.0
"""How long the end of a finished answer may take to arrive before its connection is closed instead of kept."""

READ = 32 * 1024
"""Bytes of one read."""

HELD = 16 * 1024
"""Bytes of an answer that are held for a reader before the server is kept from sending more."""

JOINED = 64 * 1024
"""Bytes of a body up to which it is sent in one piece with its head."""


class Place(msgspec.Struct, frozen=True):
    """Where a URL leads: whom to connect to, and what of the request's head it decides."""

    host: str
    port: int
    is_address: bool
    head: bytes


class Taker(Protocol):
    """Who is given an answer's body as it arrives. `end`: there is no more, or (with an error) it broke."""

    def data(self, piece: bytes) -> None: ...
    def end(self, error: Exception | None) -> None: ...


class CutError(ConnectionError):
    """The server closed the connection before its answer was whole."""


class StaleError(CutError):
    """It closed one that was kept, before anything of an answer: most likely it had not read what was asked."""


@lru_cache(4096)
def place_of(method: str, url: str) -> Place | None:
    """Where a call to this URL goes; None where it takes more than plain HTTP."""
    parts = URL(url)
    if parts.scheme != "http" or parts.raw_host is None or parts.raw_user is not None or parts.port is None:
        return None
    named = f"[{parts.raw_host}]" if ":" in parts.raw_host else parts.raw_host
    host = named if parts.port == 80 else f"{named}:{parts.port}"
    line = f"{method} {parts.raw_path_qs} HTTP/1.1\r\nHost: {host}\r\n"
    return Place(
        parts.raw_host,
        parts.port,
        _is_address(parts.raw_host),
        line.encode("ascii") + b"Accept-Encoding: identity\r\nUser-Agent: ds2d\r\n",
    )


def request_head(place: Place, call: Call) -> bytes:
    """The head of this call. Raises ValueError for a header that would not stay one line."""
    lines = [f"{name}: {value}\r\n" for name, value in call.headers.items()]
    if call.body is not None:
        lines.append(f"Content-Length: {len(call.body)}\r\n")
    elif call.method != "GET":
        lines.append("Content-Length: 0\r\n")
    text = "".join(lines)
    if text.count("\n") != len(lines) or text.count("\r") != len(lines) or "\0" in text:
        raise ValueError("a header is more than one line")
    return place.head + text.encode("utf-8") + b"\r\n"


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


class LinkAnswer:
    """One call on a connection, and its answer."""

    __slots__ = ("_error", "_held", "_link", "_size", "_waiter", "arrived", "ended", "headers", "status", "taker")

    def __init__(self, link: Link, loop: asyncio.AbstractEventLoop) -> None:
        self.arrived: asyncio.Future[None] = loop.create_future()
        """Done when `status` and `headers` are there; its errors are CutError, BadAnswerError and TimeoutError."""
        self.status = 0
        self.headers: dict[str, str] = {}
        self.ended = False
        self._link = link
        self._held: list[bytes] = []
        self._size = 0
        self.taker: Taker | None = None
        """Who is given the body as it arrives."""
        self._waiter: asyncio.Future[None] | None = None
        self._error: Exception | None = None

    # For whoever asked

    async def readany(self) -> bytes:
        """What has arrived, b"" at the end. Raises what broke the answer: OSError or ValueError."""
        while not self._held:
            if self._error is not None:
                raise self._error
            if self.ended:
                return b""
            self._link.resume()
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        self._size = 0
        pieces = b"".join(self._held) if len(self._held) > 1 else self._held[0]
        self._held.clear()
        return pieces

    def attach(self, taker: Taker) -> None:
        """Give everything to this taker from now on, and at once what is there already."""
        self.taker = taker
        self._size = 0
        held, self._held = self._held, []
        for piece in held:
            taker.data(piece)
        if self._error is not None or self.ended:
            taker.end(self._error)

    def detach(self) -> None:
        """Nobody takes any more; what still comes is dropped."""
        self.taker = _NOBODY

    def pause(self) -> None:
        """Keep the server from sending more."""
        self._link.pause()

    def resume(self) -> None:
        """Let it send again."""
        self._link.resume()

    def close(self) -> None:
        """Nothing more of it is wanted."""
        self._link.drop(self)

    def let_go(self, whole: bool) -> None:
        """Give the connection back if the answer was wanted to its end, whose last bytes may be on their way still."""
        if not whole:
            self.close()
        elif self.ended:
            self._link.free(self)
        else:
            self.detach()
            self._link.finish_later(self)

    # For the connection

    def late(self) -> None:
        """The clock of the head has run out."""
        if not self.arrived.done():
            self.arrived.set_exception(TimeoutError())

    def hold(self, piece: bytes) -> None:
        """Content has arrived that nobody takes yet."""
        self._held.append(piece)
        self._size += len(piece)
        if self._size > HELD:
            self._link.pause()
        self._wake()

    def end(self, error: Exception | None) -> None:
        """The answer is whole, or broken."""
        if error is None:
            self.ended = True
        else:
            self._error = error
        if not self.arrived.done() and error is not None:
            self.arrived.set_exception(error)
        elif self.taker is not None:
            self.taker.end(error)
        else:
            self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class _Nobody:
    def data(self, piece: bytes) -> None:
        pass

    def end(self, error: Exception | None) -> None:
        pass


_NOBODY = _Nobody()


class Owner(Protocol):
    """Who keeps connections that nobody uses."""

    loop: asyncio.AbstractEventLoop
    links: set[Link]
    buffer: memoryview
    """What every connection reads into: what was read is taken out before anybody else reads."""

    def keep(self, link: Link) -> None: ...
    def forget(self, link: Link) -> None: ...


class Link(asyncio.BufferedProtocol):
    """One connection."""

    __slots__ = (
        "_answer",
        "_body",
        "_held",
        "_keep",
        "_paused",
        "_pool",
        "_silent",
        "_timer",
        "place",
        "transport",
        "unused_since",
        "used",
    )

    def __init__(self, pool: Owner, place: tuple[str, int]) -> None:
        self._pool = pool
        self.place = place
        self.transport: asyncio.Transport | None = None
        self.unused_since = 0.0
        self.used = False
        """Whether it has carried a call before: it may then have been closed by the server in the very moment of the next."""
        self._answer: LinkAnswer | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._reset()

    def _reset(self) -> None:
        self._body: Body | None = None
        self._held = b""
        self._keep = False
        self._paused = False
        self._silent = True

    def ask(self, head: bytes, body: bytes | memoryview | None) -> LinkAnswer:
        """Send a request; the connection is this answer's until it is let go."""
        assert self.transport is not None, "connections are given out open"
        self._answer = answer = LinkAnswer(self, self._pool.loop)
        if body is None:
            self.transport.write(head)
        elif len(body) <= JOINED:
            self.transport.write(head + body)
        else:
            self.transport.write(head)
            self.transport.write(body)
        return answer

    # asyncio.BufferedProtocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass of it
        self._pool.links.add(self)

    def get_buffer(self, _hint: int) -> memoryview:
        return self._pool.buffer

    def buffer_updated(self, nbytes: int) -> None:
        data = self._pool.buffer[:nbytes].tobytes()
        answer = self._answer
        if answer is None:  # nothing was asked
            self._abort()
            return
        if answer.ended:  # and nothing may follow an answer
            self._keep = False
            return
        try:
            body = self._body
            if body is None:
                data = self._take_head(answer, data)
                body = self._body
                if body is None:
                    return
            piece = body.feed(data) if data else b""
        except BadAnswerError as error:
            self._abort()
            answer.end(error)
            return
        if piece:
            taker = answer.taker
            if taker is not None:
                taker.data(piece)
            else:
                answer.hold(piece)
        if body.done and not answer.ended:
            answer.end(None)
            if self._timer is not None:
                self.free(answer)

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self._stop_clock()
        self._pool.forget(self)
        answer, self._answer = self._answer, None
        if answer is None or answer.ended:
            return
        whole = isinstance(self._body, Endless) and exc is None
        broken = StaleError if self.used and self._silent else CutError
        answer.end(None if whole else broken("the connection was closed"))

    # For its answer

    def pause(self) -> None:
        """Take no more from the server for now."""
        if not self._paused and self.transport is not None and not self.transport.is_closing():
            self._paused = True
            self.transport.pause_reading()

    def resume(self) -> None:
        """Take more again."""
        if self._paused and self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()
        self._paused = False

    def drop(self, answer: LinkAnswer) -> None:
        """Close: this answer is of no use any more."""
        if self._answer is answer:
            self._answer = None
            self._abort()

    def free(self, answer: LinkAnswer) -> None:
        """This answer is over: keep the connection if it may be kept."""
        if self._answer is not answer:
            return
        self._answer = None
        self._stop_clock()
        body = self._body
        if self.transport is None or self.transport.is_closing() or not self._keep or body is None or body.excess:
            self._abort()
            return
        self.resume()
        self._reset()
        self.used = True
        self._pool.keep(self)

    def close(self) -> None:
        """It is not needed any more."""
        if self.transport is not None:
            self.transport.close()

    def finish_later(self, answer: LinkAnswer) -> None:
        """The last bytes of this answer are on their way: they are waited for, a moment long."""
        if self._answer is answer:
            self.resume()
            self._timer = self._pool.loop.call_later(DRAIN_SECONDS, self.drop, answer)

    def _take_head(self, answer: LinkAnswer, data: bytes) -> bytes:
        """Collect a head, interim ones before it left out. Returns what of the body came with it. Raises BadAnswerError."""
        self._silent = False
        data = self._held + data if self._held else data
        start = 0
        while (end := data.find(b"\r\n\r\n", start)) >= 0:
            head = read_head(data[start : end + 4] if start else data, end + 4 - start)
            if end > MAX_HEAD:
                break
            start = end + 4
            if head is not None:
                self._held, self._body, self._keep = b"", head.body, head.keep
                answer.status, answer.headers = head.status, head.headers
                if not answer.arrived.done():
                    answer.arrived.set_result(None)
                return data[start:]
        if len(data) > MAX_HEAD or not b"HTTP/1.".startswith(data[start : start + 7]):
            raise BadAnswerError("no head")
        self._held = data[start:]
        return b""

    def _stop_clock(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _abort(self) -> None:
        self._stop_clock()
        if self.transport is not None:
            self.transport.abort()
