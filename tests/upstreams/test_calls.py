"""Calls come one after the other, whatever order their pieces came in (core/events.py)."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.events import Event, Text, ToolArgs, ToolEnd, ToolStart
from ds2d.upstreams.openai.calls import MAX_WAITING, CallSorter, Nesting

json_values = st.recursive(
    st.none() | st.integers(0, 99) | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=10
)


def sorter() -> CallSorter:
    return CallSorter(0, lambda name: name, lambda given_id, choice, position: given_id or f"made-{choice}-{position}")


def delta(index: int, arguments: str, name: str = "", call_id: str = "") -> dict[str, Any]:
    return {"index": index, "id": call_id, "function": {"name": name, "arguments": arguments}}


def fed(calls: CallSorter, *deltas: dict[str, Any]) -> list[Event]:
    return [event for one in deltas for event in calls.feed([one], whole=False)]


@given(
    st.lists(json_values) | st.dictionaries(st.text(), json_values),
    st.lists(st.integers(0, 200)),
    st.sampled_from(["", " ", "x"]),
)
def test_nesting_closes_with_the_last_bracket_and_not_before(value: Any, cuts: list[int], after: str) -> None:
    text = orjson.dumps(value).decode()
    nesting = Nesting()
    at = sorted({min(cut, len(text) - 1) for cut in cuts} | {0, len(text) - 1})
    for a, b in pairwise(at):
        nesting.feed(text[a:b])
        assert not nesting.closed
    nesting.feed(text[-1] + after)
    assert nesting.closed


@pytest.mark.parametrize("text", ['"a string"', "7", "", "   ", '{"open": [1, 2]', '{"in a string }": "}'])
def test_what_is_no_whole_object_does_not_close(text: str) -> None:
    nesting = Nesting()
    nesting.feed(text)
    assert not nesting.closed


def test_arguments_of_the_open_call_go_on_at_once() -> None:
    calls = sorter()
    assert fed(calls, delta(0, '{"a', "f", "x")) == [ToolStart(0, "x", "f"), ToolArgs(0, '{"a')]
    assert calls.go_on(0, '": 1}') == [ToolArgs(0, '": 1}')]
    assert calls.queue
    assert calls.finish() == [ToolEnd(0)]
    assert not calls.queue


def test_the_next_call_goes_on_at_once_when_the_open_one_has_closed() -> None:
    calls = sorter()
    fed(calls, delta(0, "{}", "f"))
    assert fed(calls, delta(1, '{"b', "g")) == [ToolEnd(0), ToolStart(1, "made-0-1", "g"), ToolArgs(1, '{"b')]


def test_the_next_call_waits_while_the_open_one_has_not() -> None:
    calls = sorter()
    fed(calls, delta(0, '{"a":', "f"))
    assert fed(calls, delta(1, '{"b":', "g")) == []
    assert calls.go_on(1, "2}") == []
    assert calls.go_on(0, "1}") == [ToolArgs(0, "1}"), ToolEnd(0), ToolStart(1, "made-0-1", "g"), ToolArgs(1, '{"b":2}')]


def test_text_waits_behind_an_open_call_and_passes_a_closed_one() -> None:
    calls = sorter()
    fed(calls, delta(0, '{"a":', "f"))
    assert calls.pass_by(Text("late")) == []
    assert calls.go_on(0, "1}") == [ToolArgs(0, "1}"), ToolEnd(0), Text("late")]
    assert not calls.queue


def test_arguments_wait_for_the_name() -> None:
    calls = sorter()
    assert fed(calls, delta(0, "{", call_id="x")) == []
    assert fed(calls, delta(0, "}", "f")) == [ToolStart(0, "x", "f"), ToolArgs(0, "{}")]


def test_blanks_after_a_closed_call_are_nothing_and_more_is_a_fault() -> None:
    calls = sorter()
    fed(calls, delta(0, "{}", "f"), delta(1, "{", "g"))
    assert calls.go_on(0, " \n") == []
    with pytest.raises(GatewayError) as caught:
        calls.go_on(0, "}")
    assert caught.value.kind is ErrorKind.UPSTREAM_GARBLED


def test_what_waits_is_bounded_and_what_does_not_is_not() -> None:
    calls = sorter()
    piece = "x" * 100_000
    fed(calls, delta(0, '{"a":"', "f"))
    for _ in range(20):
        assert calls.go_on(0, piece)
        assert fed(calls, delta(0, piece, "f"))
    most = [delta(1, piece, "g")] * (MAX_WAITING // len(piece))
    assert fed(calls, *most) == []
    with pytest.raises(GatewayError) as caught:
        fed(calls, delta(1, piece))
    assert caught.value.kind is ErrorKind.UPSTREAM_GARBLED


def test_what_went_by_waits_no_more() -> None:
    calls = sorter()
    for index in range(20):
        fed(calls, delta(index, '{"a":', "f"))
        assert calls.pass_by(Text("x" * 100_000)) == []
        assert calls.go_on(index, "1}")[-1] == Text("x" * 100_000)


def test_an_empty_entry_is_no_call() -> None:
    calls = sorter()
    assert fed(calls, {"index": 0}, {"index": 0, "function": None}, {"index": 0, "id": "", "function": {"name": ""}}) == []
    assert (calls.finish(), calls.seen) == ([], False)


@pytest.mark.parametrize("entry", [None, "x", {"function": "x"}])
def test_an_entry_that_cannot_be_read_is_a_fault(entry: Any) -> None:
    with pytest.raises(GatewayError) as caught:
        sorter().feed([entry], whole=False)
    assert caught.value.kind is ErrorKind.UPSTREAM_GARBLED


def test_arguments_that_cannot_be_written_are_a_fault() -> None:
    deep: Any = []
    for _ in range(300):
        deep = [deep]
    with pytest.raises(GatewayError) as caught:
        sorter().feed([{"function": {"name": "f", "arguments": deep}}], whole=True)
    assert caught.value.kind is ErrorKind.UPSTREAM_GARBLED
