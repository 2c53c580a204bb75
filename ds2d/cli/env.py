"""What to set so that a client talks to this gateway.

  ds2d env claude-code          print it: variables for the shell, files with their content
  eval "$(ds2d env codex --shell)"    only the variables, to be taken over at once

Clients: claude-code, codex, gemini-cli, opencode, openai, open-webui. The address is that of the config. The key is `--key`,
else $DS2D_KEY (`. ./.ds2d.env`), else a placeholder.
"""

from __future__ import annotations

import argparse
import json
import os
import sys

import msgspec

from ds2d.cli.asking import add_options, find_daemon, plain
from ds2d.core.connect import CLIENTS, Setup, connect

PLACEHOLDER = "YOUR_KEY"


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of this verb."""
    parser.add_argument("client", choices=list(CLIENTS), metavar="CLIENT", help="which client: " + ", ".join(CLIENTS))
    parser.add_argument("--key", help="the API key (default: $DS2D_KEY)")
    parser.add_argument("--model", default="deepseek-chat", help="the model's name (default: deepseek-chat)")
    parser.add_argument("--shell", action="store_true", help="only the variables, as a shell takes them")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_options(parser)


def run(options: argparse.Namespace) -> int:
    """Print it. Nothing is asked of the daemon, which need not run."""
    daemon = find_daemon(options)
    if daemon is None:
        return 1
    key = plain(options.key or os.environ.get("DS2D_KEY") or "") or PLACEHOLDER
    setup = connect(options.client, daemon.url, key, options.model)
    if key == PLACEHOLDER:
        print(f"note: no key is known here: put yours in place of {PLACEHOLDER} (`ds2d keys add` makes one)", file=sys.stderr)
    if options.json:
        print(json.dumps(msgspec.to_builtins(setup), indent=2))
    elif options.shell:
        print(setup.exports, end="")
    else:
        _tell(setup)
    return 0


def _tell(setup: Setup) -> None:
    """For people."""
    print(f"{setup.title}: in your shell\n\n{setup.exports}")
    for file in setup.files:
        print(f"in {file.path}\n\n{file.text.rstrip()}\n")
    if setup.run:
        print(f"then\n\n{setup.run}")
