"""When an account, or an account with one model, is put aside, and when it comes back.

Rule: everything that is put aside comes back by time, never only by a success; what the caller did wrong counts for nothing.
Causes are counted apart, so two faults of different kinds are not two steps towards one verdict.
Surprise: there are two ways to be aside. A cool-down was announced by the upstream and ends as announced. An open breaker is
our guess, so when its time is up one request goes first as a probe and the others wait for its verdict.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.settings import BreakerSpec

MAX_COOL_DOWN = 86400.0
"""Seconds: no announcement puts an account aside for longer."""


class Cause(StrEnum):
    """Why an account was put aside."""

    RATE = "rate"
    CONCURRENCY = "concurrency"
    AUTH = "auth"
    BALANCE = "balance"
    SERVER = "server"


CAUSES: dict[ErrorKind, Cause] = {
    ErrorKind.UPSTREAM_RATE_LIMITED: Cause.RATE,
    ErrorKind.UPSTREAM_AUTH: Cause.AUTH,
    ErrorKind.UPSTREAM_BILLING: Cause.BALANCE,
    ErrorKind.UPSTREAM_ERROR: Cause.SERVER,
    ErrorKind.UPSTREAM_OVERLOADED: Cause.CONCURRENCY,
    ErrorKind.UPSTREAM_UNREACHABLE: Cause.SERVER,
    ErrorKind.UPSTREAM_TIMEOUT: Cause.SERVER,
    ErrorKind.UPSTREAM_GARBLED: Cause.SERVER,
    ErrorKind.UPSTREAM_DISCONNECTED: Cause.SERVER,
    ErrorKind.UPSTREAM_NOT_FOUND: Cause.SERVER,
}
"""What speaks against the account or its server; every other kind is the caller's, the model's, or our own."""

SHARED = frozenset({Cause.RATE, Cause.CONCURRENCY, Cause.BALANCE})
"""Causes that every account of a group feels (token-rotation.md: one budget)."""

AT_ONCE = frozenset({Cause.AUTH, Cause.BALANCE})
"""Causes that no repetition makes clearer: the first one puts the whole account aside (reliability.md, upstreams)."""

_WINDOW = re.compile(r"\((\w{1,40}By\w{1,40})\)")


class Verdict(NamedTuple):
    """What an error says about the account: the cause, an announced delay in seconds, and the limit's name for people."""

    cause: Cause
    delay: float | None
    window: str | None


def judge(error: GatewayError) -> Verdict | None:
    """What this error says about the account it happened on; None if nothing.

    The delay is the error's `retry_after`, which the upstream's own module read from headers or text.
    """
    cause = CAUSES.get(error.kind)
    if cause is None:
        return None
    if cause not in SHARED or not error.retry_after:  # a crash announces no recovery, whatever its headers say
        return Verdict(cause, None, None)
    window = _WINDOW.search(error.message)
    return Verdict(cause, min(error.retry_after, MAX_COOL_DOWN), window.group(1) if window else None)


class Breaker:
    """Counts faults of one thing and keeps it aside for a time. Times are seconds of one monotonic clock."""

    __slots__ = ("cause", "cool_until", "faults", "open_until", "probing", "window")

    def __init__(self) -> None:
        self.faults: dict[Cause, int] = {}
        self.cool_until = 0.0
        self.open_until = 0.0  # 0: closed; in the past: half-open
        self.probing = False
        self.cause: Cause | None = None
        self.window: str | None = None

    @property
    def idle(self) -> bool:
        """Nothing is remembered, so it may be forgotten."""
        return not self.faults and not self.open_until and not self.cool_until

    def state(self, now: float) -> str:
        """closed, cooling, open or half_open."""
        if now < self.open_until:
            return "open"
        if now < self.cool_until:
            return "cooling"
        return "half_open" if self.open_until else "closed"

    def fault(self, verdict: Verdict, now: float, limit: int, open_seconds: float) -> None:
        """Count one fault. `limit` faults of one cause in a row open it; an announced delay puts it aside at once."""
        if now < self.open_until:
            return  # from before it opened: nothing new
        self.cause, self.window = verdict.cause, verdict.window
        if verdict.delay:
            self.cool_until = max(self.cool_until, now + verdict.delay)
        count = self.faults[verdict.cause] = self.faults.get(verdict.cause, 0) + 1
        if self.probing or count >= limit:
            self.open_until = max(now + open_seconds, self.cool_until)
            self.probing = False
            self.faults.clear()

    def success(self, probe: bool, now: float) -> None:
        """A request got its answer. Half-open closes by its probe only: others may have been answered before the fault;
        for the same reason an announced cool-down stands."""
        if probe:
            self.close()
        elif not self.open_until:
            self.faults.clear()
            if now >= self.cool_until:
                self.close()

    def close(self) -> None:
        """Forget everything."""
        self.faults.clear()
        self.cool_until = self.open_until = 0.0
        self.probing = False
        self.cause = self.window = None


class Gate:
    """The breakers of one account or budget: one for all of it, one for each model that had faults."""

    __slots__ = ("models", "whole")

    def __init__(self) -> None:
        self.whole = Breaker()
        self.models: dict[str, Breaker] = {}

    def breakers(self, model: str) -> list[Breaker]:
        """Those that a request for `model` has to pass, where there is anything to pass."""
        found = [] if self.whole.idle else [self.whole]
        if self.models and model in self.models:
            found.append(self.models[model])
        return found

    def of(self, model: str) -> Breaker:
        """The one of this model, of all of it where that is empty."""
        return self.models.setdefault(model, Breaker()) if model else self.whole

    def fault(self, verdict: Verdict, model: str, now: float, rule: BreakerSpec) -> None:
        """Count a fault where it belongs: credentials and money are the whole account's, the rest is the model's."""
        if verdict.cause in AT_ONCE:
            self.whole.fault(verdict, now, 1, rule.open_seconds)
        else:
            self.models.setdefault(model, Breaker()).fault(verdict, now, rule.failures, rule.open_seconds)

    def success(self, model: str, probes: Sequence[Breaker], now: float) -> None:
        """A request for `model` got its answer."""
        for breaker in self.breakers(model):
            breaker.success(breaker in probes, now)
        if model in self.models and self.models[model].idle:
            del self.models[model]

    def close(self, *causes: Cause) -> None:
        """Forget what was put aside: for these causes, or all of it."""
        for breaker in [self.whole, *self.models.values()]:
            if not causes or breaker.cause in causes:
                breaker.close()
        self.models = {model: breaker for model, breaker in self.models.items() if not breaker.idle}
