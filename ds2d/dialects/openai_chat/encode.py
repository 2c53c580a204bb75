"""Events as chunks of a chat stream (openai-chat.md 6).

Rule: a chunk is a prepared head, one JSON string and a prepared tail; per choice the role comes first, then reasoning, then
the rest, then the finish, and nothing after it.
Surprise: the format has no place for reasoning after text, and models that think again lose that part here; blank text before
the reasoning (a newline after `<think>`) must not count as text, so it waits.
"""

from __future__ import annotations

from typing import Any

import orjson

from ds2d.core.errors import GatewayError
from ds2d.core.events import Ending, Event, Extra, Failure, Finish, Reasoning, Text, ToolArgs, ToolStart, Usage
from ds2d.core.openai_shape import closing_chunks, ended_choice, error_body, parted, usage_object
from ds2d.core.request import ChatRequest, Envelope
from ds2d.dialects.openai_chat.reply import Reply

dumps = orjson.dumps


class _Choice:
    """How far one choice has come. `spoke`: text or a call went out, so reasoning has no place any more."""

    __slots__ = ("args", "called", "held", "reasoning", "spoke", "text")

    def __init__(self, before: bytes) -> None:
        self.text = before + b'{"content":'
        self.reasoning = before + b'{"reasoning_content":'
        self.args = b""
        self.spoke = False
        self.called = False
        self.held: list[Text] = []


