"""Finding out whether an answer begins inside its thinking: wherever the tag is cut, and without losing a character."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds2d.core.events import Ending, Event, Finish, Reasoning, Text, fold
from ds2d.toolcalls.unsure import MAX_HELD, Unsure

END = Finish((Ending("stop"),))


def answer(text: str, cuts: list[int]) -> tuple[str, str, bool | None]:
    stage = Unsure()
    at = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    events: list[Event] = [event for a, b in pairwise(at) if text[a:b] for event in stage.feed([Text(text[a:b])])]
    events += stage.feed([END])
    (choice,) = fold(events).choices
    return choice.reasoning, choice.text, stage.inside


CASES = [
    ("I think.\nHard.</think>\n\nHello.", ("I think.\nHard.", "Hello.", True)),
    ("<think>I think.</think>Hello.", ("I think.", "Hello.", False)),
    ("Hello.", ("", "Hello.", False)),
    ("Write `</think>` at the end.", ("", "Write `</think>` at the end.", False)),
    ("</think>Hello.", ("", "Hello.", True)),
]


@pytest.mark.parametrize(("text", "expected"), CASES)
@given(cuts=st.lists(st.integers(0, 200), max_size=40))
def test_the_answer_shows_how_it_begins(text: str, expected: tuple[str, str, bool], cuts: list[int]) -> None:
    assert answer(text, cuts) == expected


def test_reasoning_of_the_servers_own_settles_it_at_once() -> None:
    stage = Unsure()
    assert stage.feed([Reasoning("hm")]) == [Reasoning("hm")]
    assert stage.feed([Text("a </think> b")]) == [Text("a </think> b")]
    assert stage.inside is False


def test_nothing_is_held_for_ever() -> None:
    stage = Unsure()
    assert stage.feed([Text("x" * MAX_HELD)]) == []
    assert stage.feed([Text("y")]) == [Text("x" * MAX_HELD), Text("y")]


def test_what_is_held_comes_out_when_the_turn_fails() -> None:
    stage = Unsure()
    assert stage.feed([Text("abc")]) == []
    assert stage.finish() == [Text("abc")]
