"""Whether sending conversations where their prefix is cached pays, from what the servers themselves count.

Rule: two strategies, `prefer` and `balance`; what was looked for and found in caches is counted for the one that held meanwhile.
In mode auto one holds until it has evidence, then the other is tried for a little while, and the better one goes on; it is tried
again now and then, since clients change.
Surprise: the first turn of a conversation finds nothing under any strategy, and a daemon that has just begun sees only such.
So only later turns are evidence: by the `cached_tokens` of their answers, else by the servers' counters over the later turns'
part of all prompt tokens.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

Strategy = Literal["prefer", "balance"]
Mode = Literal["auto", "on", "off"]

EVIDENCE, EVIDENCE_SECONDS = 200_000, 60.0
"""Prompt tokens of later turns, and time, under a strategy before it is judged."""

TRIAL_EVIDENCE, TRIAL_LEAST_SECONDS, TRIAL_SECONDS = 50_000, 30.0, 120.0
"""The same for the one that is only tried, since tokens read anew cost somebody their time; and how long a trial lasts at most.
What it saw is kept for the next one."""

AGAIN_SECONDS = 1800.0
"""From a verdict to the next trial."""

MARGIN = 0.02
"""Of the later turns' prompt tokens: what preferring must find more than balancing, to be worth its crowding."""


class Tally(msgspec.Struct):
    """Prompt tokens: looked for in caches (`queries`) and found there (`hits`) by the servers' counters; of all turns (`prompt`),
    of later ones (`later`), and found by the answers of those (`cached`)."""

    queries: int = 0
    hits: int = 0
    prompt: int = 0
    later: int = 0
    cached: int = 0
    turns: int = 0

    def share(self, by_answers: bool) -> float:
        """The part of later turns' prompts that was found in a cache; 0 where nothing is known."""
        if by_answers:
            return self.cached / self.later if self.later else 0.0
        if not (self.queries and self.later):
            return 0.0
        return min(1.0, self.hits / self.queries * self.prompt / self.later)

    def shown(self) -> dict[str, Any]:
        """For people. `hit_ratio` is the servers' own, of all prompts."""
        ratio = round(self.hits / self.queries, 4) if self.queries else None
        return {**msgspec.structs.asdict(self), "hit_ratio": ratio}


class Payoff:
    """What the strategies came to, and which one holds. Times are seconds of the caller's monotonic clock."""

    def __init__(self, now: float) -> None:
        self.mode: Mode = "auto"
        self.pays: bool | None = None
        """The last verdict of mode auto; None before there was one."""
        self.totals: dict[Strategy, Tally] = {"prefer": Tally(), "balance": Tally()}
        self._fresh: dict[Strategy, Tally] = {"prefer": Tally(), "balance": Tally()}  # since the last verdict
        self._answers_tell = False  # answers were seen to name cached tokens
        self._since = now  # when what holds now began to
        self._tries = False
        self._next_trial = 0.0

    @property
    def strategy(self) -> Strategy:
        """What holds now."""
        if self.mode != "auto":
            return "prefer" if self.mode == "on" else "balance"
        return _other(self._standing) if self._tries else self._standing

    def counted(self, strategy: Strategy, queries: int, hits: int, now: float) -> None:
        """What servers' counters went up by while this strategy held."""
        for tally in (self.totals[strategy], self._fresh[strategy]):
            tally.queries += queries
            tally.hits += hits
        self._decide(now)

    def answered(self, strategy: Strategy, prompt: int, cached: int | None, is_later: bool, now: float) -> None:
        """A turn that was sent under this strategy, and its usage. Servers that name cached tokens leave them out where there
        are none. `is_later`: its conversation was known."""
        self._answers_tell = self._answers_tell or bool(cached)
        for tally in (self.totals[strategy], self._fresh[strategy]):
            tally.turns += 1
            tally.prompt += prompt
            if is_later:
                tally.later += prompt
                tally.cached += cached or 0
        self._decide(now)

    @property
    def _standing(self) -> Strategy:
        return "balance" if self.pays is False else "prefer"

    def _decide(self, now: float) -> None:
        if self.mode != "auto":
            return
        standing, tried = self._fresh[self._standing], self._fresh[_other(self._standing)]
        held = now - self._since
        if not self._tries:
            if standing.later >= EVIDENCE and held >= EVIDENCE_SECONDS and now >= self._next_trial and self._is_told(standing):
                self._tries, self._since = True, now
        elif tried.later >= TRIAL_EVIDENCE and held >= TRIAL_LEAST_SECONDS and self._is_told(tried):
            self._judge(now)
        elif held >= TRIAL_SECONDS:
            self._tries, self._since, self._next_trial = False, now, now + TRIAL_SECONDS

    def _is_told(self, tally: Tally) -> bool:
        """Whether anybody says what was found: without that there is nothing to judge by."""
        return self._answers_tell or tally.queries > 0

    def _judge(self, now: float) -> None:
        prefer, balance = (self._fresh[name].share(self._answers_tell) for name in STRATEGIES)
        self.pays = prefer - balance >= MARGIN
        self._fresh = {"prefer": Tally(), "balance": Tally()}
        self._tries, self._since, self._next_trial = False, now, now + AGAIN_SECONDS


STRATEGIES: tuple[Strategy, Strategy] = ("prefer", "balance")


def _other(strategy: Strategy) -> Strategy:
    return "balance" if strategy == "prefer" else "prefer"
