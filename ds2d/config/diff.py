"""What differs between two config documents, told without their secrets.

Rule: differences are found in what stands in the files and shown with every secret masked, so a changed key shows as changed
though its mask may be the same.
Surprise: lists are compared by their entries, not by their places, or one removed account would change all after it.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from typing import Any

import msgspec

from ds2d.config.notices import child
from ds2d.config.references import is_reference
from ds2d.core.redact import mask, redact

_ABSENT = object()


class Change(msgspec.Struct, frozen=True, omit_defaults=True):
    """One difference. `kind`: added, removed or changed; `old` and `new` are masked."""

    path: str
    kind: str
    old: Any = None
    new: Any = None

    def __str__(self) -> str:
        old, new = json.dumps(self.old, ensure_ascii=False), json.dumps(self.new, ensure_ascii=False)
        match self.kind:
            case "added":
                return f"+ {self.path} = {new}"
            case "removed":
                return f"- {self.path} = {old}"
            case _:
                return f"~ {self.path} = {old} -> {new}"


def masked(document: dict[str, Any]) -> dict[str, Any]:
    """The document with secrets masked in their places; references stay, for they are none."""
    return {name: _masked(name, value) for name, value in document.items()}


def changes(old: dict[str, Any], new: dict[str, Any]) -> list[Change]:
    """Every difference, in the order of the documents."""
    return list(_walk("", old, new, masked(old), masked(new)))


def _masked(name: str, value: Any) -> Any:
    if name in ("keys", "api_keys") and isinstance(value, list):
        return [mask(item) if isinstance(item, str) else _kept(item) for item in value]
    if name == "upstreams" and isinstance(value, list):
        return [_upstream(item) for item in value]
    return _kept(value)


def _kept(value: Any) -> Any:
    """Redacted by names and forms, references left as they are."""
    if isinstance(value, dict) and not is_reference(value):
        return {name: item if is_reference(item) else _field(name, item) for name, item in value.items()}
    if isinstance(value, list):
        return [_kept(item) for item in value]
    return value if is_reference(value) else redact(value)


def _field(name: str, value: Any) -> Any:
    if isinstance(value, dict | list):
        return _kept(value)
    return redact({name: value})[name]


def _upstream(value: Any) -> Any:
    if not isinstance(value, dict):
        return _kept(value)
    shown = _kept(value)
    headers = value.get("headers")
    if isinstance(headers, dict):
        shown["headers"] = {name: mask(text) if isinstance(text, str) else text for name, text in headers.items()}
    return shown


def _walk(path: str, old: Any, new: Any, shown_old: Any, shown_new: Any) -> Iterator[Change]:
    if old is _ABSENT:
        yield Change(path, "added", None, shown_new)
    elif new is _ABSENT:
        yield Change(path, "removed", shown_old, None)
    elif isinstance(old, dict) and isinstance(new, dict) and isinstance(shown_old, dict) and isinstance(shown_new, dict):
        for name in [*old, *(name for name in new if name not in old)]:
            a, b = old.get(name, _ABSENT), new.get(name, _ABSENT)
            yield from _walk(child(path, name), a, b, shown_old.get(name), shown_new.get(name))
    elif isinstance(old, list) and isinstance(new, list):
        yield from _lists(path, old, new, shown_old, shown_new)
    elif json.dumps(old) != json.dumps(new):
        yield Change(path, "changed", shown_old, shown_new)


def _lists(path: str, old: list[Any], new: list[Any], shown_old: list[Any], shown_new: list[Any]) -> Iterator[Change]:
    before, after = ([json.dumps(item, sort_keys=True) for item in items] for items in (old, new))
    for kind, a, b, c, d in difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if kind == "equal":
            continue
        pairs = min(b - a, d - c)
        for at in range(pairs):
            yield from _walk(child(path, c + at), old[a + at], new[c + at], shown_old[a + at], shown_new[c + at])
        for at in range(a + pairs, b):
            yield Change(child(path, at), "removed", shown_old[at], None)
        for at in range(c + pairs, d):
            yield Change(child(path, at), "added", None, shown_new[at])
