"""How the last hour and the last day went: turns, tokens, waiting for the first token and between tokens, causes of errors.

Rule: a turn is counted once, when it is over, in constant time and space: a fixed ring of steps, and in each of them latencies
by size, not one by one. Its tokens count where they were made, over all the steps that its answer took.
Surprise: quantiles are read from sizes that grow by a quarter, so they are right to about an eighth.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ds2d.core.sizes import Size, Sizes
from ds2d.state import usage
from ds2d.state.ledger_schema import COMPLETED, INTERRUPTED, Row

HOUR = (60, 60)
DAY = (900, 96)
"""Seconds of a step, and how many of them are kept."""

GROWTH = math.log(1.25)
LARGEST = 70
"""Of a latency's size; about 100 minutes."""

RECALLED = 50_000
"""Turns of the ledger that are read at the start: a second of a thread's time."""

MAX_CAUSES = 64
"""Different causes in one step; they are kinds of errors, of which there are fewer."""


class Step:
    """What ended, and what was made, in one step of time. `tokens` were completed; sizes count milliseconds."""

    __slots__ = ("between", "causes", "first", "prompt", "tokens", "turns")

    def __init__(self) -> None:
        self.turns = 0
        self.prompt = 0
        self.tokens = 0.0
        self.first: Counter[int] = Counter()
        self.between: Counter[int] = Counter()
        self.causes: Counter[str] = Counter()

    def add(self, other: Step) -> None:
        """Count what another step of the same time has counted."""
        self.turns += other.turns
        self.prompt += other.prompt
        self.tokens += other.tokens
        self.first += other.first
        self.between += other.between
        self.causes += other.causes

    def shown(self, at: int) -> dict[str, Any]:
        """As the admin API tells it; `at` is the step's beginning."""
        return {
            "at": at,
            "turns": self.turns,
            "errors": self.causes.total(),
            "prompt_tokens": self.prompt,
            "completion_tokens": round(self.tokens),
            "first_ms": quantiles(self.first),
            "between_ms": quantiles(self.between),
        }


class Ring:
    """The last steps of one width. Only steps in which something happened are there. Those that are ahead of `wall` go as soon as
    there is another: the clock was wrong, and measured by them all that is now would be long past."""

    def __init__(self, seconds: int, kept: int, wall: Callable[[], float]) -> None:
        self.seconds = seconds
        self.kept = kept
        self.steps: dict[int, Step] = {}
        self._wall = wall

    def at(self, when: float) -> Step:
        """The step of this moment."""
        number = int(when // self.seconds)
        step = self.steps.get(number)
        if step is None:
            step = self.steps[number] = Step()
            last = int(max(when, self._wall()) // self.seconds)
            for gone in [one for one in self.steps if not last - self.kept < one <= last]:
                del self.steps[gone]
        return step

    def spread(self, begin: float, end: float, tokens: int) -> None:
        """Count tokens evenly over the time in which they were made, as far as it is still kept."""
        begin = max(begin, end - self.kept * self.seconds)
        if end <= begin:
            self.at(end).tokens += tokens
            return
        each = tokens / (end - begin)
        while begin < end:
            until = min(end, (begin // self.seconds + 1) * self.seconds)
            self.at(begin).tokens += each * (until - begin)
            begin = until

    def shown(self, now: float) -> dict[str, Any]:
        """Every step up to now, oldest first, those without anything too, and the causes of all of them together."""
        last = int(now // self.seconds)
        numbers = range(last - self.kept + 1, last + 1)
        causes: Counter[str] = Counter()
        for number in numbers:
            if number in self.steps:
                causes.update(self.steps[number].causes)
        none = Step()
        steps = [self.steps.get(number, none).shown(number * self.seconds) for number in numbers]
        return {"step_seconds": self.seconds, "steps": steps, "causes": dict(causes.most_common())}


def recalled(folder: Path, before: float) -> Series:
    """The day before this moment (Unix seconds), as the ledger has it; of a busy day the last `RECALLED` turns. For a thread.

    Raises sqlite3.Error.
    """
    series = Series(lambda: before)
    for row in usage.latest(folder, before - DAY[0] * DAY[1], before, RECALLED):
        series.note(row)
    return series


class Series:
    """The two rings. `wall` is Unix seconds."""

    def __init__(self, wall: Callable[[], float]) -> None:
        self._wall = wall
        self._rings = {"hour": Ring(*HOUR, wall), "day": Ring(*DAY, wall)}

    def note(self, row: Row, _turn: object = None) -> None:
        """A turn is over."""
        end = row.ended_at if row.ended_at is not None else row.began_at
        for ring in self._rings.values():
            step = ring.at(end)
            step.turns += 1
            step.prompt += row.prompt_tokens
            if (
                row.cause
                and row.state not in (COMPLETED, INTERRUPTED)
                and (row.cause in step.causes or len(step.causes) < MAX_CAUSES)
            ):
                step.causes[row.cause] += 1
            if row.first_ms is None:  # made before anything was sent: an answer in one piece
                if row.completion_tokens:
                    ring.spread(row.began_at + (row.queue_ms or 0.0) / 1000, end, row.completion_tokens)
                continue
            begin = row.began_at + row.first_ms / 1000
            ring.spread(begin, end, row.completion_tokens)
            if row.streamed and row.state == COMPLETED:
                step.first[_size(row.first_ms)] += 1
                if row.completion_tokens > 1:
                    step.between[_size((end - begin) * 1000 / (row.completion_tokens - 1))] += 1

    def absorb(self, older: Series) -> None:
        """Add what another one counted: turns that this one has not seen."""
        for name, ring in self._rings.items():
            for number, step in older._rings[name].steps.items():
                ring.at(number * ring.seconds).add(step)

    def sizes(self) -> Sizes:
        """Steps that are kept."""
        return {"steps": Size(sum(len(ring.steps) for ring in self._rings.values()), HOUR[1] + DAY[1])}

    def shown(self) -> dict[str, Any]:
        """Both, as the admin API tells them."""
        now = self._wall()
        return {name: ring.shown(now) for name, ring in self._rings.items()}

    def latest(self) -> dict[str, Any]:
        """The step that runs now, of each."""
        now = self._wall()
        found = {}
        for name, ring in self._rings.items():
            number = int(now // ring.seconds)
            found[name] = ring.steps.get(number, Step()).shown(number * ring.seconds)
        return found


def quantiles(sizes: Counter[int]) -> dict[str, float] | None:
    """Half and nineteen of twenty were at most so many milliseconds; None where there were none."""
    total = sizes.total()
    if not total:
        return None
    found = {}
    for name, share in (("p50", 0.5), ("p95", 0.95)):
        seen = 0
        for size in sorted(sizes):
            seen += sizes[size]
            if seen >= share * total:
                found[name] = round(math.exp((size - 0.5) * GROWTH), 2)
                break
    return found


def _size(milliseconds: float) -> int:
    """Which size a latency has."""
    if milliseconds <= 0:
        return -LARGEST
    return max(-LARGEST, min(LARGEST, math.ceil(math.log(milliseconds) / GROWTH)))
