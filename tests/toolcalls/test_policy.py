"""What the client asked of calls, and whether there is an answer (toolcalls.md 3 and 4, errors.md 2)."""

from __future__ import annotations

from typing import Any

import pytest

from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.events import Ending, Event, Failure, Finish, Reasoning, Text, ToolArgs, ToolEnd, ToolStart, Usage, fold
from ds2d.core.request import ChatRequest, ToolChoice
from ds2d.toolcalls import notes
from ds2d.toolcalls.policy import Policy
from tests.toolcalls.corpus import TOOLS, ids

USAGE = Usage(10, 50)


def request(**fields: Any) -> ChatRequest:
    return ChatRequest("m", fields.pop("messages", []), **{"tools": TOOLS, **fields})


def call(
    name: str = "get_time", index: int = 0, call_id: str = "", arguments: str = "{}", choice: int = 0, broken: bool = False
) -> list[Event]:
    call_id = call_id or f"up_{index}"
    return [ToolStart(index, call_id, name, choice), ToolArgs(index, arguments, choice), ToolEnd(index, choice, broken)]


def finish(*reasons: Any, usage: Usage | None = USAGE, stop: str | None = None) -> Finish:
    return Finish(tuple(Ending(reason, stop) for reason in reasons or ("stop",)), usage)


def judge(events: list[Event], **fields: Any) -> list[Event]:
    return Policy(request(**fields), ids()).feed(events)


def failure(events: list[Event]) -> GatewayError:
    last = events[-1]
    assert isinstance(last, Failure)
    assert last.usage == USAGE
    return last.error


# Names, ids, indexes.


def test_calls_pass_with_their_ids_and_count_from_zero() -> None:
    out = judge([*call(index=3, call_id="a"), *call(index=7, call_id="b"), finish("tool_calls")])
    assert out[:-1] == [*call(index=0, call_id="a"), *call(index=1, call_id="b")]


def test_a_name_is_given_in_its_declared_spelling() -> None:
    folded = fold(judge([*call("functions.GET_TIME"), finish()]))
    assert [one.name for one in folded.choices[0].calls] == ["get_time"]
    assert folded.notes == (notes.RENAMED,)


def test_an_undeclared_call_is_not_made_and_takes_no_index() -> None:
    out = judge([Text("hi"), *call("nope"), *call("get_time", 1), finish()])
    assert out[1:-1] == call("get_time", 0, "up_1")
    assert fold(out).notes == (notes.UNDECLARED,)


def test_only_the_chosen_tools_count() -> None:
    choice = ToolChoice("auto", ("get_weather",))
    assert fold(judge([Text("hi"), *call("get_time"), finish()], tool_choice=choice)).choices[0].calls == []
    assert fold(judge([Text("hi"), *call("get_time"), finish()], tool_choice=ToolChoice("none"))).choices[0].calls == []


def test_ids_are_unique_in_the_answer_and_in_the_conversation() -> None:
    history: Any = [
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "old", "type": "function", "function": {"name": "get_time", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "old", "content": "12:00"},
    ]
    out = judge([*call(call_id="old"), *call(index=1, call_id="new"), *call(index=2, call_id="new"), finish()], messages=history)
    assert [one.id for one in fold(out).choices[0].calls] == [f"call_{0:024d}", "new", f"call_{1:024d}"]
    assert fold(out).notes == (notes.NEW_ID,)


def test_a_call_without_id_gets_one() -> None:
    out = judge([ToolStart(0, "", "get_time"), ToolArgs(0, "{}"), ToolEnd(0), finish()])
    assert out[0] == ToolStart(0, f"call_{0:024d}", "get_time")
    assert fold(out).notes == ()


# Finish reasons.


@pytest.mark.parametrize(
    ("events", "reason", "expected"),
    [
        (call(), "stop", "tool_calls"),
        (call(), "tool_calls", "tool_calls"),
        (call(), "length", "length"),
        (call(), "content_filter", "content_filter"),
        ([Text("hi")], "tool_calls", "stop"),
        ([Text("hi"), *call("nope")], "tool_calls", "stop"),
        ([Text("hi")], "stop", "stop"),
    ],
)
def test_finish_reasons(events: list[Event], reason: Any, expected: str) -> None:
    assert fold(judge([*events, finish(reason)])).choices[0].ending == Ending(expected)  # type: ignore[arg-type]


# One call only.


def test_without_parallel_calls_the_answer_ends_with_the_first() -> None:
    policy = Policy(request(parallel_tool_calls=False), ids())
    assert policy.feed([Text("hi")]) == [Text("hi")]
    assert not policy.done
    out = policy.feed([*call(), *call(index=1)])
    assert out == [*call(), Finish((Ending("tool_calls"),), notes=(notes.NOT_PARALLEL,))]
    assert policy.done


def test_without_parallel_calls_a_whole_answer_keeps_its_usage() -> None:
    out = judge([*call(), Text("more"), *call(index=1), finish("tool_calls")], parallel_tool_calls=False)
    assert out == [*call(), Finish((Ending("tool_calls"),), USAGE, notes=(notes.NOT_PARALLEL,))]


