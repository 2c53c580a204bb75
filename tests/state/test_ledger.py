"""The ledger's owner: who waits for the disk, what is written together, what happens while nothing can be written."""

from __future__ import annotations

import asyncio
import errno
import logging
import sqlite3
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.state import ledger as module
from ds2d.state.ledger import MANY, Ledger
from ds2d.state.ledger_file import KeyRecord, LedgerFile, Recovered, Sums
from ds2d.state.ledger_notes import Saved
from tests.state.ledger_world import BEGAN, Settings, ended, look, row, started, until


class Fake:
    """A file that notes its batches, fails when told, and holds each write while `gate` is shut."""

    def __init__(self) -> None:
        self.is_open = False
        self.batches: list[tuple[list[tuple[Any, ...]], str]] = []
        self.noted: list[tuple[list[tuple[Any, ...]], str]] = []
        self.fails: BaseException | None = None
        self.gate = threading.Event()
        self.gate.set()
        self.opened = 0

    def open(self) -> None:
        if self.fails:
            raise self.fails
        self.is_open = True
        self.opened += 1

    def close(self) -> None:
        self.is_open = False

    def note(self, batch: Sequence[Saved], synchronous: str) -> None:
        self._take(batch, synchronous, self.noted)

    def write(self, batch: Sequence[Saved], synchronous: str) -> None:
        self._take(batch, synchronous, self.batches)

    def _take(self, batch: Sequence[Saved], synchronous: str, batches: list[tuple[list[tuple[Any, ...]], str]]) -> None:
        self.gate.wait(5)
        if self.fails:
            raise self.fails
        if batch:
            batches.append(([(fields[0], fields[10]) for _, fields in batch], synchronous))

    def sums(self, month: str, day: str) -> list[Sums]:
        return [Sums("a", None, None, 1, (1, 1), (1, 1), (1, 1))]

    def save_keys(self, keys: Iterable[KeyRecord], now: float) -> None:
        self.keys = list(keys)

    def recover(self) -> list[Recovered]:
        return []

    def prune(self, before: float, limit: int) -> int:
        return 0


FULL = sqlite3.OperationalError("database or disk is full")


async def written(file: Fake, batches: int) -> None:
    await until(lambda: len(file.batches) >= batches)


async def test_an_answer_waits_for_its_row(tmp_path: Path) -> None:
    file = Fake()
    ledger = await started(tmp_path, file=file)
    file.gate.clear()
    ticket = ledger.open(row())
    ended(ticket.row)
    waiting = asyncio.create_task(ledger.close(ticket))
    await asyncio.sleep(0.02)
    assert not waiting.done()
    file.gate.set()
    await waiting
    assert file.noted == [([("req_1", "completed")], "full")]
    await ledger.close_file()
    assert file.batches == [([("req_1", "completed")], "normal")]


async def test_rows_that_come_while_one_is_written_are_written_together(tmp_path: Path) -> None:
    file = Fake()
    ledger = await started(tmp_path, file=file)
    file.gate.clear()
    tickets = [ledger.open(row(f"req_{number}")) for number in range(MANY)]
    for ticket in tickets:
        ended(ticket.row)
    closing = [asyncio.create_task(ledger.close(tickets[0]))]
    await until(lambda: not ledger._idle.is_set())
    closing += [asyncio.create_task(ledger.close(ticket)) for ticket in tickets[1:]]
    await asyncio.sleep(0)
    file.gate.set()
    await asyncio.gather(*closing)
    assert len(file.noted) == 2
    await ledger.close_file()


async def test_rows_that_were_waited_for_are_in_the_tables_soon(tmp_path: Path) -> None:
    file = Fake()
    ledger = await started(tmp_path, file=file)
    for number in range(2):
        await ledger.close(_ended(ledger.open(row(f"req_{number}"))))
    await written(file, 1)
    assert file.batches == [([("req_0", "completed"), ("req_1", "completed")], "normal")]
    await ledger.close_file()


async def test_rows_that_nobody_waits_for_are_written_soon_and_not_forced(tmp_path: Path) -> None:
    file = Fake()
    ledger = await started(tmp_path, file=file)
    ledger.open(row())
    await written(file, 1)
    assert file.batches == [([("req_1", "open")], "normal")]
    await ledger.close_file()


