"""Where conversations are, how long that is remembered, and whether it pays."""

from __future__ import annotations

import pytest

from ds2d.config.schema import Affinity as Settings
from ds2d.core.load import Load
from ds2d.core.models import Route, Target
from ds2d.core.request import ChatRequest, Message
from ds2d.core.settings import ModelSpec
from ds2d.state import affinity as module
from ds2d.state.affinity import Affinity, Thread
from ds2d.state.payoff import (
    AGAIN_SECONDS,
    EVIDENCE_SECONDS,
    TRIAL_EVIDENCE,
    TRIAL_LEAST_SECONDS,
    TRIAL_SECONDS,
    Payoff,
    Strategy,
)
from tests.state.world import Time, upstream

NAMES = ("a", "b", "c")


def route(*names: str) -> Route:
    return Route("m", "m", tuple(Target(upstream(name), "m", ModelSpec()) for name in names), "listed")


class World:
    def __init__(self, **settings: int | str) -> None:
        self.time = Time()
        self.affinity = Affinity(self.time)
        self.route = route(*NAMES)
        self.settings = Settings(**{"mode": "on", **settings})  # type: ignore[arg-type]
        self.affinity.apply(self.settings, set(NAMES))

    def thread(self, *texts: str, session: str | None = None, user: str | None = None) -> Thread:
        messages: list[Message] = [{"role": "user", "content": text} for text in texts]
        found = self.affinity.thread(ChatRequest("m", messages, session=session, user=user), "k", self.route)
        assert found is not None
        return found

    def ask(self, *texts: str, at: str, session: str | None = None, user: str | None = None) -> str | None:
        """A turn that is sent to `at`; where it should have gone."""
        thread = self.thread(*texts, session=session, user=user)
        prefer = thread.prefer
        self.affinity.sent(thread, at)
        return prefer


def test_a_conversation_goes_where_it_began() -> None:
    world = World()
    assert world.ask("hello", at="b") is None
    assert world.ask("hello", "hi", "more", at="b") == "b"
    assert world.ask("other", at="c") is None


def test_the_longest_known_beginning_counts() -> None:
    world = World()
    world.ask("hello", at="a")
    world.ask("hello", "hi", "x", at="a")
    fork = world.thread("hello", "hi", "y")
    assert fork.prefer == "a"
    world.affinity.failed(fork)
    world.affinity.sent(fork, "c")  # the branch is elsewhere, the stem is where it was
    assert world.ask("hello", "hi", "y", "z", at="c") == "c"


def test_a_name_of_the_conversation_counts_whatever_its_messages_are() -> None:
    world = World()
    world.ask("hello", at="b", session="s")
    assert world.ask("compacted", at="b", session="s") == "b"
    assert world.ask("hello", at="a", session="t") is None


def test_a_users_new_conversation_begins_where_the_last_one_was_and_goes_its_own_way() -> None:
    world = World()
    world.ask("one", at="b", user="u")
    second = world.thread("two", user="u")
    assert second.prefer == "b"
    for text in ("2", "3", "4"):
        world.ask("two", text, at="c", user="u")
    assert world.ask("one", "more", at="b", user="u") == "b"


def test_one_turn_elsewhere_does_not_move_a_conversation_the_third_in_a_row_does() -> None:
    world = World()
    world.ask("x", at="a", session="s")
    assert [world.ask("x", at="b", session="s") for _ in range(4)] == ["a", "a", "a", "b"]
    assert world.ask("x", at="a", session="s") == "b"
    assert world.ask("x", at="b", session="s") == "b"


def test_a_server_that_failed_is_left_for_good() -> None:
    world = World()
    world.ask("x", at="a", session="s")
    thread = world.thread("x", session="s")
    world.affinity.sent(thread, "a")
    world.affinity.failed(thread)
    world.affinity.sent(thread, "b")
    assert world.ask("x", at="b", session="s") == "b"


def test_a_server_that_was_away_has_lost_its_cache() -> None:
    world = World()
    world.ask("x", at="a", session="s")
    world.ask("y", at="b", session="t")
    world.affinity.lost("a")
    assert world.thread("x", session="s").prefer is None
    assert world.thread("y", session="t").prefer == "b"


def test_what_was_not_used_for_so_long_is_forgotten() -> None:
    world = World(ttl_seconds=60)
    world.ask("x", at="a", session="s")
    world.time.advance(59)
    assert world.ask("x", at="a", session="s") == "a"
    world.time.advance(60)
    assert world.ask("x", at="a", session="s") is None


def test_memory_is_bounded_and_the_longest_unused_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_KEYS", 3)
    world = World()
    for name in "pqrs":
        world.ask("x", at="a", session=name)
        world.ask("x", at="a", session="p")
    assert world.affinity.sizes()["keys"] == (3, 3)
    assert [world.thread("x", session=name).prefer for name in "pqrs"] == ["a", None, "a", "a"]


def test_one_server_is_no_choice_and_costs_nothing() -> None:
    world = World()
    assert world.affinity.thread(ChatRequest("m", []), "k", route("a")) is None


def test_a_conversation_is_followed_while_its_model_has_one_server_for_now() -> None:
    world = World()
    world.ask("x", at="b", session="s")
    alone = world.affinity.thread(ChatRequest("m", [], session="s"), "k", route("a"))
    assert alone is not None
    world.affinity.failed(alone)
    world.affinity.sent(alone, "a")
    assert world.thread("x", session="s").prefer == "a"


