"""Check a config file whole: every error with its place and what might be meant, then what is odd but holds.

Without FILE: the config that `ds2d serve` would start with. Exit code 1 if it cannot be used.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from ds2d.config.notices import ConfigErrors, Notice
from ds2d.config.source import Source, SourceError


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of this verb."""
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE", help="the file to check")
    parser.add_argument("--config", type=Path, metavar="FILE", help="the same, as for the other commands")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(options: argparse.Namespace) -> int:
    """Check and tell."""
    source = Source.from_environment(os.environ, options.file or options.config, cwd=Path.cwd())
    name = str(source.path)
    errors: Sequence[Notice] = ()
    warnings: Sequence[Notice] = ()
    try:
        reading = source.read()
        name = f"${reading.variable}" if reading.variable else name
        warnings = source.parse(reading).warnings
    except ConfigErrors as found:
        errors = found.errors
    except SourceError as error:
        errors = (error.notice,)
    if options.json:
        print(json.dumps({"ok": not errors, "source": name, "errors": _plain(errors), "warnings": _plain(warnings)}, indent=2))
    else:
        _tell(name, errors, warnings)
    return 1 if errors else 0


def _tell(name: str, errors: Sequence[Notice], warnings: Sequence[Notice]) -> None:
    for error in errors:
        print(f"error: {error}", file=sys.stderr)
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    count = f"{len(errors)} error" + ("" if len(errors) == 1 else "s")
    print(f"{name}: {count if errors else 'good'}")


def _plain(notices: Sequence[Notice]) -> list[dict[str, str]]:
    return [{"path": notice.path, "message": notice.message, "hint": notice.hint} for notice in notices]
