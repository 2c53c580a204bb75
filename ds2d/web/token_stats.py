"""Token statistics, rotation and observed limits (token-rotation.md).

Rule: for a key with the `admin` right or the operator; with `server.open_token_stats` the two reads are open to the open
networks as well. Labels of accounts, never a secret.
Surprise: a known key without the right is refused as such (403) and never tried as an admin credential.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from operator import itemgetter
from typing import Any

from aiohttp import web

from ds2d.config.schema import Config
from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.state.accounts import AccountQueue
from ds2d.state.callers import Callers
from ds2d.state.observed import Observed
from ds2d.state.reports import token_stats
from ds2d.web.auth import credentials, peer_of
from ds2d.web.keys import DIALECT, Handler
from ds2d.web.replies import value_reply

MESSAGES = {
    "en": (
        "Switched to the next account.",
        "There is one account only: nothing changed.",
        "Statistics and circuit breakers were reset.",
    ),
    "zh": ("已切换到下一个账号。", "只有一个账号，未作更改。", "统计数据和熔断器已重置。"),
    "ko": ("다음 계정으로 전환했습니다.", "계정이 하나뿐이어서 바뀐 것이 없습니다.", "통계와 서킷 브레이커를 초기화했습니다."),
    "uk": (
        "Перемкнуто на наступний обліковий запис.",
        "Обліковий запис лише один: нічого не змінено.",
        "Статистику та запобіжники скинуто.",
    ),
}
ROTATED, UNCHANGED, RESET = range(3)

AdminCheck = Callable[[web.Request], Awaitable[object]]


class TokenStats:
    """The four routes. `admin` returns for a request of the operator and raises GatewayError for any other."""

    def __init__(
        self, config: Callable[[], Config], callers: Callers, queue: AccountQueue, observed: Observed, admin: AdminCheck
    ) -> None:
        self._config = config
        self._callers = callers
        self._queue = queue
        self._observed = observed
        self._admin = admin

    def routes(self) -> list[tuple[str, str, Handler]]:
        """Method, path, handler."""
        return [
            ("GET", "/v1/tokens/stats", self.stats),
            ("POST", "/v1/tokens/rotate", self.rotate),
            ("POST", "/v1/tokens/reset-stats", self.reset),
            ("GET", "/v1/rate-limits/observed", self.observed),
        ]

    async def stats(self, request: web.Request) -> web.StreamResponse:
        """What the accounts do."""
        await self._admit(request, read=True)
        return value_reply(token_stats(self._queue))

    async def observed(self, request: web.Request) -> web.StreamResponse:
        """What the accounts were seen to allow."""
        await self._admit(request, read=True)
        return value_reply(self._observed.report())

    async def rotate(self, request: web.Request) -> web.StreamResponse:
        """The next request starts at the following account."""
        await self._admit(request)
        before = self._queue.current()
        now = self._queue.rotate()
        message = _message(request, UNCHANGED if now is before else ROTATED)
        return value_reply({"success": True, "message": message, "current_token": now.account.label if now else None})

    async def reset(self, request: web.Request) -> web.StreamResponse:
        """Counters to zero, breakers closed, nothing put aside."""
        await self._admit(request)
        self._queue.reset()
        self._observed.forget()
        return value_reply({"success": True, "message": _message(request, RESET)})

    async def _admit(self, request: web.Request, *, read: bool = False) -> None:
        """Raises INVALID_KEY, KEY_EXPIRED, FORBIDDEN, RATE_LIMITED."""
        request[DIALECT] = "openai_chat"
        given = credentials(request, query_key=False)
        if any(self._callers.find(key) for key in given):
            if not self._callers.identify(given, None).reads_statistics:
                raise GatewayError(ErrorKind.FORBIDDEN, "This API key has no `admin` right.")
            return
        server = self._config().server
        if read and server.open_token_stats and self._callers.is_open(peer_of(request, server.trusted_proxies)):
            return
        if not given:
            raise GatewayError(ErrorKind.INVALID_KEY, "A key with the `admin` right or the admin key is needed.")
        await self._admin(request)


def _message(request: web.Request, which: int) -> str:
    """In the language that Accept-Language likes best of those that there are, else English."""
    parts = [_weighed(part) for part in request.headers.get("Accept-Language", "")[:200].split(",")]
    wanted = [language for weight, language in sorted(parts, key=itemgetter(0), reverse=True) if weight > 0]
    texts: Any = next((MESSAGES[language] for language in wanted if language in MESSAGES), MESSAGES["en"])
    return str(texts[which])


def _weighed(part: str) -> tuple[float, str]:
    """Weight and language of a part of Accept-Language; `q=0` is one that is not wanted (RFC 9110, 12.4.2)."""
    language, _, weight = part.lower().replace(" ", "").partition(";q=")
    try:
        return float(weight or 1), language[:2]
    except ValueError:
        return 0.0, language[:2]
