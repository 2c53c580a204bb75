"""The console's pages and files.

Rule: a page runs only files of this server: no inline script or style, no markup made of text, no frame around it.
Surprise: `/` is a page for browsers only; for anybody else it is the short text that probes and people with curl know.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

from aiohttp import web

from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.web.assets import ROOT, Asset, load
from ds2d.web.keys import Handler

FOLDER = Path(__file__).with_name("console")

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
GUARDS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
}
FOR_EVER = "public, max-age=31536000, immutable"


class Pages:
    """Handlers. `root_path` is what stands before every path; `text` answers for `/` where no page is wanted."""

    def __init__(self, root_path: Callable[[], str], text: Handler) -> None:
        self._root_path = root_path
        self._text = text

    def routes(self) -> list[tuple[str, Handler]]:
        """Paths that answer to GET and HEAD."""
        return [("/", self.root), ("/admin", self.admin), ("/console/{name:.+}", self.file)]

    async def root(self, request: web.Request) -> web.StreamResponse:
        """The playground for a browser, the short text for others."""
        reply = self.page("playground") if "text/html" in request.headers.get("Accept", "") else await self._text(request)
        reply.headers["Vary"] = "Accept"
        return reply

    async def admin(self, request: web.Request) -> web.StreamResponse:
        """The page of the operator; what it shows it asks of the admin API."""
        return self.page("admin")

    async def file(self, request: web.Request) -> web.StreamResponse:
        """A file of the console; asked for by its hash it may be kept for ever."""
        asset = console_files().get(request.match_info["name"])
        if asset is None or asset.kind == "text/html":
            raise GatewayError(ErrorKind.ROUTE_NOT_FOUND, "There is no such file.")
        known = request.query.get("v") == asset.stamp
        headers = {
            "Cache-Control": FOR_EVER if known else "no-cache",
            "ETag": f'"{asset.stamp}"',
            "Vary": "Accept-Encoding",
            "X-Content-Type-Options": "nosniff",
        }
        if f'"{asset.stamp}"' in request.headers.get("If-None-Match", ""):
            return web.Response(status=304, headers=headers)
        if "gzip" in request.headers.get("Accept-Encoding", ""):
            return _reply(asset, asset.packed, {**headers, "Content-Encoding": "gzip"})
        return _reply(asset, asset.body, headers)

    def page(self, name: str) -> web.Response:
        """One page of the console."""
        asset = console_files()[f"{name}/index.html"]
        body = asset.body.replace(ROOT.encode(), self._root_path().rstrip("/").encode())
        return _reply(asset, body, {**GUARDS, "Cache-Control": "no-cache"})


@functools.cache
def console_files() -> dict[str, Asset]:
    """The console, read once a process, soon after the start: packing it takes 40 ms where no wheel has done it."""
    return load(FOLDER)


def _reply(asset: Asset, body: bytes, headers: dict[str, str]) -> web.Response:
    return web.Response(body=body, headers=headers, content_type=asset.kind, charset="utf-8")
