"""`ds2d models [NAME]`: which models there are, and what a name becomes.

Looks at the upstreams of the config itself, so it answers whether the daemon runs or not. With a NAME it shows the step of
config.md 3 that matched, and where the request would go.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import msgspec

from ds2d.cli.looking import look
from ds2d.cli.reading import read_config
from ds2d.config.schema import Config
from ds2d.core.errors import GatewayError
from ds2d.state.catalog import Catalog


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of this verb."""
    parser.add_argument("name", nargs="?", help="a model name as a client would write it")
    parser.add_argument("--claude", action="store_true", help="resolve it as a Claude route does")
    parser.add_argument("--config", type=Path, metavar="FILE", help="the config file")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace) -> int:
    """Print the list, or one route. 1 if the config is not sound or the name is unknown."""
    config = read_config(options.config, os.environ, Path.cwd())
    if config is None:
        return 1
    return asyncio.run(_show(config, options))


async def _show(config: Config, options: argparse.Namespace) -> int:
    async with look(config) as looked:
        return _route(looked.catalog, options) if options.name else _list(looked.catalog, options)


def _list(catalog: Catalog, options: argparse.Namespace) -> int:
    infos = catalog.models()
    if options.json:
        print(json.dumps([msgspec.to_builtins(info) for info in infos], indent=2))
        return 0
    width = max((len(info.id) for info in infos), default=0)
    for info in infos:
        window = f"{info.max_model_len} tokens" if info.max_model_len else ""
        print(f"{info.id:{width}}  {info.state:8}  {window}".rstrip())
    return 0


def _route(catalog: Catalog, options: argparse.Namespace) -> int:
    try:
        route = catalog.route(options.name, claude_route=options.claude)
    except GatewayError as error:
        print(f"error: {error.message}", file=sys.stderr)
        return 1
    targets = [{"upstream": target.upstream.name, "model": target.model} for target in route.targets]
    found: dict[str, Any] = {"asked": route.asked, "public": route.public, "step": route.why, "thinking": route.thinking}
    if options.json:
        print(json.dumps({**found, "targets": targets}, indent=2))
        return 0
    for name, value in found.items():
        print(f"{name:9} {value}")
    for target in targets:
        print(f"{'goes to':9} {target['upstream']}: {target['model']}")
    return 0
