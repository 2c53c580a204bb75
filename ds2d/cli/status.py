"""`ds2d status`: how the running daemon is.

Asks the daemon itself (`/readyz?verbose` at the address of the config), so it needs no key. Exit code 0: ready; 1: not
ready, draining, or not running.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from ds2d.cli.reading import read_config

TIMEOUT = 5.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of this verb."""
    parser.add_argument("--url", help="base URL of the daemon (default: server.host and server.port of the config)")
    parser.add_argument("--config", type=Path, metavar="FILE", help="the config file")
    parser.add_argument("--json", action="store_true", help="print the daemon's own words")


def run(options: argparse.Namespace) -> int:
    """Print it."""
    url = options.url
    if url is None:
        config = read_config(options.config, os.environ, Path.cwd())
        if config is None:
            return 1
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(config.server.host, config.server.host)
        url = f"http://{host}:{config.server.port}"
    status = _ask(url.rstrip("/") + "/readyz?verbose")
    if status is None:
        print(f"error: nothing answers at {url}: is the daemon running? (`ds2d serve`)", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps(status, indent=2))
    else:
        _print(status)
    return 0 if status.get("status") == "ready" else 1


def _ask(url: str) -> dict[str, Any] | None:
    """What the daemon says, whatever the status code. Local traffic goes through no proxy."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=TIMEOUT) as reply:
            raw = reply.read()
    except urllib.error.HTTPError as error:
        raw = error.read()
    except OSError:
        return None
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
