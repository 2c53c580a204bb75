"""Make config.json with fresh keys, and look for model servers on this machine.

The API key and the admin key are printed once; config.json holds their hashes only. .ds2d.env beside it has them for
your shell (`. ./.ds2d.env`; of another FILE.json: .FILE.ds2d.env); the daemon never reads it. Servers that speak the
OpenAI protocol on the usual ports of vLLM, SGLang, llama.cpp, Ollama and LM Studio become upstreams; without one the
embedded demo answers.
An existing config.json is never touched.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

from ds2d.cli.scan import PORTS, Found, scan
from ds2d.config.environment import PATHS
from ds2d.config.files import ConflictError, create
from ds2d.config.source import FILE_NAME
from ds2d.config.strict_json import dump, load
from ds2d.core.secrets import hash_key, hash_password

ENV_NAME = ".ds2d.env"
"""Beside config.json. A config of another name has a file of its own: two in one folder keep each its keys."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of this verb."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="the file to make (default: config.json here)")
    parser.add_argument("--no-scan", action="store_true", help="do not look for model servers")
    parser.add_argument("--json", action="store_true", help="print the result, keys included, as JSON")


def run(options: argparse.Namespace) -> int:
    """Make the files and print the keys."""
    path = _path(options.config, os.environ).absolute()
    if os.path.lexists(path):
        return _refuse(f"{path} exists already; nothing was changed")
    key, admin_key = f"sk-{secrets.token_hex(24)}", f"adm-{secrets.token_hex(24)}"
    found = [] if options.no_scan else scan(PORTS)
    usable = [server for server in found if not server.needs_key]
    document = build(key, admin_key, usable, now=datetime.now(UTC), salt=secrets.token_bytes(16))
    env_path = path.with_name(env_name(path))
    try:
        create(path, dump(document))
        env_path.unlink(missing_ok=True)  # keys of a config that is gone
        create(env_path, f"export DS2D_KEY='{key}'\nexport DS2D_ADMIN_KEY='{admin_key}'\n".encode())
    except ConflictError:
        return _refuse(f"{path} exists already; nothing was changed")
    except OSError as error:
        return _refuse(f"cannot write in {path.parent}: {os.strerror(error.errno or 0)}")
    if options.json:
        print(json.dumps({"config": str(path), "env": str(env_path), "key": key, "admin_key": admin_key}))
    else:
        _tell(path, env_path, (key, admin_key), found, scanned=not options.no_scan)
    return 0


def build(key: str, admin_key: str, servers: Sequence[Found], *, now: datetime, salt: bytes) -> dict[str, Any]:
    """The example with these keys, as hashes, and these servers, or the demo if there are none."""
    document = load(files("ds2d.config").joinpath("example.json").read_bytes())
    created = now.isoformat(timespec="seconds").replace("+00:00", "Z")
    document["keys"] = [{"key": hash_key(key), "name": "default", "created_at": created}]
    upstreams = [{"name": server.name, "kind": "openai", "base_url": server.base_url} for server in servers]
    document["upstreams"] = upstreams or [{"name": "demo", "kind": "demo"}]
    document["accounts"] = []
    document["admin"]["password_hash"] = hash_password(admin_key, salt)
    return document


def env_name(config: Path) -> str:
    """The name of the file that has this config's keys for a shell."""
    return ENV_NAME if config.name == FILE_NAME else f".{config.name.removesuffix('.json').lstrip('.')}{ENV_NAME}"


def _path(flag: Path | None, environ: Mapping[str, str]) -> Path:
    named = next((environ[name] for name in PATHS if environ.get(name)), FILE_NAME)
    return flag or Path(named)


def _refuse(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 1


def _tell(path: Path, env_path: Path, keys: tuple[str, str], found: Sequence[Found], *, scanned: bool) -> None:
    print(f"wrote {path}\n")
    for server in found:
        if server.needs_key:
            print(f"found {server.base_url}, which wants a key: add it under `upstreams` and `accounts`")
        else:
            print(f"found {server.base_url}: {', '.join(server.models[:4]) or 'no model loaded yet'}")
    if all(server.needs_key for server in found):
        where = f" on ports {', '.join(str(port) for port in PORTS)}" if scanned else ""
        print(f"no model server to use{where}: the embedded demo answers until `upstreams` names one")
    print(f"\nAPI key    {keys[0]}\nadmin key  {keys[1]}\n")
    print(f"They are shown this once; config.json holds hashes. For your shell they are in {env_path.name}: . ./{env_path.name}")
