"""The collector does not look at large questions, and they go without it."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import orjson
import pytest

from ds2d.core import json_pieces
from ds2d.core.untracked import untrack, untracked


def looked_at(value: Any) -> int:
    """How many of the lists and dicts in it the collector looks at."""
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return gc.is_tracked(value) + sum(map(looked_at, inside))


def tree() -> dict[str, Any]:
    return {"messages": [{"role": "assistant", "calls": [{"function": {"name": "f"}}]}, {"parts": [[], {}, ["a"]]}, "b"]}


def test_all_of_a_tree_is_left_out_and_stays_what_it_was() -> None:
    value = tree()
    assert looked_at(value) > 5
    untrack(value)
    assert looked_at(value) == 0
    assert value == tree()


def test_what_is_left_out_goes_with_its_last_reference() -> None:
    class Leaf:
        """Something that can be seen to go."""

    value: Any = [{"leaf": Leaf()}]
    here = weakref.ref(value[0]["leaf"])
    gc.disable()
    try:
        untrack(value)
        del value
        assert here() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("empty", [[], {}, set()])
def test_it_comes_back_itself(empty: Any) -> None:
    assert untracked(empty) is empty
    assert not gc.is_tracked(empty)


@pytest.mark.parametrize("step", [32, 64, 4096])
def test_nothing_that_is_read_in_steps_is_looked_at(step: int) -> None:
    value = {"a": [tree() for _ in range(40)], **{f"n{number}": {"b": [number]} for number in range(40)}, "c": [1, [2], "3"]}
    read = json_pieces.loads(orjson.dumps(value), 20, step)
    assert read == value
    assert looked_at(read) == 0
