"""Arguments of native calls are JSON, or the call is marked broken (toolcalls.md 3, upstreams.md 1.6)."""

from __future__ import annotations

from typing import Any

import pytest

from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.events import Ending, Event, Failure, Finish, Reasoning, Text, ToolArgs, ToolEnd, ToolStart, fold
from ds2d.core.request import Tool
from ds2d.toolcalls import notes
from ds2d.toolcalls.declared import Declared
from ds2d.toolcalls.native import NativeCalls
from tests.toolcalls.corpus import TOOLS


def came(*pieces: str, name: str = "get_weather", index: int = 0, ended: bool = True) -> list[Event]:
    events: list[Event] = [ToolStart(index, f"id{index}", name), *(ToolArgs(index, piece) for piece in pieces if piece)]
    return [*events, ToolEnd(index)] if ended else events


def verified(events: list[Event], reason: Any = "tool_calls", *, apart: bool = False) -> list[Event]:
    stage = NativeCalls(Declared(TOOLS))
    events = [*events, Finish((Ending(reason),))]
    return [event for batch in ([[event] for event in events] if apart else [events]) for event in stage.feed(batch)]


def only_call(events: list[Event]) -> tuple[str, bool, bool]:
    call = fold(events).choices[0].calls[0]
    return call.arguments, call.ended, call.broken


both_ways = pytest.mark.parametrize("apart", [False, True])


@both_ways
def test_whole_arguments_pass_piece_by_piece(apart: bool) -> None:
    events = came('{"ci', 'ty": "Par', 'is"}')
    assert verified(events, apart=apart)[:-1] == events


@both_ways
def test_the_closing_brace_that_vllm_loses_is_added(apart: bool) -> None:
    """deepseek_v31 with two tokens a chunk."""
    out = verified(came('{"city": "Paris"', ', "days": 3'), apart=apart)
    assert only_call(out) == ('{"city": "Paris", "days": 3}', True, False)
    assert fold(out).notes == (notes.CLOSERS,)


@both_ways
def test_arguments_that_stop_in_a_string_are_broken(apart: bool) -> None:
    """deepseek_v31 with five tokens a chunk: what was lost is more than closers."""
    out = verified(came('{"city": "Par'), apart=apart)
    assert only_call(out) == ('{"city": "Par', True, True)
    assert fold(out).notes == (notes.BROKEN,)


@both_ways
def test_no_arguments_are_broken_where_some_are_required(apart: bool) -> None:
    assert only_call(verified(came(), apart=apart)) == ("", True, True)  # never an object that nobody wrote
    assert only_call(verified(came("{"), apart=apart)) == ("{", True, True)
    assert only_call(verified(came(name="get_time"), apart=apart)) == ("{}", True, False)


@both_ways
def test_after_the_token_limit_an_unfinished_call_has_no_end(apart: bool) -> None:
    assert only_call(verified(came('{"city": "Paris"'), "length", apart=apart)) == ('{"city": "Paris"', False, False)
    assert only_call(verified(came('{"city": "Paris"}'), "length", apart=apart)) == ('{"city": "Paris"}', True, False)


def test_an_unfinished_call_ends_when_the_next_begins() -> None:
    out = verified([*came('{"city": "Paris"'), *came("{}", name="get_time", index=1)])
    assert [(call.arguments, call.broken) for call in fold(out).choices[0].calls] == [('{"city": "Paris"}', False), ("{}", False)]


def test_a_call_without_end_is_ended() -> None:
    out = verified(came('{"city": "Paris"}', ended=False))
    assert only_call(out) == ('{"city": "Paris"}', True, False)


def test_faults_are_mended_while_they_stream() -> None:
    out = verified(came('{"city": "C:\\', 'dir",', "}"), apart=True)
    assert only_call(out) == ('{"city": "C:\\\\dir"}', True, False)
    assert fold(out).notes == (notes.BACKSLASH, notes.COMMA)


def test_arguments_beyond_mending_go_out_as_they_came() -> None:
    assert only_call(verified(came('{"city": Par', "is}"), apart=True)) == ('{"city": Paris}', True, True)


def test_what_comes_behind_the_object_is_dropped() -> None:
    out = verified(came('{"city": "Paris"}', "}\n"), apart=True)
    assert only_call(out) == ('{"city": "Paris"}', True, False)
    assert fold(out).notes == (notes.LEFTOVER,)
    assert fold(verified(came('{"city": "Paris"}\n'))).notes == ()


@both_ways
def test_arguments_that_were_encoded_twice_are_decoded(apart: bool) -> None:
    out = verified(came('"{\\"city\\": ', '\\"Par\\u00eds\\"}"'), apart=apart)
    assert only_call(out) == ('{"city": "París"}', True, False)
    assert fold(out).notes == (notes.ENCODED,)


@pytest.mark.parametrize("arguments", ["null", "[1]", "5", "Paris"])
def test_arguments_that_are_no_object_are_broken(arguments: str) -> None:
    assert only_call(verified(came(arguments))) == (arguments, True, True)


def test_an_end_that_was_broken_stays_so() -> None:
    out = verified([ToolStart(0, "a", "get_time"), ToolArgs(0, "{}"), ToolEnd(0, broken=True)])
    assert only_call(out)[2]


