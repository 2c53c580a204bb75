"""The tools a client declared, and which of them a written name means.

Rule (toolcalls.md 3): exact; else the single declared name that differs only in case; else the same after a dotted or
namespaced prefix is taken off. Two candidates mean none.
Surprise: models see long names shortened (core/names.py) and write them so; the short form means the long one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from ds2d.core.names import upstream_name
from ds2d.core.request import ChatRequest, Tool
from ds2d.toolcalls.schema import properties_of, required_of

MAX_NAME = 256
"""Characters of a name as a model writes it; what is longer is no name."""

_PREFIX = re.compile(r"[.:/]+")


class Declared:
    """The declared tools by name. `names` cuts them down to those that `tool_choice` allows; `texts` see `ChatRequest`."""

    def __init__(self, tools: Iterable[Tool], names: Iterable[str] | None = None, texts: Mapping[str, str] | None = None) -> None:
        allowed = None if names is None else set(names)
        self._texts = texts or {}
        self._schemas: dict[str, Mapping[str, Any]] = {}
        self._spellings: dict[str, set[str]] = {}
        self._short: dict[str, str] = {}
        for tool in tools:
            function = tool["function"]
            name = function["name"]
            if allowed is not None and name not in allowed:
                continue
            self._schemas[name] = function.get("parameters") or {}
            for spelling in (name, upstream_name(name)):
                self._spellings.setdefault(spelling.casefold(), set()).add(name)
                self._short.setdefault(spelling, name)

    def __bool__(self) -> bool:
        return bool(self._schemas)

    def resolve(self, written: str) -> str | None:
        """The declared name that `written` means, or None."""
        if written in self._schemas:
            return written
        if written in self._short:
            return self._short[written]
        for candidate in _without_prefixes(written):
            if candidate in self._schemas:
                return candidate
            meant = self._spellings.get(candidate.casefold(), set())
            if len(meant) > 1:
                return None
            if meant:
                return next(iter(meant))
        return None

    def schema(self, written: str) -> Mapping[str, Any]:
        """The parameter schema of the tool that `written` means; {} if it means none."""
        name = self.resolve(written)
        return self._schemas[name] if name is not None else {}

    def declares(self, written: str, parameter: str) -> bool:
        """Whether the tool that `written` means has a parameter of that name."""
        return parameter in properties_of(self.schema(written))

    def text_of(self, written: str) -> str | None:
        """The parameter in which the tool that `written` means gets its one text, if it is a tool of that kind."""
        return self._texts.get(self.resolve(written) or "")

    def needs_nothing(self, written: str) -> bool:
        """Whether the tool that `written` means may be called without arguments."""
        return self.resolve(written) is not None and not required_of(self.schema(written))


def allowed_by(request: ChatRequest) -> Declared:
    """The tools that an answer to this request may call: none of them where the choice is `none`."""
    choice = request.tool_choice
    return Declared([] if choice.mode == "none" else request.tools, choice.names, request.text_tools)


def _without_prefixes(name: str) -> Iterable[str]:
    """The name as it is, then with one more dotted or namespaced prefix taken off each time."""
    name = name.strip()
    yield name
    for separator in _PREFIX.finditer(name[:MAX_NAME]):
        rest = name[separator.end() :]
        if rest:
            yield rest
