"""Moments at which an account may become free though nothing else happens: the end of a gap, a cool-down, a breaker's pause.

Rule: while somebody waits, one timer stands at the next of them, and what it calls decides; while nobody does, there is none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from heapq import heappop, heappush
from math import ceil, inf

from ds2d.state.leases import CallLater, Timer

MAX_CHANGES = 100_000
"""Moments kept. Where there would be more they are told apart by the second only, and of seconds no announcement reaches over
more than a day of (breakers.py)."""


class Changes:
    """The moments to come, and the timer. `due` is called when one has come; `call_later` is the running loop's unless a test
    brings its own."""

    def __init__(self, due: Callable[[], None], call_later: CallLater | None = None) -> None:
        self._due = due
        self._call_later = call_later
        self._moments: list[float] = []  # a heap
        self._alarm: Timer | None = None
        self._alarm_at = inf

    def __len__(self) -> int:
        return len(self._moments)

    def later(self, delay: float, action: Callable[[], None]) -> Timer:
        """Have something else done after so many seconds."""
        return (self._call_later or asyncio.get_running_loop().call_later)(delay, action)

    def expect(self, when: float, now: float, somebody_waits: bool) -> None:
        """An account may become free at `when`. The timer is not set here: whoever decides does that last (`set_alarm`)."""
        while self._moments and self._moments[0] <= now and not somebody_waits:
            heappop(self._moments)  # long past, and nobody asked
        if when > now:
            heappush(self._moments, when)
        if len(self._moments) > MAX_CHANGES:
            self._moments = sorted({float(ceil(moment)) for moment in self._moments})

    def overdue(self, now: float) -> bool:
        """Whether the timer is late: a moment has come and nothing was decided since."""
        return bool(self._moments) and self._moments[0] <= now

    def set_alarm(self, now: float, somebody_waits: bool) -> None:
        """What could be decided by now is: have the timer ring at the next moment, as long as somebody waits."""
        while self.overdue(now):
            heappop(self._moments)
        due = self._moments[0] if somebody_waits and self._moments else inf
        if due == self._alarm_at:
            return
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = self.later(due - now, self._ring) if due < inf else None
        self._alarm_at = due

    def _ring(self) -> None:
        self._alarm, self._alarm_at = None, inf
        self._due()
