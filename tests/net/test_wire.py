"""HTTP/1.1 answers are read the one way in which they can be meant, or not at all, wherever the network cuts them."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds2d.net.wire import MAX_HEAD, MAX_LINE, BadAnswerError, Chunked, Endless, Sized, read_head

OK = b"HTTP/1.1 200 OK\r\n"


def head(text: bytes):  # type: ignore[no-untyped-def]
    return read_head(text + b"\r\n", len(text) + 2)


def chunked(*pieces: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + end


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=6), st.lists(st.integers(0, 300), max_size=12))
def test_chunks_are_the_same_wherever_they_are_cut(pieces: list[bytes], cuts: list[int]) -> None:
    wire = chunked(*pieces)
    at = sorted({0, len(wire), *(cut for cut in cuts if cut < len(wire))})
    body = Chunked()
    said = b"".join(body.feed(wire[start:stop]) for start, stop in pairwise(at))
    assert (said, body.done, body.excess) == (b"".join(pieces), True, False)


def test_every_byte_by_itself() -> None:
    body = Chunked()
    wire = chunked(b"ab", b"c" * 20, end=b"0;x=y\r\nTrailer: 1\r\n\r\n")
    assert b"".join(body.feed(wire[at : at + 1]) for at in range(len(wire))) == b"ab" + b"c" * 20
    assert body.done


def test_a_part_of_a_chunk_is_handed_on_at_once() -> None:
    body = Chunked()
    assert body.feed(b"a\r\n01234") == b"01234"
    assert body.feed(b"56789") == b"56789"
    assert not body.done
    assert body.feed(b"\r\n0\r\n\r\n") == b""
    assert body.done


def test_what_comes_after_an_answer_is_noticed() -> None:
    for body, wire in ((Chunked(), chunked(b"ab") + b"HTTP"), (Sized(2), b"abHTTP")):
        assert body.feed(wire) == b"ab"  # type: ignore[attr-defined]
        assert body.done
        assert body.excess


@pytest.mark.parametrize(
    "wire",
    [
        b"ZZZ\r\nxx",
        b"-1\r\n",
        b"+1\r\na\r\n",
        b"0x1\r\na\r\n",
        b" 1\r\na\r\n",
        b"1_0\r\n",
        b"\r\n",
        b"1\r\nabc",
        b"1\r\na\n\n",
        b"f" * 17 + b"\r\n",
    ],
)
def test_chunks_that_are_none(wire: bytes) -> None:
    with pytest.raises(BadAnswerError):
        Chunked().feed(wire)


def test_lines_without_an_end_are_bounded() -> None:
    with pytest.raises(BadAnswerError):
        Chunked().feed(b"1;" + b"x" * MAX_LINE)
    body = Chunked()
    body.feed(b"0\r\n")
    for _ in range(MAX_HEAD // 1000 - 1):
        body.feed(b"x: " + b"y" * 993 + b"\r\n")
    with pytest.raises(BadAnswerError):
        body.feed(b"x: " + b"y" * 3000)


def test_a_length_says_where_an_answer_ends() -> None:
    body = Sized(4)
    assert (body.feed(b"ab"), body.done, body.feed(b"cd"), body.done, body.excess) == (b"ab", False, b"cd", True, False)


@pytest.mark.parametrize(
    ("fields", "kind", "keep"),
    [
        (b"Content-Length: 5\r\n", Sized, True),
        (b"Transfer-Encoding: Chunked\r\n", Chunked, True),
        (b"content-length: 5\r\nConnection: Close\r\n", Sized, False),
        (b"", Endless, False),
    ],
)
def test_framings(fields: bytes, kind: type, keep: bool) -> None:
    found = head(OK + fields)
    assert (type(found.body), found.keep) == (kind, keep)


def test_http_1_0_keeps_a_connection_only_if_it_says_so() -> None:
    assert not head(b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n").keep
    assert head(b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\nConnection: keep-alive\r\n").keep


def test_headers_have_lower_case_names_and_no_blanks_around_values() -> None:
    assert head(OK + b"X-A:  b c \t\r\nContent-Length: 0\r\n").headers == {"x-a": "b c", "content-length": "0"}


@pytest.mark.parametrize("status", [204, 304])
def test_answers_without_a_body(status: int) -> None:
    assert head(b"HTTP/1.1 %d X\r\nContent-Length: 9\r\n" % status).body.done


def test_interim_answers_are_passed_over() -> None:
    assert head(b"HTTP/1.1 100 Continue\r\n") is None


@pytest.mark.parametrize(
    "text",
    [
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/2.0 200 OK\r\n",
        b"HTTP/1.1 99 X\r\n",
        b"HTTP/1.1 101 Switching\r\n",
        OK + b"Content-Length: 1\r\nContent-Length: 2\r\n",
        OK + b"Content-Length: +1\r\n",
        OK + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
        OK + b"Transfer-Encoding: gzip, chunked\r\n",
        OK + b" folded: x\r\n",
        OK + b"no colon\r\n",
        OK + b"a b: c\r\n",
    ],
)
def test_heads_that_are_none(text: bytes) -> None:
    with pytest.raises(BadAnswerError):
        head(text)
