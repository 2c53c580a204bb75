"""One stream of changes for all who watch: the state as it is, then what differs, under numbers that can be taken up again.

Rule: the state is looked at once for all watchers, and never while nobody watches; what a look costs decides how long the next
one waits, so that watching takes at most a two-hundredth of one core, however much there is to see.
Surprise: who comes back with the number it had last gets what it missed, even if nobody watched meanwhile; if that is no longer
known, or is of another process, it gets the whole state.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable
from typing import Any, NamedTuple

import orjson

from ds2d.core.sizes import Size, Sizes

PAUSE = 1.0
"""Seconds between two looks, at least."""

SHARE = 200
"""A look is followed by a pause of so many times its own length."""

KEPT = 256
KEPT_BYTES = 4 * 1024 * 1024
"""Deltas that can still be sent to somebody who comes back."""

State = dict[str, dict[str, Any]]
"""Topic to name to value. A delta holds the changed values only; null is one that is gone."""


class Message(NamedTuple):
    """What a watcher is sent: `snapshot` or `delta`, its id, its JSON."""

    event: str
    id: str
    data: str


class Feed:
    """The owner. `look` gives the state, `clock` is monotonic seconds, `name` tells this process from others."""

    def __init__(self, look: Callable[[], State], clock: Callable[[], float], name: str) -> None:
        self._look = look
        self._clock = clock
        self._name = name
        self._state: State = {}
        self._number = 0
        self._deltas: deque[tuple[int, str]] = deque()
        self._bytes = 0
        self._looked = float("-inf")
        self._pause = PAUSE

    def sizes(self) -> Sizes:
        """What is kept for those who come back."""
        return {"deltas_bytes": Size(self._bytes, KEPT_BYTES)}

    async def follow(self, last: str = "") -> AsyncGenerator[Message]:
        """The state, or what changed since the message `last`; then every change, until the watcher leaves."""
        self._refresh()
        position = self._position(last)
        while True:
            if position is None or position + 1 < self._first:
                position = self._number
                yield Message("snapshot", self._id(position), orjson.dumps(self._state).decode())
            elif position < self._number:
                position, data = self._deltas[position + 1 - self._first]
                yield Message("delta", self._id(position), data)
            else:
                await asyncio.sleep(max(0.0, self._looked + self._pause - self._clock()))
                self._refresh()

    @property
    def _first(self) -> int:
        """The number of the oldest delta that is kept, or of the next one."""
        return self._deltas[0][0] if self._deltas else self._number + 1

    def _refresh(self) -> None:
        """Look, unless somebody just has."""
        began = self._clock()
        if began - self._looked < self._pause * 0.9:
            return
        state = self._look()
        delta = difference(self._state, state)
        self._state = state
        if delta:
            self._number += 1
            self._keep(orjson.dumps(delta).decode())
        self._looked = self._clock()
        self._pause = max(PAUSE, (self._looked - began) * SHARE)

    def _keep(self, data: str) -> None:
        self._deltas.append((self._number, data))
        self._bytes += len(data)
        while len(self._deltas) > KEPT or (self._bytes > KEPT_BYTES and self._deltas):
            self._bytes -= len(self._deltas.popleft()[1])

    def _position(self, last: str) -> int | None:
        """The number that a watcher had last; None if it is none of ours."""
        name, _, number = last.partition("-")
        if name != self._name or not number.isascii() or not number.isdigit() or len(number) > 15:
            return None
        return int(number) if int(number) <= self._number else None

    def _id(self, number: int) -> str:
        return f"{self._name}-{number}"


def difference(old: State, new: State) -> State:
    """What of each topic is new, changed, or gone (null)."""
    delta: State = {}
    for topic in [*new, *(topic for topic in old if topic not in new)]:
        before, after = old.get(topic, {}), new.get(topic, {})
        if before == after:
            continue
        changed = {name: value for name, value in after.items() if name not in before or before[name] != value}
        delta[topic] = changed | {name: None for name in before if name not in after}
    return delta
