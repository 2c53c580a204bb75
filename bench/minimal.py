"""The least that a gateway with aiohttp is: a server with one route and a client. What a start is measured against.

python -m bench.minimal PORT
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator

import aiohttp
from aiohttp import web


async def healthy(_: web.Request) -> web.Response:
    """The one answer."""
    return web.Response(text="ok")


async def client(app: web.Application) -> AsyncIterator[None]:
    """A session for as long as the server runs."""
    async with aiohttp.ClientSession():
        yield


def main() -> None:
    """Serve until killed."""
    app = web.Application()
    app.router.add_get("/healthz", healthy)
    app.cleanup_ctx.append(client)
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None)


if __name__ == "__main__":
    main()
