"""Folding events into an answer: order is kept, adjacent text is joined, extras are merged."""

from __future__ import annotations

from ds2d.core.events import (
    CallPart,
    Ending,
    Event,
    Finish,
    Folder,
    Reasoning,
    ReasoningPart,
    Text,
    TextPart,
    ToolArgs,
    ToolEnd,
    ToolStart,
    Usage,
    fold,
)

EVENTS: list[Event] = [
    Reasoning("hm"),
    Reasoning("m"),
    Text("a"),
    ToolStart(0, "call_1", "f"),
    ToolArgs(0, '{"x"'),
    ToolArgs(0, ":1}"),
    ToolEnd(0),
    Text("b", extra={"logprobs": {"content": [1]}}),
    Text("c", extra={"logprobs": {"content": [2]}}),
    Finish((Ending("tool_calls"),), Usage(3, 4)),
]


def test_parts_keep_their_order_and_adjacent_text_is_one_part() -> None:
    answer = fold(EVENTS)
    (choice,) = answer.choices
    call = CallPart("call_1", "f", '{"x":1}', ended=True)
    assert choice.parts == [ReasoningPart("hmm"), TextPart("a"), call, TextPart("bc")]
    assert choice.text == "abc"
    assert choice.reasoning == "hmm"
    assert choice.calls == [call]
    assert choice.extra == {"logprobs": {"content": [1, 2]}}
    assert choice.ending == Ending("tool_calls")
    assert answer.usage == Usage(3, 4)


def test_batches_do_not_matter() -> None:
    folder = Folder()
    for event in EVENTS:
        folder.feed([event])
    assert folder.completion == fold(EVENTS)


def test_choices_that_interleave_are_kept_apart() -> None:
    answer = fold([Text("b", 1), Text("a"), Text("B", 1), Finish((Ending("stop"), Ending("length")))])
    assert [choice.text for choice in answer.choices] == ["a", "bB"]
    assert [choice.ending.reason for choice in answer.choices if choice.ending] == ["stop", "length"]


def test_two_answers_share_nothing() -> None:
    first, second = fold([Text("a"), Finish((Ending("stop"),))]), fold([Text("b"), Finish((Ending("stop"),))])
    assert first.choices[0].text == "a"
    assert second.choices[0].text == "b"
    assert first.choices[0].extra is not second.choices[0].extra
