"""The objects of a very large question, let go of at many turns of the loop (core/letting_go.py says why)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from ds2d.core.letting_go import AT_ONCE
from ds2d.core.untracked import untracked


def let_go(items: Iterable[Any]) -> None:
    """Hold these on, and fewer of them after each turn of the running loop. The iterable itself is not changed."""
    _drop(untracked(list(items)))


def _drop(items: list[Any]) -> None:
    del items[-AT_ONCE:]
    if items:
        asyncio.get_running_loop().call_soon(_drop, items)
