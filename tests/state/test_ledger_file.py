"""The ledger's file: whole rows, sums that agree with them, what a crash leaves behind, damage."""

from __future__ import annotations

import functools
import logging
import os
import re
import sqlite3
import stat
import subprocess
import threading
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ds2d.state import ledger_file
from ds2d.state import ledger_schema as schema
from ds2d.state.ledger_file import NAME, KeyRecord, LedgerFile
from ds2d.state.ledger_schema import FIELDS, Row
from tests.state.ledger_world import BEGAN, ended, look, row

DAY = "2026-09-21"


def save(file: LedgerFile, *turns: tuple[int, Row]) -> None:
    file.write([(number, msgspec.structs.astuple(one)) for number, one in turns], "normal")


@pytest.fixture(name="file")
def _file(tmp_path: Path) -> Any:
    file = LedgerFile(tmp_path / "state")
    file.open()
    yield file
    file.close()


def rows_of(file: LedgerFile, columns: str = "request_id, state, prompt_tokens, completion_tokens") -> list[tuple[Any, ...]]:
    return look(file.path.parent, f"SELECT {columns} FROM turns ORDER BY id")


def test_only_its_owner_may_read_it(file: LedgerFile) -> None:
    save(file, (1, row()))
    modes = {entry.name: stat.S_IMODE(entry.stat().st_mode) for entry in os.scandir(file.path.parent)}
    assert modes == {NAME: 0o600, f"{NAME}-wal": 0o600, f"{NAME}-shm": 0o600}
    assert stat.S_IMODE(file.path.parent.stat().st_mode) == 0o700


def test_a_row_written_again_is_the_same_row(file: LedgerFile) -> None:
    turn = row()
    save(file, (1, turn))
    for _ in range(3):
        save(file, (1, ended(turn)))
    assert rows_of(file) == [("req_1", "completed", 7, 5)]
    assert look(file.path.parent, "SELECT day, requests, prompt_tokens, completion_tokens FROM daily") == [(DAY, 1, 7, 5)]
    assert look(file.path.parent, "SELECT key, name, requests, prompt_tokens FROM keys") == [("a", "team-a", 1, 7)]


def test_ids_of_requests_need_not_be_unique(file: LedgerFile) -> None:
    save(file, (1, ended(row("mine"))), (2, ended(row("mine"))))
    assert len(rows_of(file)) == 2


STATES = st.sampled_from(["open", "completed", "interrupted", "failed", "rejected"])


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(1, 4), st.sampled_from("ab"), STATES, st.integers(0, 50), st.integers(0, 50)), max_size=20))
def test_sums_are_the_sums_of_the_rows_whatever_is_written(tmp_path: Path, writes: list[tuple[int, str, str, int, int]]) -> None:
    file = LedgerFile(tmp_path / str(next(NUMBERS)))
    file.open()
    keys: dict[int, str] = {}
    for number, key, state, prompt, completion in writes:
        turn = row(key=keys.setdefault(number, key))
        save(file, (number, ended(turn, state, prompt, completion)))
    folder = file.path.parent
    what = "prompt_tokens), sum(completion_tokens) FROM"
    turns = look(folder, f"SELECT key, state, count(*), sum({what} turns WHERE state <> 'open' GROUP BY 1, 2 ORDER BY 1, 2")
    sums = look(folder, f"SELECT key, state, sum(requests), sum({what} daily WHERE requests > 0 GROUP BY 1, 2 ORDER BY 1, 2")
    assert sums == turns
    turns = look(folder, f"SELECT key, sum({what} turns WHERE state NOT IN ('open', 'rejected') GROUP BY 1 ORDER BY 1")
    assert look(folder, "SELECT key, prompt_tokens, completion_tokens FROM keys WHERE requests > 0 ORDER BY 1") == turns
    file.close()


NUMBERS = count()


