"""Whatever servers, clients and operators do: nobody gets two answers in one, a cut one that looks whole, or a call not made."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.functional.chaos import is_whole, one_round, upgraded_round


@pytest.mark.parametrize("seed", [1, 2])
async def test_what_clients_get_is_one_answer_and_says_whether_it_is_whole(tmp_path: Path, seed: int) -> None:
    faults, clients = await one_round(tmp_path, seed)
    assert faults == []
    assert len(clients) > 150
    assert sum(map(is_whole, clients)) > 60


async def test_the_same_holds_while_a_newer_process_takes_over(tmp_path: Path) -> None:
    faults, clients = await upgraded_round(tmp_path, seed=20, count=100, upgrades=1)
    assert faults == []
    assert sum(map(is_whole, clients)) > 40
