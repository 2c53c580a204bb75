"""Events to this dialect's stream, and to its whole answers.

Rule: exactly one terminal event, then `[DONE]`; items open and close one after the other; a whole answer is made by the
same writers as a stream, so both have the same items.
Surprise: an answer without any text gets no message, and one without anything at all gets an empty one (section 5).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import orjson

from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.events import (
    CallPart,
    Completion,
    Ending,
    Event,
    Failure,
    Finish,
    Reasoning,
    ReasoningPart,
    Text,
    TextPart,
    ToolArgs,
    ToolEnd,
    ToolStart,
    Usage,
)
from ds2d.core.request import Envelope
from ds2d.dialects.openai_responses.failures import error_frame, stream_error
from ds2d.dialects.openai_responses.frames import DONE, KEEP_ALIVE, Frames, Silence
from ds2d.dialects.openai_responses.objects import Answer, Item, Kind, Native, Reply, Status, head, join_body, response_id
from ds2d.dialects.openai_responses.outputs import (
    ActionWriter,
    CallWriter,
    ItemStatus,
    MessageWriter,
    ReasoningWriter,
    Writer,
)

NO_USAGE = Usage(0, 0)
"""A client must get numbers (clients.md, fact 1); whoever knows better replaces the ending's usage."""

_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}
_CALL_PREFIXES: dict[Kind, str] = {
    "function": "fc_",
    "custom": "ctc_",
    "local_shell": "lsh_",
    "shell": "sh_",
    "apply_patch": "apc_",
}