def test_rows_of_a_process_that_is_gone_are_interrupted_with_their_last_checkpoint(
    file: LedgerFile, caplog: pytest.LogCaptureFixture
) -> None:
    turn = row(prompt_tokens=7, completion_tokens=3, checkpoint_at=BEGAN + 4)
    save(file, (1, turn), (2, row("req_2")))
    file.close()
    with sqlite3.connect(file.path) as db:
        db.execute("UPDATE processes SET started = 'another boot'")
    db.close()
    file.open()
    columns = "request_id, state, cause, prompt_tokens, completion_tokens, ended_at"
    assert rows_of(file, columns) == [
        ("req_1", "interrupted", "process_ended", 7, 3, BEGAN + 4),
        ("req_2", "interrupted", "process_ended", 0, 0, BEGAN),
    ]
    assert look(file.path.parent, "SELECT state, requests, prompt_tokens FROM daily") == [("interrupted", 2, 7)]
    assert "held 2 turns" in caplog.text
    caplog.clear()
    file.close()
    file.open()
    assert caplog.text == "", "said once, and nothing where nothing was left open"


def test_rows_of_a_process_that_still_runs_are_left_alone(file: LedgerFile) -> None:
    other = LedgerFile(file.path.parent)
    other.open()
    save(file, (1, row()))
    assert other.recover() == []
    save(other, (1, row("req_of_the_other")))
    assert [state for _, state, *_ in rows_of(file)] == ["open", "open"]
    with sqlite3.connect(file.path) as db:
        db.execute("UPDATE processes SET started = 'another boot' WHERE number = 1")
    db.close()
    assert len(other.recover()) == 1
    assert rows_of(file, "request_id, state") == [("req_1", "interrupted"), ("req_of_the_other", "open")]
    other.close()


def test_a_process_is_told_by_its_start_whatever_it_calls_itself() -> None:
    """Its number may be another's after a restart, and a name may look like the rest of the line that tells its start."""
    mine, comm = ledger_file._start_of(os.getpid()), Path("/proc/self/comm")
    name = comm.read_text()
    try:
        comm.write_text("a b) c")
        assert ledger_file._start_of(os.getpid()) == mine
    finally:
        comm.write_text(name.strip())
    assert ledger_file._runs(os.getpid(), mine)
    assert not ledger_file._runs(os.getpid(), "another boot 1")


def test_a_process_that_is_gone_does_not_run() -> None:
    gone = 2**30  # above the kernel's highest
    assert ledger_file._start_of(gone) == ""
    assert not ledger_file._runs(gone, "")


def test_a_process_that_ended_does_not_run_though_nobody_has_asked_about_it() -> None:
    process = subprocess.Popen(["sleep", "60"])
    started = ledger_file._start_of(process.pid)
    assert ledger_file._runs(process.pid, started)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert not ledger_file._runs(process.pid, started)
    process.wait()


def test_opened_again_its_rows_keep_their_ids(file: LedgerFile) -> None:
    turn = row()
    save(file, (1, turn))
    file.close()
    file.open()
    save(file, (1, ended(turn)))
    assert rows_of(file) == [("req_1", "completed", 7, 5)]


def never(*_: Any) -> None:
    raise AssertionError("a batch was written twice")


def test_what_is_remembered_of_the_file_is_true_and_no_batch_is_written_twice(
    file: LedgerFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file, "_write_by_what_stands", never)
    first, second = row("req_1"), row("req_2")
    save(file, (1, first), (2, second))
    save(file, (3, ended(row("req_3"))))
    save(file, (1, ended(first)), (4, row("req_4")))
    save(file, (2, second))
    save(file, (2, ended(second)))
    assert [state for _, state, *_ in rows_of(file)] == ["completed", "completed", "completed", "open"]


def test_of_a_file_that_was_put_aside_nothing_is_remembered(file: LedgerFile, monkeypatch: pytest.MonkeyPatch) -> None:
    save(file, (1, row()))
    file.close()
    file.path.write_bytes(b"this is no database at all" * 1000)
    file.open()
    monkeypatch.setattr(file, "_write_by_what_stands", never)
    save(file, (1, ended(row())))
    assert [state for _, state, *_ in rows_of(file)] == ["completed"]


