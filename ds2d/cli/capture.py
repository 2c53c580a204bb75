"""Take captured exchanges out of a running daemon.

  ds2d capture list             what is captured, newest first
  ds2d capture export ID        one of them as a file that `ds2d replay` plays again
  ds2d capture export ID --golden FOLDER    as a case for tests/golden/streams (then run scripts/golden)

The admin key is read from $DS2D_ADMIN_KEY or $DS2API_ADMIN_KEY. `--scrub` keeps lengths and structure only: every letter
of what people and models said becomes x.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from ds2d.cli.asking import add_options, admin_key, find_daemon
from ds2d.cli.scrub import scrubbed
from ds2d.config.files import write_private

FORMAT = "ds2d capture 1"


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of this verb."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="what is captured")
    export = actions.add_parser("export", help="one exchange as a file")
    export.add_argument("id", metavar="ID", help="cap_... as listed")
    export.add_argument("--out", type=Path, metavar="FILE", help="where to write it (default: ID.json)")
    export.add_argument("--golden", type=Path, metavar="FOLDER", help="write a case of recorded streams instead")
    export.add_argument("--scrub", action="store_true", help="keep lengths and structure only")
    for each in (listing, export):
        add_options(each)


def run(options: argparse.Namespace) -> int:
    """Fetch and write."""
    items = _fetch(options)
    if items is None:
        return 1
    if options.action == "list":
        for item in items:
            print(f"{item['id']}  {item['status_code']}  {item['label']}  {item['account_id']}")
        return 0
    found = [item for item in items if item["id"] == options.id]
    if not found:
        return _refuse(f"there is no capture {options.id}: `ds2d capture list` shows what there is")
    item = scrubbed(found[0]) if options.scrub else found[0]
    try:
        return _write_case(item, options.golden) if options.golden else _write(item, options)
    except OSError as error:
        return _refuse(f"{error.filename} cannot be written: {os.strerror(error.errno or 0)}")


def _write(item: dict[str, Any], options: argparse.Namespace) -> int:
    """A file that replay reads."""
    path = options.out or Path(f"{options.id}.json")
    text = json.dumps({"format": FORMAT, **item}, indent=2, ensure_ascii=False) + "\n"
    write_private(path, text.encode("utf-8", "surrogatepass"))
    print(f"wrote {path}; `ds2d replay {path}` plays it again")
    return 0


def _fetch(options: argparse.Namespace) -> list[dict[str, Any]] | None:
    """The daemon's captures; None after saying why there are none to be had."""
    key = admin_key()
    daemon = find_daemon(options) if key else None
    if daemon is None:
        return None
    said = daemon.ask("/admin/dev/captures", key)
    if said is None:
        _refuse(f"nothing answers at {daemon.url}: is the daemon running? (`ds2d serve`)")
        return None
    if said.status != 200:
        _refuse(f"the daemon answered {said.status}: {_detail(said.body)}")
        return None
    answer = json.loads(said.body)
    if not answer["enabled"]:
        print("note: captures are off (capture.enabled)", file=sys.stderr)
    items: list[dict[str, Any]] = answer["items"]
    return items


def _write_case(item: dict[str, Any], folder: Path) -> int:
    """A folder as tests/golden/streams has them: the upstream's bytes, and what matters of the question."""
    folder.mkdir(parents=True, exist_ok=True)
    streamed = "event-stream" in item["content_type"]
    write_private(folder / f"upstream.openai.{'sse' if streamed else 'json'}", item["response_body"].encode())
    asked = json.loads(item["upstream_request"] or "{}")
    tools = [tool["function"]["name"] for tool in asked.get("tools", []) if "function" in tool]
    about = {"flavour": item["flavour"], **({"tools": tools} if tools else {})}
    (folder / "case.json").write_text(json.dumps(about, indent=2) + "\n")
    print(f"wrote {folder}; scripts/golden writes the events that it means")
    return 0


def _detail(raw: bytes) -> str:
    try:
        return str(json.loads(raw)["detail"])
    except (ValueError, KeyError, TypeError):
        return raw[:200].decode("utf-8", "replace")


def _refuse(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 1