def test_without_parallel_calls_a_rejected_one_does_not_count() -> None:
    policy = Policy(request(parallel_tool_calls=False), ids())
    assert policy.feed(call("nope")) == []
    assert not policy.done
    assert isinstance(policy.feed(call(index=1))[-1], Finish)


def test_without_parallel_calls_every_choice_gets_its_own() -> None:
    policy = Policy(request(parallel_tool_calls=False, params={"n": 2}), ids())
    assert policy.feed(call(choice=1)) == call(choice=1)
    assert policy.feed([Text("late", 1)]) == []
    out = policy.feed(call(choice=0, call_id="x"))
    assert out[-1] == Finish((Ending("tool_calls"), Ending("tool_calls")))


# tool_choice.


REQUIRED = {"tool_choice": ToolChoice("required")}


@pytest.mark.parametrize("events", [[], [Text("No.")], [Reasoning("Hm")], call("nope"), call(broken=True)])
def test_required_without_a_valid_call_is_a_violation(events: list[Event]) -> None:
    error = failure(judge([*events, finish()], **REQUIRED))
    assert (error.kind, error.status, error.param) == (ErrorKind.TOOL_CHOICE_VIOLATION, 422, "tool_choice")


def test_required_and_called() -> None:
    assert isinstance(judge([*call(), finish()], **REQUIRED)[-1], Finish)


def test_a_named_choice_wants_that_one() -> None:
    named = {"tool_choice": ToolChoice("required", ("get_weather",), named=True)}
    assert failure(judge([*call("get_time"), finish()], **named)).kind is ErrorKind.TOOL_CHOICE_VIOLATION
    assert isinstance(judge([*call("get_weather"), finish()], **named)[-1], Finish)


@pytest.mark.parametrize("ending", [finish("length"), finish("content_filter"), finish("stop", stop="END")])
def test_an_answer_that_was_cut_is_no_violation(ending: Finish) -> None:
    """The client can raise its limit; a 422 would hide why."""
    assert isinstance(judge([Text("I will"), ending], **REQUIRED)[-1], Finish)


# Empty turns.


@pytest.mark.parametrize(
    ("events", "cause"),
    [
        ([Reasoning("Hm")], "reasoning"),
        ([Reasoning("Hm"), Text("\n\n")], "reasoning"),
        (call("nope"), "undeclared"),
        ([Reasoning("Hm"), *call("nope")], "undeclared"),
        ([], "nothing"),
        ([Text(" \n")], "nothing"),
    ],
)
@pytest.mark.parametrize("reason", ["stop", "tool_calls"])
def test_empty_turns(events: list[Event], cause: str, reason: Any) -> None:
    error = failure(judge([*events, finish(reason)]))
    assert (error.kind, error.details) == (ErrorKind.EMPTY_ANSWER, {"cause": cause})


def test_an_answer_without_tools_can_be_empty_too() -> None:
    assert failure(judge([Reasoning("Hm"), finish()], tools=[])).kind is ErrorKind.EMPTY_ANSWER


@pytest.mark.parametrize(
    ("events", "ending"),
    [
        ([Text("x")], finish()),
        ([Text("no", refusal=True)], finish()),
        (call(), finish()),
        (call(broken=True), finish()),
        ([], finish(usage=Usage(10, 1))),
        ([], finish(usage=Usage(10, 0))),
        ([], finish(usage=None)),
        ([Reasoning("Hm")], finish("length")),
        ([Reasoning("Hm")], finish("content_filter")),
        ([Reasoning("Hm")], finish("stop", stop="END")),
        (call("nope"), finish("length")),
    ],
)
def test_turns_that_are_not_empty(events: list[Event], ending: Finish) -> None:
    assert isinstance(judge([*events, ending])[-1], Finish)


def test_blanks_of_json_mode_pass() -> None:
    mode = {"response_format": {"type": "json_object"}}
    assert isinstance(judge([Reasoning("Hm"), Text("  \n "), finish()], **mode)[-1], Finish)
    assert isinstance(judge([Reasoning("Hm"), finish()], **mode)[-1], Failure)


def test_one_choice_with_an_answer_is_enough() -> None:
    assert isinstance(judge([Text("x", 1), Reasoning("Hm", 0), finish("stop", "stop")], params={"n": 2})[-1], Finish)
    assert isinstance(judge([Reasoning("x", 1), Reasoning("Hm", 0), finish("stop", "stop")], params={"n": 2})[-1], Failure)


def test_failures_pass() -> None:
    error = Failure(GatewayError(ErrorKind.UPSTREAM_TIMEOUT, "x"))
    assert judge([error]) == [error]
    assert Policy(request(), ids()).finish() == []


def test_text_that_changes_nothing_is_the_very_batch() -> None:
    policy = Policy(request(), ids())
    policy.feed([Text("a")])
    batch: list[Event] = [Text("b")]
    assert policy.feed(batch) is batch
