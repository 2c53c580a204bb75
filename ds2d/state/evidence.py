"""What speaks for and against a server besides its model list: its own gauges over time, and our turns that wait there.

Rule: pure bookkeeping; the watch looks, this weighs. Times are seconds of one monotonic clock.
Surprise: a hung engine goes on telling the figures of its last step, so that figures which stand still while there is work are
the evidence, not figures that are bad. And gauges lag behind our leases, so a surplus counts only when it lasts, and while
something moves: an SGLang that has become idle writes its gauges up to 30 s late.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

import msgspec

from ds2d.core.load import Load

STUCK_SECONDS = 30.0
"""With work and without any progress, from which on a server counts as stuck. A prompt that is being read moves its gauges."""

SILENT_SECONDS = 120.0
"""The same for servers that do not tell their steps: the oldest wait for a first token, while nothing else was answered."""

ORPHAN_LOOKS = 3
"""Looks in a row with a surplus of running requests, until it is reported."""


class Asked(Protocol):
    """A turn, as far as it matters here: `first` is when its first byte went out."""

    @property
    def first(self) -> float | None: ...


class Evidence(msgspec.Struct, frozen=True):
    """A summary for people. `orphans`: requests that are not ours; `oldest`: seconds of the longest wait for a first token."""

    load: Load | None = None
    tokens_per_second: float | None = None
    oldest: float | None = None
    orphans: int = 0


class Scales:
    """One server's figures and our open turns there."""

    def __init__(self) -> None:
        self.load: Load | None = None
        self.rate: float | None = None
        self.answered = 0.0
        self.extra = 0
        """Answers beyond the first that our open turns asked for (`n`): the server counts each."""
        self._at = 0.0
        self._moved = 0.0
        self._surplus: deque[int] = deque(maxlen=ORPHAN_LOOKS)
        self._open: dict[int, tuple[Asked, float, int]] = {}  # in the order in which they were sent

    # Our turns

    def sent(self, turn: Asked, choices: int, streamed: bool, now: float) -> None:
        """A question goes to the server."""
        self.extra += choices - 1
        self._open[id(turn)] = turn, now if streamed else 0.0, choices

    def ended(self, turn: Asked) -> None:
        """It is over there, however it went."""
        found = self._open.pop(id(turn), None)
        if found is not None:
            self.extra -= found[2] - 1

    def oldest(self, now: float) -> float | None:
        """Seconds that the oldest streamed question has been without its first token; None if none is."""
        for turn, since, _ in self._open.values():
            if since and turn.first is None:
                return now - since
        return None

    # Its figures

    def take(self, load: Load | None, ours: int, now: float) -> None:
        """What it said at a look. `ours` are our requests there, the most of before and after the look."""
        before, elapsed = self.load, now - self._at
        self.load, self._at = load, now
        self.rate = None
        if load is None:
            self._moved = now
            self._surplus.clear()
            return
        moved = before is None or _moved(before, load)
        if moved or not self._works(load, now):
            self._moved = now
        if before is not None and load.generated is not None and before.generated is not None and elapsed > 0:
            self.rate = max(0, load.generated - before.generated) / elapsed
        self._surplus.append(load.requests - ours - self.extra if moved or load.steps is None else 0)

    def late(self, now: float) -> None:
        """It did not say it in time, which proves nothing: a surplus goes on from the looks before."""
        self.load = self.rate = None
        self._moved = now

    def proved(self, now: float) -> None:
        """A turn was answered there: whatever was suspected, it serves."""
        self.answered = self._moved = now

    @property
    def orphans(self) -> int:
        """Requests that it runs beyond ours, and has for some looks: somebody goes past the gateway, or an abort was lost."""
        return max(0, min(self._surplus)) if len(self._surplus) == ORPHAN_LOOKS else 0

    def stuck(self, now: float) -> str:
        """Why it counts as stuck; "" if it does not."""
        waits = self.oldest(now)
        if self.load is None or self.load.steps is None:
            if waits is None or waits < SILENT_SECONDS or now - self.answered < waits:
                return ""
            return f"no first token for {waits:.0f} s, and no other answer"
        still = now - self._moved
        if still < STUCK_SECONDS or not self._works(self.load, now):
            return ""
        return f"no progress for {still:.0f} s with {self.load.running} running"

    def summary(self, now: float) -> Evidence:
        """As it stands."""
        return Evidence(self.load, self.rate, self.oldest(now), self.orphans)

    def _works(self, load: Load, now: float) -> bool:
        """Whether there is work that should show progress: what it says it runs, or what we wait for in vain."""
        return load.running > 0 or (self.oldest(now) or 0.0) >= STUCK_SECONDS


def _moved(before: Load, after: Load) -> bool:
    return (before.steps, before.prompted, before.cache_use, before.running) != (
        after.steps,
        after.prompted,
        after.cache_use,
        after.running,
    )
