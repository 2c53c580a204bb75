"""Calls that came as calls: their arguments are verified like those written as text (toolcalls.md 3).

Rule: what goes out is JSON or is marked broken. Servers' own parsers lose the last brace of streamed arguments, or all of
them (upstreams.md 1.6), so a call with incomplete arguments stays open until it is known whether the token limit cut it.
Surprise: after `length` such a call gets no end at all; the ending says that it was cut (mapping.md 7). Tools that take one
text are called with that text alone by some models: it is neither mended nor broken (openai-responses.md 4).
"""

from __future__ import annotations

import msgspec
import orjson

from ds2d.core.events import Ending, Event, Failure, Finish, Reasoning, Text, ToolArgs, ToolEnd, ToolStart
from ds2d.toolcalls import notes
from ds2d.toolcalls.calls import MAX_CHECKED
from ds2d.toolcalls.declared import Declared
from ds2d.toolcalls.json_reader import JsonReader
from ds2d.toolcalls.json_text import StringReader
from ds2d.toolcalls.schema import Schema, satisfies

MAX_DOUBT = 4096
"""Characters that may wait, most of them blank, until it is known whether they begin an object or a bare text."""


class NativeCalls:
    """A stage: native calls in, the same calls with arguments that parse out."""

    def __init__(self, declared: Declared) -> None:
        self._declared = declared
        self._open: dict[int, _Open] = {}
        self._notes: dict[str, None] = {}

    def feed(self, batch: list[Event]) -> list[Event]:
        """Take the events of one read."""
        if not self._open and len(batch) == 1 and type(batch[0]) in (Text, Reasoning):
            return batch
        out: list[Event] = []
        for event in batch:
            self._take(event, out)
        return out

    def finish(self) -> list[Event]:
        """The turn has failed from outside: text that waited behind an open call."""
        waiting: list[Event] = [event for call in self._open.values() for event in call.behind]
        self._open.clear()
        return waiting

    def _take(self, event: Event, out: list[Event]) -> None:
        match event:
            case ToolStart():
                self._close(event.choice, out)
                self._open[event.choice] = self._opened(event)
                out.append(event)
            case ToolArgs() if event.choice in self._open:
                self._open[event.choice].take(event.text, out)
            case ToolEnd() if event.choice in self._open:
                call = self._open[event.choice]
                call.ended, call.broken = True, event.broken
                if call.whole:
                    self._close(event.choice, out)
            case Text() | Reasoning() if event.choice in self._open:
                self._open[event.choice].behind.append(event)
                if self._open[event.choice].ended:
                    self._close(event.choice, out)
            case Finish():
                for index in sorted(self._open):
                    self._close(index, out, event.endings[index] if index < len(event.endings) else None)
                out.append(msgspec.structs.replace(event, notes=tuple(dict.fromkeys([*event.notes, *self._notes]))))
            case Failure():
                out += self.finish()
                out.append(event)
            case _:
                out.append(event)

    def _opened(self, event: ToolStart) -> _Open:
        schema, text = self._declared.schema(event.name), self._declared.text_of(event.name)
        return _Open(event, schema) if text is None else _OpenText(event, schema, text)

    def _close(self, choice: int, out: list[Event], ending: Ending | None = None) -> None:
        call = self._open.pop(choice, None)
        if call is None:
            return
        if ending is None or call.whole or ending.reason not in ("length", "content_filter"):
            call.close(out, self._notes, cut=ending is not None and ending.stop is not None)
        out += call.behind