class Encoder:
    """The stream of one chat answer."""

    content_type = "text/event-stream; charset=utf-8"

    def __init__(self, envelope: Envelope) -> None:
        self._envelope = envelope
        reply = envelope.request.reply
        self._reply: Reply = reply if isinstance(reply, Reply) else Reply()
        self._both = self._reply.both_names or envelope.reasoning_field == "both"
        self._scored = wants_scores(envelope.request)
        self._choices: dict[int, _Choice] = {}
        constant: dict[str, Any] = {
            "id": envelope.new_id("chatcmpl-"),
            "object": "chat.completion.chunk",
            "created": envelope.created,
            "model": envelope.model,
        }
        if self._reply.tiered:
            constant["service_tier"] = "default"
        self._head = b"data: " + dumps(constant)[:-1]
        self._close(b',"usage":null}\n\n' if self._reply.include_usage else b"}\n\n")

    def feed(self, batch: list[Event]) -> bytes:
        """The chunks for these events, as one piece."""
        if self._reply.running_usage:
            self._refresh()
        out: list[bytes] = []
        for event in batch:
            kind = type(event)
            if kind is Finish:
                self._finish(event, out)  # type: ignore[arg-type]
                continue
            if kind is Failure:
                out.append(self._failure(event.error))  # type: ignore[union-attr]
                continue
            choice = self._choices.get(event.choice) or self._begin(event.choice, out)  # type: ignore[union-attr]
            if kind is Text:
                if choice.spoke and event.extra is None and not event.refusal:  # type: ignore[union-attr]
                    out.append(choice.text + dumps(event.text) + self._tail)  # type: ignore[union-attr]
                else:
                    self._text(choice, event, out)  # type: ignore[arg-type]
            elif kind is ToolArgs:
                if choice.args:
                    out.append(choice.args + dumps(event.text) + self._args_tail)  # type: ignore[union-attr]
            elif kind is Reasoning:
                self._reason(choice, event, out)  # type: ignore[arg-type]
            elif kind is ToolStart:
                self._call(choice, event, out)  # type: ignore[arg-type]
        return b"".join(out)

    def keep_alive(self) -> bytes:
        """A comment: safe in this dialect."""
        return b": keep-alive\n\n"

    def _refresh(self) -> None:
        """The running usage stands on every chunk from here on (vLLM's `continuous_usage_stats`)."""
        usage = self._envelope.usage()
        self._close(b',"usage":' + (dumps(usage_object(usage)) if usage else b"null") + b"}\n\n")

    def _close(self, end: bytes) -> None:
        """`end` is what comes after the choices of a chunk."""
        self._end = end
        self._tail = b'},"finish_reason":null,"logprobs":null}]' + end
        self._args_tail = (b"}" if self._reply.legacy else b"}}]") + self._tail

    def _before(self, index: int) -> bytes:
        return self._head + b',"choices":[{"index":%d,"delta":' % index

    def _begin(self, index: int, out: list[bytes]) -> _Choice:
        """The first chunks of this choice and of all before it that have none yet. The SDK's helper takes a new choice for what
        comes next in its list, whatever index it has, and puts the text of one into another."""
        for number in range(len(self._choices), index + 1):
            before = self._before(number)
            out.append(before + b'{"role":"assistant","content":""' + self._tail)
            self._choices[number] = _Choice(before)
        return self._choices[index]

    def _delta(self, index: int, delta: dict[str, Any], extra: Extra | None) -> bytes:
        """A chunk with fields besides the delta: the slow way."""
        beside, inside = parted(scored(extra, self._scored))
        body = {"logprobs": None, **beside, "index": index, "delta": {**inside, **delta}, "finish_reason": None}
        return self._head + b',"choices":[' + dumps(body) + b"]" + self._end

    def _text(self, choice: _Choice, event: Text, out: list[bytes]) -> None:
        """Text that is not plain: a refusal, one with extras, or one before which reasoning may still come."""
        if not choice.spoke:
            if event.text.isspace():
                choice.held.append(event)
                return
            self._release(choice, out)
        if event.extra is None and not event.refusal:
            out.append(choice.text + dumps(event.text) + self._tail)
        else:
            out.append(self._delta(event.choice, {"refusal" if event.refusal else "content": event.text}, event.extra))

    def _release(self, choice: _Choice, out: list[bytes]) -> None:
        """Reasoning has no place from here on."""
        choice.spoke = True
        held, choice.held = choice.held, []
        for event in held:
            self._text(choice, event, out)

    def _reason(self, choice: _Choice, event: Reasoning, out: list[bytes]) -> None:
        if choice.spoke:
            return
        if event.extra is None and not self._both:
            out.append(choice.reasoning + dumps(event.text) + self._tail)
            return
        delta = {"reasoning_content": event.text}
        if self._both:
            delta["reasoning"] = event.text
        out.append(self._delta(event.choice, delta, event.extra))

    def _call(self, choice: _Choice, event: ToolStart, out: list[bytes]) -> None:
        self._release(choice, out)
        before = self._before(event.choice)
        function = {"name": event.name, "arguments": ""}
        if self._reply.legacy and choice.called:
            choice.args = b""  # the older form has room for one call
        elif self._reply.legacy:
            choice.args = before + b'{"function_call":{"arguments":'
            out.append(before + b'{"function_call":' + dumps(function) + self._tail)
        else:
            choice.args = before + b'{"tool_calls":[{"index":%d,"function":{"arguments":' % event.index
            call = {"index": event.index, "id": event.id, "type": "function", "function": function}
            out.append(before + b'{"tool_calls":' + dumps([call]) + self._tail)
        choice.called = True

    def _finish(self, event: Finish, out: list[bytes]) -> None:
        choices = []
        for index, ending in enumerate(event.endings):
            choice = self._choices.get(index) or self._begin(index, out)
            self._release(choice, out)
            reason = finish_reason(ending, choice.called, self._reply.legacy)
            beside, inside = parted(scored(ending.extra, self._scored))
            choices.append(ended_choice(beside, ending, {"index": index, "delta": inside, "finish_reason": reason}))
        usage = event.usage or self._estimate()
        out.append(closing_chunks(self._head, choices, event, usage, self._end, own_chunk=self._reply.include_usage))

    def _estimate(self) -> Usage:
        """Usage is never left out; the service counts it, so this is for turns without a service around them."""
        return Usage(self._envelope.prompt_tokens(), 0, source="counted")

    def _failure(self, error: GatewayError) -> bytes:
        """The error frame, and no end mark: the SDK takes a bare end for success (openai-chat.md 6)."""
        return b"data: " + error_body(error) + b"\n\n"


def wants_scores(request: ChatRequest) -> bool:
    """Whether the client asked for log probabilities."""
    return bool(request.params.get("logprobs"))


def scored(extra: Extra | None, wanted: bool) -> Extra | None:
    """An upstream's fields of a choice with log probabilities in full, or without: null where nobody asked (openai-chat.md 5)."""
    if extra is None or "logprobs" not in extra:
        return extra
    given = extra["logprobs"]
    if not wanted:
        return {name: value for name, value in extra.items() if name != "logprobs"}
    return {**extra, "logprobs": {"content": None, "refusal": None, **given}} if isinstance(given, dict) else extra


def finish_reason(ending: Ending, called: bool, legacy: bool) -> str:
    """`tool_calls` exactly where there are calls; `function_call` for clients of the older form (openai-chat.md 5)."""
    if called and ending.reason in ("stop", "tool_calls"):
        return "function_call" if legacy else "tool_calls"
    return "stop" if ending.reason == "tool_calls" else ending.reason
