"""Tool calls of one choice, sorted so that they come one after the other.

Rule: a call is open from its start to its end and nothing else of its choice comes in between (core/events.py). What
arrives for others meanwhile waits, in order, until the open call's JSON has closed or the answer ends.
Surprise: nearly every server writes calls one by one, so waiting is rare; but vLLM's parsers for V3 and V3.1 can lose a
closing brace (upstreams.md 1.6), and then the next call waits for the end of the answer rather than being guessed at.
"""

from __future__ import annotations

import hashlib
import re
from collections import deque
from collections.abc import Callable
from typing import Any

import orjson

from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.events import Event, Reasoning, Text, ToolArgs, ToolEnd, ToolStart
from ds2d.core.names import upstream_name
from ds2d.core.request import ChatRequest

MAX_WAITING = 1024 * 1024
"""Characters that may wait behind an open call (reliability.md, bound on held text)."""

_OUTSIDE = re.compile(r'["{}\[\]]').search
_INSIDE = re.compile(r'["\\]').search

Identify = Callable[[str, int, int], str]
"""From the id a server gave (or ""), the choice and the call's position in it, to the id the client sees."""


class Called:
    """What a conversation calls its tools, and the ids that its calls have: what the sorters of one answer share.

    `answer_id` is the server's own id of the answer, once it is known. Apart from the decoder, which holds the sorters: a circle
    would keep the question, megabytes at times, until the collector comes by.
    """

    def __init__(self, request: ChatRequest) -> None:
        self.answer_id: str | None = None
        self._request = request
        self._names: dict[str, str] | None = None
        self._ids: set[str] = set()

    def client_name(self, name: str) -> str:
        """The client's own spelling of a tool's name that went upstream shortened (mapping.md 3)."""
        if self._names is None:
            self._names = {upstream_name(tool["function"]["name"]): tool["function"]["name"] for tool in self._request.tools}
        return self._names.get(name, name)

    def identify(self, given: str, choice: int, position: int) -> str:
        """The server's id of a call, unless it gave none or one that this conversation has already: clients send ids back.

        Made from the answer's own id and place in the conversation, so that the same answer gives the same ids.
        """
        if not self._ids:
            self._ids = {call.get("id", "") for message in self._request.messages for call in message.get("tool_calls") or ()}
            self._ids.add("")
        made = given
        while made in self._ids:
            seed = f"{self.answer_id} {len(self._request.messages)} {choice} {position} {made}"
            made = f"call_{hashlib.sha256(seed.encode('utf-8', 'replace')).hexdigest()[:24]}"
        self._ids.add(made)
        return made


class Nesting:
    """Whether a JSON object or list that arrives in pieces has closed. Looks at each character once, keeps none."""

    __slots__ = ("_depth", "_escaped", "_in_string", "closed")

    def __init__(self) -> None:
        self.closed = False
        self._depth = 0
        self._in_string = False
        self._escaped = False

    def feed(self, text: str) -> None:
        """Take the next piece of the text."""
        at = int(self._escaped)
        self._escaped = False
        while not self.closed and (found := (_INSIDE if self._in_string else _OUTSIDE)(text, at)):
            mark, at = found.group(), found.end()
            if mark == "\\":
                self._escaped = at == len(text)
                at += 1
            elif mark == '"':
                self._in_string = not self._in_string
            else:
                self._depth += 1 if mark in "{[" else -1
                self.closed = self._depth <= 0


class _Call:
    """One call as far as it is known; `pieces` are the arguments not handed on yet, `index` is set once it is."""

    __slots__ = ("ended", "given_id", "index", "name", "nesting", "pieces", "whole")

    def __init__(self) -> None:
        self.index = -1
        self.given_id = ""
        self.name = ""
        self.pieces: list[str] = []
        self.nesting = Nesting()
        self.whole = False
        self.ended = False


