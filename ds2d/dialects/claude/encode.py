"""Events become a stream of messages events (anthropic-messages.md 6).

Rule: blocks never overlap and every delta names the open one; a call's `partial_json` joins to an object, or the stream ends
in an error; nothing follows the ending.
Surprise: whether arguments that do not parse are a fault or were cut by the token limit is known only from what comes next,
so the end of such a call waits for the next event.
"""

from __future__ import annotations

from typing import Any, Final

import orjson

from ds2d.core.errors import GatewayError
from ds2d.core.events import Event, Failure, Finish, Reasoning, Text, ToolArgs, ToolEnd, ToolStart, Usage
from ds2d.core.request import Envelope
from ds2d.dialects.claude.arguments import is_beginning, missing_end
from ds2d.dialects.claude.render import CUTTING, broken_arguments, message, render_error, reply_of, stop_fields, usage_fields

_PING = b'event: ping\ndata: {"type":"ping"}\n\n'
_COMMENT = b": keep-alive\n\n"
_STOP = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
_END_OF_DELTA = b"}}\n\n"

_NONE: Final = 0
_TEXT: Final = 1
_THINKING: Final = 2
_CALL: Final = 3


class Encoder:
    """One streamed answer. After the ending it writes nothing more."""

    content_type = "text/event-stream"

    def __init__(self, envelope: Envelope) -> None:
        self._envelope = envelope
        self._reply = reply_of(envelope)
        self._shown = self._reply.thinking == "shown"
        self._started = False
        self._ended = False
        self._called = False
        self._refused = False
        self._open = _NONE
        self._index = -1
        self._head = b""  # of the open block's deltas
        self._name = ""
        self._arguments: list[str] = []
        self._in_doubt = False  # the open call has ended, but what it says is no object
        self._broken = False
        self._failure: GatewayError | None = None

    def feed(self, batch: list[Event]) -> bytes:
        """Take the events of one read; return their frames."""
        out: list[bytes] = []
        if not self._started and type(batch[0]) is not Failure:
            self._start(out)
        for event in batch:
            kind = type(event)
            if kind is Finish or kind is Failure:
                self._end(out, event)  # type: ignore[arg-type]
                continue
            if self._in_doubt and not self._end_doubt(out):
                continue
            if kind is Text:
                self._refused |= event.refusal  # type: ignore[union-attr]
                if self._open != _TEXT:
                    self._open_block(out, _TEXT, {"type": "text", "text": ""}, b'"text_delta","text":')
                out += (self._head, orjson.dumps(event.text), _END_OF_DELTA)  # type: ignore[union-attr]
            elif kind is Reasoning:
                if self._open != _THINKING:
                    self._start_thinking(out)
                if self._shown:
                    out += (self._head, orjson.dumps(event.text), _END_OF_DELTA)  # type: ignore[union-attr]
            elif kind is ToolArgs:
                self._arguments.append(event.text)  # type: ignore[union-attr]
                out += (self._head, orjson.dumps(event.text), _END_OF_DELTA)  # type: ignore[union-attr]
            elif kind is ToolStart:
                self._start_call(out, event)  # type: ignore[arg-type]
            else:
                self._end_call(out, event)  # type: ignore[arg-type]
        return b"".join(out)

    def keep_alive(self) -> bytes:
        """A ping once the message has begun; before that only a comment is allowed."""
        if self._ended:
            return b""
        return _PING if self._started else _COMMENT

    def settle(self, ending: Finish | Failure) -> Finish | Failure:
        """The ending as this dialect can tell it: a success whose last call has no usable `input` is a failure."""
        if isinstance(ending, Failure):
            return ending
        error = self._failure
        if error is None and self._open == _CALL and not self._passes(cut=ending.reason in CUTTING):
            error = broken_arguments(self._name)
        return Failure(error, ending.usage) if error else ending

    def _passes(self, *, cut: bool) -> bool:
        """Whether the arguments of the open call may end here. `cut`: by a limit, which excuses a missing end."""
        text = "".join(self._arguments)
        return is_beginning(text) if cut else not self._broken and missing_end(text) is not None

    def _start(self, out: list[bytes]) -> None:
        self._started = True
        known = self._envelope.usage()
        prompt = Usage(known.prompt, 0, cached=known.cached) if known else Usage(self._envelope.prompt_tokens(), 0)
        opening = message(self._envelope, usage_fields(prompt), [])
        out += (_frame("message_start", {"message": opening}), _PING)

    def _start_thinking(self, out: list[bytes]) -> None:
        if self._reply.thinking != "hidden":
            block = {"type": "thinking", "thinking": "", "signature": ""}
            self._open_block(out, _THINKING, block, b'"thinking_delta","thinking":')

    def _start_call(self, out: list[bytes], event: ToolStart) -> None:
        self._called = True
        self._arguments, self._broken = [], False
        name = self._reply.names.get(event.name, event.name)
        block = {"type": "tool_use", "id": event.id, "name": name, "input": {}}
        self._open_block(out, _CALL, block, b'"input_json_delta","partial_json":')
        self._name = name

    def _end_call(self, out: list[bytes], event: ToolEnd) -> None:
        self._broken = event.broken
        if event.broken or missing_end("".join(self._arguments)) != "":
            self._in_doubt = True
        else:
            self._close_block(out)

    def _end_doubt(self, out: list[bytes]) -> bool:
        """The answer goes on behind the call, or ended without a limit: its arguments had to be whole. False if they cannot be,
        now and for all that follows."""
        if self._failure is not None or not self._passes(cut=False):
            self._failure = self._failure or broken_arguments(self._name)
            return False
        self._in_doubt = False
        if lacks := missing_end("".join(self._arguments)):
            out += (self._head, orjson.dumps(lacks), _END_OF_DELTA)
        self._close_block(out)
        return True

    def _open_block(self, out: list[bytes], kind: int, block: dict[str, Any], delta: bytes) -> None:
        self._close_block(out)
        self._open = kind
        self._index += 1
        out.append(_frame("content_block_start", {"index": self._index, "content_block": block}))
        self._head = (
            b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":{"type":' % self._index + delta
        )

    def _close_block(self, out: list[bytes]) -> None:
        if self._open != _NONE:
            out.append(b'event: content_block_stop\ndata: {"type":"content_block_stop","index":%d}\n\n' % self._index)
            self._open = _NONE

    def _end(self, out: list[bytes], event: Finish | Failure) -> None:
        if self._ended:
            return
        self._ended = True
        ending = self.settle(event)
        if isinstance(ending, Failure):
            out += (b"event: error\ndata: ", render_error(ending.error, self._envelope.request_id), b"\n\n")
            return
        if self._open == _CALL and ending.reason not in CUTTING:
            self._end_doubt(out)
        self._close_block(out)
        usage = ending.usage or self._envelope.usage() or Usage(self._envelope.prompt_tokens(), 0)
        delta = stop_fields(ending.endings[0], self._envelope, called=self._called, refused=self._refused)
        out += (_frame("message_delta", {"delta": delta, "usage": usage_fields(usage)}), _STOP)


def _frame(name: str, fields: dict[str, Any]) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name.encode(), orjson.dumps({"type": name, **fields}))
