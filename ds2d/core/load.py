"""What a model server says of its own work.

Rule: sums over its engines, as they were at one look; None where it does not say. Counters count from its start.
"""

from __future__ import annotations

import msgspec


class Load(msgspec.Struct, frozen=True):
    """`running` and `waiting` are requests (an answer with `n` choices counts n times). `cache_use` is 0 to 1, of the fullest
    engine. The next four count tokens: generated, of prompts, looked for in the prefix cache, and found there; a server may
    count an answer's when it ends. `steps` grows with every step of its engines, whatever it counts."""

    running: int
    waiting: int = 0
    cache_use: float | None = None
    generated: int | None = None
    prompted: int | None = None
    queries: int | None = None
    hits: int | None = None
    steps: int | None = None
    asleep: bool = False

    @property
    def requests(self) -> int:
        """All that it has taken and not answered."""
        return self.running + self.waiting