def test_text_waits_until_the_call_before_it_is_whole() -> None:
    events: list[Event] = [
        ToolStart(0, "a", "get_time"),
        ToolArgs(0, "{"),
        Text("x"),
        Reasoning("y"),
        ToolArgs(0, "}"),
        ToolEnd(0),
        Text("z"),
    ]
    out = verified(events, apart=True)
    assert [type(event).__name__ for event in out] == [
        "ToolStart",
        "ToolArgs",
        "ToolArgs",
        "ToolEnd",
        "Text",
        "Reasoning",
        "Text",
        "Finish",
    ]


def test_text_behind_an_unfinished_call_ends_it() -> None:
    out = verified([*came('{"city": "Paris"'), Text("And so on.")], apart=True)
    assert [type(event).__name__ for event in out] == ["ToolStart", "ToolArgs", "ToolArgs", "ToolEnd", "Text", "Finish"]


def test_choices_are_verified_apart() -> None:
    events: list[Event] = [
        ToolStart(0, "a", "get_time", 0),
        ToolStart(0, "b", "get_weather", 1),
        ToolArgs(0, '{"city": "Paris"', 1),
        ToolEnd(0, 1),
        ToolEnd(0, 0),
        Finish((Ending("tool_calls"), Ending("length"))),
    ]
    folded = fold(NativeCalls(Declared(TOOLS)).feed(events))
    assert [(choice.calls[0].arguments, choice.calls[0].ended) for choice in folded.choices] == [
        ("{}", True),
        ('{"city": "Paris"', False),
    ]


def test_a_failure_ends_nothing() -> None:
    stage = NativeCalls(Declared(TOOLS))
    failure = Failure(GatewayError(ErrorKind.UPSTREAM_DISCONNECTED, "x"))
    out = stage.feed([*came('{"city"', ended=False), Text("held"), failure])
    assert [type(event) for event in out] == [ToolStart, ToolArgs, Text, Failure]
    assert stage.finish() == []


def test_text_alone_is_not_touched() -> None:
    stage = NativeCalls(Declared(TOOLS))
    batch: list[Event] = [Text("a")]
    assert stage.feed(batch) is batch
    assert stage.feed([Text("a"), Reasoning("b")]) == [Text("a"), Reasoning("b")]


# Tools that take one text --------------------------------------------------------------------------------------------

PATCH: Tool = {
    "type": "function",
    "function": {
        "name": "patch",
        "parameters": {
            "type": "object",
            "properties": {"input": {"type": "string"}},
            "required": ["input"],
            "additionalProperties": False,
        },
    },
}


def patched(*pieces: str, reason: Any = "tool_calls", ended: bool = True) -> tuple[tuple[str, bool, bool], tuple[str, ...]]:
    stage = NativeCalls(Declared([PATCH], texts={"patch": "input"}))
    events = [*came(*pieces, name="patch", ended=ended), Finish((Ending(reason),))]
    out = [event for each in events for event in stage.feed([each])]
    return only_call(out), fold(out).notes


@pytest.mark.parametrize(
    "text",
    [
        "*** Begin Patch\n+x",
        "{a: 1}",
        "  x ",
        "",
        " ",
        '"a string"',
        '"  x "',
        '{"patch": "x"',
        '{"reason": "x", "input": "y"}',
        '{"input": 5}',
        '{"inp',
        '{ "input" : ',
        "}",
        "null",
        " " * 5000 + '{"input": "late"}',
    ],
)
@pytest.mark.parametrize("size", [1, 10_000])
def test_bare_text_for_a_tool_that_takes_text_is_taken_as_it_is(text: str, size: int) -> None:
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    assert patched(*pieces) == ((text, True, False), ())


@pytest.mark.parametrize(
    ("arguments", "result", "broken", "said"),
    [
        ('{"input": "x"}', '{"input": "x"}', False, ()),
        ('{"input": "x"', '{"input": "x"}', False, (notes.CLOSERS,)),
        ('{input: "x"}', '{"input": "x"}', False, (notes.BARE_KEY,)),
        ('{"input": "\\d"}', '{"input": "\\\\d"}', False, (notes.BACKSLASH,)),
        ('"{\\"input\\": \\"x\\"}"', '{"input": "x"}', False, (notes.ENCODED,)),
        ('{"input": "x', '{"input": "x', True, (notes.BROKEN,)),
        ('{"input": "say "hi" now"}', '{"input": "say "hi" now"}', False, ()),
    ],
)
@pytest.mark.parametrize("size", [1, 10_000])
def test_the_object_with_the_text_is_verified_as_others_are(
    arguments: str, result: str, broken: bool, said: tuple[str, ...], size: int
) -> None:
    pieces = [arguments[at : at + size] for at in range(0, len(arguments), size)]
    assert patched(*pieces) == ((result, True, broken), said)


def test_bare_text_that_the_token_limit_cut_has_no_end() -> None:
    assert patched("*** Begin", reason="length") == (("*** Begin", False, False), ())
    assert patched('{"inp', reason="length", ended=False)[0][1:] == (False, False)
