"""What the head of an answer says about its turn: rate limits of the key, the wait in the queue, and the route.

Rule: constants and numbers of ours only; of names there is the model's, escaped. No account and no upstream (the operator's
record has those).
Surprise: a stream's head goes out with its first byte, so it tells what was known then.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from urllib.parse import quote

from aiohttp import web
from multidict import istr

from ds2d.service import Turn
from ds2d.state.quotas import Quotas
from ds2d.state.windows import Headroom
from ds2d.web.keys import ASK, CALLER, DIALECT

QUOTAS: web.AppKey[Quotas] = web.AppKey("quotas", Quotas)

_ROUTE, _POSITION, _WAIT = istr("x-ds2d-route"), istr("x-ds2d-queue-position"), istr("x-ds2d-queue-wait-ms")

MAX_ROUTE = 512
"""Characters of X-DS2D-Route."""


def turn_headers(request: web.Request) -> dict[str, str]:
    """Headers for the answer to this request as things stand now; none where no turn was asked for."""
    ask, caller = request.get(ASK), request.get(CALLER)
    if ask is None or caller is None:
        return {}
    headroom = request.app[QUOTAS].headroom(caller)
    headers = limits(request.get(DIALECT, ""), headroom, datetime.now(UTC)) if headroom else {}
    turn = ask.turn
    if turn is not None:
        if turn.position:
            headers[_POSITION] = str(turn.position)
            headers[_WAIT] = f"{turn.waited * 1000:.0f}"
        if turn.config.runtime.route_header:
            headers[_ROUTE] = route_of(turn)
    return headers


def limits(dialect: str, headroom: Mapping[str, Headroom], now: datetime) -> dict[str, str]:
    """The rate limits of a key in the dialect's own headers; Gemini has none. `headroom` is by `requests` and `tokens`."""
    headers: dict[str, str] = {}
    for what, left in headroom.items():
        if dialect == "claude":
            reset = (now + timedelta(seconds=left.reset)).isoformat(timespec="seconds").replace("+00:00", "Z")
            values = {"limit": str(left.limit), "remaining": str(left.remaining), "reset": reset}
            headers |= {f"anthropic-ratelimit-{what}-{name}": value for name, value in values.items()}
        elif dialect != "gemini":
            values = {"limit": str(left.limit), "remaining": str(left.remaining), "reset": span(left.reset)}
            headers |= {f"x-ratelimit-{name}-{what}": value for name, value in values.items()}
    return headers


def span(seconds: float) -> str:
    """A time span as OpenAI writes it: 20ms, 1s, 6m0s."""
    if seconds < 1:
        return f"{seconds * 1000:.0f}ms"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"


@lru_cache(1024)
def _quoted(model: str) -> str:
    return quote(model, safe="/:@")[:200]


def route_of(turn: Turn) -> str:
    """X-DS2D-Route: the model used, wait, retries, and what was done to question and answer."""
    parts = ["model=" + _quoted(turn.route.public)]
    if turn.position:
        parts.append(f"waited={turn.waited * 1000:.0f}ms")
    if turn.attempts > 1:
        parts.append(f"retries={turn.attempts - 1}")
    parts += [quote(note, safe=":=_-.") for note in dict.fromkeys(turn.notes)]
    return "; ".join(parts)[:MAX_ROUTE]