class Encoder:
    """The stream of one answer. `final` is the ended response, for the store; it is `request.reply.answer` as well."""

    content_type = "text/event-stream; charset=utf-8"

    def __init__(self, envelope: Envelope, frames: Frames | None = None) -> None:
        reply: Reply = envelope.request.reply
        self._envelope = envelope
        self._reply = reply
        self._frames = frames or Frames(response_id(envelope), reply.opened)
        self._mode = str(envelope.settings.get("responses.reasoning_events", "summary"))
        self._seal = envelope.seal if reply.encrypted else None
        self._opened = False
        self._writer: Writer | None = None
        self._live: type[Event] | None = None  # the kind of event whose text goes straight to the open writer
        self._items: list[bytes] = []
        self._ids: list[str] = []
        self._memory: list[bytes] = []
        self.final: Answer | None = None
        if reply.opened:
            reply.encoder = self

    def feed(self, batch: list[Event]) -> bytes:
        """Take the events of one read; return whole frames."""
        for event in batch:
            kind = type(event)
            plain = kind is not Text or not (event.refusal or event.extra)  # type: ignore[union-attr]
            if kind is self._live and plain and not event.choice:  # type: ignore[union-attr]
                self._writer.feed(event.text)  # type: ignore[union-attr]
            else:
                self._take(event)
        return self._frames.take()

    def keep_alive(self) -> bytes:
        """A comment: allowed between frames."""
        return KEEP_ALIVE

    def snapshot(self) -> Answer:
        """The response as it is now, with what has come of the open item."""
        if self.final is not None:
            return self.final
        items, ids = list(self._items), list(self._ids)
        if self._writer is not None and self._writer.shown:
            items.append(orjson.dumps(self._writer.partial()))
            ids.append(self._writer.id)
        status: Status = "in_progress" if self._opened else "queued"
        return Answer(response_id(self._envelope), status, head(self._envelope, status), tuple(items), tuple(ids), ())

    def _take(self, event: Event) -> None:
        if type(event) is Failure:
            self._fail(event)
            return
        self._open()
        if type(event) is Finish:
            self._finish(event)
        elif not event.choice:  # type: ignore[union-attr]  # one answer is all this dialect has
            self._say(event)

    def _say(self, event: Event) -> None:
        match event:
            case Text(text=text, refusal=refusal, extra=extra):
                self._text(text, refusal=refusal, extra=extra)
            case Reasoning(text=text):
                if not isinstance(self._writer, ReasoningWriter):
                    self._start(self._reasoning_writer())
                    self._live = Reasoning
                self._feed(text)
            case ToolStart(id=call_id, name=name):
                self._start(self._call_writer(call_id, name))
                self._live = ToolArgs
            case ToolArgs(text=text):
                self._feed(text)
            case ToolEnd(broken=broken):
                self._close("incomplete" if broken else "completed")

    def _text(self, text: str, *, refusal: bool, extra: Mapping[str, Any] | None) -> None:
        writer = self._writer
        if not isinstance(writer, MessageWriter):
            writer = MessageWriter(self._frames, self._envelope.new_id("msg_"), self._next_index())
            self._start(writer)
        writer.begin(refusal=refusal)
        self._live = None if refusal else Text
        scored = logprobs(extra) if self._reply.logprobs and extra and not refusal else []
        if scored:
            writer.feed_scored(text, scored)
        else:
            writer.feed(text)

    def _reasoning_writer(self) -> ReasoningWriter:
        index = self._next_index()
        return ReasoningWriter(self._frames, self._envelope.new_id("rs_"), index, self._mode, self._seal)

    def _call_writer(self, call_id: str, name: str) -> Writer:
        native = self._reply.natives.get(name) or Native("function", name)
        place = (self._frames, self._envelope.new_id(_CALL_PREFIXES[native.kind]), self._next_index(), call_id, native)
        return CallWriter(*place) if native.kind in ("function", "custom") else ActionWriter(*place)

    def _open(self) -> None:
        """Announce the response, once. A background response was announced when it was queued."""
        if self._opened:
            return
        self._opened = True
        body = join_body(head(self._envelope, "in_progress"), b"[]")
        if not self._reply.opened:
            self._frames.lifecycle("response.created", _created(self._envelope, "in_progress"), body)
        self._frames.lifecycle("response.in_progress", {}, body)

    def _next_index(self) -> int:
        """The place of a new item, once the open one is closed."""
        self._close("completed")
        return len(self._items)

    def _start(self, writer: Writer) -> None:
        self._writer = writer
        writer.open()

    def _feed(self, text: str) -> None:
        if self._writer is not None:
            self._writer.feed(text)

    def _close(self, status: ItemStatus) -> None:
        writer, self._writer, self._live = self._writer, None, None
        if writer is None:
            return
        item, memory = writer.close(status)
        self._memory.append(memory)
        if writer.shown:
            self._items.append(item)
            self._ids.append(writer.id)

    def _finish(self, event: Finish) -> None:
        cause = _INCOMPLETE.get(event.reason)
        in_call = isinstance(self._writer, CallWriter | ActionWriter)
        self._close("incomplete" if cause or in_call else "completed")
        if not self._items:
            self._empty_message("incomplete" if cause else "completed")
        status: Status = "incomplete" if cause else "completed"
        usage = event.usage or self._envelope.usage() or NO_USAGE
        self._end(status, head(self._envelope, status, usage=usage, incomplete=cause))

    def _empty_message(self, status: ItemStatus) -> None:
        writer = MessageWriter(self._frames, self._envelope.new_id("msg_"), self._next_index())
        self._start(writer)
        writer.begin(refusal=False)
        self._close(status)

    def _fail(self, event: Failure) -> None:
        error = event.error
        if error.kind is ErrorKind.TOOL_CHOICE_VIOLATION:
            self._open()  # the reference answers this one with response.failed in any case
        if not (self._opened or self._reply.opened):
            self._frames.raw(error_frame(error, self._frames.number))
            return
        self._close("incomplete")
        status: Status = "cancelled" if error.kind is ErrorKind.CANCELLED else "failed"
        self._end(status, head(self._envelope, status, usage=event.usage, error=stream_error(error)))

    def _end(self, status: Status, top: bytes) -> None:
        answer = Answer(response_id(self._envelope), status, top, tuple(self._items), tuple(self._ids), tuple(self._memory))
        self.final = self._reply.answer = answer
        self._reply.encoder = None  # no ring of references: the question may be large
        kind = "failed" if status == "cancelled" else status
        self._frames.lifecycle(f"response.{kind}", {}, answer.body())
        self._frames.raw(DONE)


