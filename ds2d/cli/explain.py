"""Why a request went as it did: `ds2d explain ID`, where ID is what its answer had in `x-request-id`.

Reads the ledger, so the daemon need not run: which account took it and why the others did not, waits, retries, what was done
to the question and the answer, clocks, tokens and whose count they are, and how it ended.
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ds2d.cli.reading import read_config
from ds2d.state.usage import find


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of this verb."""
    parser.add_argument("id", help="the request id")
    parser.add_argument("--config", type=Path, metavar="FILE", help="the config file")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace) -> int:
    """Print it, the latest last. 1 if no such request is known."""
    config = read_config(options.config, os.environ, Path.cwd())
    if config is None:
        return 1
    try:
        found = find(Path(config.state_dir), options.id)
    except sqlite3.Error as error:
        print(f"error: the ledger cannot be read: {error}", file=sys.stderr)
        return 1
    if not found:
        print("error: the ledger has no request of this id (retention: ledger.retention_days)", file=sys.stderr)
        return 1
    turns = [{**turn, "why": json.loads(turn["why"]) if turn["why"] else {}} for turn in reversed(found)]
    if options.json:
        print(json.dumps(turns, ensure_ascii=False))
    else:
        print("\n\n".join("\n".join(lines(turn)) for turn in turns))
    return 0


def lines(turn: dict[str, Any]) -> list[str]:
    """One turn in words."""
    why = turn["why"]
    began = datetime.fromtimestamp(turn["began_at"], UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    said = [f"request   {turn['request_id']}  {began}  key {turn['key_name']}  {turn['dialect']}"]
    used = f" -> {turn['used']}" if turn["used"] else ""
    step = f" ({why['model']['why']})" if why else ""
    said.append(f"model     {turn['asked']}{used}{step}")
    if why.get("position"):
        said.append(f"queue     place {why['position']} on arrival, waited {why['waited_ms']:g} ms")
    for number, attempt in enumerate(why.get("tries", ()), 1):
        took = f" after {attempt['ms']:g} ms" if "ms" in attempt else ""
        said.append(
            f"attempt {number} account {attempt['account']} on {attempt['upstream']}: {attempt['end'] or 'broken off'}{took}"
        )
        said += [f"          not {other['account']}: {_reason(other)}" for other in attempt["skipped"]]
    said += [f"note      {note}" for note in why.get("notes", ())]
    source = f" ({turn['usage_source']})" if turn["usage_source"] else ""
    said.append(f"tokens    {turn['prompt_tokens']} + {turn['completion_tokens']}{source}, {turn['delivered_tokens']} delivered")
    clocks = (("queue", turn["queue_ms"]), ("first byte", turn["first_ms"]), ("total", turn["total_ms"]))
    said.append("clocks    " + ", ".join(f"{name} {value:.1f} ms" for name, value in clocks if value is not None))
    said.append(f"end       {turn['state']}: {turn['cause'] or '-'}")
    return said


def _reason(other: dict[str, Any]) -> str:
    cause = f", {other['cause']}" if "cause" in other else ""
    back = f", back in {other['back_in_seconds']:g} s" if "back_in_seconds" in other else ""
    return f"{other['reason']}{cause}{back}"