@pytest.mark.parametrize(
    "fields", [{}, {"used": "m", "upstream": "gpu", "account": "a", "reserved_tokens": 9, "attempts": 1}, {"cause": "x"}]
)
def test_a_turn_that_has_just_begun_stands_as_it_is(file: LedgerFile, fields: dict[str, Any]) -> None:
    save(file, (1, row(**fields)))
    assert rows_of(file, ", ".join(FIELDS)) == [msgspec.structs.astuple(row(**fields))]


def test_no_row_costs_a_table_of_its_own(file: LedgerFile) -> None:
    """SQLite makes one to look a word up among more than two, as the constraint on states has it done."""
    for statement in (schema.INSERT, schema.INSERT_BEGUN, schema.UPDATE):
        steps = file._db.execute(f"EXPLAIN {statement}", (None,) * statement.count("?"))
        assert "OpenEphemeral" not in [step[1] for step in steps]


def test_what_is_not_known_is_null(file: LedgerFile) -> None:
    """By each of the ways in which a row comes into the file."""
    save(file, (1, row()))
    save(file, (1, ended(row())), (2, ended(row())))
    save(file, (3, ended(row())), (2, ended(row())))
    assert rows_of(file, "DISTINCT typeof(cached_tokens), typeof(queue_ms), typeof(completion_id), typeof(why)") == [
        ("null",) * 4
    ]


def test_a_turn_that_somebody_else_closed_counts_as_what_it_came_to_be(file: LedgerFile) -> None:
    save(file, (1, row(prompt_tokens=3)), (2, row("req_2")))
    other = LedgerFile(file.path.parent)
    other.open()
    with sqlite3.connect(file.path) as db:
        db.execute("UPDATE processes SET started = 'another boot' WHERE number = 1")
    db.close()
    assert len(other.recover()) == 2
    save(file, (3, row("req_3")), (1, ended(row())))
    assert [state for _, state, *_ in rows_of(file)] == ["completed", "interrupted", "open"]
    columns = "state, requests, prompt_tokens, completion_tokens"
    sums = look(file.path.parent, f"SELECT {columns} FROM daily WHERE requests > 0 ORDER BY 1")
    assert sums == [("completed", 1, 7, 5), ("interrupted", 1, 0, 0)]
    assert look(file.path.parent, "SELECT requests, prompt_tokens FROM keys") == [(2, 7)]
    save(file, (2, row("req_2", prompt_tokens=9)))
    assert rows_of(file)[1] == ("req_2", "interrupted", 0, 0), "what is closed is not opened again"
    other.close()


def test_a_turn_that_is_not_in_the_file_any_more_is_written_anew(file: LedgerFile) -> None:
    save(file, (1, row()), (2, row("req_2")))
    with sqlite3.connect(file.path) as db:
        db.execute("DELETE FROM turns WHERE request_id = 'req_1'")
    db.close()
    save(file, (2, ended(row("req_2"))), (1, ended(row())))
    assert [state for _, state, *_ in rows_of(file)] == ["completed", "completed"]
    assert look(file.path.parent, "SELECT requests FROM daily") == [(2,)]


def test_of_turns_that_are_written_together_the_first_and_the_last_are_a_keys_first_and_last_use(file: LedgerFile) -> None:
    save(file, *((number, ended(row(f"req_{number}", began_at=BEGAN + number))) for number in (1, 2, 3)))
    assert look(file.path.parent, "SELECT first_used_at, last_used_at FROM keys") == [(BEGAN + 1, BEGAN + 3)]


def test_turns_count_on_the_day_on_which_they_end(file: LedgerFile) -> None:
    midnight = BEGAN - BEGAN % 86400
    late, unended = ended(row(began_at=midnight - 1)), row(began_at=midnight - 0.5, state="failed")
    late.cached_tokens, late.reasoning_tokens = 3, 2
    save(file, (1, late), (2, unended), (3, ended(row(began_at=midnight - 2))))
    days = look(file.path.parent, "SELECT day, state, requests, cached_tokens, reasoning_tokens FROM daily ORDER BY 1, 2")
    assert days == [("2026-09-20", "completed", 1, 0, 0), ("2026-09-20", "failed", 1, 0, 0), (DAY, "completed", 1, 3, 2)]
    assert look(file.path.parent, "SELECT first_used_at, last_used_at FROM keys") == [(midnight - 2, midnight - 0.5)]


