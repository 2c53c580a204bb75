"""The objects of a very large question, let go of at many turns of the loop (core/letting_go.py says why)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from ds2d.core.letting_go import AT_ONCE, hollow, huge_texts
from ds2d.core.untracked import untracked

PATIENCE = (0.02, 0.1, 0.5)
"""Seconds between the looks whether a huge text is held by nobody else any more."""


def let_go(items: Iterable[Any]) -> None:
    """Hold these on, and fewer of them after each turn of the running loop. The iterable itself is not changed."""
    asyncio.get_running_loop().call_soon(_drop, untracked(list(items)))


def _drop(items: list[Any]) -> None:
    if texts := huge_texts(items[-AT_ONCE:]):
        _give_back(texts)
    del items[-AT_ONCE:]
    if items:
        asyncio.get_running_loop().call_soon(_drop, items)


def _give_back(texts: list[str], looks: int = 0) -> None:
    """Have a thread free what only this list holds, now or a little later: a handler's last frames hold on for a moment."""
    loop = asyncio.get_running_loop()

    def look_again(done: asyncio.Future[list[str]]) -> None:
        held = done.result()
        if held and looks < len(PATIENCE):
            loop.call_later(PATIENCE[looks], _give_back, held, looks + 1)

    loop.run_in_executor(None, hollow, texts).add_done_callback(look_again)
