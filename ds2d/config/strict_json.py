"""JSON as config.json must be: UTF-8, an object, every key once, nothing that is not JSON.

Rule: what was read can be written again, so numbers are finite, strings have no lone surrogates, depth is bounded.
Surprise: the standard reader keeps the last of two equal keys in silence, so objects note their duplicates while they
are made, and a walk afterwards says where they are.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from typing import Any, NoReturn

from ds2d.config.notices import ConfigErrors, Notice, child

MAX_DEPTH = 64


class _Object(dict[str, Any]):
    """An object of the document with the keys that came more than once."""

    duplicates: tuple[str, ...] = ()


def load(raw: bytes) -> dict[str, Any]:
    """The document. Raises ConfigErrors; `incomplete` is set where the bytes may be half of a good file."""
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigErrors([Notice("", f"not UTF-8 at byte {error.start}")], incomplete=True) from None
    try:
        document = json.loads(text, object_pairs_hook=_object, parse_constant=_no_constant, parse_float=_finite)
    except json.JSONDecodeError as error:
        message = f"not JSON: {error.msg[0].lower()}{error.msg[1:]}, line {error.lineno} column {error.colno}"
        raise ConfigErrors([Notice("", message)], incomplete=True) from None
    except RecursionError:
        raise ConfigErrors([Notice("", f"nested deeper than {MAX_DEPTH} levels")]) from None
    except ValueError as error:
        raise ConfigErrors([Notice("", f"not JSON: {error}")]) from None
    if not isinstance(document, dict):
        raise ConfigErrors([Notice("", "must be a JSON object")])
    if errors := _faults(document):
        raise ConfigErrors(errors)
    return document


def dump(document: dict[str, Any], like: bytes = b"") -> bytes:
    """The document as bytes to write: key order as it is, indented like `like`, two blanks where that says nothing."""
    return (json.dumps(document, ensure_ascii=False, indent=_indent(like), allow_nan=False) + "\n").encode()


def edited(document: dict[str, Any], change: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """What `change` makes of a document. A section that is null, as the reference system writes an empty one, is not there for
    it, and stays null unless it is given a value."""
    order = list(document)
    said = {name: value for name, value in document.items() if value is not None}
    change(said)
    kept = {name: said.pop(name, None) for name in order if name in said or document[name] is None}
    return kept | said


def _indent(raw: bytes) -> str | int:
    for line in raw.splitlines()[1:]:
        blank = line[: len(line) - len(line.lstrip(b" \t"))]
        if blank and blank != line:
            return blank.decode()
    return 2


def _object(pairs: list[tuple[str, Any]]) -> _Object:
    made = _Object(pairs)
    if len(made) != len(pairs):
        times = Counter(name for name, _ in pairs)
        made.duplicates = tuple(name for name, count in times.items() if count > 1)
    return made


def _faults(document: dict[str, Any]) -> list[Notice]:
    """Duplicate keys, lone surrogates and too deep nesting, wherever they are."""
    errors: list[Notice] = []
    pending: list[tuple[str, Any, int]] = [("", document, 1)]
    while pending:
        path, value, depth = pending.pop()
        if depth > MAX_DEPTH:
            errors.append(Notice(path, f"nested deeper than {MAX_DEPTH} levels"))
        elif isinstance(value, dict):
            errors += [Notice(child(path, name), "stands here more than once") for name in getattr(value, "duplicates", ())]
            errors += [Notice(path, "a key holds half a character") for name in value if not _whole(name)]
            pending += [(child(path, name), item, depth + 1) for name, item in value.items() if _whole(name)]
        elif isinstance(value, list):
            pending += [(child(path, index), item, depth + 1) for index, item in enumerate(value)]
        elif isinstance(value, str) and not _whole(value):
            errors.append(Notice(path, "holds half a character"))
    return errors


def _whole(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is out of range")
    return value