def test_refused_turns_count_by_day_only(file: LedgerFile) -> None:
    save(file, (1, ended(row(), "rejected", 0, 0)))
    assert look(file.path.parent, "SELECT state, requests FROM daily") == [("rejected", 1)]
    assert look(file.path.parent, "SELECT * FROM keys") == []


def test_tokens_that_anybody_can_invent_leave_no_sums_of_their_own_until_something_was_used(file: LedgerFile) -> None:
    strangers = [row(f"req_{number}", key=f"direct:{number}", key_name="direct") for number in range(5)]
    save(file, *[(number, ended(one, "failed", 0, 0)) for number, one in enumerate(strangers[:3])])
    save(file, (3, ended(strangers[3], "rejected", 0, 0)), (4, ended(strangers[4])))
    assert look(file.path.parent, "SELECT key, requests, prompt_tokens FROM keys ORDER BY key") == [
        ("direct", 3, 0),
        ("direct:4", 1, 7),
    ]
    daily = look(file.path.parent, "SELECT key, state, requests FROM daily ORDER BY key, state")
    assert daily == [("direct", "failed", 3), ("direct", "rejected", 1), ("direct:4", "completed", 1)]
    assert len(rows_of(file)) == 5


def test_retention_deletes_turns_and_keeps_sums(file: LedgerFile) -> None:
    save(file, *((number, ended(row(began_at=BEGAN + number))) for number in range(1, 6)), (6, row(began_at=BEGAN)))
    assert [file.prune(BEGAN + 4, 2), file.prune(BEGAN + 4, 2)] == [2, 1]
    assert [state for _, state, *_ in rows_of(file)] == ["completed", "completed", "open"]
    assert look(file.path.parent, "SELECT sum(requests) FROM daily") == [(5,)]


def test_sums_by_window(file: LedgerFile) -> None:
    last_month, this_month = BEGAN - 40 * 86400, BEGAN - 2 * 86400
    for number, began in enumerate((last_month, this_month, BEGAN), 1):
        save(file, (number, ended(row(began_at=began))))
    (sums,) = file.sums("2026-09-01", DAY)
    assert (sums.total, sums.month, sums.day) == ((21, 15), (14, 10), (7, 5))
    assert (sums.first_used_at, sums.last_used_at) == (last_month, BEGAN)


KEY = KeyRecord("a", "team-a", '["deepseek-*"]', 100, None, 50, 90, BEGAN, None, None)


def test_the_old_tables_are_views(file: LedgerFile) -> None:
    file.save_keys([KEY], BEGAN)
    states = ("completed", "interrupted", "failed", "rejected", "open")
    save(file, *((number, ended(row(state), state)) for number, state in enumerate(states, 1)))
    save(file, (6, ended(row("failed_early"), "failed", 0, 0)))
    folder = file.path.parent
    names = [name for _, name, *_ in look(folder, "PRAGMA table_info(inference_model_api_key)")]
    assert names == ["id", "api_key_name", "inference_model_id", "api_key", "max_token_quota", "max_prompt_tokens_quota",
                     "max_completion_tokens_quota", "active_days", "created_at", "last_used_at", "expires_at", "deleted_at",
                     "is_deleted"]  # fmt: skip
    (key,) = look(folder, "SELECT * FROM inference_model_api_key")
    used = "2026-09-21 14:13:20"
    assert key == (1, "team-a", 1, "a", 100, None, 50, 90, used, used, None, None, 0)
    names = [name for _, name, *_ in look(folder, "PRAGMA table_info(inference_model_api_key_token_usage)")]
    assert names == ["id", "completions_chunk_id", "api_key_id", "prompt_tokens", "completion_tokens", "type", "created_at"]
    usage = look(
        folder, "SELECT api_key_id, prompt_tokens, completion_tokens, type, created_at FROM inference_model_api_key_token_usage"
    )
    assert usage == [(1, 7, 5, kind, used) for kind in ("completed", "interrupted", "interrupted")]


