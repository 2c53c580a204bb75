"""The ledger beside its rows: keys, refusals, tidying, the one thread, and how it ends."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from ds2d.core.errors import GatewayError
from ds2d.core.sizes import Size
from ds2d.state import ledger as module
from ds2d.state.ledger import Ledger, Ticket
from ds2d.state.ledger_file import KeyRecord, Recovered, Sums
from ds2d.state.ledger_notes import Saved
from tests.state.ledger_world import BEGAN, Settings, ended, look, row, started, until

LOCKED = sqlite3.OperationalError("database is locked")


class Noting:
    """A file that notes every call and its thread; calls named in `fails` fail."""

    def __init__(self) -> None:
        self.is_open = False
        self.calls: list[tuple[Any, ...]] = []
        self.threads: set[int] = set()
        self.fails: dict[str, Exception] = {}
        self.gate = threading.Event()
        self.gate.set()

    def _note(self, *call: Any) -> None:
        self.calls.append(call)
        self.threads.add(threading.get_ident())
        if error := self.fails.get(call[0]):
            raise error

    def open(self) -> None:
        self._note("open")
        self.is_open = True

    def close(self) -> None:
        self._note("close")
        self.is_open = False

    def note(self, batch: Sequence[Saved], synchronous: str) -> None:
        self._note("note", len(batch))

    def write(self, batch: Sequence[Saved], synchronous: str) -> None:
        self._note("write", len(batch))

    def sums(self, month: str, day: str) -> list[Sums]:
        self._note("sums", month, day)
        return []

    def save_keys(self, keys: Iterable[KeyRecord], now: float) -> None:
        self._note("save_keys", [key.key for key in keys], now)

    def recover(self) -> list[Recovered]:
        self._note("recover")
        self.gate.wait(5)
        return []

    def prune(self, before: float, limit: int) -> int:
        self._note("prune", before, limit)
        return 0

    def of(self, name: str) -> list[tuple[Any, ...]]:
        """The arguments of the calls of this name."""
        return [call[1:] for call in self.calls if call[0] == name]


def unwritable(error: Exception) -> dict[str, Exception]:
    """No row gets to disk, one way or the other."""
    return {"note": error, "write": error}


def key(name: str) -> KeyRecord:
    return KeyRecord(name, name, "[]", None, None, None, None, None, None, None)


async def settled(ledger: Ledger) -> None:
    """Until the thread has done what it was given."""
    await ledger._call(lambda: None)


async def test_keys_are_noted_at_the_start_and_when_they_change(tmp_path: Path) -> None:
    file = Noting()
    ledger = Ledger(tmp_path, Settings(), wall=lambda: BEGAN, file=file)
    ledger.apply(Settings(), [key("a")])
    await ledger.start()
    for names in (["a"], ["a", "b"], ["a", "b"]):
        ledger.apply(Settings(), map(key, names))
        await settled(ledger)
    assert file.of("save_keys") == [(["a"], BEGAN), (["a", "b"], BEGAN)]
    await ledger.close_file()


async def test_keys_that_change_while_nothing_can_be_written_are_noted_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY", 0.01)
    file = Noting()
    ledger = await started(tmp_path, file=file)
    file.fails = {**unwritable(sqlite3.DatabaseError("malformed")), "open": sqlite3.OperationalError("unable to open")}
    await ledger.close(ledger.open(ended(row())))
    ledger.apply(Settings(), [key("a")])
    await settled(ledger)
    assert file.of("save_keys") == []
    file.fails = {}
    await until(lambda: ledger.problem is None)
    assert file.of("save_keys") == [(["a"], BEGAN)]
    await ledger.close_file()


async def test_keys_that_cannot_be_noted_stop_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = Noting()
    file.fails = {"save_keys": LOCKED}
    ledger = await started(tmp_path, file=file)
    ledger.apply(Settings(), [key("a")])
    await settled(ledger)
    assert "could not be noted in the ledger: locked" in caplog.text
    assert ledger.problem is None
    await ledger.close_file()


async def test_sums_are_those_of_this_month_and_this_day(tmp_path: Path) -> None:
    file = Noting()
    ledger = await started(tmp_path, file=file)
    assert file.of("sums") == [("2026-09-01", "2026-09-21")]
    assert ledger.path == tmp_path, "where others may read what is there"
    await ledger.close_file()


async def test_all_that_touches_the_file_is_done_by_one_thread(tmp_path: Path) -> None:
    file = Noting()
    ledger = await started(tmp_path, file=file)
    file.gate.clear()
    tidying = asyncio.create_task(ledger.tidy())
    await until(lambda: file.of("recover"))
    closing = asyncio.create_task(ledger.close(ledger.open(ended(row()))))
    await until(lambda: not ledger._idle.is_set())
    file.gate.set()
    await asyncio.gather(tidying, closing)
    assert len(file.threads) == 1
    await ledger.close_file()


async def test_it_tidies_again_and_again_whatever_happens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "TIDY_SECONDS", 0.001)
    file = Noting()
    file.fails = {"recover": LOCKED}
    ledger = await started(tmp_path, file=file, settings=Settings(retention_days=2))
    await until(lambda: len(file.of("recover")) > 1)
    assert "could not be tidied: locked" in caplog.text
    file.fails = {}
    await until(lambda: len(file.of("prune")) > 1)
    assert file.of("prune")[0] == (BEGAN - 2 * 86400, module.PRUNE_ROWS)
    await ledger.close_file()


async def test_while_nothing_can_be_written_nothing_is_tidied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = Noting()
    ledger = await started(tmp_path, file=file)
    file.fails = unwritable(LOCKED)
    await ledger.close(ledger.open(ended(row())))
    monkeypatch.setattr(module, "TIDY_SECONDS", 0)
    tidying = asyncio.create_task(ledger._tidy())
    for _ in range(20):
        await asyncio.sleep(0)
    await settled(ledger)
    assert file.of("recover") == []
    tidying.cancel()
    await ledger.close_file()


async def test_refused_turns_have_rows_of_their_own_and_each_second_its_own_number_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REJECTED_A_SECOND", 2)
    ledger = await started(tmp_path)
    for second in (0, 0, 0, 1, 1, 1):
        ledger.reject(row(f"req_{second}", began_at=BEGAN + second))
    await ledger.close_file()
    rows = look(tmp_path, "SELECT request_id, state, ended_at FROM turns ORDER BY id")
    assert rows == [(f"req_{second}", "rejected", BEGAN + second) for second in (0, 0, 1, 1)]


def delays_of(ledger: Ledger) -> list[float]:
    """The delays with which it will have planned batches of closings; less than none is at once."""
    delays: list[float] = []
    plan_at = ledger._plan_at

    def noted(due: float, rows: dict[int, Ticket]) -> None:
        if rows is ledger._closing:
            delays.append(due - asyncio.get_running_loop().time())
        plan_at(due, rows)

    ledger._plan_at = noted  # type: ignore[method-assign]
    return delays


async def test_an_answer_never_waits_for_rows_that_have_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LAZY", 1000.0)
    file = Noting()
    ledger = await started(tmp_path, file=file)
    delays = delays_of(ledger)
    file.gate.clear()
    tidying = asyncio.create_task(ledger.tidy())  # it keeps the thread busy
    first = asyncio.create_task(ledger.close(ledger.open(ended(row("req_1")))))
    await until(lambda: not ledger._idle.is_set())
    second = asyncio.create_task(ledger.close(ledger.open(ended(row("req_2")))))
    await asyncio.sleep(0)
    file.gate.set()
    async with asyncio.timeout(10):
        await asyncio.gather(first, second, tidying)
    assert len(file.of("note")) == 2
    assert len(delays) == 2
    assert max(delays) <= module.GATHER
    await ledger.close_file()


async def test_closings_soon_after_a_forced_write_are_gathered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = Noting()
    ledger = await started(tmp_path, file=file)
    await ledger.close(ledger.open(ended(row("req_1"))))
    monkeypatch.setattr(module, "GATHER", 30.0)
    delays = delays_of(ledger)
    second = asyncio.create_task(ledger.close(ledger.open(ended(row("req_2")))))
    await asyncio.sleep(0)
    assert 0 < delays[0] <= 30
    await ledger.close_file()
    await second


async def test_so_are_those_that_came_during_a_forced_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = Noting()
    ledger = await started(tmp_path, file=file)
    file.gate.clear()
    tidying = asyncio.create_task(ledger.tidy())
    first = asyncio.create_task(ledger.close(ledger.open(ended(row("req_1")))))
    await until(lambda: not ledger._idle.is_set())
    second = asyncio.create_task(ledger.close(ledger.open(ended(row("req_2")))))
    await asyncio.sleep(0)
    monkeypatch.setattr(module, "GATHER", 30.0)
    monkeypatch.setattr(module, "LAZY", 1000.0)
    delays = delays_of(ledger)
    file.gate.set()
    await first
    tidying.cancel()
    assert [0 < delay <= 30 for delay in delays] == [True]
    await ledger.close_file()
    await second


async def test_no_row_takes_the_place_of_another(tmp_path: Path) -> None:
    """Of one process or of two, accepted or refused."""
    both = [await started(tmp_path), await started(tmp_path)]
    for ledger in both:
        for _ in range(2):
            ledger.open(row("req_open"))
            ledger.reject(row("req_refused"))
    for ledger in both:
        await ledger.close_file()
    assert look(tmp_path, "SELECT state, count(*) FROM turns GROUP BY 1 ORDER BY 1") == [("open", 4), ("rejected", 4)]


async def test_while_nothing_can_be_written_refused_turns_take_no_memory(tmp_path: Path) -> None:
    file = Noting()
    ledger = await started(tmp_path, file=file, settings=Settings(on_disk_full="refuse"))
    file.fails = unwritable(LOCKED)
    await ledger.close(ledger.open(ended(row())))
    ledger.reject(row("req_refused"))
    assert ledger.sizes() == {"rows_unwritten": Size(1, module.MAX_HELD)}
    with pytest.raises(GatewayError) as refused:
        ledger.open(row())
    assert refused.value.retry_after == module.RETRY
    await ledger.close_file()


async def test_the_end_leaves_nothing_running_and_tells_what_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "RETRY", 0.01)
    errors: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
    file = Noting()
    before = set(threading.enumerate())
    ledger = await started(tmp_path, file=file)
    file.fails = unwritable(LOCKED)
    await ledger.close(ledger.open(ended(row())))
    with caplog.at_level(logging.ERROR, "ds2d.ledger"):
        await ledger.close_file()
    assert "1 rows of the ledger could not be written and are lost" in caplog.text
    assert file.calls[-1] == ("close",)
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert set(threading.enumerate()) <= before
    await asyncio.sleep(2 * module.RETRY)
    assert errors == [], "it tried again although it had ended"


async def test_an_end_without_losses_is_silent(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ledger = await started(tmp_path, file=Noting())
    await ledger.close(ledger.open(ended(row())))
    ledger.open(row())
    await ledger.close_file()
    assert caplog.text == ""


async def test_rows_that_nobody_waits_for_are_gathered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LAZY", 30.0)
    file = Noting()
    ledger = await started(tmp_path, file=file)
    for _ in range(3):
        ledger.open(row())
        await asyncio.sleep(0)
        await settled(ledger)
    assert file.of("write") == []
    await ledger.close_file()
    assert file.of("write") == [(3,)]


async def test_a_write_that_was_in_time_is_not_called_slow_afterwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.01)
    ledger = await started(tmp_path, file=Noting())
    await ledger.close(ledger.open(ended(row())))
    await until(ledger._idle.is_set)
    await asyncio.sleep(0.03)
    assert ledger.problem is None
    await ledger.close_file()


async def test_a_folder_that_can_be_had_again_is_used_without_waiting_for_a_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY", 0.01)
    (tmp_path / "state").write_text("in the way")
    ledger = await started(tmp_path / "state")
    assert ledger.problem == "unwritable"
    (tmp_path / "state").unlink()
    await until(lambda: ledger.problem is None)
    await ledger.close_file()


async def test_rows_that_have_time_do_not_ride_along_and_are_not_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many answers end one after the other."""
    monkeypatch.setattr(module, "LAZY", 1000.0)
    file = Noting()
    ledger = await started(tmp_path, file=file)
    for _ in range(3):
        ledger.open(row("req_open"))
    await ledger.close(ledger.open(ended(row())))
    assert (file.of("note"), file.of("write")) == ([(1,)], [])
    assert ledger.sizes() == {"rows_unwritten": Size(4, module.MAX_HELD)}
    monkeypatch.setattr(module, "LAZY", module.GATHER)  # they are due with the next batch
    await ledger.close(ledger.open(ended(row())))
    await ledger.close(ledger.open(ended(row())))
    rows = [call for call in file.calls if call[0] in ("note", "write")]
    assert rows[:4] == [("note", 1), ("note", 1), ("write", 5), ("note", 1)]
    await ledger.close_file()


