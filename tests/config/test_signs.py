"""What the kernel reports of folders: any change, none that happens elsewhere, and one sign for many."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ds2d.config.signs import Signs

LONG, SHORT = 60.0, 0.01


async def has_come(signs: Signs, most: float = LONG) -> bool:
    """Whether there was something to report; if there is, it is there already."""
    clock = asyncio.get_running_loop().time
    began = clock()
    await signs.next(LONG, most)
    return clock() - began < LONG


def put(folder: Path) -> None:
    (folder / "new").write_text("x")
    os.replace(folder / "new", folder / "file")


CHANGES: dict[str, Callable[[Path], object]] = {
    "written": lambda folder: (folder / "file").write_text("y"),
    "replaced": put,
    "made": lambda folder: (folder / "other").touch(),
    "deleted": lambda folder: (folder / "file").unlink(),
    "link": lambda folder: (folder / "link").symlink_to("file"),
    "mode": lambda folder: (folder / "file").chmod(0o000),
    "moved": lambda folder: folder.rename(folder.parent / "elsewhere"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
async def test_every_change_is_a_sign(tmp_path: Path, change: Callable[[Path], object]) -> None:
    folder = tmp_path / "etc"
    folder.mkdir()
    (folder / "file").write_text("x")
    with Signs([str(folder), str(tmp_path)]) as signs:
        change(folder)
        assert await has_come(signs)


async def test_without_a_change_and_after_one_was_told_it_waits_as_long_as_it_is_told(tmp_path: Path) -> None:
    clock = asyncio.get_running_loop().time
    (tmp_path / "below").mkdir()
    with Signs([str(tmp_path)]) as signs:
        (tmp_path / "file").touch()
        await signs.next(LONG, LONG)
        (tmp_path / "below" / "file").touch()  # a folder may hold anything
        (tmp_path / "file").read_text()
        began = clock()
        await signs.next(SHORT, LONG)
        assert clock() - began >= SHORT / 2


async def test_what_changes_without_end_is_told_now_and_then(tmp_path: Path) -> None:
    async def scribble() -> None:
        while True:
            (tmp_path / "log").write_text("x")
            await asyncio.sleep(0)

    with Signs([str(tmp_path)]) as signs:
        scribbling = asyncio.create_task(scribble())
        assert await has_come(signs, SHORT)
        assert await has_come(signs, SHORT)
        scribbling.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await scribbling


async def test_a_folder_that_is_not_there_is_refused_and_nothing_stays_open(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(FileNotFoundError):
        Signs([str(tmp_path), str(tmp_path / "gone")])
    with Signs([str(tmp_path)]):
        pass
    assert len(os.listdir("/proc/self/fd")) == before
