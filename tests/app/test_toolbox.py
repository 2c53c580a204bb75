"""Ids: what they look like, and which of them come in order."""

from __future__ import annotations

import re

import pytest

from ds2d.app import toolbox
from ds2d.app.toolbox import new_id


def test_ids_are_opaque_and_those_that_open_something_are_longer() -> None:
    assert re.fullmatch(r"chatcmpl-[0-9a-f]{24}", new_id("chatcmpl-"))
    assert re.fullmatch(r"resp_[0-9a-f]{32}", new_id("resp_"))
    assert len({new_id("msg_") for _ in range(1000)}) == 1000


def test_ids_of_requests_come_in_order_and_differ_within_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = [1_790_000_000_000 + number for number in (0, 0, 1, 2, 300, 70_000)]
    made = []
    for moment in moments:
        monkeypatch.setattr(toolbox.time, "time_ns", lambda moment=moment: moment * 1_000_000)
        made.append(new_id("req_"))
    assert all(re.fullmatch(r"req_[0-9a-f]{24}", one) for one in made)
    assert sorted(made[1:]) == made[1:]
    assert made[0] != made[1]
    assert made[0][:16] == made[1][:16] == f"req_{1_790_000_000_000:012x}"