def test_off_remembers_nothing() -> None:
    world = World()
    world.ask("x", at="a", session="s")
    world.affinity.apply(Settings(mode="off"), set(NAMES))
    assert world.affinity.thread(ChatRequest("m", []), "k", world.route) is None
    assert world.affinity.sizes()["keys"].now == 0


def test_a_server_that_config_no_longer_names_is_no_place() -> None:
    world = World()
    world.ask("x", at="a", session="s")
    world.affinity.apply(world.settings, {"b", "c"})
    assert world.ask("x", at="b", session="s") is None


# Payoff


def test_counters_count_for_the_strategy_that_held_between_two_looks() -> None:
    world = World()
    world.ask("x", at="a")
    for queries, hits in ((1000, 100), (2000, 900), (500, 10), (700, 110)):  # it was started again in between
        world.affinity.gauged("a", Load(0, queries=queries, hits=hits))
    world.affinity.gauged("elsewhere", Load(0, queries=1, hits=1))
    tally = world.affinity.payoff.totals["prefer"]
    assert (tally.queries, tally.hits) == (1200, 900)
    assert world.affinity.report()["by_strategy"]["prefer"]["hit_ratio"] == 0.75


def test_a_change_of_strategy_between_two_looks_counts_for_none() -> None:
    world = World()
    world.ask("x", at="a")
    world.affinity.gauged("a", Load(0, queries=1000, hits=0))
    world.affinity.payoff.mode = "off"
    world.affinity.gauged("a", Load(0, queries=2000, hits=0))
    assert [tally.queries for tally in world.affinity.payoff.totals.values()] == [0, 0]
    world.affinity.gauged("a", Load(0, queries=2500, hits=0))
    assert world.affinity.payoff.totals["balance"].queries == 500


class Judge:
    """A payoff in mode auto and its clock; what is found under each strategy is the test's to say."""

    def __init__(self, prefer: float, balance: float, answers: bool = False) -> None:
        self.now = 0.0
        self.payoff = Payoff(self.now)
        self.found: dict[Strategy, float] = {"prefer": prefer, "balance": balance}
        self.answers = answers

    def second(self, later: int = 10_000, first: int = 5_000) -> None:
        """A second of traffic: one later turn, and one that begins a conversation and finds nothing."""
        self.now += 1
        strategy = self.payoff.strategy
        hits = int(later * self.found[strategy])
        if first:
            self.payoff.answered(strategy, first, None, False, self.now)
        if later:
            self.payoff.answered(strategy, later, hits if self.answers else None, True, self.now)
        if not self.answers:
            self.payoff.counted(strategy, later + first, hits, self.now)

    def until_judged(self) -> bool:
        while self.payoff.pays is None:
            self.second()
            assert self.now < 10_000
        return self.payoff.pays


@pytest.mark.parametrize("answers", [True, False], ids=["cached_tokens", "counters"])
@pytest.mark.parametrize(
    ("prefer", "balance", "pays"), [(0.9, 0.5, True), (0.51, 0.5, False), (0.2, 0.5, False), (0.9, 0.0, True)]
)
def test_auto_keeps_what_pays_and_switches_off_what_does_not(prefer: float, balance: float, pays: bool, answers: bool) -> None:
    judge = Judge(prefer, balance, answers)
    assert judge.until_judged() is pays
    assert judge.payoff.strategy == ("prefer" if pays else "balance")


def test_a_beginning_in_which_nobody_comes_back_is_no_evidence() -> None:
    judge = Judge(0.9, 0.5)
    for _ in range(500):
        judge.second(later=0, first=100_000)
    assert (judge.payoff.pays, judge.payoff.strategy) == (None, "prefer")
    assert judge.until_judged()


def test_a_trial_is_short_but_long_enough_to_be_seen_by_several_looks() -> None:
    judge = Judge(0.9, 0.5)
    while judge.payoff.strategy == "prefer":
        judge.second(later=1_000_000)
    assert judge.now == EVIDENCE_SECONDS
    while judge.payoff.strategy == "balance":
        judge.second(later=1_000_000)
    assert judge.now == EVIDENCE_SECONDS + TRIAL_LEAST_SECONDS


def test_a_verdict_is_looked_at_again_and_can_change() -> None:
    judge = Judge(0.5, 0.5)
    assert not judge.until_judged()
    judge.found["prefer"] = 0.9
    since = judge.now
    while judge.payoff.strategy == "balance":
        judge.second()
    assert judge.now == since + AGAIN_SECONDS
    while judge.payoff.pays is False:
        judge.second()
    assert judge.payoff.strategy == "prefer"


def test_a_trial_without_traffic_ends_and_goes_on_later() -> None:
    judge = Judge(0.9, 0.5)
    while judge.payoff.strategy == "prefer":
        judge.second()
    for _ in range(int(TRIAL_SECONDS)):
        judge.second(later=TRIAL_EVIDENCE // 200, first=0)
    assert (judge.payoff.strategy, judge.payoff.pays) == ("prefer", None)
    assert judge.until_judged()


def test_servers_that_say_nothing_leave_the_preference_as_it_is() -> None:
    payoff = Payoff(0)
    for now in range(1000):
        payoff.answered("prefer", 10_000, None, True, now)
    assert (payoff.pays, payoff.strategy, payoff.totals["prefer"].turns) == (None, "prefer", 1000)


def test_the_setting_is_obeyed_whatever_was_measured() -> None:
    judge = Judge(0.5, 0.5)
    judge.until_judged()
    judge.payoff.mode = "on"
    assert judge.payoff.strategy == "prefer"
    judge.payoff.mode = "off"
    assert judge.payoff.strategy == "balance"