async def test_synchronous_is_live(tmp_path: Path) -> None:
    file = Fake()
    ledger = await started(tmp_path, file=file)
    ledger.apply(Settings(synchronous="normal"), [])
    await ledger.close(ledger.open(ended(row())))
    assert file.noted[0][1] == "normal"
    await ledger.close_file()


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (FULL, "disk_full"),
        (OSError(errno.ENOSPC, "No space left"), "disk_full"),
        (sqlite3.OperationalError("database is locked"), "locked"),
        (OSError(errno.EDQUOT, "Quota exceeded"), "disk_full"),
        (sqlite3.OperationalError("database table is busy"), "locked"),
        (sqlite3.OperationalError("disk I/O error"), "unwritable"),
        (OSError(errno.EIO, "Input/output error"), "unwritable"),
        (sqlite3.DatabaseError("database disk image is malformed"), "damaged"),
    ],
)
async def test_what_cannot_be_written_is_kept_and_written_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: BaseException, problem: str
) -> None:
    monkeypatch.setattr(module, "RETRY", 0.01)
    file = Fake()
    ledger = await started(tmp_path, file=file)
    file.fails = error
    first = ledger.open(row("req_1"))
    await ledger.close(_ended(first))
    assert ledger.problem == problem
    await ledger.close(_ended(ledger.open(row("req_2"))))  # nobody waits any more
    assert [record.levelno for record in caplog.records] == [logging.ERROR], "one alarm, not one a row"
    file.fails = None
    await written(file, 1)
    await until(lambda: ledger.problem is None)
    assert sorted(one for batch, _ in file.batches for one in batch) == [("req_1", "completed"), ("req_2", "completed")]
    assert "written again: 0 rows" in caplog.records[1].getMessage()
    assert file.opened == (1 if problem in ("disk_full", "locked") else 2), "what may be wrong with the file is opened anew"
    await ledger.close_file()


def _ended(ticket: Any) -> Any:
    ended(ticket.row)
    return ticket


async def test_refuse_refuses_new_turns_only(tmp_path: Path) -> None:
    file = Fake()
    ledger = await started(tmp_path, file=file, settings=Settings(on_disk_full="refuse"))
    running = ledger.open(row("req_running"))
    file.fails = FULL
    await ledger.close(_ended(running))
    with pytest.raises(GatewayError) as refused:
        ledger.open(row())
    assert refused.value.kind is ErrorKind.LEDGER_UNAVAILABLE
    assert refused.value.status == 503
    ledger.apply(Settings(), [])
    ledger.open(row())
    file.fails = None
    await ledger.close_file()
    assert ("req_running", "completed") in [one for batch, _ in file.batches for one in batch]


async def test_a_file_that_cannot_be_opened_is_opened_later_and_sums_count_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY", 0.01)
    loaded: list[list[Sums]] = []
    file = Fake()
    file.fails = sqlite3.OperationalError("unable to open database file")
    ledger = await started(tmp_path, file=file, loaded=loaded.append)
    assert (ledger.problem, loaded) == ("unwritable", [])
    file.fails = None
    await until(lambda: ledger.problem is None)
    file.fails = sqlite3.DatabaseError("malformed")
    await ledger.close(_ended(ledger.open(row())))
    file.fails = None
    await written(file, 1)
    await until(lambda: ledger.problem is None)
    assert file.opened == 2
    assert len(loaded) == 1
    await ledger.close_file()


async def test_sums_count_though_what_was_written_behind_them_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY", 0.01)
    loaded: list[list[Sums]] = []
    file = Fake()
    file.fails = FULL
    ledger = await started(tmp_path, file=file, loaded=loaded.append)
    ledger.open(row())
    file.gate.clear()
    file.fails = None  # there is room to open it again, and then not for the rows
    await until(lambda: file.opened == 1)
    assert ledger.problem == "disk_full"
    file.fails = FULL
    file.gate.set()
    await until(lambda: loaded)
    file.fails = None
    await until(lambda: ledger.problem is None)
    assert (len(loaded), file.opened) == (1, 1)
    await ledger.close_file()


