"""anthropic-messages.md 5: arguments of a call against the promise of an object; only a missing end is mended."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds2d.dialects.claude.arguments import is_beginning, missing_end, read_object

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.text(max_size=4), VALUES, max_size=4)


def written(value: dict[str, Any], *, wide: bool) -> str:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2 if wide else 0).decode()


@given(OBJECTS, st.booleans())
def test_an_object_lacks_nothing(value: dict[str, Any], wide: bool) -> None:
    text = written(value, wide=wide)
    assert (missing_end(text), read_object(text)) == ("", value)


@given(OBJECTS, st.booleans(), st.data())
def test_every_piece_from_the_start_of_an_object_is_a_beginning(value: dict[str, Any], wide: bool, data: st.DataObject) -> None:
    text = written(value, wide=wide)
    assert is_beginning(text[: data.draw(st.integers(0, len(text)))])


@given(OBJECTS, st.integers(1, 40))
def test_what_is_appended_makes_an_object_and_takes_nothing_back(value: dict[str, Any], cut: int) -> None:
    text = written(value, wide=False)[:cut]
    end = missing_end(text)
    if end is not None:
        assert read_object(text + end) is not None
        assert set(end) <= set('"]}{')


@pytest.mark.parametrize(
    "text", ["[", "[1]", '"a"', "1", "null", "x", "}", '{"a" 1}', '{"a":1}}', '{"a":1} x', "{a", '{"a":x', '{"a":1]', "{1"]
)
def test_what_no_object_begins_with(text: str) -> None:
    assert not is_beginning(text)
    assert missing_end(text) is None


def test_the_work_grows_with_the_text_and_not_with_its_square() -> None:
    """A megabyte of brackets and quotes, as a model in a loop writes it."""
    for piece in ("[", '"', '\\"', '{"a":'):
        is_beginning('{"a":' + piece * 300_000)
