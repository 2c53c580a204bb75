"""Whether an answer begins inside its thinking, found out from the answer itself (upstreams.md 4).

Rule: a server without a reasoning parser whose template opened `<think>` in the prompt sends only `</think>`; what stands
before it must not go out as text, so nothing goes out before it is known. Whoever asks next is told what was found.
Surprise: this costs the first such answer of a server its streaming; a server that sends reasoning of its own, or opens a
tag itself, settles it with the first piece.
"""

from __future__ import annotations

from ds2d.core.events import Event, Text
from ds2d.toolcalls.thinktags import CLOSE, OPEN, ThinkTags

MAX_HELD = 1024 * 1024
"""Characters held back at most; an answer that long without a tag does not begin inside."""

_LONGEST = max(len(OPEN), len(CLOSE))


class Unsure:
    """A stage that holds until a tag, reasoning, a call or the end settles it. `inside` is then what `ThinkTags` is told."""

    def __init__(self) -> None:
        self.inside: bool | None = None
        self._stage: ThinkTags | None = None
        self._held: list[Event] = []
        self._size = 0
        self._tail = ""

    def feed(self, batch: list[Event]) -> list[Event]:
        """Take the events of one read."""
        if self._stage is not None:
            return self._stage.feed(batch)
        self._held += batch
        for event in batch:
            verdict = self._judge(event)
            if verdict is not None:
                return self._settle(inside=verdict)
        return []

    def finish(self) -> list[Event]:
        """The turn failed from outside."""
        out = [] if self._stage is not None else self._settle(inside=False)
        assert self._stage is not None
        return out + self._stage.finish()

    def _judge(self, event: Event) -> bool | None:
        if type(event) is not Text:
            return False
        self._size += len(event.text)
        text = self._tail + event.text
        self._tail = text[-_LONGEST:]
        close, opened = text.find(CLOSE), text.find(OPEN)
        if opened >= 0 and not 0 <= close < opened:
            return False
        if close >= 0:
            return text[close - 1 : close] != "`"  # a quoted tag is a text about tags
        return False if self._size > MAX_HELD else None

    def _settle(self, *, inside: bool) -> list[Event]:
        self.inside = inside
        self._stage = ThinkTags(inside=inside)
        held, self._held = self._held, []
        return self._stage.feed(held) if held else []
