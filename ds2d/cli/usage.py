"""The ledger, for other programs.

  ds2d usage export --format csv|json        every turn, one a line (JSON: one object a line)
  ds2d usage export --daily ...              sums by day, key, model, upstream and state instead; these outlive retention

--since and --until are dates or times (RFC 3339, UTC where none is said); --key is a name, an id or a key.
The daemon may run meanwhile.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sqlite3
import sys
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ds2d.cli.progress import Progress
from ds2d.cli.reading import read_config
from ds2d.config.schema import Config
from ds2d.core.secrets import hash_key
from ds2d.state import usage

FIRST = datetime.min.replace(tzinfo=UTC)
MILLISECOND = timedelta(milliseconds=1)


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of this verb."""
    export = parser.add_subparsers(dest="action", required=True, metavar="ACTION").add_parser("export", help="print the ledger")
    export.add_argument("--format", choices=("csv", "json"), default="csv", help="csv (default), or json: one object a line")
    export.add_argument("--daily", action="store_true", help="sums by day")
    export.add_argument("--since", type=moment, metavar="TIME", default=datetime(1970, 1, 1, tzinfo=UTC), help="from here on")
    export.add_argument("--until", type=moment, metavar="TIME", default=datetime(9999, 1, 1, tzinfo=UTC), help="before this")
    export.add_argument("--key", help="one key only")
    export.add_argument("--config", type=Path, metavar="FILE", help="the config file")


def run(options: argparse.Namespace) -> int:
    """Print it. 1 if the config is not sound or the ledger cannot be read."""
    config = read_config(options.config, os.environ, Path.cwd())
    if config is None:
        return 1
    folder, key = Path(config.state_dir), None if options.key is None else _caller(config, options.key)
    try:
        if key is not None and not _is_known(config, folder, key):
            print("error: neither the config nor the ledger has this key: --key takes a name, an id or a key", file=sys.stderr)
            return 1
        if options.daily:
            rows: Iterable[dict[str, Any]] = usage.daily(folder, *_days(options.since, options.until), key)
            _print(rows, usage.DAILY_COLUMNS, options.format)
        else:
            rows = usage.turns(folder, since=options.since.timestamp(), before=options.until.timestamp(), key=key)
            _print(rows, usage.COLUMNS, options.format)
    except sqlite3.Error as error:
        print(f"error: the ledger cannot be read: {error}", file=sys.stderr)
        return 1
    return 0


def moment(text: str) -> datetime:
    """A date or time, in UTC. Raises ValueError."""
    when = datetime.fromisoformat(text)
    try:
        return when.astimezone(UTC) if when.tzinfo else when.replace(tzinfo=UTC)
    except OverflowError as error:
        raise ValueError("the calendar does not hold it") from error


def _days(since: datetime, until: datetime) -> tuple[str, str]:
    """The first day and the last one that has a moment before `until`."""
    last = max(until, FIRST + MILLISECOND) - MILLISECOND
    return since.date().isoformat(), last.date().isoformat()


def _caller(config: Config, wanted: str) -> str:
    """The id under which the ledger has this key; of a key that is gone from the config, its hash may be given."""
    for spec in config.keys:
        if spec.digest is not None and wanted in (spec.name, f"key_{spec.digest[:16]}"):
            return spec.digest
    is_hash = len(wanted) == 64 and not set(wanted) - set("0123456789abcdef")
    return wanted if is_hash or wanted == "anonymous" else hash_key(wanted).removeprefix("sha256:")


def _is_known(config: Config, folder: Path, digest: str) -> bool:
    return digest == "anonymous" or any(spec.digest == digest for spec in config.keys) or digest in usage.keys(folder)


def _print(rows: Iterable[dict[str, Any]], columns: tuple[str, ...], form: str) -> None:
    with Progress("rows") as bar:
        if sys.stdout.isatty():  # the rows themselves are what is seen
            _write(rows, columns, form)
        else:
            _write(_counted(rows, bar), columns, form)


def _counted(rows: Iterable[dict[str, Any]], bar: Progress) -> Iterable[dict[str, Any]]:
    for row in rows:
        yield row
        bar.step()


def _write(rows: Iterable[dict[str, Any]], columns: tuple[str, ...], form: str) -> None:
    if form == "json":
        for row in rows:
            print(json.dumps(row, ensure_ascii=False))
        return
    writer = csv.DictWriter(sys.stdout, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: _harmless(value) for name, value in row.items()})


def _harmless(value: Any) -> Any:
    """A text that no spreadsheet takes for a formula: model names and request ids are the clients' own."""
    return f"'{value}" if isinstance(value, str) and value[:1] in "=+-@\t\r" and value else value
