"""Notes of turns that are over: what a process leaves behind is in the tables after the next start, once."""

from __future__ import annotations

import asyncio
import errno
import os
import sqlite3
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ds2d.state import ledger_file, ledger_notes, usage
from ds2d.state.ledger import MANY
from ds2d.state.ledger_file import LedgerFile
from ds2d.state.ledger_notes import Notes, Owner, Saved
from ds2d.state.ledger_schema import FIELDS, Row
from tests.state.ledger_world import BEGAN, ended, look, row, started, until

STATES = "SELECT request_id, state, prompt_tokens FROM turns ORDER BY id"
SUMS = "SELECT state, requests, prompt_tokens FROM daily WHERE requests > 0 ORDER BY state"
OF_KEYS = "SELECT key, requests, prompt_tokens FROM keys"


def saved(number: int, one: Row) -> Saved:
    return number, msgspec.structs.astuple(one)


def opened(folder: Path) -> LedgerFile:
    file = LedgerFile(folder)
    file.open()
    return file


def killed(file: LedgerFile) -> None:
    """Its process ends as it stands: what it wrote stays, its number is taken by another one."""
    file._db.execute("UPDATE processes SET started = 'another boot' WHERE number = ?", (file._number,))
    file._db.close()
    if file._notes is not None:
        notes = file._notes
        notes.owner = msgspec.structs.replace(notes.owner, started="another boot", round=notes.owner.round)
        data = [list(ledger_notes.read(notes.path, owner)) for _, owner in ledger_notes.left(notes.path.parent)]
        notes._begin()
        for batch in data:
            notes.add(batch, force=True)
        os.close(notes._file)


def test_what_a_process_noted_and_did_not_write_stands_after_the_next_start(tmp_path: Path) -> None:
    first = opened(tmp_path)
    first.write([saved(1, row("req_open")), saved(2, row("req_cut"))], "normal")
    first.note([saved(1, ended(row("req_open"))), saved(3, ended(row("req_short"), prompt=8))], "full")
    first.note([saved(4, ended(row("req_last"), "failed", 9))], "normal")
    killed(first)
    second = opened(tmp_path)
    assert look(tmp_path, STATES) == [
        ("req_open", "completed", 7), ("req_cut", "interrupted", 0), ("req_short", "completed", 8), ("req_last", "failed", 9),
    ]  # fmt: skip
    assert look(tmp_path, SUMS) == [("completed", 2, 15), ("failed", 1, 9), ("interrupted", 1, 0)]
    assert look(tmp_path, OF_KEYS) == [("a", 4, 24)]
    assert list(ledger_notes.left(tmp_path)) == []
    second.close()


def test_what_was_written_too_stands_once_and_as_it_came_to_be(tmp_path: Path) -> None:
    first = opened(tmp_path)
    first.note([saved(1, ended(row())), saved(2, ended(row("req_2")))], "full")
    first.write([saved(1, ended(row(), prompt=9))], "normal")
    killed(first)
    opened(tmp_path).close()
    assert look(tmp_path, STATES) == [("req_1", "completed", 9), ("req_2", "completed", 7)]
    assert look(tmp_path, SUMS) == [("completed", 2, 16)]


def test_a_turn_that_was_called_cut_off_by_who_does_not_read_notes_is_put_right(tmp_path: Path) -> None:
    first = opened(tmp_path)
    first.write([saved(1, row())], "normal")
    first.note([saved(1, ended(row()))], "full")
    killed(first)
    (notes,) = tmp_path.glob("ledger.notes-*")
    notes.rename(tmp_path / "unseen")
    opened(tmp_path).close()
    assert look(tmp_path, SUMS) == [("interrupted", 1, 0)]
    (tmp_path / "unseen").rename(notes)
    opened(tmp_path).close()
    assert look(tmp_path, STATES) == [("req_1", "completed", 7)]
    assert look(tmp_path, SUMS) == [("completed", 1, 7)]
    assert look(tmp_path, OF_KEYS) == [("a", 1, 7)]


def test_notes_of_a_process_that_runs_are_left_alone(tmp_path: Path) -> None:
    both = [opened(tmp_path), opened(tmp_path)]
    both[0].note([saved(1, ended(row()))], "full")
    assert both[1].recover() == both[0].recover() == []
    assert look(tmp_path, STATES) == []
    both[1].close()
    assert len(list(ledger_notes.left(tmp_path))) == 1
    both[0].write([saved(1, ended(row()))], "normal")
    both[0].close()
    assert list(tmp_path.glob("ledger.notes-*")) == []
    assert look(tmp_path, STATES) == [("req_1", "completed", 7)]


