"""Events that a stage hands on as they came: nearly all of nearly every answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from ds2d.core.events import Event


class Passing(Protocol):
    """What a stage knows of one choice. `passes` notes an event that it lets by, and of any other nothing."""

    def passes(self, event: Any) -> bool: ...


def unchanged(batch: list[Event], choices: Mapping[int, Passing], *kinds: type) -> int:
    """How many events at the start of the batch are of these kinds, which have a `choice`, and pass."""
    count = 0
    for event in batch:
        if type(event) not in kinds:
            break
        choice = choices.get(event.choice)  # type: ignore[union-attr]
        if choice is None or not choice.passes(event):
            break
        count += 1
    return count