async def test_a_row_that_changes_while_it_is_written_is_written_again(tmp_path: Path) -> None:
    ledger = await started(tmp_path)
    gate = threading.Event()
    ledger._thread.submit(gate.wait, 5)
    ticket = ledger.open(row())
    closing = asyncio.create_task(ledger.close(ticket))
    await until(lambda: not ledger._idle.is_set())
    ended(ticket.row)
    ledger.touch(ticket)
    gate.set()
    await closing
    await ledger.close_file()
    assert look(tmp_path, "SELECT state FROM turns") == [("completed",)]


async def test_whatever_goes_wrong_in_the_thread_holds_up_nobody(tmp_path: Path) -> None:
    file = Noting()
    ledger = await started(tmp_path, file=file)
    file.fails = unwritable(ValueError("a fault of ours"))
    await ledger.close(ledger.open(ended(row())))
    assert ledger.problem == "damaged"
    file.fails = {}
    await ledger.close_file()
    assert file.of("write")[-1] == (1,)


async def writing(ledger: Ledger) -> tuple[threading.Event, asyncio.Task[None]]:
    """A write that goes on until the event is set, and a turn that waits for it."""
    held = threading.Event()
    ledger._thread.submit(held.wait, 5)
    closing = asyncio.create_task(ledger.close(ledger.open(ended(row("req_1")))))
    await until(lambda: not ledger._idle.is_set())
    return held, closing


