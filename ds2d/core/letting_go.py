"""The objects of a very large question, let go of a few at a time.

Surprise: to free fifty thousand of them is one step for the interpreter, of 20 to 50 ms in which no other thread has its turn.
Whoever is about to drop the last reference to their list drops them from it first.
"""

from __future__ import annotations

from typing import Any

AT_ONCE = 500
"""Objects that are let go of in one step, of less than a millisecond."""


def drop(items: list[Any]) -> None:
    """Empty the list. In a thread others have their turn in between."""
    while items:
        del items[-AT_ONCE:]
