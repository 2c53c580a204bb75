"""A bar for what takes long: one line on standard error that is drawn over, and gone at the end.

Rule: only where somebody looks, so that logs and files stay clean. Standard output is never touched.
"""

from __future__ import annotations

import sys
import time
from types import TracebackType

WIDTH = 24
EVERY = 0.1
"""Seconds between two drawings."""


class Progress:
    """How far it is: `with Progress("testing accounts", 12) as bar: … bar.step("name")`. Without a total it only counts."""

    def __init__(self, what: str, total: int | None = None) -> None:
        self._what = what
        self._total = total
        self._done = 0
        self._drawn = 0.0
        self._shows = sys.stderr.isatty()

    def __enter__(self) -> Progress:
        self._draw("")
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: BaseException | None, _tb: TracebackType | None) -> None:
        if self._shows:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def step(self, name: str = "", total: int | None = None) -> None:
        """One more is done; `total` where it is known only now."""
        self._done += 1
        self._total = total or self._total
        if self._shows and (self._done == self._total or time.monotonic() - self._drawn >= EVERY):
            self._draw(name)

    def clear(self) -> None:
        """Make room for a line of output; the next step draws the bar again."""
        if self._shows:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._drawn = 0.0

    def _draw(self, name: str) -> None:
        if not self._shows:
            return
        self._drawn = time.monotonic()
        if self._total:
            filled = min(WIDTH, WIDTH * self._done // self._total)
            line = f"{self._what} [{'#' * filled:{WIDTH}}] {self._done}/{self._total} {name}"
        else:
            line = f"{self._what} {self._done} {name}"
        shown = "".join(letter if letter.isprintable() else "?" for letter in line)
        sys.stderr.write(f"\r{shown[:78]}\x1b[K")
        sys.stderr.flush()
