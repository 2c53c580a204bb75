"""Look at the config: the values in force with their origin, or what could be set.

  ds2d config show      every key with its value and where that comes from: file, flag, $VARIABLE or default
  ds2d config schema    JSON Schema of config.json, for editors
  ds2d config diff      what changed since an earlier generation
  ds2d config rollback  an earlier generation in force again

Secrets are masked; one by reference is shown as the reference.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from ds2d.cli import config_history
from ds2d.cli.reading import find_config
from ds2d.config.describe import json_schema
from ds2d.config.schema import Config
from ds2d.config.show import effective, shown


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of this verb."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    show = actions.add_parser("show", help="the values in force with their origin, secrets masked")
    show.add_argument("--config", type=Path, metavar="FILE", help="the config file")
    show.add_argument("--json", action="store_true", help="print JSON")
    show.add_argument("--changed", action="store_true", help="only what is not the default")
    actions.add_parser("schema", help="JSON Schema of config.json").add_argument(
        "--json", action="store_true", help="it always is JSON"
    )
    config_history.configure(actions)


def run(options: argparse.Namespace) -> int:
    """Print what was asked for."""
    if options.action in ("diff", "rollback"):
        return config_history.run(options)
    if options.action == "schema":
        print(json.dumps(json_schema(), indent=2))
        return 0
    found = find_config(options.config, os.environ, Path.cwd())
    if found is None:
        return 1
    config, name = found
    if options.json:
        print(json.dumps({"source": name, "values": shown(config), "origins": _origins(config)}, indent=2, ensure_ascii=False))
    else:
        _tell(config, name, changed=options.changed)
    return 0


def _origins(config: Config) -> dict[str, str]:
    return {path: origin for path, _, origin in effective(config)}


def _tell(config: Config, name: str, *, changed: bool) -> None:
    print(f"# read from {name}")
    for path, value, origin in effective(config):
        if changed and origin == "default":
            continue
        print(f"{path} = {json.dumps(value, ensure_ascii=False)}  # {origin}")
    for warning in config.warnings:
        print(f"# warning: {warning}")
