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
CALM_SECONDS = 1.0
"""The same while no turn runs: an idle daemon costs nothing, and there is little that could hold it up."""

WINDOW_SECONDS = 60.0
"""How far back `worst` goes."""

WINDOW_LOOKS = 600
"""All looks of that time."""


class Owner(Protocol):
    """Whatever holds something that may grow."""

    def sizes(self) -> Sizes: ...


def gather(owners: Mapping[str, Owner]) -> Sizes:
    """All sizes by `owner.what`."""
    return {f"{owner}.{name}": size for owner, held in owners.items() for name, size in held.sizes().items()}


class LoopLag:
    """How late the event loop is, in seconds. `clock` is the loop's own; `busy` tells whether a turn runs."""

    def __init__(self, clock: Callable[[], float], busy: Callable[[], bool]) -> None:
        self._clock = clock
        self._busy = busy
        self._late: deque[tuple[float, float]] = deque(maxlen=WINDOW_LOOKS)  # when, how much

    @property
    def last(self) -> float:
        """At the last look."""
        return self._late[-1][1] if self._late else 0.0

    @property
    def worst(self) -> float:
        """The most within the minute before the last look."""
        since = self._late[-1][0] - WINDOW_SECONDS if self._late else 0.0
        return max((late for when, late in self._late if when > since), default=0.0)

    def sizes(self) -> Sizes:
        """The looks that are kept."""
        return {"looks": Size(len(self._late), WINDOW_LOOKS)}

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            pause = LOOK_SECONDS if self._busy() else CALM_SECONDS
            due = self._clock() + pause
            await asyncio.sleep(pause)
            now = self._clock()
            self._late.append((now, max(0.0, now - due)))
