"""What is watched over the whole life of the process: how much every owner holds, and how late the event loop comes.

Rule: one list of owners, in app/daemon.py; names are `owner.what`.
Surprise: the loop's lag is measured by being late oneself, so a stall shorter than the pause between two looks is seen only
if it falls on a look. Looking oftener costs more than it tells; tests look at every turn of the loop instead.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from typing import Protocol

from ds2d.core.sizes import Size, Sizes

LOOK_SECONDS = 0.1
WINDOW_LOOKS = 600
"""Looks over which `worst` goes: a minute of them."""


class Owner(Protocol):
    """Whatever holds something that may grow."""

    def sizes(self) -> Sizes: ...


def gather(owners: Mapping[str, Owner]) -> Sizes:
    """All sizes by `owner.what`."""
    return {f"{owner}.{name}": size for owner, held in owners.items() for name, size in held.sizes().items()}


class LoopLag:
    """How late the event loop is, in seconds. `clock` is the loop's own."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._late: deque[float] = deque(maxlen=WINDOW_LOOKS)

    @property
    def last(self) -> float:
        """At the last look."""
        return self._late[-1] if self._late else 0.0

    @property
    def worst(self) -> float:
        """The most within the last minute."""
        return max(self._late, default=0.0)

    def sizes(self) -> Sizes:
        """The looks that are kept."""
        return {"looks": Size(len(self._late), WINDOW_LOOKS)}

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            due = self._clock() + LOOK_SECONDS
            await asyncio.sleep(LOOK_SECONDS)
            self._late.append(max(0.0, self._clock() - due))
