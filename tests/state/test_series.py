"""The last hour and day: what is counted, where, and that it stays small."""

from __future__ import annotations

import pytest

from ds2d.state.ledger_schema import COMPLETED, FAILED, INTERRUPTED, REJECTED, Row
from ds2d.state.series import HOUR, Series

NOW = 1_800_000_000.0


def turn(end: float = NOW, *, seconds: float = 10.0, tokens: int = 100, first: float | None = 1000.0, **more: object) -> Row:
    row = Row("req", "key", "name", "openai_chat", "m", end - seconds, streamed=True, state=COMPLETED, ended_at=end)
    row.completion_tokens, row.prompt_tokens, row.first_ms = tokens, 7, first
    for name, value in more.items():
        setattr(row, name, value)
    return row


def hour(*rows: Row, now: float = NOW) -> list[dict[str, object]]:
    series = Series(lambda: now)
    for row in rows:
        series.note(row)
    steps: list[dict[str, object]] = series.shown()["hour"]["steps"]
    return steps


def test_a_turn_counts_where_it_ended_and_its_tokens_where_they_were_made() -> None:
    steps = hour(turn(NOW, seconds=121.0, tokens=120, first=1000.0), now=NOW)  # an answer of two whole minutes
    assert [step["turns"] for step in steps[-3:]] == [0, 0, 1]
    assert [step["completion_tokens"] for step in steps[-3:]] == [60, 60, 0]
    assert len(steps) == 60
    assert sum(step["prompt_tokens"] for step in steps) == 7  # type: ignore[misc]


def test_the_tokens_of_an_answer_in_one_piece_count_over_the_time_in_which_it_was_made() -> None:
    steps = hour(turn(NOW, seconds=180.0, tokens=120, first=None, streamed=False, queue_ms=60_000.0), now=NOW)
    assert [step["completion_tokens"] for step in steps[-4:]] == [0, 60, 60, 0]
    assert steps[-1]["first_ms"] is steps[-1]["between_ms"] is None


def test_an_answer_longer_than_what_is_kept_costs_no_more_than_that() -> None:
    steps = hour(turn(NOW, seconds=10 * 3600.0, tokens=1000))
    assert sum(step["completion_tokens"] for step in steps) == pytest.approx(1000, abs=60)  # type: ignore[arg-type,type-var]


def test_latencies_are_told_by_quantile_to_about_an_eighth() -> None:
    step = hour(*[turn(first=200.0, seconds=10.2, tokens=101)] * 19, turn(first=9000.0, seconds=10.0, tokens=101))[-1]
    assert step["first_ms"] == {"p50": pytest.approx(200, rel=0.13), "p95": pytest.approx(200, rel=0.13)}
    assert step["between_ms"] == {"p50": pytest.approx(100, rel=0.13), "p95": pytest.approx(100, rel=0.13)}


@pytest.mark.parametrize(("state", "counts"), [(FAILED, 1), (REJECTED, 1), (INTERRUPTED, 0), (COMPLETED, 0)])
def test_errors_are_counted_by_cause_and_a_client_that_left_is_none(state: str, counts: int) -> None:
    series = Series(lambda: NOW)
    series.note(turn(state=state, cause="upstream_timeout", first=None))
    assert series.shown()["day"]["causes"] == ({"upstream_timeout": 1} if counts else {})
    assert series.latest()["hour"]["errors"] == counts


def test_nothing_older_than_an_hour_is_kept_however_long_it_runs() -> None:
    series = Series(lambda: NOW)
    for minute in range(500):
        series.note(turn(NOW + minute * 60))
    size = series.sizes()["steps"]
    assert size.now <= size.bound
    assert len(series.shown()["hour"]["steps"]) == HOUR[1]


def test_a_clock_that_was_set_back_loses_nothing_that_is_shown() -> None:
    series = Series(lambda: NOW)
    series.note(turn(NOW + 86400))
    series.note(turn(NOW))
    assert series.sizes()["steps"].now <= series.sizes()["steps"].bound
    for ring in series.shown().values():
        assert [step["turns"] for step in ring["steps"]] == [*[0] * (len(ring["steps"]) - 1), 1]
