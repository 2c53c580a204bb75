"""The daemon put together: owners built, routes wired, started and stopped in one place.

Rule: this module and the command line are the only ones that know everything; every background task is started here and
awaited here. Clock, ids and randomness are handed down as functions.
Surprise: the config's subscribers run in the order in which they are listed here, and all of them before the next request.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
import time
from collections.abc import Coroutine, Sequence
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from ds2d.config.schema import Config
from ds2d.config.store import ConfigStore
from ds2d.core.calls import Call, Reply
from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.request import ChatRequest
from ds2d.core.seal import Sealer
from ds2d.core.tokens import Tokenizer
from ds2d.net.client import Client
from ds2d.service import Service, Turn
from ds2d.state.accounts import AccountQueue
from ds2d.state.callers import Callers
from ds2d.state.catalog import Catalog
from ds2d.state.logins import Logins
from ds2d.web.handlers import Business, Probes
from ds2d.web.middleware import around
from ds2d.web.routes import Router, add_dialect_routes
from ds2d.web.server import Runner

logger = logging.getLogger("ds2d")

BIG_TEXT = 32 * 1024
"""Characters above which tokens are counted in a thread (tokens.md)."""

QUIET_SECONDS = 0.2
"""How long no turn may have run before a drain is over: an accepted connection may hold a request not yet read."""


def new_id(prefix: str) -> str:
    """An opaque id: the prefix and 24 hex digits."""
    return prefix + secrets.token_hex(12)


class Toolbox:
    """What the service needs of the world: clocks, ids, token counts, tracked background work."""

    def __init__(self, tokenizer: Tokenizer, sealer: Sealer) -> None:
        self._tokenizer = tokenizer
        self._sealer = sealer
        self._tasks: set[asyncio.Task[None]] = set()

    monotonic = staticmethod(time.monotonic)
    new_id = staticmethod(new_id)

    def now(self) -> int:
        return int(time.time())

    def seal(self, text: str) -> str:
        return self._sealer.seal(text)

    async def count_text(self, text: str) -> int:
        if len(text) < BIG_TEXT:
            return self._tokenizer.count(text)
        return await asyncio.get_running_loop().run_in_executor(None, self._tokenizer.count, text)

    async def count_request(self, request: ChatRequest) -> int:
        return await asyncio.get_running_loop().run_in_executor(None, self._tokenizer.count_request, request)

    def rough_request(self, request: ChatRequest) -> int:
        return self._tokenizer.rough_request(request)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run after-work that nobody waits for until the daemon stops."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """End what still runs."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
