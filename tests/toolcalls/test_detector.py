"""When calls start, what is held and for how long, and what stays untouched (toolcalls.md 2 and 3)."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.events import Ending, Event, Failure, Finish, Reasoning, Text, ToolArgs, ToolEnd, ToolStart, fold
from ds2d.toolcalls import notes
from ds2d.toolcalls.allowance import EARNED_BY, GIVEN, RESUMED_WITH
from ds2d.toolcalls.declared import Declared
from ds2d.toolcalls.detector import Detector
from ds2d.toolcalls.source import MAX_KEPT
from tests.property.rules import assert_rules
from tests.toolcalls.corpus import TOOLS, Outcome, ids, outcome

STOP = Finish((Ending("stop"),))
V31 = "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>"
DSML = '<｜DSML｜tool_calls>\n<｜DSML｜invoke name="write_file">\n'
PATH = '<｜DSML｜parameter name="path" string="true">a.txt</｜DSML｜parameter>\n'


def detector(mode: Any = "feature_match", confidence: Any = "high") -> Detector:
    return Detector(Declared(TOOLS), mode, confidence, ids())


def feed(stage: Detector, *texts: str) -> list[Event]:
    return [event for text in texts for event in stage.feed([Text(text)])]


def args(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, ToolArgs))


def shown(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Text))


# Early start.


def test_a_call_starts_when_its_arguments_begin() -> None:
    stage = detector()
    assert feed(stage, V31, "{") == []  # a brace alone is no certain format
    first = feed(stage, '"ci')
    assert isinstance(first[0], ToolStart)
    assert (first[0].name, first[0].id, first[1]) == ("get_weather", f"call_{0:024d}", ToolArgs(0, '{"ci'))
    assert feed(stage, 'ty": "Pa') == [ToolArgs(0, 'ty": "Pa')]
    assert feed(stage, 'ris"}') == [ToolArgs(0, 'ris"}'), ToolEnd(0)]


@pytest.mark.parametrize(
    ("before", "rest"),
    [
        ('{"tool_calls": [{"name": "get_weather"', ', "input": {"city": "x"}}]}'),
        ('<tool_call>{"name": "get_weather"', ', "arguments": {"city": "x"}}</tool_call>'),
        ("<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{", '"city": "x"}<｜tool▁call▁end｜>'),
        ('<function_calls><invoke name="get_weather"><', 'parameter name="city">x</parameter></invoke></function_calls>'),
    ],
)
def test_low_confidence_starts_at_the_name(before: str, rest: str) -> None:
    assert isinstance(feed(detector(confidence="low"), before)[0], ToolStart)
    assert feed(detector(confidence="high"), before) == []
    assert [type(event) for event in feed(detector(confidence="off"), before, rest)] == [ToolStart, ToolArgs, ToolEnd]


def test_low_confidence_does_not_start_without_a_marker() -> None:
    assert feed(detector(confidence="low"), '{"name": "get_weather"') == []


def test_an_undeclared_call_does_not_start_early() -> None:
    stage = detector()
    assert feed(stage, '<tool_call>{"name": "nope", "arguments": {"a": 1') == []
    assert [type(event) for event in feed(stage, "}}</tool_call>")] == [ToolStart, ToolArgs, ToolEnd]


def test_a_string_value_of_dsml_streams() -> None:
    stage = detector()
    assert args(feed(stage, DSML, PATH)) == '{"path":"a.txt"'
    feed(stage, '<｜DSML｜parameter name="content" string="true">')
    assert args(feed(stage, "one\n")) == "one"  # white space may be layout
    assert args(feed(stage, "two <b")) == "\\ntwo"
    assert args(feed(stage, ">")) == " <b>"
    assert args(feed(stage, " </｜DSML｜param")) == ""
    assert args(feed(stage, "eter>")) == ' "'
    assert args(feed(stage, "\n</｜DSML｜invoke>")) == "}"


def test_another_value_goes_out_when_it_is_finished() -> None:
    stage = detector()
    feed(stage, '<invoke name="search"><parameter name="query">x</parameter>')
    assert args(feed(stage, '<parameter name="limit">', "4", "2")) == ""
    assert args(feed(stage, "</parameter>")) == ',"limit":42'


def test_arguments_of_any_length_stream_without_being_held() -> None:
    stage = detector()
    feed(stage, V31, '{"city": "')
    for _ in range(300):
        assert args(feed(stage, "x" * 10_000)) == "x" * 10_000
    assert [type(event) for event in feed(stage, '"}')] == [ToolArgs, ToolEnd]


def test_calls_in_a_fence_wait_for_its_end() -> None:
    stage = detector()
    assert feed(stage, '```json\n{"name": "get_time", "arguments": {}}\n``') == []
    assert feed(stage, "`") == []
    assert [type(event) for event in feed(stage, "\n")] == [ToolStart, ToolArgs, ToolEnd]


def test_calls_that_may_be_quoted_wait_for_the_end_of_the_line() -> None:
    stage = detector()
    feed(stage, "a ` b ")
    assert feed(stage, '{"name": "get_time", "arguments": {}}', " and on") == []
    assert [type(event) for event in feed(stage, "\n")] == [ToolStart, ToolArgs, ToolEnd, Text]


# What passes untouched.


def test_text_without_special_characters_is_the_very_event() -> None:
    stage = detector()
    feed(stage, "Hello")
    for event in (Text(" world"), Text("\n\nNew", extra={"logprobs": 1}), Text(" line.\n")):
        batch: list[Event] = [event]
        assert stage.feed(batch)[0] is event
    thought = Reasoning("Hm")
    assert stage.feed([thought]) == [thought]


def test_marks_in_which_no_call_can_begin_leave_the_event_as_it_is() -> None:
    stage = detector()
    feed(stage, "Use")
    for text in (" `fox` and", " [dog](https://x.org),", " {c: 1}", " <b>this</b> or", "\n\nelse `d`.\n", "for x"):
        batch: list[Event] = [Text(text, extra={"logprobs": 1})]
        assert stage.feed(batch) is batch


def test_only_what_may_become_a_marker_is_held() -> None:
    stage = detector()
    assert shown(feed(stage, "a < b")) == "a < b"
    assert shown(feed(stage, " <tool")) == " "
    assert shown(feed(stage, "ing")) == ""
    assert shown(feed(stage, " is>")) == "<tooling is>"
    assert shown(feed(stage, ' {"na')) == " "
    assert shown(feed(stage, 'tion": 1}')) == '{"nation": 1}'


def test_refusals_are_not_searched() -> None:
    stage = detector()
    event = Text('{"name": "get_time", "arguments": {}}', refusal=True)
    assert stage.feed([event, STOP])[0] is event


def test_extras_ride_with_the_next_text() -> None:
    stage = detector()
    out = stage.feed([Text("see <to", extra={"logprobs": {"content": [1]}})])
    assert out == [Text("see ", extra={"logprobs": {"content": [1]}})]
    out = stage.feed([Text("ol", extra={"logprobs": {"content": [2]}})])
    assert out == []
    out = stage.feed([Text("box, is", extra={"logprobs": {"content": [3]}})])
    assert out == [Text("<toolbox, is", extra={"logprobs": {"content": [2, 3]}})]


def test_extras_of_a_call_end_up_with_the_ending() -> None:
    events = detector().feed([Text('{"name": "get_time", "arguments": {}}', extra={"logprobs": {"content": [1]}}), STOP])
    ending = events[-1]
    assert isinstance(ending, Finish)
    assert ending.endings[0].extra == {"logprobs": {"content": [1]}}


# Bounds.


def test_a_capture_is_released_after_a_mebibyte() -> None:
    stage = detector(confidence="off")
    head = '<tool_call>{"name": "write_file", "arguments": {"path": "x", "content": "'
    assert feed(stage, head) == []
    held = len(head)
    while held <= MAX_KEPT:
        out = feed(stage, "x" * 50_000)
        held += 50_000
        assert not out or held > MAX_KEPT
    assert len(shown(feed(stage, "x"))) + len(shown(out)) == held + 1


@pytest.mark.parametrize("size", [977, 100_000, 10_000_000])
def test_a_call_over_the_bound_is_text_however_it_is_cut(size: int) -> None:
    text = '{"name": "write_file", "arguments": {"path": "x", "content": "' + "é" * (MAX_KEPT // 2) + '"}}'
    stage = detector(confidence="off")
    out = feed(stage, *(text[at : at + size] for at in range(0, len(text), size))) + stage.feed([STOP])
    assert shown(out) == text


def test_when_the_allowance_is_used_up_text_just_passes() -> None:
    stage = detector()
    storm = "<tool_call>" * (GIVEN // 10)
    assert shown(feed(stage, storm)) == storm
    call = ' {"name": "get_time", "arguments": {}}'
    assert shown(feed(stage, call)) == call
    ending = stage.feed([STOP])[-1]
    assert isinstance(ending, Finish)
    assert notes.GAVE_UP in ending.notes


def test_plain_text_earns_a_new_allowance() -> None:
    stage = detector()
    feed(stage, "<tool_call>" * (GIVEN // 10))
    feed(stage, *["plain words " * EARNED_BY] * (RESUMED_WITH // 12 + 1))
    assert any(isinstance(event, ToolStart) for event in feed(stage, '\n{"name": "get_time", "arguments": {}}\n'))


def test_calls_after_a_thousand_honest_lines_are_found() -> None:
    stage = detector()
    for number in range(1000):
        feed(stage, f'{{"name": "row {number}", "value": [1, "<b>", "`x`"]}}\n')
    assert any(isinstance(event, ToolStart) for event in feed(stage, '{"name": "get_time", "arguments": {}}\n'))


# Channels and choices.


def test_a_block_does_not_run_from_reasoning_into_text() -> None:
    stage = detector()
    out = stage.feed([Reasoning('maybe <tool_call>{"name": "get_time", '), Text("Hello"), STOP])
    assert fold(out).choices[0].reasoning == 'maybe <tool_call>{"name": "get_time", '
    assert fold(out).choices[0].text == "Hello"


def test_a_fence_in_reasoning_does_not_hide_a_call_in_text() -> None:
    out = detector().feed([Reasoning("```\nopen"), Text('{"name": "get_time", "arguments": {}}'), STOP])
    assert [call.name for call in fold(out).choices[0].calls] == ["get_time"]


def test_choices_are_searched_apart() -> None:
    stage = detector()
    out = stage.feed([Text('{"name": "get_', 0), Text('{"name": "get_', 1), Text('time", "arguments": {}}', 1), Text('x"}', 0)])
    out += stage.feed([Finish((Ending("stop"), Ending("stop")))])
    folded = fold(out)
    assert folded.choices[0].text == '{"name": "get_x"}'
    assert [call.name for call in folded.choices[1].calls] == ["get_time"]


# Closers at the end.

EMPTY = [
    V31 + "{",
    '<tool_call>{"name": "get_weather", "arguments": {',
    '<tool_call>{"name": "get_weather", "arguments": "{"}</tool_call>',
    '{"name": "get_weather", "arguments": {\n',
    "function.name: get_weather\nfunction.arguments: {",
]


@pytest.mark.parametrize("text", EMPTY)
def test_closers_that_do_not_satisfy_the_schema_start_no_call(text: str) -> None:
    for confidence in ("high", "off"):
        found = outcome([*feed(stage := detector(confidence=confidence), text), *stage.feed([STOP])])
        assert (found.calls, found.shown) == ([], text)


@pytest.mark.parametrize("text", EMPTY[:3])
def test_closers_that_do_not_satisfy_the_schema_do_not_make_an_object(text: str) -> None:
    out = [*feed(stage := detector(confidence="low"), text), *stage.feed([STOP])]
    assert (args(out), outcome(out).states) == ("{", ["broken"])


@pytest.mark.parametrize("arguments", ["", " \n"])
def test_nothing_is_no_object_for_a_tool_that_requires_some(arguments: str) -> None:
    text = f"{V31}{arguments}<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
    found = outcome([*feed(stage := detector(), text), *stage.feed([STOP])])
    assert (found.calls, found.shown) == ([], text)
    out = [*feed(stage := detector(confidence="low"), *text), *stage.feed([STOP])]
    assert (args(out), outcome(out).states, shown(out)) == ("", ["broken"], "")


# Half a tag at the end.

BETWEEN, AFTER = "<｜tool▁call▁end｜>{}<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
CITY = '<｜DSML｜parameter name="city" string="true">Paris</｜DSML｜parameter>\n'
BLOCKS = [
    V31 + '{"city": "Paris"}' + BETWEEN.format("") + "get_time<｜tool▁sep｜>{}" + AFTER,
    V31.replace("get_weather<｜tool▁sep｜>", "function<｜tool▁sep｜>get_weather\n```json\n")
    + '{"city": "Paris"}\n```'
    + BETWEEN.format("\n")
    + "function<｜tool▁sep｜>get_time\n```json\n{}\n```"
    + AFTER,
    f'<｜DSML｜function_calls>\n<｜DSML｜invoke name="get_weather">\n{CITY}</｜DSML｜invoke>\n<｜DSML｜invoke name="get_time">\n'
    "</｜DSML｜invoke>\n</｜DSML｜function_calls>",
    '<function_calls><invoke name="get_weather">\n<parameter name="city">Paris</parameter>\n</invoke></function_calls>\n',
    '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>\n<tool_call>\n',
]


@pytest.mark.parametrize("finish", ["stop", "length"])
@pytest.mark.parametrize("block", BLOCKS)
def test_nothing_of_a_block_that_ends_anywhere_is_shown_behind_its_call(block: str, finish: Any) -> None:
    for end in range(block.index("Paris") + 5, len(block) + 1):
        found = [run(Text(block[:end]), size=size, finish=finish) for size in (1, 4, 1000)]
        assert found == found[:1] * 3
        assert (found[0].shown, found[0].calls[0][0]) == ("", "get_weather")


@pytest.mark.parametrize("rest", ["<b", "</div", "< 5", "Done <tool"])
def test_what_is_no_half_of_a_tag_of_a_block_is_shown_behind_it(rest: str) -> None:
    assert run(Text(BLOCKS[3] + rest), size=1).shown == "\n" + rest


def test_half_of_a_closing_tag_behind_a_native_call_is_not_shown() -> None:
    for size in (1, 1000):
        assert run(*native("get_time", "{}"), Text("\n</tool_ca"), size=size).shown == ""


# A channel or a native call that comes in the middle of a call.

HALF = f'{DSML}{PATH}<｜DSML｜parameter name="content" string="true">first half '
REST = "second half</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜tool_calls>"
WHOLE = {"path": "a.txt", "content": "first half second half"}

in_pieces = pytest.mark.parametrize("size", [1, 1000], ids=["letters", "pieces"])


def run(*events: Event, size: int, finish: Any = "stop", confidence: Any = "high") -> Outcome:
    """What comes of these events, their text in pieces of `size`."""
    stage = detector(confidence=confidence)
    out: list[Event] = []
    for event in events:
        if isinstance(event, Text | Reasoning):
            pieces = (event.text[at : at + size] for at in range(0, len(event.text), size))
            out += [said for piece in pieces for said in stage.feed([msgspec.structs.replace(event, text=piece)])]
        else:
            out += stage.feed([event])
    out += stage.feed([Finish((Ending(finish),))])
    if finish != "length":
        assert_rules(out)
    return outcome(out)


@in_pieces
@pytest.mark.parametrize("confidence", ["high", "low", "off"])
def test_thoughts_in_the_middle_of_a_call_wait_behind_it(confidence: Any, size: int) -> None:
    found = run(Text(HALF), Reasoning("hm"), Text(REST), Reasoning("!"), size=size, confidence=confidence)
    assert (found.calls, found.states) == ([("write_file", WHOLE)], ["whole"])
    assert (found.shown, found.reasoning, found.notes) == ("", "hm!", [])


def test_thoughts_go_out_as_soon_as_the_block_has_ended() -> None:
    stage = detector()
    feed(stage, HALF)
    assert stage.feed([Reasoning("hm", extra={"a": 1})]) == []
    assert stage.feed([Text(REST)])[-1] == Reasoning("hm", extra={"a": 1})
    assert stage.feed([Reasoning("!")]) == [Reasoning("!")]


def test_a_mebibyte_of_thoughts_breaks_the_call_off() -> None:
    stage = detector()
    feed(stage, HALF)
    assert stage.feed([Reasoning("x" * MAX_KEPT)]) == []
    assert stage.feed([Reasoning("y")]) == [ToolEnd(0, broken=True), Reasoning("x" * MAX_KEPT), Reasoning("y")]


@in_pieces
def test_thoughts_that_waited_are_not_read_again_where_another_block_has_begun(size: int) -> None:
    call = '<tool_call>{"name": "get_time", "arguments": {}}'
    found = run(Text(HALF), Reasoning(call), Text(REST + '<invoke name="search">'), size=size)
    assert ([name for name, _ in found.calls], found.reasoning) == (["write_file"], call)


@in_pieces
def test_half_a_tag_before_thoughts_is_text(size: int) -> None:
    assert run(Text(TWICE + "\n</"), Reasoning("hm"), Text("div>"), size=size).shown == "\n</div>"


@in_pieces
def test_a_call_that_goes_on_in_thoughts_shows_no_markup(size: int) -> None:
    found = run(Text(HALF), Reasoning("hm "), Reasoning(REST), size=size)
    assert (found.states, found.reasoning) == (["broken"], "hm second half\n\n")


@in_pieces
def test_a_call_that_thoughts_cut_off_is_broken(size: int) -> None:
    found = run(Text(HALF), Reasoning("hm"), size=size)
    assert (found.states, found.shown, found.reasoning) == (["broken"], "", "hm")
    assert found.notes == [notes.BROKEN]


@in_pieces
def test_the_limit_after_thoughts_leaves_the_call_open(size: int) -> None:
    found = run(Text(HALF), Reasoning("hm"), size=size, finish="length")
    assert (found.calls, found.states) == ([("write_file", '{"path":"a.txt","content":"first half')], ["open"])
    assert found.reasoning == "hm"


@in_pieces
def test_a_call_begun_in_reasoning_does_not_go_on_in_text(size: int) -> None:
    found = run(Reasoning(HALF), Text(REST + "Done </b>"), size=size)
    assert (found.states, found.notes) == (["broken"], [notes.BROKEN])
    assert (found.shown, found.reasoning) == ("second half\n\nDone </b>", "")
    found = run(Reasoning(V31 + '{"city": "Paris"'), Text("}<｜tool▁call▁end｜><｜tool▁calls▁end｜>"), size=size)
    assert (found.states, found.shown, found.reasoning) == (["broken"], "}", "")


@in_pieces
def test_a_refusal_breaks_a_call_off(size: int) -> None:
    found = run(Text(HALF), Reasoning("hm"), Text("I will not.", refusal=True), size=size)
    assert (found.states, found.shown, found.reasoning) == (["broken"], "", "hm")


# Endings.


def test_buffered_mode_says_nothing_before_the_end() -> None:
    stage = detector(mode="buffered")
    assert feed(stage, "Hello ", "world. ", '{"name": "get_time", "arguments": {}}') == []
    assert [type(event) for event in stage.feed([STOP])] == [Text, Text, ToolStart, ToolArgs, ToolEnd, Finish]


def test_buffered_mode_holds_a_mebibyte_at_most() -> None:
    stage = detector(mode="buffered")
    assert feed(stage, "x" * (MAX_KEPT // 2)) == []
    assert len(shown(feed(stage, "y" * MAX_KEPT))) == MAX_KEPT // 2 + MAX_KEPT
    assert shown(feed(stage, "z")) == "z"


def test_a_failure_shows_text_but_no_half_block() -> None:
    for last in (True, False):
        stage = detector()
        out = feed(stage, "Hello <to")
        out += stage.feed([Failure(GatewayError(ErrorKind.UPSTREAM_DISCONNECTED, "x"))]) if last else stage.finish()
        assert shown(out) == "Hello <to"
        stage = detector()
        out = feed(stage, 'Hello <tool_call>{"name": ')
        out += stage.feed([Failure(GatewayError(ErrorKind.UPSTREAM_DISCONNECTED, "x"))]) if last else stage.finish()
        assert shown(out) == "Hello "


def test_a_failure_in_a_call_leaves_it_open() -> None:
    stage = detector()
    out = feed(stage, V31, '{"city": "Pa') + stage.finish()
    assert [type(event) for event in out] == [ToolStart, ToolArgs]


@pytest.mark.parametrize("ending", [Ending("length"), Ending("content_filter"), Ending("stop", stop="END")])
def test_a_cut_call_is_not_mended(ending: Ending) -> None:
    out = feed(stage := detector(), V31, '{"city": "Paris"') + stage.feed([Finish((ending,))])
    call = fold(out).choices[0].calls[0]
    assert call.arguments == '{"city": "Paris"'
    assert (call.ended, call.broken) == ((False, False) if ending.reason == "length" else (True, True))


def test_repairs_that_do_not_satisfy_the_schema_leave_the_call_broken() -> None:
    out = detector().feed([Text(V31 + '{"days": 3,}<｜tool▁call▁end｜>'), STOP])
    call = fold(out).choices[0].calls[0]
    assert call.broken
    assert fold(out).notes == (notes.BROKEN,)


# Native calls beside text.


def native(name: str, arguments: str, index: int = 0) -> list[Event]:
    return [ToolStart(index, "id1", name), ToolArgs(index, arguments), ToolEnd(index)]


def test_native_calls_pass() -> None:
    stage = detector()
    for event in native("get_time", "{}"):
        assert stage.feed([event]) == [event]


@pytest.mark.parametrize(
    "marker",
    [
        "<｜tool▁calls▁begin｜>",
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_ti",
        "<tool_call>\n",
        "<｜DSML｜tool_c",
        "<｜tool▁",
    ],
)
def test_a_marker_left_before_a_native_call_is_not_shown(marker: str) -> None:
    out = detector().feed([Text("Let me see. " + marker), *native("get_time", "{}"), STOP])
    assert fold(out).choices[0].text == "Let me see. "


@pytest.mark.parametrize(
    "marker",
    ["<｜tool▁calls▁end｜>", "</tool_call>", "\n</｜DSML｜tool_calls>", "<｜tool▁calls▁begin｜>", "<｜end▁of▁sentence｜>"],
)
def test_a_marker_left_behind_a_native_call_is_not_shown(marker: str) -> None:
    out = detector().feed([*native("get_time", "{}"), Text(marker), STOP])
    assert fold(out).choices[0].text == ""


def test_blanks_before_a_marker_left_behind_stay_before_what_follows() -> None:
    stage = detector()
    out = stage.feed([*native("get_time", "{}"), Text("\n<tool_call>\n</tool_call>")]) + feed(stage, "Hello", " you")
    assert fold([*out, STOP]).choices[0].text == "\nHello you"


def test_text_around_native_calls_is_shown() -> None:
    out = detector().feed([Text("a < b"), *native("get_time", "{}"), Text("Done: `x`."), STOP])
    assert fold(out).choices[0].text == "a < bDone: `x`."


TWICE = '{"name": "get_weather", "arguments": {"city": "Paris", "days": 1}}'


def test_a_call_that_came_natively_and_as_text_is_made_once() -> None:
    came = native("get_weather", '{"days":1,"city":"Paris"}')
    for batch in ([*came, Text(TWICE), STOP], [Text(TWICE), *came, STOP]):
        folded = fold(detector().feed(batch))
        assert len(folded.choices[0].calls) == 1
        assert folded.choices[0].text == ""
        assert folded.notes == (notes.DUPLICATE,)


def test_two_equal_calls_in_text_are_two() -> None:
    assert len(fold(detector().feed([Text(TWICE + "\n" + TWICE), STOP])).choices[0].calls) == 2


def test_another_native_call_beside_text_calls_is_kept() -> None:
    folded = fold(detector().feed([Text(TWICE), *native("get_time", "{}", 1), STOP]))
    assert [call.name for call in folded.choices[0].calls] == ["get_weather", "get_time"]


@in_pieces
@pytest.mark.parametrize(
    ("begun", "rest", "left"),
    [
        (HALF, REST, "second half\n\n"),
        ('<tool_call>{"name": "get_weather", "arguments": {"ci', "</tool_call>", ""),
        ('<invoke name="get_weather"><parameter name="city">Pa', "ris</parameter></invoke> Done", "ris Done"),
        ('{"name": "get_weather", "arguments": {"city": "Pa', "", ""),
    ],
)
def test_a_call_that_has_started_ends_broken_before_a_native_one(begun: str, rest: str, left: str, size: int) -> None:
    found = run(Text(begun), *native("get_time", "{}", 1), Text(rest), size=size)
    assert (found.states, found.calls[1:]) == (["broken", "whole"], [("get_time", {})])
    assert (found.shown, found.notes) == (left, [notes.BROKEN])


@in_pieces
def test_thoughts_that_waited_behind_a_call_go_out_before_a_native_one(size: int) -> None:
    stage = detector()
    feed(stage, *(HALF[at : at + size] for at in range(0, len(HALF), size)))
    out = stage.feed([Reasoning("hm"), *native("get_time", "{}")])
    assert out == [ToolEnd(0, broken=True), Reasoning("hm"), *native("get_time", "{}")]
