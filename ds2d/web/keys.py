"""What handlers and the layer around them leave on a request for each other."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

from ds2d.core.caller import Caller
from ds2d.service import Again, Ask

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

REQUEST_ID: web.RequestKey[str] = web.RequestKey("request_id", str)
CALLER: web.RequestKey[Caller] = web.RequestKey("caller", Caller)
DIALECT: web.RequestKey[str] = web.RequestKey("dialect", str)
AGAIN: web.RequestKey[Again | None] = web.RequestKey("again")
ARRIVED: web.RequestKey[float] = web.RequestKey("arrived", float)
"""When its body was there, on the monotonic clock."""

ASK: web.RequestKey[Ask] = web.RequestKey("ask", Ask)
