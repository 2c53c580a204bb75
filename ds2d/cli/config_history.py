"""Going back to an earlier config, and what changed since: the verbs `ds2d config diff` and `ds2d config rollback`.

Rule: secrets are masked in what is printed; going back writes config.json as an editor would, so a running daemon takes it up.
Surprise: the last ten configs lie in the state folder, so both need the right to read it.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from ds2d.cli.reading import tell
from ds2d.config.diff import changes
from ds2d.config.files import ConflictError
from ds2d.config.notices import ConfigErrors
from ds2d.config.source import Source, SourceError
from ds2d.config.store import ConfigStore
from ds2d.config.strict_json import load


def configure(actions: Any) -> None:
    """Add both actions to those of `ds2d config`."""
    diff = actions.add_parser("diff", help="what changed since an earlier generation, secrets masked")
    diff.add_argument("generation", nargs="?", type=int, metavar="N", help="default: the one before the newest")
    rollback = actions.add_parser("rollback", help="put an earlier generation in force again")
    rollback.add_argument("generation", nargs="?", type=int, metavar="N", help="default: the one before the newest")
    for each in (diff, rollback):
        each.add_argument("--config", type=Path, metavar="FILE", help="the config file")


def run(options: argparse.Namespace) -> int:
    """Print the difference, or go back."""
    try:
        store = ConfigStore(Source.from_environment(os.environ, options.config, cwd=Path.cwd()), keep_history=True)
    except (ConfigErrors, SourceError) as found:
        tell(found)
        return 1
    kept = store.generations()
    if options.generation is None and len(kept) > 1:
        options.generation = kept[1].number
    chosen = next((one for one in kept if one.number == options.generation), None)
    if chosen is None:
        have = ", ".join(str(one.number) for one in kept) or "none"
        print(f"error: that generation is not kept; there are: {have}", file=sys.stderr)
        return 1
    old = load(chosen.path.read_bytes())
    if options.action == "diff":
        for change in changes(old, store.document):
            print(change)
        return 0
    return _go_back(store, old, chosen.number)


def _go_back(store: ConfigStore, old: dict[str, Any], number: int) -> int:
    def edit(document: dict[str, Any]) -> None:
        document.clear()
        document.update(old)

    if store.current.env_backed:
        print("error: the config comes from a variable: set that to what it was", file=sys.stderr)
        return 1
    try:
        store.write(edit)
    except ConflictError:
        print("error: the config file has changed in this moment: look again", file=sys.stderr)
        return 1
    except (ConfigErrors, SourceError) as found:
        tell(found)
        return 1
    except OSError as error:
        print(f"error: the config file cannot be written: {os.strerror(error.errno or 0)}", file=sys.stderr)
        return 1
    print(f"generation {number} is in force again, as generation {store.current.generation}")
    return 0
