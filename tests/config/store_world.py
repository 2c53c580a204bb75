"""A config store that is watched by a clock of the test's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ds2d.config.source import Source
from ds2d.config.store import ConfigStore


class Watched:
    """A store with a clock of its own, and everything that its subscribers were told."""

    def __init__(self, path: Path, *, keep_history: bool = False, environ: dict[str, str] | None = None) -> None:
        self.path = path
        source = Source.from_environment(environ, cwd=path.parent) if environ else Source.file(path)
        self.store = ConfigStore(source, keep_history=keep_history)
        self.time = 1000.0
        self.told: list[int] = []
        self.store.subscribe(lambda config: self.told.append(config.runtime.max_attempts))

    def look(self) -> float | None:
        """One look, as the watcher makes it."""
        return self.store.settle(self.store.examine(), self.time)

    def follow(self) -> None:
        """Look until nothing is open, letting time pass as the watcher would."""
        again: float | None = 0.0
        while again is not None:
            self.time += again
            again = self.look()

    @property
    def value(self) -> int:
        return self.store.current.runtime.max_attempts


def text(value: int, **more: Any) -> str:
    return json.dumps({"runtime": {"max_attempts": value}, **more})


def set_attempts(value: int) -> Any:
    """A change for `ConfigStore.write`."""
    return lambda document: document.setdefault("runtime", {}).update(max_attempts=value)
