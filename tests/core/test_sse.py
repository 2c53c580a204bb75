"""Cutting a stream into records: the same records wherever the network cuts the bytes."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.sse import BOM, Record, Splitter, Tapped, WholeBody

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


def test_the_limit_is_one_records_and_a_record_of_just_that_size_passes() -> None:
    splitter = Splitter(limit=20)
    for _ in range(10):
        assert splitter.feed(b"data: 12345678901234\n\n") == [Record(b"12345678901234")]
    assert splitter.feed(b"data: 1234567890") == []
    assert splitter.feed(b"1234\n\n") == [Record(b"12345678901234")]
    splitter.feed(b"data: 12345678901234")
    with pytest.raises(GatewayError):
        splitter.feed(b"5")
    whole = WholeBody(limit=10)
    whole.feed(b"x" * 10)
    assert whole.finish() == [Record(b"x" * 10)]


def test_the_mark_of_utf_8_is_dropped_at_the_very_beginning_only() -> None:
    assert split(BOM + b"data: a\n\n") == [Record(b"a")]
    assert split(b"data: a\n\n" + BOM + b"data: b\n\ndata: c\n\n") == [Record(b"a"), Record(b"c")]
    assert split(b"data: a\n\n", BOM + b"data: b\n\n", b"data: c\n\n") == [Record(b"a"), Record(b"c")]
    assert split(b"data: " + BOM + b"a\n\n") == [Record(BOM + b"a")]


def test_a_line_end_in_two_reads_is_one_line_end() -> None:
    assert split(b"data: a\r", b"\n", b"data: b\r", b"\n\r", b"\n") == [Record(b"a\nb")]
    assert split(b"data: a\r", b"\n", b"\n", b"data: b\n\n") == [Record(b"a"), Record(b"b")]
    assert split(b"data: a\r", b"", b"\ndata: b\n\n") == [Record(b"a\nb")]
    assert split(b"data: a\r", b"\r", b"data: b\n", b"\n") == [Record(b"a"), Record(b"b")]
    assert split(b"data: a\rx: y\n", b"\ndata: b\n\n") == [Record(b"a"), Record(b"b")]


def test_fields_are_read_as_the_standard_has_them() -> None:
    assert split(b"event:x\ndata:  a\nid: 1\ndata\n\n") == [Record(b" a\n", b"x")]
    assert split(b"event: x\n\ndata: a\n\n") == [Record(b"a")]
    assert split(b"data: a\nevent: x\n\n") == [Record(b"a", b"x")]
    assert split(b"data: [DONE]\n", b"more: x") == [Record(b"[DONE]")]


def test_nothing_is_left_over_for_a_second_end() -> None:
    splitter, whole = Splitter(), WholeBody(100)
    splitter.feed(b"data: [DONE]")
    assert (splitter.finish(), splitter.finish()) == ([Record(b"[DONE]")], [])
    whole.feed(b"{}")
    assert (whole.finish(), whole.finish()) == ([Record(b"{}")], [])


def test_who_listens_hears_every_read_as_it_came() -> None:
    heard: list[bytes] = []
    tapped = Tapped(Splitter(), heard.append)
    assert tapped.feed(b"data: a\r\n") == []
    assert tapped.feed(b"\r\ndata: [DONE]") == [Record(b"a")]
    assert tapped.finish() == [Record(b"[DONE]")]
    assert heard == [b"data: a\r\n", b"\r\ndata: [DONE]"]


ALONE = [
    b"data: a\n\n",
    b"data:a\n\n",
    b"data: \n\n",
    b"data: a\n\n\n",
    b"data: a\ndata: b\n\n",
    b"data: a\rdata: b\n\n",
    b"data: a\r\n\r\n",
    b"data: a\n\r\n",
    b"data: a\r\r",
    b"event: e\ndata: a\n\n",
    b"data: a\nevent: e\n\n",
    b": nothing\n\n",
    b"id: 1\n\n",
    b"\n",
    b"data: a\nd",
    b"data: a",
    b"data: \xe4\xbd\xa0\n",
    b"ata: b\n\n",
    b"xdata: c\n\n",
]
"""What one read may bring: usual records, those that only look like one, and parts of them."""


@pytest.mark.parametrize("second", ALONE)
def test_a_read_means_the_same_alone_and_among_others(second: bytes) -> None:
    """There is a shorter way for a record that comes alone, and only for that."""
    for first in ALONE:
        for third in ALONE:
            reads = [b"data: begin\n\n", first, second, third, b"\ndata: end\n\n"]
            together = split(b"".join(reads))
            assert split(*reads) == together, reads
            assert together[0] == Record(b"begin")
