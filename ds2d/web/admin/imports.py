"""Taking another config in: merged into ours, or in its place.

Rule: merging, the first one wins for keys and accounts, scalars of the newcomer count unless they are empty, sections and maps
are merged by name; replacing, the password hash stays where the newcomer brings none, or the import would lock its sender out.
Surprise: a listing is no config. One that holds masks is refused, with the place of the first.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

from ds2d.config.notices import ConfigErrors, child
from ds2d.config.schema import Config
from ds2d.config.strict_json import load
from ds2d.core.redact import MASK
from ds2d.web.admin import account_edits, keys

MODES = ("merge", "replace")
EXTRAS = frozenset({"config", "mode"})


def unwrapped(body: dict[str, Any], query_mode: str | None) -> tuple[dict[str, Any], str]:
    """The config in a body and how to take it in. Raises 400."""
    mode: Any = query_mode or "merge"
    config: Any = body
    if "config" in body and set(body) <= EXTRAS:
        config, mode = body["config"], body.get("mode", mode)
    if isinstance(config, str):
        config = _decoded(config)
    if not isinstance(config, dict):
        raise keys.bad("config: must be an object")
    if mode not in MODES:
        raise keys.bad(f"mode: must be one of {', '.join(MODES)}")
    if place := _first_mask("", config):
        raise keys.bad(f"{place}: is masked, as in a listing: import an export instead")
    return config, str(mode)


def replace(document: dict[str, Any], newcomer: dict[str, Any]) -> None:
    """Put the newcomer in the document's place."""
    kept = (document.get("admin") or {}).get("password_hash")
    document.clear()
    document.update(newcomer)
    admin = document.get("admin") or {}
    if kept and not admin.get("password_hash"):
        document["admin"] = {**admin, "password_hash": kept}


def merge(document: dict[str, Any], newcomer: dict[str, Any], config: Config) -> None:
    """Add the newcomer to the document."""
    for name, value in newcomer.items():
        if name in keys.LISTS:
            _merge_keys(document, value, config)
        elif name == "accounts":
            _merge_accounts(document, value, config)
        elif name == "upstreams":
            _merge_named(document.setdefault(name, []), value)
        elif not _is_empty(value):
            document[name] = _merged(document.get(name), value)


def _merge_keys(document: dict[str, Any], entries: Any, config: Config) -> None:
    for entry in _as_list(entries, "keys"):
        text = entry.get("key") if isinstance(entry, dict) else entry
        if isinstance(text, str) and text and keys.is_known(document, config, text):
            continue
        document.setdefault("keys", []).append(entry)


def _merge_accounts(document: dict[str, Any], entries: Any, config: Config) -> None:
    standing = document.setdefault("accounts", [])
    for entry in _as_list(entries, "accounts"):
        taken = {name.lower() for other in standing for name in account_edits.names(other, config)}
        if not any(name.lower() in taken for name in account_edits.names(entry, config)):
            standing.append(entry)


def _merge_named(standing: Any, entries: Any) -> None:
    for entry in _as_list(entries, "upstreams"):
        name = entry.get("name") if isinstance(entry, dict) else None
        at = next((at for at, old in enumerate(standing) if isinstance(old, dict) and old.get("name") == name), None)
        if at is None:
            standing.append(entry)
        else:
            standing[at] = _merged(standing[at], entry)


def _merged(old: Any, new: Any) -> Any:
    """The newcomer's value over the old one; what is empty in the newcomer counts as not said."""
    if isinstance(new, dict):
        base = old if isinstance(old, dict) else {}
        return {**base, **{name: _merged(base.get(name), value) for name, value in new.items() if not _is_empty(value)}}
    return old if _is_empty(new) else new


def _is_empty(value: Any) -> bool:
    return value is None or value in ("", [])


def _decoded(text: str) -> Any:
    """A config as text: JSON, or base64 of it as the export gives it."""
    try:
        raw = text.encode() if text.lstrip().startswith("{") else base64.b64decode(text, validate=True)
        return load(raw)
    except (ValueError, binascii.Error):
        raise keys.bad("config: is neither JSON nor base64 of it") from None
    except ConfigErrors as errors:
        if errors.incomplete:
            raise keys.bad("config: is neither JSON nor base64 of it") from None
        raise keys.bad("; ".join(map(str, errors.errors[:20]))) from None


def _first_mask(path: str, value: Any) -> str:
    if isinstance(value, str):
        return path if MASK in value and len(value) < 32 else ""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    secret_places = ("keys", "api_keys", "accounts", "upstreams", "admin", "vercel")
    for name, item in pairs:
        if path or name in secret_places:
            if isinstance(name, str) and name.startswith(("_", "remark", "name")):
                continue
            if found := _first_mask(child(path, name), item):
                return found
    return ""


def _as_list(value: Any, path: str) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise keys.bad(f"{path}: must be a list")
    return value
