"""Any answer that keeps the event rules becomes a stream that keeps the contract, cut and resumed anywhere."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.events import (
    Ending,
    Event,
    Failure,
    Finish,
    Reasoning,
    Text,
    ToolArgs,
    ToolEnd,
    ToolStart,
    Usage,
    fold,
)
from ds2d.dialects import openai_responses
from ds2d.dialects.openai_responses.custom import InputReader, unwrap, wrap
from ds2d.state.background import BackgroundResponse, replay
from tests.dialects.responses_kit import check, envelope

TOOLS = [
    {"type": "function", "name": "look", "parameters": {"type": "object"}},
    {"type": "custom", "name": "patch"},
    {"type": "namespace", "name": "space", "description": "d", "tools": [{"type": "function", "name": "go"}]},
    {"type": "local_shell"},
]
NAMES = ["look", "patch", "space__go", "local_shell"]
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
arguments = st.one_of(
    texts,
    st.just('{"command": ["ls"]}'),
    st.builds(wrap, texts),
    st.dictionaries(texts, texts, max_size=2).map(lambda value: orjson.dumps(value).decode()),
)


@st.composite
def call(draw: st.DrawFn, index: int) -> list[Event]:
    pieces = draw(st.lists(arguments, max_size=3))
    return [
        ToolStart(index, f"call_{index}", draw(st.sampled_from(NAMES))),
        *(ToolArgs(index, piece) for piece in pieces),
        ToolEnd(index, broken=draw(st.booleans())),
    ]


@st.composite
def answers(draw: st.DrawFn) -> list[Event]:
    """Events as the rules of core/events.py allow them, ended in any way, perhaps in the middle of a call."""
    events: list[Event] = []
    calls = 0
    for kind in draw(st.lists(st.sampled_from(["text", "refusal", "reasoning", "call"]), max_size=6)):
        if kind == "call":
            events += draw(call(calls))
            calls += 1
        elif kind == "reasoning":
            events += [Reasoning(text) for text in draw(st.lists(texts, min_size=1, max_size=3))]
        else:
            events += [Text(text, refusal=kind == "refusal") for text in draw(st.lists(texts, min_size=1, max_size=3))]
    cut = draw(st.booleans())
    if cut and events and type(events[-1]) is ToolEnd:
        events.pop()
    return [*events, draw(endings(cut=cut))]


@st.composite
def endings(draw: st.DrawFn, *, cut: bool) -> Event:
    usage = draw(st.none() | st.builds(Usage, st.integers(0, 99), st.integers(0, 99), st.none() | st.integers(0, 9)))
    if draw(st.booleans()):
        return Finish(
            (Ending(draw(st.sampled_from(["length", "content_filter"] if cut else ["stop", "tool_calls", "length"]))),), usage
        )
    kinds = [ErrorKind.UPSTREAM_DISCONNECTED, ErrorKind.CONTEXT_LENGTH, ErrorKind.CANCELLED, ErrorKind.TOOL_CHOICE_VIOLATION]
    return Failure(GatewayError(draw(st.sampled_from(kinds)), "It broke."), usage)


def body(**more: Any) -> dict[str, Any]:
    return {"tools": TOOLS} | more


modes = st.sampled_from(["summary", "text", "off"])
includes = st.sampled_from([[], ["reasoning.encrypted_content"]])


@given(answers(), modes, includes)
def test_every_answer_is_a_valid_stream(events: list[Event], mode: str, include: list[str]) -> None:
    made = envelope(body(include=include), settings={"responses.reasoning_events": mode}, seal=lambda text: "sealed:" + text)
    encoder = openai_responses.Encoder(made)
    data = encoder.feed(events)
    if data.startswith(b"event: error"):
        assert type(events[0]) is Failure
        assert encoder.final is None
        return
    checked = check(data)
    assert encoder.final is not None
    assert orjson.loads(encoder.final.body()) == checked.response


@given(answers(), modes, st.data())
def test_how_events_are_batched_changes_no_byte(events: list[Event], mode: str, data: st.DataObject) -> None:
    settings = {"responses.reasoning_events": mode}
    cuts = sorted(data.draw(st.lists(st.integers(0, len(events)))))
    whole = openai_responses.Encoder(envelope(body(), settings=settings)).feed(events)
    encoder = openai_responses.Encoder(envelope(body(), settings=settings))
    edges = [0, *cuts, len(events)]
    assert b"".join(encoder.feed(events[a:b]) for a, b in pairwise(edges)) == whole


@given(answers().filter(lambda events: type(events[-1]) is Finish), modes)
def test_a_whole_answer_has_the_items_of_the_stream(events: list[Event], mode: str) -> None:
    settings = {"responses.reasoning_events": mode}
    streamed = check(openai_responses.Encoder(envelope(body(), settings=settings)).feed(events)).response
    assert orjson.loads(openai_responses.render(fold(events), envelope(body(), settings=settings))) == streamed


@given(answers(), st.integers(-1, 60))
async def test_a_background_stream_resumes_anywhere_with_the_same_bytes(events: list[Event], after: int) -> None:
    made = envelope(body(background=True))
    opening = openai_responses.opening(made)
    run = BackgroundResponse("resp_1", "me", 0.0, lambda: openai_responses.queued(made), lambda _size: True)
    run.append(opening)
    encoder = openai_responses.Encoder(made)
    written = opening
    for event in events:
        data = encoder.feed([event])
        written += data
        run.append(data)
    assert run.end() == written
    check(written)
    kept = written.split(b"\n\n")[:-1]
    tail = b"".join(piece + b"\n\n" for piece in kept[min(after + 1, len(kept) - 1) :])
    assert b"".join([piece async for piece in replay(written, after)]) == tail
    assert b"".join([piece async for piece in run.follow(after)]) == tail


@given(texts.map(lambda text: text * 3), st.data())
def test_raw_input_comes_out_of_its_wrapping_however_it_is_cut(text: str, data: st.DataObject) -> None:
    for wrapped in (wrap(text), orjson.dumps({"input": text}).decode(), '{ "input" :"' + _escaped(text) + '" }'):
        assert unwrap(wrapped) == text
        cuts = sorted(data.draw(st.lists(st.integers(0, len(wrapped)), max_size=6)))
        edges = [0, *cuts, len(wrapped)]
        reader = InputReader()
        pieces = [reader.feed(wrapped[a:b]) for a, b in pairwise(edges)]
        assert "".join(pieces) + reader.finish() == text


@given(st.text(st.sampled_from('{}"\\input: \nu0dD83e')), st.data())
def test_what_is_no_proper_wrapping_is_read_the_same_however_it_is_cut(text: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    edges = [0, *cuts, len(text)]
    reader = InputReader()
    pieces = [reader.feed(text[a:b]) for a, b in pairwise(edges)]
    read = "".join(pieces) + reader.finish()
    assert read == unwrap(text)
    read.encode()  # no half of a surrogate pair


def _escaped(text: str) -> str:
    """Every character as \\u escapes, pairs included."""
    units = text.encode("utf-16-be")
    return "".join(f"\\u{units[at] << 8 | units[at + 1]:04x}" for at in range(0, len(units), 2))
