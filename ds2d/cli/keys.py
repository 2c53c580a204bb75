"""API keys: add, list, show, revoke, restore, and what they used.

  ds2d keys add NAME [--max-tokens N ...]   make a key; it is shown this once, the config keeps its hash
  ds2d keys list [--deleted]                every key with its limits
  ds2d keys show KEY                        one key; KEY is its name, id (key_...), $env:NAME, or the key itself
  ds2d keys revoke KEY                      refused from now on; its usage stays
  ds2d keys restore KEY                     take that back
  ds2d keys usage [KEY]                     tokens and requests by key, from the ledger

A running daemon takes changes up by itself, within a second.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import sqlite3
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ds2d.cli.reading import read_config, tell
from ds2d.config.files import ConflictError
from ds2d.config.notices import ConfigErrors
from ds2d.config.schema import Config
from ds2d.config.source import Source, SourceError
from ds2d.config.store import ConfigStore
from ds2d.core.errors import GatewayError
from ds2d.core.secrets import hash_key
from ds2d.core.settings import KeySpec
from ds2d.state import usage
from ds2d.web.admin import keys as entries

NUMBERS = ("max_tokens", "max_prompt_tokens", "max_completion_tokens", "active_days", "max_inflight", "rpm", "tpm")
SWITCHES = ("admin", "priority")


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of this verb."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    add = actions.add_parser("add", help="make a key")
    add.add_argument("name", help="what people call it")
    add.add_argument("--models", metavar="GLOB", action="append", help="a model it may use; may be repeated (default: all)")
    add.add_argument("--quota-window", choices=("total", "day", "month"), help="what the token quotas count by")
    add.add_argument("--expires-at", metavar="TIME", help="RFC 3339, such as 2027-01-01T00:00:00Z")
    add.add_argument("--weight", type=float, help="share of the queue between keys (1)")
    add.add_argument("--remark", help="a note")
    for name in NUMBERS:
        add.add_argument(f"--{name.replace('_', '-')}", type=int, metavar="N")
    for name in SWITCHES:
        add.add_argument(f"--{name}", action="store_true", default=None, help=f"give it the right `{name}`")
    listing = actions.add_parser("list", help="every key with its limits")
    listing.add_argument("--deleted", action="store_true", help="revoked ones too")
    for action, what in (("show", "one key"), ("revoke", "refuse it from now on"), ("restore", "take a revocation back")):
        actions.add_parser(action, help=what).add_argument("key", help="name, id, reference ($env:NAME), or the key itself")
    actions.add_parser("usage", help="what the keys used").add_argument(
        "key", nargs="?", help="name, id, reference ($env:NAME), or the key itself"
    )
    for verb in actions.choices.values():
        verb.add_argument("--config", type=Path, metavar="FILE", help="the config file")
        verb.add_argument("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace) -> int:
    """Do it. 1 if the config is not sound, cannot be written, or has no such key."""
    action: Callable[[argparse.Namespace], int] = ACTIONS[options.action]
    try:
        return action(options)
    except GatewayError as error:
        return _refuse(error.message)
    except ConflictError:
        return _refuse("somebody else changed the config in this moment: try again")
    except OSError as error:
        return _refuse(f"the config cannot be written: {os.strerror(error.errno or 0)}")
    except sqlite3.Error as error:
        return _refuse(f"the ledger cannot be read: {error}")
    except (ConfigErrors, SourceError) as error:
        tell(error)
        return 1


def _add(options: argparse.Namespace) -> int:
    key = f"sk-{secrets.token_hex(24)}"
    names = (*NUMBERS, *SWITCHES, "models", "quota_window", "expires_at", "weight", "remark")
    fields = {"name": options.name, **{name: value for name in names if (value := getattr(options, name)) is not None}}
    _change(options, lambda document, config: entries.add(document, config, key, fields, _now()))
    if options.json:
        print(json.dumps({"key": key, "name": options.name}))
    else:
        print(f"{key}\n\nThis is the only time that it is shown; the config keeps its hash.")
    return 0


def _list(options: argparse.Namespace) -> int:
    config = _config(options)
    found = [entries.describe(spec, text) for text, spec in entries.listed(config, deleted=options.deleted)]
    if options.json:
        print(json.dumps(found, ensure_ascii=False))
        return 0
    for entry in found:
        limits = {name: value for name, value in entry.items() if name not in ("id", "key", "name", "created_at", "deleted_at")}
        said = " ".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in limits.items())
        gone = "  REVOKED" if entry.get("deleted_at") else ""
        print(f"{entry['id'] or '-':20}  {entry.get('name') or '-':20}  {entry['key']:16}  {said}{gone}".rstrip())
    return 0


def _show(options: argparse.Namespace) -> int:
    config = _config(options)
    spec = _spec(config, options.key)
    entry = entries.describe(spec, entries.masked_key(spec))
    row = usage.keys(Path(config.state_dir)).get(spec.digest or "")
    entry["used"] = _shown(row) if row else None
    if options.json:
        print(json.dumps(entry, ensure_ascii=False))
        return 0
    for name, value in entry.items():
        print(f"{name:22} {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}")
    return 0


def _revoke(options: argparse.Namespace) -> int:
    def revoke(document: dict[str, Any], config: Config) -> None:
        if _spec(config, options.key).deleted_at is not None:
            raise entries.bad("this key is revoked already; `ds2d keys restore` takes that back")
        entries.delete(*_place(document, config, options.key), _now())

    _change(options, revoke)
    return _done(options, "revoked")


def _restore(options: argparse.Namespace) -> int:
    _change(options, lambda document, config: entries.change(*_place(document, config, options.key), {}))
    return _done(options, "restored")


def _usage(options: argparse.Namespace) -> int:
    config = _config(options)
    rows = list(usage.keys(Path(config.state_dir)).values())
    if options.key is not None:
        digest = _spec(config, options.key).digest
        rows = [row for row in rows if row["key"] == digest]
    rows = list(map(_shown, rows))
    if options.json:
        print(json.dumps(rows, ensure_ascii=False))
        return 0
    print(f"{'name':20} {'requests':>10} {'prompt':>12} {'completion':>12}  last used")
    for row in rows:
        counts = f"{row['requests']:10} {row['prompt_tokens']:12} {row['completion_tokens']:12}"
        print(f"{row['name']:20} {counts}  {row['last_used_at'] or 'never'}")
    return 0


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    """What a key used, its hash left out and times for people."""
    times = {name: _time(row[name]) for name in ("first_used_at", "last_used_at")}
    return {**row, "key": entries.key_id(row["key"]), **times}


ACTIONS: dict[str, Callable[[argparse.Namespace], int]] = {
    "add": _add,
    "list": _list,
    "show": _show,
    "revoke": _revoke,
    "restore": _restore,
    "usage": _usage,
}


def _config(options: argparse.Namespace) -> Config:
    config = read_config(options.config, os.environ, Path.cwd())
    if config is None:
        raise SystemExit(1)
    return config


def _change(options: argparse.Namespace, edit: Callable[[dict[str, Any], Config], None]) -> None:
    """Write a change to the config file, through the same door as every other one."""
    store = ConfigStore(Source.from_environment(os.environ, options.config, cwd=Path.cwd()), keep_history=False)
    if store.current.env_backed:
        raise entries.bad("the config comes from a variable, not from a file: change it there")
    is_new = not store.path.exists()
    store.write(lambda document: edit(document, store.current))
    if is_new:
        print(f"warning: there was no {store.path}: it was made now, and holds this alone", file=sys.stderr)


def _spec(config: Config, wanted: str) -> KeySpec:
    """The key of this name, id, reference or text. One whose variable or file is not to be had here has no id."""
    for spec in config.keys:
        if spec.key is not None and wanted in (spec.name, _handle(spec)):
            return spec
    digest = hash_key(wanted).removeprefix("sha256:")
    found = next((spec for spec in config.keys if spec.digest == digest), None)
    if found is None:
        raise entries.bad(f"there is no key {wanted!r}" if len(wanted) < 20 else "there is no such key")
    return found


def _place(document: dict[str, Any], config: Config, wanted: str) -> tuple[list[Any], int]:
    return entries.find(document, config, _handle(_spec(config, wanted)))


def _handle(spec: KeySpec) -> str:
    """What finds a key in the document: its id, or its reference where it cannot be read."""
    return entries.key_id(spec.digest) if spec.digest else entries.masked_key(spec)


def _done(options: argparse.Namespace, what: str) -> int:
    print(json.dumps({"success": True}) if options.json else what)
    return 0


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _time(unix: float | None) -> str | None:
    return datetime.fromtimestamp(unix, UTC).isoformat(timespec="seconds").replace("+00:00", "Z") if unix else None


def _refuse(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 1
