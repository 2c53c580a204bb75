"""The real daemon on a loopback port, in the test's own loop, in front of whatever the test wants behind it.

Everything is the daemon's own code, from config.json on disk to the socket; only the process and systemd are missing
(tests/functional/test_process.py starts those).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from ds2d.app import Daemon
from ds2d.config.source import Source
from ds2d.config.store import ConfigStore
from ds2d.core.tokens import rough
from ds2d.core.vocabulary import Tokenizer
from ds2d.net.counter import TokenCounter
from tests.functional.scripted import Wait
from tests.planted import found_in, plant

KEY = "sk-test-0123456789abcdef"
ADMIN_KEY = "adm-test-0123456789abcdef"
plant(KEY, ADMIN_KEY)


CARRIERS = ("own", "library")
"""Our connections, and the HTTP library's, which are there for TLS and proxies: what breaks must be told by both."""


class CountingHere(TokenCounter):
    """Counts in the test's own process, where one vocabulary is enough for all daemons: it costs a third of a second."""

    async def run(self, delay: float = 0.0) -> None:
        await asyncio.get_running_loop().run_in_executor(None, vocabulary)
        self.loaded = True

    async def count(self, text: str) -> int:
        return vocabulary().count(text) if self.loaded else rough(text)


@cache
def vocabulary() -> Tokenizer:
    """Read once."""
    return Tokenizer()


@dataclass
class Running:
    """A daemon that serves. `write` changes config.json as an editor would; `reload` takes it up at once."""

    daemon: Daemon
    path: Path
    port: int
    http: aiohttp.ClientSession

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def config(self) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads(self.path.read_text())
        return loaded

    def change(self, **sections: Any) -> None:
        """Write changed sections and take them up."""
        self.path.write_text(json.dumps({**self.config(), **sections}))
        self.daemon.store.reload()

    async def ask(self, path: str, body: Any = None, *, key: str | None = KEY, **kwargs: Any) -> tuple[int, Any, dict[str, str]]:
        """One request: status, parsed JSON (or text), lower-case headers."""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        headers |= kwargs.pop("headers", {})
        method = kwargs.pop("method", "GET" if body is None and "data" not in kwargs else "POST")
        if body is not None:
            kwargs["json"] = body
        async with self.http.request(method, self.url + path, headers=headers, **kwargs) as reply:
            raw = await reply.read()
            own = path.startswith(("/admin", "/docs")) or found_in(str(kwargs))  # tests of its own; samples; the client said it
            if not own:
                assert found_in(raw.decode("utf-8", "replace") + str(reply.headers)) == [], path
            found = {name.lower(): value for name, value in reply.headers.items()}
            try:
                return reply.status, json.loads(raw), found
            except ValueError:
                return reply.status, raw.decode(), found


def hold_back(monkeypatch: pytest.MonkeyPatch, owner: object, method: str) -> Wait:
    """Have every call of this coroutine method wait, before it does anything, until it is let go on."""
    wait, real = Wait(), getattr(owner, method)

    async def held(*values: Any) -> Any:
        wait.reached.set()
        await wait.until.wait()
        return await real(*values)

    monkeypatch.setattr(owner, method, held)
    return wait


def config_for(base_url: str, **sections: Any) -> dict[str, Any]:
    """A config with one key and one upstream that is polled fast."""
    upstream = {"name": "gpu", "kind": "openai", "base_url": base_url, "poll_seconds": 1}
    return {"keys": [KEY], "upstreams": [upstream], **sections}


@contextlib.asynccontextmanager
async def running(
    folder: Path,
    config: dict[str, Any],
    environ: dict[str, str] | None = None,
    port: int = 0,
    carrier: str | None = None,
    counting_apart: bool = False,
) -> AsyncIterator[Running]:
    """A daemon for the body of the `with`, with this config and these variables, first looked at its upstreams.

    `carrier` is what asks upstreams over plain HTTP: one of CARRIERS, "own" unless the environment says otherwise.
    `counting_apart`: tokens are counted as in a real daemon, by a process of its own.
    """
    carrier = carrier or os.environ.get("DS2D_TEST_CARRIER", "own")
    path = folder / "config.json"
    path.write_text(json.dumps(config))
    store = ConfigStore(Source(path, environ) if environ else Source.file(path))
    daemon = Daemon(store, own_connections=carrier == "own")
    if not counting_apart:
        daemon.counter = CountingHere()
    port = await daemon.start(port=port)
    try:
        await daemon.first_look()
        async with aiohttp.ClientSession() as http:
            yield Running(daemon, path, port, http)
    finally:
        await daemon.stop()
