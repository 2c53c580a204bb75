"""The admin API put together: the route table's rows given their handlers, each behind the same check.

Rule: no handler runs, and nothing of a body is read, before the check of its row has passed; no answer may be stored by a
cache (the layer around all handlers sees to that, errors included).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiohttp import web

from ds2d.web.admin.desk import ADMIN
from ds2d.web.admin.session import Guard
from ds2d.web.admin.table import ROUTES, Route
from ds2d.web.keys import DIALECT, Handler


def add_admin_routes(router: web.UrlDispatcher, guard: Guard, areas: Mapping[str, Any]) -> None:
    """Every route of the table. `areas` are the objects whose methods the rows name."""
    for route in ROUTES:
        handler = getattr(areas[route.area], route.action)
        router.add_route(route.method, route.path, _guarded(route, guard, handler))


def _guarded(route: Route, guard: Guard, handler: Handler) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        request[DIALECT] = "admin"
        request[ADMIN] = await guard.admit(request, route.auth)
        return await handler(request)

    return handle
