"""What another process says on its standard error, of which only the last line is wanted.

Rule: it is read as it comes, so that the process never waits for us, and no more than its end is kept.
"""

from __future__ import annotations

import asyncio
import os

KEPT = 4096
"""Bytes of the end that are kept."""

SHOWN = 300
"""Characters of the last line that are shown."""


class LastWords:
    """A pipe. `theirs` is the descriptor to start the process with; `started` closes it here. Needs a running loop."""

    def __init__(self) -> None:
        self._end = b""
        self._ours, self.theirs = os.pipe()
        os.set_blocking(self._ours, False)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._ours, self._take)
        self._reading = self._both = True

    def started(self) -> None:
        """The process has its end now."""
        if self._both:
            self._both = False
            os.close(self.theirs)

    def close(self) -> str:
        """The last line that was said, without anything that a terminal would obey."""
        self.started()
        while self._reading and self._take():
            pass
        self._stop()
        os.close(self._ours)
        lines = self._end.decode("utf-8", "replace").split("\n")
        said = next((line for line in reversed(lines) if line.strip()), "")
        return "".join(char if char.isprintable() else " " for char in said).strip()[:SHOWN]

    def _take(self) -> bool:
        """Read what is there; whether there may be more."""
        try:
            data = os.read(self._ours, 65536)
        except BlockingIOError:
            return False
        self._end = (self._end + data)[-KEPT:]
        if not data:
            self._stop()
        return bool(data)

    def _stop(self) -> None:
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._ours)
