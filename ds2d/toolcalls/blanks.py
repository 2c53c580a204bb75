"""Answers in JSON mode that are blanks only: the DeepSeek API's way to say that the model's text was no JSON (mapping.md 5).

Rule: blanks before anything else are held; they go out before what follows, and not at all where nothing does.
Surprise: the end of such an answer is no fault, so the stage stands behind `Policy`, which must have seen the blanks.
"""

from __future__ import annotations

from ds2d.core.events import Event, Failure, Finish, Reasoning, Text

MAX_BLANKS = 4096
"""Characters that are held for a choice: models in JSON mode may write blanks until their limit, and of those more go out."""


class Blanks:
    """A stage, for questions that want JSON. Blanks before JSON mean nothing, so holding them changes no answer."""

    def __init__(self) -> None:
        self._held: dict[int, list[Text]] = {}
        self._sizes: dict[int, int] = {}
        self._spoke: set[int] = set()

    def feed(self, batch: list[Event]) -> list[Event]:
        """Take the events of one read."""
        out: list[Event] = []
        for event in batch:
            if isinstance(event, Finish | Failure):
                self._held.clear()
            elif not isinstance(event, Reasoning) and event.choice not in self._spoke:
                if type(event) is Text and event.text.isspace() and self._holds(event):
                    continue
                self._spoke.add(event.choice)
                out += self._held.pop(event.choice, [])
            out.append(event)
        return out

    def _holds(self, event: Text) -> bool:
        size = self._sizes[event.choice] = self._sizes.get(event.choice, 0) + len(event.text)
        if size > MAX_BLANKS:
            return False
        self._held.setdefault(event.choice, []).append(event)
        return True

    def finish(self) -> list[Event]:
        """Blanks are no part of an answer that was broken off."""
        return []
