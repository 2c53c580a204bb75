"""Rows to put into a ledger, and a look into its file that is not the ledger's own."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from ds2d.state.ledger import Ledger
from ds2d.state.ledger_file import NAME
from ds2d.state.ledger_schema import Row

PATIENCE = float(os.environ.get("DS2D_TEST_PATIENCE", "15"))
"""Seconds; mutation tests, in which much never comes, have less."""

BEGAN = 1_790_000_000.0


class Settings(msgspec.Struct):
    synchronous: Any = "full"
    on_disk_full: Any = "serve"
    retention_days: int = 90


def row(request_id: str = "req_1", **fields: Any) -> Row:
    """A turn of the key `a`, just begun."""
    first = {"key": "a", "key_name": "team-a", "dialect": "openai_chat", "asked": "m", "began_at": BEGAN}
    return Row(request_id, **{**first, **fields})


def ended(one: Row, state: str = "completed", prompt: int = 7, completion: int = 5) -> Row:
    """The same row at its end."""
    one.state, one.prompt_tokens, one.completion_tokens = state, prompt, completion
    one.ended_at = one.began_at + 1
    return one


def look(folder: Path, sql: str, *values: Any) -> list[tuple[Any, ...]]:
    """Read the file beside the ledger."""
    db = sqlite3.connect(folder / NAME)
    try:
        return db.execute(sql, values).fetchall()
    finally:
        db.close()


async def started(folder: Path, **more: Any) -> Ledger:
    """A ledger that was started."""
    ledger = Ledger(folder, more.pop("settings", Settings()), wall=lambda: BEGAN, **more)
    await ledger.start()
    return ledger


async def until(true: Callable[[], object]) -> None:
    """Wait for what another thread brings about; long, but not for ever."""
    async with asyncio.timeout(PATIENCE):
        while not true():  # noqa: ASYNC110 - threads set no asyncio events
            await asyncio.sleep(0.001)
