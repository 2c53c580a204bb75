"""The stages put together: endings are true, text that was held comes out, and nothing is written after the end."""

from __future__ import annotations

import orjson
import pytest

from ds2d.core import pipeline as pipeline_module
from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.events import Ending, Event, Failure, Finish, Text, Usage
from ds2d.core.pipeline import Pipeline, Stage
from ds2d.core.sse import Record, Splitter


class Words:
    """A decoder: each record is a word, `.` is the finish, `!` a fault."""

    def __init__(self) -> None:
        self.usage: Usage | None = None
        self.answer_id: str | None = None

    def feed(self, records: list[Record]) -> list[Event]:
        events: list[Event] = []
        for record in records:
            word = record.data.decode()
            if word == "!":
                raise GatewayError(ErrorKind.UPSTREAM_GARBLED, "an unreadable event")
            events.append(Finish((Ending("stop"),), self.usage) if word == "." else Text(word))
            if word.startswith("usage"):
                self.usage = Usage(1, 2)
        return events

    def finish(self) -> list[Event]:
        return []


class Lines:
    """An encoder: a line an event."""

    content_type = "text/plain"

    def feed(self, batch: list[Event]) -> bytes:
        return b"".join(_line(event) for event in batch)

    def keep_alive(self) -> bytes:
        return b"\n"


def _line(event: Event) -> bytes:
    match event:
        case Text(text=text):
            return text.encode() + b"\n"
        case Finish(endings=endings):
            return f"<{endings[0].reason}>\n".encode()
        case Failure(error=error):
            return f"<{error.kind}>\n".encode()
    return orjson.dumps(str(event))


class Hold:
    """A stage that keeps everything until the end."""

    def __init__(self) -> None:
        self.held: list[Event] = []

    def feed(self, batch: list[Event]) -> list[Event]:
        if type(batch[-1]) in (Finish, Failure):
            out, self.held = [*self.held, *batch], []
            return out
        self.held += batch
        return []

    def finish(self) -> list[Event]:
        out, self.held = self.held, []
        return out


def pipeline(*stages: Stage) -> Pipeline:
    return Pipeline(Splitter(), Words(), list(stages), Lines())


def frames(*words: str) -> bytes:
    return b"".join(f"data: {word}\n\n".encode() for word in words)


def test_the_ending_waits_for_close() -> None:
    pipe = pipeline()
    assert pipe.feed(frames("a", "b", ".")) == b"a\nb\n"
    assert isinstance(pipe.ending, Finish)
    assert pipe.close() == b"<stop>\n"


def test_an_end_of_body_without_a_finish_is_a_failure() -> None:
    pipe = pipeline()
    assert pipe.feed(frames("a")) == b"a\n"
    assert pipe.finish() == b""
    assert pipe.close() == b"<upstream_disconnected>\n"


def test_an_unreadable_event_fails_the_answer_and_what_follows_is_ignored() -> None:
    pipe = pipeline()
    assert pipe.feed(frames("a")) == b"a\n"
    assert pipe.feed(frames("!", "b", ".")) == b""
    assert pipe.feed(frames("c")) == b"" == pipe.finish()
    assert pipe.close() == b"<upstream_garbled>\n"


def test_text_that_a_stage_held_goes_out_before_a_failure() -> None:
    pipe = pipeline(Hold())
    assert pipe.feed(frames("a", "b")) == b""
    assert pipe.fail(GatewayError(ErrorKind.UPSTREAM_TIMEOUT, "late")) == b"a\nb\n"
    assert pipe.close() == b"<upstream_timeout>\n"


def test_what_was_said_is_kept_only_while_no_usage_is_known() -> None:
    pipe = pipeline()
    pipe.feed(frames("a", "b"))
    assert pipe.said == ["a", "b"]
    pipe.feed(frames("usage", "c"))
    assert pipe.said == []
    assert pipe.usage == Usage(1, 2)


def test_comments_are_no_payload() -> None:
    pipe = pipeline()
    pipe.feed(b": keep-alive\n\n: keep-alive\n\n")
    assert pipe.records == 0
    assert not pipe.spoke
    pipe.feed(frames("a"))
    assert pipe.records == 1
    assert pipe.spoke


def test_a_stage_that_swallows_the_ending_is_a_bug_that_shows() -> None:
    class Swallow(Hold):
        def feed(self, batch: list[Event]) -> list[Event]:
            return []

    with pytest.raises(AssertionError):
        pipeline(Swallow()).feed(frames("."))


def test_an_answer_without_an_end_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline_module, "MAX_ANSWER", 100)
    pipeline = Pipeline(Splitter(), Words(), [], Lines())
    while pipeline.ending is None:
        pipeline.feed(b"data: word\n\n")
    assert isinstance(pipeline.ending, Failure)
    assert pipeline.ending.error.kind is ErrorKind.UPSTREAM_GARBLED
    assert pipeline.records == 100 // len(b"data: word\n\n")
    assert pipeline.feed(b"data: .\n\n") == b""