def test_a_key_that_left_the_config_is_marked_and_comes_back(file: LedgerFile) -> None:
    file.save_keys([KEY], BEGAN)
    file.save_keys([], BEGAN + 1)
    assert look(file.path.parent, "SELECT is_deleted FROM inference_model_api_key") == [(1,)]
    file.save_keys([KEY], BEGAN + 2)
    assert look(file.path.parent, "SELECT id, is_deleted FROM inference_model_api_key") == [(1, 0)]


def a_thousand(first: int) -> list[tuple[int, Row]]:
    return [(number, ended(row(f"req_{number}"))) for number in range(first, first + 1000)]


def test_damage_that_no_first_look_meets_is_found(file: LedgerFile) -> None:
    """The tables can be opened and written to; one page of old rows is spoilt."""
    save(file, *a_thousand(1))
    ((page,),) = file._db.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'turns'")
    file.close()
    with file.path.open("r+b") as raw:
        raw.seek((page - 1) * 4096)
        root = raw.read(4096)
        cell = int.from_bytes(root[22:24])  # the sixth child of the table's first page
        raw.seek((int.from_bytes(root[cell : cell + 4]) - 1) * 4096)
        raw.write(b"\xff" * 4096)
    file.open()
    assert rows_of(file) == []
    assert len([name for name in os.listdir(file.path.parent) if "damaged" in name]) == 1


