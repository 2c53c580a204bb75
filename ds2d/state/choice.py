"""Which server of a model is asked first.

Rule: pure; it looks at pools and orders them. Load is what the server said of itself at the last look, corrected by the leases
that came and went since; without gauges it is our leases alone.
Surprise: the server that holds a conversation's prefix goes first even where it is busier than others, up to a ceiling: a
prompt of a hundred thousand tokens read anew costs more than some company.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from ds2d.state.slots import Pool

SPARE = 8
"""A server may always have this part of its slots (one at least) more than the mean: at little load nobody is in the way."""


def in_order(
    pools: Sequence[Pool], routing: Literal["least_loaded", "weighted"], prefer: str | None, ceiling: float
) -> Sequence[Pool]:
    """The pools, the one to ask first in front. `prefer` names one that goes first while its load stays below `ceiling`
    times the mean. No pool is empty."""
    if len(pools) == 1:
        return pools
    order = sorted(pools, key=_by_turn if routing == "weighted" else _by_load)
    if prefer is not None:
        liked = next((pool for pool in order if pool.name == prefer), None)
        if liked is not None and liked is not order[0] and not _too_busy(liked, order, ceiling):
            order.remove(liked)
            order.insert(0, liked)
    return order


def _by_turn(pool: Pool) -> tuple[float, int]:
    return pool.order[0][:2]


def _by_load(pool: Pool) -> tuple[float, float, int]:
    turn, number = pool.order[0][:2]
    return pool.server.load / pool.limit if pool.limit else 1.0, turn, number


def _too_busy(liked: Pool, pools: Sequence[Pool], ceiling: float) -> bool:
    if liked.server.full:
        return True
    mean = sum(pool.server.load for pool in pools) / len(pools)
    return liked.server.load >= mean * ceiling + max(1.0, liked.limit / SPARE)
