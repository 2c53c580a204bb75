"""The settings that may change while the daemon runs, read and written by the schema's own metadata.

Rule: which keys there are, their bounds and defaults come from `describe.keys`; nothing is listed here twice. What a variable
or flag holds is shown as such and refused, for the file would not count.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ds2d.config.describe import Key, keys, value_at
from ds2d.config.notices import child, nearest
from ds2d.config.schema import Config
from ds2d.core.errors import ErrorKind, GatewayError

WHOLE = ("model_aliases",)
"""Settings whose value is an object: a PUT replaces it."""

ONLY_SHOWN = frozenset(
    {
        "env_backed", "needs_vercel_sync", "generation", "persisted", "origins", "bounds", "warnings", "admin.has_password_hash",
        "admin.default_password_warning", "admin.jwt_valid_after_unix", "success",
    }
)  # fmt: skip
"""What GET adds: accepted when it is posted back, and of no effect."""


def settings() -> dict[str, Key]:
    """Every key of the settings, by path."""
    return {key.path: key for key in keys() if key.settings and not key.inside}


def read(config: Config) -> dict[str, Any]:
    """The values in force as nested sections, where they come from if not from file or default, and their bounds."""
    values: dict[str, Any] = {}
    table = settings()
    for path in table:
        section, _, name = path.partition(".")
        value = value_at(config, path)
        if name:
            values.setdefault(section, {})[name] = value
        else:
            values[section] = dict(value)
    values["admin"] |= {
        "has_password_hash": bool(config.admin.password_hash),
        "default_password_warning": False,
        "jwt_valid_after_unix": config.admin.jwt_valid_after_unix,
    }
    values["origins"] = {path: config.origin(path) for path in table if _is_held(config.origin(path))}
    values["bounds"] = {path: _bounds(key) for path, key in table.items()}
    return values


def change(document: dict[str, Any], config: Config, posted: dict[str, Any]) -> None:
    """Put posted settings into a document. Raises 400 with the path of an unknown or a held one; values are the store's
    to check."""
    for path, value in _flat(posted):
        origin = config.origin(path)
        if _is_held(origin) and value != value_at(config, path):
            raise _bad(path, f"is set by {'a flag' if origin == 'flag' else origin} and cannot be changed here")
        if not _is_held(origin) and not (value == value_at(config, path) and _is_silent(document, path)):
            _set(document, path, value)


def _flat(posted: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Path and value of each posted setting."""
    table = settings()
    sections = {path.partition(".")[0] for path in table}
    for name, value in posted.items():
        if name in ONLY_SHOWN or name.startswith("_"):
            continue
        if name in WHOLE:
            yield name, value
        elif name not in sections:
            raise _bad(child("", name), "unknown field", nearest(name, sections))
        elif not isinstance(value, dict):
            raise _bad(name, "must be an object")
        else:
            yield from _section(name, value, table)


def _section(section: str, posted: dict[str, Any], table: dict[str, Key]) -> Iterator[tuple[str, Any]]:
    for name, value in posted.items():
        path = child(section, name)
        if path in table:
            yield path, value
        elif path not in ONLY_SHOWN:
            raise _bad(path, "unknown field", nearest(path, table))


def _set(document: dict[str, Any], path: str, value: Any) -> None:
    section, _, name = path.partition(".")
    if not name:
        document[section] = {} if value is None else value
        return
    if section == "claude_mapping" and "claude_model_mapping" in document and section not in document:
        section = "claude_model_mapping"
    inner = document.get(section)
    if not isinstance(inner, dict):
        inner = document[section] = {}
    if value is None:
        inner.pop(name, None)
    else:
        inner[name] = value


def _is_silent(document: dict[str, Any], path: str) -> bool:
    """Whether a document says nothing of a setting, so that the value in force need not be written down."""
    section, _, name = path.partition(".")
    inner = document.get(section)
    return not isinstance(inner, dict) or (bool(name) and name not in inner)


def _is_held(origin: str) -> bool:
    return origin == "flag" or origin.startswith("$")


def _bounds(key: Key) -> dict[str, Any]:
    found: dict[str, Any] = {"type": key.kind}
    if key.choices:
        found["choices"] = list(key.choices)
    if key.least is not None:
        found["min"] = key.least
    if key.most is not None:
        found["max"] = key.most
    return found


def _bad(path: str, message: str, hint: str = "") -> GatewayError:
    return GatewayError(ErrorKind.INVALID_REQUEST, f"{path}: {message}" + (f" ({hint})" if hint else ""))
