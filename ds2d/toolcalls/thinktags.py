"""`<think>` in the text of servers that have no reasoning parser (upstreams.md 4).

Rule: what stands before the first `</think>` is reasoning where the template opened it in the prompt (R1, V3.1), and what
stands between the tags where the model opened it. A tag that is left over never reaches the client, unless it is quoted
as code. A server that sends reasoning by itself is believed: then nothing is split.
Surprise: line feeds behind `</think>` belong to the template, not to the answer.
"""

from __future__ import annotations

import msgspec

from ds2d.core.events import Ending, Event, Extra, Failure, Finish, Reasoning, Text
from ds2d.toolcalls.lane import merged
from ds2d.toolcalls.passing import unchanged
from ds2d.toolcalls.quoting import Quoting

OPEN, CLOSE = "<think>", "</think>"


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
        self._begun = False  # something but white space was said
        self._after_tag = False
        self._held = ""
        self._quoting = Quoting()

    def take(self, event: Text, out: list[Event]) -> None:
        """A piece of text."""
        if self.passes(event):
            out.append(event)
            return
        self.extra = merged(self.extra, event.extra) if event.extra else self.extra
        text, self._held = self._held + event.text, ""
        said: list[Event] = []
        if "<" not in text:
            self._say(text, said)
            out += said
            return
        at = 0
        while at < len(text):
            at = self._step(text, at, said)
        out += said

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
            said: list[Event] = []
            self._say(text, said)
            out += said

    def passes(self, event: Text) -> bool:
        """Whether this piece of text goes on as it is; it is noted then."""
        if event.refusal or self._believed:
            return self._believed
        if not self._begun or self._inside or self._held or self.extra or self._after_tag or "<" in event.text:
            return False
        self._quoting.note(event.text)
        return True

    def _step(self, text: str, at: int, out: list[Event]) -> int:
        """One stretch of text and the tag behind it; where to go on. What may become a tag is held."""
        found = text.find("<", at)
        if found < 0:
            self._say(text[at:], out)
            return len(text)
        tag = CLOSE if text.startswith(CLOSE, found) else OPEN if text.startswith(OPEN, found) else None
        if tag is None:
            if len(text) - found < len(CLOSE) and (OPEN.startswith(text[found:]) or CLOSE.startswith(text[found:])):
                self._say(text[at:found], out)
                self._held = text[found:]
                return len(text)
            self._say(text[at : found + 1], out)
            return found + 1
        self._say(text[at:found], out)
        if not self._changes(tag):
            self._say(tag, out)
        return found + len(tag)

    def _changes(self, tag: str) -> bool:
        """Whether the tag is one, and what it does."""
        if self._inside:
            if tag == CLOSE:
                self._inside, self._after_tag = False, True
                self._quoting = Quoting()
            return tag == CLOSE or not self._begun
        if self._quoting.is_code():
            return False
        if tag == CLOSE:
            self._after_tag = not self._begun
            return True
        self._inside = not self._begun or self._quoting.line_start
        return self._inside

    def _say(self, text: str, out: list[Event]) -> None:
        if self._after_tag and not self._inside:
            text = text.lstrip("\r\n")
            self._after_tag = not text
        if not text:
            return
        self._begun = self._begun or not text.isspace()
        if not self._inside:
            self._quoting.note(text)
        kind = Reasoning if self._inside else Text
        last = out[-1] if out else None
        if isinstance(last, kind):
            out[-1] = kind(last.text + text, self._index, extra=last.extra)
        else:
            out.append(kind(text, self._index, extra=self.extra))
            self.extra = None