def test_a_file_too_large_to_be_checked_in_time_is_used_unchecked(
    file: LedgerFile, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    save(file, *a_thousand(1))
    file.close()
    monkeypatch.setattr(ledger_file, "CHECK_SECONDS", -1.0)
    with caplog.at_level(logging.INFO, "ds2d.ledger"):
        file.open()
    assert "used unchecked" in caplog.text
    save(file, *a_thousand(1001))  # the check's clock stops no work
    assert look(file.path.parent, "SELECT requests FROM keys") == [(2000,)]


def test_a_disk_that_fails_during_the_check_is_no_damaged_file(file: LedgerFile, monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(sqlite3.Connection):
        def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
            if "quick_check" in sql:
                raise sqlite3.OperationalError("disk I/O error")
            return super().execute(sql, *values)

    save(file, (1, ended(row())))
    file.close()
    with monkeypatch.context() as patched:
        patched.setattr(sqlite3, "connect", functools.partial(sqlite3.connect, factory=Failing))
        with pytest.raises(sqlite3.OperationalError, match="disk I/O"):
            file.open()
    file.open()
    assert len(rows_of(file)) == 1


def test_a_file_of_a_newer_version_is_left_as_it_is(file: LedgerFile) -> None:
    save(file, (1, ended(row())))
    file._db.execute("PRAGMA user_version = 99")
    file.close()
    with pytest.raises(sqlite3.OperationalError, match=r"newer version \(99\)"):
        file.open()
    assert not file.is_open
    assert look(file.path.parent, "PRAGMA user_version") == [(99,)]
    assert len(rows_of(file)) == 1


def test_a_damaged_file_goes_aside_with_what_belongs_to_it(tmp_path: Path) -> None:
    """A log left behind would be taken for the new file's."""
    (tmp_path / NAME).write_bytes(b"this is no database at all" * 1000)
    for suffix in ("-wal", "-shm"):
        (tmp_path / f"{NAME}{suffix}").write_bytes(b"of the old file")
    file = LedgerFile(tmp_path)
    file._put_aside()
    (stamp,) = {path.name.removeprefix(f"{NAME}.damaged-")[:15] for path in tmp_path.iterdir()}
    assert re.fullmatch(r"\d{8}T\d{6}", stamp)
    assert {path.name for path in tmp_path.iterdir()} == {f"{NAME}.damaged-{stamp}{suffix}" for suffix in ("", "-wal", "-shm")}


@pytest.mark.parametrize("damage", [b"this is no database at all", None])
def test_a_damaged_file_is_put_aside(tmp_path: Path, damage: bytes | None) -> None:
    file = LedgerFile(tmp_path)
    file.open()
    save(file, *((number, ended(row(f"req_{number}"))) for number in range(1, 400)))
    file.close()
    raw = bytearray(file.path.read_bytes())
    raw[4096 : 4096 + 40000] = b"\xff" * 40000
    file.path.write_bytes(damage or bytes(raw))
    file.open()
    save(file, (1, ended(row("after"))))
    assert [one[0] for one in rows_of(file)] == ["after"]
    assert [path.name.startswith(f"{NAME}.damaged-") for path in tmp_path.iterdir() if "damaged" in path.name]
    file.close()


def test_a_full_disk_is_an_error_and_leaves_the_file_sound(file: LedgerFile) -> None:
    save(file, (1, ended(row())))
    pages = file._db.execute("PRAGMA page_count").fetchone()[0]
    file._db.execute(f"PRAGMA max_page_count = {pages}")
    batch = [(number, ended(row(f"req_{number}", why="x" * 4000))) for number in range(2, 50)]
    with pytest.raises(sqlite3.OperationalError, match="full"):
        save(file, *batch)
    assert len(rows_of(file)) == 1
    file._db.execute("PRAGMA max_page_count = 1000000")
    save(file, *batch)
    assert len(rows_of(file)) == 49


def test_of_a_batch_that_fails_nothing_is_kept_and_the_next_one_is_saved(file: LedgerFile) -> None:
    with pytest.raises(sqlite3.IntegrityError):
        save(file, (1, ended(row())), (2, row("req_2", key=None)))
    save(file, (3, row("req_3")))
    assert rows_of(file, "request_id") == [("req_3",)]


def test_a_log_that_grew_long_shrinks_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_file, "WAL_LIMIT", 100_000)
    file = LedgerFile(tmp_path)
    file.open()
    log = tmp_path / f"{NAME}-wal"
    save(file, *((number, row(f"req_{number}", why="x" * 4000)) for number in range(2000)))
    assert log.stat().st_size > 5_000_000
    save(file, (1, row()))
    assert log.stat().st_size <= 100_000
    file.close()


def test_it_may_be_opened_in_one_thread_and_used_in_another(file: LedgerFile) -> None:
    file.close()
    opening = threading.Thread(target=file.open)
    opening.start()
    opening.join()
    save(file, (1, row()))
    assert len(rows_of(file)) == 1


def test_a_locked_file_is_an_error_after_a_moment(file: LedgerFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_file, "BUSY_MS", 1)
    file.close()
    file.open()
    other = sqlite3.connect(file.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        save(file, (1, row()))
    other.execute("ROLLBACK")
    other.close()
    save(file, (1, row()))


def test_what_is_forced_to_disk_is_forced_and_what_is_not_is_not(file: LedgerFile) -> None:
    """Also on a connection that was made anew, whatever SQLite takes for granted there."""
    for _ in range(2):
        file._db.execute("PRAGMA synchronous = OFF")
        for how, level in (("full", 2), ("normal", 1), ("full", 2), ("full", 2)):
            file.write([(1, msgspec.structs.astuple(row()))], how)
            assert file._db.execute("PRAGMA synchronous").fetchone() == (level,)
        file.close()
        assert not file.is_open
        file.open()
        assert file.is_open


def test_nothing_is_done_with_a_file_that_is_not_open(tmp_path: Path) -> None:
    file = LedgerFile(tmp_path / "deep" / "below")
    assert file.is_open is False
    with pytest.raises(sqlite3.OperationalError, match="not open"):
        file.sums(DAY, DAY)
    file.close()
    file.open()
    assert file.is_open is True
    assert file.path.exists()
    file.close()
    with pytest.raises(sqlite3.OperationalError, match="not open"):
        file.prune(BEGAN, 1)


def test_a_file_that_cannot_be_had_now_is_not_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = LedgerFile(tmp_path)

    def locked() -> None:
        file._connection = sqlite3.connect(":memory:")
        raise sqlite3.OperationalError("locked")

    monkeypatch.setattr(file, "_open", locked)
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        file.open()
    assert not file.is_open
    assert list(tmp_path.iterdir()) == []
