"""What rows add to the sums by day and by key, gathered in memory, so that a transaction touches each sum once.

Rule: a sum is changed in the transaction that changes its rows, by what they are now less what they were: so both agree after
any crash, and a row that is written twice counts once.
Surprise: open turns count nowhere, refused ones by day only. Tokens that strangers bring have sums of their own once something
was used with them, and until then one for all: anybody can invent them, and sums stay for ever.
"""

from __future__ import annotations

import functools
import operator
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from ds2d.core.caller import DIRECT
from ds2d.state.ledger_schema import FIELDS, OPEN, REJECTED

STRANGERS = DIRECT.removesuffix(":")
"""Under what the turns of all direct tokens count that used nothing."""

COUNTED = (
    "key", "key_name", "began_at", "used", "upstream", "state", "ended_at", "prompt_tokens", "completion_tokens", "cached_tokens",
    "reasoning_tokens",
)  # fmt: skip
"""What counts of a row, in the order in which `Tally.add` takes it."""

counted: Callable[[tuple[Any, ...]], tuple[Any, ...]] = operator.itemgetter(*map(FIELDS.index, COUNTED))
"""The same of a row's fields."""

STOOD = f"SELECT {', '.join(COUNTED)} FROM turns WHERE id = ?"  # noqa: S608 - names of our own
"""What counts of a row in the file."""

_RECOVERED = {"state": "'interrupted'", "ended_at": "coalesce(checkpoint_at, began_at)"}
ABANDONED = (
    f"SELECT {', '.join(_RECOVERED.get(name, name) for name in COUNTED)} FROM turns "  # noqa: S608 - names of our own
    "WHERE state = 'open' AND id >= ? AND id < ?"
)
"""What will count of the rows that `RECOVER` closes."""

_ADD_DAILY = """
INSERT INTO daily VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET requests = requests + excluded.requests, prompt_tokens = prompt_tokens + excluded.prompt_tokens,
    completion_tokens = completion_tokens + excluded.completion_tokens,
    cached_tokens = cached_tokens + excluded.cached_tokens, reasoning_tokens = reasoning_tokens + excluded.reasoning_tokens
"""

_ADD_TO_KEY = """
UPDATE keys SET first_used_at = min(coalesce(first_used_at, ?1), ?1), last_used_at = max(coalesce(last_used_at, ?2), ?2),
    requests = requests + ?3, prompt_tokens = prompt_tokens + ?4, completion_tokens = completion_tokens + ?5 WHERE key = ?6
"""

_ADD_KEY = """
INSERT INTO keys (first_used_at, last_used_at, requests, prompt_tokens, completion_tokens, key, name) VALUES (?, ?, ?, ?, ?, ?, ?)
"""


class Tally:
    """Changes of sums. Add rows, then `save` in their transaction."""

    def __init__(self) -> None:
        self._daily: dict[tuple[str, str, str, str, str], list[int]] = {}
        self._keys: dict[str, list[Any]] = {}

    def add(self, row: tuple[Any, ...], sign: int = 1) -> None:
        """Count a row (its `COUNTED`), or with -1 take it out again."""
        key, name, began, used, upstream, state, ended, prompt, completion, cached, reasoning = row
        if state == OPEN:
            return
        if key.startswith(DIRECT) and not (prompt or completion):
            key = STRANGERS
        day = _day(int((began if ended is None else ended) // 86400))
        sums = self._daily.setdefault((day, key, used, upstream, state), [0, 0, 0, 0, 0])
        sums[0] += sign
        sums[1] += sign * prompt
        sums[2] += sign * completion
        sums[3] += sign * (cached or 0)
        sums[4] += sign * (reasoning or 0)
        if state == REJECTED:
            return
        of_key = self._keys.setdefault(key, [began, began, 0, 0, 0, key, name])
        of_key[0] = min(of_key[0], began)
        of_key[1] = max(of_key[1], began)
        of_key[2] += sign
        of_key[3] += sign * prompt
        of_key[4] += sign * completion

    def save(self, db: sqlite3.Connection) -> None:
        """Change the sums in the file."""
        if self._daily:
            db.executemany(_ADD_DAILY, [(*what, *sums) for what, sums in self._daily.items()])
        for of_key in self._keys.values():
            if not db.execute(_ADD_TO_KEY, of_key[:-1]).rowcount:  # an insert first would touch AUTOINCREMENT's page
                db.execute(_ADD_KEY, of_key)


@functools.lru_cache(maxsize=8)
def _day(number: int) -> str:
    """The date (ISO, UTC) of this day after 1970."""
    return datetime.fromtimestamp(number * 86400, UTC).date().isoformat()
