"""Small worlds for the tests of stored responses: a clock to turn, and answers made by the dialect."""

from __future__ import annotations

import itertools
from typing import Any

from ds2d.core.events import Ending, Event, Finish, Text, Usage
from ds2d.core.request import Envelope, Inbound
from ds2d.dialects import openai_responses
from ds2d.state.background import BackgroundResponse
from ds2d.state.responses import Limits, ResponseStore

STOP = Finish((Ending("stop"),), Usage(1, 1))


class World:
    """A store, its clock, and questions to it."""

    def __init__(self, **limits: Any) -> None:
        self.now = 1000.0
        self._numbers = itertools.count(1)
        self.store = ResponseStore(lambda: self.now, self.new_id, Limits(**limits))

    def new_id(self, prefix: str) -> str:
        return f"{prefix}{next(self._numbers):024d}"

    def envelope(self, caller: str, **body: Any) -> Envelope:
        recall = lambda name: self.store.recall(caller, name)  # noqa: E731 - as short as it is
        request = openai_responses.parse(Inbound({"model": "m", "input": "hi"} | body, recall=recall))
        return Envelope(request, "m", "req_1", 1_700_000_000, self.new_id, lambda: 1_700_000_001)

    def answered(self, text: str = "yes", caller: str = "me", events: list[Event] | None = None, **body: Any) -> str:
        """Put one answered question; its id."""
        made = self.envelope(caller, **body)
        openai_responses.Encoder(made).feed([*(events or [Text(text)]), STOP])
        self.store.put(caller, made.request.reply)
        return str(made.request.reply.id)

    def begun(self, caller: str = "me", **body: Any) -> tuple[BackgroundResponse, openai_responses.Encoder, Envelope]:
        """A background response that was queued and is worked on now."""
        made = self.envelope(caller, background=True, **body)
        opening = openai_responses.opening(made)
        run = self.store.begin(caller, made.request.reply, lambda: openai_responses.queued(made))
        run.append(opening)
        encoder = openai_responses.Encoder(made)
        run.snapshot = encoder.snapshot
        return run, encoder, made
