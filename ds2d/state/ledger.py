"""The record of every turn, on disk before its answer is whole.

Rule: only the event loop changes rows and only one thread writes them; a row is written as it stands then, as often as need be,
and `close` returns when that has happened. What cannot be written is kept in memory and written as soon as it can be.
Surprise: one batch is written at a time and the next one is made of all that came meanwhile: that is the group commit. Below
one batch in `GATHER` seconds nobody waits for anything but the disk. Rows that somebody waits for are only noted, which is an
append, unless they are many; to the tables they go with all others, for a table's pages cost the same for one row or twenty.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Protocol

import msgspec

from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.sizes import Size, Sizes
from ds2d.state.ledger_file import KeyRecord, LedgerFile, Recovered, Sums
from ds2d.state.ledger_notes import Saved
from ds2d.state.ledger_schema import OPEN, REJECTED, Row
from ds2d.state.ledger_thread import Worker

logger = logging.getLogger("ds2d.ledger")

GATHER = 0.008
"""Seconds from one forced write to the next, in which closings are gathered."""

LAZY = 0.1
"""Seconds in which a row that nobody waits for is written, with all others of its kind."""

RETRY = 1.0
"""Seconds between two attempts while the file cannot be written."""

PATIENCE = 2.0
"""Longest wait in seconds of an answer for its row: a disk that takes longer is as good as none."""

BATCH = 2000
"""Rows of one transaction."""

MANY = 8
"""Closings from which a batch goes to the tables at once: what noting them first would save is less than it costs."""

MAX_HELD = 200_000
"""Rows kept in memory while the file cannot be written; beyond that the oldest closed ones are lost, and counted. Those that the
file holds as open are not, or they would stand in it as running for ever: no more than the turns that ran when it failed."""

TIDY_SECONDS = 60.0

LOOKS_AT_CLOCK = 60
"""Rounds of tidying, an hour of them: a clock that is set forward deletes nothing before it has stayed there for so long."""

PRUNE_ROWS = 200
"""Rows deleted in one step, so that no answer waits long for it."""

REJECTED_A_SECOND = 100
"""Rows of refused turns that are kept a second: a flood of refusals must not become a flood of writes."""


class Settings(Protocol):
    """Config's `ledger`, as far as it concerns the file; meaning and bounds are config.md 2's."""

    @property
    def synchronous(self) -> Literal["full", "normal"]: ...
    @property
    def on_disk_full(self) -> Literal["serve", "refuse"]: ...
    @property
    def retention_days(self) -> int: ...


class File(Protocol):
    """What the writer thread calls; `LedgerFile` unless a test brings its own."""

    @property
    def is_open(self) -> bool: ...
    def open(self) -> None: ...
    def close(self) -> None: ...
    def note(self, batch: Sequence[Saved], synchronous: str) -> None: ...
    def write(self, batch: Sequence[Saved], synchronous: str) -> None: ...
    def sums(self, month: str, day: str) -> list[Sums]: ...
    def save_keys(self, keys: Iterable[KeyRecord], now: float) -> None: ...
    def recover(self) -> list[Recovered]: ...
    def prune(self, before: float, limit: int) -> int: ...


class Ticket:
    """A turn in the ledger. Change `row` and call `Ledger.touch`, or close it.

    `begun`: the file holds it as open, or will as soon as the batch is written in which it is.
    """

    __slots__ = ("begun", "number", "row")

    def __init__(self, number: int, row: Row) -> None:
        self.number = number
        self.row = row
        self.begun = False


class Ledger:
    """Owner of the ledger. `wall` is Unix seconds. `loaded` gets what every key has used, before the first request; `recovered`
    what turns had used of processes that died beside this one.

    `problem` says why rows stay in memory (disk_full, locked, slow, damaged or unwritable), None while all is well.
    """

    def __init__(
        self,
        folder: Path,
        settings: Settings,
        *,
        wall: Callable[[], float] = time.time,
        loaded: Callable[[list[Sums]], None] = lambda _: None,
        recovered: Callable[[list[Recovered]], None] = lambda _: None,
        file: File | None = None,
    ) -> None:
        self.path = folder
        self.problem: str | None = None
        self.lost = 0
        self._settings = settings
        self._wall = wall
        self._loaded = loaded
        self._recovered = recovered
        self._file = file or LedgerFile(folder)
        self._thread = Worker("ledger")
        self._dirty: dict[int, Ticket] = {}  # nobody waits for these
        self._since = 0.0  # when the first of them came
        self._closing: dict[int, Ticket] = {}
        self._waiting: list[asyncio.Future[None]] = []
        self._number = 0
        self._idle = asyncio.Event()  # no batch is being written
        self._idle.set()
        self._timer: asyncio.TimerHandle | None = None
        self._patience: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._forced = 0.0
        self._keys: list[KeyRecord] | None = None
        self._tidying: asyncio.Task[None] | None = None
        self._has_sums = False
        self._refused = (0, 0)  # second, and refusals in it
        self._offsets: deque[float] = deque(maxlen=LOOKS_AT_CLOCK)  # of the wall clock from the loop's

    async def start(self) -> None:
        """Open the file and load the sums; a file that cannot be opened is a problem, not an error."""
        self._loop = asyncio.get_running_loop()
        try:
            self._take_sums(await self._call(self._load))
        except (sqlite3.Error, OSError) as error:
            self._degrade(error)
        self._tidying = self._loop.create_task(self._tidy())

    async def close_file(self) -> None:
        """Write what is left, if that is possible, and let go of the file."""
        if self._tidying is not None:
            self._tidying.cancel()
            await asyncio.gather(self._tidying, return_exceptions=True)
        if self._timer is not None:
            self._timer.cancel()
        while not self._idle.is_set() or self._flush():
            await self._idle.wait()
            if self.problem is not None:
                break
        if self._timer is not None:
            self._timer.cancel()
        if self._dirty:
            logger.error("%d rows of the ledger could not be written and are lost", len(self._dirty))
        await self._call(self._file.close)
        self._thread.shutdown()

    def apply(self, settings: Settings, keys: Iterable[KeyRecord]) -> None:
        """Take over a config."""
        self._settings = settings
        records = list(keys)
        if records != self._keys:
            self._keys = records
            if self.problem is None and self._file.is_open:
                self._thread.submit(self._save_keys)

    def sizes(self) -> Sizes:
        """Rows that are not on disk yet."""
        return {"rows_unwritten": Size(len(self._dirty) + len(self._closing), MAX_HELD)}

    def open(self, row: Row) -> Ticket:
        """A turn begins; its row is written within `LAZY` seconds.

        Raises LEDGER_UNAVAILABLE where nothing can be written and config has it so (`ledger.on_disk_full: refuse`).
        """
        if self.problem is not None and self._settings.on_disk_full == "refuse":
            raise GatewayError(ErrorKind.LEDGER_UNAVAILABLE, "Usage cannot be recorded now.", retry_after=RETRY)
        self._number += 1
        ticket = Ticket(self._number, row)
        self.touch(ticket)
        return ticket

    def reject(self, row: Row) -> None:
        """A turn that was refused before it began: a row of its own, if there are not too many of them."""
        second = int(row.began_at)
        count = self._refused[1] + 1 if self._refused[0] == second else 1
        self._refused = (second, count)
        if count > REJECTED_A_SECOND or self.problem is not None:
            return
        self._number += 1
        row.state, row.ended_at = REJECTED, row.began_at
        self.touch(Ticket(self._number, row))

    def touch(self, ticket: Ticket) -> None:
        """The row has changed; it is written within `LAZY` seconds."""
        if not self._dirty:
            self._since = self._loop.time()
        self._dirty[ticket.number] = ticket
        if len(self._dirty) > MAX_HELD:
            self._forget()
        if self._timer is None:
            self._plan()

    async def close(self, ticket: Ticket) -> None:
        """The turn is over, as its row says; returns when that is on disk, or known to be impossible now."""
        if self.problem is not None:
            self.touch(ticket)
            return
        self._dirty.pop(ticket.number, None)
        self._closing[ticket.number] = ticket
        done: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append(done)
        self._plan()
        await done

    async def settle(self) -> None:
        """Returns when the tables hold every turn that was closed before, unless they cannot be written now, or only slowly."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                await self._rest()
                if self.problem is None and self._flush(self._dirty):
                    await self._rest()

    async def _rest(self) -> None:
        while not self._idle.is_set():
            await self._idle.wait()

    # Writing

    def _plan(self) -> None:
        """Have the next batch written when it is due; while one is being written, its end plans anew."""
        if not self._idle.is_set() or self.problem is not None:
            return
        if self._closing:
            self._plan_at(self._forced + GATHER, self._closing)
        elif self._dirty:
            self._plan_at(self._since + LAZY, self._dirty)

    def _plan_at(self, due: float, rows: dict[int, Ticket]) -> None:
        if self._timer is not None:
            if self._due <= due:
                return
            self._timer.cancel()
        self._due = due  # not asked of the timer: uvloop's does not always know
        self._timer = self._loop.call_at(due, self._flush, rows)

    def _flush(self, rows: dict[int, Ticket] | None = None) -> bool:
        """Hand a batch to the thread, of these rows if there are any; False where there is nothing to write."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        rows = rows or self._closing or self._dirty
        if not self._idle.is_set() or not rows:
            return False
        tickets = list(itertools.islice(rows.values(), BATCH))
        for ticket in tickets:
            del rows[ticket.number]
        waiting: list[asyncio.Future[None]] = []
        if not self._closing:
            waiting, self._waiting = self._waiting, waiting
        if waiting:
            self._forced = self._loop.time()
            self._patience = self._loop.call_later(PATIENCE, self._too_slow, waiting)
        self._hand_over(tickets, waiting, note=rows is self._closing and len(tickets) < MANY)
        return True

    def _hand_over(self, tickets: list[Ticket], waiting: list[asyncio.Future[None]], *, note: bool = False) -> None:
        """Have the thread write these rows as they stand now, or `note` them. It tells the loop itself: a future for it would
        cost as much as a row."""
        self._idle.clear()
        batch = [(ticket.number, msgspec.structs.astuple(ticket.row)) for ticket in tickets]
        begins = [ticket for ticket in tickets if ticket.row.state == OPEN and not ticket.begun]
        for ticket in begins:
            ticket.begun = True
        synchronous = self._settings.synchronous

        def work() -> None:
            sums, error = None, None
            try:
                sums = None if self._file.is_open else self._load()
                if note:
                    self._file.note(batch, synchronous)
                else:
                    self._file.write(batch, synchronous if waiting else "normal")
            except Exception as caught:  # noqa: BLE001 - whatever it is: the rows are kept, and those who wait go on
                error = caught
            noted = tickets if note else ()
            self._loop.call_soon_threadsafe(self._written, tickets, begins, noted, waiting, sums, error)

        self._thread.submit(work)

    def _written(
        self,
        tickets: list[Ticket],
        begins: list[Ticket],
        noted: Sequence[Ticket],
        waiting: list[asyncio.Future[None]],
        sums: list[Sums] | None,
        error: Exception | None,
    ) -> None:
        self._idle.set()
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        self._take_sums(sums)  # also where the file was read and then not written: it is open now, and not read again
        if error is not None:
            for ticket in begins:
                ticket.begun = False
            for ticket in (*tickets, *self._closing.values()):
                self._dirty.setdefault(ticket.number, ticket)
            self._closing.clear()
            waiting += self._waiting
            self._waiting = []
            self._degrade(error)
        else:
            self._say(None)
            if noted and not self._dirty:
                self._since = self._loop.time()
            for ticket in noted:
                self._dirty.setdefault(ticket.number, ticket)
        _release(waiting)
        if self.problem is None and self._dirty and self._loop.time() >= self._since + LAZY - GATHER:
            self._flush(self._dirty)  # now they hold up nobody, and later there may always be somebody
        else:
            self._plan()

    def _too_slow(self, waiting: list[asyncio.Future[None]]) -> None:
        """The disk takes too long: nobody waits for it any more, until that write is over."""
        self._say("slow")
        _release(waiting + self._waiting)
        self._waiting = []

    def _take_sums(self, sums: list[Sums] | None) -> None:
        """Once: what was used since is counted where it is used, written or not."""
        if sums is not None and not self._has_sums:
            self._has_sums = True
            self._loaded(sums)

    def _degrade(self, error: BaseException) -> None:
        """Rows stay in memory for now; try again after a while."""
        name = _name_of(error)
        self._say(name)
        if name not in ("disk_full", "locked"):
            self._thread.submit(self._file.close)
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(RETRY, self._retry)

    def _retry(self) -> None:
        if not self._flush():
            self._hand_over([], [])

    def _say(self, problem: str | None) -> None:
        """Log the beginning and the end of a problem, once each."""
        if problem == self.problem:
            return
        if problem is None:
            logger.warning("the ledger is written again: %d rows were kept in memory, %d were lost", len(self._dirty), self.lost)
        else:
            logger.error("the ledger cannot be written (%s): rows stay in memory (ledger.on_disk_full)", problem)
        self.problem = problem

    def _forget(self) -> None:
        """Too many rows in memory: let the oldest closed one go of which the file holds nothing."""
        rows = self._dirty.items()
        oldest = next((number for number, ticket in rows if ticket.row.state != OPEN and not ticket.begun), None)
        if oldest is not None:
            del self._dirty[oldest]
            self.lost += 1

    # In the thread, or by the clock

    def _load(self) -> list[Sums]:
        self._file.open()
        self._save_keys()
        today = datetime.fromtimestamp(self._wall(), UTC).date()
        return self._file.sums(today.replace(day=1).isoformat(), today.isoformat())

    def _save_keys(self) -> None:
        try:
            if self._keys is not None:
                self._file.save_keys(self._keys, self._wall())
        except (sqlite3.Error, OSError) as error:
            logger.warning("the keys could not be noted in the ledger: %s", _name_of(error))

    async def _tidy(self) -> None:
        """Now and then: turns of processes that died beside this one, and turns that are past retention."""
        while True:
            await asyncio.sleep(TIDY_SECONDS)
            if self.problem is None:
                try:
                    await self.tidy()
                except (sqlite3.Error, OSError) as error:
                    logger.warning("the ledger could not be tidied: %s", _name_of(error))

    async def tidy(self) -> None:
        """Once through both."""
        self._recovered(await self._call(self._file.recover))
        now = self._loop.time()
        self._offsets.append(self._wall() - now)
        before = now + min(self._offsets) - self._settings.retention_days * 86400
        deleted = PRUNE_ROWS
        while deleted == PRUNE_ROWS:
            deleted = await self._call(lambda: self._file.prune(before, PRUNE_ROWS))
            await asyncio.sleep(GATHER)

    def _call(self, work: Callable[[], Any]) -> Coroutine[Any, Any, Any]:
        return self._thread.call(work)


def _release(waiting: Iterable[asyncio.Future[None]]) -> None:
    for done in waiting:
        if not done.done():  # its client may have left
            done.set_result(None)


def _name_of(error: BaseException) -> str:
    """What is wrong, in a word."""
    text = str(error).lower()
    if "full" in text or getattr(error, "errno", None) in (28, 122):
        return "disk_full"
    if "locked" in text or "busy" in text:
        return "locked"
    return "unwritable" if isinstance(error, sqlite3.OperationalError | OSError) else "damaged"
