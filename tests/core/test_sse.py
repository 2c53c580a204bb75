"""Cutting a stream into records: the same records wherever the network cuts the bytes."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.sse import Record, Splitter, WholeBody

STREAM = (
    b"\xef\xbb\xbfevent: a\r\ndata: "
    + '{"x":"你好"}'.encode()
    + b"\r\n\r\n: comment\n\n\n\ndata: one\ndata: two\n\n:\n\ndata:three\r\r\ndata: [DONE]\n\n"
)
RECORDS = [Record('{"x":"你好"}'.encode(), b"a"), Record(b"one\ntwo"), Record(b"three"), Record(b"[DONE]")]


def split(*chunks: bytes) -> list[Record]:
    splitter = Splitter()
    return [record for chunk in chunks for record in splitter.feed(chunk)] + splitter.finish()


@given(st.lists(st.integers(0, len(STREAM))))
def test_a_stream_means_the_same_however_it_is_cut(cuts: list[int]) -> None:
    at = [0, *sorted(cuts), len(STREAM)]
    assert split(*(STREAM[a:b] for a, b in pairwise(at))) == RECORDS


def test_a_stream_means_the_same_byte_by_byte() -> None:
    assert split(*(STREAM[at : at + 1] for at in range(len(STREAM)))) == RECORDS


def test_an_unfinished_record_is_dropped_at_the_end_unless_it_is_the_end_mark() -> None:
    assert split(b"data: one\n\ndata: two") == [Record(b"one")]
    assert split(b"data: one\n\ndata: [DONE]") == [Record(b"one"), Record(b"[DONE]")]


def test_an_endless_line_is_given_up_at_the_limit() -> None:
    splitter = Splitter(limit=1000)
    for _ in range(100):
        splitter.feed(b"data: abcd")
    with pytest.raises(GatewayError) as caught:
        splitter.feed(b"data: abcd")
    assert caught.value.kind is ErrorKind.UPSTREAM_GARBLED


@given(st.binary(max_size=400))
def test_any_bytes_give_records_or_nothing(noise: bytes) -> None:
    assert all(isinstance(record.data, bytes) for record in split(noise))


def test_one_body_is_one_record_without_the_blank_lines_before_it() -> None:
    whole = WholeBody(limit=100)
    assert whole.feed(b"\n\n  \n") == whole.feed(b'{"a"') == whole.feed(b":1}\n") == []
    assert whole.finish() == [Record(b'{"a":1}')]


def test_an_empty_body_is_no_record_and_a_long_one_is_refused() -> None:
    assert WholeBody(limit=10).finish() == []
    with pytest.raises(GatewayError):
        WholeBody(limit=10).feed(b"x" * 11)