class _Open:
    """The open call of a choice. `behind`: text that came before it was complete."""

    def __init__(self, start: ToolStart, schema: Schema) -> None:
        self.ended = False
        self.broken = False
        self.behind: list[Text | Reasoning] = []
        self._start = start
        self._schema = schema
        self._reader = JsonReader(schema)
        self._outer: StringReader | None = None
        self._began = False
        self._sent: list[str] = []
        self._size = 0
        self._leftover = False

    @property
    def whole(self) -> bool:
        return self._reader.done

    def take(self, text: str, out: list[Event]) -> None:
        """A piece of the arguments."""
        if not self._began:
            text = text.lstrip()
            if not text:
                return
            self._began = True
            if text[0] == '"':
                self._outer = StringReader()
                text = text[1:]
        if self._outer is not None:
            text = "" if self._outer.done else self._outer.feed(text)
        self._read(text, out)

    def close(self, out: list[Event], said: dict[str, None], *, cut: bool) -> None:
        """No more arguments will come, though the model was done: mend what lacks closers, mark what cannot be mended. `cut`: a
        stop string ended the answer, so what lacks may be more than closers."""
        repairs = list(self._reader.repairs)
        broken = self.broken or self._reader.fault
        if not self._began and not broken:
            broken = cut or not self._complete("{}", out)
            repairs = [notes.NO_ARGUMENTS]
        elif not self.whole and not broken:
            closers = None if cut else self._reader.finish()
            broken = closers is None or not self._complete(closers, out)
            self._send(self._reader.unsent() if broken else "", out)
            repairs.append(notes.CLOSERS)
        if self._leftover:
            repairs.append(notes.LEFTOVER)
        if self._outer is not None:
            repairs.append(notes.ENCODED)
        broken = broken or (bool(repairs) and not self._satisfied())
        said.update(dict.fromkeys([notes.BROKEN] if broken else repairs))
        out.append(ToolEnd(self._start.index, self._start.choice, broken))

    def _read(self, text: str, out: list[Event]) -> None:
        reader = self._reader
        if reader.over():
            rest = text
        else:
            self._send(reader.feed(text), out)
            rest = reader.rest
        if reader.fault:
            self._send(rest, out)
        elif rest.strip():
            self._leftover = True

    def _complete(self, closers: str, out: list[Event]) -> bool:
        """Send what completes the arguments, if they satisfy the schema then: an object that nobody wrote is not handed out."""
        fits = self._satisfied(closers)
        if fits:
            self._send(closers, out)
        return fits

    def _send(self, text: str, out: list[Event]) -> None:
        if not text:
            return
        if self._size <= MAX_CHECKED:
            self._sent.append(text)
        self._size += len(text)
        out.append(ToolArgs(self._start.index, text, self._start.choice))

    def _satisfied(self, closers: str = "") -> bool:
        if self._size > MAX_CHECKED:
            return True
        try:
            return satisfies(orjson.loads("".join(self._sent) + closers), self._schema)
        except orjson.JSONDecodeError:
            return False


class _OpenText(_Open):
    """The open call of a tool that takes one text: an object with that text is verified as others are, the bare text passes.

    What begins as that object and stops inside its string is broken; what is no JSON in another way is the model's own text.
    """

    def __init__(self, start: ToolStart, schema: Schema, parameter: str) -> None:
        super().__init__(start, schema)
        key = parameter.replace('"', "")
        self._openings = (f'{{"{key}":"', f'{{{key}:"', f'"{{\\"{key}\\":\\"')
        self._doubt = ""
        self._bare: bool | None = None  # not known yet

    def take(self, text: str, out: list[Event]) -> None:
        """A piece of the arguments, once it is known what they are."""
        if self._bare is None:
            self._doubt += text
            self._bare = self._is_bare()
            if self._bare is None:
                return
            text, self._doubt = self._doubt, ""
        if self._bare:
            self._send(text, out)
        else:
            super().take(text, out)

    def close(self, out: list[Event], said: dict[str, None], *, cut: bool) -> None:
        """No more will come."""
        if self._bare is False and not self._reader.fault:
            super().close(out, said, cut=cut)
            return
        self._send(self._doubt, out)
        said.update(self._reader.repairs)
        out.append(ToolEnd(self._start.index, self._start.choice, self.broken))

    def _is_bare(self) -> bool | None:
        """Whether the arguments do not begin as the object does; None: more must come to tell."""
        begun = "".join(self._doubt[:MAX_DOUBT].split())
        if begun.startswith(self._openings):
            return False
        undecided = len(self._doubt) < MAX_DOUBT and any(opening.startswith(begun) for opening in self._openings)
        return None if undecided else True
