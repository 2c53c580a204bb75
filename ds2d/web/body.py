"""Reading a request body within its bounds, and making JSON of it.

Rule: size is checked on Content-Length first and on the bytes read after that; a body has a clock and a least speed
(reliability.md, "bounds on what comes in"); what was read can also be written, so nesting is bounded at parse.
Surprise: the parser reads deeper than the writer writes (orjson: 1024 against 254 levels), hence our own bound. And a thread
alone spares the event loop nothing, because the parser holds the interpreter to its end: large bodies are read in steps.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import orjson
from aiohttp import web

from ds2d.core import json_pieces
from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.gather import gathered

MAX_DEPTH = 128
"""Levels of nesting in a request."""

SLOW_WINDOW = 30.0
SLOW_BYTES = 30 * 1024
"""A body slower than 1 KB/s over 30 s is given up."""

READ_AHEAD = 512 * 1024
"""Bytes of a body that may wait for us, twice as many at most, before the client's connection is paused: one that is kept
whole anyway gains nothing by pauses, each of which costs system calls."""

OFF_LOOP = 1024 * 1024
"""Bytes above which a body is worked on in a thread: some 5 ms on the loop."""

Bytes = bytes | memoryview


def is_large(body: Bytes) -> bool:
    """Whether what looks at all of this body is to be done in a thread."""
    return len(body) > OFF_LOOP


async def read_body(request: web.Request, limit: int, seconds: float) -> Bytes:
    """The whole body. Raises GatewayError: UNSUPPORTED_ENCODING, BODY_TOO_LARGE, REQUEST_TIMEOUT, CLIENT_CLOSED."""
    content = request.content
    if content.is_eof():
        _check_head(request, limit)
        body = content.read_nowait()
        if len(body) > limit:
            raise _too_large(limit)
        return body
    content.set_read_chunk_size(READ_AHEAD)  # who asks is known by now
    pieces = [piece async for piece in pieces_of(request, limit, seconds)]
    if sum(map(len, pieces)) <= OFF_LOOP:
        return b"".join(pieces)
    return await asyncio.get_running_loop().run_in_executor(None, gathered, pieces)


async def pieces_of(request: web.Request, limit: int, seconds: float) -> AsyncIterator[bytes]:
    """The body as it comes; the clocks run only while it is waited for. Raises what `read_body` raises."""
    _check_head(request, limit)
    loop = asyncio.get_running_loop()
    left, window_left = seconds, SLOW_WINDOW
    size = window_size = 0
    while True:
        asked = loop.time()
        try:
            async with asyncio.timeout(min(left, window_left)):
                piece = await request.content.readany()
        except TimeoutError:
            raise GatewayError(ErrorKind.REQUEST_TIMEOUT, "The request body took too long to arrive.") from None
        except (ConnectionError, web.HTTPException) as error:
            raise GatewayError(ErrorKind.CLIENT_CLOSED, "The client closed the connection.") from error
        if not piece:
            return
        waited = loop.time() - asked
        left, window_left = left - waited, window_left - waited
        size += len(piece)
        window_size += len(piece)
        if size > limit:
            raise _too_large(limit)
        if window_size >= SLOW_BYTES:
            window_left, window_size = SLOW_WINDOW, 0
        yield piece


def _check_head(request: web.Request, limit: int) -> None:
    """What can be refused before anything is read."""
    encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise GatewayError(ErrorKind.UNSUPPORTED_ENCODING, "Compressed request bodies are not accepted: send it as it is.")
    if (request.content_length or 0) > limit:
        raise _too_large(limit)


async def parse_object(body: Bytes) -> dict[str, Any]:
    """The JSON object in a body. Raises GatewayError(INVALID_JSON): not JSON, not UTF-8, not an object, nested too deep."""
    if is_large(body):
        return await asyncio.get_running_loop().run_in_executor(None, _parse, body)
    return _parse(body)


def _parse(body: Bytes) -> dict[str, Any]:
    try:
        value = json_pieces.loads(body, MAX_DEPTH) if is_large(body) else orjson.loads(body)
    except (ValueError, RecursionError):
        raise GatewayError(ErrorKind.INVALID_JSON, "invalid json") from None
    if not isinstance(value, dict):
        raise GatewayError(ErrorKind.INVALID_JSON, "invalid json: the body must be an object")
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        level = [
            child
            for parent in level
            for child in (parent.values() if type(parent) is dict else parent)
            if type(child) is dict or type(child) is list
        ]
        if not level:
            return value
    raise GatewayError(ErrorKind.INVALID_JSON, f"invalid json: nested deeper than {MAX_DEPTH} levels")


def _too_large(limit: int) -> GatewayError:
    return GatewayError(ErrorKind.BODY_TOO_LARGE, f"The request body is larger than {limit} bytes.")
