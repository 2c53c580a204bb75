"""`ds2d upgrade`: have the version that is installed now take over from the running daemon, without cutting or refusing anything.

The running daemon starts the new one with its own arguments, environment and listener; the new one checks itself and takes over;
the old one ends when its last stream does. Exit code 0: the new version serves; 1: nothing has changed, and why.
"""

from __future__ import annotations

import argparse
import math
import os
import socket
import sys
from pathlib import Path

from ds2d.cli.reading import read_config
from ds2d.generations import CONTROL
from ds2d.generations import messages as m
from ds2d.net.link import connected

SECONDS = 90.0
"""Longest wait for the outcome; the daemon gives a new version up earlier."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of this verb."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="the config file")
    parser.add_argument("--state", type=Path, metavar="FOLDER", help="the daemon's state folder (default: the config's)")
    parser.add_argument(
        "--drain-seconds",
        type=seconds,
        metavar="N",
        help="end the old version's streams after so long (default: let them finish)",
    )


def seconds(text: str) -> float:
    """A span of time. Raises ValueError."""
    value = float(text)
    if not 0 <= value < math.inf:
        raise ValueError(text)
    return value


def run(options: argparse.Namespace) -> int:
    """Ask for it, and say how it went."""
    folder = options.state
    if folder is None:
        config = read_config(options.config, os.environ, Path.cwd())
        if config is None:
            return 1
        folder = Path(config.state_dir)
    try:
        link = connected(folder / CONTROL)
    except OSError as error:
        print(f"error: no running daemon is to be found in {folder}: {os.strerror(error.errno or 0)}", file=sys.stderr)
        print("is it running (`ds2d status`), and is this its state folder (`--state FOLDER`)?", file=sys.stderr)
        return 1
    with link:
        outcome = _ask(link, m.Upgrade(drain_seconds=options.drain_seconds))
    if outcome is None or outcome.problem:
        reason = outcome.problem if outcome else "the running daemon ended before it said how it went"
        print(f"error: {reason}\nnothing has changed: the running version goes on", file=sys.stderr)
        return 1
    print(f"version {outcome.version} serves (process {outcome.pid})")
    return 0


def _ask(link: socket.socket, wish: m.Upgrade) -> m.Upgraded | None:
    """The daemon's answer; None if it went away."""
    link.settimeout(SECONDS)
    data = m.encode(wish)
    try:
        link.sendall(len(data).to_bytes(4, "big") + data)
        length = int.from_bytes(_exactly(link, 4), "big")
        answer = m.decode(_exactly(link, length)) if length else None
    except OSError:
        return None
    return answer if isinstance(answer, m.Upgraded) else None


def _exactly(link: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count and (more := link.recv(count - len(data))):
        data += more
    return data
