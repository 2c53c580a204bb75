"""Keys that are in the schema and have no effect yet.

Rule: whoever builds an effect takes its key out of here in the same commit. Until then a config that sets it to anything
but the default loads and is warned of, once a key.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ds2d.config.describe import Key, keys, value_at
from ds2d.config.notices import Notice
from ds2d.config.schema import Config

NOT_BUILT = ("server.root_path",)
"""Paths as in `describe.keys`; a section stands for all of its keys."""


def unbuilt(config: Config) -> list[Notice]:
    """A notice for each such key that somebody set."""
    return [Notice(key.path, "has no effect yet in this version") for key in keys() if _listed(key) and _is_set(config, key)]


def _listed(key: Key) -> bool:
    return any(key.path == path or key.path.startswith(f"{path}.") for path in NOT_BUILT)


def _is_set(config: Config, key: Key) -> bool:
    return any(value != key.default for value in _values(config, key.path))


def _values(config: Config, path: str) -> Iterator[Any]:
    """The value of a key, or of all its values where it stands in entries."""
    for mark in ("[].", ".*."):
        section, found, name = path.partition(mark)
        if found:
            entries = value_at(config, section)
            for entry in entries.values() if isinstance(entries, dict) else entries:
                yield getattr(entry, name)
            return
    yield value_at(config, path)
