"""JSON as config.json must be, and JSON as it is written back."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds2d.config.notices import ConfigErrors
from ds2d.config.strict_json import MAX_DEPTH, dump, load


def refusal(raw: bytes) -> ConfigErrors:
    with pytest.raises(ConfigErrors) as found:
        load(raw)
    return found.value


def test_a_key_that_stands_twice_is_an_error_with_its_place() -> None:
    found = refusal(b'{"a": 1, "b": [{"c": 1, "c": 2, "d": {"e": 0, "e": 0}}], "a": 3}')
    assert {(error.path, error.message) for error in found.errors} == {
        ("a", "stands here more than once"),
        ("b[0].c", "stands here more than once"),
        ("b[0].d.e", "stands here more than once"),
    }
    assert not found.incomplete


@pytest.mark.parametrize("raw", [b"", b" ", b"{", b'{"a"', b'{"a": 1,}', b"{} {}", b"nul", b'{"a": "\xe4\xbd'])
def test_what_may_be_half_of_a_file_is_told_apart(raw: bytes) -> None:
    assert refusal(raw).incomplete


@pytest.mark.parametrize(
    "raw",
    [b"[]", b"1", b'"x"', b"null", b'{"a": NaN}', b'{"a": -Infinity}', b'{"a": 1e999}', b'{"a": ' + b"1" * 5000 + b"}",
     b'{"a": "\\ud800"}', b'{"\\udfff": 1}', b'{"a":' * 100000, b'{"a":' + b"[" * MAX_DEPTH + b"]" * MAX_DEPTH + b"}"],
)  # fmt: skip
def test_what_no_json_reader_agrees_on_is_refused(raw: bytes) -> None:
    assert refusal(raw).errors


def test_a_syntax_error_has_its_line() -> None:
    assert str(refusal(b'{\n  "a": 1\n  "b": 2\n}').errors[0]) == "not JSON: expecting ',' delimiter, line 3 column 3"


def test_a_byte_order_mark_is_passed_over() -> None:
    assert load(b'\xef\xbb\xbf{"a": 1}') == {"a": 1}


@pytest.mark.parametrize("indent", [2, 4, "\t", 3])
def test_what_is_written_keeps_order_text_and_indentation(indent: int | str) -> None:
    raw = (
        json.dumps({"z": "你好", "_note": {"b": 1, "a": [1, 2.5, None]}, "a": 1e3}, ensure_ascii=False, indent=indent) + "\n"
    ).encode()
    assert dump(load(raw), like=raw) == raw


LEAVES = st.text(max_size=5) | st.integers() | st.booleans() | st.none()


@given(
    st.dictionaries(
        st.text(max_size=5), st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3), max_leaves=5), max_size=3
    )
)
def test_what_is_written_reads_the_same(document: dict[str, object]) -> None:
    assert load(dump(document)) == document
