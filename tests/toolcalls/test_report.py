"""The report's figures come from the corpus, and README quotes them (scripts/toolcall-report)."""

from __future__ import annotations

import random

from scripts.toolcall_report import drift_run, generated_calls, generated_innocents, lost_forms
from tests.toolcalls.written import draw_call, draw_innocent, write


def test_nothing_is_missed_and_nothing_alarms() -> None:
    draw = random.Random(7)
    assert generated_calls(200, draw) == (200, [])
    assert generated_innocents(200, draw) == (200, [])


def test_most_drifted_forms_are_understood() -> None:
    total, understood, lost = drift_run()
    assert sum(total.values()) - len(lost) == sum(understood.values())
    assert sum(understood.values()) > 0.9 * sum(total.values())
    assert {line.split()[1] for line in lost_forms(lost)} <= {"'\"'", "'<'", "'>'", "':'"}  # only brackets, quotes, colons


def test_the_same_seed_draws_the_same_texts() -> None:
    def texts(seed: int) -> list[str]:
        draw = random.Random(seed)
        return [draw_innocent(draw) for _ in range(20)] + [write("xml", [draw_call(draw)], draw) for _ in range(20)]

    assert texts(3) == texts(3)
    assert texts(3) != texts(4)
