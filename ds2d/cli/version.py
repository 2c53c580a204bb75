"""Print the version of ds2d."""

from __future__ import annotations

import argparse
import json
import platform

from ds2d import __version__


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of this verb."""
    parser.add_argument("--json", action="store_true", help="with the version of Python, as JSON")


def run(options: argparse.Namespace) -> int:
    """Print it."""
    if options.json:
        print(json.dumps({"version": __version__, "python": platform.python_version()}))
    else:
        print(f"ds2d {__version__}")
    return 0