async def test_rows_that_are_waited_for_count_among_the_unwritten(tmp_path: Path) -> None:
    file = Noting()
    ledger = await started(tmp_path, file=file)
    held, first = await writing(ledger)
    ledger.open(row("req_2"))
    second = asyncio.create_task(ledger.close(ledger.open(ended(row("req_3")))))
    await asyncio.sleep(0)
    assert ledger.sizes() == {"rows_unwritten": Size(2, module.MAX_HELD)}
    held.set()
    await asyncio.gather(first, second)
    await ledger.close_file()


async def test_who_waits_behind_a_write_that_fails_is_let_go_and_each_row_kept_once(tmp_path: Path) -> None:
    file = Noting()
    ledger = await started(tmp_path, file=file)
    file.fails = unwritable(LOCKED)
    held, first = await writing(ledger)
    second = asyncio.create_task(ledger.close(ledger.open(ended(row("req_2")))))
    await asyncio.sleep(0)
    held.set()
    await asyncio.gather(first, second)
    assert ledger.sizes() == {"rows_unwritten": Size(2, module.MAX_HELD)}
    assert ledger._waiting == []
    file.fails = {}
    await ledger.close_file()
    assert (file.of("note"), file.of("write")) == ([(1,)], [(2,)])


async def test_nobody_waits_twice_for_a_disk_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.01)
    ledger = await started(tmp_path, file=Noting())
    held, first = await writing(ledger)
    await ledger.close(ledger.open(ended(row("req_2"))))
    assert ledger.problem == "slow"
    assert ledger._waiting == []
    held.set()
    await first
    await ledger.close_file()


