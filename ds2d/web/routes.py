"""The route table, built from the registries.

Rule: a route is declared once, by its dialect, in its canonical form; the router finds it for every spelling of its path.
"""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web

from ds2d.dialects import ENDPOINTS
from ds2d.web.keys import Handler
from ds2d.web.paths import short_form


def add_dialect_routes(router: web.UrlDispatcher, handler_for: Callable[[str, str], Handler]) -> None:
    """Every route of every dialect, with and without `/v1`. `handler_for(dialect, action)` makes the handlers."""
    seen: set[tuple[str, str]] = set()
    for name, endpoint in ENDPOINTS:
        for path in (endpoint.path, short_form(endpoint.path)):
            if path is None or (endpoint.method, path) in seen:
                continue
            seen.add((endpoint.method, path))
            router.add_route(endpoint.method, path, handler_for(name, endpoint.action))
