"""The HTTP server's connections: aiohttp's, with the clocks and bounds that it has not.

Rule: a header block has 64 KB, 100 fields and its own clock from its first byte; there are never more connections than
configured; what is no HTTP gets a JSON error and one log line, not a traceback (reliability.md, "bounds on what comes in").
Surprise: pydantic-ai's Gemini client sends two User-Agent lines, which the C parser refuses and cannot be told to accept,
so the second one is taken out of the head before it is parsed (clients.md, fact 10). No other repeated header passes.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any, cast

from aiohttp import HttpVersion11, hdrs, web
from aiohttp.http_parser import RawRequestMessage
from aiohttp.web_protocol import RequestHandler
from yarl import URL

from ds2d.config.schema import Server
from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.logs import Event, Sparing
from ds2d.core.sizes import Size, Sizes
from ds2d.dialects import REGISTRY
from ds2d.net.handshakes import TlsServer
from ds2d.net.listening import Certificate, Place, listen
from ds2d.web.paths import tidy_path
from ds2d.web.replies import SERVER, error_reply

logger = logging.getLogger("ds2d.http")

MAX_HEAD = 64 * 1024
MAX_FIELDS = 100
HEAD_END = b"\r\n\r\n"
AGENT = b"\r\nuser-agent:"


class Connection(RequestHandler):
    """One client connection."""

    __slots__ = (
        "_body_left",
        "_bounds",
        "_head",
        "_head_timer",
        "_last_payload",
        "_refused",
        "_stall_timer",
        "_unsent",
        "has_room",
        "is_admitted",
        "when_lost",
    )

    def __init__(self, manager: BoundedServer, *, loop: asyncio.AbstractEventLoop, **kwargs: Any) -> None:
        super().__init__(manager, loop=loop, **kwargs)
        self._bounds = manager
        self._head = b""
        self._head_timer: asyncio.TimerHandle | None = None
        self._last_payload: Any = None
        self._body_left: int | None = 0
        """Bytes of the running body that are still to come; None where only its chunks say so."""
        self._stall_timer: asyncio.TimerHandle | None = None
        self._unsent = 0
        self._refused = False
        self.is_admitted = False
        """Whether it counts already, since before its TLS stood."""
        self.has_room = True
        """Whether the client takes what it is sent, as far as can be told: no more is to be sent while it does not."""
        self.when_lost: Callable[[], None] | None = None
        """Called once where the connection ends while an answer runs."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not self.is_admitted and not self._bounds.admit():
            self._refused = True
            transport.close()
            return
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._refused:
            return
        self.has_room = False
        lost, self.when_lost = self.when_lost, None
        if lost is not None:
            lost()
        self._stop_clock()
        self._stop_stall_clock()
        self._bounds.leave()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        if not data:  # aiohttp feeds nothing to itself when it resumes reading
            super().data_received(data)
        while data:
            data = self._take_body(data) if self._in_body() else self._take_head(data)

    def pause_writing(self) -> None:
        """The client takes less than it is sent: from here on its clock runs, whatever kind of answer it is."""
        super().pause_writing()
        self.has_room = False
        if self.transport is not None:
            self._watch_stall(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        self._stop_stall_clock()
        self.has_room = True
        super().resume_writing()

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """What could not be read as a request at all; and what the middleware ends a stream with that has begun."""
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has begun already")
        if (kept_back := self._bounds.strangers.admit()) is not None:
            what = {"why": type(exc).__name__ if exc else status, "lines_kept_back": kept_back}
            logger.info(Event("refused what a client sent as HTTP", what))
        kind = ErrorKind.INTERNAL if status >= 500 else ErrorKind.INVALID_REQUEST
        text = "Internal error." if status >= 500 else "The request is not valid HTTP."
        error = GatewayError(kind, text, status=status)
        request_id = self._bounds.new_id("req_")
        reply = error_reply(error, REGISTRY["openai_chat"].render_error(error, request_id))
        reply.headers["x-request-id"] = request_id
        reply.force_close()
        return reply

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Also what aiohttp answers by itself, before any handler, names us and not it. A stream to a client of HTTP/1.0 ends
        with the connection, which aiohttp would keep where the client asked for that."""
        if not resp.prepared:
            resp.headers.setdefault(hdrs.SERVER, SERVER)
        reply, is_lost = await super().finish_response(request, resp, start_time)
        if request.version < HttpVersion11 and reply.content_length is None:
            reply.force_close()
        return reply, is_lost

    @property
    def owes_an_answer(self) -> bool:
        """A request is here, or has begun to arrive, and nothing of its answer was sent yet."""
        request = self._current_request
        return bool(self._head) or (request is not None and not request.writer.output_size)

    def _in_body(self) -> bool:
        payload = self._last_payload
        return payload is not None and not payload.is_eof()

    def _take_body(self, data: bytes) -> bytes:
        """Hand on what belongs to the running body; the rest is the next head."""
        left = len(data) if self._body_left is None else self._body_left
        super().data_received(data[:left])
        if self._body_left is not None:
            self._body_left = max(0, left - len(data))
        return data[left:]

    def _take_head(self, data: bytes) -> bytes:
        """Collect a head until it is whole, bound it, drop a second User-Agent, and hand it on. Returns what comes after it."""
        data = self._head + data if self._head else data
        end = data.find(HEAD_END, max(0, len(self._head) - 3))
        if end < 0 and len(data) <= MAX_HEAD:
            self._head = data
            if self._head_timer is None:
                self._head_timer = self._loop.call_later(self._bounds.limits().header_seconds, self._head_late)
            return b""
        self._stop_clock()
        self._head = b""
        if end < 0 or end > MAX_HEAD or data.count(b"\r\n", 0, end) > MAX_FIELDS:
            self._refuse(ErrorKind.HEADERS_TOO_LARGE, f"The header block is larger than {MAX_HEAD} bytes or {MAX_FIELDS} fields.")
            return b""
        before = len(self._messages)
        super().data_received(_with_one_agent(data[: end + 4], end))
        if len(self._messages) == before:  # a part of a chunked body, of which only the parser knows the end
            super().data_received(data[end + 4 :])
            return b""
        message, self._last_payload = self._messages[-1]
        if not isinstance(message, RawRequestMessage):  # no HTTP: nothing after it can be believed
            return b""
        length = message.headers.get("Content-Length")
        self._body_left = int(length) if length is not None else None
        return data[end + 4 :]

    def _watch_stall(self, unsent: int) -> None:
        self._stop_stall_clock()
        self._unsent = unsent
        self._stall_timer = self._loop.call_later(self._bounds.limits().write_stall_seconds, self._check_stall)

    def _check_stall(self) -> None:
        """The clock has run out: whoever took something meanwhile has another round."""
        self._stall_timer = None
        transport = self.transport
        if transport is None:
            return
        unsent = transport.get_write_buffer_size()
        if unsent < self._unsent:
            self._watch_stall(unsent)
            return
        if self._bounds.strangers.admit() is not None:
            logger.info("a client stopped reading: connection closed")
        transport.abort()

    def _stop_stall_clock(self) -> None:
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None

    def _head_late(self) -> None:
        self._head_timer = None
        self._refuse(ErrorKind.REQUEST_TIMEOUT, "The request header took too long to arrive.")

    def _refuse(self, kind: ErrorKind, message: str) -> None:
        """Answer without a request: the connection is of no further use."""
        error = GatewayError(kind, message)
        body = REGISTRY["openai_chat"].render_error(error, self._bounds.new_id("req_"))
        head = f"HTTP/1.1 {error.status} Refused\r\nServer: {SERVER}\r\nContent-Type: application/json\r\n"
        if self.transport is not None:
            self.transport.write(f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
        self.force_close()
        if self.transport is not None:
            self.transport.close()

    def _stop_clock(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


class BoundedServer(web.Server):
    """Makes the connections and counts them. `limits` gives the settings that hold now: a changed clock counts from then on."""

    def __init__(
        self, *args: Any, new_id: Callable[[str], str], limits: Callable[[], Server], max_connections: int, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.new_id = new_id
        self.limits = limits
        self.max_connections = max_connections
        self.open_connections = 0
        self._told = False
        self.strangers = Sparing(time.monotonic)
        """For lines that clients can bring about without a key."""

    def __call__(self) -> RequestHandler:
        return Connection(self, loop=self._loop, **self._kwargs)

    def admitted(self) -> RequestHandler:
        """The protocol of a connection that was admitted already."""
        connection = Connection(self, loop=self._loop, **self._kwargs)
        connection.is_admitted = True
        return connection

    def admit(self) -> bool:
        """Whether one more connection may be taken; says it once when it may not."""
        if self.open_connections >= self.max_connections:
            if not self._told:
                logger.warning("connection limit reached: %d (server.max_connections)", self.max_connections)
                self._told = True
            return False
        self.open_connections += 1
        return True

    def sizes(self) -> Sizes:
        """Clients' connections."""
        return {"open": Size(self.open_connections, self.max_connections)}

    def leave(self) -> None:
        """A connection has ended."""
        self.open_connections -= 1
        self._told = self._told and self.open_connections >= self.max_connections * 0.9


class Runner(web.AppRunner):
    """An application's runner whose connections are ours. `bounds` are BoundedServer's own arguments."""

    __slots__ = ("_bounds",)

    def __init__(self, app: web.Application, bounds: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(app, **kwargs)
        self._bounds = bounds

    def owes_answers(self) -> bool:
        """Whether a client has asked, or is asking, and has heard nothing yet."""
        found = self.server.connections if self.server is not None else []
        return any(isinstance(one, Connection) and one.owes_an_answer for one in found)

    def cut_unread(self) -> None:
        """Close the connections whose clients have not taken what they were sent."""
        for connection in self.server.connections if self.server is not None else []:
            transport = connection.transport
            if transport is not None and transport.get_write_buffer_size():
                transport.abort()

    async def _make_server(self) -> web.Server:
        plain = await super()._make_server()
        root = self._bounds["limits"]().root_path

        def tidy_request(message: RawRequestMessage, *more: Any) -> web.BaseRequest:
            return plain.request_factory(tidied(message, root), *more)

        return BoundedServer(
            plain.request_handler,
            request_factory=tidy_request,
            handler_cancellation=True,
            loop=asyncio.get_running_loop(),
            **self._bounds,
            **plain._kwargs,  # noqa: SLF001 - aiohttp has no other way to give a server its own connections
        )


class Site(web.BaseSite):
    """One listener of a runner: at an address, or on a socket that listens already. `certificate` is for the network."""

    __slots__ = ("_certificate", "_tls", "_where")

    def __init__(self, runner: Runner, where: Place, certificate: Certificate | None = None) -> None:
        super().__init__(runner)
        self._where = where
        is_local = isinstance(where, socket.socket) and where.family == socket.AF_UNIX
        self._certificate = None if is_local else certificate
        self._tls: TlsServer | None = None

    @property
    def name(self) -> str:
        """For aiohttp's own messages."""
        return str(self._where)

    async def start(self) -> None:
        """Take connections. Raises OSError."""
        await super().start()
        server = self._runner.server
        assert isinstance(server, BoundedServer)
        self._server = plain = await listen(server, self._where, serve=self._certificate is None)
        if self._certificate is not None:
            self._tls = TlsServer(self.twins(), server, self._certificate)
            self._server = cast(asyncio.AbstractServer, self._tls)  # as far as aiohttp uses one
            plain.close()

    async def stop(self) -> None:
        """Take no more; who shakes hands still was not taken."""
        await super().stop()
        if self._tls is not None:
            await self._tls.wait_closed()

    def twins(self) -> list[socket.socket]:
        """Its sockets once more: they go on listening when this site has stopped."""
        found: Sequence[Any] = getattr(self._server, "sockets", ())
        return [socket.socket(fileno=os.dup(one.fileno())) for one in found]


def tidied(message: RawRequestMessage, root: str) -> RawRequestMessage:
    """The request line with its path in canonical form, without `server.root_path`; the query stays as it came."""
    path, mark, query = message.path.partition("?")
    tidy = tidy_path(path, root)
    if tidy == path or not path.startswith("/"):
        return message
    whole = tidy + mark + query
    return message._replace(path=whole, url=URL(whole, encoded=True))


def _with_one_agent(data: bytes, end: int) -> bytes:
    """The bytes without a second User-Agent line in the head that ends at `end`."""
    low = data[:end].lower()
    first = low.find(AGENT)
    second = low.find(AGENT, first + 1) if first >= 0 else -1
    if second < 0:
        return data
    line_end = data.find(b"\r\n", second + 2)
    return data[:second] + data[line_end:]
