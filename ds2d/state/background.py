"""A response that is worked on whether or not anybody listens, and those who do.

Rule: frame n is event n, kept as it was written, so that every follower gets the same bytes from wherever it begins;
decisions are synchronous, only waiting for more is async, and nobody polls.
Surprise: a response can be stopped before the work on it has begun; whoever takes the work up then learns it at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.dialects.openai_responses import Answer

FRAME_OVERHEAD = 48
"""Bytes that the interpreter adds to a kept frame: the object's head and its place in the list."""

_FRAMES_PER_WRITE = 128
_BYTES_PER_WRITE = 64 * 1024
_END = b"\n\n"

Stop = Callable[[GatewayError], None]


class BackgroundResponse:
    """One running background response. `deadline` is on the monotonic clock; `size` is bytes, overheads included.

    `snapshot` tells how far it is; whoever works on it replaces it by the encoder's. `grew` is told about new bytes and
    answers whether there is room for them.
    """

    def __init__(
        self, name: str, caller: str, deadline: float, snapshot: Callable[[], Answer], grew: Callable[[int], bool]
    ) -> None:
        self.id = name
        self.caller = caller
        self.deadline = deadline
        self.snapshot = snapshot
        self.frames: list[bytes] = []
        self.size = 0
        self.ended = False
        self.told: Callable[[bytes], None] = lambda _data: None
        """Told of everything that is kept."""
        self._grew = grew
        self._overfull = False
        self._tail: list[bytes] = []
        self._waiting: list[asyncio.Future[None]] = []
        self._stop: Stop | None = None
        self._stopped_by: GatewayError | None = None

    @property
    def is_followed(self) -> bool:
        """Whether somebody waits for what comes next."""
        return bool(self._waiting)

    def append(self, data: bytes) -> None:
        """Keep whole frames and wake those who wait. Raises GatewayError(INTERNAL) when the store has no room for more, once:
        the frames are kept all the same, and so are those that tell of it."""
        before = self.size
        self.told(data)
        for piece in data.split(_END)[:-1]:
            if piece.startswith(b"event:"):
                self.frames.append(piece + _END)
                self.size += len(piece) + len(_END) + FRAME_OVERHEAD
            elif not piece.startswith(b":"):  # the end mark; comments are life signs and no part of the answer
                self._tail.append(piece + _END)
        self._wake()
        if not self._grew(self.size - before) and not self._overfull:
            self._overfull = True
            raise GatewayError(ErrorKind.INTERNAL, "The background responses outgrew the store.")

    def end(self) -> bytes:
        """Nothing more will come. Returns all that was written, for later replays."""
        self.ended = True
        self._wake()
        return b"".join((*self.frames, *self._tail))

    def on_stop(self, stop: Stop) -> None:
        """How the work is stopped; called at once if that was asked for already."""
        self._stop = stop
        if self._stopped_by is not None:
            stop(self._stopped_by)

    def stop(self, error: GatewayError) -> None:
        """Ask for an end with this failure: CANCELLED, a timeout, SHUTTING_DOWN. The first one counts."""
        if self._stopped_by is not None or self.ended:
            return
        self._stopped_by = error
        if self._stop is not None:
            self._stop(error)

    async def follow(self, after: int) -> AsyncIterator[bytes]:
        """The frames with a number above `after`, then those to come, then the end mark."""
        at = max(after + 1, 0)
        while True:
            if at < len(self.frames):
                batch = self.frames[at : at + _FRAMES_PER_WRITE]
                at += len(batch)
                yield b"".join(batch)
            elif self.ended:
                break
            else:
                await self.changed()
        yield b"".join(self._tail)

    async def wait_ended(self) -> None:
        """Return once it has ended."""
        while not self.ended:
            await self.changed()

    async def changed(self) -> None:
        """Return after the next change."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            await waiter
        finally:
            if waiter in self._waiting:
                self._waiting.remove(waiter)

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)


async def replay(written: bytes, after: int) -> AsyncIterator[bytes]:
    """What an ended response wrote, from the event after number `after` on; pieces end where frames end."""
    at = 0
    for _ in range(after + 1):
        end = written.find(_END, at)
        if end < 0 or not written.startswith(b"event:", at):
            break
        at = end + len(_END)
    while at < len(written):
        cut = written.rfind(_END, at, at + _BYTES_PER_WRITE)
        if cut < 0:
            cut = written.find(_END, at)
        end = len(written) if cut < 0 else cut + len(_END)
        yield written[at:end]
        at = end
