"""mapping.md 3: names that upstreams refuse go out short, and always the same."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds2d.core.names import upstream_name


@pytest.mark.parametrize("name", ["f", "Bash", "mcp__a-b__c_1", "x" * 64])
def test_names_that_upstreams_take_stay(name: str) -> None:
    assert upstream_name(name) == name


@given(st.text(min_size=1, max_size=200))
def test_any_name_becomes_one_that_upstreams_take(name: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,64}", upstream_name(name))
    assert upstream_name(name) == upstream_name(name)


@given(st.text(min_size=1, max_size=80), st.text(min_size=1, max_size=80))
def test_different_names_stay_different(one: str, other: str) -> None:
    assert (upstream_name(one) == upstream_name(other)) == (one == other)


@pytest.mark.parametrize(("one", "other"), [("x" * 70, "x" * 71), ("a.b", "a:b"), ("a b", "a_b")])
def test_names_that_differ_only_in_what_is_cut_or_replaced_stay_different(one: str, other: str) -> None:
    assert upstream_name(one) != upstream_name(other)


def test_the_short_name_is_fixed_because_histories_hold_it() -> None:
    assert upstream_name("mcp__" + "server__" * 10) == "mcp__server__server__server__server__server__server__se_a150e097"
