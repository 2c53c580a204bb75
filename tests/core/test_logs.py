"""A line of the log: one line whatever is in it, the request's id on it, and no more of them than the disk can bear."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds2d.core.logs import FORMATS, MAX_CLIENT_TEXT, Event, Sparing, client_text, request_id


def line(form: str, message: Any, *args: Any, journald: bool = False, **more: Any) -> str:
    record = logging.LogRecord("ds2d.x", logging.WARNING, __file__, 1, message, args, more.get("exc_info"))
    record.created = 1763640000.25
    return FORMATS[form](journald).format(record)


@given(st.text())
def test_any_text_is_one_printable_line(text: str) -> None:
    for message in (text, Event("request", {"path": text})):
        written = line("text", message if isinstance(message, Event) else "%s", *(() if isinstance(message, Event) else (text,)))
        assert len(written.splitlines()) == 1
        assert "\x1b" not in written
        assert "\x07" not in written
    raw = line("json", Event("request", {"path": text}))
    assert len(raw.split("\n")) == 1
    assert json.loads(raw)["path"] == text


def test_text_and_json_say_the_same() -> None:
    fields = {"method": "GET", "status": 200, "ms": 1.25, "key": None, "used": "a b"}
    time = "2025-11-20T12:00:00.250Z"
    text = line("text", Event("request", fields))
    assert text == f"{time} WARNING ds2d.x request method=GET status=200 ms=1.2 key=- used=a_b"
    head = {"time": time, "level": "warning", "logger": "ds2d.x", "message": "request"}
    assert json.loads(line("json", Event("request", fields))) == head | fields


def test_under_journald_without_a_time_of_our_own() -> None:
    assert line("text", "hello", journald=True) == "<4>WARNING ds2d.x hello"
    assert "time" not in json.loads(line("json", "hello", journald=True))


@pytest.mark.parametrize("form", FORMATS)
def test_the_request_is_named_where_there_is_one_and_once(form: str) -> None:
    assert "req_1" not in line(form, "hello")
    token = request_id.set("req_1")
    try:
        assert line(form, "hello").count("req_1") == 1
        assert line(form, Event("request", {"request_id": "req_1"})).count("req_1") == 1
        assert line(form, Event("request", {"path": "/request_id=x"})).count("req_1") == 1
    finally:
        request_id.reset(token)


@pytest.mark.parametrize("form", FORMATS)
def test_a_traceback_is_part_of_its_line(form: str) -> None:
    try:
        raise ValueError("in here")
    except ValueError:
        written = line(form, "bug", exc_info=sys.exc_info())
    assert "in here" in written
    assert "Traceback" in written
    assert len(written.splitlines()) == 1


@given(st.text(st.characters()))
def test_a_clients_words_are_cut_and_have_no_blanks(text: str) -> None:
    shown = client_text(text)
    assert len(shown) <= MAX_CLIENT_TEXT
    assert shown.isascii()
    assert shown.isprintable()
    assert " " not in shown


def test_lines_of_strangers_are_spared_and_counted() -> None:
    now = 0.0
    sparing = Sparing(lambda: now, burst=3, per_second=1)
    assert [sparing.admit() for _ in range(5)] == [0, 0, 0, None, None]
    now = 1.0
    assert [sparing.admit() for _ in range(2)] == [2, None]
    now = 100.0
    assert [sparing.admit() for _ in range(4)] == [1, 0, 0, None]
