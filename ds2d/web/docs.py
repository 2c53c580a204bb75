"""`/openapi.json` and `/docs`: what this gateway offers, for programs and for people.

Rule: a page needs nothing but itself and its style sheet: no script, nothing from elsewhere, and its policy allows none.
"""

from __future__ import annotations

import functools

import orjson
from aiohttp import web

from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.web.keys import Handler
from ds2d.web.manual import pages
from ds2d.web.openapi import document

POLICY = "default-src 'none'; style-src 'self'; img-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
HEADERS = {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}


class Docs:
    """Handlers; every answer is made once, when it is first asked for."""

    def routes(self) -> list[tuple[str, Handler]]:
        """Paths that answer to GET and HEAD."""
        return [("/openapi.json", self.openapi), ("/docs", self.index), ("/docs/{page:.*}", self.page)]

    async def openapi(self, request: web.Request) -> web.StreamResponse:
        """The document."""
        return web.Response(body=_document(), content_type="application/json")

    async def index(self, request: web.Request) -> web.StreamResponse:
        """The manual's first page."""
        return _page(pages.INDEX)

    async def page(self, request: web.Request) -> web.StreamResponse:
        """Another page, or the style sheet of all. With a slash behind it its links would miss, so that leads to the page."""
        name = request.match_info["page"].removesuffix(".html")
        if not name or name.endswith("/"):
            place = name.rstrip("/") or "docs"
            if place not in pages.names() and place != "docs":
                raise GatewayError(ErrorKind.ROUTE_NOT_FOUND, "There is no such page.")
            return web.Response(status=308, headers={"Location": f"../{place}"})
        if name == "style.css":
            return web.Response(text=pages.STYLE, content_type="text/css", headers=HEADERS)
        return _page(name)


@functools.cache
def _document() -> bytes:
    return orjson.dumps(document())


def _page(name: str) -> web.Response:
    try:
        text = pages.served(name)
    except KeyError:
        raise GatewayError(ErrorKind.ROUTE_NOT_FOUND, "There is no such page.") from None
    return web.Response(text=text, content_type="text/html", headers=HEADERS)
