"""The simulations say what they are believed to say, in small."""

from __future__ import annotations

import json
from itertools import pairwise

from bench.routing import Row, measure
from bench.transcripts import sessions


def by_strategy(servers: int, clients: int) -> dict[str, Row]:
    return {strategy: measure(servers, clients, 5, strategy) for strategy in ("round robin", "least loaded", "affinity")}


def test_affinity_finds_prefixes_that_turns_in_rotation_do_not_and_nobody_waits_for_it() -> None:
    rows = by_strategy(4, 80)
    assert rows["affinity"].hits > rows["round robin"].hits + 0.3
    assert rows["affinity"].first[0] < rows["round robin"].first[0]
    assert rows["affinity"].wait[1] <= rows["least loaded"].wait[1] + 0.5
    assert rows["affinity"].most < 1.5


def test_sessions_are_the_same_each_time_and_only_grow() -> None:
    once, again = sessions(3, 4), sessions(3, 4)
    assert json.dumps(once) == json.dumps(again)
    for questions in once:
        for shorter, longer in pairwise(questions):
            assert longer[: len(shorter)] == shorter
            assert len(longer) > len(shorter)
    heads = {questions[0][0]["content"] for questions in once}
    assert len(heads) == 1
    assert len({json.dumps(questions[0]) for questions in once}) == 3
