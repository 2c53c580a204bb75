"""Finding out whether an answer begins inside its thinking: wherever the tag is cut, and without losing a character."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds2d.core.events import Ending, Event, Finish, Reasoning, Text, ToolEnd, ToolStart, fold
from ds2d.toolcalls.unsure import MAX_HELD, Recovered, Unsure

END = Finish((Ending("stop"),))


def answer(text: str, cuts: list[int]) -> tuple[str, str, bool | None, bool | None]:
    """Reasoning, text, how this answer began, and what it teaches about others."""
    stage = Unsure()
    at = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    events: list[Event] = [event for a, b in pairwise(at) if text[a:b] for event in stage.feed([Text(text[a:b])])]
    events += stage.feed([END])
    (choice,) = fold(events).choices
    return choice.reasoning, choice.text, stage.inside, False if stage.plain else stage.lesson


CASES = [
    ("I think.\nHard.</think>\n\nHello.", ("I think.\nHard.", "Hello.", True, True)),
    ("<think>I think.</think>Hello.", ("I think.", "Hello.", False, False)),
    ("Hello.", ("", "Hello.", False, False)),
    ("Write `</think>` at the end.", ("", "Write `</think>` at the end.", False, None)),
    ("Write '</think>' or so.", ("", "Write '</think>' or so.", False, None)),
    ("In R1 output, </think> ends it.", ("", "In R1 output, </think> ends it.", False, None)),
    ("The <think> tag. Hm.</think>Hello.", ("", "The <think> tag. Hm.</think>Hello.", False, None)),
    ("</think>Hello.", ("", "Hello.", True, True)),
    ("I think.</think>", ("I think.", "", True, True)),
    ("Hm.\n<b>\n< c\n<b></think>Hello.", ("Hm.\n<b>\n< c\n<b>", "Hello.", True, True)),
    (" I think. </think>", (" I think. ", "", True, True)),
    ("Hm.\n<tool_call>{}</tool_call>\n</think>Hello.", ("Hm.\n<tool_call>{}</tool_call>\n", "Hello.", True, True)),
    ("Hm, <tool_call> it is.</think>Hello.", ("Hm, <tool_call> it is.", "Hello.", True, True)),
    ("Hm.\n<tool_call>{</think>", ("", "Hm.\n<tool_call>{</think>", False, None)),
    ("<tool_call>{</think>", ("", "<tool_call>{</think>", False, None)),
]


@pytest.mark.parametrize(("text", "expected"), CASES)
@given(cuts=st.lists(st.integers(0, 200), max_size=40))
def test_the_answer_shows_how_it_begins(text: str, expected: tuple[str, str, bool, bool | None], cuts: list[int]) -> None:
    assert answer(text, cuts) == expected


def test_reasoning_of_the_servers_own_settles_it_at_once() -> None:
    stage = Unsure()
    assert stage.feed([Reasoning("hm")]) == [Reasoning("hm")]
    assert stage.feed([Text("a </think> b")]) == [Text("a </think> b")]
    assert (stage.inside, stage.lesson) == (False, False)


def test_nothing_is_held_for_ever() -> None:
    stage = Unsure()
    assert stage.feed([Text("x" * MAX_HELD)]) == []
    assert stage.feed([Text("y")]) == [Text("x" * MAX_HELD), Text("y")]


def test_what_is_held_comes_out_when_the_turn_fails() -> None:
    stage = Unsure()
    assert stage.feed([Text("abc")]) == []
    assert stage.finish() == [Text("abc")]


CUT = Finish((Ending("length"),))


@pytest.mark.parametrize(
    ("told", "end", "expected", "plain"),
    [
        (None, END, Text("Hello."), True),
        (None, CUT, Text("Hello."), True),
        (True, END, Text("Hello."), True),  # it speaks against what was told
        (True, CUT, Reasoning("Hello."), True),  # it may have been cut in its thinking
        (False, END, Text("Hello."), True),
    ],
)
def test_a_whole_answer_is_judged_by_itself(told: bool | None, end: Finish, expected: Event, plain: bool) -> None:
    stage = Unsure(told, whole=True)
    assert stage.feed([Text("Hello."), end]) == [expected, end]
    assert (stage.lesson, stage.plain) == (None, plain)


@pytest.mark.parametrize(
    ("told", "text", "lesson"),
    [
        (True, "Hm.</think>Hello.", True),
        (False, "Hm.</think>Hello.", True),
        (True, "<think>Hm", False),
        (False, "a `</think>`", None),
    ],
)
def test_what_was_told_streams_and_is_held_against_the_answer(told: bool, text: str, lesson: bool | None) -> None:
    stage = Unsure(told)
    assert stage.feed([Text("\n")]) == [Reasoning("\n") if told else Text("\n")]
    for letter in text:
        stage.feed([Text(letter)])
    stage.feed([END])
    assert stage.lesson is lesson


def recovered(*batches: list[Event], end: Event = END) -> tuple[list[Event], Unsure]:
    unsure = Unsure(told=True)
    stages = [unsure, Recovered(unsure)]
    out: list[Event] = []
    for batch in (*batches, [end]):
        for stage in stages:
            batch = stage.feed(batch)
        out += batch
    return out, unsure


@pytest.mark.parametrize("text", ["Hello.", "Use the <think> tag."])
def test_an_answer_that_went_out_as_thoughts_comes_once_more_as_text(text: str) -> None:
    out, unsure = recovered([Text(text[:4])], [Text(text[4:])])
    assert out == [Reasoning(text[:4]), Reasoning(text[4:]), Text(text), END]
    assert unsure.lesson is False


@pytest.mark.parametrize(
    ("batch", "end"),
    [
        ([Text("Hm.</think>")], END),
        ([Text("Hm.</think>Hello.")], END),
        ([Text("Hm.")], CUT),
        ([Reasoning("Hm.")], END),
        ([Text("Hm."), ToolStart(0, "a", "f"), ToolEnd(0)], END),
        ([Text("x" * MAX_HELD), Text("y")], END),
    ],
)
def test_nothing_comes_twice_where_thoughts_were_thoughts(batch: list[Event], end: Event) -> None:
    out, _ = recovered(batch, end=end)
    assert not any(isinstance(event, Text) and event.text != "Hello." for event in out)
