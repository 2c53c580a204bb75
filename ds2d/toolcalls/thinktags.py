"""`<think>` in the text of servers that have no reasoning parser (upstreams.md 4).

Rule: what stands before the first `</think>` is reasoning where the template opened it in the prompt (R1, V3.1), and what
stands between the tags where the model opened it. That is at the beginning only: once anything but blanks was said outside,
a tag is text like any other, for it may stand in the argument of a call (toolcalls.md 2). A server that sends reasoning by
itself is believed: then nothing is split.
Surprise: line feeds behind `</think>` belong to the template, not to the answer; and an answer that begins with a call does
not begin inside thinking, whatever was expected.
"""

from __future__ import annotations

import msgspec

from ds2d.core.events import Ending, Event, Extra, Failure, Finish, Reasoning, Text
from ds2d.toolcalls.formats import OPENERS, opened_by
from ds2d.toolcalls.lane import merged
from ds2d.toolcalls.lexer import JSON_BEGUN, JSON_HEAD
from ds2d.toolcalls.passing import unchanged
from ds2d.toolcalls.source import after_blanks
from ds2d.toolcalls.tags import OPENING, lex, unfinished

OPEN, CLOSE = "<think>", "</think>"


def begins_call(text: str, at: int) -> bool | None:
    """Whether a call that is written as text begins at text[at]; None: more must come to know."""
    if text[at] in OPENING:
        tag = lex(text, at)
        if tag is None:
            return None if unfinished(text, at, OPENERS) else False
        entry = opened_by(tag)
        return entry is not None and entry.read is not None
    if JSON_HEAD.match(text, at):
        return True
    return None if JSON_BEGUN(text, at) else False


def begins_tag(text: str, at: int, *tags: str) -> bool:
    """Whether text[at:], to its end, is the beginning of one of these tags and not all of it."""
    return any(len(text) - at < len(tag) and tag.startswith(text[at:]) for tag in tags)


class ThinkTags:
    """A stage: text with tags in, reasoning and text out. `inside`: the answer begins in the middle of thinking."""

    def __init__(self, *, inside: bool) -> None:
        self._inside = inside
        self._choices: dict[int, _Choice] = {}

    def feed(self, batch: list[Event]) -> list[Event]:
        """Take the events of one read."""
        same = unchanged(batch, self._choices, Text)
        if same == len(batch):
            return batch
        out = batch[:same]
        for event in batch[same:]:
            kind = type(event)
            if kind is Text and not event.refusal:  # type: ignore[union-attr]
                self._choice(event.choice).take(event, out)  # type: ignore[union-attr, arg-type]
            elif kind is Reasoning:
                self._choice(event.choice).believe(out)  # type: ignore[union-attr]
                out.append(event)
            elif kind is Finish or kind is Failure:
                out += self.finish()
                out.append(self._with_extras(event))  # type: ignore[arg-type]
            else:
                self._choice(event.choice).flush(out)  # type: ignore[union-attr]
                out.append(event)
        return out

    def finish(self) -> list[Event]:
        """What was held because a tag could have begun in it."""
        out: list[Event] = []
        for choice in self._choices.values():
            choice.flush(out)
        return out

    def _choice(self, index: int) -> _Choice:
        choice = self._choices.get(index)
        if choice is None:
            choice = self._choices[index] = _Choice(index, inside=self._inside)
        return choice

    def _with_extras(self, event: Finish | Failure) -> Finish | Failure:
        left = {index: choice.extra for index, choice in self._choices.items() if choice.extra}
        if isinstance(event, Failure) or not left:
            return event
        endings = tuple(_with_extra(ending, left.get(index)) for index, ending in enumerate(event.endings))
        return msgspec.structs.replace(event, endings=endings)


def _with_extra(ending: Ending, extra: Extra | None) -> Ending:
    return msgspec.structs.replace(ending, extra=merged(extra, ending.extra or {})) if extra else ending


class _Choice:
    """One choice. `extra` belongs to text that was held or dropped, and goes out with the next."""

    def __init__(self, index: int, *, inside: bool) -> None:
        self.extra: Extra | None = None
        self._index = index
        self._inside = inside
        self._believed = False
        self._begun = False  # something but white space was said since the last tag
        self._after_tag = False
        self._held = ""
        self._said: list[str] = []  # what goes out as one event: pieces, for there may be a tag behind every blank

    def take(self, event: Text, out: list[Event]) -> None:
        """A piece of text."""
        if self.passes(event):
            out.append(event)
            return
        self.extra = merged(self.extra, event.extra) if event.extra else self.extra
        text, self._held = self._held + event.text, ""
        at = 0
        while at < len(text):
            at = self._go_on(text, at, out) if self._begun else self._begin(text, at, out)
        self._emit(out)

    def believe(self, out: list[Event]) -> None:
        """The server splits by itself."""
        if not self._believed:
            self._believed = True
            self._inside = False
            self.flush(out)

    def flush(self, out: list[Event]) -> None:
        """No tag will be completed any more."""
        text, self._held = self._held, ""
        if text:
            self._begun = True
            self._say(text)
            self._emit(out)

    def passes(self, event: Text) -> bool:
        """Whether this piece of text goes on as it is."""
        if event.refusal or self._believed:
            return self._believed
        return self._begun and not self._inside and not self.extra

    def _begin(self, text: str, at: int, out: list[Event]) -> int:
        """Blanks, and a tag if one stands behind them; where to go on. What may become one is held."""
        start = after_blanks(text, at)
        self._say(text[at:start])
        for tag in (OPEN, CLOSE):
            if text.startswith(tag, start):
                self._turn(out, inside=tag == OPEN)
                return start + len(tag)
        if start == len(text):
            return start
        calls = begins_call(text, start) if self._inside else False
        if calls is None or begins_tag(text, start, OPEN, CLOSE):
            self._held = text[start:]
            return len(text)
        if calls:
            self._turn(out, inside=False)
            self._after_tag = False
        self._begun = True
        return start

    def _go_on(self, text: str, at: int, out: list[Event]) -> int:
        """The rest, or as much of it as is thought; where to go on."""
        found = text.find(CLOSE, at) if self._inside else -1
        if found >= 0:
            self._say(text[at:found])
            self._turn(out, inside=False)
            return found + len(CLOSE)
        end = len(text)
        if self._inside:
            begun = text.rfind("<", max(at, end - len(CLOSE) + 1))
            end = begun if begun >= 0 and begins_tag(text, begun, CLOSE) else end
        self._say(text[at:end])
        self._held = text[end:]
        return len(text)

    def _turn(self, out: list[Event], *, inside: bool) -> None:
        """A tag has gone by."""
        if inside != self._inside:
            self._emit(out)
        self._inside, self._begun = inside, False
        self._after_tag = not inside

    def _say(self, text: str) -> None:
        if self._after_tag:
            text = text.lstrip("\r\n")
            self._after_tag = not text
        if text:
            self._said.append(text)

    def _emit(self, out: list[Event]) -> None:
        if self._said:
            kind = Reasoning if self._inside else Text
            out.append(kind("".join(self._said), self._index, extra=self.extra))
            self._said.clear()
            self.extra = None
