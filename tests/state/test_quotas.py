"""Quotas and rates of keys, by the rule: reserve, settle, at most one answer over."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds2d.core.caller import Caller
from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.settings import KeySpec
from ds2d.state.ledger_file import Sums
from ds2d.state.quotas import Permit, Quotas, counts_tokens

NOON = datetime(2026, 3, 31, 12, tzinfo=UTC)


class World:
    """Both clocks, and one key."""

    def __init__(self, **limits: Any) -> None:
        self.clock = 100.0
        self.now = NOON
        self.quotas = Quotas(lambda: self.clock, lambda: self.now)
        self.caller = Caller("a", "team-a", KeySpec(**limits))

    def admit(self, prompt: int = 10, completion: int = 10) -> Permit:
        return self.quotas.admit(self.caller, prompt, completion)

    def refused(self) -> GatewayError:
        with pytest.raises(GatewayError) as caught:
            self.admit()
        return caught.value

    def use(self, prompt: int, completion: int) -> None:
        self.admit().settle(prompt, completion)

    def later(self, **span: float) -> None:
        self.clock += timedelta(**span).total_seconds()
        self.now += timedelta(**span)


def test_a_key_without_limits_is_counted_and_never_refused() -> None:
    world = World()
    for _ in range(100):
        world.use(1000, 1000)
    assert world.quotas.meter("a").total == [100_000, 100_000]


def test_a_used_up_quota_refuses_for_good() -> None:
    world = World(max_tokens=100)
    world.use(60, 39)
    world.use(50, 50)  # begun with one token left: the one answer that may go over
    error = world.refused()
    assert (error.kind, error.status, error.retry_after) == (ErrorKind.QUOTA_EXHAUSTED, 429, None)
    assert "max_tokens" in error.message


@pytest.mark.parametrize(("limit", "prompt", "completion"), [("max_prompt_tokens", 100, 0), ("max_completion_tokens", 0, 100)])
def test_prompt_and_completion_have_quotas_of_their_own(limit: str, prompt: int, completion: int) -> None:
    world = World(**{limit: 100})
    world.use(completion, prompt)  # the other kind
    world.use(prompt, completion)
    assert limit in world.refused().message


def test_what_runs_is_reserved_and_what_was_not_used_comes_back() -> None:
    world = World(max_tokens=100)
    running = world.admit(50, 60)
    assert "running requests hold 110" in world.refused().message
    running.settle(5, 5)
    running.settle(5, 5)  # once is enough
    assert world.quotas.meter("a").total == [5, 5]
    world.admit()


@given(st.integers(1, 500), st.lists(st.tuples(st.integers(1, 50), st.integers(0, 100), st.booleans()), max_size=60))
def test_at_most_one_answer_goes_over(quota: int, requests: list[tuple[int, int, bool]]) -> None:
    """Answers never use more than was reserved for them; the last of them may have begun on the last token."""
    world = World(max_tokens=quota)
    running: list[Permit] = []
    largest = 0
    for prompt, completion, finish in requests:
        try:
            running.append(world.admit(prompt, completion))
            largest = max(largest, prompt + completion)
        except GatewayError:
            finish = True
        if finish and running:
            permit = running.pop()
            permit.settle(*permit.reserved)
    for permit in running:
        permit.settle(*permit.reserved)
    assert sum(world.quotas.meter("a").total) < quota + largest or not largest
    assert world.quotas.meter("a").reserved == [0, 0]
    assert world.quotas.meter("a").inflight == 0


@pytest.mark.parametrize(
    ("window", "wait", "renews"),
    [("day", timedelta(hours=12), "2026-04-01T00:00:00Z"), ("month", timedelta(hours=12), "2026-04-01T00:00:00Z")],
)
def test_a_quota_renews_with_the_calendar_in_utc(window: Any, wait: timedelta, renews: str) -> None:
    world = World(max_tokens=10, quota_window=window)
    world.use(10, 0)
    error = world.refused()
    assert error.retry_after == wait.total_seconds()
    assert renews in error.message
    world.later(hours=12)
    world.use(10, 0)
    world.refused()
    world.later(days=1)
    if window == "day":
        world.admit()
    else:
        assert world.refused().retry_after == timedelta(days=29).total_seconds()


def test_december_is_followed_by_january() -> None:
    world = World(max_tokens=1, quota_window="month")
    world.now = datetime(2026, 12, 5, tzinfo=UTC)
    world.use(1, 0)
    assert "2027-01-01" in world.refused().message


def test_a_clock_set_back_revives_no_quota() -> None:
    world = World(max_tokens=10, quota_window="day")
    world.use(10, 0)
    world.now -= timedelta(days=2)
    world.refused()


@pytest.mark.parametrize(("window", "ahead"), [("day", 2), ("day", 3000), ("month", 40), ("month", 3000)])
def test_a_clock_that_was_ahead_for_a_while_does_not_keep_a_quota_from_renewing(window: Any, ahead: int) -> None:
    world = World(max_tokens=10, quota_window=window)
    world.now += timedelta(days=ahead)
    world.use(10, 0)
    world.now -= timedelta(days=ahead)
    world.refused()
    world.now += timedelta(days=1 if window == "day" else 31)
    world.use(1, 0)


def test_what_was_used_before_a_restart_counts() -> None:
    world = World(max_tokens=100, quota_window="month")
    world.quotas.load([Sums("a", NOON.timestamp(), NOON.timestamp(), 3, (500, 500), (60, 40), (1, 1))])
    world.refused()
    meter = world.quotas.meter("a")
    assert (meter.total, meter.month, meter.day) == ([500, 500], [60, 40], [1, 1])
    assert world.quotas.first_used("a") == NOON


def test_what_was_used_before_the_ledger_could_be_read_counts_too() -> None:
    world = World(max_tokens=100)
    world.use(30, 0)
    world.quotas.load([Sums("a", None, None, 3, (70, 0), (70, 0), (70, 0))])
    world.refused()


def test_first_use_is_remembered() -> None:
    world = World()
    assert world.quotas.first_used("a") is None
    world.use(1, 1)
    world.later(days=3)
    world.use(1, 1)
    assert world.quotas.first_used("a") == NOON


def test_requests_a_minute() -> None:
    world = World(rpm=2)
    world.use(1, 1)
    world.later(seconds=20)
    world.use(1, 1)
    error = world.refused()
    assert (error.kind, error.retry_after) == (ErrorKind.RATE_LIMITED, 40)
    assert world.quotas.headroom(world.caller)["requests"] == (2, 0, 60)
    world.later(seconds=40)
    world.admit()


def test_tokens_a_minute_are_reserved_and_corrected() -> None:
    world = World(tpm=100)
    running = world.admit(10, 90)
    assert "tpm" in world.refused().message
    running.settle(10, 10)
    assert world.quotas.headroom(world.caller)["tokens"] == (100, 80, 60)
    world.later(seconds=30)
    world.use(10, 75)
    assert world.refused().retry_after == 30  # when the first 20 leave the window
    world.later(seconds=30)
    world.admit()


def test_a_long_answer_counts_when_it_ends() -> None:
    world = World(tpm=100)
    running = world.admit(10, 50)
    world.later(seconds=90)
    running.settle(10, 100)
    world.refused()
    world.later(seconds=61)
    world.admit()


def test_a_step_of_the_wall_clock_frees_no_rate() -> None:
    world = World(rpm=1)
    world.use(1, 1)
    world.now += timedelta(hours=5)
    world.refused()


def test_requests_at_once() -> None:
    world = World(max_inflight=2)
    first = world.admit()
    world.admit()
    error = world.refused()
    assert (error.kind, error.retry_after) == (ErrorKind.RATE_LIMITED, 1)
    first.settle(0, 0)
    world.admit()


def test_quota_comes_before_rate_and_a_refusal_reserves_nothing() -> None:
    world = World(max_tokens=10, rpm=1, tpm=1)
    world.use(10, 0)
    before = world.quotas.meter("a")
    for _ in range(3):
        assert world.refused().kind is ErrorKind.QUOTA_EXHAUSTED
    assert (before.inflight, before.reserved, len(before.requests.entries)) == (0, [0, 0], 1)


def test_only_limits_on_tokens_cost_a_count() -> None:
    assert not counts_tokens(None)
    assert not counts_tokens(KeySpec(rpm=1, max_inflight=1))
    assert all(
        counts_tokens(KeySpec(**{name: 1})) for name in ("max_tokens", "max_prompt_tokens", "max_completion_tokens", "tpm")
    )


def test_ten_thousand_keys_do_not_make_one_request_dearer() -> None:
    world = World()
    world.quotas.load(Sums(str(number), None, None, 1, (1, 1), (1, 1), (1, 1)) for number in range(10_000))
    touched: list[str] = []
    meters = world.quotas._meters

    class Watched(dict[str, Any]):
        def get(self, key: str, default: Any = None) -> Any:
            touched.append(key)
            return super().get(key, default)

        def __iter__(self) -> Any:
            raise AssertionError("nothing looks at every key")

    world.quotas._meters = Watched(meters)
    world.use(1, 1)
    assert touched == ["a"]