def test_notes_that_go_with_a_file_that_was_put_aside_are_written_to_the_new_one(tmp_path: Path) -> None:
    first = opened(tmp_path)
    first.note([saved(1, ended(row("req_old")))], "full")
    killed(first)
    for path in tmp_path.glob("ledger.sqlite3*"):
        path.unlink()
    second = opened(tmp_path)
    second.write([saved(1, ended(row("req_new")))], "normal")
    second.close()
    assert sorted(look(tmp_path, STATES)) == [("req_new", "completed", 7), ("req_old", "completed", 7)]
    assert look(tmp_path, "SELECT count(DISTINCT number) FROM turns JOIN processes ON number = turns.id >> 40") == [(2,)]


def test_a_file_that_was_put_aside_takes_what_this_process_noted_with_it(tmp_path: Path) -> None:
    """It is in memory still, and will be written under the process's new number: noted under the old one it would count twice."""
    opened(tmp_path)
    file = opened(tmp_path)
    file.note([saved(1, ended(row()))], "full")
    file._db.close()
    for path in tmp_path.glob("ledger.sqlite3*"):
        path.unlink()
    file._connection = None
    file.open()
    ((path, owner),) = ledger_notes.left(tmp_path)
    assert (owner.number, list(ledger_notes.read(path, owner))) == (file._number, [])
    file.write([saved(1, ended(row()))], "normal")
    file.close()
    assert look(tmp_path, SUMS) == [("completed", 1, 7)]


def test_a_new_round_begins_when_all_is_in_the_file_and_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forced: list[str] = []
    force = ledger_notes.force
    monkeypatch.setattr(ledger_file, "force", lambda path: (forced.append(path.name), force(path)))
    monkeypatch.setattr(ledger_notes, "ROUND_BYTES", 1000)
    file = opened(tmp_path)
    file.note([saved(number, ended(row(f"req_{number}"))) for number in range(1, 9)], "full")
    file.write([saved(number, ended(row(f"req_{number}"))) for number in range(1, 8)], "normal")
    ((path, owner),) = ledger_notes.left(tmp_path)
    assert (owner.round, forced) == (0, [])
    file.write([saved(8, ended(row("req_8")))], "normal")
    assert forced == ["ledger.sqlite3-wal"]
    ((path, owner),) = ledger_notes.left(tmp_path)
    assert (owner.round, list(ledger_notes.read(path, owner))) == (1, [])
    file.note([saved(9, ended(row("req_9")))], "normal")
    assert [number for number, _ in ledger_notes.read(path, owner)] == [9]
    file.close()
    assert forced == ["ledger.sqlite3-wal"], "what nobody forced need not be"


def test_a_ledger_that_is_let_go_is_on_disk_before_its_notes_are_gone_and_notes_again_when_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forced: list[tuple[str, int]] = []
    monkeypatch.setattr(ledger_file, "force", lambda path: forced.append((path.name, len(list(ledger_notes.left(tmp_path))))))
    file = opened(tmp_path)
    for number in (1, 2):
        file.note([saved(number, ended(row(f"req_{number}")))], "full")
        ((path, owner),) = ledger_notes.left(tmp_path)
        assert [noted for noted, _ in ledger_notes.read(path, owner)] == [number]
        file.write([saved(number, ended(row(f"req_{number}")))], "normal")
        file.close()
        assert list(ledger_notes.left(tmp_path)) == []
        file.open()
    assert forced == [("ledger.sqlite3-wal", 1)] * 2
    file.close()


def test_what_was_taken_over_is_on_disk_before_the_notes_of_it_are_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forced: list[tuple[str, int]] = []
    first = opened(tmp_path)
    first.note([saved(1, ended(row()))], "full")
    killed(first)
    monkeypatch.setattr(ledger_file, "force", lambda path: forced.append((path.name, len(list(ledger_notes.left(tmp_path))))))
    opened(tmp_path)
    assert forced == [("ledger.sqlite3-wal", 1)]
    assert list(ledger_notes.left(tmp_path)) == []


def test_two_may_take_over_the_same_notes_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = opened(tmp_path)
    first.note([saved(1, ended(row()))], "full")
    killed(first)
    ((path, _),) = ledger_notes.left(tmp_path)
    monkeypatch.setattr(ledger_file, "force", lambda _: path.unlink())  # the other one is through with them
    opened(tmp_path)
    assert look(tmp_path, STATES) == [("req_1", "completed", 7)]


