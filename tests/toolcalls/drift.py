"""One character dropped from the shell of a tag, or doubled: how formats drift when a model is unsure.

Rule: only shells change (brackets, bars, names, attribute keys), never a tool's name or a value, so the meaning is known.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

import msgspec

from tests.toolcalls.written import WRITERS, Call, write

TAGGED = tuple(name for name in WRITERS if name not in ("json", "text"))
CALLS: list[Call] = [
    ("get_weather", {"city": "Paris", "days": 3}),
    ("get_time", {}),
    ("search", {"query": "cats", "tags": ["a"]}),
]

_SHELL = re.compile(r"[<＜](?!!)[^<>＜＞]*[>＞]")
_VALUE = re.compile(r'"[^"]*"')


class Drift(msgspec.Struct, frozen=True):
    """One drifted text. `what`: the shell as it was, the change, and the character."""

    format: str
    shell: str
    change: str
    character: str
    text: str


def drifted(name: str, seed: int) -> Iterator[Drift]:
    """Every drift of one rendering of a format, a character at a time."""
    text = write(name, CALLS, random.Random(seed))
    for shell in _SHELL.finditer(text):
        values = [range(found.start(), found.end()) for found in _VALUE.finditer(shell.group())]
        for offset, character in enumerate(shell.group()):
            if any(offset in value and offset not in (value[0], value[-1]) for value in values):
                continue
            at = shell.start() + offset
            yield Drift(name, shell.group(), "dropped", character, text[:at] + text[at + 1 :])
            yield Drift(name, shell.group(), "doubled", character, text[:at] + character + text[at:])
