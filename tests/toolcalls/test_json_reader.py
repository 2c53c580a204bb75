"""Arguments go out verbatim, and are mended only at the point of fault (toolcalls.md 3)."""

from __future__ import annotations

import json

import orjson
import pytest

from ds2d.toolcalls import notes
from ds2d.toolcalls.json_reader import MAX_DEPTH, MAX_HELD, JsonReader
from ds2d.toolcalls.json_text import Balance, StringReader

SCHEMA = {
    "properties": {
        "todos": {"type": "array", "items": {"type": "object"}},
        "tags": {"type": "array", "items": {"type": "string"}},
        "either": {"type": ["array", "string"]},
    }
}


def read(text: str, size: int = 0, schema: dict[str, object] | None = None) -> tuple[str, JsonReader]:
    """What goes out for a text in pieces of this size (0: whole), without an end of text."""
    reader = JsonReader(schema or SCHEMA)
    out = ""
    for at in range(0, len(text), size or len(text) or 1):
        if reader.over():
            break
        out += reader.feed(text[at : at + (size or len(text))])
    return out, reader


@pytest.mark.parametrize("size", [0, 1, 3])
@pytest.mark.parametrize(
    "text",
    [
        "{}",
        '{ "a" : 1 , "b" : [ ] }',
        '{"a":{"b":[1,-2.5e+10,0,true,false,null,"x"]}}',
        '{"quote":"\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\\ud83d\\ude00"}',
        '{"emoji":"😀 你好","":""}',
        '{\n  "pretty": [\n    1,\n    2\n  ]\n}',
        '{"todos":{"content":"alone"},"tags":"alone"}',
        '{"tags":null,"todos":[{"a":1},{"b":2}]}',
        '{"either":"a","x":1}',
    ],
)
def test_what_parses_goes_out_as_it_came(text: str, size: int) -> None:
    out, reader = read(text, size)
    assert out == text
    assert reader.done
    assert not reader.repairs
    json.loads(out)


@pytest.mark.parametrize("size", [0, 1, 4])
@pytest.mark.parametrize(
    ("text", "mended", "note"),
    [
        (r'{"path":"C:\dir\new\x"}', r'{"path":"C:\\dir\new\\x"}', notes.BACKSLASH),
        (r'{"a":"\u12 \uzzzz"}', r'{"a":"\\u12 \\uzzzz"}', notes.BACKSLASH),
        ('{a: 1, b_c : "x", $d:2, e-f:3}', '{"a": 1, "b_c" : "x", "$d":2, "e-f":3}', notes.BARE_KEY),
        ('{"a":[1,2,],}', '{"a":[1,2]}', notes.COMMA),
        ('{"a": 1 , }', '{"a": 1  }', notes.COMMA),
        (r'{"a":"\ud83d"}', r'{"a":"\ufffd"}', notes.SURROGATE),
        (r'{"a":"\ud83d\ud83d\ude00\ude00 \uDBFFx"}', r'{"a":"\ufffd\ud83d\ude00\ufffd \ufffdx"}', notes.SURROGATE),
        (r'{"\udc00":"\ud83d\n"}', r'{"\ufffd":"\ufffd\n"}', notes.SURROGATE),
        ('{"a":"x\ny\t\x01"}', '{"a":"x\\ny\\t\\u0001"}', notes.CONTROL),
        ('{"todos":{"a":1},{"b":2}}', '{"todos":[{"a":1},{"b":2}]}', notes.LIST),
        ('{"todos":{"a":1}, {"b":2}, "n": 3}', '{"todos":[{"a":1}, {"b":2}], "n": 3}', notes.LIST),
        ('{"tags":"a", "b","c"}', '{"tags":["a", "b","c"]}', notes.LIST),
        ('{"tags":1,2,"n":3}', '{"tags":[1,2],"n":3}', notes.LIST),
        ('{"tags":"a","b"]}', '{"tags":["a","b"]}', notes.LIST),
        ('{"tags":"a",}', '{"tags":"a"}', notes.COMMA),
    ],
)
def test_faults_are_mended_where_they_are(text: str, mended: str, note: str, size: int) -> None:
    out, reader = read(text, size)
    assert out == mended
    assert list(reader.repairs) == [note]
    json.loads(out)


