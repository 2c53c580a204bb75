"""Refusals name the field, in words that a person can read, and never quote more than a little of what was sent."""

from __future__ import annotations

import base64
from typing import Annotated, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds2d.core import validate
from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.validate import check_image_url, convert, decode_base64, is_base64, split_data_url


class Inner(msgspec.Struct):
    word: Literal["a", "b"] | None = None
    names: dict[str, int] | None = None


class View(msgspec.Struct):
    model: Annotated[str, msgspec.Meta(min_length=1)]
    n: Annotated[int, msgspec.Meta(ge=1)] | None = None
    inner: list[Inner] | None = None


@pytest.mark.parametrize(
    ("body", "at", "param", "message"),
    [
        ({}, "", "model", "model: required field is missing."),
        ({"model": 1}, "", "model", "model: expected string, got integer."),
        ({"model": "m", "n": True}, "", "n", "n: expected integer or null, got boolean."),
        ({"model": "m", "n": 0}, "", "n", "n: expected integer >= 1."),
        ({"model": "m", "inner": [{}, 5]}, "", "inner[1]", "inner[1]: expected object, got integer."),
        ({"model": "m", "inner": [{"word": "c"}]}, "", "inner[0].word", "inner[0].word: invalid enum value 'c'."),
        ({"model": "m", "inner": [{"names": {"k": "v"}}]}, "", "inner[0].names", "inner[0].names: expected integer, got string."),
        ({"n": 1}, "tools[2]", "tools[2].model", "tools[2].model: required field is missing."),
        ({"model": 1}, "tools[2]", "tools[2].model", "tools[2].model: expected string, got integer."),
        ([], "tools[2]", "tools[2]", "tools[2]: expected object, got array."),
        ([], "", None, "body: expected object, got array."),
    ],
)
def test_a_refusal_names_the_field(body: object, at: str, param: str | None, message: str) -> None:
    with pytest.raises(GatewayError) as caught:
        convert(body, View, at)
    assert (caught.value.kind, caught.value.param, caught.value.message) == (ErrorKind.INVALID_REQUEST, param, message)


@given(st.text(max_size=20) | st.just("x" * 5000) | st.just("' - at `$.elsewhere`"))
def test_what_a_client_sent_is_quoted_shortly_and_never_taken_for_a_path(word: str) -> None:
    if word in ("a", "b"):
        return
    with pytest.raises(GatewayError) as caught:
        convert({"model": "m", "inner": [{"word": word}]}, View)
    assert caught.value.param == "inner[0].word"
    assert len(caught.value.message) < 300


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("data:image/PNG;base64,AAAA", ("image/png", "AAAA")),
        ("DATA:text/plain;charset=utf-8;BASE64,AAAA", ("text/plain", "AAAA")),
        ("data:;base64,AAAA", ("", "AAAA")),
        ("data:image/png,AAAA", None),
        ("data:image/png;base64", None),
        ("https://example.com/data:x;base64,AAAA", None),
    ],
)
def test_a_data_url_comes_apart(url: str, parts: tuple[str, str] | None) -> None:
    assert split_data_url(url) == parts


@pytest.mark.parametrize(
    ("text", "data"), [("AAAA", b"\0\0\0"), ("", b""), ("AA==", b"\0"), ("AA", None), ("A A=", None), ("-_-_", None), ("é", None)]
)
def test_base64_is_the_standard_one_with_padding(text: str, data: bytes | None) -> None:
    assert decode_base64(text) == data


@pytest.mark.parametrize("url", ["http://a/x.png", "https://a", "HTTPS://a/x"])
def test_a_remote_image_is_not_looked_at(url: str) -> None:
    check_image_url(url, "image")


@pytest.mark.parametrize("url", ["", "x", "http://", "https:///x", "javascript:alert(1)", "file:///x", " https://a"])
def test_an_image_is_at_a_web_address_or_inline(url: str) -> None:
    with pytest.raises(GatewayError) as caught:
        check_image_url(url, "image")
    assert (caught.value.kind, caught.value.param) == (ErrorKind.INVALID_REQUEST, "image")


@given(st.binary(max_size=40), st.text(st.sampled_from("AQ=/+ \n-é"), max_size=6), st.integers(0, 60), st.integers(0, 3))
def test_base64_is_judged_alike_in_steps(data: bytes, slip: str, at: int, start: int) -> None:
    coded = base64.b64encode(data).decode()
    text = "x" * start + coded[:at] + slip + coded[at:]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(validate, "BASE64_STEP", 8)
        assert is_base64(text, start) == bool(decode_base64(text[start:]))
