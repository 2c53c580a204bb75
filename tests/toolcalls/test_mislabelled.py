"""Reasoning that nobody asked for: an answer in the wrong field, or reasoning after all."""

from __future__ import annotations

import pytest

from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.events import Ending, Event, Failure, Finish, Reasoning, Text, ToolStart, fold
from ds2d.toolcalls.mislabelled import MAX_HELD, Mislabelled

STOP = Finish((Ending("stop"),))


def run(*events: Event) -> list[Event]:
    stage = Mislabelled()
    return [out for event in events for out in stage.feed([event])]


def test_an_answer_that_is_all_reasoning_is_the_answer() -> None:
    (choice,) = fold(run(Reasoning("Hel"), Reasoning("lo."), STOP)).choices
    assert (choice.text, choice.reasoning) == ("Hello.", "")


@pytest.mark.parametrize("behind", [Text("Hi."), ToolStart(0, "call_1", "f")])
def test_reasoning_before_an_answer_is_reasoning(behind: Event) -> None:
    assert run(Reasoning("hm"), behind, Reasoning("more")) == [Reasoning("hm"), behind, Reasoning("more")]


def test_an_answer_that_was_cut_was_still_thinking() -> None:
    cut = Finish((Ending("length"),))
    assert run(Reasoning("hm"), cut) == [Reasoning("hm"), cut]


def test_a_failure_leaves_the_name_it_had() -> None:
    failure = Failure(GatewayError(ErrorKind.UPSTREAM_DISCONNECTED, "cut"))
    assert run(Reasoning("hm"), failure) == [Reasoning("hm"), failure]


def test_choices_are_judged_apart_and_nothing_is_held_for_ever() -> None:
    both = Finish((Ending("stop"), Ending("stop")))
    assert run(Reasoning("a"), Reasoning("b", 1), Text("c", 1), both) == [Reasoning("b", 1), Text("c", 1), Text("a"), both]
    stage = Mislabelled()
    assert stage.feed([Reasoning("x" * MAX_HELD)]) == []
    assert stage.feed([Reasoning("y")]) == [Reasoning("x" * MAX_HELD), Reasoning("y")]
