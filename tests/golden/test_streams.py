"""Each recorded stream means its events, however its bytes are cut (architecture.md, event rules)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.golden.streams import Case, all_cases, as_lines

CASES = all_cases()
SPLIT_CASES = [case for case in CASES if case.raw]


@pytest.mark.parametrize("case", CASES, ids=repr)
def test_a_recorded_answer_means_its_events(case: Case) -> None:
    assert as_lines(case.decode()) == case.expected


@pytest.mark.parametrize("case", CASES, ids=repr)
def test_it_means_the_same_byte_by_byte(case: Case) -> None:
    assert as_lines(case.decode(range(len(case.raw)))) == case.expected


@pytest.mark.parametrize("case", SPLIT_CASES, ids=repr)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_it_means_the_same_cut_anywhere(case: Case, data: st.DataObject) -> None:
    cuts = data.draw(st.lists(st.integers(0, len(case.raw)), max_size=12))
    assert as_lines(case.decode(cuts)) == case.expected
