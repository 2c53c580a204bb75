"""Events as a Gemini stream, as events or as one JSON array (gemini.md 5).

Rule: text goes out as it comes, a call when it is finished and whole; the finish reason stands on the last object of a
candidate, usage on the last of all.
Surprise: the Python SDK fails on comments, event names and end marks, so the stream holds nothing but objects; an empty line is
the only life sign.
"""

from __future__ import annotations

from typing import Any

from ds2d.core.events import Event, Failure, Finish, Reasoning, Text, ToolArgs, ToolEnd, ToolStart, Usage
from ds2d.core.request import Envelope
from ds2d.dialects.gemini.render import (
    arguments,
    call_part,
    dumps,
    error_object,
    estimate,
    finish_reason,
    finish_word,
    logprobs_result,
    reply_of,
    unquoted,
    usage_metadata,
)


class _Choice:
    """How far one candidate has come. `words`: held text of an enum answer; `thoughts`: reasoning before the first call."""

    __slots__ = ("args", "called", "frame", "head", "malformed", "start", "thoughts", "words")

    def __init__(self, index: int) -> None:
        self.head = b'{"candidates":[{"index":%d,"content":{"role":"model","parts":[{"text":' % index
        self.frame = b"data: " + self.head
        self.start: ToolStart | None = None
        self.args: list[str] = []
        self.thoughts: list[str] = []
        self.words: list[str] = []
        self.called = False
        self.malformed = False


class Encoder:
    """The stream of one answer."""

    def __init__(self, envelope: Envelope) -> None:
        self._envelope = envelope
        self._reply = reply_of(envelope)
        form = self._reply.form or envelope.settings.get("gemini.stream_default", "sse")
        self._array = form == "array"
        self.content_type = "application/json" if self._array else "text/event-stream"
        self._before = b"[" if self._array else b"data: "
        self._after = b"\n" if self._array else b"\n\n"
        self._thought = self._reply.thinking
        self._choices: dict[int, _Choice] = {}
        constant = dumps({"modelVersion": envelope.model, "responseId": envelope.new_id("")})[1:]
        self._rest = b"," + constant
        self._text_tail = b"}]}}]" + self._rest
        self._text_end = self._text_tail + self._after
        self._thought_tail = b',"thought":true' + self._text_tail

    def feed(self, batch: list[Event]) -> bytes:
        """The objects for these events, as one piece."""
        out: list[bytes] = []
        for event in batch:
            kind = type(event)
            if kind is Finish:
                self._finish(event, out)  # type: ignore[arg-type]
                continue
            if kind is Failure:
                self._fail(event, out)  # type: ignore[arg-type]
                continue
            choice = self._choices.get(event.choice) or self._new(event.choice)  # type: ignore[union-attr]
            if kind is Text:
                if self._reply.unquote:
                    choice.words.append(event.text)  # type: ignore[union-attr]
                elif event.extra is None and not self._array:  # type: ignore[union-attr]
                    out.append(choice.frame + dumps(event.text) + self._text_end)  # type: ignore[union-attr]
                elif event.extra is None:  # type: ignore[union-attr]
                    self._write(choice.head + dumps(event.text) + self._text_tail, out)  # type: ignore[union-attr]
                else:
                    self._text_with_extra(event, out)  # type: ignore[arg-type]
            elif kind is ToolArgs:
                choice.args.append(event.text)  # type: ignore[union-attr]
            elif kind is Reasoning:
                self._reason(choice, event, out)  # type: ignore[arg-type]
            elif kind is ToolStart:
                choice.start, choice.args = event, []  # type: ignore[assignment]
            elif kind is ToolEnd:
                self._call(choice, event, out)  # type: ignore[arg-type]
        return b"".join(out)

    def keep_alive(self) -> bytes:
        """An empty line: between objects it means nothing in either form."""
        return b"\n"

    def _new(self, index: int) -> _Choice:
        choice = self._choices[index] = _Choice(index)
        return choice

    def _write(self, body: bytes, out: list[bytes]) -> None:
        """One object in the stream's frame."""
        out.append(self._before + body + self._after)
        if self._array:
            self._before = b","

    def _candidate(self, index: int, parts: list[dict[str, Any]], fields: dict[str, Any], rest: bytes, out: list[bytes]) -> None:
        candidate = {"index": index, "content": {"role": "model", "parts": parts}, **fields}
        self._write(b'{"candidates":[' + dumps(candidate) + b"]" + rest, out)

    def _text_with_extra(self, event: Text, out: list[bytes]) -> None:
        """Of the fields an upstream adds, only log probabilities have a place here."""
        result = logprobs_result((event.extra or {}).get("logprobs"))
        fields = {"logprobsResult": result} if result else {}
        self._candidate(event.choice, [{"text": event.text}], fields, self._rest, out)

    def _reason(self, choice: _Choice, event: Reasoning, out: list[bytes]) -> None:
        self._thought = True
        if not choice.called:
            choice.thoughts.append(event.text)
        if self._reply.thoughts:
            self._write(choice.head + dumps(event.text) + self._thought_tail, out)

    def _call(self, choice: _Choice, event: ToolEnd, out: list[bytes]) -> None:
        start = choice.start
        args = None if event.broken or start is None else arguments("".join(choice.args))
        choice.start = None
        if start is None or args is None:
            choice.malformed = True
            return
        thoughts = "" if choice.called else "".join(choice.thoughts)
        choice.called = True
        part = call_part(start.id, start.name, args, thoughts, self._envelope.seal)
        self._candidate(event.choice, [part], {}, self._rest, out)

    def _finish(self, event: Finish, out: list[bytes]) -> None:
        usage = self._usage(event.usage)
        for index, ending in enumerate(event.endings):
            choice = self._choices.get(index) or self._new(index)
            word = finish_reason(
                ending, malformed=choice.malformed or choice.start is not None, called=choice.called, notes=event.notes
            )
            rest = self._rest if index < len(event.endings) - 1 else usage
            self._end_candidate(index, choice, word, rest, out)
        self._end(out)

    def _end_candidate(self, index: int, choice: _Choice, word: str, rest: bytes, out: list[bytes]) -> None:
        words = unquoted("".join(choice.words))
        self._candidate(index, [{"text": words}], {"finishReason": word}, rest, out)

    def _fail(self, event: Failure, out: list[bytes]) -> None:
        word = finish_word(event.error)
        if word is None:
            self._write(dumps(error_object(event.error)), out)
        else:
            usage = self._usage(event.usage)
            started = sorted(self._choices) or [0]
            for index in started:
                choice = self._choices.get(index) or self._new(index)
                self._end_candidate(index, choice, word, usage if index == started[-1] else self._rest, out)
        self._end(out)

    def _usage(self, usage: Usage | None) -> bytes:
        """The end of the last object."""
        counted = usage_metadata(usage or estimate(self._envelope), thinking=self._thought)
        return b',"usageMetadata":' + dumps(counted) + self._rest

    def _end(self, out: list[bytes]) -> None:
        """The array's last bracket; a stream of events just ends."""
        if self._array:
            out.append(b"]")
