"""Signs that something happens in a folder, from the kernel (inotify(7)).

Rule: a sign says that it is worth looking, never what is there. What the kernel does not report (network folders, a folder
that was put in the place of a watched one) is found by whoever also looks without one.
Surprise: nothing wakes while nothing happens. A watcher that asks every few milliseconds is most of what an idle daemon costs.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
from collections.abc import Iterable
from types import TracebackType

SETTLE = 0.01
"""Seconds without another report after which a change is taken to be over."""

MODIFY, ATTRIB, CLOSE_WRITE, MOVED_FROM, MOVED_TO, CREATE, DELETE = 0x2, 0x4, 0x8, 0x40, 0x80, 0x100, 0x200
DELETE_SELF, MOVE_SELF = 0x400, 0x800
CHANGES = MODIFY | ATTRIB | CLOSE_WRITE | MOVED_FROM | MOVED_TO | CREATE | DELETE | DELETE_SELF | MOVE_SELF

_BUFFER = 64 * 1024


class Signs:
    """Reports of changes in these folders, not below them, from the moment in which it is made; a context manager.

    Raises OSError where one of them cannot be watched: no inotify, too many watches, a folder that has gone.
    """

    def __init__(self, folders: Iterable[str]) -> None:
        library = ctypes.CDLL(None, use_errno=True)
        self._reports = _checked(library.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        try:
            for folder in folders:
                _checked(library.inotify_add_watch(self._reports, os.fsencode(folder), CHANGES))
        except OSError:
            os.close(self._reports)
            raise
        self._reported = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._reports, self._take)

    def __enter__(self) -> Signs:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._loop.remove_reader(self._reports)
        os.close(self._reports)

    async def next(self, wait: float, most: float) -> None:
        """Return when something has happened since the last call and is over, or goes on for `most` seconds; without any report
        after `wait` seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait):
                await self._reported.wait()
        end = self._loop.time() + most
        while self._reported.is_set() and self._loop.time() < end:
            self._reported.clear()
            await asyncio.sleep(SETTLE)
        self._reported.clear()

    def _take(self) -> None:
        """Every report that is there; what they say is of no interest."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._reports, _BUFFER)
        self._reported.set()


def _checked(result: int) -> int:
    """The result of a call to the C library. Raises OSError."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
