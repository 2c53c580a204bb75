"""Bytes to a `Config`: pure, with all errors at once.

Rule: everything outside the bytes comes in by argument (environment, flags, how to read a file), so the same arguments
give the same snapshot. What the reference system's file holds is accepted as it is (config.md 2, last paragraph).
Surprise: several spellings mean one thing (`api_keys`, `claude_model_mapping`, a plain string as a key). They are
read with the paths they have in the file, so that an error can be found there.
"""

from __future__ import annotations

import difflib
import os.path
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec
import msgspec.inspect as kinds
from msgspec import UNSET

from ds2d.config.checks import Check
from ds2d.config.describe import keys
from ds2d.config.environment import FALLBACKS, OVERRIDES, overlay
from ds2d.config.notices import ConfigErrors, Notice, child
from ds2d.config.reader import Reader
from ds2d.config.references import Sources, digest_of
from ds2d.config.schema import Config, struct_type
from ds2d.config.strict_json import load
from ds2d.core.settings import KeySpec, Secret

NO_EFFECT = ("proxies", "compat", "current_input_file", "thinking_injection", "history_split")
NO_EFFECT_INSIDE = (("auto_delete", "mode"), ("runtime", "token_refresh_interval_hours"))
"""Keys of the reference system that mean nothing here; also `accounts[].proxy_id`."""

POLL_DEEPSEEK = 30.0


def parse(
    raw: bytes,
    *,
    environ: Mapping[str, str],
    base_dir: str,
    read_file: Callable[[str], bytes],
    flags: Mapping[str, Any] | None = None,
    env_backed: bool = False,
) -> Config:
    """The config in these bytes. Relative paths start at `base_dir`; `flags` are values by path that count before all others.

    Raises ConfigErrors with everything that is wrong. What is odd but holds is in `warnings`.
    """
    document = load(raw)
    warnings: list[Notice] = []
    sources = Sources(environ, base_dir, read_file)
    known = _respelled(_with_effect(document, warnings))
    known, origins = _overlaid(known, environ, flags or {})
    reader = Reader(sources, origins, _elsewhere)
    api_keys = known.pop("api_keys", None) or []
    values = reader.fields(Config, known)
    key_paths = _join_api_keys(reader, values, api_keys)
    check = Check(values, key_paths, _upstream_names(known), sources)
    check.run()
    if errors := reader.errors + check.errors:
        raise ConfigErrors(errors)
    config = Config(
        **values,
        digest=digest_of(raw),
        warnings=(*warnings, *reader.warnings, *check.warnings),
        origins=reader.origins,
        files=sources.files,
        env_backed=env_backed,
    )
    return _completed(config, environ, base_dir)


def _overlaid(
    document: dict[str, Any], environ: Mapping[str, str], flags: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, str]]:
    """The document with what flags and variables say, and where each of those values is from (config.md 4)."""
    before = overlay(environ, OVERRIDES) | {path: (value, "flag") for path, value in flags.items()}
    after = overlay(environ, FALLBACKS)
    document, origins = dict(document), {}
    for path, (value, origin) in (*after.items(), *before.items()):
        section, _, name = path.partition(".")
        inner = document.get(section) or {}
        if isinstance(inner, dict) and (path in before or name not in inner):
            document[section] = {**inner, name: value}
            origins[path] = origin
    return document, origins


def _with_effect(document: dict[str, Any], warnings: list[Notice]) -> dict[str, Any]:
    """The document without the reference system's keys that mean nothing here, which are told in one warning."""
    kept = dict(document)
    dropped = [name for name in NO_EFFECT if kept.pop(name, UNSET) is not UNSET]
    for section, name in NO_EFFECT_INSIDE:
        if isinstance(kept.get(section), dict) and name in kept[section]:
            kept[section] = {key: value for key, value in kept[section].items() if key != name}
            dropped.append(f"{section}.{name}")
    accounts = kept.get("accounts")
    if isinstance(accounts, list) and any(isinstance(account, dict) and "proxy_id" in account for account in accounts):
        kept["accounts"] = [_without(account, "proxy_id") for account in accounts]
        dropped.append("accounts[].proxy_id")
    if dropped:
        warnings.append(Notice("", f"kept, but without effect: {', '.join(dropped)}"))
    return kept


