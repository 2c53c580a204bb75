"""The ledger's SQLite file, as its one writer thread sees it.

Rule: one transaction a batch, and a batch that failed may be written again: what it holds are whole rows, never differences.
Surprise: rows that somebody waits for are not written here first, but noted beside the file (`ledger_notes`) and forced to disk
there; what is written here survives a kill, and is forced before the notes are let go.
What the file holds of a turn is remembered, not asked: a row that was left open is updated, any other one inserted. SQLite says
whether that was right; where it was not, the batch is written again, row by row, by what stands there.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from ds2d.state import ledger_notes as notes
from ds2d.state import ledger_schema as schema
from ds2d.state.ledger_notes import Notes, Owner, Saved, force
from ds2d.state.ledger_schema import FIELDS, LATER, OPEN, PROCESS_BITS
from ds2d.state.ledger_sums import ABANDONED, COUNTED, STOOD, Tally, counted

logger = logging.getLogger("ds2d.ledger")

NAME = "ledger.sqlite3"

BUSY_MS = 250
"""How long a lock of somebody else is waited for."""

CHECK_SECONDS = 2.0
"""Longest integrity check at the start; a file too large for that is used unchecked, and that is said."""

WAL_LIMIT = 64 * 1024 * 1024

NULL = float("nan")
"""What SQLite binds as NULL, and sqlite3 as a number: of a None it first asks whether something adapts it, which costs a
microsecond, and a row has a dozen of them."""

_STATE = FIELDS.index("state")


class Sums(msgspec.Struct, frozen=True):
    """What a key has used: (prompt, completion) tokens ever, this month and today (UTC). Times are Unix seconds."""

    key: str
    first_used_at: float | None
    last_used_at: float | None
    requests: int
    total: tuple[int, int]
    month: tuple[int, int]
    day: tuple[int, int]


class Recovered(NamedTuple):
    """What a turn had used whose process ended."""

    key: str
    prompt: int
    completion: int


_USED = (COUNTED.index("key"), COUNTED.index("prompt_tokens"), COUNTED.index("completion_tokens"))


class KeyRecord(msgspec.Struct, frozen=True):
    """A key of the config as the ledger keeps it: for the view, and for names of keys that are gone."""

    key: str
    name: str
    models: str
    max_tokens: int | None
    max_prompt_tokens: int | None
    max_completion_tokens: int | None
    active_days: int | None
    created_at: float | None
    expires_at: float | None
    deleted_at: float | None


class LedgerFile:
    """The file in `folder`. Every method blocks and raises sqlite3.Error or OSError; `open` comes first."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self._connection: sqlite3.Connection | None = None
        self._number = 0
        self._synchronous = ""
        self._open_rows: set[int] = set()
        """Turns of this process that the file holds as open ones. The ledger brings each one's end, also after a full disk."""
        self._notes: Notes | None = None
        self._noted: set[int] = set()
        """Turns that stand in the notes and not yet here."""
        self._forced = False
        """Whether the notes of this round were forced to disk."""
        self._counts = True
        """Whether sums are counted here; not while the file's triggers do it, which version 1 needs."""

    @property
    def is_open(self) -> bool:
        """Whether it can be written to."""
        return self._connection is not None

    def open(self) -> None:
        """Make or open the file, check it, and close the turns of processes that are gone. A damaged file is put aside."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            self._open()
        except sqlite3.DatabaseError as error:
            self.close()
            if isinstance(error, sqlite3.OperationalError):
                raise
            self._put_aside()
            self._open()

    def close(self) -> None:
        """Let go of the file; of the notes too, unless they hold what it does not."""
        if self._connection is None:
            return
        if self._notes is not None and not self._noted:
            with contextlib.suppress(OSError):  # then they stay, and whoever opens the file next reads them
                self._settle()
                self._notes.remove()
                self._notes = None
        self._connection.close()
        self._connection = None

    def note(self, batch: Sequence[Saved], synchronous: str) -> None:
        """Have these turns, which are over, on disk before `write` brings them into the file. `synchronous` is as there."""
        forced = synchronous == "full"
        try:
            if self._notes is None:
                self._notes = Notes(self.path.parent, Owner(self._number, *_myself()))
            self._notes.add(batch, force=forced)
        except OSError:
            self.write(batch, synchronous)  # that says what is wrong, if anything is
            return
        self._forced = self._forced or forced
        self._noted.update(number for number, _ in batch)

    def write(self, batch: Sequence[Saved], synchronous: str) -> None:
        """Save these turns in one transaction. `synchronous`: full forces them to disk, normal leaves that to the system."""
        if synchronous != self._synchronous:
            self._db.execute(_SYNCHRONOUS[synchronous])
            self._synchronous = synchronous
        try:
            self._write_as_remembered(batch)
        except sqlite3.IntegrityError:
            self._write_by_what_stands(batch)
        for number, fields in batch:
            if fields[_STATE] == OPEN:
                self._open_rows.add(number)
            else:
                self._open_rows.discard(number)
                self._noted.discard(number)
        if self._notes is not None and self._notes.full and not self._noted:
            self._settle()
            self._notes.restart(self._number)

    def _settle(self) -> None:
        """Have on disk what was written, as the notes of it are."""
        if self._forced:
            self._force()
        self._forced = False

    def _force(self) -> None:
        with contextlib.suppress(FileNotFoundError):  # then all is in the file itself, and forced
            force(self.path.with_name(f"{NAME}-wal"))

    def _write_as_remembered(self, batch: Sequence[Saved]) -> None:
        """Insert or update by what this object wrote; IntegrityError if the file holds something else."""
        base = self._number << PROCESS_BITS
        begun, new, known, tally = [], [], [], Tally()
        for number, fields in batch:
            if number in self._open_rows:
                known.append((*_bound(fields[LATER:]), base | number))
            elif schema.quiet(fields) == schema.QUIET:
                begun.append((base | number, *schema.begun(fields)))
                continue  # it counts nowhere yet
            else:
                new.append((base | number, *_bound(fields)))
            tally.add(counted(fields))
        with self._transaction() as db:
            if begun:
                db.executemany(schema.INSERT_BEGUN, begun)
            if new:
                db.executemany(schema.INSERT, new)
            if known and db.executemany(schema.UPDATE, known).rowcount != len(known):
                raise sqlite3.IntegrityError("a row that was left open is not there, or closed")
            self._count(tally)

    def _write_by_what_stands(self, batch: Sequence[Saved]) -> None:
        """The same, whatever the file holds."""
        with self._transaction():
            self._write_each(batch, self._number << PROCESS_BITS, schema.SAVE)

    def _write_each(self, batch: Iterable[Saved], base: int, save: str) -> None:
        """Row by row, by a statement that knows what it may write over."""
        tally = Tally()
        for number, fields in batch:
            stood = self._db.execute(STOOD, (base | number,)).fetchone()
            if self._db.execute(save, (base | number, *fields)).rowcount:
                if stood is not None:
                    tally.add(stood, -1)
                tally.add(counted(fields))
        self._count(tally)

    def _count(self, tally: Tally) -> None:
        if self._counts:
            tally.save(self._db)

    def sums(self, month: str, day: str) -> list[Sums]:
        """What every key has used; `month` and `day` are the dates (ISO) on which the current ones began."""
        return [
            Sums(key, first, last, requests, (p, c), (mp, mc), (dp, dc))
            for key, first, last, requests, p, c, mp, mc, dp, dc in self._db.execute(schema.SUMS, (month, day))
        ]

    def save_keys(self, keys: Iterable[KeyRecord], now: float) -> None:
        """Take over the keys of a config; those that it no longer holds are marked as deleted."""
        records = list(keys)
        with self._transaction() as db:
            lists = {(record.models,) for record in records}
            db.executemany("INSERT INTO allow_lists (models) VALUES (?) ON CONFLICT DO NOTHING", sorted(lists))
            known = {key for (key,) in db.execute("SELECT key FROM keys WHERE allow_list > 0 AND deleted_at IS NULL")}
            gone = known - {record.key for record in records}
            db.executemany("UPDATE keys SET deleted_at = ? WHERE key = ?", [(now, key) for key in sorted(gone)])
            db.executemany(schema.SAVE_KEY, [msgspec.structs.astuple(record) for record in records])

    def recover(self) -> list[Recovered]:
        """Close the turns whose process no longer runs with what their last checkpoint says, which is returned."""
        if not self._counts:
            self._renew()
        dead = [number for number, pid, started in self._db.execute(schema.OWNERS) if not _runs(pid, started)]
        self._take_over()
        found: list[Recovered] = []
        if not dead:
            return found
        tally = Tally()
        with self._transaction() as db:
            for number in dead:
                bounds = (number << PROCESS_BITS, (number + 1) << PROCESS_BITS)
                for row in db.execute(ABANDONED, bounds):
                    tally.add(row)
                    found.append(Recovered(*map(row.__getitem__, _USED)))
                db.execute(schema.RECOVER, bounds)
            self._count(tally)
        return found

    def _take_over(self) -> None:
        """Write what processes that no longer run noted and did not write. Their turns may stand here as cut off by somebody
        who did not know of the notes."""
        for path, owner in notes.left(self.path.parent):
            if _runs(owner.pid, owner.started) or (self._notes is not None and path == self._notes.path):
                continue
            with self._transaction() as db:
                known = (owner.number, owner.pid, owner.started)
                found = db.execute("SELECT 1 FROM processes WHERE number = ? AND pid = ? AND started = ?", known).fetchone()
                number = owner.number
                if found is None:  # its file was damaged and put aside
                    number = db.execute("INSERT INTO processes (pid, started) VALUES (?, ?)", known[1:]).lastrowid or 0
                self._write_each(notes.read(path, owner), number << PROCESS_BITS, schema.TAKE_OVER)
            self._force()
            path.unlink(missing_ok=True)

    def prune(self, before: float, limit: int) -> int:
        """Delete up to `limit` turns that began before `before`; how many. Sums stay."""
        with self._transaction() as db:
            return db.execute(schema.PRUNE, (before, limit)).rowcount

    @property
    def _db(self) -> sqlite3.Connection:
        if self._connection is None:
            raise sqlite3.OperationalError("the ledger is not open")
        return self._connection

    def _open(self) -> None:
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))  # SQLite's other files take after it
        connection = sqlite3.connect(self.path, timeout=BUSY_MS / 1000, isolation_level=None, check_same_thread=False)
        self._connection = connection
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA journal_size_limit = {WAL_LIMIT}")
        self._check(connection)
        connection.execute("PRAGMA ignore_check_constraints = ON")  # of the state: SQLite makes a table of the five for each row
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > schema.VERSION:
            raise sqlite3.OperationalError(f"the ledger was written by a newer version ({version})")
        connection.executescript(f"BEGIN IMMEDIATE; {schema.SCHEMA} COMMIT;")
        self._synchronous = ""
        self._open_rows = set()
        self._register()
        self._renew()
        if found := self.recover():
            logger.warning("the ledger held %d turns of a process that ended without closing them: interrupted", len(found))

    def _register(self) -> None:
        """Take a number for this process, once a file: opened again, its rows must keep their ids."""
        mine = _myself()
        with self._transaction() as db:
            known = db.execute("SELECT 1 FROM processes WHERE number = ? AND pid = ? AND started = ?", (self._number, *mine))
            if known.fetchone() is None:
                self._number = db.execute("INSERT INTO processes (pid, started) VALUES (?, ?)", mine).lastrowid or 0
        if self._notes is not None and self._notes.owner.number != self._number:
            self._notes.restart(self._number)  # what they hold was of another file, and is still in memory
            self._noted.clear()

    def _renew(self) -> None:
        """Make a new file one of this version; and one of version 1, unless another process has it: that may be of version 1
        itself and leave the counting to the triggers, or have found one that did, and do the same."""
        with self._transaction() as db:
            (version,) = db.execute("PRAGMA user_version").fetchone()
            others = db.execute("SELECT pid, started FROM processes WHERE number <> ?", (self._number,))
            self._counts = version in (0, schema.VERSION) or not any(_runs(pid, started) for pid, started in others)
            if self._counts and version < schema.VERSION:
                for trigger in schema.TRIGGERS:
                    db.execute(f"DROP TRIGGER IF EXISTS {trigger}")
                db.execute(f"PRAGMA user_version = {schema.VERSION}")

    def _check(self, connection: sqlite3.Connection) -> None:
        end = time.monotonic() + CHECK_SECONDS
        connection.set_progress_handler(lambda: time.monotonic() > end, 10000)
        try:
            (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        except sqlite3.OperationalError as error:
            if "interrupted" not in str(error):
                raise
            logger.info("the ledger is too large to be checked in %g s: used unchecked", CHECK_SECONDS)
            verdict = "ok"
        finally:
            connection.set_progress_handler(None, 0)
        if verdict != "ok":
            raise sqlite3.DatabaseError("the ledger is damaged")

    def _put_aside(self) -> None:
        """A damaged file is kept for whoever can mend it, and a new one begun."""
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        logger.error("the ledger is damaged: kept as %s.damaged-%s, a new one is begun", NAME, stamp)
        for suffix in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.rename(f"{self.path}{suffix}", f"{self.path}.damaged-{stamp}{suffix}")

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        db = self._db
        db.execute("BEGIN IMMEDIATE")
        try:
            yield db
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:  # SQLite ends it by itself after some errors
                db.execute("ROLLBACK")
            raise


_SYNCHRONOUS = {
    "full": "PRAGMA synchronous = FULL",
    "normal": "PRAGMA synchronous = NORMAL",
}


def _bound(fields: tuple[Any, ...]) -> list[Any]:
    return [NULL if value is None else value for value in fields]


def _myself() -> tuple[int, str]:
    """This process, as `processes` has it."""
    return os.getpid(), _start_of(os.getpid())


def _start_of(pid: int) -> str:
    """What tells this process from others that had or will have its number: boot and start time; empty if there is none, or one
    that has ended and that its parent has not asked about."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in b"ZX" else f"{boot} {fields[19].decode()}"


def _runs(pid: int, started: str) -> bool:
    return bool(started) and _start_of(pid) == started
