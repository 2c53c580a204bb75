"""Examine the model servers and the gateway, and name the layer at which something goes wrong.

  ds2d doctor                          every upstream directly, then through the running daemon
  ds2d doctor --url https://ds2d.example   and through what stands in front of it (a proxy, a tunnel)
  ds2d doctor --report report.md       also write it down, dated (JSON if the name ends in .json)

The key is `--key`, else $DS2D_KEY; without one only the upstreams are examined. It asks each hop some twenty small questions.
Exit code 0: nothing that clients notice is wrong; 1: something is, or nothing could be examined.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from ds2d.cli.asking import daemon_of, plain
from ds2d.cli.doctor.checks import Found
from ds2d.cli.doctor.examine import Examination, Line, Progress, examine, examine_endpoints, told
from ds2d.cli.doctor.hearing import Ear, Hop
from ds2d.cli.doctor.report import as_dict, as_text, counts
from ds2d.cli.looking import Looked, look
from ds2d.cli.reading import find_config
from ds2d.config.files import is_open
from ds2d.config.schema import Config
from ds2d.core.errors import GatewayError
from ds2d.core.models import CHAT_ROUTE, Seen
from ds2d.net.address import proxy_for
from ds2d.net.client import trust
from ds2d.upstreams.openai import fixed_headers, server_root

FRONT = "what stands in front of ds2d"
"""The layer between clients and the daemon."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of this verb."""
    parser.add_argument("--upstream", action="append", metavar="NAME", help="only this upstream (may be repeated)")
    parser.add_argument("--key", help="an API key of the gateway (default: $DS2D_KEY)")
    parser.add_argument("--url", help="the gateway's address as clients use it, if something stands in front of it")
    parser.add_argument("--config", type=Path, metavar="FILE", help="the config file")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write a dated report: Markdown, or JSON for *.json")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def run(options: argparse.Namespace) -> int:
    """Examine, showing what is done."""
    found = find_config(options.config, os.environ, Path.cwd())
    if found is None:
        return 1
    config = found.config
    if not config.env_backed and is_open(Path(found.name)):
        print(f"warning: {found.name} can be read by every user of this host: chmod 600 it", file=sys.stderr)
    if unknown := set(options.upstream or ()) - {upstream.name for upstream in config.upstreams}:
        return _refuse(f"no upstream is called {', '.join(sorted(unknown))}")
    if not config.upstreams:
        return _refuse("the config names no upstream")
    key = plain(options.key or os.environ.get("DS2D_KEY") or "") or None
    return asyncio.run(_examine(config, key, options))


async def _examine(config: Config, key: str | None, options: argparse.Namespace) -> int:
    def progress(text: str) -> None:
        print(text, file=sys.stderr if options.json else sys.stdout, flush=True)

    gate = await _gate(config, key, options.url)
    progress(f"the daemon: {gate.note}")
    endpoints: list[Line] = []
    async with Ear() as ear, look(config) as looked:
        wanted = [seen for seen in looked.catalog.seen() if not options.upstream or seen.upstream.name in options.upstream]
        examined = [await _examine_upstream(ear, seen, looked, gate, progress) for seen in wanted]
        if gate.hops:
            progress("\nendpoints")
            chats = any(_chat_model(seen) for seen in looked.catalog.seen())
            endpoints = await examine_endpoints(ear, gate.hops[-1], progress, chats=chats)
    report = as_dict(datetime.now(UTC), examined, endpoints, gate.note)
    if options.json:
        print(json.dumps(report, indent=2))
    written = True
    if options.report:
        text = json.dumps(report, indent=2) + "\n" if options.report.suffix == ".json" else as_text(report)
        written = _write(options.report, text)
        progress(f"\nwrote {options.report}" if written else "" if options.json else f"\n{text}")
    found = counts([*(line for one in examined for line in one.lines), *endpoints])
    progress("\n" + ", ".join(f"{count} {name}" for name, count in found.items()))
    return 1 if found["fail"] or not found["ok"] or not written else 0


def _write(path: Path, text: str) -> bool:
    """Whether the report is in its file; it took a minute to make, so whoever gets False shows it."""
    try:
        path.write_text(text)
    except OSError as error:
        _refuse(f"{path} cannot be written: {os.strerror(error.errno or 0)}")
        return False
    return True


class Gate(msgspec.Struct, frozen=True):
    """The gateway as it can be asked: its own address, then the one that clients use. No hops: it is not examined."""

    note: str
    hops: tuple[Hop, ...] = ()


async def _gate(config: Config, key: str | None, url: str | None) -> Gate:
    if key is None:
        return Gate("not examined, no key is known ($DS2D_KEY)")
    daemon = daemon_of(config)
    if await asyncio.get_running_loop().run_in_executor(None, daemon.ask, "/healthz") is None:
        return Gate(f"nothing answers at {daemon.url}")
    headers = {"Authorization": f"Bearer {key}"}
    own = Hop("ds2d", daemon.url, "/v1", "deepseek-chat", headers, ours=True, context=daemon.context or True)
    if url is None:
        return Gate(daemon.url, (own,))
    root = url.rstrip("/").removesuffix("/v1")
    front = Hop(FRONT, root, "/v1", "deepseek-chat", headers, ours=True, proxy=proxy_for(root, "env"))
    return Gate(f"{daemon.url}, as clients see it {root}", (own, front))


async def _examine_upstream(ear: Ear, seen: Seen, looked: Looked, gate: Gate, progress: Progress) -> Examination:
    name = seen.upstream.name
    progress(f"\nupstream {name}: {seen.state}, {seen.facts.flavour}")
    about = {"state": seen.state, "flavour": seen.facts.flavour, "models": ", ".join(model.id for model in seen.models[:10])}
    model = _chat_model(seen)
    if model is None:
        progress("  it does not chat; what it does is asked for with the endpoints")
        return Examination(name, about, [])
    try:
        server = await _server_hop(seen, looked, model)
    except GatewayError as error:
        line = Line("login", {f"login of upstream {name}": Found("fail", error.message)})
        progress(told(line))
        return Examination(name, about, [line])
    if server is not None:
        about["version"] = str((await ear.ask(server, "//version")).json.get("version") or "")
    account = looked.account_of(name)
    pinned = {"X-Ds2-Target-Account": account.identifiers[0]} if account else {}
    outer = [msgspec.structs.replace(hop, model=model, headers=hop.headers | pinned) for hop in gate.hops]
    hops = [*([server] if server is not None else []), *outer]
    return Examination(name, about, await examine(ear, hops, server, progress))


def _chat_model(seen: Seen) -> str | None:
    """A model there that chats; one of our own names where it lists none."""
    if seen.facts.routes is not None and CHAT_ROUTE not in seen.facts.routes:
        return None
    return next((model.id for model in seen.models if model.chats), None if seen.models else "deepseek-chat")


async def _server_hop(seen: Seen, looked: Looked, model: str) -> Hop | None:
    """The model server itself; None for an embedded one."""
    upstream = seen.upstream
    if upstream.kind != "openai":
        return None
    headers = fixed_headers(upstream)
    if token := await looked.token_for(upstream):
        headers["authorization"] = f"Bearer {token}"
    root = server_root(upstream.base_url)
    prefix = upstream.base_url.rstrip("/")[len(root) :] + seen.facts.prefix
    return Hop(
        f"upstream {upstream.name}",
        root,
        prefix,
        model,
        headers,
        seen.facts.flavour,
        context=trust(upstream),
        proxy=proxy_for(root, upstream.proxy),
    )


def _refuse(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 1
