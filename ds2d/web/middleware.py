"""Around every handler: the request id, errors in the caller's dialect, CORS, and one access line.

Rule: no answer leaves without a request id, and no error in another shape than the matched route's dialect speaks
(errors.md 1); what is not a GatewayError is a bug: traceback in the log, "internal" to the client.
Surprise: a client that left gets no answer, yet its request has an access line, with the status 499 that nobody saw.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

import orjson
from aiohttp import hdrs, web
from aiohttp.typedefs import Middleware

from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.logs import Event, Sparing, client_text, request_id
from ds2d.dialects import REGISTRY
from ds2d.web.keys import ASK, CALLER, DIALECT, REQUEST_ID, Handler
from ds2d.web.letting_go import let_go
from ds2d.web.paths import dialect_of, no_route
from ds2d.web.replies import SERVER, X_REQUEST_ID, common_headers, error_reply, preflight, request_id_of
from ds2d.web.turn_headers import turn_headers

logger = logging.getLogger("ds2d.web")
access = logging.getLogger("ds2d.access")

GONE = 499
LOOKS = frozenset({"/healthz", "/readyz", "/health", "/ping", "/metrics"})


def around(new_id: Callable[[str], str], draining: Callable[[], bool], answered: Callable[[str, int], None]) -> Middleware:
    """The one middleware. `new_id(prefix)` makes request ids; while `draining` each connection is served once more;
    `answered` hears of every request: its dialect and status."""

    strangers = Sparing(time.monotonic)

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        began = time.monotonic()
        request[REQUEST_ID] = request_id_of(request, new_id("req_"))
        current = request_id.set(request[REQUEST_ID])
        status = GONE
        try:
            reply = await _answer(request, handler)
            status = reply.status
            if request.writer.output_size and not reply.prepared:
                raise ConnectionError("another answer has begun")  # it stays unfinished, and ends with its connection
            if draining() and not reply.prepared:
                reply.force_close()
            return reply
        finally:
            answered(request.get(DIALECT, "none"), status)
            _log(request, status, time.monotonic() - began, strangers)
            _let_go(request)
            request_id.reset(current)

    return middleware


def _let_go(request: web.Request) -> None:
    """A question and its turn know each other, and aiohttp keeps a connection's last request until the next: without this a
    question, which may be large, waits for the collector or for its client. A turn that goes on without its client (a retry
    may join it, or it runs in the background) is still in need of it."""
    ask = request.get(ASK)
    if ask is None:
        return
    if ask.turn is not None and ask.turn.ended is not None:
        ask.turn = None
    if ask.request.large:
        let_go(ask.request.messages)
    del request[ASK]


def _forget_frames(error: BaseException | None) -> None:
    """An error that is told is in the frames of its own traceback, and so would wait for the collector, the question too."""
    while error is not None and error.__traceback__ is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


async def _answer(request: web.Request, handler: Handler) -> web.StreamResponse:
    if request.method == "OPTIONS" and "Origin" in request.headers and not request.path.startswith("/admin"):
        reply: web.StreamResponse = preflight(request)
    else:
        try:
            reply = await handler(request)
        except web.HTTPException as error:
            reply = _error(request, _from_http(error, request.path), error.headers.get("Allow"))
        except GatewayError as error:
            reply = _error(request, error)
            _forget_frames(error)
        except asyncio.CancelledError:
            raise
        except Exception:
            logger.exception("bug in a handler")
            reply = _error(request, GatewayError(ErrorKind.INTERNAL, "Internal error."))
    if not reply.prepared:
        _finish(request, reply)
    return reply


def _finish(request: web.Request, reply: web.StreamResponse) -> None:
    """Headers that every answer has. An answer that left the body unread closes the connection (reliability.md)."""
    dialect = request.get(DIALECT)
    if dialect == "admin" or request.path.startswith("/admin"):
        reply.headers.update({hdrs.SERVER: SERVER, X_REQUEST_ID: request[REQUEST_ID], hdrs.CACHE_CONTROL: "no-store"})
    else:
        reply.headers.update(common_headers(request[REQUEST_ID], dialect))
    reply.headers.update(turn_headers(request))
    if request.body_exists and not request.content.is_eof():
        reply.force_close()


def _error(request: web.Request, error: GatewayError, allow: str | None = None) -> web.Response:
    dialect = request.get(DIALECT) or dialect_of(request.path, request.headers)
    request[DIALECT] = dialect
    if dialect == "admin":
        body = orjson.dumps({"detail": error.message})
    else:
        body = REGISTRY[dialect].render_error(error, request[REQUEST_ID])
    reply = error_reply(error, body)
    if dialect == "admin":
        reply.headers.popall("WWW-Authenticate", None)  # a browser would ask for a password (errors.md 2)
    if allow:
        reply.headers["Allow"] = allow
    return reply


def _from_http(error: web.HTTPException, path: str) -> GatewayError:
    """What the HTTP layer refused by itself, as ours."""
    if error.status == 404:
        return GatewayError(ErrorKind.ROUTE_NOT_FOUND, no_route(path))
    if error.status == 405:
        return GatewayError(ErrorKind.METHOD_NOT_ALLOWED, "This route does not take this method.")
    if error.status == 413:
        return GatewayError(ErrorKind.BODY_TOO_LARGE, "The request body is too large.")
    if error.status < 500:
        return GatewayError(ErrorKind.INVALID_REQUEST, "The request is not valid.", status=error.status)
    return GatewayError(ErrorKind.INTERNAL, "Internal error.")


def _shown_path(request: web.Request) -> str:
    """The path for the log; of admin routes the pattern, for their paths may hold keys."""
    if not request.path.startswith("/admin"):
        return request.path
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else "/admin"


def _log(request: web.Request, status: int, seconds: float, strangers: Sparing) -> None:
    """One line a request. The path goes without its query, where Gemini clients put keys. Looks of load balancers, Prometheus
    and the console count as debugging while all is well; lines that need no key are written sparingly."""
    operators = request.get(DIALECT) == "admin" and status < 400
    is_look = status < 400 and (request.path in LOOKS or (operators and request.method == "GET"))
    level = logging.DEBUG if is_look else logging.INFO
    if not access.isEnabledFor(level):
        return
    caller = request.get(CALLER)
    kept_back = strangers.admit() if caller is None and not operators and not is_look else 0
    if kept_back is None:
        return
    ask = request.get(ASK)
    fields = {
        "method": request.method[:16],
        "path": client_text(_shown_path(request)),
        "status": status,
        "ms": round(seconds * 1000, 1),
        "request_id": request[REQUEST_ID],
        "key": caller.name if caller else None,
        **(ask.fields() if ask else {}),
    }
    if kept_back:
        fields["lines_kept_back"] = kept_back
    access.log(level, Event("request", fields))
