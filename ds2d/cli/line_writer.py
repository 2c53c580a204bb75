"""Lines of the log on their way to standard error, several in one write.

Rule: a warning or worse is written at once, with all that came before it; other lines at most `GATHER` seconds later, and
the last ones when the process ends. What a kill can lose is that much of what was going well.
Surprise: a write a request costs more than everything else about its line: it is a system call, and whoever follows the
file wakes up for it.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TextIO

GATHER = 0.05
"""Seconds that a line may wait for others."""

MAX_LINES = 256
"""Lines that wait at most."""


class LineWriter(logging.Handler):
    """Writes formatted records to `stream`."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self._lines: list[str] = []
        self._timer: asyncio.TimerHandle | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Take a line; called under the handler's lock."""
        try:
            self._lines.append(self.format(record))
            if record.levelno >= logging.WARNING or len(self._lines) >= MAX_LINES:
                self.flush()
            elif self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(GATHER, self._late)
        except RuntimeError:  # no loop runs in this thread, now or any more
            self.flush()
        except Exception:  # noqa: BLE001 - logging's own rule: a line that cannot be written ends nothing
            self.handleError(record)

    def flush(self) -> None:
        """Write what waits."""
        self.acquire()
        try:
            lines, self._lines = self._lines, []
            if lines:
                self._stream.write("\n".join(lines) + "\n")
                self._stream.flush()
        finally:
            self.release()

    def _late(self) -> None:
        self._timer = None
        self.flush()
