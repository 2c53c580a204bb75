"""Whether sending conversations where their prefix is cached pays, from what the servers themselves count.

Rule: two strategies, `prefer` and `balance`; what was looked for and found in caches is counted for the one that held meanwhile.
In mode auto one holds until it has evidence, then the other is tried for a little while, and the better one goes on; it is tried
again now and then, since clients change.
Surprise: servers' own counters are believed before `cached_tokens` of answers, which most servers leave out or give as 0.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

Strategy = Literal["prefer", "balance"]
Mode = Literal["auto", "on", "off"]

EVIDENCE = 200_000
"""Prompt tokens under a strategy before it is judged."""

TRIAL_EVIDENCE = 50_000
"""The same for the one that is only tried: tokens read anew cost somebody their time."""

TRIAL_SECONDS = 120.0
"""How long a trial lasts at most; what it saw is kept for the next one."""

AGAIN_SECONDS = 1800.0
"""From a verdict to the next trial."""

MARGIN = 0.02
"""Of the prompt tokens: what preferring must find more than balancing, to be worth its crowding."""


class Tally(msgspec.Struct):
    """Prompt tokens that were looked for in caches, and found there; by the servers' counters and by answers' usage."""

    queries: int = 0
    hits: int = 0
    prompt: int = 0
    cached: int = 0
    turns: int = 0

    def share(self, counters: bool) -> float | None:
        """The part that was found; None where nothing is known."""
        of, found = (self.queries, self.hits) if counters else (self.prompt, self.cached)
        return found / of if of else None

    def shown(self) -> dict[str, Any]:
        """For people."""
        share = self.share(self.queries > 0)
        return {**msgspec.structs.asdict(self), "hit_ratio": None if share is None else round(share, 4)}


class Payoff:
    """What the strategies came to, and which one holds. Times are seconds of the caller's monotonic clock."""

    def __init__(self) -> None:
        self.mode: Mode = "auto"
        self.pays: bool | None = None
        """The last verdict of mode auto; None before there was one."""
        self.totals: dict[Strategy, Tally] = {"prefer": Tally(), "balance": Tally()}
        self._fresh: dict[Strategy, Tally] = {"prefer": Tally(), "balance": Tally()}  # since the last verdict
        self._trial_from: float | None = None
        self._next_trial = 0.0

    @property
    def strategy(self) -> Strategy:
        """What holds now."""
        if self.mode != "auto":
            return "prefer" if self.mode == "on" else "balance"
        return self._standing if self._trial_from is None else _other(self._standing)

    def counted(self, strategy: Strategy, queries: int, hits: int, now: float) -> None:
        """What servers' counters went up by while this strategy held."""
        for tally in (self.totals[strategy], self._fresh[strategy]):
            tally.queries += queries
            tally.hits += hits
        self._decide(now)

    def answered(self, strategy: Strategy, prompt: int, cached: int | None, now: float) -> None:
        """A turn that was sent under this strategy, and its usage; None: nothing was said of caches."""
        for tally in (self.totals[strategy], self._fresh[strategy]):
            tally.turns += 1
            if cached is not None:
                tally.prompt += prompt
                tally.cached += cached
        self._decide(now)

    @property
    def _standing(self) -> Strategy:
        return "balance" if self.pays is False else "prefer"

    def _decide(self, now: float) -> None:
        if self.mode != "auto":
            return
        counters = any(tally.queries for tally in self._fresh.values())
        standing, tried = self._fresh[self._standing], self._fresh[_other(self._standing)]
        if self._trial_from is None:
            if _weight(standing, counters) >= EVIDENCE and now >= self._next_trial:
                self._trial_from = now
        elif _weight(tried, counters) >= TRIAL_EVIDENCE:
            self._judge(counters, now)
        elif now - self._trial_from >= TRIAL_SECONDS:
            self._trial_from, self._next_trial = None, now + TRIAL_SECONDS

    def _judge(self, counters: bool, now: float) -> None:
        prefer, balance = self._fresh["prefer"].share(counters), self._fresh["balance"].share(counters)
        self.pays = (prefer or 0.0) - (balance or 0.0) >= MARGIN
        self._fresh = {"prefer": Tally(), "balance": Tally()}
        self._trial_from, self._next_trial = None, now + AGAIN_SECONDS


def _other(strategy: Strategy) -> Strategy:
    return "balance" if strategy == "prefer" else "prefer"


def _weight(tally: Tally, counters: bool) -> int:
    return tally.queries if counters else tally.prompt
