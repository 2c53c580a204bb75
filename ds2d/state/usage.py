"""Reading the ledger: pages of turns, sums by day, one turn, one key's last errors.

Rule: every question opens the file read-only for itself and closes it again, so that no reader holds up the writer; pages go
by the last row seen (`began_at`, `id`), so rows that are written meanwhile shift nothing.
Surprise: a ledger that is not there yet reads as an empty one.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ds2d.state import ledger_notes
from ds2d.state.ledger_file import NAME
from ds2d.state.ledger_schema import FIELDS, OPEN, PROCESS_BITS, Row

COLUMNS = ("id", *(name for name in FIELDS if name != "why"))
PAGE = 500

_PAGE = f"""
SELECT {", ".join(COLUMNS)} FROM turns
WHERE (began_at, id) > (?1, ?2) AND began_at < ?3 AND (?4 IS NULL OR key = ?4) AND (?5 IS NULL OR state = ?5)
ORDER BY began_at, id LIMIT ?6
"""  # noqa: S608 - names of our own

_ERRORS = """
SELECT request_id, asked, state, cause, began_at FROM turns
WHERE key = ? AND state IN ('failed', 'interrupted', 'rejected') ORDER BY began_at DESC, id DESC LIMIT ?
"""

_LATEST = """
SELECT began_at, ended_at, streamed, state, cause, first_ms, prompt_tokens, completion_tokens FROM turns
WHERE began_at >= ? AND began_at < ? AND state <> 'open' ORDER BY began_at DESC LIMIT ?
"""

_DAILY = """
SELECT day, daily.key, coalesce(keys.name, ''), used, upstream, state, daily.requests, daily.prompt_tokens,
    daily.completion_tokens, cached_tokens, daily.reasoning_tokens
FROM daily LEFT JOIN keys ON keys.key = daily.key
WHERE day >= ?1 AND day <= ?2 AND (?3 IS NULL OR daily.key = ?3) AND daily.requests > 0
ORDER BY day, daily.key, used, upstream, state
"""

DAILY_COLUMNS = (
    "day", "key", "key_name", "used", "upstream", "state", "requests", "prompt_tokens", "completion_tokens", "cached_tokens",
    "reasoning_tokens",
)  # fmt: skip

_KEYS = "SELECT key, name, requests, prompt_tokens, completion_tokens, first_used_at, last_used_at FROM keys ORDER BY name"
KEY_COLUMNS = ("key", "name", "requests", "prompt_tokens", "completion_tokens", "first_used_at", "last_used_at")


class Cursor(NamedTuple):
    """The last row of a page; the next page begins after it."""

    began_at: float
    id: int


START = Cursor(-1.0, -1)


@contextlib.contextmanager
def reading(folder: Path) -> Iterator[sqlite3.Connection | None]:
    """The ledger in this state folder, for the body of the `with`; None if there is none. Raises sqlite3.Error."""
    path = folder / NAME
    if not path.exists():
        yield None
        return
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5)
    try:
        yield connection
    finally:
        connection.close()


def page(
    folder: Path,
    after: Cursor = START,
    *,
    before: float = 1e18,
    key: str | None = None,
    state: str | None = None,
    limit: int = PAGE,
) -> tuple[list[dict[str, Any]], Cursor | None]:
    """Turns in the order in which they began, and where the next page begins (None: that was the last).

    `key` is a caller's id; only turns that began before `before` (Unix seconds) are shown.
    """
    with reading(folder) as db:
        rows = db.execute(_PAGE, (*after, before, key, state, limit)).fetchall() if db else []
    found = [dict(zip(COLUMNS, row, strict=True)) for row in rows]
    return found, Cursor(found[-1]["began_at"], found[-1]["id"]) if len(found) == limit else None


def turns(folder: Path, *, since: float = -1.0, before: float = 1e18, key: str | None = None) -> Iterator[dict[str, Any]]:
    """Every turn that began in this time, page by page."""
    after: Cursor | None = Cursor(since, -1)
    while after is not None:
        rows, after = page(folder, after, before=before, key=key)
        yield from rows


def latest(folder: Path, since: float, before: float, limit: int) -> list[Row]:
    """The last turns that began in this time and are over, newest first, with what figures over time need of them."""
    with reading(folder) as db:
        rows = db.execute(_LATEST, (since, before, limit)).fetchall() if db else []
    found = []
    for began, ended, streamed, state, cause, first, prompt, completion in rows:
        row = Row("", "", "", "", "", began, bool(streamed), state=state, cause=cause, ended_at=ended, first_ms=first)
        row.prompt_tokens, row.completion_tokens = prompt, completion
        found.append(row)
    return found


def daily(folder: Path, first: str, last: str, key: str | None = None) -> list[dict[str, Any]]:
    """Sums by day (ISO dates, both included), key, model, upstream and state."""
    with reading(folder) as db:
        rows = db.execute(_DAILY, (first, last, key)).fetchall() if db else []
    return [dict(zip(DAILY_COLUMNS, row, strict=True)) for row in rows]


def keys(folder: Path) -> dict[str, dict[str, Any]]:
    """What each key used in all, by its hash; times are Unix seconds."""
    with reading(folder) as db:
        rows = db.execute(_KEYS).fetchall() if db else []
    return {row[0]: dict(zip(KEY_COLUMNS, row, strict=True)) for row in rows}


def recent_errors(folder: Path, key: str, limit: int = 20) -> list[dict[str, Any]]:
    """The last turns of a key that did not end well, newest first."""
    with reading(folder) as db:
        rows = db.execute(_ERRORS, (key, limit)).fetchall() if db else []
    names = ("request_id", "model", "state", "cause", "began_at")
    return [dict(zip(names, row, strict=True)) for row in rows]


def find(folder: Path, request_id: str) -> list[dict[str, Any]]:
    """The turns of this request id with their record of decisions (`why`, JSON), newest first; clients may repeat ids.

    Those that ended a moment ago are read from the notes, before the tables, where they may get to meanwhile.
    """
    names = (*COLUMNS, "why")
    noted = {turn["id"]: turn for turn in _noted(folder) if turn["request_id"] == request_id}
    sql = f"SELECT {', '.join(names)} FROM turns WHERE request_id = ? ORDER BY began_at DESC, id DESC LIMIT 20"  # noqa: S608
    with reading(folder) as db:
        rows = db.execute(sql, (request_id,)).fetchall() if db else []
    written = {row[0]: dict(zip(names, row, strict=True)) for row in rows}
    noted = {number: turn for number, turn in noted.items() if number not in written or written[number]["state"] == OPEN}
    return sorted((written | noted).values(), key=lambda turn: (turn["began_at"], turn["id"]), reverse=True)[:20]


def _noted(folder: Path) -> Iterator[dict[str, Any]]:
    """Turns that ended, as the notes have them."""
    for path, owner in ledger_notes.left(folder):
        for number, fields in ledger_notes.read(path, owner):
            yield {"id": owner.number << PROCESS_BITS | number, **dict(zip(FIELDS, fields, strict=True))}
