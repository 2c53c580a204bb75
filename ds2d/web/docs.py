"""`/openapi.json` and `/docs`: what this gateway offers, for programs and for people.

Rule: the page needs nothing but itself: no script, no style or font from elsewhere, and its policy allows none.
"""

from __future__ import annotations

import html
from collections.abc import Iterator

import orjson
from aiohttp import web

from ds2d import __version__
from ds2d.web.keys import Handler
from ds2d.web.openapi import Line, document, lines

POLICY = "default-src 'none'; style-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"


class Docs:
    """Handlers; both answers are made once."""

    def __init__(self) -> None:
        self._document = orjson.dumps(document())
        self._page = "\n".join(_page(lines()))

    def routes(self) -> list[tuple[str, Handler]]:
        """Paths that answer to GET and HEAD."""
        return [("/openapi.json", self.openapi), ("/docs", self.page)]

    async def openapi(self, request: web.Request) -> web.StreamResponse:
        """The document."""
        return web.Response(body=self._document, content_type="application/json")

    async def page(self, request: web.Request) -> web.StreamResponse:
        """The page."""
        headers = {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
        return web.Response(text=self._page, content_type="text/html", headers=headers)


def _page(found: list[Line]) -> Iterator[str]:
    yield f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>ds2d {__version__}: API</title></head><body>'
    yield f'<h1>ds2d {__version__}</h1><p>The same for programs: <a href="openapi.json">openapi.json</a></p>'
    for tag in dict.fromkeys(line.tag for line in found):
        yield f"<h2>{html.escape(tag)}</h2><table><tr><th>method</th><th>path</th><th>who</th><th>what</th><th>body</th></tr>"
        for line in found:
            if line.tag == tag:
                cells = (line.method, line.path, line.auth, line.summary, _fields(line))
                yield "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>"
        yield "</table>"
    yield "</body></html>"


def _fields(line: Line) -> str:
    """The names of a body's fields, those that must stand there with a star."""
    if line.body is None:
        return ""
    required = line.body.get("required", [])
    names = [*line.body.get("properties", {}), *(name for name in required if name not in line.body.get("properties", {}))]
    return ", ".join(f"{name}*" if name in required else name for name in names)