async def test_a_disk_that_hangs_holds_no_answer_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.01)
    file = Fake()
    ledger = await started(tmp_path, file=file)
    file.gate.clear()
    await ledger.close(_ended(ledger.open(row())))
    assert ledger.problem == "slow"
    file.gate.set()
    await written(file, 1)
    await until(lambda: ledger.problem is None)
    await ledger.close_file()


async def test_a_client_that_leaves_while_its_row_is_written_disturbs_nobody(tmp_path: Path) -> None:
    file = Fake()
    ledger = await started(tmp_path, file=file)
    file.gate.clear()
    gone = asyncio.create_task(ledger.close(_ended(ledger.open(row("req_gone")))))
    stays = asyncio.create_task(ledger.close(_ended(ledger.open(row("req_stays")))))
    await asyncio.sleep(0.01)
    gone.cancel()
    file.gate.set()
    await stays
    assert ("req_gone", "completed") in file.noted[0][0]
    await ledger.close_file()


async def test_memory_is_bounded_while_nothing_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_HELD", 10)
    file = Fake()
    ledger = await started(tmp_path, file=file)
    file.fails = FULL
    running = ledger.open(row("req_running"))
    for number in range(15):
        await ledger.close(_ended(ledger.open(row(f"req_{number}"))))
    assert (len(ledger._dirty), ledger.lost) == (10, 6)
    assert running.number in ledger._dirty
    file.fails = None
    await ledger.close_file()


async def test_a_turn_that_the_file_holds_as_running_is_not_among_the_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would stand in the file as running, and its number be kept, for as long as the process lives."""
    monkeypatch.setattr(module, "MAX_HELD", 3)
    monkeypatch.setattr(module, "RETRY", 0.01)
    ledger = await started(tmp_path)
    file = ledger._file
    assert isinstance(file, LedgerFile)
    running = [ledger.open(row(f"req_running_{number}")) for number in range(2)]
    await until(lambda: len(file._open_rows) == 2)
    write = file.write
    monkeypatch.setattr(file, "write", _full)
    monkeypatch.setattr(file, "note", _full)
    for ticket in [*running, *(ledger.open(row(f"req_{number}")) for number in range(3))]:
        await ledger.close(_ended(ticket))
    assert ledger.lost == 2
    monkeypatch.setattr(file, "write", write)
    await until(lambda: ledger.problem is None)
    assert file._open_rows == set()
    await ledger.close_file()
    assert look(tmp_path, "SELECT request_id, state FROM turns ORDER BY id") == [
        ("req_running_0", "completed"),
        ("req_running_1", "completed"),
        ("req_2", "completed"),
    ]


def _full(*_: Any) -> None:
    raise FULL


async def test_a_turn_whose_beginning_is_being_written_is_not_among_the_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_HELD", 1)
    file = Fake()
    ledger = await started(tmp_path, file=file)
    file.gate.clear()
    first = ledger.open(row("req_first"))
    await until(lambda: not ledger._idle.is_set())
    for ticket in (first, ledger.open(row("req_second"))):
        ledger.touch(_ended(ticket))
    assert (list(ledger._dirty), ledger.lost) == ([first.number], 1)
    file.gate.set()
    await ledger.close_file()
    assert [batch for batch, _ in file.batches] == [[("req_first", "open")], [("req_first", "completed")]]


async def test_a_turn_whose_beginning_could_not_be_written_is_lost_like_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else those that began while the disk was full would be kept beyond the bound."""
    monkeypatch.setattr(module, "MAX_HELD", 1)
    file = Fake()
    ledger = await started(tmp_path, file=file)
    file.fails = FULL
    first = ledger.open(row("req_first"))
    await until(lambda: ledger.problem is not None)
    assert list(ledger._dirty) == [first.number]
    for ticket in (first, ledger.open(row("req_second"))):
        ledger.touch(_ended(ticket))
    assert (list(ledger._dirty), ledger.lost) == ([first.number + 1], 1)
    file.fails = None
    await ledger.close_file()


