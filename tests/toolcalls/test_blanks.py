"""JSON mode: blanks before anything wait for it, and are nothing where nothing comes; however the batches are cut."""

from __future__ import annotations

import pytest

from ds2d.core.events import Ending, Event, Finish, Reasoning, Text, ToolEnd, ToolStart
from ds2d.toolcalls.blanks import MAX_BLANKS, Blanks

END = Finish((Ending("stop"), Ending("stop")))


@pytest.mark.parametrize("size", [1, 2, 100])
@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([Text(" "), Text("\n"), END], [END]),
        ([Text(" "), Text("{"), Text(" "), END], [Text(" "), Text("{"), Text(" "), END]),
        ([Text(" "), Reasoning("x"), Text("{"), END], [Reasoning("x"), Text(" "), Text("{"), END]),
        ([Text(" "), Text("{", 1), END], [Text("{", 1), END]),
        ([Text(" "), ToolStart(0, "id", "f"), ToolEnd(0), END], [Text(" "), ToolStart(0, "id", "f"), ToolEnd(0), END]),
    ],
)
def test_blanks_wait_for_what_follows(events: list[Event], expected: list[Event], size: int) -> None:
    stage = Blanks()
    assert [event for at in range(0, len(events), size) for event in stage.feed(events[at : at + size])] == expected


def test_no_more_than_some_blanks_are_held() -> None:
    stage = Blanks()
    half = Text(" " * (MAX_BLANKS // 2))
    assert stage.feed([half, half]) == []
    assert stage.feed([Text(" ")]) == [half, half, Text(" ")]
    assert stage.feed([half, END]) == [half, END]
