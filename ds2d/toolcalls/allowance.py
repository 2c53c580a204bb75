"""What looking for calls may cost beyond reading plain text: a fixed sum for each choice, and a little that text earns.

Rule: every kind of work that a text can cause is paid for, so 64 MB of text made to be expensive stay within twice the cost
of plain text, whatever is in them (`python -m bench.toolcalls` shows it). A unit is about half a microsecond.
Surprise: when nothing is left, text passes unread, and a call in it is missed. Honest answers come nowhere near: a long one
full of code outside fences uses a third of what is given.
"""

from __future__ import annotations

GIVEN = 1 << 17
EARNED_BY = 512
"""Characters of text that earn one more unit; none where the text has to be looked at a second time."""

RESUMED_WITH = 256
"""Units that must have been earned before text is looked at again."""

LEFTOVER = 4
BLOCK = 24
QUOTED = 48
"""Units for a tag that is left over, for a block that begins, and more for one that may be quoted. A piece of text that does
not just pass costs one, and each special character in it one."""


class Allowance:
    """The units of one choice. `characters` of text have come since their units were last counted: who reads adds to it."""

    def __init__(self) -> None:
        self.used_up = False
        """Nothing is left, and not enough has been earned since to look again."""
        self.characters = 0
        self._units = GIVEN

    def count(self) -> None:
        """Turn the characters that have come into units."""
        if self.characters >= EARNED_BY:
            self._units += self.characters // EARNED_BY
            self.characters %= EARNED_BY
            self.used_up = self.used_up and self._units < RESUMED_WITH

    def spend(self, units: int) -> None:
        """Work was done."""
        if self.characters >= EARNED_BY:
            self.count()
        self._units -= units
        self.used_up = self.used_up or self._units < BLOCK
