"""Try every account of the running daemon, and say which do not work.

  ds2d test-all                        log in and look at the model list
  ds2d test-all --message "Hello"      ask a model

The admin key is read from $DS2D_ADMIN_KEY or $DS2API_ADMIN_KEY. Exit code 0: all work; 1: one does not, or none could be tried.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from typing import Any

from ds2d.cli.asking import add_options, admin_key, find_daemon, harmless
from ds2d.cli.progress import Progress

TEST_ALL = "/admin/accounts/test-all"


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of this verb."""
    add_options(parser)
    parser.add_argument("--message", default="", metavar="TEXT", help="ask this instead of looking at the model list")
    parser.add_argument("--model", default="deepseek-chat", help="of whom it is asked (default: deepseek-chat)")
    parser.add_argument("--json", action="store_true", help="print the daemon's own words")


def run(options: argparse.Namespace) -> int:
    """Try them, a line each as they come."""
    key = admin_key()
    daemon = find_daemon(options) if key else None
    if daemon is None:
        return 1
    known = daemon.ask("/admin/accounts?page_size=1", key)
    if known is None:
        print(f"error: nothing answers at {daemon.url}: is the daemon running? (`ds2d serve`)", file=sys.stderr)
        return 1
    if known.status != 200:
        print(f"error: the daemon answered {known.status}", file=sys.stderr)
        return 1
    total = json.loads(known.body)["total"]
    question = {"model": options.model, "message": options.message}
    try:
        return _report(daemon.events(TEST_ALL, key, question), total, as_json=options.json)
    except (OSError, ValueError) as error:
        print(f"error: the daemon broke off: {error}", file=sys.stderr)
        return 1


def _report(events: Iterable[tuple[str, dict[str, Any]]], total: int, *, as_json: bool) -> int:
    """Print what comes; 0 if the summary came and all work."""
    done: dict[str, Any] = {}
    with Progress("testing accounts", total) as bar:
        for kind, found in events:
            if kind == "done":
                done = found
                break
            if not as_json:
                bar.clear()
                verdict = "ok    " if found["success"] else "FAILED"
                print(f"{verdict}  {found['account']}  {found['response_time']} ms  {harmless(found['message'])}")
            bar.step(found["account"])
    if as_json:
        print(json.dumps(done, indent=2))
    elif done:
        print(f"{done['success']} of {done['total']} work")
    return 0 if done and not done["failed"] else 1
