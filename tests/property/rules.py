"""The rules that hold for the events of any decoder and detector (core/events.py), as one function."""

from __future__ import annotations

from ds2d.core.events import Event, Failure, Finish, Reasoning, Text, ToolArgs, ToolEnd, ToolStart


def assert_rules(events: list[Event]) -> None:
    """Finish or Failure once and last; calls nest, count up and do not interleave; text is neither empty nor half a character."""
    assert events, "an answer has an ending"
    endings = [event for event in events if isinstance(event, (Finish, Failure))]
    assert endings == events[-1:]
    open_calls: dict[int, int] = {}
    begun: dict[int, int] = {}
    ids: set[str] = set()
    for event in events[:-1]:
        assert not isinstance(event, (Finish, Failure))
        choice = event.choice
        match event:
            case ToolStart(index=index, id=call_id, name=name):
                assert choice not in open_calls
                assert index == begun.get(choice, 0)
                assert name
                assert call_id
                assert call_id not in ids
                ids.add(call_id)
                begun[choice] = index + 1
                open_calls[choice] = index
            case ToolArgs(index=index, text=text):
                assert open_calls.get(choice) == index
                assert_text(text)
            case ToolEnd(index=index):
                assert open_calls.pop(choice) == index
            case Text(text=text) | Reasoning(text=text):
                assert choice not in open_calls
                assert_text(text)
    if isinstance(events[-1], Finish):
        assert not open_calls
        assert events[-1].endings
        assert all(choice < len(events[-1].endings) for choice in begun)


def assert_text(text: str) -> None:
    """Never empty, and it can be written as UTF-8."""
    assert text
    text.encode()