def test_what_was_not_written_whole_ends_the_reading(tmp_path: Path) -> None:
    notes = Notes(tmp_path, Owner(1, 1, "another boot"))
    notes.add([saved(1, ended(row()))], force=False)
    whole = notes._end
    notes.add([saved(2, ended(row()))], force=False)
    data = notes.path.read_bytes()
    for cut in range(whole, notes._end):
        notes.path.write_bytes(data[:cut])
        assert [number for number, _ in ledger_notes.read(notes.path, notes.owner)] == [1]
    notes.path.write_bytes(b"")
    assert list(ledger_notes.left(tmp_path)) == []
    assert list(ledger_notes.read(notes.path, notes.owner)) == []
    notes.remove()
    assert list(ledger_notes.read(notes.path, notes.owner)) == []


def test_notes_of_another_version_are_read_by_the_names_of_their_fields(tmp_path: Path) -> None:
    names = ("of_the_future", *FIELDS[:-1])
    notes = Notes(tmp_path, Owner(1, 1, "another boot", names))
    notes.add([(1, (1, *msgspec.structs.astuple(ended(row())))[:-1])], force=False)
    assert list(ledger_notes.read(notes.path, notes.owner)) == [saved(1, ended(row()))]
    notes.remove()


def test_a_turn_is_found_by_its_request_whether_it_is_noted_written_or_both(tmp_path: Path) -> None:
    assert usage.find(tmp_path, "req_1") == []
    file = opened(tmp_path)
    file.write([saved(1, row())], "normal")
    file.note([saved(1, ended(row(), prompt=8)), saved(2, ended(row(began_at=BEGAN + 1))), saved(3, ended(row("req_3")))], "full")
    found = usage.find(tmp_path, "req_1")
    assert [(one["state"], one["prompt_tokens"]) for one in found] == [("completed", 7), ("completed", 8)]
    file.write([saved(1, ended(row(), prompt=9)), saved(2, ended(row(began_at=BEGAN + 1)))], "normal")
    again = usage.find(tmp_path, "req_1")
    assert [(one["state"], one["prompt_tokens"]) for one in again] == [("completed", 7), ("completed", 9)]
    assert again[0] == found[0]
    file.close()


def test_only_their_owner_may_read_them(tmp_path: Path) -> None:
    notes = Notes(tmp_path, Owner(1, 1, "another boot"))
    assert notes.path.stat().st_mode & 0o777 == 0o600
    notes.remove()


def test_where_nothing_can_be_noted_the_file_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = opened(tmp_path)

    def no_space(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left")

    monkeypatch.setattr(ledger_file, "Notes", no_space)
    file.note([saved(1, ended(row()))], "full")
    assert look(tmp_path, STATES) == [("req_1", "completed", 7)]
    monkeypatch.setattr(file, "_write_as_remembered", no_space)
    with pytest.raises(OSError, match="No space left"):
        file.note([saved(2, ended(row()))], "full")
    file.close()


def test_where_the_tables_do_not_keep_up_they_are_written_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_notes, "MOST_BYTES", 1000)
    file = opened(tmp_path)
    for number in range(1, 9):
        file.note([saved(number, ended(row(f"req_{number}")))], "full")
    ((path, owner),) = ledger_notes.left(tmp_path)
    noted = [number for number, _ in ledger_notes.read(path, owner)]
    assert 1 in noted
    assert look(tmp_path, STATES) == [(f"req_{number}", "completed", 7) for number in range(1, 9) if number not in noted] != []
    file.close()


