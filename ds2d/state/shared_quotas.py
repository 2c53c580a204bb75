"""What keys may use while several generations of the daemon serve them.

Rule: the newest process decides and counts for all; what another one's turn has reserved is a permit here, and is given back if
that one dies.
Surprise: the ledger knows what closed turns used, but not what runs, nor the last minute: that goes from process to process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import datetime
from itertools import count
from typing import Any

import msgspec

from ds2d.core.caller import Caller
from ds2d.state.leader import Leader, LeaderLost
from ds2d.state.ledger_file import Recovered
from ds2d.state.quotas import Permit, Quotas
from ds2d.state.windows import Entry, Window

Events = list[tuple[float, float]]
"""When on the system's monotonic clock, and how much."""


class MeterState(msgspec.Struct):
    """A key's meter without what its running turns have reserved."""

    key: str
    total: list[int]
    month: list[int]
    day: list[int]
    months: str
    days: str
    first_used: datetime | None
    last_used: datetime | None
    requests: Events
    tokens: Events


class Reserved(msgspec.Struct):
    """What a turn of another process has reserved, under its number there; `rate` is its entry in the last minute's tokens."""

    number: int
    key: str
    prompt: int
    completion: int
    rate: tuple[float, float] | None = None


class SharedQuotas(Quotas):
    """Quotas that can lead and follow. `leader` is None while they decide themselves."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.leader: Leader | None = None
        self._numbers = count(1)
        self._own: dict[int, tuple[str, Permit]] = {}

    async def enter(self, caller: Caller, prompt: int, completion: int) -> Permit:
        number, leader = next(self._numbers), self.leader
        if leader is None:
            permit = self.admit(caller, prompt, completion)
        else:
            try:
                await leader.admit(number, caller.id, prompt, completion)
            except LeaderLost:
                return await self.enter(caller, prompt, completion)
            except asyncio.CancelledError:
                leader.settled(number, caller.id, 0, 0)
                raise
            permit = self.take(caller, prompt, completion)
        permit.number = number
        self._own[number] = caller.id, permit
        return permit

    def over(self, permit: Permit, prompt: int, completion: int) -> None:
        key, _ = self._own.pop(permit.number, ("", None))
        if key and self.leader is not None:
            self.leader.settled(permit.number, key, prompt, completion)

    def used(self, key: str, prompt: int, completion: int) -> None:
        """Count what a turn used whose reservation is not known here."""
        meter = self._meter(key, self._now())
        for window in (meter.total, meter.month, meter.day):
            window[0] += prompt
            window[1] += completion

    def recovered(self, found: Iterable[Recovered]) -> None:
        """Count what turns had used of a process that was killed: with it went what it had reserved for them, and no more."""
        for one in found:
            self.used(*one)
            if self.leader is not None:
                self.leader.settled(0, *one)

    def held(self) -> list[Reserved]:
        """What turns of this process have reserved."""
        found = []
        for number, (key, permit) in self._own.items():
            rate = (permit.rate.when, permit.rate.amount) if permit.rate else None
            found.append(Reserved(number, key, *permit.reserved, rate))
        return found

    def adopt(self, reserved: Reserved) -> Permit:
        """Count what another process has reserved already."""
        meter = self._meter(reserved.key, self._now())
        meter.reserved[0] += reserved.prompt
        meter.reserved[1] += reserved.completion
        meter.inflight += 1
        rate = next((one for one in meter.tokens.entries if (one.when, one.amount) == reserved.rate), None)
        return Permit(self, meter, (reserved.prompt, reserved.completion), rate)

    def save(self) -> list[MeterState]:
        """What every key has used, for the process that takes over."""
        return [
            MeterState(
                key,
                list(meter.total),
                list(meter.month),
                list(meter.day),
                meter.months,
                meter.days,
                meter.first_used,
                meter.last_used,
                [(entry.when, entry.amount) for entry in meter.requests.entries],
                [(entry.when, entry.amount) for entry in meter.tokens.entries],
            )
            for key, meter in self._meters.items()
        ]

    def restore(self, states: list[MeterState]) -> None:
        """Take over an older process's counts in place of what the ledger said when this one began."""
        for state in states:
            meter = self._meter(state.key, self._now())
            meter.total, meter.month, meter.day = state.total, state.month, state.day
            meter.months, meter.days = state.months, state.days
            meter.first_used, meter.last_used = state.first_used, state.last_used
            meter.requests, meter.tokens = _window(state.requests), _window(state.tokens)


def _window(events: Events) -> Window:
    window = Window()
    window.entries.extend(Entry(when, amount) for when, amount in events)
    window.sum = sum(amount for _, amount in events)
    return window
