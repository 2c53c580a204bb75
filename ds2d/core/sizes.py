"""How much is held of something that may grow, and how much at most.

Rule: whatever lives as long as the process and grows with what clients or upstreams do has a bound, and its owner's `sizes`
tells both. `Daemon.sizes` gathers them; a test walks the owners for one that was forgotten (tests/functional/test_sizes.py).
"""

from __future__ import annotations

from typing import NamedTuple


class Size(NamedTuple):
    """Entries or bytes held now, and at most."""

    now: int
    bound: int


Sizes = dict[str, Size]
"""By name; one of bytes ends in `_bytes`."""
