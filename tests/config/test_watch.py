"""The watcher with the real file system and clock: how soon a change counts. Bounded waiting, for that is the promise.

Then with signs and sleeps that the test gives: when it looks, and when it does not.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import watchfiles

from ds2d.config import store as store_module
from ds2d.config.source import Source
from ds2d.config.store import RETRY, ConfigStore, Look


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


class Signs:
    """Stands in for the file system's reports and for the clock; `happened` is what the watcher did, in its order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.happened: list[str] = []
        self.asked: list[dict[str, Any]] = []
        self.signs: asyncio.Queue[None] = asyncio.Queue()
        self.slept: asyncio.Queue[float] = asyncio.Queue()
        self.due: asyncio.Queue[None] = asyncio.Queue()
        self._pause = asyncio.sleep
        examine = ConfigStore.examine

        def look(store: ConfigStore) -> Look:
            self.happened.append("look")
            return examine(store)

        monkeypatch.setattr(ConfigStore, "examine", look)
        monkeypatch.setattr(watchfiles, "awatch", self._awatch)
        monkeypatch.setattr(asyncio, "sleep", self._sleep)

    async def _awatch(self, *_: str, **how: Any) -> AsyncIterator[set[Any]]:
        self.happened.append("watch")
        self.asked.append(how)
        while True:
            await self.signs.get()
            yield set()

    async def _sleep(self, seconds: float) -> None:
        if seconds:
            self.slept.put_nowait(seconds)
            await self.due.get()
        else:
            await self._pause(0)


async def test_the_watch_stands_before_the_first_look_and_every_sign_brings_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "config.json"
    write(path, 1)
    signs = Signs(monkeypatch)
    async with watching(path) as (_, values), asyncio.timeout(20):
        for value in (2, 3, 4):
            write(path, value)
            assert await values.get() == value
            signs.signs.put_nowait(None)
    assert signs.happened[:4] == ["watch", "look", "look", "look"]
    assert signs.slept.empty()
    (how,) = signs.asked
    assert how["recursive"] is False, "a folder may hold anything"
    assert (how["rust_timeout"], how["yield_on_timeout"]) == (2000, True), "a look every two seconds, whatever is reported"


async def test_half_of_a_save_is_looked_at_again_without_a_sign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "config.json"
    write(path, 1)
    signs = Signs(monkeypatch)
    async with watching(path) as (_, values), asyncio.timeout(20):
        path.write_text("{")
        assert await signs.slept.get() == RETRY
        write(path, 2)
        signs.due.put_nowait(None)
        assert await values.get() == 2


async def test_where_nothing_can_be_watched_it_is_looked_every_two_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "config.json"
    write(path, 1)
    signs = Signs(monkeypatch)

    def none_left(*_: str, **__: Any) -> None:
        raise OSError(24, "no inotify to be had")

    monkeypatch.setattr(watchfiles, "awatch", none_left)
    async with watching(path) as (_, values), asyncio.timeout(20):
        for value in (2, 3):
            assert await signs.slept.get() == store_module.POLL
            write(path, value)
            signs.due.put_nowait(None)
            assert await values.get() == value


async def test_a_start_is_left_alone_for_as_long_as_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "config.json", 1)
    store = ConfigStore(Source.file(tmp_path / "config.json"), keep_history=False)
    followed = asyncio.Event()

    async def follow(_: Any) -> None:
        followed.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(store, "_follow", follow)
    for late, begins in ((1000.0, False), (0.0, True)):
        task = asyncio.create_task(store.watch(late))
        for _ in range(3):
            await asyncio.sleep(0)
        assert followed.is_set() is begins
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
