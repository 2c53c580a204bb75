"""A turn that its client may ask for again: where it writes, what it has written, and who else reads that.

Rule: what it wrote is kept from the first byte as long as somebody may still join; once it is too long for that, only what those
who have joined have yet to read. When nobody is left it ends, or goes on alone for the time that config gives it.
Surprise: to the service it is the client's sink, and to the network its outlet, so that chunks go straight through it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol

from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.models import Route
from ds2d.net.carrier import Outlet
from ds2d.service.turn import Ask, Sink, Turn

MAX_ANSWER = 8 * 1024 * 1024
"""Bytes of one answer; a longer one cannot be joined from its first byte any more."""

BACKLOG = 256 * 1024
"""Bytes that a joined client may be behind in an answer that is too long to keep, until the answer waits for it."""


class Keeper(Protocol):
    """Who counts the bytes of all of them, and the turns without a client."""

    held: int
    alone: int

    def is_full(self) -> bool: ...


class Reader:
    """A client that joined: the next piece that it wants, and what wakes it."""

    __slots__ = ("at", "news")

    def __init__(self) -> None:
        self.at = 0
        self.news = asyncio.Event()


class Run:
    """One turn that may be joined: where it writes, what it has written, who reads."""

    def __init__(self, owner: Keeper, ask: Ask, sink: Sink | None, grace: float) -> None:
        self.request_id = ask.request_id
        self.route: Route | None = None
        self.verdict: tuple[str, str, str | None] = "failed", "", None
        """How the answer ended, once it has: outcome, cause and its id, as its record has them."""
        self.sink = sink
        self.grace = grace
        self.task: asyncio.Task[object]
        self.here = True  # the client that began it
        self.joinable = True
        self.readers: list[Reader] = []
        self.until = 0.0
        self.size = 0
        self.written = 0
        self.started = False
        self.last: int | None = None
        """The piece before which the record of a joined answer must be on disk."""
        self.content_type = sink.content_type if sink else ""
        self.last_write = 0.0
        self._ask: Ask | None = ask
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._pieces: deque[bytes] = deque()
        self._base = 0
        self._room = asyncio.Event()
        self._alone_since: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._when_lost: Callable[[], None] | None = None

    @property
    def turn(self) -> Turn | None:
        """Its turn, once it has begun and as long as it is not over."""
        return self._ask.turn if self._ask is not None else None

    @property
    def begun(self) -> bool:
        """Whether more than life signs was written, as far as its turn still knows."""
        turn = self.turn
        return turn is None or turn.first is not None

    # A sink, and an outlet

    @property
    def outlet(self) -> Outlet:
        """Itself."""
        return self

    @property
    def when_lost(self) -> Callable[[], None] | None:
        """See `Outlet`. Not called where somebody else reads, or the turn goes on alone for a time."""
        return self._when_lost

    @when_lost.setter
    def when_lost(self, close: Callable[[], None] | None) -> None:
        self._when_lost = close
        outlet = self.sink.outlet if self.sink is not None and self.here else None
        if outlet is not None:
            outlet.when_lost = self._lost if close is not None else None

    def _lost(self) -> None:
        if self._when_lost is not None and not self.readers and not self.grace:
            self.joinable = False  # as below; its task hears of it later than a client may come
            self._when_lost()

    @property
    def ready(self) -> bool:
        """Whether the client that began it takes bytes without waiting, and nobody who joined is too far behind."""
        outlet = self.sink.outlet if self.sink is not None and self.here else None
        return outlet is not None and outlet.ready and not self._is_behind()

    def put(self, data: bytes) -> bool:
        """See `Outlet`."""
        assert self.sink is not None, "ask `ready` first"
        outlet = self.sink.outlet
        assert outlet is not None, "ask `ready` first"
        self._keep(data)
        return outlet.put(data)

    async def drained(self) -> None:
        """See `Outlet`."""
        outlet = self.sink.outlet if self.sink is not None and self.here else None
        if outlet is not None:
            try:
                await outlet.drained()
            except GatewayError:
                self._left_in_writing()

    async def write(self, data: bytes) -> None:
        """To all who are there. Raises CLIENT_CLOSED where nobody is, and it is not to go on alone."""
        self._keep(data)
        if self.sink is not None and self.here:
            self.sink.content_type = self.content_type
            try:
                await self.sink.write(data)
            except GatewayError:
                self._left_in_writing()
        while self._is_behind():
            self._room.clear()
            await self._room.wait()

    # Those who read

    def piece(self, reader: Reader, most: int = 64 * 1024) -> bytes:
        """What comes next for a reader: as much of it as there is, up to the last pieces, which come by themselves."""
        end = self.written if self.last is None or reader.at >= self.last else self.last
        found, size = [], 0
        while reader.at < end and size < most:
            found.append(self._pieces[reader.at - self._base])
            size += len(found[-1])
            reader.at += 1
        if not self.joinable:
            self._trim()
        self._room.set()
        return b"".join(found)

    def join(self) -> Reader:
        """One more client."""
        self._company()
        reader = Reader()
        self.readers.append(reader)
        return reader

    def part(self, reader: Reader | None) -> bool:
        """A client left: one that joined, or (None) the one that began it. True where the turn should end."""
        if reader is None:
            self.here = False
        elif reader in self.readers:
            self.readers.remove(reader)
        self._room.set()
        if not self.joinable:
            self._trim()
        if self.here or self.readers or self.task.done() or self.last is not None or self._goes_on_alone():
            return False  # (with its end it has its row, which is paid for: a retry shall find it)
        self.joinable = False  # who came in the moments until it has ended would get its end, and no answer
        return True

    def forgo(self) -> None:
        """Let nobody else join, and keep no more than is still to be read."""
        self.joinable = False
        self._trim()
        if not self.readers and not self.here and not self.task.done():
            self.task.cancel()

    def ends(self) -> None:
        """The answer is whole but for its last pieces. An answer that nobody is there to get is an interrupted one."""
        self.last = self.written
        turn = self.turn
        if turn is None:
            return
        self.route, self.verdict = turn.route, (turn.outcome, turn.cause, turn.answer_id)
        if not self.here and not self.readers:
            self._note_alone()
            turn.outcome, turn.cause = "interrupted", ErrorKind.CLIENT_CLOSED

    def over(self) -> None:
        """The turn's task has ended: its question and its record are not held any longer, only what it wrote."""
        self._company()
        self._ask = self.sink = None
        for reader in self.readers:
            reader.news.set()

    def hold(self, body: bytes) -> None:
        """An answer that came in one piece; its bytes count like those of a stream."""
        self._keep(body)

    def _keep(self, data: bytes) -> None:
        self.last_write = self._loop.time()
        self.written += 1
        self.started = True
        if not self.joinable and not self.readers:
            self._base = self.written
            return
        self._pieces.append(data)
        self.size += len(data)
        self._owner.held += len(data)
        if self.joinable and (self.size > MAX_ANSWER or self._owner.is_full()):
            self.forgo()
        for reader in self.readers:
            reader.news.set()

    def _trim(self) -> None:
        """Drop what all have read."""
        least = min((reader.at for reader in self.readers), default=self.written)
        while self._base < least and self._pieces:
            size = len(self._pieces.popleft())
            self._base += 1
            self.size -= size
            self._owner.held -= size

    def _is_behind(self) -> bool:
        return bool(not self.joinable and self.readers and self.size > BACKLOG)

    # Nobody is there

    def _left_in_writing(self) -> None:
        if self.part(None):
            raise GatewayError(ErrorKind.CLIENT_CLOSED, "The client closed the connection.")

    def _goes_on_alone(self) -> bool:
        """Begin the time that it may go on without a client, if it may: one that waits in the queue still may not."""
        turn = self.turn
        if not self.grace or not self.joinable or turn is None or not turn.tries:
            return False
        if self._alone_since is None:
            self._alone_since = self._loop.time()
            self._owner.alone += 1
            self._timer = self._loop.call_later(self.grace, self._give_up)
        return True

    def _give_up(self) -> None:
        self.joinable = False
        self._note_alone()
        self.task.cancel()

    def _company(self) -> None:
        if self._alone_since is not None and not self.task.done():
            self._note_alone()
        self._alone_since = None
        if self._timer is not None:
            self._timer.cancel()

    def _note_alone(self) -> None:
        if self._alone_since is not None and self.turn is not None:
            self.turn.notes.append(f"alone_ms={(self._loop.time() - self._alone_since) * 1000:.0f}")
            self._alone_since = None