class CallSorter:
    """The calls of one choice, and whatever came between them."""

    def __init__(self, choice: int, client_name: Callable[[str], str], identify: Identify) -> None:
        self._choice = choice
        self._client_name = client_name
        self._identify = identify
        self.queue: deque[_Call | Text | Reasoning] = deque()
        """What waits; the first call in it is the open one. While there is anything, other events of this choice must go through
        `pass_by`."""
        self._calls: dict[int, _Call] = {}  # by the server's index: the latest call under it
        self._by_id: dict[str, _Call] = {}
        self._shown = 0
        self._last: _Call | None = None
        self._waiting = 0

    @property
    def seen(self) -> bool:
        """Whether any call was handed on."""
        return self._shown > 0

    def pass_by(self, event: Text | Reasoning) -> list[Event]:
        """Text or reasoning that came while a call is open: now, if that call is complete, else after it."""
        self._waiting += len(event.text)
        self.queue.append(event)
        return self._advance()

    def feed(self, deltas: list[Any], *, whole: bool) -> list[Event]:
        """Entries of a `tool_calls` list. `whole`: each is a call by itself (a whole body has no indexes).

        Raises GatewayError(UPSTREAM_GARBLED) for entries that cannot be read.
        """
        out: list[Event] = []
        for delta in deltas:
            if not isinstance(delta, dict):
                raise GatewayError(ErrorKind.UPSTREAM_GARBLED, "The upstream sent a tool call that is not an object.")
            out += self._take(delta, whole)
        return out

    def go_on(self, index: int, arguments: str) -> list[Event]:
        """A further piece of the arguments of the call under the server's `index`: what most deltas are."""
        call = self._calls.get(index)
        if call is None or call.ended or call is not self.queue[0] or len(self.queue) > 1 or call.index < 0:
            return self._take({"index": index, "function": {"arguments": arguments}}, whole=False)
        if not arguments:
            return []
        call.nesting.feed(arguments)
        return [ToolArgs(call.index, arguments, self._choice)]

    def finish(self) -> list[Event]:
        """The answer has ended: everything that waits, and the end of each call."""
        for item in self.queue:
            if isinstance(item, _Call):
                item.whole = True
        out = self._advance()
        if self.queue:
            raise GatewayError(ErrorKind.UPSTREAM_GARBLED, "The upstream sent a tool call without a name.")
        return out

    def _take(self, delta: dict[str, Any], whole: bool) -> list[Event]:
        function = delta.get("function") or delta.get("custom") or {}
        if not isinstance(function, dict):
            raise GatewayError(ErrorKind.UPSTREAM_GARBLED, "The upstream sent a tool call whose function is not an object.")
        given_id, name = _text(delta.get("id")), _text(function.get("name"))
        arguments = _arguments(function.get("arguments", function.get("input")))
        call = None if whole else self._find(delta.get("index"), given_id, name)
        if call is None:
            if not (given_id or name or arguments):
                return []
            call = self._begin(delta.get("index"), given_id)
        call.given_id = call.given_id or given_id
        call.name = call.name or name
        call.whole = call.whole or whole
        self._last = call
        self._add(call, arguments)
        return self._advance()

    def _find(self, index: Any, given_id: str, name: str) -> _Call | None:
        """The call that a delta belongs to; None if it begins one.

        Some servers send no index, some the same for every call; an id and a name of its own then tell a new call.
        """
        numbered = type(index) is int
        call = self._calls.get(index) if numbered else self._by_id.get(given_id) if given_id else self._last
        if call is None or not (name and call.name):
            return call
        if numbered:
            return None if given_id and call.given_id not in ("", given_id) else call
        return call if given_id else None

    def _begin(self, index: Any, given_id: str) -> _Call:
        call = _Call()
        self.queue.append(call)
        if type(index) is int:
            self._calls[index] = call
        if given_id:
            self._by_id[given_id] = call
        return call

    def _add(self, call: _Call, arguments: str) -> None:
        if not arguments:
            return
        if call.ended:
            if arguments.isspace():
                return
            raise GatewayError(ErrorKind.UPSTREAM_GARBLED, "The upstream went on with a tool call that was complete.")
        call.pieces.append(arguments)
        call.nesting.feed(arguments)
        self._waiting += len(arguments)

    def _advance(self) -> list[Event]:
        """Hand on what may go: of the first call everything, of the next ones nothing before it is complete."""
        out: list[Event] = []
        queue = self.queue
        while queue:
            first = queue[0]
            if not isinstance(first, _Call):
                out.append(first)
                self._waiting -= len(first.text)
                queue.popleft()
                continue
            if first.name:
                self._show(first, out)
            elif first.pieces:
                break
            if not (first.whole or (first.nesting.closed and len(queue) > 1)):
                break
            first.ended = True
            queue.popleft()
            if first.name:
                out.append(ToolEnd(first.index, self._choice))
        if self._waiting > MAX_WAITING:
            raise GatewayError(ErrorKind.UPSTREAM_GARBLED, f"More than {MAX_WAITING} characters wait behind an open tool call.")
        return out

    def _show(self, call: _Call, out: list[Event]) -> None:
        if call.index < 0:
            call.index = self._shown
            self._shown += 1
            call_id = self._identify(call.given_id, self._choice, call.index)
            out.append(ToolStart(call.index, call_id, self._client_name(call.name), self._choice))
        if call.pieces:
            text = "".join(call.pieces)
            call.pieces.clear()
            self._waiting -= len(text)
            out.append(ToolArgs(call.index, text, self._choice))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _arguments(value: Any) -> str:
    """Arguments as JSON text; some servers send the object itself."""
    if isinstance(value, str):
        return value
    try:
        return "" if value is None else orjson.dumps(value).decode()
    except orjson.JSONEncodeError as error:
        raise GatewayError(ErrorKind.UPSTREAM_GARBLED, "The upstream sent tool arguments nested too deeply.") from error
