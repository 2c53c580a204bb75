"""Tool calls in text, whatever the text and however it arrives: the rules of toolcalls.md 2 and 3 as properties.

The texts are made of everything that means something to some format, in any order: a stream of markers begun, nested
wrongly, quoted and never closed. Most mean no call; what matters is that all ways of reading them agree.
"""

from __future__ import annotations

import json
import random
import re
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from ds2d.core.events import Ending, Event, Finish, Reasoning, Text, ToolArgs, ToolEnd, ToolStart, fold
from ds2d.toolcalls import notes
from ds2d.toolcalls.declared import Declared
from ds2d.toolcalls.json_reader import JsonReader
from ds2d.toolcalls.native import NativeCalls
from tests.property.rules import assert_rules
from tests.toolcalls.corpus import TOOLS, Outcome, cut, events_of, outcome, push, stages
from tests.toolcalls.drift import TAGGED, drifted
from tests.toolcalls.written import WRITERS, draw_call, draw_innocent, draw_prose, write

FRAGMENTS = (
    "<tool_call>",
    "</tool_call>",
    "<tool_calls>",
    "</tool_calls>",
    "<function_call>",
    "</function_call>",
    "<tool_use>",
    "<｜DSML｜tool_calls>",
    "</｜DSML｜tool_calls>",
    "<｜DSML｜ calls>",
    '<｜DSML｜invoke name="get_time">',
    '<｜DSML｜invoke name="search">',
    "</｜DSML｜invoke>",
    '<｜DSML｜parameter name="query" string="true">',
    "</｜DSML｜parameter>",
    "<dsml-tool-calls>",
    '<invoke name="search">',
    "</invoke>",
    '<parameter name="query">',
    '<parameter name="limit">',
    "</parameter>",
    '<invoke name="get_time"/>',
    "<｜tool▁calls▁begin｜>",
    "<｜tool▁call▁begin｜>",
    "get_time",
    "<｜tool▁sep｜>",
    "<｜tool▁call▁end｜>",
    "<｜tool▁calls▁end｜>",
    '{"name": "get_time", "arguments": {}}',
    '{"name": "get_time", "arguments": {',
    '{"name": "search", "arguments": {"query": "',
    '{"arguments": {"query": "a"}, "name": "search"}',
    '{"tool_calls": [',
    '{"role": "assistant", ',
    '"role": "x", ',
    '"function": {',
    '"name"',
    '"arguments"',
    "function.name: get_time\n",
    "function.arguments: ",
    "function",
    "{}",
    '{"query": "x"}',
    '{"query": ',
    "}",
    "{",
    "[",
    "]",
    '"',
    '"}}',
    "}}",
    ",",
    ":",
    "\\",
    '\\"',
    "\\u12",
    "null",
    "1",
    "true",
    "```",
    "```json\n",
    "````",
    "~~~",
    "`",
    "``",
    "\n",
    "\n\n",
    " ",
    "> ",
    "- ",
    "<![CDATA[",
    "]]>",
    "&lt;",
    "<name>",
    "</name>",
    "<parameters>",
    "</parameters>",
    "<query>",
    "</query>",
    "</think>",
    "<",
    ">",
    "|",
    "search",
    "nope",
    "text",
    "Paris",
    "é",
    "🚀",
)
TEXTS = st.lists(st.sampled_from(FRAGMENTS), min_size=1, max_size=24).map("".join)
SEEDS = st.integers(0, 2**32)
MARKUP = re.compile(r"tool▁|DSML|<tool_call|</?(\w+:)?invoke|</?(\w+:)?parameter|function\.(name|arguments):|\"tool_calls\"")


def read(text: str, places: Any = (), **settings_: Any) -> tuple[Outcome, list[Event]]:
    events = events_of(cut(text, places), Text, Ending("stop"), stages(**settings_))
    return outcome(events), events


@settings(max_examples=400)
@given(TEXTS, st.data())
@example("a````{" + '"name": "get_time", "arguments": {}} ```json\nend', None)
@example('<tool_call>{"name": "get_time", "arguments": {}} ``,<tool_call>', None)
@example(' ```json\n{"name": "get_time", "arguments": {}}{}````<｜DSML｜tool_calls>', None)
@example('`<｜DSML｜invoke name="search">{"query": "a"}``</｜DSML｜invoke>`', None)
@example('<function_call>{"arguments": {"query": "a"}, "name": "search"}````', None)
def test_any_text_means_the_same_however_it_is_cut(text: str, data: st.DataObject | None) -> None:
    places = range(len(text)) if data is None else data.draw(st.lists(st.integers(0, len(text)), max_size=10))
    whole, events = read(text)
    assert_rules(events)
    assert read(text, places)[0] == whole
    assert read(text, range(0, len(text), 3))[0] == whole


SHORT_TEXTS = st.lists(st.sampled_from([*FRAGMENTS, "</｜DSML｜par", "<｜DSML｜inv", "</div"]), min_size=1, max_size=7).map(
    "".join
)
NATIVE = ToolStart(0, "native", "search"), ToolArgs(0, '{"query": "n"}'), ToolEnd(0)
PART = st.builds(Text, SHORT_TEXTS) | st.builds(Reasoning, SHORT_TEXTS) | st.just(NATIVE) | st.just(Text("no", refusal=True))


