"""A body becomes a question: here and now, or beside the event loop where there is much to look at.

Rule: a dialect's `parse` is pure but for what it recalls, and that is looked up on the loop, whose it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from ds2d.core.request import ChatRequest, Inbound
from ds2d.core.tokens import rough_request
from ds2d.core.untracked import untrack


async def understood(parse: Callable[[Inbound], ChatRequest], inbound: Inbound) -> ChatRequest:
    """The question. Raises what `parse` raises."""
    if not inbound.large:
        return parse(inbound)
    loop, recall = asyncio.get_running_loop(), inbound.recall

    async def recalled(wanted: str) -> Any:
        return recall(wanted)

    def work() -> ChatRequest:
        inbound.recall = lambda wanted: asyncio.run_coroutine_threadsafe(recalled(wanted), loop).result()
        request = parse(inbound)
        untrack(request.messages)
        request.large = True
        request.estimate = rough_request(request)
        return request

    return await loop.run_in_executor(None, work)