def opening(envelope: Envelope) -> bytes:
    """The first frames of a background response, before anybody works on it: created, queued. Encoders go on from there."""
    reply: Reply = envelope.request.reply
    frames = Frames(response_id(envelope), 0)
    body = join_body(head(envelope, "queued"), b"[]")
    frames.lifecycle("response.created", _created(envelope, "queued"), body)
    frames.lifecycle("response.queued", {}, body)
    reply.opened = frames.number
    return frames.take()


def queued(envelope: Envelope) -> Answer:
    """A background response that nobody works on yet: what its POST answers."""
    return Answer(response_id(envelope), "queued", head(envelope, "queued"), (), (), ())


def fail(envelope: Envelope, error: GatewayError) -> bytes:
    """The last frames of a background answer that ends outside of its pipeline, numbered on from what was written so far.

    Nothing if the answer has ended already.
    """
    reply: Reply = envelope.request.reply
    if reply.answer is not None:
        return b""
    encoder = reply.encoder or Encoder(envelope)
    return encoder.feed([Failure(error)])


def abandoned(last: Answer, number: int, error: GatewayError) -> tuple[Answer, bytes]:
    """The end of a background response whose question nobody has any more: failed, from the last state that is known of it.
    `number` is that of its next event."""
    top = orjson.dumps(orjson.loads(last.head) | {"status": "failed", "error": stream_error(error)})
    ended = msgspec.structs.replace(last, status="failed", head=top)
    frames = Frames(last.id, number)
    frames.lifecycle("response.failed", {}, ended.body())
    frames.raw(DONE)
    return ended, frames.take()


def answer(completion: Completion, envelope: Envelope) -> Answer:
    """The response object of a whole answer; also left in `request.reply.answer`. Raises the failure of a failed one."""
    if completion.failure is not None:
        raise completion.failure
    encoder = Encoder(envelope, Silence(response_id(envelope), 0))
    encoder.feed(_events(completion))
    return encoder.snapshot()


def render(completion: Completion, envelope: Envelope) -> bytes:
    """The body of a non-streamed answer."""
    return answer(completion, envelope).body()


def render_count(tokens: int) -> bytes:
    """The body of an input_tokens answer."""
    return orjson.dumps({"object": "response.input_tokens", "input_tokens": tokens})


def _events(completion: Completion) -> list[Event]:
    """The folded answer as events again, one a part."""
    events: list[Event] = []
    if not completion.choices:
        return [Finish((Ending("stop"),), completion.usage)]
    choice = completion.choices[0]
    extra = choice.extra if choice.extra.get("logprobs") else None
    for index, part in enumerate(choice.parts):
        if type(part) is CallPart:
            events += [ToolStart(index, part.id, part.name), ToolArgs(index, part.arguments)]
            if part.ended:
                events.append(ToolEnd(index, broken=part.broken))
        elif type(part) is ReasoningPart:
            events.append(Reasoning(part.text))
        elif type(part) is TextPart:
            events.append(Text(part.text, refusal=part.refusal, extra=extra))
            extra = None
    return [*events, Finish((choice.ending or Ending("stop"),), completion.usage)]


def logprobs(extra: Mapping[str, Any]) -> list[Item]:
    """Token scores of chat form as this dialect has them: `bytes` is never null here."""
    given = extra.get("logprobs")
    content = given.get("content") if isinstance(given, dict) else None
    scored = [(entry, _entries(entry.get("top_logprobs"))) for entry in _entries(content)]
    return [_score(entry) | {"top_logprobs": [_score(top) for top in tops]} for entry, tops in scored]


def _entries(given: Any) -> list[Item]:
    """What can be read of a list of scores: a server's own idea of them is no reason to lose its answer."""
    return [entry for entry in given if isinstance(entry, dict)] if isinstance(given, list) else []


def _score(entry: Mapping[str, Any]) -> Item:
    return {"token": entry.get("token", ""), "logprob": entry.get("logprob", 0.0), "bytes": entry.get("bytes") or []}


def _created(envelope: Envelope, status: Status) -> dict[str, str]:
    """What the reference's first event has at its top level."""
    return {"id": response_id(envelope), "status": status}
