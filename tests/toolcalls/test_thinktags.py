"""`<think>` of servers without a reasoning parser (upstreams.md 4), split anywhere."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.events import Ending, Event, Failure, Finish, Reasoning, Text, ToolStart, fold
from ds2d.toolcalls import thinktags
from ds2d.toolcalls.thinktags import ThinkTags
from tests.toolcalls.corpus import cut

STOP = Finish((Ending("stop"),))

CASES = [
    (True, "Let me think.</think>Hello", "Let me think.", "Hello"),
    (True, "Let me think.</think>\n\nHello\n", "Let me think.", "Hello\n"),
    (True, "<think>Let me think.</think>Hello", "Let me think.", "Hello"),
    (True, "\n<think>\nHm</think>\r\nHello", "\n\nHm", "Hello"),
    (True, "never closed", "never closed", ""),
    (True, "a < b </thin> </think >c</think>d", "a < b </thin> </think >c", "d"),
    (True, "</think>Hello", "", "Hello"),
    (True, "Hm</think>Hello</think> again", "Hm", "Hello</think> again"),
    (True, "Hm</think>\n\n<think>more</think>\n<think>\n</think>\n</think>Hello", "Hmmore\n", "Hello"),
    (True, "<tool_call>{</think>", "", "<tool_call>{</think>"),
    (True, ' {"tool_calls": [</think>', " ", '{"tool_calls": [</think>'),
    (True, '{"tool</think><tool', '{"tool', "<tool"),
    (True, "<tool", "<tool", ""),
    (True, "Hm <think> deeper</think>Hello", "Hm <think> deeper", "Hello"),
    (True, "use `</think>` here", "use `", "` here"),
    (False, "Hello", "", "Hello"),
    (False, "<think>Hm</think>Hello", "Hm", "Hello"),
    (False, "  \n<think>Hm</think>\n\nHello", "Hm", "  \nHello"),
    (False, "Hello\n<think>\nHm\n</think>\nWorld", "", "Hello\n<think>\nHm\n</think>\nWorld"),
    (False, "To end it, print </think> on\n<think>\nits own line.", "", "To end it, print </think> on\n<think>\nits own line."),
    (False, "<think>Hm</think>Hello\n<think>", "Hm", "Hello\n<think>"),
    (False, "</think>Hello", "", "Hello"),
    (False, "</think>\n\nHello", "", "Hello"),
    (False, "Hello</think>", "", "Hello</think>"),
    (False, "The <think> tag is quoted, a < b <thi", "", "The <think> tag is quoted, a < b <thi"),
    (False, "Use `</think>` and `<think>`.", "", "Use `</think>` and `<think>`."),
    (False, "a <b> c", "", "a <b> c"),
    (False, "<thinking>x</thinking>", "", "<thinking>x</thinking>"),
]


def split(pieces: list[str], *, inside: bool) -> tuple[str, str]:
    stage = ThinkTags(inside=inside)
    events = [event for piece in pieces if piece for event in stage.feed([Text(piece)])] + stage.feed([STOP])
    assert all(event.text for event in events[:-1])  # type: ignore[union-attr]
    choice = fold(events).choices[0]
    return choice.reasoning, choice.text


@pytest.mark.parametrize(("inside", "text", "reasoning", "answer"), CASES)
def test_split_however_it_is_cut(inside: bool, text: str, reasoning: str, answer: str) -> None:
    assert split([text], inside=inside) == (reasoning, answer)
    assert split(list(text), inside=inside) == (reasoning, answer)
    for place in range(1, len(text)):
        assert split(cut(text, [place]), inside=inside) == (reasoning, answer)


@given(
    st.lists(st.sampled_from(["<think>", "</think>", "<", "think>", "</", "a", "\n", "`", "```\n", " ", "x"]), max_size=12),
    st.booleans(),
    st.data(),
)
def test_any_cut_of_any_text_is_the_same(parts: list[str], inside: bool, data: st.DataObject) -> None:
    text = "".join(parts)
    places = data.draw(st.lists(st.integers(0, len(text)), max_size=6))
    assert split(cut(text, places), inside=inside) == split([text], inside=inside)


def test_a_server_that_sends_reasoning_is_believed() -> None:
    stage = ThinkTags(inside=True)
    out = stage.feed([Reasoning("Hm"), Text("Hello </think> there"), STOP])
    assert out == [Reasoning("Hm"), Text("Hello </think> there"), STOP]


def test_nothing_but_a_beginning_of_a_tag_is_held() -> None:
    stage = ThinkTags(inside=True)
    assert stage.feed([Text("Hello </thi")]) == [Reasoning("Hello ")]
    assert stage.feed([Text("s>")]) == [Reasoning("</this>")]
    stage = ThinkTags(inside=False)
    assert stage.feed([Text(" </thi")]) == [Text(" ")]
    assert stage.feed([Text("s>")]) == [Text("</this>")]
    event = Text("plain", extra={"logprobs": 1})
    assert stage.feed([event]) == [event]


def test_other_events_go_behind_what_was_held() -> None:
    stage = ThinkTags(inside=False)
    start = ToolStart(0, "a", "f")
    assert stage.feed([Text(" <"), start]) == [Text(" "), Text("<"), start]
    refusal = Text("<think>no", refusal=True)
    assert stage.feed([refusal]) == [refusal]


def test_extras_are_kept() -> None:
    stage = ThinkTags(inside=True)
    out = stage.feed(
        [Text("Hm</think>", extra={"logprobs": {"content": [1]}}), Text("Hello", extra={"logprobs": {"content": [2]}})]
    )
    assert out == [Reasoning("Hm", extra={"logprobs": {"content": [1]}}), Text("Hello", extra={"logprobs": {"content": [2]}})]
    out = ThinkTags(inside=True).feed([Text("</think>", extra={"logprobs": {"content": [3]}}), STOP])
    assert out == [Finish((Ending("stop", extra={"logprobs": {"content": [3]}}),))]


def test_choices_are_split_apart() -> None:
    out = ThinkTags(inside=True).feed([Text("a", 0), Text("b</think>c", 1), Text("</think>d", 0)])
    assert out == [Reasoning("a", 0), Reasoning("b", 1), Text("c", 1), Text("d", 0)]


@pytest.mark.parametrize("from_outside", [True, False])
def test_a_failure_releases_what_was_held(from_outside: bool) -> None:
    stage = ThinkTags(inside=True)
    out = stage.feed([Text("Hello <th")])
    error: list[Event] = [Failure(GatewayError(ErrorKind.UPSTREAM_TIMEOUT, "x"))]
    out += stage.finish() if from_outside else stage.feed(error)[:-1]
    assert "".join(event.text for event in out if isinstance(event, Reasoning)) == "Hello <th"


class Counted(Text):
    """Text that counts the characters of every piece that is made."""

    made = 0

    def __post_init__(self) -> None:
        Counted.made += len(self.text)


ROW = "<tr><td>some cell</td></tr>\n"
STORMS = ["<", "</think>", "<think>", "</think> ", "<think> </think> ", "a </think> b\n<think>\n", "\n<", ROW]


@pytest.mark.parametrize("unit", STORMS)
@pytest.mark.parametrize("inside", [True, False])
def test_a_storm_of_tags_is_written_once(unit: str, inside: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    text = unit * 2000
    for name in ("Text", "Reasoning"):
        monkeypatch.setattr(thinktags, name, Counted)
    event = Counted(text)
    Counted.made = 0
    stage = ThinkTags(inside=inside)
    stage.feed([event])
    stage.finish()
    assert Counted.made <= len(text)
