"""Very many objects are let go of a few at each turn of the loop."""

from __future__ import annotations

import asyncio
import weakref

from ds2d.core.letting_go import AT_ONCE, drop
from ds2d.web.letting_go import let_go


class One:
    """Something that can be seen to go."""


async def test_some_go_at_each_turn_of_the_loop_and_the_list_itself_is_not_changed() -> None:
    items = [One() for _ in range(AT_ONCE * 3)]
    here = weakref.WeakSet(items)
    let_go(items)
    assert len(items) == AT_ONCE * 3
    items.clear()
    left = [len(here)]
    while here:
        await asyncio.sleep(0)
        left.append(len(here))
    assert left == [AT_ONCE * 2, AT_ONCE, 0]


def test_a_list_is_emptied() -> None:
    items = list(range(AT_ONCE * 2 + 1))
    drop(items)
    assert items == []