@pytest.mark.parametrize(
    "text",
    [
        "{'a': 1}",
        '{"a": Paris}',
        '{"a": True}',
        '{"a" 1}',
        '{"a": 1 "b": 2}',
        '{"a": [1}',
        '{"a": 01}',
        '{"a": +1}',
        '{"a": NaN}',
        '{"a": 1e9999}',
        '{"a": [-1E+400]}',
        '{"a": ' + "1" * 400 + "}",
        '{"a": 1.}',
        '{"a":: 1}',
        "[1]",
        "1",
        '"x"',
        '{"k": ' * (MAX_DEPTH + 1),
        '{"a": ' + "1" * 2000 + "}",
        "{" + "k" * 2000 + ": 1}",
    ],
)
def test_other_faults_are_not_mended_and_nothing_is_lost(text: str) -> None:
    out, reader = read(text)
    assert reader.fault
    assert out + reader.rest == text
    assert reader.finish() is None


@pytest.mark.parametrize(
    ("text", "closed"),
    [
        ('{"a":1', '{"a":1}'),
        ('{"a":{"b":[1,{"c":2', '{"a":{"b":[1,{"c":2}]}}'),
        ('{"a":"x"', '{"a":"x"}'),
        ('{"a":true', '{"a":true}'),
        ('{"a":[', '{"a":[]}'),
        ("{", "{}"),
        ('{"a":[1', '{"a":[1]}'),
        ('{"todos":{"a":1},{"b":2}', '{"todos":[{"a":1},{"b":2}]}'),
        ('{"todos":{"a":1}', '{"todos":{"a":1}}'),
    ],
)
@pytest.mark.parametrize("size", [0, 1])
def test_missing_closers_are_added_at_the_end(text: str, closed: str, size: int) -> None:
    out, reader = read(text, size)
    closers = reader.finish()
    assert closers is not None
    assert out + closers == closed
    assert notes.CLOSERS in reader.repairs


@pytest.mark.parametrize("text", ['{"a":"x', '{"a":1,', '{"a":', '{"a":tru', '{"a":-', '{"a', '{"a":"x\\', '{"a":1e', ""])
def test_more_than_closers_is_not_added(text: str) -> None:
    """A string or a number that stops in the middle may have been going on: the call would be another one."""
    out, reader = read(text)
    assert reader.finish() is None
    assert out + reader.unsent() == text


def test_what_comes_behind_is_given_back() -> None:
    out, reader = read('{"a":1}} and text')
    assert (out, reader.rest) == ('{"a":1}', "} and text")


def test_a_lone_value_where_a_list_is_declared_is_held_only_so_long() -> None:
    reader = JsonReader(SCHEMA)
    long = '{"tags":"' + "x" * (MAX_HELD + 10)
    assert len(reader.feed(long)) > MAX_HELD


def test_line_feeds_are_a_fault_where_a_fence_may_end() -> None:
    reader = JsonReader(mend_lines=False)
    reader.feed('{"a":"x\n```')
    assert reader.fault


def test_any_root() -> None:
    reader = JsonReader(root="{[")
    assert reader.feed('[1,{"a":2}] x') == '[1,{"a":2}]'
    assert reader.done


@pytest.mark.parametrize("size", [0, 1, 2])
@pytest.mark.parametrize("text", ["", "plain", 'q"\\/\b\f\n\r\t', "é 你 😀", '{"a": "\\n"}', "\ud83d"[:0] + "x"])
def test_the_text_of_a_string(text: str, size: int) -> None:
    for ascii_only in (True, False):
        raw = json.dumps(text, ensure_ascii=ascii_only)[1:] + "behind"
        reader = StringReader()
        out, at = "", 0
        while not reader.done:
            out += reader.feed(raw[at : at + (size or len(raw))])
            at += size or len(raw)
        assert out == text
        assert reader.rest + raw[at:] == "behind"


def test_half_a_character_becomes_the_replacement_character() -> None:
    reader = StringReader()
    assert reader.feed('\\ud83d x \\ude00 \\ud83dz"') == "\ufffd x \ufffd \ufffdz"


def test_unknown_escapes_stay_for_the_reader_inside() -> None:
    assert StringReader().feed('C:\\dir \\u12"') == "C:\\dir \\u12"


@pytest.mark.parametrize("size", [1, 2, 99])
def test_where_broken_brackets_close(size: int) -> None:
    text = 'Paris, "x": "}\\"}" [1] } rest'
    balance = Balance(1)
    at = 0
    while (found := balance.feed(text[at : at + size])) is None:
        at += size
    assert text[at + found :] == " rest"


def test_a_long_argument_costs_no_more_per_piece_at_its_end() -> None:
    """Nothing is joined or looked at twice: pieces are handed on, not kept."""
    reader = JsonReader()
    reader.feed('{"a":"')
    for _ in range(10_000):
        assert reader.feed("x" * 10) == "x" * 10
    assert orjson.loads('{"a":"' + reader.feed('"}')) == {"a": ""}
