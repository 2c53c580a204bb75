"""Who of the waiting goes first, and how long a wait will be.

Rule: between callers, tokens are shared by weight: everybody who waits holds a tag on one virtual clock that runs in tokens,
the smallest tag goes next, and tags of one caller only grow (first in, first out within a caller). With one caller this is
plain arrival order.
Surprise: nothing is recomputed while requests wait. A tag stays, the clock goes on, newcomers get later tags: that is the
ageing. A newcomer who used nothing lately gets the clock's own time, so 500 requests of a script delay it by one slot's time.
"""

from __future__ import annotations

USUAL_COST = 1000.0
"""Tokens a request is taken to use until `settle` says what it used."""

MAX_LEAD = 20 * USUAL_COST
"""Tokens by which a caller's past use may put its next request behind the clock: what is longer ago is forgiven."""

MIN_STEP = USUAL_COST / 100
"""Tokens by which every grant moves the clock at least, so that endless newcomers cannot hold anybody back."""


MAX_REMEMBERED = 10_000
"""Callers ahead of the clock that are kept; of more, those who used most."""


class FairShare:
    """The virtual clock and where each caller stands on it. Bounded: callers behind the clock need no entry."""

    def __init__(self) -> None:
        self._clock = 0.0
        self._ends: dict[str, float] = {}
        self._prune_at = 256

    def __len__(self) -> int:
        return len(self._ends)

    def tag(self, caller: str, weight: float, first: bool, cost: float = USUAL_COST) -> float:
        """The place of a new request. `first`: its caller has none waiting, so its past use counts up to MAX_LEAD only."""
        start = max(self._clock, self._ends.get(caller, 0.0))
        if first:
            start = min(start, self._clock + MAX_LEAD)
        self._ends[caller] = start + cost / weight
        if len(self._ends) > self._prune_at:
            self._prune()
        return start

    def granted(self, tag: float) -> None:
        """A request with this tag runs now."""
        self._clock = max(self._clock + MIN_STEP, tag)

    def settle(self, caller: str, weight: float, tokens: float, cost: float = USUAL_COST) -> None:
        """A request that was taken to use `cost` tokens used `tokens`; felt by the caller's next arrival."""
        if caller in self._ends:
            self._ends[caller] += (tokens - cost) / weight

    def _prune(self) -> None:
        self._ends = {caller: end for caller, end in self._ends.items() if end > self._clock}
        if len(self._ends) > MAX_REMEMBERED // 2:
            most = sorted(self._ends.items(), key=lambda item: item[1])[-MAX_REMEMBERED // 2 :]
            self._ends = dict(most)
        self._prune_at = max(256, 2 * len(self._ends))


class DrainRate:
    """How fast the queue moves, as measured: seconds from one grant out of the queue to the next.

    While nobody has waited yet, it is judged by how long answers take (Little's law). All times in seconds.
    """

    def __init__(self) -> None:
        self._gap: float | None = None
        self._last: float | None = None
        self._duration: float | None = None

    def granted(self, now: float) -> None:
        """Somebody who waited got a slot."""
        if self._last is not None:
            self._gap = _blend(self._gap, now - self._last)
        self._last = now

    def emptied(self) -> None:
        """Nobody waits any more: the time until somebody does says nothing about speed."""
        self._last = None

    def answered(self, duration: float) -> None:
        """A slot was given back after `duration`."""
        self._duration = _blend(self._duration, duration)

    def wait(self, position: int, slots: int) -> float:
        """Seconds until the request at `position` (from 1) of the queue gets one of `slots`; 1 per place while unmeasured."""
        gap = self._gap
        if gap is None:
            gap = self._duration / slots if self._duration is not None and slots else 1.0
        return position * gap


def _blend(old: float | None, new: float) -> float:
    return new if old is None else 0.8 * old + 0.2 * new
