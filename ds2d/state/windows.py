"""What happened in the last minute: amounts on a monotonic clock, and what follows from them for the next one.

Rule: a window slides, so no minute at all, wherever it begins, holds more than was let in.
Surprise: an amount may be corrected after it was added (a reservation becomes what was used); the sum follows.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

MINUTE = 60.0


class Headroom(NamedTuple):
    """A rate limit as its headers tell it: how much is left, and in how many seconds all of it is again."""

    limit: int
    remaining: int
    reset: float


class Entry:
    """One amount and when it was added."""

    __slots__ = ("amount", "when")

    def __init__(self, when: float, amount: float) -> None:
        self.when = when
        self.amount = amount


class Window:
    """The entries of the last minute, oldest first, and their sum. Times are seconds of one monotonic clock.

    What happens within `grain` seconds is one entry; with a grain nothing may be corrected.
    """

    __slots__ = ("_grain", "entries", "sum")

    def __init__(self, grain: float = 0.0) -> None:
        self._grain = grain
        self.entries: deque[Entry] = deque()
        self.sum = 0.0

    def forget(self, now: float) -> None:
        """Drop what is older than a minute; every look begins with this."""
        while self.entries and self.entries[0].when <= now - MINUTE:
            self.sum -= self.entries.popleft().amount

    def add(self, now: float, amount: float) -> Entry:
        """Something happened now."""
        self.sum += amount
        if self._grain and self.entries and now - self.entries[-1].when < self._grain:
            entry = self.entries[-1]
            entry.amount += amount
        else:
            entry = Entry(now, amount)
            self.entries.append(entry)
        return entry

    def correct(self, entry: Entry, amount: float, now: float) -> None:
        """The amount of an entry is known better now. If it has left the window, what it really was counts from now on."""
        self.forget(now)
        if entry.when > now - MINUTE:
            self.sum += amount - entry.amount
            entry.amount = amount
        else:
            self.add(now, amount)

    def wait(self, limit: float, now: float) -> float:
        """Seconds until less than `limit` is in the window, if nothing comes."""
        left = self.sum
        for entry in self.entries:
            if left < limit:
                break
            left -= entry.amount
            if left < limit:
                return entry.when + MINUTE - now
        return 0.0

    def headroom(self, limit: int, now: float) -> Headroom:
        """How much of `limit` is left."""
        self.forget(now)
        reset = self.entries[-1].when + MINUTE - now if self.entries else 0.0
        return Headroom(limit, max(0, int(limit - self.sum)), max(0.0, reset))
