"""Each recorded upstream answer is these bytes to the clients of every dialect, and means the same however it was cut."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ds2d.dialects import REGISTRY
from tests.golden.clients import answer, asks, expected_files, normalised
from tests.golden.streams import Case, all_cases

CASES = all_cases()
FILES = [(case, *file) for case in CASES for file in expected_files(case)]
PAIRS = [(case, dialect) for case in CASES for dialect in REGISTRY if asks(dialect, case) and case.raw]


@pytest.mark.parametrize(("case", "name", "dialect", "stream"), FILES, ids=[f"{file[0]}-{file[1]}" for file in FILES])
def test_a_recorded_answer_is_these_bytes_to_the_client(case: Case, name: str, dialect: str, stream: bool) -> None:
    assert answer(dialect, case, stream=stream).decode() == (case.folder / name).read_text()


@pytest.mark.parametrize(("case", "dialect"), PAIRS, ids=[f"{case}-{dialect}" for case, dialect in PAIRS])
def test_it_is_the_same_to_the_client_byte_by_byte(case: Case, dialect: str) -> None:
    whole = normalised(answer(dialect, case, stream=True))
    assert normalised(answer(dialect, case, stream=True, cuts=range(len(case.raw)))) == whole
    assert answer(dialect, case, stream=False, cuts=range(len(case.raw))) == answer(dialect, case, stream=False)


@pytest.mark.parametrize(("case", "dialect"), PAIRS, ids=[f"{case}-{dialect}" for case, dialect in PAIRS])
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_it_is_the_same_to_the_client_cut_anywhere(case: Case, dialect: str, data: st.DataObject) -> None:
    cuts = data.draw(st.lists(st.integers(0, len(case.raw)), max_size=12))
    assert normalised(answer(dialect, case, stream=True, cuts=cuts)) == normalised(answer(dialect, case, stream=True))


@pytest.mark.parametrize("case", CASES, ids=repr)
def test_no_expected_file_has_lost_its_question(case: Case) -> None:
    assert {path.name for path in case.folder.glob("client.*")} == {name for name, _, _ in expected_files(case)}
