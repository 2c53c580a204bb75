"""Files of version 1, whose sums triggers kept: their rows count on, once, whoever else still writes to them."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ds2d.state import ledger_file, usage
from ds2d.state.ledger_file import NAME, LedgerFile
from ds2d.state.ledger_schema import INSERT, VERSION, Row
from tests.state.ledger_world import BEGAN, ended, look, row

SCHEMA = Path(__file__).with_name("ledger_v1.sql").read_text()
TRIGGERS = "SELECT count(*) FROM sqlite_schema WHERE type = 'trigger'"


def insert(db: sqlite3.Connection, number: int, one: Row) -> None:
    """As any version does."""
    db.execute(INSERT, (number, *msgspec.structs.astuple(one)))


@pytest.fixture(name="folder")
def _folder(tmp_path: Path) -> Path:
    """A file of version 1 with a closed turn and an open one, of a process that is gone."""
    with sqlite3.connect(tmp_path / NAME) as db:
        db.executescript(SCHEMA)
        db.execute("INSERT INTO processes (pid, started) VALUES (1, 'another boot')")
        insert(db, (1 << 40) + 1, ended(row("req_closed")))
        insert(db, (1 << 40) + 2, row("req_open", prompt_tokens=7, checkpoint_at=BEGAN + 4))
    db.close()
    return tmp_path


def sums(folder: Path) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """By state, and by key."""
    by_state = look(folder, "SELECT state, sum(requests), sum(prompt_tokens) FROM daily WHERE requests > 0 GROUP BY 1 ORDER BY 1")
    return by_state, look(folder, "SELECT key, requests, prompt_tokens FROM keys")


def save(file: LedgerFile, number: int, one: Row) -> None:
    file.write([(number, msgspec.structs.astuple(one))], "normal")


def test_its_rows_are_read_and_its_sums_go_on(folder: Path) -> None:
    file = LedgerFile(folder)
    file.open()
    save(file, 1, row("req_new"))
    save(file, 1, ended(row("req_new")))
    assert look(folder, "PRAGMA user_version") == [(VERSION,)]
    assert look(folder, TRIGGERS) == [(0,)]
    rows, _ = usage.page(folder)
    assert [(one["request_id"], one["state"]) for one in rows] == [
        ("req_closed", "completed"), ("req_open", "interrupted"), ("req_new", "completed"),
    ]  # fmt: skip
    assert sums(folder) == ([("completed", 2, 14), ("interrupted", 1, 7)], [("a", 3, 21)])
    file.close()


def test_while_a_process_of_that_version_may_write_the_triggers_count_for_all(folder: Path) -> None:
    with sqlite3.connect(folder / NAME) as db:
        db.execute("INSERT INTO processes (pid, started) VALUES (?, ?)", (os.getpid(), ledger_file._start_of(os.getpid())))
    file = LedgerFile(folder)
    file.open()
    insert(db, (2 << 40) + 1, ended(row("req_of_the_older")))
    db.commit()
    save(file, 1, row("req_new"))
    save(file, 1, ended(row("req_new")))
    save(file, 1, ended(row("req_new"), prompt=8))
    assert file.recover() == []
    assert (look(folder, "PRAGMA user_version"), look(folder, TRIGGERS)) == ([(1,)], [(3,)])
    assert sums(folder) == ([("completed", 3, 22), ("interrupted", 1, 7)], [("a", 4, 29)])
    db.execute("UPDATE processes SET started = 'another boot' WHERE number = 2")
    insert(db, (2 << 40) + 2, row("req_left", prompt_tokens=1))
    db.commit()
    db.close()
    assert len(file.recover()) == 1
    save(file, 2, ended(row("req_next")))
    assert (look(folder, "PRAGMA user_version"), look(folder, TRIGGERS)) == ([(VERSION,)], [(0,)])
    assert sums(folder) == ([("completed", 4, 29), ("interrupted", 2, 8)], [("a", 6, 37)])
    file.close()


def test_a_new_file_that_two_open_is_of_this_version_for_both(tmp_path: Path) -> None:
    both = [LedgerFile(tmp_path), LedgerFile(tmp_path)]
    for file in both:
        file.open()
        save(file, 1, ended(row()))
        file.close()
    assert sums(tmp_path) == ([("completed", 2, 14)], [("a", 2, 14)])
