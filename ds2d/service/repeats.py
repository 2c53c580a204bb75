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
from collections.abc import Awaitable, Callable

from ds2d.config.schema import Config
from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.models import Route
from ds2d.core.sizes import Size, Sizes
from ds2d.service.run import MAX_ANSWER, Reader, Run
from ds2d.service.turn import Ask, Sink, Tools, Turn
from ds2d.state.books import Books
from ds2d.state.ledger_schema import COMPLETED, Row

LINGER_SECONDS = 10.0
"""How long an answer that has ended can be joined still: its client may have left just before."""

MAX_ENDED = 10_000
"""Answers that have ended and can be joined."""

MAX_HELD = 64 * 1024 * 1024
"""Bytes of all of them."""

Work = Callable[[Ask, Sink | None], Awaitable[object]]


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
                begun = run.begun  # before this is written: what came meanwhile is not in it
                await sink.write(data)
                if begun:
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