async def test_a_flood_of_refusals_is_no_flood_of_rows(tmp_path: Path) -> None:
    file = Fake()
    ledger = await started(tmp_path, file=file)
    for number in range(module.REJECTED_A_SECOND + 50):
        ledger.reject(row(f"req_{number}", cause="rate_limited"))
    await ledger.close_file()
    assert sum(len(batch) for batch, _ in file.batches) == module.REJECTED_A_SECOND


async def test_the_last_rows_are_written_at_the_end(tmp_path: Path) -> None:
    ledger = await started(tmp_path)
    for number in range(3000):  # more than one batch
        ledger.open(row(f"req_{number}"))
    await ledger.close_file()
    assert look(tmp_path, "SELECT count(*), count(DISTINCT request_id) FROM turns") == [(3000, 3000)]


async def test_what_comes_while_a_batch_is_written_is_written_at_the_end(tmp_path: Path) -> None:
    file = Fake()
    ledger = await started(tmp_path, file=file)
    file.gate.clear()
    ledger.open(row("req_1"))
    await until(lambda: not ledger._idle.is_set())
    ledger.open(row("req_2"))
    ending = asyncio.create_task(ledger.close_file())
    await asyncio.sleep(0.01)
    file.gate.set()
    await ending
    assert [batch for batch, _ in file.batches] == [[("req_1", "open")], [("req_2", "open")]]


async def test_a_real_file_that_is_locked_and_free_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY", 0.01)
    monkeypatch.setattr("ds2d.state.ledger_file.BUSY_MS", 1)
    ledger = await started(tmp_path)
    file = ledger._file
    assert isinstance(file, LedgerFile)
    other = sqlite3.connect(file.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    await ledger.close(_ended(ledger.open(row())))
    await until(lambda: ledger.problem == "locked")
    other.execute("ROLLBACK")
    other.close()
    await until(lambda: ledger.problem is None)
    assert look(tmp_path, "SELECT state FROM turns") == [("completed",)]
    await ledger.close_file()


async def test_tidying_prunes_in_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PRUNE_ROWS", 2)
    ledger = await started(tmp_path, settings=Settings(retention_days=1))
    old = row().began_at - 2 * 86400
    await asyncio.gather(*(ledger.close(ledger.open(ended(row(began_at=old)))) for _ in range(5)))
    await ledger.close(ledger.open(ended(row("req_new"))))
    await until(lambda: not ledger._dirty and ledger._idle.is_set())
    await ledger.tidy()
    assert look(tmp_path, "SELECT request_id FROM turns") == [("req_new",)]
    await ledger.close_file()


async def test_what_turns_of_a_killed_process_had_used_is_told_once(tmp_path: Path) -> None:
    told: list[list[Recovered]] = []
    ledger = await started(tmp_path, recovered=told.append)
    other = LedgerFile(tmp_path)
    other.open()
    other.write([(1, msgspec.structs.astuple(row(prompt_tokens=7, completion_tokens=3)))], "normal")
    await ledger.tidy()
    with sqlite3.connect(other.path) as db:
        db.execute("UPDATE processes SET started = 'another boot' WHERE number = 2")
    db.close()
    await ledger.tidy()
    await ledger.tidy()
    assert told == [[], [Recovered("a", 7, 3)], []]
    other.close()
    await ledger.close_file()


async def test_a_clock_that_is_set_forward_deletes_nothing_for_an_hour(tmp_path: Path) -> None:
    steps = [0.0]
    ledger = Ledger(tmp_path, Settings(retention_days=90), wall=lambda: BEGAN + steps[0])
    await ledger.start()
    await ledger.close(ledger.open(ended(row())))
    await ledger.settle()
    await ledger.tidy()
    steps[0] = 100 * 86400
    for _ in range(module.LOOKS_AT_CLOCK - 1):
        await ledger.tidy()
        assert len(look(tmp_path, "SELECT 1 FROM turns")) == 1
    await ledger.tidy()
    assert look(tmp_path, "SELECT 1 FROM turns") == []
    await ledger.close_file()


def test_a_ledger_that_was_not_started_touches_no_disk(tmp_path: Path) -> None:
    assert Ledger(tmp_path, Settings()).problem is None
    assert not list(tmp_path.iterdir())