def test_a_note_that_finds_no_room_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notes = Notes(tmp_path, Owner(1, 1, "another boot"))
    monkeypatch.setattr(os, "pwrite", lambda *_: 5)
    with pytest.raises(OSError, match="whole"):
        notes.add([saved(1, ended(row()))], force=False)
    monkeypatch.undo()
    assert list(ledger_notes.read(notes.path, notes.owner)) == []
    notes.remove()


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What the system was told to have on disk: how, and of which file."""
    told: list[tuple[str, str]] = []
    for name in ("fsync", "fdatasync"):
        monkeypatch.setattr(os, name, lambda fd, how=name: told.append((how, os.readlink(f"/proc/self/fd/{fd}"))))
    return told


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_what_is_forced_is_on_disk_when_it_returns_and_a_file_of_notes_has_its_room(
    tmp_path: Path, synced: list[tuple[str, str]]
) -> None:
    before = descriptors()
    notes = Notes(tmp_path, Owner(1, 1, "another boot"))
    assert synced == [("fsync", str(tmp_path))]
    assert notes.path.stat().st_size > ledger_notes.ROUND_BYTES
    notes.add([saved(1, ended(row()))], force=False)
    assert len(synced) == 1
    notes.add([saved(2, ended(row()))], force=True)
    assert synced[1:] == [("fdatasync", str(notes.path))]
    notes.path.unlink()
    notes.remove()
    assert descriptors() == before


def test_a_folder_that_cannot_be_forced_takes_no_notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: int) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(os, "fsync", broken)
    before = descriptors()
    with pytest.raises(OSError, match="broken"):
        Notes(tmp_path, Owner(1, 1, "another boot"))
    assert descriptors() == before


def test_notes_that_a_process_is_about_to_begin_are_left_alone(tmp_path: Path) -> None:
    theirs = tmp_path / f"{ledger_notes.DRAFT}{os.getppid()}"
    theirs.touch()
    Notes(tmp_path, Owner(1, 1, "another boot")).remove()
    assert list(tmp_path.iterdir()) == [theirs]


def test_notes_that_cannot_be_begun_leave_nothing_open_and_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "no room")

    (tmp_path / f"{ledger_notes.DRAFT}999999999").touch()  # of a process that was killed
    monkeypatch.setattr(os, "pwrite", full)
    before = descriptors()
    with pytest.raises(OSError, match="no room"):
        Notes(tmp_path, Owner(1, os.getpid(), "boot"))
    assert descriptors() == before
    assert list(tmp_path.iterdir()) == []


def test_notes_that_the_tables_lack_outlive_a_file_that_is_let_go(tmp_path: Path) -> None:
    file = opened(tmp_path)
    file.note([saved(1, ended(row()))], "full")
    file.close()
    assert len(list(ledger_notes.left(tmp_path))) == 1
    file.open()
    file.write([saved(1, ended(row()))], "normal")
    file.close()
    assert list(ledger_notes.left(tmp_path)) == []
    file.close()


async def test_what_is_over_can_be_had_in_the_tables_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ds2d.state.ledger.LAZY", 1000.0)
    monkeypatch.setattr("ds2d.state.ledger.RETRY", 0.01)
    ledger = await started(tmp_path)
    await ledger.close(ledger.open(ended(row())))
    await ledger.settle()
    assert look(tmp_path, STATES) == [("req_1", "completed", 7)]
    await ledger.settle()
    other = sqlite3.connect(tmp_path / "ledger.sqlite3", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    await ledger.close(ledger.open(ended(row("req_2"))))
    await ledger.settle()
    assert ledger.problem == "locked"
    await ledger.settle()
    other.execute("ROLLBACK")
    other.close()
    await until(lambda: ledger.problem is None)
    await ledger.close_file()
    assert [name for name, *_ in look(tmp_path, STATES)] == ["req_1", "req_2"]


async def test_what_is_being_noted_is_in_the_tables_too_when_they_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ds2d.state.ledger.LAZY", 1000.0)
    ledger = await started(tmp_path)
    gate, note = threading.Event(), ledger._file.note
    monkeypatch.setattr(ledger._file, "note", lambda batch, level: (gate.wait(30), note(batch, level)))
    closing = asyncio.create_task(ledger.close(ledger.open(ended(row()))))
    await until(lambda: not ledger._idle.is_set())
    settling = asyncio.create_task(ledger.settle())
    await asyncio.sleep(0)
    gate.set()
    await settling
    assert closing.done()
    assert look(tmp_path, STATES) == [("req_1", "completed", 7)]
    await ledger.close_file()


async def test_a_turn_that_was_noted_waits_for_others_and_holds_none_of_them_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ds2d.state.ledger.LAZY", 1000.0)
    ledger = await started(tmp_path)
    ledger._since = ledger._loop.time() - 2000  # of rows that were written long ago
    await ledger.close(ledger.open(ended(row())))
    assert ledger._loop.time() - ledger._since < 1000
    assert len(ledger._dirty) == 1
    since = ledger._since
    await ledger.close(ledger.open(ended(row("req_2"))))
    assert (ledger._since, len(ledger._dirty)) == (since, 2)
    await ledger.close_file()


async def test_of_many_that_end_at_once_none_is_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ds2d.state.ledger.LAZY", 1000.0)
    ledger = await started(tmp_path)
    levels: list[str] = []
    write = ledger._file.write
    monkeypatch.setattr(ledger._file, "write", lambda batch, level: (levels.append(level), write(batch, level)))
    await asyncio.gather(*(ledger.close(ledger.open(ended(row(f"req_{number}")))) for number in range(MANY)))
    assert len(look(tmp_path, STATES)) == MANY
    assert levels == ["full"]
    assert list(ledger_notes.left(tmp_path)) == []
    await asyncio.gather(*(ledger.close(ledger.open(ended(row(f"req_few_{number}")))) for number in range(MANY - 1)))
    assert len(look(tmp_path, STATES)) == MANY
    await ledger.close_file()
    assert len(look(tmp_path, STATES)) == 2 * MANY - 1
