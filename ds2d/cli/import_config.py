"""Take over the config of another gateway.

  ds2d import ds2api config.json       the reference system's file (it also loads as it is)
  ds2d import litellm config.yaml      LiteLLM's proxy config
  ds2d import one-api one-api.db       one-api or new-api: the SQLite file, or channels and tokens as JSON

What comes in is merged as `POST /admin/config/import` does: keys and accounts that are here already stay as they are. Without
a config file one is made. What would change is printed first, secrets masked, and then what could not be carried over;
with --dry-run that is all. An earlier config is back with `ds2d config rollback`.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

from ds2d.cli.reading import tell
from ds2d.config.diff import Change, changes
from ds2d.config.files import ConflictError
from ds2d.config.importers import REGISTRY, ImportProblem, Taken
from ds2d.config.notices import ConfigErrors
from ds2d.config.source import Source, SourceError
from ds2d.config.store import ConfigStore
from ds2d.config.strict_json import edited
from ds2d.core.errors import GatewayError
from ds2d.web.admin.imports import merge


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of this verb."""
    parser.add_argument("kind", choices=tuple(REGISTRY), help="whose config it is")
    parser.add_argument("file", type=Path, metavar="FILE", help="the file to take over")
    parser.add_argument("--dry-run", action="store_true", help="print what would change, and change nothing")
    parser.add_argument("--config", type=Path, metavar="FILE", help="our config file")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace) -> int:
    """Read, merge, tell. 1 if the file cannot be taken over or the result would not be sound."""
    logging.getLogger("ds2d").addHandler(logging.NullHandler())  # its words are printed here, once
    try:
        taken = REGISTRY[options.kind].take(options.file.read_bytes())
        store = ConfigStore(Source.from_environment(os.environ, options.config, cwd=Path.cwd()), keep_history=not options.dry_run)
        if store.current.env_backed:
            return _refuse("our config comes from a variable, not from a file: import into a file with --config")
        return _take(store, taken, options)
    except ImportProblem as problem:
        return _refuse(f"{options.file}: {problem}")
    except GatewayError as error:
        return _refuse(error.message)
    except ConflictError:
        return _refuse("somebody else changed the config in this moment: try again")
    except OSError as error:
        return _refuse(f"{error.filename or 'the config'}: {os.strerror(error.errno or 0)}")
    except (ConfigErrors, SourceError) as found:
        tell(found)
        return 1


def _take(store: ConfigStore, taken: Taken, options: argparse.Namespace) -> int:
    before = store.document
    after = edited(store.document, lambda document: merge(document, taken.document, store.current))
    found = changes(before, after)
    store.check(after)
    if not options.dry_run and found:
        store.write(lambda document: merge(document, taken.document, store.current))
    warnings = [] if options.dry_run else [str(warning) for warning in store.current.warnings]
    if options.json:
        print(json.dumps(_as_data(found, taken.left, warnings, options), indent=2, ensure_ascii=False))
    else:
        _tell(found, [f"not carried over: {line}" for line in taken.left], store.path, dry_run=options.dry_run)
        for warning in warnings:
            print(f"warning: {warning}", file=sys.stderr)
    return 0


def _as_data(found: list[Change], left: list[str], warnings: list[str], options: argparse.Namespace) -> dict[str, Any]:
    told = [{"path": one.path, "kind": one.kind, "old": one.old, "new": one.new} for one in found]
    return {"dry_run": options.dry_run, "changes": told, "left": left, "warnings": warnings}


def _tell(found: list[Change], left: list[str], path: Path, *, dry_run: bool) -> None:
    for change in found:
        print(change)
    for line in left:
        print(line, file=sys.stderr)
    if not found:
        print("nothing to do: all of it is here already")
    elif dry_run:
        print(f"\n{len(found)} changes; nothing was written to {path}")
    else:
        print(f"\n{len(found)} changes are in {path}")


def _refuse(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 1
