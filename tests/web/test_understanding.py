"""A body becomes a question beside the event loop."""

from __future__ import annotations

import gc
from typing import Any

from ds2d.core.request import Inbound
from ds2d.dialects import REGISTRY
from ds2d.web.understanding import understood


def looked_at(value: Any) -> int:
    """How many of the lists and dicts in it the collector looks at."""
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return gc.is_tracked(value) + sum(map(looked_at, inside))


async def test_the_collector_looks_at_nothing_of_a_large_question() -> None:
    calls = [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    turn = [{"role": "assistant", "content": None, "tool_calls": calls}, {"role": "tool", "tool_call_id": "c", "content": "x"}]
    body = {"model": "m", "messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}, *turn]}
    request = await understood(REGISTRY["openai_chat"].parse, Inbound(body, {}, {}, {}, large=True))
    assert len(request.messages) == 3
    assert looked_at(request.messages) == 0
