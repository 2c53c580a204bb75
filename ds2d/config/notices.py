"""What can be said about a config: one sentence about one place, and all the errors of one file at once.

Rule: a notice names the place, never a secret's value. Paths look like `accounts[0].token` and `models["a.b"].context`.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable

import msgspec

_PLAIN = re.compile(r"[A-Za-z0-9_$-]+")


class Notice(msgspec.Struct, frozen=True):
    """Something about one place: `path` may be empty for the file as a whole; `hint` is what might be meant."""

    path: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        head = f"{self.path}: " if self.path else ""
        return f"{head}{self.message}" + (f" ({self.hint})" if self.hint else "")


class ConfigErrors(Exception):  # noqa: N818 - all errors of one file, hence the plural
    """A config that cannot be used, with everything that is wrong with it.

    `incomplete`: it is not even JSON, so it may be half of a file that somebody is writing.
    """

    def __init__(self, errors: Iterable[Notice], *, incomplete: bool = False) -> None:
        self.errors = tuple(errors)
        self.incomplete = incomplete
        super().__init__("; ".join(map(str, self.errors)))


def child(path: str, key: str | int) -> str:
    """The path of a member or an item."""
    if isinstance(key, int):
        return f"{path}[{key}]"
    if not _PLAIN.fullmatch(key):
        return f"{path}[{json.dumps(key[:80], ensure_ascii=False)}]"
    return f"{path}.{key}" if path else key


def nearest(word: str, known: Iterable[str]) -> str:
    """`did you mean X?` for the known word that looks most like this one; empty if none does."""
    found = difflib.get_close_matches(word.lower(), list(known), 1, 0.6)
    return f"did you mean {found[0]}?" if found else ""
