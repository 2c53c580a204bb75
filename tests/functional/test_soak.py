"""Memory and descriptors over many mixed turns: the short form of scripts/soak."""

from __future__ import annotations

from pathlib import Path

from scripts.soak import BOUND, soak


async def test_mixed_turns_leave_nothing_behind(tmp_path: Path) -> None:
    result = await soak(tmp_path, turns=2000, warm_up=2000, looks=2)
    assert result.growth < BOUND, result.memory
    assert max(result.descriptors) - result.descriptors[0] < 60, result.descriptors
    assert {"200", "401", "400", "503", "429", "left"} <= set(result.statuses), result.statuses
