"""What strangers can make grow stays within its bound, and what counts is kept."""

from __future__ import annotations

from datetime import UTC, datetime

from ds2d.core.caller import DIRECT, Caller
from ds2d.core.settings import KeySpec
from ds2d.state.changes import MAX_CHANGES
from ds2d.state.fairness import MAX_REMEMBERED, USUAL_COST, FairShare
from ds2d.state.quotas import MAX_STRANGERS, Quotas
from ds2d.state.windows import Window
from tests.state.world import World


def test_callers_who_bring_a_token_are_forgotten_and_keys_are_not() -> None:
    quotas = Quotas(lambda: 0.0, lambda: datetime(2026, 3, 31, tzinfo=UTC))
    key = Caller("a", "team-a", KeySpec())
    quotas.admit(key, 1, 1).settle(5, 6)
    first = quotas.admit(Caller(f"{DIRECT}first", "direct"), 1, 1)
    for number in range(MAX_STRANGERS + 10):
        quotas.admit(Caller(f"{DIRECT}{number}", "direct"), 1, 1).settle(1, 1)
    assert quotas.sizes()["strangers"] == (MAX_STRANGERS, MAX_STRANGERS)
    assert len(quotas._meters) == MAX_STRANGERS + 1
    assert quotas.meter("a").total == [5, 6]
    first.settle(1, 1)  # forgotten meanwhile: nobody minds


def test_of_too_many_callers_those_who_used_most_are_remembered() -> None:
    share = FairShare()
    share.tag("heavy", 1, first=True)
    share.settle("heavy", 1, 1000 * USUAL_COST)
    for number in range(MAX_REMEMBERED * 3):
        share.tag(f"c{number}", 1, first=True)
        assert len(share) <= MAX_REMEMBERED
    assert share._ends["heavy"] > share._ends[f"c{number}"]


async def test_moments_at_which_accounts_become_free_are_bounded() -> None:
    world = World(account_max_inflight=2)
    queue = world.queue
    for number in range(MAX_CHANGES * 2):
        queue._changes.expect(world.time.now + 1 + number * 0.01, world.time.now, somebody_waits=True)
    assert len(queue._changes) <= MAX_CHANGES
    assert queue._changes._moments[0] <= world.time.now + 2
    assert queue._changes._moments == sorted(queue._changes._moments)


def test_a_window_with_a_grain_holds_one_entry_a_grain() -> None:
    window = Window(1.0)
    for number in range(100_000):
        window.add(number * 0.001, 2)
    assert (len(window.entries), window.sum) == (100, 200_000)
    window.forget(99.999)
    assert len(window.entries) <= 61
    assert window.sum == sum(entry.amount for entry in window.entries)
