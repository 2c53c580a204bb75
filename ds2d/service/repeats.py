"""One answer for a request and its client's retries of it.

Rule: what joins is the same caller's same body again, said by its SDK to be a retry or to be the same (`Idempotency-Key`); it
gets the running answer from its first byte and costs nothing. Nobody else's answer is ever joined, and a failure never twice:
a retry that comes after one begins anew.
Surprise: two equal requests that run at once, neither of them a retry, are two samples of one question; a retry of either could
be of both, so none may join them. And a turn that can be joined runs in a task of its own, since the client that began it may
leave before one that joined it; nothing more of it is dearer than a turn that cannot.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from ds2d.config.schema import Config
from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.models import Route
from ds2d.core.sizes import Size, Sizes
from ds2d.net.carrier import Outlet
from ds2d.service.turn import Ask, Sink, Tools, Turn
from ds2d.state.books import Books
from ds2d.state.ledger_schema import COMPLETED, Row

LINGER_SECONDS = 10.0
"""How long an answer that has ended can be joined still: its client may have left just before."""

MAX_ANSWER = 8 * 1024 * 1024
"""Bytes of one answer; a longer one cannot be joined from its first byte any more."""

MAX_ENDED = 10_000
"""Answers that have ended and can be joined."""

MAX_HELD = 64 * 1024 * 1024
"""Bytes of all of them."""

BACKLOG = 256 * 1024
"""Bytes that a joined client may be behind in an answer that is too long to keep, until the answer waits for it."""

Work = Callable[[Ask, Sink | None], Awaitable[object]]


class Reader:
    """A client that joined: the next piece that it wants, and what wakes it."""

    __slots__ = ("at", "news")

    def __init__(self) -> None:
        self.at = 0
        self.news = asyncio.Event()


class Run:
    """One turn that may be joined: where it writes, what it has written, who reads."""

    def __init__(self, owner: Repeats, ask: Ask, sink: Sink | None, grace: float) -> None:
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

    @property
    def turn(self) -> Turn | None:
        """Its turn, once it has begun and as long as it is not over."""
        return self._ask.turn if self._ask is not None else None

    # A sink, and an outlet

    @property
    def outlet(self) -> Outlet:
        """Itself."""
        return self

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
        return not (self.here or self.readers or self.task.done() or self._goes_on_alone())

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


class Repeats:
    """Owner of the turns that may be joined. `work` runs a turn; `route` is the service's.

    `joined` counts requests that got another one's answer, `alone` turns that went on without a client.
    """

    def __init__(
        self, config: Callable[[], Config], books: Books, tools: Tools, work: Work, route: Callable[[Ask], Route]
    ) -> None:
        self._config = config
        self._books = books
        self._tools = tools
        self._work = work
        self._route = route
        self._running: dict[bytes, Run] = {}
        self._ended: dict[bytes, Run] = {}  # in the order in which they ended
        self.held = 0
        self.joined = 0
        self.alone = 0

    async def run(self, ask: Ask, sink: Sink | None) -> object:
        """A turn, or the answer of the one that this request repeats."""
        runtime, again = self._config().runtime, ask.again
        if again is None or not runtime.retry_collapse:
            return await self._work(ask, sink)
        self.expire()
        found = self._running.get(again.key) or self._ended.get(again.key)
        if found is not None and again.joins and found.joinable:
            return await self._join(found, ask, sink)
        run = Run(self, ask, sink, runtime.retry_grace_seconds)
        if found is not None:
            run.joinable = again.joins or found.task.done() or not found.here
            self._ended.pop(again.key, None)
            found.forgo()
        return await self._begin(again.key, run, ask, sink is not None)

    def expire(self) -> None:
        """Let go of answers that ended a while ago."""
        now = self._tools.monotonic()
        while self._ended:
            key, run = next(iter(self._ended.items()))
            if run.until > now:
                return
            self._ended.pop(key).forgo()

    def is_full(self) -> bool:
        """Whether the bytes that are kept are too many, those of answers that have ended let go of first."""
        while self.held > MAX_HELD and self._ended:
            self._ended.pop(next(iter(self._ended))).forgo()
        return self.held > MAX_HELD

    async def close(self) -> None:
        """End what runs without a client."""
        tasks = [run.task for run in self._running.values() if not run.task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def sizes(self) -> Sizes:
        """Answers that may be joined, and their bytes."""
        bound = self._config().server.max_connections
        count = len(self._running) + len(self._ended)
        return {"runs": Size(count, bound + MAX_ENDED), "held_bytes": Size(self.held, MAX_HELD + MAX_ANSWER)}

    async def _begin(self, key: bytes, run: Run, ask: Ask, streams: bool) -> object:
        before = ask.on_ending

        def ending() -> None:
            before()
            run.ends()

        ask.on_ending = ending
        self._running[key] = run
        run.task = asyncio.ensure_future(self._work(ask, run if streams else None))
        run.task.add_done_callback(lambda task: self._over(key, run, task))
        try:
            await asyncio.wait((run.task,))
        except asyncio.CancelledError:
            if run.part(None):
                run.task.cancel()
                await asyncio.wait((run.task,))
            raise
        return run.task.result()

    def _over(self, key: bytes, run: Run, task: asyncio.Task[object]) -> None:
        run.over()
        latest = self._running.get(key) is run
        if latest:
            del self._running[key]
        failed = task.cancelled() or task.exception() is not None or run.verdict[0] != COMPLETED
        if failed or not latest or not run.joinable:
            run.forgo()
            return
        if isinstance(body := task.result(), bytes):
            run.hold(body)
        run.until = self._tools.monotonic() + LINGER_SECONDS
        self._ended[key] = run
        while len(self._ended) > MAX_ENDED:
            self._ended.pop(next(iter(self._ended))).forgo()

    async def _join(self, run: Run, ask: Ask, sink: Sink | None) -> object:
        first = run.turn
        route = first.route if first is not None else run.route or self._route(ask)
        turn = Turn(ask, self._config(), route, self._tools.monotonic(), self._tools.now())
        turn.notes = [f"joined={run.request_id}"]
        ask.turn = turn
        self.joined += 1
        if first is not None:
            first.notes.append("shared")
        row = self._books.row(ask.request_id, ask.caller, ask.dialect_name, ask.request)
        reader = run.join()
        closing = Closing(self._books, row, turn, run)
        try:
            if sink is None:
                await asyncio.wait((run.task,))
            else:
                await self._follow(run, reader, sink, closing)
            body = run.task.result()
            await closing.commit()
            return body
        except GatewayError as error:
            turn.outcome, turn.cause = "failed", error.kind
            if error.kind is ErrorKind.CLIENT_CLOSED:
                turn.outcome = "interrupted"
            raise
        except asyncio.CancelledError:
            turn.outcome, turn.cause = "interrupted", ErrorKind.CLIENT_CLOSED
            raise
        finally:
            if run.part(reader):
                run.task.cancel()
            closing.close()

    async def _follow(self, run: Run, reader: Reader, sink: Sink, closing: Closing) -> None:
        """Write what was written and what will be, until the turn is over."""
        while True:
            reader.news.clear()
            are_last = run.last is not None and reader.at >= run.last
            if data := run.piece(reader):
                if are_last:
                    await closing.commit()
                sink.content_type = run.content_type
                await sink.write(data)
                closing.turn.first = closing.turn.first or self._tools.monotonic()
            elif run.task.done():
                return
            else:
                await reader.news.wait()


class Closing:
    """The row of a joined answer: written once, before its last pieces go out."""

    def __init__(self, books: Books, row: Row, turn: Turn, run: Run) -> None:
        self.turn = turn
        self._books = books
        self._row: Row | None = row
        self._run = run

    async def commit(self) -> None:
        """The answer is whole but for what follows, and ended as the turn did that it is of; that one's client may be gone."""
        row, self._row = self._row, None
        if row is None:
            return
        turn = self.turn
        turn.outcome, turn.cause, turn.answer_id = self._run.verdict
        await self._books.on_disk(self._books.joined(row, turn))

    def close(self) -> None:
        """It did not get so far."""
        row, self._row = self._row, None
        if row is not None:
            self._books.joined(row, self.turn)
