"""Kill -9 in the middle of streams, and what the ledger says afterwards: the short form of scripts/crash-test."""

from __future__ import annotations

from pathlib import Path

import msgspec

from ds2d.state.ledger_file import NAME, LedgerFile
from scripts.crash_test import Sent, compare, run
from tests.state.ledger_world import ended, look, row


async def test_no_row_is_lost_and_none_is_doubled(tmp_path: Path) -> None:
    result = await run(tmp_path, streams=40, cycles=3, seed=7)
    assert result.faults == []
    assert result.asked == 40
    assert result.delivered > 0
    assert result.states["interrupted"] > 0, "nothing was cut: the kills came too late to show anything"
    assert result.checkpoints > 0
    assert look(tmp_path / "state", "SELECT count(*) FROM turns WHERE state = 'open'") == [(0,)]


def test_the_comparison_sees_every_kind_of_fault(tmp_path: Path) -> None:
    file = LedgerFile(tmp_path)
    file.open()
    turns = [
        ended(row("twice")),
        ended(row("twice")),
        ended(row("cut"), "interrupted", 7, 3),
        ended(row("more"), "interrupted", 7, 99),
        row("open"),
    ]
    file.write([(number, msgspec.structs.astuple(turn)) for number, turn in enumerate(turns, 1)], "normal")
    file._db.execute("UPDATE daily SET requests = requests + 1")
    file.close()
    names = ("twice", "cut", "more", "open", "lost")
    sent = {name: Sent(0.0, 7, 5, whole=True) for name in names}
    delivered = {name: name in ("twice", "cut", "lost") for name in names}
    faults = compare(tmp_path / NAME, sent, delivered, dict.fromkeys(names, 0.0)).faults
    expected = ("twice stands there twice", "cut was delivered whole and is interrupted", "more is interrupted with 7 + 99",
                "open is still open", "lost was delivered whole and has no row", "daily sums say")  # fmt: skip
    for text in expected:
        assert any(text in fault for fault in faults), text
