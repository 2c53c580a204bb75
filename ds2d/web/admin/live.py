"""What the console shows live: one event stream, and the figures of the last hour and day.

Rule: nothing in the stream's state changes by the passing of time alone, so a quiet daemon sends nothing but signs of life.
Surprise: a stream outlives the check before it, so its login is looked at again with every change of the config, which is
what revokes one, and now and then, for it may end by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from itertools import islice

from aiohttp import web
from aiohttp_sse import sse_response

from ds2d.config.schema import Config
from ds2d.core.errors import GatewayError
from ds2d.core.sizes import Sizes
from ds2d.service import Turn
from ds2d.state.accounts import AccountQueue
from ds2d.state.catalog import Catalog
from ds2d.state.feed import Feed, Message, State
from ds2d.state.reports import queue_status
from ds2d.state.series import Series
from ds2d.web.admin.desk import Desk
from ds2d.web.admin.ops import described
from ds2d.web.keys import REQUEST_ID
from ds2d.web.replies import SERVER

SHOWN_TURNS = 200
"""Running turns that the stream tells of; the oldest."""

TRUST_SECONDS = 30.0
"""How long a stream goes on before its login is looked at again, where nothing has changed."""

COUNTS = ("available", "in_use", "total", "running", "waiting", "max_queue_size", "global_max_inflight")

Admit = Callable[[web.Request, str], Awaitable[object]]


class Live:
    """Handlers. `turns` are those that run, `name` tells this process from others, `admit` is the check of the admin routes."""

    def __init__(
        self,
        desk: Desk,
        *,
        queue: AccountQueue,
        catalog: Catalog,
        series: Series,
        turns: Mapping[str, Turn],
        monotonic: Callable[[], float],
        admit: Admit,
        name: str,
    ) -> None:
        self._desk = desk
        self._queue = queue
        self._catalog = catalog
        self._series = series
        self._turns = turns
        self._monotonic = monotonic
        self._admit = admit
        self._feed = Feed(self._state, monotonic, name)
        self._changed = asyncio.Event()

    def sizes(self) -> Sizes:
        """What the stream keeps for those who come back."""
        return self._feed.sizes()

    def look_again(self, config: Config) -> None:
        """Another config holds, and with it perhaps no longer who watches."""
        self._changed.set()
        self._changed = asyncio.Event()  # those who wait from now on wait for the next one

    async def events(self, request: web.Request) -> web.StreamResponse:
        """The state as an event, then what changes of it; who comes back with `Last-Event-ID` gets what was missed."""
        headers = {"Server": SERVER, "Cache-Control": "no-store", "X-Accel-Buffering": "no", "x-request-id": request[REQUEST_ID]}
        async with sse_response(request, headers=headers) as stream, contextlib.aclosing(self._trusted(request)) as messages:
            async for message in messages:
                await stream.send(message.data, id=message.id, event=message.event)
        return stream

    async def series(self, request: web.Request) -> web.StreamResponse:
        """The last hour and the last day, step by step."""
        return self._desk.reply(self._series.shown())

    async def _trusted(self, request: web.Request) -> AsyncGenerator[Message]:
        """Messages of the feed, as long as the login that asked for them holds."""
        looked = self._monotonic()
        async with contextlib.aclosing(self._feed.follow(request.headers.get("Last-Event-ID", ""))) as messages:
            coming = asyncio.ensure_future(anext(messages))
            changed = asyncio.ensure_future(self._changed.wait())
            try:
                while True:
                    left = max(0.0, looked + TRUST_SECONDS - self._monotonic())
                    await asyncio.wait({coming, changed}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                    if changed.done() or self._monotonic() - looked > TRUST_SECONDS:
                        changed.cancel()
                        changed = asyncio.ensure_future(self._changed.wait())
                        if not await self._holds(request):
                            return
                        looked = self._monotonic()
                    if coming.done():
                        yield coming.result()
                        coming = asyncio.ensure_future(anext(messages))
            finally:
                coming.cancel()
                changed.cancel()
                await asyncio.wait({coming, changed})

    async def _holds(self, request: web.Request) -> bool:
        try:
            await self._admit(request, "admin")
        except GatewayError:
            return False
        return True

    def _state(self) -> State:
        status = queue_status(self._queue)
        store = self._desk.store
        return {
            "queue": {name: status[name] for name in COUNTS},
            "accounts": {account["identifier"]: account for account in status["accounts"]},
            "requests": {name: self._running(name, turn) for name, turn in islice(self._turns.items(), SHOWN_TURNS)},
            "upstreams": self._catalog.details(),
            "config": {
                "generation": self._desk.config.generation,
                "problem": [str(error) for error in store.problem.errors] if store.problem else [],
                "warnings": [str(warning) for warning in self._desk.config.warnings],
                "pending_restart": store.pending_restart,
            },
            "series": self._series.latest(),
        }

    def _running(self, name: str, turn: Turn) -> dict[str, object]:
        """A turn without what changes by itself."""
        shown = described(name, turn, self._monotonic())
        del shown["age_ms"]
        return shown
