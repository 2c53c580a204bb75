"""Going back to an earlier config, and what changed since: the verbs `ds2d config diff` and `ds2d config rollback`.

Rule: secrets are masked in what is printed; going back writes config.json as an editor would, so a running daemon takes it up.
Surprise: the last ten configs lie in the state folder, so both need the right to read it. And a file that cannot be in force is
what going back is for.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from ds2d.cli.reading import tell
from ds2d.config.diff import changes
from ds2d.config.files import ConflictError
from ds2d.config.history import FOLDER, Generation, History
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
    source = Source.from_environment(os.environ, options.config, cwd=Path.cwd())
    try:
        store = ConfigStore(source, keep_history=_has_any(source))
    except ConfigErrors as found:
        tell(found)
        return _out_of(source, options.generation) if options.action == "rollback" else 1
    except SourceError as found:
        tell(found)
        return 1
    kept = store.generations()
    chosen = _chosen(kept, options.generation, kept[1:2])
    if chosen is None:
        return 1
    raw = chosen.path.read_bytes()
    if options.action == "diff":
        for change in changes(load(raw), store.document):
            print(change)
        return 0
    if store.current.env_backed:
        return _refuse("the config comes from a variable: set that to what it was")
    return _go_back(lambda: store.restore(raw).generation, chosen.number)


def _has_any(source: Source) -> bool:
    """Whether there is a config, or was one: where neither is, nothing is worth keeping either."""
    try:
        source.read()
    except SourceError as found:
        return found.kind != "missing" or bool(History(source.state_dir(source.empty()) / FOLDER).all())
    return True


def _out_of(source: Source, wanted: int | None) -> int:
    """Go back from a file that cannot be in force: to the newest generation where none is named."""
    try:
        reading = source.read()
        kept = History(source.state_dir(reading) / FOLDER).all()
    except (ConfigErrors, SourceError):  # said already
        return 1
    if reading.variable is not None:
        return _refuse("the config comes from a variable: set that to what it was")
    chosen = _chosen(kept, wanted, kept[:1])
    if chosen is None:
        return 1

    def put() -> int:
        raw = chosen.path.read_bytes()
        source.parse(msgspec.structs.replace(reading, raw=raw))
        source.write(raw, reading.raw)
        return kept[0].number + (chosen is not kept[0])

    return _go_back(put, chosen.number)


def _chosen(kept: list[Generation], wanted: int | None, otherwise: list[Generation]) -> Generation | None:
    """The generation that was asked for, or the one that is meant where none was named; None after saying that it is not kept."""
    found = [one for one in kept if one.number == wanted] if wanted is not None else otherwise
    if not found:
        _refuse(f"that generation is not kept; there are: {', '.join(str(one.number) for one in kept) or 'none'}")
    return found[0] if found else None


def _go_back(put: Callable[[], int], number: int) -> int:
    try:
        now = put()
    except ConflictError:
        return _refuse("the config file has changed in this moment: look again")
    except (ConfigErrors, SourceError) as found:
        tell(found)
        return 1
    except OSError as error:
        return _refuse(f"the config file cannot be written: {os.strerror(error.errno or 0)}")
    print(f"generation {number} is in force again, as generation {now}")
    return 0


def _refuse(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 1
