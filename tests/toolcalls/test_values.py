"""Values between tags become JSON by what they are and by what the schema declares (toolcalls.md 1, last paragraph)."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from ds2d.toolcalls.values import as_json, elements, quoted, streams, unescaped

POINT = {"type": "object", "properties": {"x": {"type": "number"}, "y": {"type": "number"}}}


def value(text: str, schema: dict[str, Any] | None = None, *, literal: bool = False, **dsml: Any) -> Any:
    return orjson.loads(as_json(text, schema or {}, schema or {}, literal=literal, **dsml))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3", 3),
        (" -2.5e3 ", -2500.0),
        ("true", True),
        ("null", None),
        ('"quoted"', "quoted"),
        ('["a", 1]', ["a", 1]),
        ('{"a": {"b": null}}', {"a": {"b": None}}),
        ("plain words", "plain words"),
        (" kept as it is ", " kept as it is "),
        ("a &lt; b &amp;&amp; c", "a < b && c"),
        ("{not json}", "{not json}"),
        ("True", "True"),
        ("", ""),
        ("<item>a</item><item>2</item>", ["a", 2]),
        ("<a>1</a><b><c>x</c></b>", {"a": 1, "b": {"c": "x"}}),
        ("<a>1</a>\n  <a>2</a>", {"a": [1, 2]}),
        ("<a/>", {"a": ""}),
        ("<a><![CDATA[<x>]]></a>", {"a": "<x>"}),
        ("<a>1</a> and words", "<a>1</a> and words"),
        ("<a>1</b>", "<a>1</b>"),
        ("<a>x<b>1</b></a>", "<a>x<b>1</b></a>"),
        ("<a>", "<a>"),
    ],
)
def test_without_a_schema(text: str, expected: Any) -> None:
    assert value(text) == expected


@pytest.mark.parametrize(
    ("text", "schema", "expected"),
    [
        ("3", {"type": "string"}, "3"),
        ("null", {"type": "string"}, "null"),
        ("<a>1</a>", {"type": "string"}, "<a>1</a>"),
        ('"x"', {"type": "string"}, '"x"'),
        ('"3"', {"type": "integer"}, 3),
        ("3.0", {"type": "integer"}, 3),
        ("+4", {"type": "integer"}, 4),
        ("4", {"type": "number"}, 4),
        ("x4", {"type": "integer"}, "x4"),
        ("TRUE", {"type": "boolean"}, True),
        ("None", {"type": "null"}, None),
        ("None", {"type": ["string", "null"]}, None),
        ("word", {"type": ["string", "null"]}, "word"),
        ("5", {"type": ["string", "null"]}, "5"),
        ("[1]", {"type": "array"}, [1]),
        ('"[1]"', {"type": "array"}, [1]),
        ("<item>1</item>", {"type": "array", "items": {"type": "string"}}, ["1"]),
        ("<x>1</x><y>2.5</y>", POINT, {"x": 1, "y": 2.5}),
        ("5", {"anyOf": [{"type": "integer"}, {"type": "null"}]}, 5),
        ("red", {"enum": ["red", "blue"]}, "red"),
    ],
)
def test_coerced_to_what_is_declared(text: str, schema: dict[str, Any], expected: Any) -> None:
    assert value(text, schema) == expected


def test_literal_text_stays_text_unless_another_type_is_declared() -> None:
    assert value("5 &lt; 6", literal=True) == "5 &lt; 6"
    assert value("5", {"type": "integer"}, literal=True) == 5
    assert value("five", {"type": "integer"}, literal=True) == "five"


def test_json_of_dsml_is_not_unescaped() -> None:
    assert value('["a &amp; b"]', string="false", dsml=True) == ["a &amp; b"]
    assert value('["a &amp; b"]', dsml=True) == ["a &amp; b"]
    assert value('["a &amp; b"]') == ["a & b"]
    assert value("a &amp; b", string="false", dsml=True) == "a &amp; b"
    assert value("a &amp; b", dsml=True) == "a & b"


def test_json_first_takes_the_string_out_of_its_quotes() -> None:
    assert value('"Paris"', {"type": "string"}, string="false", dsml=True) == "Paris"
    assert value("2024", {"type": "string"}, string="false", dsml=True) == "2024"


def test_a_literal_keeps_its_digits() -> None:
    assert as_json("12345678901234567890.123456789", {}, {}, literal=False) == "12345678901234567890.123456789"


def test_only_xmls_own_entities_are_unescaped() -> None:
    assert unescaped("&lt;&gt;&amp;&quot;&apos;&#65;&#x1F600;") == "<>&\"'A😀"
    assert unescaped("a=1&copy=2&lt &#xD800; &nbsp;") == "a=1&copy=2&lt &#xD800; &nbsp;"


@pytest.mark.parametrize(
    ("schema", "string", "dsml", "expected"),
    [
        ({"type": "string"}, None, False, True),
        ({"type": "string"}, "true", True, True),
        ({"type": "string"}, "false", True, False),
        ({"type": "string"}, None, True, False),
        ({}, "true", True, True),
        ({}, None, False, False),
        ({"type": "integer"}, "true", True, False),
        ({"type": ["string", "null"]}, None, False, False),
    ],
)
def test_which_values_can_go_out_before_they_are_whole(
    schema: dict[str, Any], string: str | None, dsml: bool, expected: bool
) -> None:
    assert streams(schema, schema, string, dsml=dsml) is expected


def test_elements_are_bounded_in_depth_and_linear() -> None:
    assert elements("<a>" * 100 + "</a>" * 100) is None
    assert elements("<a>" + "< " * 50_000 + "</a>") is not None
    assert elements("<![CDATA[" * 50_000) is None


def test_half_a_character_does_not_stop_anything() -> None:
    assert quoted("\ud83d") == '"?"'
