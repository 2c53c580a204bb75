"""Connections to upstreams that are kept for the next call, and new ones.

Rule: the one used last is used next, so that the others grow old and are closed before their servers close them.
Surprise: a server may all the same close one in the very moment in which it is asked; what that means for a call is the
caller's to know (client.py).
"""

from __future__ import annotations

import asyncio
from contextvars import Context

from aiohappyeyeballs import start_connection

from ds2d.net.links import READ, CutError, Link, Place

IDLE_SECONDS = 15.0
"""How long a connection is kept that nobody uses; servers commonly close theirs somewhat later."""

MAX_UNUSED = 4096
"""Connections that are kept at most; more are closed."""


class Pool:
    """The connections. Make it inside the running loop; `close` it."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._unused: dict[tuple[str, int], list[Link]] = {}
        self.buffer = memoryview(bytearray(READ))
        self.links: set[Link] = set()
        """All that are open."""
        self.unused = 0
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed: asyncio.Future[None] | None = None

    def take(self, place: Place) -> Link | None:
        """An open connection to this place, the one used last; None if there is none."""
        unused = self._unused.get((place.host, place.port))
        while unused:
            link = unused.pop()
            self.unused -= 1
            if link.transport is not None and not link.transport.is_closing():
                return link
        return None

    async def connect(self, place: Place) -> Link:
        """A new connection. Raises OSError."""
        # in a context of its own: it outlives the request that it is made for, whose id its log lines must not carry
        return await self.loop.create_task(self._open(place), context=Context())

    async def _open(self, place: Place) -> Link:
        link = Link(self, (place.host, place.port))
        try:
            if place.is_address:
                await self.loop.create_connection(lambda: link, place.host, place.port)
            else:
                found = await self.loop.getaddrinfo(place.host, place.port, type=1)
                sock = await start_connection(found, happy_eyeballs_delay=0.25, loop=self.loop)
                await self.loop.create_connection(lambda: link, sock=sock)
        except BaseException:
            self.forget(link)  # given up in the moment in which it was made: uvloop never says that it is lost
            raise
        if link.transport is None:
            raise CutError("the connection was closed")
        return link

    def keep(self, link: Link) -> None:
        """Nobody uses this one now."""
        if self.unused >= MAX_UNUSED:
            link.close()
            return
        self.unused += 1
        link.unused_since = self.loop.time()
        self._unused.setdefault(link.place, []).append(link)
        if self._sweeper is None:
            self._sweeper = self.loop.call_later(IDLE_SECONDS, self._sweep)

    def forget(self, link: Link) -> None:
        """This one is closed."""
        self.links.discard(link)
        if self._closed is not None and not self.links and not self._closed.done():
            self._closed.set_result(None)
        unused = self._unused.get(link.place)
        if unused and link in unused:
            unused.remove(link)
            self.unused -= 1

    async def close(self) -> None:
        """Close all of them."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        for link in list(self.links):
            if link.transport is not None:
                link.transport.abort()
        self._closed = self.loop.create_future()
        if self.links:
            await self._closed

    def _sweep(self) -> None:
        """Close those that nobody has used for a while; the oldest stand first."""
        before = self.loop.time() - IDLE_SECONDS
        for place, unused in list(self._unused.items()):
            fresh = [link for link in unused if link.unused_since > before]
            for link in unused[: len(unused) - len(fresh)]:
                self.unused -= 1
                link.close()
            if fresh:
                self._unused[place] = fresh
            else:
                del self._unused[place]
        oldest = min((unused[0].unused_since for unused in self._unused.values()), default=None)
        self._sweeper = None if oldest is None else self.loop.call_at(oldest + IDLE_SECONDS, self._sweep)