@settings(max_examples=400)
@given(
    st.lists(PART, min_size=2, max_size=5), st.sampled_from(["stop", "content_filter"]), st.sampled_from(["high", "low", "off"])
)
@example(
    [Text("<function_call>"), Reasoning("1<![CDATA["), Text('{"arguments": {}, "name": "search"}}</div'), Text("x")],
    "stop",
    "low",
)
def test_what_comes_between_means_the_same_however_it_is_cut(parts: list[Any], finish: Any, confidence: str) -> None:
    """Thoughts, native calls and refusals in the middle of calls."""
    found = []
    for size in (1, 3, 1000):
        line = stages(confidence=confidence)
        out: list[Event] = []
        for part in parts:
            if isinstance(part, tuple) or (isinstance(part, Text) and part.refusal):
                events = list(part) if isinstance(part, tuple) else [part]
            else:
                events = [type(part)(part.text[at : at + size]) for at in range(0, len(part.text), size)]
            for event in events:
                out += push(line, [event])
        out += push(line, [Finish((Ending(finish),))])
        assert_rules(out)
        found.append(outcome(out))
    assert found == found[:1] * 3


@settings(max_examples=300)
@given(TEXTS)
def test_early_and_late_give_the_same_calls(text: str) -> None:
    """Except where an early start turned out broken: then the text is shown in the other modes, and may be read on."""
    early, _ = read(text, range(0, len(text), 4))
    late, _ = read(text, range(0, len(text), 5), confidence="off")
    buffered, _ = read(text, range(0, len(text), 6), mode="buffered")
    assert late == buffered
    assert set(late.states) <= {"whole"}
    if "broken" not in early.states:
        assert early == late


@settings(max_examples=300)
@given(TEXTS)
def test_text_without_calls_is_not_lost(text: str) -> None:
    found, _ = read(text, range(0, len(text), 7))
    if not found.calls and notes.UNDECLARED not in found.notes and found.fails is None:
        assert found.shown == text


@settings(max_examples=300)
@given(st.sampled_from(sorted(WRITERS)), SEEDS, st.data())
def test_calls_of_every_format_are_read_as_they_are_meant(name: str, seed: int, data: st.DataObject) -> None:
    draw = random.Random(seed)
    calls = [draw_call(draw) for _ in range(draw.randint(1, 3))]
    before = draw_prose(draw)
    text = (f"{before}\n" if before else "") + write(name, calls, draw)
    found, events = read(text, data.draw(st.lists(st.integers(0, len(text)), max_size=20)))
    assert_rules(events)
    assert found.calls == calls
    assert found.shown.strip() == before.strip()
    assert MARKUP.sub("", found.shown) == found.shown or MARKUP.search(before)


@settings(max_examples=300)
@given(SEEDS, st.data())
def test_innocent_texts_come_out_as_they_went_in(seed: int, data: st.DataObject) -> None:
    text = draw_innocent(random.Random(seed))
    found, _ = read(text, data.draw(st.lists(st.integers(0, len(text)), max_size=20)))
    assert (found.calls, found.shown) == ([], text)


@settings(max_examples=100)
@given(st.sampled_from(TAGGED), st.integers(0, 3), SEEDS, st.data())
def test_drifted_shells_mean_one_thing_however_they_are_cut(name: str, shape: int, pick: int, data: st.DataObject) -> None:
    drifts = list(drifted(name, shape))
    text = drifts[pick % len(drifts)].text
    assert read(text, data.draw(st.lists(st.integers(0, len(text)), max_size=10)))[0] == read(text)[0]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(max_size=5), JSON, max_size=4), st.sampled_from([None, 0, 2]), st.booleans(), st.data())
def test_arguments_pass_verbatim_whatever_the_cut(
    value: dict[str, Any], indent: int | None, ascii_only: bool, data: st.DataObject
) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    reader = JsonReader()
    out = ""
    for piece in cut(text, data.draw(st.lists(st.integers(0, len(text)), max_size=12))):
        out += reader.feed(piece)
        assert text.startswith(out)
    assert reader.done
    assert out == text


@given(
    st.lists(st.sampled_from([*'{}[]":,\\ \n1ae-', '"a"', "true", "\\u", '{"a":', "k:", '"x":1']), max_size=24).map("".join),
    st.data(),
)
def test_whatever_was_mended_parses(body: str, data: st.DataObject) -> None:
    text = '{"a":' + body
    reader, out = JsonReader(), ""
    for piece in cut(text, data.draw(st.lists(st.integers(0, len(text)), max_size=6))):
        if not reader.over():
            out += reader.feed(piece)
    closers = None if reader.over() else reader.finish()
    if reader.done:
        json.loads(out + (closers or ""))
    else:
        assert closers is None


@given(st.sampled_from(['{"city": "Paris", "days": 3}', '{"city":"x","unit":[{"a":1}]}']), st.integers(0, 4), st.data())
def test_native_arguments_parse_or_are_marked(arguments: str, lost: int, data: st.DataObject) -> None:
    """A server's parser may lose the end of streamed arguments (upstreams.md 1.6)."""
    sent = arguments[: len(arguments) - lost]
    events: list[Event] = [ToolStart(0, "id", "get_weather")]
    events += [ToolArgs(0, piece) for piece in cut(sent, data.draw(st.lists(st.integers(0, len(sent)), max_size=6)))]
    events += [ToolEnd(0), Finish((Ending("tool_calls"),))]
    call = fold(NativeCalls(Declared(TOOLS)).feed(events)).choices[0].calls[0]
    assert call.ended
    assert call.arguments.startswith(sent)
    if not call.broken:
        assert json.loads(call.arguments)["city"]
    if not lost:
        assert (call.arguments, call.broken) == (arguments, False)
