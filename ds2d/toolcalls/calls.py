"""One call at a time on its way from a reader to the client.

Rule (toolcalls.md 3): a call starts early only when its name is declared and its arguments have begun as JSON; what went
out is never taken back. A call that did not start early goes out whole, or its text goes out as text.
Surprise: where text may still turn out to be quoted (a fence, inline code), calls are kept until `settle` says.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Literal

import orjson

from ds2d.core.events import Event, ToolArgs, ToolEnd, ToolStart
from ds2d.toolcalls import notes
from ds2d.toolcalls.declared import Declared
from ds2d.toolcalls.schema import Schema, satisfies
from ds2d.toolcalls.source import NotACallError, Source

Confidence = Literal["high", "low", "off"]
Ending = Literal["open", "whole", "cut", "length"]
"""How the text ended: not yet; the model was done; a stop string or filter cut it; its token limit cut it."""

MAX_CHECKED = 1024 * 1024
"""Characters of arguments that are kept to look at them again after a repair; longer ones are taken on trust."""


class Calls:
    """The calls of one choice. `committed`: the block that is being read holds a call, so its markup is never shown.
    `fenced`: it stands in a fence, where a line feed inside a string cannot be mended (the fence might end there)."""

    def __init__(
        self,
        source: Source,
        out: list[Event],
        declared: Declared,
        confidence: Confidence,
        new_id: Callable[[str], str],
        choice: int,
    ) -> None:
        self.declared = declared
        self.committed = False
        self.fenced = False
        self.notes: dict[str, None] = {}
        self.ending: Ending = "open"
        self.native: Counter[bytes] = Counter()
        """Calls that came natively, by `fingerprint`: their doubles in text are dropped."""
        self.sent: Counter[bytes] = Counter()
        """Calls that were read from text."""
        self._source = source
        self._out = out
        self._confidence = confidence
        self._new_id = new_id
        self._choice = choice
        self._deferred: list[Event] | None = None
        self._deferred_prints: Counter[bytes] = Counter()
        self._next = 0
        self._name = ""
        self._known = False
        self._open = False
        self._started = False
        self._pieces: list[str] = []
        self._size = 0
        self._solid = 0

    def open_block(self, *, deferred: bool, fenced: bool = False) -> None:
        """A block begins. `deferred`: nothing of it goes out before `settle`. `fenced`: see above."""
        self.committed, self.fenced = False, fenced
        self._deferred = [] if deferred else None
        self._deferred_prints.clear()

    def settle(self) -> None:
        """The deferred calls are calls."""
        if self._deferred is not None:
            self._out += self._deferred
            self.sent += self._deferred_prints
            self._deferred = None

    def discard(self) -> None:
        """What was deferred is text after all."""
        if self._deferred is not None:
            self._deferred = None
            self.committed = False

    @property
    def schema(self) -> Schema:
        """The parameters of the call that is being read; {} if its tool is not declared."""
        return self.declared.schema(self._name)

    @property
    def known(self) -> bool:
        """Whether the tool of the call that is being read is declared."""
        return self._known

    @property
    def started(self) -> bool:
        """Whether the beginning of the call that is being read went out."""
        return self._started and self._deferred is None

    @property
    def name(self) -> str:
        """The name of the call that is being read, as it was written."""
        return self._name

    def begin(self, name: str, *, certain: bool) -> None:
        """A call by its whole name. `certain`: a marker of the format stood before it."""
        self._name, self._known = name, self.declared.resolve(name) is not None
        self._open, self._started = True, False
        self._pieces, self._size, self._solid = [], 0, 0
        if certain:
            self.certain()

    def certain(self) -> None:
        """A marker of the format and the name are there: with low confidence that is enough to start."""
        if self._confidence == "low" and not self._started and self._may_start:
            self._start()

    def args(self, text: str) -> None:
        """A piece of the JSON text of its arguments."""
        if not text:
            return
        if self._size < MAX_CHECKED or not self._started:
            self._pieces.append(text)
        self._size += len(text)
        if self._started:
            self._emit(ToolArgs(self._next, text, self._choice))
            return
        self._solid += len(text.strip())
        if self._confidence != "off" and self._may_start and self._solid > 1:  # a brace alone is no certain format yet
            self._start()

    def garbage(self, text: str) -> None:
        """What follows a fault in the arguments: part of them for a client that has seen their beginning."""
        if self._started and text:
            self._emit(ToolArgs(self._next, text, self._choice))

    def end(self, repairs: Iterable[str] = (), *, broken: bool = False) -> None:
        """The call is complete. Repaired arguments must satisfy the schema, else the call is broken."""
        self._open = False
        repairs = list(repairs)
        broken = broken or (bool(repairs) and not self._satisfied())
        if not self._started:
            if broken:
                raise NotACallError
            if self._is_double():
                self._commit()
                return
            if self._source.too_much:
                raise NotACallError
            self._start()
        self._emit(ToolEnd(self._next, self._choice, broken))
        self._next += 1
        self._started = False
        self.notes.update(dict.fromkeys([notes.BROKEN] if broken else repairs))
        self._commit()

    def close(self, closers: str | None, repairs: Iterable[str]) -> None:
        """The call is complete, but for `closers`; None if more than that is missing. What would not satisfy the schema with
        them is broken without them: an object that nobody wrote is not handed out."""
        broken = closers is None or (bool(closers) and not self._satisfied(closers))
        if closers and not broken:
            self.args(closers)
        self.end(repairs, broken=broken)

    def cut(self, closers: str | None, repairs: Iterable[str] = ()) -> None:
        """The text ended inside the call. `closers`: what completes its arguments, None if more than that is missing."""
        if not self._open:
            return
        self._open = False
        if self.ending == "whole" and closers is not None and self._satisfied(closers):
            self.args(closers)
            self.end([*repairs, notes.CLOSERS])
        elif self._started and self.ending != "length":
            self.end(broken=True)
        elif self._started:
            self.committed = True  # stays open: the ending says that it was cut (mapping.md 7)

    def give_up(self) -> None:
        """The block turned out to be no call: one that has started ends broken."""
        if self._started and self.ending != "length":
            self.end(broken=True)

    def mark(self) -> None:
        """What comes now belongs to the next call."""
        if self.committed and self._deferred is None:
            self._source.mark()

    @property
    def _text(self) -> str:
        return "".join(self._pieces)

    @property
    def _may_start(self) -> bool:
        return self._known and self._deferred is None and not self.native

    def _start(self) -> None:
        self._started = True
        if self._deferred is None:
            self._source.forget()
        self._emit(ToolStart(self._next, self._new_id("call_"), self._name, self._choice))
        if self._pieces:
            self._emit(ToolArgs(self._next, self._text, self._choice))

    def _commit(self) -> None:
        if self._size <= MAX_CHECKED:
            (self.sent if self._deferred is None else self._deferred_prints)[self._fingerprint()] += 1
        self.committed = True
        self.mark()

    def _fingerprint(self) -> bytes:
        return fingerprint(self.declared.resolve(self._name) or self._name, self._text)

    def _emit(self, event: Event) -> None:
        (self._out if self._deferred is None else self._deferred).append(event)

    def _is_double(self) -> bool:
        key = self._fingerprint()
        if not self.native[key]:
            return False
        self.native[key] -= 1
        self.notes[notes.DUPLICATE] = None
        return True

    def _satisfied(self, closers: str = "") -> bool:
        if self._size > MAX_CHECKED:
            return True
        try:
            return satisfies(orjson.loads(self._text + closers), self.schema)
        except orjson.JSONDecodeError:
            return False


def fingerprint(name: str, arguments: str) -> bytes:
    """What is the same for two writings of one call: its name and the value of its arguments."""
    try:
        value = orjson.dumps(orjson.loads(arguments), option=orjson.OPT_SORT_KEYS)
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        value = arguments.encode("utf-8", "surrogatepass")
    return name.encode("utf-8", "surrogatepass") + b"\0" + value
