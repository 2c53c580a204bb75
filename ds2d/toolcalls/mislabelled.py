"""Answers that a server calls reasoning though nobody was asked to think (upstreams.md 4).

Rule: where thinking is off, reasoning waits for what follows. Text or a call behind it: it was reasoning. The end of the
answer: it was the answer, and goes out as text.
Surprise: vLLM's deepseek_r1 parser takes everything before `</think>` as reasoning, also when no such mark comes, and the
whole answer then lands in the wrong field with an empty content.
"""

from __future__ import annotations

from ds2d.core.events import Event, Failure, Finish, Reasoning, Text

MAX_HELD = 1024 * 1024
"""Characters held back at most; that much is reasoning."""


class Mislabelled:
    """A stage for questions with thinking off."""

    def __init__(self) -> None:
        self._held: dict[int, list[Reasoning]] = {}
        self._size = 0
        self._told: set[int] = set()

    def feed(self, batch: list[Event]) -> list[Event]:
        """Take the events of one read."""
        out: list[Event] = []
        for event in batch:
            match event:
                case Reasoning(choice=choice) if choice not in self._told and self._size < MAX_HELD:
                    self._held.setdefault(choice, []).append(event)
                    self._size += len(event.text)
                case Finish(endings=endings):
                    for choice, held in self._held.items():
                        ended = choice < len(endings) and endings[choice].reason == "stop"
                        out += [Text(piece.text, choice, extra=piece.extra) for piece in held] if ended else held
                    out.append(event)
                case Failure():
                    out += [*self.finish(), event]
                case _:  # also reasoning, once it is known to be that or grows too long
                    self._told.add(event.choice)
                    out += self._held.pop(event.choice, [])
                    out.append(event)
        return out

    def finish(self) -> list[Event]:
        """The turn failed from outside: nobody knows what it was, so it stays what it was called."""
        held, self._held = self._held, {}
        return [event for events in held.values() for event in events]
