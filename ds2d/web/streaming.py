"""A client's stream: status and headers with the first byte, then bytes as they come.

Rule: nothing is sent before there is something to send, so that an early failure keeps its HTTP status; every write is
awaited, which is what slows the upstream down to the client's pace. Clients that take nothing are cut by the clock of
their connection (server.py).
Surprise: writing to a client that has gone is a normal end of a turn, so it has an error kind of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from aiohttp import HttpVersion11, hdrs, web
from multidict import istr

from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.web.server import Connection
from ds2d.web.turn_headers import turn_headers

_UNBUFFERED = istr("X-Accel-Buffering")


class ClientStream:
    """The answer of one streamed turn. `started` is True once the status line has gone out."""

    def __init__(self, request: web.Request, headers: Mapping[str, str], last: bool = False) -> None:
        self._request = request
        self._loop = asyncio.get_running_loop()
        self._opening = asyncio.Lock()
        self.started = False
        self.content_type = "text/event-stream"
        self.response = web.StreamResponse(headers=headers)
        self.last_write = 0.0
        self._connection: Connection | None = None
        """Where bytes may be put without waiting: set once the head is out, for clients that take chunks."""
        self.listener: Callable[[bytes], None] | None = None
        """Told of everything that is written, where captures are on."""
        if last:  # the daemon is draining: this connection takes no further request
            self.response.force_close()

    async def write(self, data: bytes) -> None:
        """Send bytes; waits while the client's side is full. Raises GatewayError(CLIENT_CLOSED) when the client has gone."""
        try:
            if not self.started:
                await self._open()
            if self.listener is not None:
                self.listener(data)
            if self._request.transport is None:
                raise GatewayError(ErrorKind.CLIENT_CLOSED, "The client closed the connection.")
            await self.response.write(data)
            self.last_write = self._loop.time()
            if self._connection is None and self.response.chunked and isinstance(self._request.protocol, Connection):
                self._connection = self._request.protocol
        except (ConnectionError, RuntimeError) as error:
            raise GatewayError(ErrorKind.CLIENT_CLOSED, "The client closed the connection.") from error

    @property
    def outlet(self) -> ClientStream:
        """Itself: what follows the first write needs no waiting."""
        return self

    @property
    def when_lost(self) -> Callable[[], None] | None:
        """What is called in the moment in which the client has gone."""
        connection = self._request.protocol
        return connection.when_lost if isinstance(connection, Connection) else None

    @when_lost.setter
    def when_lost(self, close: Callable[[], None] | None) -> None:
        connection = self._request.protocol
        if isinstance(connection, Connection):
            connection.when_lost = close

    @property
    def ready(self) -> bool:
        """Whether `put` may be called now."""
        return self._connection is not None and self._connection.has_room

    def put(self, data: bytes) -> bool:
        """Send bytes at once, as `write` would; False if the client takes no more for now."""
        connection = self._connection
        assert connection is not None, "ask `ready` first"
        assert connection.transport is not None, "ask `ready` first"
        if self.listener is not None:
            self.listener(data)
        connection.transport.write(b"%x\r\n%b\r\n" % (len(data), data))
        self.last_write = self._loop.time()
        return connection.has_room

    async def drained(self) -> None:
        """Wait until the client has taken most of what it was sent. Raises GatewayError(CLIENT_CLOSED)."""
        try:
            if self._connection is not None:
                await self._connection._drain_helper()  # noqa: SLF001 - what the response's own write waits for
        except ConnectionError as error:
            raise GatewayError(ErrorKind.CLIENT_CLOSED, "The client closed the connection.") from error

    async def end(self) -> None:
        """The answer is complete."""
        try:
            await self.response.write_eof()
        except (ConnectionError, RuntimeError) as error:
            raise GatewayError(ErrorKind.CLIENT_CLOSED, "The client closed the connection.") from error

    async def _open(self) -> None:
        async with self._opening:  # a life sign and the first event may come together
            if self.started:
                return
            headers = self.response.headers
            headers[hdrs.CONTENT_TYPE], headers[hdrs.CACHE_CONTROL], headers[_UNBUFFERED] = self.content_type, "no-cache", "no"
            headers.update(turn_headers(self._request))
            if self._request.version >= HttpVersion11:
                self.response.enable_chunked_encoding()  # said aloud, so that `write` can tell
            await self.response.prepare(self._request)
            self.started = True
