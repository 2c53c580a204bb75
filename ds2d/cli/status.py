"""`ds2d status`: how the running daemon is.

Asks the daemon itself (`/readyz?verbose` at the address of the config), so it needs no key. Exit code 0: ready; 1: not
ready, draining, or not running.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from ds2d.cli.asking import add_options, find_daemon


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of this verb."""
    add_options(parser)
    parser.add_argument("--json", action="store_true", help="print the daemon's own words")


def run(options: argparse.Namespace) -> int:
    """Print it."""
    daemon = find_daemon(options)
    if daemon is None:
        return 1
    said = daemon.ask("/readyz?verbose")
    status = _read(said.body) if said else None
    if status is None:
        print(f"error: nothing answers at {daemon.url}: is the daemon running? (`ds2d serve`)", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps(status, indent=2))
    else:
        _print(status)
    return 0 if status.get("status") == "ready" else 1


def _read(raw: bytes) -> dict[str, Any] | None:
    """What the daemon says; None if that is not a daemon's answer."""
    try:
        found = json.loads(raw)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _print(status: dict[str, Any]) -> None:
    print(status.get("status", "unknown"))
    for name, upstream in status.get("upstreams", {}).items():
        print(f"  {name}: {upstream['state']} ({upstream['flavour']}), {len(upstream['models'])} models")
    config = status.get("config", {})
    if config:
        print(f"  config: generation {config['generation']}")
    for kind in ("problem", "warnings", "pending_restart"):
        for line in config.get(kind, []):
            print(f"  {kind}: {line}")
