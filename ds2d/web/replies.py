"""Bodies and headers of whole answers: JSON, errors in the caller's dialect, CORS, request ids.

Rule: nothing of a model, client or account gets into a header, except the client's own request id when it is harmless.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import orjson
from aiohttp import hdrs, web
from multidict import istr

from ds2d.core.errors import ErrorKind, GatewayError

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")

CORS_HEADERS = "Content-Type, Authorization, X-API-Key, X-Ds2-Target-Account, X-Vercel-Protection-Bypass"
EXPOSED = "x-request-id, retry-after, x-ds2d-route"

SERVER = "ds2d"
"""Who answers; what it is made of and in which versions is nobody's business."""

X_REQUEST_ID, REQUEST_ID_OF_CLAUDE = istr("x-request-id"), istr("request-id")
"""Names of headers that every answer has are `istr`: of any other string the HTTP library makes one, anew for each answer, and
keeps it for as long as the answer lasts."""

HEADER_NAME = re.compile(r"[A-Za-z0-9-]{1,64}")


def json_reply(body: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """A JSON answer from encoded bytes."""
    return web.Response(body=body, status=status, headers=headers, content_type="application/json")


def value_reply(value: object, status: int = 200) -> web.Response:
    """A JSON answer from a value."""
    return json_reply(orjson.dumps(value), status)


def error_reply(error: GatewayError, body: bytes) -> web.Response:
    """An error with the headers of errors.md 2."""
    reply = json_reply(body, error.status)
    if error.status == 401:
        detail = ' error="invalid_token"' if error.kind is ErrorKind.KEY_EXPIRED else ""
        reply.headers["WWW-Authenticate"] = f'Bearer realm="ds2d"{"," if detail else ""}{detail}'
    if (seconds := retry_after(error)) is not None:
        reply.headers["Retry-After"] = str(seconds)
    if error.row.final:
        reply.headers["x-should-retry"] = "false"
    if error.kind in (ErrorKind.BODY_TOO_LARGE, ErrorKind.SHUTTING_DOWN, ErrorKind.REQUEST_TIMEOUT, ErrorKind.UPGRADE_REQUIRED):
        reply.force_close()
    return reply


def retry_after(error: GatewayError) -> int | None:
    """Whole seconds for Retry-After, 1 to 120 (SDKs give up above), or None where the header has no place."""
    if error.kind is ErrorKind.SHUTTING_DOWN:
        return 5
    if error.retry_after is not None:
        return min(120, max(1, math.ceil(error.retry_after)))
    retried = error.status in (429, 503) and not error.row.final
    return 1 if retried else None


def request_id_of(request: web.Request, new_id: str) -> str:
    """The client's own x-request-id where it is harmless, else a new one."""
    given = request.headers.get("x-request-id", "")
    return given if REQUEST_ID.fullmatch(given) else new_id


def common_headers(request_id: str, dialect: str | None) -> dict[str, str]:
    """What every answer of a dialect's routes carries."""
    headers: dict[str, str] = {
        hdrs.SERVER: SERVER,
        X_REQUEST_ID: request_id,
        hdrs.ACCESS_CONTROL_ALLOW_ORIGIN: "*",
        hdrs.ACCESS_CONTROL_EXPOSE_HEADERS: EXPOSED,
    }
    if dialect == "claude":
        headers[REQUEST_ID_OF_CLAUDE] = request_id
    return headers


def preflight(request: web.Request) -> web.Response:
    """The answer to a browser's question: the reference's headers, and those it asks for if they are names at all."""
    asked = [name.strip() for name in request.headers.get("Access-Control-Request-Headers", "").split(",")]
    known = {name.strip().lower() for name in CORS_HEADERS.split(",")}
    extra = [name for name in asked[:64] if HEADER_NAME.fullmatch(name) and name.lower() not in known]
    return web.Response(
        status=204,
        headers={
            "Access-Control-Allow-Origin": "*",
            "Access-Control-Allow-Methods": "GET, POST, PUT, DELETE, HEAD, OPTIONS",
            "Access-Control-Allow-Headers": ", ".join([CORS_HEADERS, *extra]),
            "Access-Control-Max-Age": "600",
        },
    )
