"""The ledger for operators: sums by day, and turns page by page.

Rule: reading happens off the loop and never holds up the writer; a page goes on after the last row of the one before.
Surprise: keys appear by name and id; the ledger has only hashes of them.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from aiohttp import web

from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.state import usage
from ds2d.web.admin.desk import Desk
from ds2d.web.admin.keys import bad, key_id

MAX_PAGE = 500
LATEST = 253370764800.0
"""The last year's beginning, in Unix seconds; no turn is outside of it and 1970."""

STATES = ("open", "completed", "interrupted", "failed", "rejected")


class UsageRoutes:
    """GET /admin/usage. `folder` is the state folder; `settle` has the ledger write what is over."""

    def __init__(self, desk: Desk, folder: Path, settle: Callable[[], Awaitable[None]]) -> None:
        self._desk = desk
        self._folder = folder
        self._settle = settle

    async def usage(self, request: web.Request) -> web.StreamResponse:
        """Sums of the days asked for, and a page of their turns."""
        read = partial(self._read, dict(request.query))
        await self._settle()
        try:
            body = await asyncio.get_running_loop().run_in_executor(None, read)
        except sqlite3.Error:
            raise GatewayError(ErrorKind.LEDGER_UNAVAILABLE, "The ledger cannot be read now.") from None
        return self._desk.reply(body)

    def _read(self, query: dict[str, str]) -> dict[str, Any]:
        since, until = _time(query, "since", 0.0), _time(query, "until", LATEST)
        key = self._caller(query["key"]) if query.get("key") else None
        state = query.get("state")
        if state is not None and state not in STATES:
            raise bad(f"state: must be one of {', '.join(STATES)}")
        after = _cursor(query["after"]) if "after" in query else usage.Cursor(since, -1)
        turns, following = usage.page(self._folder, after, before=until, key=key, state=state, limit=_limit(query))
        first, last = (datetime.fromtimestamp(at, UTC).date().isoformat() for at in (since, until - 0.001))
        daily = usage.daily(self._folder, first, last, key)
        for row in [*turns, *daily]:
            row["key"] = key_id(row["key"])
        return {"daily": daily, "turns": turns, "next": f"{following.began_at!r}_{following.id}" if following else None}

    def _caller(self, wanted: str) -> str:
        """The hash of the key of this name, id, or hash."""
        for spec in self._desk.config.keys:
            if spec.digest is not None and wanted in (spec.name, key_id(spec.digest)):
                return spec.digest
        return wanted


def _limit(query: dict[str, str]) -> int:
    text = query.get("limit", "100")
    if len(text) > 6 or not text.isascii() or not text.isdigit() or not 1 <= int(text) <= MAX_PAGE:
        raise bad(f"limit: must be 1 to {MAX_PAGE}")
    return int(text)


def _time(query: dict[str, str], name: str, default: float) -> float:
    if name not in query:
        return default
    try:
        when = datetime.fromisoformat(query[name])
    except ValueError:
        raise bad(f"{name}: must be a date or a time (RFC 3339)") from None
    return min(max(1.0, (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()), LATEST)


def _cursor(text: str) -> usage.Cursor:
    began, _, number = text.partition("_")
    try:
        cursor = usage.Cursor(float(began), int(number))
    except ValueError:
        raise bad("after: must be the `next` of a page") from None
    if not 0 <= cursor.id < 2**63:
        raise bad("after: must be the `next` of a page")
    return cursor
