"""Whether running text stands in a fence or in inline code now, for stages that need no more than that.

Rule: the answer does not depend on where the text was cut: a run of marks counts when something else follows it.
"""

from __future__ import annotations

import re

_PIECE = re.compile(r"`+|~+|\n|[^`~\n]+")
_FENCE = 3


class Quoting:
    """Follows Markdown's fences and code spans. `line_start`: only blanks since the last line feed."""

    def __init__(self) -> None:
        self.line_start = True
        self._run = ""  # marks that may go on
        self._fence = ""
        self._span = 0

    def note(self, text: str) -> None:
        """Text has gone by."""
        if not (self._run or "`" in text or "\n" in text or "~" in text):  # three scans by memchr, not one by a pattern
            if self.line_start:
                self.line_start = not text or text.isspace()
            return
        for found in _PIECE.finditer(text):
            piece = found.group()
            if self._run and piece[0] != self._run[0]:
                self._settle()
            if piece[0] in "`~":
                self._run += piece
            elif piece == "\n":
                if self.line_start:
                    self._span = 0  # a paragraph ends
                self.line_start = True
            else:
                self.line_start = self.line_start and not piece.strip()

    def is_code(self) -> bool:
        """Whether what comes now, and is no mark, stands in code."""
        self._settle()
        return bool(self._fence) or self._span > 0

    def _settle(self) -> None:
        run, self._run = self._run, ""
        if not run:
            return
        if self._fence:
            closes = self.line_start and run[0] == self._fence[0] and len(run) >= len(self._fence)
            self._fence = "" if closes else self._fence
        elif self.line_start and len(run) >= _FENCE:
            self._fence = run
        elif run[0] == "`" and self._span in (0, len(run)):
            self._span = 0 if self._span else len(run)
        self.line_start = False
