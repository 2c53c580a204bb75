"""`ds2d status`: how the running daemon is.

Asks the daemon itself (`/readyz?verbose` at the address of the config), so it needs no key. Exit code 0: ready; 1: not
ready, draining, or not running.

  ds2d status                   once
  ds2d status --watch           again and again: accounts, queue, streams, tokens per second; Ctrl-C ends it
  ds2d status --watch | cat     a page of it, once

`--watch` reads /metrics, and with the admin key in $DS2D_ADMIN_KEY the running requests as well.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import time
from typing import Any

from ds2d.cli.asking import Daemon, add_options, find_daemon
from ds2d.cli.live import Look, look, page

OPEN, HOME, LINE_END, REST, CLOSE = "\x1b[?1049h\x1b[?25l", "\x1b[H", "\x1b[K", "\x1b[J", "\x1b[?25h\x1b[?1049l"
"""To a screen of its own without a cursor, its top, clear to the end of the line, of the screen, and back."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of this verb."""
    add_options(parser)
    parser.add_argument("--json", action="store_true", help="print the daemon's own words")
    parser.add_argument("--watch", action="store_true", help="a page that is always fresh")
    parser.add_argument("--interval", type=float, default=1.0, metavar="SECONDS", help="between two looks of --watch (1)")


def run(options: argparse.Namespace) -> int:
    """Print it."""
    daemon = find_daemon(options)
    if daemon is None:
        return 1
    if options.watch:
        return _watch(daemon, max(0.1, options.interval))
    said = daemon.ask("/readyz?verbose")
    status = _read(said.body) if said else None
    if status is None:
        return _nobody(daemon)
    if options.json:
        print(json.dumps(status, indent=2))
    else:
        _print(status)
    return _code(status)


def _watch(daemon: Daemon, interval: float) -> int:
    key = os.environ.get("DS2D_ADMIN_KEY") or os.environ.get("DS2API_ADMIN_KEY")
    now = look(daemon, key)
    if now is None:
        return _nobody(daemon)
    if not sys.stdout.isatty():
        print("\n".join(page(now, None, 1000, colour=False)))
        return _code(now.ready)
    last, before = now, None
    for number in (signal.SIGINT, signal.SIGTERM):  # the terminal comes back as it was, whoever ends this
        signal.signal(number, signal.default_int_handler)
    sys.stdout.write(OPEN)
    try:
        while True:
            _show(last, before, "" if now else f"no answer from {daemon.url} for {time.monotonic() - last.at:.0f} s")
            time.sleep(interval)
            now = look(daemon, key)
            if now is not None:
                before, last = last, now
    except KeyboardInterrupt:
        return _code(last.ready)
    finally:
        sys.stdout.write(CLOSE)
        sys.stdout.flush()


def _show(now: Look, before: Look | None, trouble: str) -> None:
    width, height = shutil.get_terminal_size()
    lines = page(now, before, width, colour=not os.environ.get("NO_COLOR"))
    if trouble:
        lines.insert(0, trouble[:width])
    sys.stdout.write(HOME + "\n".join(line + LINE_END for line in lines[: height - 1]) + REST)
    sys.stdout.flush()


def _nobody(daemon: Daemon) -> int:
    print(f"error: nothing answers at {daemon.url}: is the daemon running? (`ds2d serve`)", file=sys.stderr)
    return 1


def _code(status: dict[str, Any]) -> int:
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
    if older := status.get("older_processes"):
        print(f"  upgrade: {older} older {'process finishes its' if older == 1 else 'processes finish their'} streams")
    for kind in ("problem", "warnings", "pending_restart"):
        for line in config.get(kind, []):
            print(f"  {kind}: {line}")
