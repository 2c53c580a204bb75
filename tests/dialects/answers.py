"""Answers as events, for the encoders of all dialects: any interleaving that the event rules allow, and an envelope.

Rule: what is drawn here satisfies core/events.py's rules and nothing more, so an encoder may rely on those only.
"""

from __future__ import annotations

from itertools import count
from typing import Any

from hypothesis import strategies as st

from ds2d.core.events import Ending, Event, Finish, Reasoning, Text, ToolArgs, ToolEnd, ToolStart, Usage
from ds2d.core.request import ChatRequest, Envelope

WORDS = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=6) | st.sampled_from(
    [" ", "\n", "hi", "\u2028", "你好", "😀", '"\\', "\r\n\r\n", "data: [DONE]"]
)
ARGUMENTS = st.sampled_from(["{}", '{"city":"Köln"}', '{"a":{"b":[1,2.5,null,true]}}', '{"quote":"\\"\\u00e9\\n"}'])
USAGE = st.builds(
    Usage, st.integers(0, 9999), st.integers(100, 9999), st.none() | st.integers(0, 100), st.none() | st.integers(0, 9)
)


@st.composite
def choice_events(draw: st.DrawFn, choice: int, *, calls: bool = True) -> list[Event]:
    """The events of one choice, without its ending."""
    events: list[Event] = []
    index = 0
    for kind in draw(st.lists(st.sampled_from(["text", "thought", "refusal", "call"]), max_size=6)):
        if kind == "text":
            events.append(Text(draw(WORDS), choice))
        elif kind == "refusal":
            events.append(Text(draw(WORDS), choice, refusal=True))
        elif kind == "thought":
            events.append(Reasoning(draw(WORDS), choice))
        elif calls:
            events.append(ToolStart(index, f"call_{choice}_{index}", draw(st.sampled_from(["f", "get_weather"])), choice))
            text = draw(ARGUMENTS)
            cut = draw(st.integers(1, len(text)))
            events += [ToolArgs(index, piece, choice) for piece in (text[:cut], text[cut:]) if piece]
            events.append(ToolEnd(index, choice))
            index += 1
    return events


@st.composite
def answers(draw: st.DrawFn, *, choices: int = 3, calls: bool = True) -> list[list[Event]]:
    """A whole answer in batches: choices interleave, each in its own order; the ending comes last and alone."""
    lines = [draw(choice_events(number, calls=calls)) for number in range(draw(st.integers(1, choices)))]
    endings = tuple(Ending(draw(st.sampled_from(["stop", "length", "content_filter"]))) for _ in lines)
    merged: list[Event] = []
    while any(lines):
        line = draw(st.sampled_from([line for line in lines if line]))
        merged.append(line.pop(0))
    batches: list[list[Event]] = []
    while merged:
        size = draw(st.integers(1, len(merged)))
        batches.append(merged[:size])
        merged = merged[size:]
    return [*batches, [Finish(endings, draw(USAGE))]]


def envelope(request: ChatRequest | None = None, **fields: Any) -> Envelope:
    """What an encoder gets: ids count up, the clock stands still."""
    ids = count(1)
    made: dict[str, Any] = {
        "request": request or ChatRequest("the-model", []),
        "model": "the-model",
        "request_id": "req_1",
        "created": 1_700_000_000,
        "new_id": lambda prefix: f"{prefix}{next(ids):024d}",
        "now": lambda: 1_700_000_001,
        **fields,
    }
    return Envelope(**made)
