"""The settings that may change while the daemon runs, read and written by the schema's own metadata.

Rule: which keys there are, their meaning, bounds and defaults come from `describe.keys`; nothing is listed here twice. What a
variable or flag holds is shown as such and refused, for the file would not count.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ds2d.config.describe import Key, keys, value_at
from ds2d.config.notices import child, nearest
from ds2d.config.schema import Config
from ds2d.core.errors import ErrorKind, GatewayError

WHOLE = ("model_aliases",)
"""Settings whose value is an object: a PUT replaces it."""

APART = frozenset({"admin.password_hash", "admin.jwt_valid_after_unix"})
"""What changes by the password's own route only."""

ONLY_SHOWN = frozenset(
    {
        "env_backed", "needs_vercel_sync", "generation", "persisted", "origins", "bounds", "warnings", "success",
        "notice",
    }
)  # fmt: skip
"""What GET adds: accepted when it is posted back, and of no effect."""


KEPT = {
    "admin.has_password_hash": "changes with the password: POST /admin/settings/password",
    "admin.default_password_warning": "is only shown",
    "admin.jwt_valid_after_unix": "cannot be changed here: POST /admin/settings/password ends all logins, or set it in the file",
}
"""What GET adds to a section, and why it cannot be set: accepted as it is, refused otherwise."""


def settings() -> dict[str, Key]:
    """Every key that counts without a restart and is neither an entry of a list nor a secret, by path."""
    return {key.path: key for key in keys() if key.settings or not (key.restart or key.inside or _is_elsewhere(key))}


def _is_elsewhere(key: Key) -> bool:
    """Whether a key has a place of its own in the admin API: entries, the password, secrets."""
    return "." not in key.path or key.kind in ("secret", "object", "anything") or key.path in APART


def read(config: Config) -> dict[str, Any]:
    """The values in force as nested sections, where they come from if not from file or default, and of each its bounds,
    default, meaning and origin."""
    values: dict[str, Any] = {}
    table = settings()
    for path in table:
        *sections, name = path.split(".")
        inner = values
        for section in sections:
            inner = inner.setdefault(section, {})
        inner[name] = _value(config, path)
    values["admin"] |= _kept(config)
    values["origins"] = {path: config.origin(path) for path in table if _is_held(config.origin(path))}
    values["bounds"] = {path: _bounds(key) | {"origin": config.origin(path)} for path, key in table.items()}
    return values


def _kept(config: Config) -> dict[str, Any]:
    """What is shown beside the settings of `admin`; the paths are those of KEPT."""
    return {
        "has_password_hash": bool(config.admin.password_hash),
        "default_password_warning": False,
        "jwt_valid_after_unix": config.admin.jwt_valid_after_unix,
    }


def _value(config: Config, path: str) -> Any:
    """The value in force, as JSON has it."""
    value = value_at(config, path)
    return list(value) if isinstance(value, tuple) else dict(value) if isinstance(value, Mapping) else value


def change(document: dict[str, Any], config: Config, posted: dict[str, Any]) -> None:
    """Put posted settings into a document. Raises 400 with the path of an unknown or a held one; values are the store's
    to check."""
    for path, value in _flat(posted):
        if path in KEPT:
            if value != _kept(config)[path.removeprefix("admin.")]:
                raise _bad(path, KEPT[path])
            continue
        origin = config.origin(path)
        if _is_held(origin) and value != _value(config, path):
            raise _bad(path, f"is set by {'a flag' if origin == 'flag' else origin} and cannot be changed here")
        if not _is_held(origin) and not (value == _value(config, path) and _is_silent(document, path)):
            _set(document, path, value)


def _flat(posted: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Path and value of each posted setting."""
    table = settings()
    sections = {path[: at.start()] for path in table for at in re.finditer(r"\.", path)}
    for name, value in posted.items():
        path = child(above, name)
        if path in ONLY_SHOWN or name.startswith("_"):
            continue
        if path in table or path in KEPT:
            yield path, value
        elif path not in sections:
            raise _no_setting(path, table if above else sections)
        elif not isinstance(value, dict):
            raise _bad(path, "must be an object")
        else:
            yield from _flat(value, path)


def _no_setting(path: str, near: Iterable[str]) -> GatewayError:
    """Why a path cannot be set here; a key of the config is not called unknown."""
    known = next((key for key in keys() if key.path == path), None)
    if known is None:
        return _bad(path, "unknown field", nearest(path, near))
    if known.restart:
        return _bad(path, "needs a restart: change it in the config file")
    return _bad(path, "cannot be changed here" + (": POST /admin/settings/password" if path in APART else ""))


def _set(document: dict[str, Any], path: str, value: Any) -> None:
    *sections, name = path.split(".")
    if sections == ["claude_mapping"] and "claude_model_mapping" in document and "claude_mapping" not in document:
        sections = ["claude_model_mapping"]
    for section in sections:
        if not isinstance(document.get(section), dict):
            document[section] = {}
        document = document[section]
    if value is None:
        document.pop(name, None)
    else:
        document[name] = value


def _is_silent(document: Any, path: str) -> bool:
    """Whether a document says nothing of a setting, so that the value in force need not be written down."""
    for name in path.split("."):
        if not isinstance(document, dict) or name not in document:
            return True
        document = document[name]
    return not isinstance(document, dict)


def _is_held(origin: str) -> bool:
    return origin == "flag" or origin.startswith("$")


def _bounds(key: Key) -> dict[str, Any]:
    found: dict[str, Any] = {"type": key.kind, "default": key.default, "about": key.text}
    if key.nullable:
        found["nullable"] = True
    if key.choices:
        found["choices"] = list(key.choices)
    if key.least is not None:
        found["min"] = key.least
    if key.most is not None:
        found["max"] = key.most
    return found


def _bad(path: str, message: str, hint: str = "") -> GatewayError:
    return GatewayError(ErrorKind.INVALID_REQUEST, f"{path}: {message}" + (f" ({hint})" if hint else ""))
