"""GET /metrics, and who may read it (`metrics.access`).

Rule: `auto` is open where nobody but this host can ask, else for the operator; keys and the operator are checked as on
every other route, and none stands in for the other.
Surprise: behind a proxy on this host every request comes from this host, so one that says it was forwarded counts by what
it says (`server.trusted_proxies`), and never as open where nobody vouches for that.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable

from aiohttp import web

from ds2d.config.schema import Config
from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.metrics import CONTENT_TYPE
from ds2d.web.auth import peer_of
from ds2d.web.keys import DIALECT, Handler


class MetricsRoute:
    """The route. `page` makes the text; `exposed` says whether others than this host can reach the listener; `key` and
    `admin` raise GatewayError for whoever is not one."""

    def __init__(
        self,
        config: Callable[[], Config],
        page: Callable[[], bytes],
        exposed: Callable[[], bool],
        key: Callable[[web.Request], object],
        admin: Callable[[web.Request], Awaitable[object]],
    ) -> None:
        self._config = config
        self._page = page
        self._exposed = exposed
        self._key = key
        self._admin = admin

    def routes(self) -> list[tuple[str, str, Handler]]:
        """Method, path, handler."""
        return [("GET", "/metrics", self.metrics)]

    async def metrics(self, request: web.Request) -> web.StreamResponse:
        """The page."""
        await self._admit(request)
        return web.Response(body=self._page(), headers={"Content-Type": CONTENT_TYPE, "Cache-Control": "no-store"})

    async def _admit(self, request: web.Request) -> None:
        """Raises ROUTE_NOT_FOUND, INVALID_KEY, KEY_EXPIRED, FORBIDDEN, RATE_LIMITED."""
        request[DIALECT] = "openai_chat"
        access = self._config().metrics.access
        if access == "auto":
            access = "open" if self._is_local(request) else "admin"
        if access == "off":
            raise GatewayError(ErrorKind.ROUTE_NOT_FOUND, "There is no such route.")
        if access == "key":
            self._key(request)
        elif access == "admin":
            await self._admin(request)

    def _is_local(self, request: web.Request) -> bool:
        if self._exposed():
            return False
        peer = peer_of(request, self._config().server.trusted_proxies)
        try:
            return peer is not None and ipaddress.ip_address(peer).is_loopback
        except ValueError:
            return False
