"""Whatever servers and clients do to responses: each is one answer, told to all alike, until it is deleted."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.functional.responses_chaos import one_round


@pytest.mark.parametrize(("seed", "room"), [(1, 0), (2, 60_000)], ids=["room for all", "room for some"])
async def test_all_are_told_the_same_of_a_response_and_others_nothing(tmp_path: Path, seed: int, room: int) -> None:
    world = await one_round(tmp_path, seed, seconds=1.2, room=room)
    assert world.faults == []
    assert world.told["completed"] > 10
