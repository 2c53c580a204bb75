"""Counts are checked before they are believed (mapping.md 8, reliability.md)."""

from __future__ import annotations

from typing import Any

import pytest

from ds2d.core.events import Usage
from ds2d.upstreams.openai.usage import read_usage, sum_usage

BASE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}


@pytest.mark.parametrize(
    ("reported", "usage"),
    [
        (BASE, Usage(10, 5)),
        ({**BASE, "total_tokens": 99}, Usage(10, 5)),
        ({"prompt_tokens": 10, "total_tokens": 15}, Usage(10, 5)),
        ({"completion_tokens": 5, "total_tokens": 15}, Usage(10, 5)),
        ({"prompt_tokens": 10.0, "completion_tokens": 5}, Usage(10, 5)),
        ({**BASE, "prompt_tokens_details": {"cached_tokens": 4}}, Usage(10, 5, cached=4)),
        ({**BASE, "prompt_cache_hit_tokens": 4, "prompt_cache_miss_tokens": 6}, Usage(10, 5, cached=4)),
        ({**BASE, "prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 2}}, Usage(10, 5, cached=4, cache_write=2)),
        ({**BASE, "completion_tokens_details": {"reasoning_tokens": 3}}, Usage(10, 5, reasoning=3)),
        ({**BASE, "reasoning_tokens": 3}, Usage(10, 5, reasoning=3)),
        ({**BASE, "reasoning_tokens": 6}, Usage(10, 5)),
        ({**BASE, "prompt_tokens_details": {"cached_tokens": 11}}, Usage(10, 5)),
        ({**BASE, "prompt_tokens_details": None, "completion_tokens_details": "x"}, Usage(10, 5)),
    ],
)
def test_what_is_believed(reported: dict[str, Any], usage: Usage) -> None:
    assert read_usage(reported) == usage


@pytest.mark.parametrize(
    "reported",
    [
        None,
        [],
        {},
        {"prompt_tokens": 0, "completion_tokens": 0},
        {"prompt_tokens": -1, "completion_tokens": 5},
        {"prompt_tokens": "10", "completion_tokens": "5"},
        {"prompt_tokens": True, "completion_tokens": True},
        {"prompt_tokens": 1.5, "completion_tokens": 5},
        {"prompt_tokens": 10**12, "completion_tokens": 5},
        {"prompt_tokens": 10, "total_tokens": 5},
    ],
)
def test_what_is_not(reported: Any) -> None:
    assert read_usage(reported) is None


def test_a_prompt_counts_once_whatever_was_made_of_it() -> None:
    of_choices = {0: Usage(10, 1, cached=4), 1: Usage(10, 2, cached=4), 2: Usage(20, 3, reasoning=1), 3: Usage(20, 4)}
    assert sum_usage(of_choices, choices_per_prompt=2) == Usage(30, 10, reasoning=1, cached=4)