def _respelled(document: dict[str, Any]) -> dict[str, Any]:
    """The document with the names and defaults that depend on another key's value."""
    if "claude_model_mapping" in document:
        mapping = document.pop("claude_model_mapping")
        document.setdefault("claude_mapping", mapping)
    upstreams = document.get("upstreams")
    if isinstance(upstreams, list):
        document["upstreams"] = [_with_poll(upstream) for upstream in upstreams]
    return document


def _with_poll(upstream: Any) -> Any:
    """The DeepSeek API is polled less often (config.md 2, `.poll_seconds`)."""
    if isinstance(upstream, dict) and "poll_seconds" not in upstream and _is_deepseek(upstream):
        return {**upstream, "poll_seconds": POLL_DEEPSEEK}
    return upstream


def _is_deepseek(upstream: dict[str, Any]) -> bool:
    flavour = upstream.get("flavour", "auto")
    if flavour != "auto":
        return bool(flavour == "deepseek")
    try:
        host = urlsplit(str(upstream.get("base_url"))).hostname or ""
    except ValueError:
        return False
    return host == "deepseek.com" or host.endswith(".deepseek.com")


def _join_api_keys(reader: Reader, values: dict[str, Any], api_keys: Any) -> list[str]:
    """Put `api_keys` behind `keys`; returns the path of each. One that stands in both gives its name and remark to the first."""
    keys: list[Any] = list(values["keys"]) if isinstance(values.get("keys"), tuple) else []
    paths = [child("keys", index) for index in range(len(keys))]
    more = reader.read(kinds.VarTupleType(struct_type(KeySpec)), api_keys, "api_keys")
    for index, entry in enumerate(more if isinstance(more, tuple) else ()):
        twin = next((at for at, key in enumerate(keys) if entry is not UNSET and _plain_twin(key, entry)), None)
        if twin is None:
            keys.append(entry)
            paths.append(child("api_keys", index))
        else:
            keys[twin] = entry
    values["keys"] = tuple(keys)
    return paths


def _upstream_names(document: dict[str, Any]) -> list[str]:
    """The names of all upstreams, as far as they have one: a fault in an upstream is no fault of what refers to it."""
    upstreams = document.get("upstreams")
    entries = upstreams if isinstance(upstreams, list) else []
    return [entry["name"] for entry in entries if isinstance(entry, dict) and isinstance(entry.get("name"), str)]


def _plain_twin(key: Any, entry: KeySpec) -> bool:
    return isinstance(key, KeySpec) and key == KeySpec(key=key.key) and key.digest is not None and key.digest == entry.digest


def _completed(config: Config, environ: Mapping[str, str], base_dir: str) -> Config:
    """The snapshot with what follows from all of it."""
    folder = config.server.state_dir or environ.get("STATE_DIRECTORY", "").partition(":")[0] or "state"
    admin_key = environ.get("DS2API_ADMIN_KEY", "").strip()
    return msgspec.structs.replace(
        config,
        state_dir=os.path.normpath(os.path.join(base_dir, folder)),
        admin_key=Secret(admin_key) if admin_key and not config.admin.password_hash else None,
    )


def _without(value: Any, name: str) -> Any:
    return {key: item for key, item in value.items() if key != name} if isinstance(value, dict) else value


def _elsewhere(name: str) -> str | None:
    """The section with a name like this, or the path of the key, if just one section has it."""
    paths = [key.path for key in keys() if not key.inside]
    sections = {path.partition(".")[0] for path in paths}
    if near := difflib.get_close_matches(name, sections, 1, 0.8):
        return near[0]
    found = [path for path in paths if path.rpartition(".")[2] == name]
    return found[0] if len(found) == 1 else None
