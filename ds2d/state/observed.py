"""What upstreams were seen to allow: passes a minute, requests at once, and the limits they named.

Rule: by account and model, counted from answers alone; nothing here decides anything. Names, never secrets.
Surprise: a limit that an upstream names in a header or a text stands beside what was measured; it need not be what it enforces.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.sizes import Size, Sizes
from ds2d.state.windows import Window

GRAIN = 1.0
"""Seconds that are told apart: a thousand requests a second must not be a hundred thousand entries."""

MAX_PAIRS = 1000
"""Pairs of account and model that are remembered; the one seen longest ago makes way."""

_WINDOW = re.compile(r"\((\w{1,40}By\w{1,40})\)")


class _Pair:
    __slots__ = (
        "concurrency",
        "evidence",
        "inflight",
        "limit_rpm",
        "limit_tpm",
        "requests",
        "retry_at",
        "seen",
        "tokens",
        "window",
    )

    def __init__(self) -> None:
        self.requests = Window(GRAIN)
        self.tokens = Window(GRAIN)
        self.inflight = 0
        self.concurrency = 0
        self.evidence = 0
        self.limit_rpm: int | None = None
        self.limit_tpm: int | None = None
        self.retry_at: float | None = None
        self.window: str | None = None
        self.seen = 0.0


class Passing:
    """One request that is under way: of which account and model."""

    __slots__ = ("error", "is_over", "key", "pair", "tokens")

    def __init__(self, key: tuple[str, str], pair: _Pair) -> None:
        self.key = key
        self.pair = pair
        self.is_over = False
        self.tokens = 0
        self.error: GatewayError | None = None

    def ended(self, tokens: int, error: GatewayError | None) -> None:
        """How it ended: with so many tokens, or with an error."""
        self.is_over, self.tokens, self.error = True, tokens, error


class Observed:
    """All pairs. `clock` is monotonic seconds, `wall` Unix seconds that are only shown."""

    def __init__(self, clock: Callable[[], float], wall: Callable[[], float]) -> None:
        self._clock = clock
        self._wall = wall
        self._pairs: OrderedDict[tuple[str, str], _Pair] = OrderedDict()

    def begin(self, account: str, model: str) -> Passing:
        """A request to this account begins. Whoever gets this owes one `leave`."""
        pair = self._pair(account, model)
        pair.inflight += 1
        return Passing((account, model), pair)

    def leave(self, passing: Passing) -> None:
        """It is over. One that was not said to have ended says nothing about the account."""
        if passing.is_over:
            self._answered(self._pair(*passing.key), passing.tokens, passing.error)
        passing.pair.inflight -= 1

    def _answered(self, pair: _Pair, tokens: int, error: GatewayError | None) -> None:
        now = self._clock()
        pair.evidence += 1
        if error is None:
            pair.concurrency = max(pair.concurrency, pair.inflight)
            pair.requests.forget(now)
            pair.tokens.forget(now)
            pair.requests.add(now, 1)
            pair.tokens.add(now, tokens)
        elif error.kind is ErrorKind.UPSTREAM_RATE_LIMITED:
            pair.retry_at = now + error.retry_after if error.retry_after else None
            found = _WINDOW.search(error.message)
            pair.window = found.group(1) if found else None

    def told(self, account: str, model: str, headers: Mapping[str, str]) -> None:
        """Headers of an answer (names in lower case): limits that the upstream names."""
        rpm, tpm = _number(headers.get("x-ratelimit-limit-requests")), _number(headers.get("x-ratelimit-limit-tokens"))
        if rpm is not None or tpm is not None:
            pair = self._pair(account, model)
            pair.limit_rpm = rpm if rpm is not None else pair.limit_rpm
            pair.limit_tpm = tpm if tpm is not None else pair.limit_tpm

    def sizes(self) -> Sizes:
        """Pairs of account and model."""
        return {"pairs": Size(len(self._pairs), MAX_PAIRS)}

    def forget(self) -> None:
        """Begin anew (POST /v1/tokens/reset-stats)."""
        self._pairs.clear()

    def report(self) -> dict[str, Any]:
        """The body of GET /v1/rate-limits/observed (token-rotation.md)."""
        now = self._clock()
        rows = [self._row(account, model, pair, now) for (account, model), pair in self._pairs.items() if pair.evidence]
        return {"object": "list", "data": rows}

    def _row(self, account: str, model: str, pair: _Pair, now: float) -> dict[str, Any]:
        pair.requests.forget(now)
        pair.tokens.forget(now)
        left = None if pair.retry_at is None else max(0.0, pair.retry_at - now)
        seen = datetime.fromtimestamp(pair.seen, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        return {
            "model": model,
            "account": account,
            "rpm": int(pair.requests.sum),
            "tpm": int(pair.tokens.sum),
            "concurrency": pair.concurrency,
            "limit_rpm": pair.limit_rpm,
            "limit_tpm": pair.limit_tpm,
            "retry_after": round(left, 1) if left else None,
            "window": pair.window,
            "evidence": pair.evidence,
            "last_seen": seen,
        }

    def _pair(self, account: str, model: str) -> _Pair:
        pair = self._pairs.get((account, model))
        if pair is None:
            pair = self._pairs[account, model] = _Pair()
            while len(self._pairs) > MAX_PAIRS:
                self._pairs.popitem(last=False)
        self._pairs.move_to_end((account, model))
        pair.seen = self._wall()
        return pair


def _number(text: str | None) -> int | None:
    return int(text) if text and len(text) < 16 and text.isascii() and text.isdigit() else None
