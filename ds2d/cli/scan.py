"""Which servers on this machine speak the OpenAI protocol.

Rule: loopback only, no proxy, no redirect, short clocks, all ports at once: looking costs a second at most.
Surprise: Ollama without models answers `"data": null`; that is a server all the same.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any, NamedTuple

from ds2d.cli.progress import Progress

PORTS = {8000: "vllm", 30000: "sglang", 8080: "llamacpp", 11434: "ollama", 1234: "lmstudio"}
"""Usual ports, and what usually listens there."""

SECONDS = 1.0
MAX_BYTES = 1024 * 1024


class Found(NamedTuple):
    """A server; `needs_key`: it answered, but not without a key."""

    name: str
    base_url: str
    models: tuple[str, ...] = ()
    needs_key: bool = False


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


def scan(ports: Mapping[int, str]) -> list[Found]:
    """The servers found, in the order of the ports."""
    with ThreadPoolExecutor(max_workers=max(1, len(ports))) as pool, Progress("looking for model servers", len(ports)) as bar:
        asked = [pool.submit(_ask, port, name) for port, name in ports.items()]
        for _ in as_completed(asked):
            bar.step()
        return [found for one in asked if (found := one.result()) is not None]


def _ask(port: int, name: str) -> Found | None:
    base_url = f"http://127.0.0.1:{port}/v1"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect())
    try:
        with opener.open(f"{base_url}/models", timeout=SECONDS) as reply:
            body = json.loads(reply.read(MAX_BYTES))
    except urllib.error.HTTPError as error:
        error.close()
        return Found(name, base_url, needs_key=True) if error.code in {401, 403} else None
    except (OSError, ValueError):  # nobody there, or no HTTP, or no JSON
        return None
    return _understood(name, base_url, body)


def _understood(name: str, base_url: str, body: Any) -> Found | None:
    """The server behind a model list; None if this is no model list."""
    if not isinstance(body, dict) or (body.get("object") != "list" and "data" not in body):
        return None
    entries = body.get("data") or []
    if not isinstance(entries, list):
        return None
    ids = [entry["id"] for entry in entries if isinstance(entry, dict) and isinstance(entry.get("id"), str)]
    return Found(name, base_url, tuple(ids))
