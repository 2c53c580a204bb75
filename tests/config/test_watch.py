"""The watcher with the real file system and clock: how soon a change counts. Bounded waiting, for that is the promise."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from ds2d.config import store as store_module
from ds2d.config.source import Source
from ds2d.config.store import ConfigStore


def write(path: Path, value: int) -> None:
    path.write_text(json.dumps({"runtime": {"max_attempts": value}}))


@asynccontextmanager
async def watching(path: Path) -> AsyncIterator[tuple[ConfigStore, asyncio.Queue[int]]]:
    """A store that is watched, and a queue of the values that came into force."""
    store = ConfigStore(Source.file(path), keep_history=False)
    values: asyncio.Queue[int] = asyncio.Queue()
    store.subscribe(lambda config: values.put_nowait(config.runtime.max_attempts))
    task = asyncio.create_task(store.watch())
    try:
        yield store, values
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_a_write_is_reported_also_behind_a_link_that_is_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "POLL", 100)  # no look but the one that the report brings
    for name, value in (("one", 1), ("two", 2)):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "config.json", value)
    (tmp_path / "current").symlink_to("one")
    path = tmp_path / "etc" / "config.json"
    path.parent.mkdir()
    path.symlink_to("../current/config.json")
    async with watching(path) as (_, values), asyncio.timeout(60):
        for target, value in [("one", 4), ("one", 5)]:
            await asyncio.sleep(0.05)  # the watch need not stand at once; a look follows when it does
            write(tmp_path / target / "config.json", value)
            assert await asyncio.wait_for(values.get(), 20) == value
        (tmp_path / "next").symlink_to("two")
        os.replace(tmp_path / "next", tmp_path / "current")
        assert await asyncio.wait_for(values.get(), 20) == 2
        write(tmp_path / "two" / "config.json", 6)
        assert await asyncio.wait_for(values.get(), 20) == 6


async def test_polling_finds_what_the_file_system_does_not_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "POLL", 0.1)
    path = tmp_path / "etc" / "config.json"
    path.parent.mkdir()
    write(path, 1)
    async with watching(path) as (_, values), asyncio.timeout(60):
        await asyncio.sleep(0.05)
        os.rename(path.parent, tmp_path / "old")  # what was watched is elsewhere now
        path.parent.mkdir()
        write(path, 2)
        assert await asyncio.wait_for(values.get(), 20) == 2