async def test_a_report_waits_for_a_disk_that_hangs_no_longer_than_an_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.01)
    ledger = await started(tmp_path, file=Noting())
    held, first = await writing(ledger)
    async with asyncio.timeout(2):
        await ledger.settle()
    assert not ledger._idle.is_set()
    held.set()
    await first
    await ledger.settle()
    assert ledger.sizes()["rows_unwritten"].now == 0
    await ledger.close_file()


async def test_an_earlier_batch_is_planned_in_place_of_the_later_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LAZY", 1000.0)
    ledger = await started(tmp_path, file=Noting())
    ticket = ledger.open(row())
    later = ledger._timer
    assert later is not None
    await ledger.close(ticket)
    assert later.cancelled()
    await ledger.close_file()


async def test_rows_that_became_due_while_others_were_written_are_written_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = Noting()
    ledger = await started(tmp_path, file=file)
    held, closing = await writing(ledger)
    ledger.open(row("req_2"))
    monkeypatch.setattr(module, "LAZY", module.GATHER)
    held.set()
    await closing
    await until(lambda: file.of("note") == [(1,)] and file.of("write") == [(2,)])
    await ledger.close_file()


async def test_a_running_turn_that_the_file_holds_stays_known_as_such_while_nothing_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = Noting()
    ledger = await started(tmp_path, file=file)
    ticket = ledger.open(row())
    await until(lambda: file.of("write") == [(1,)] and ledger._idle.is_set())
    file.fails = unwritable(LOCKED)
    ledger.touch(ticket)
    await until(lambda: ledger.problem is not None)
    monkeypatch.setattr(module, "MAX_HELD", 1)
    ended(ticket.row)
    ledger.open(ended(row("req_2")))
    assert (list(ledger._dirty), ledger.lost) == ([ticket.number], 1)
    file.fails = {}
    await ledger.close_file()


async def test_between_two_steps_of_pruning_answers_have_their_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PRUNE_ROWS", 0)  # as many as a step of this file finds: there is always one more
    monkeypatch.setattr(module, "GATHER", 1000.0)
    file = Noting()
    ledger = await started(tmp_path, file=file)
    tidying = asyncio.create_task(ledger.tidy())
    await until(lambda: file.of("prune"))
    for _ in range(5):
        await settled(ledger)
        await asyncio.sleep(0)
    assert len(file.of("prune")) == 1
    tidying.cancel()
    await ledger.close_file()
