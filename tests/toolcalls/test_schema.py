"""As much of JSON Schema as repairs need; what is not understood counts as satisfied."""

from __future__ import annotations

from typing import Any

import pytest

from ds2d.toolcalls.schema import property_of, satisfies, types_of

CITY = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}, "required": ["city"]}


@pytest.mark.parametrize(
    ("value", "schema"),
    [
        ({"city": "Paris", "days": 3}, CITY),
        ({"city": "Paris", "more": [1]}, CITY),
        ({"days": 3.0, "city": ""}, CITY),
        ([1, 2], {"type": "array", "items": {"type": "number"}}),
        (None, {"type": ["string", "null"]}),
        ("a", {"enum": ["a", "b"]}),
        ("a", {"anyOf": [{"type": "integer"}, {"type": "string"}]}),
        (
            {"a": {"b": 1}},
            {"properties": {"a": {"$ref": "#/$defs/x"}}, "$defs": {"x": {"properties": {"b": {"type": "integer"}}}}},
        ),
        (1, {"patternProperties": 7, "type": "unheard of"}),
        ({"x": 1}, {"allOf": [{"required": ["x"]}, {"properties": {"x": {"const": 1}}}]}),
        (True, {}),
    ],
)
def test_fits(value: Any, schema: dict[str, Any]) -> None:
    assert satisfies(value, schema)


@pytest.mark.parametrize(
    ("value", "schema"),
    [
        ({"days": 3}, CITY),
        ({"city": 3}, CITY),
        ({"city": "Paris", "days": "3"}, CITY),
        ({"city": "Paris", "days": 2.5}, CITY),
        ({"city": "Paris", "x": 1}, {**CITY, "additionalProperties": False}),
        ([1, "2"], {"type": "array", "items": {"type": "number"}}),
        (True, {"type": "integer"}),
        ("c", {"enum": ["a", "b"]}),
        (1.5, {"anyOf": [{"type": "integer"}, {"type": "string"}]}),
        (
            {"a": {"b": "1"}},
            {"properties": {"a": {"$ref": "#/$defs/x"}}, "$defs": {"x": {"properties": {"b": {"type": "integer"}}}}},
        ),
        ({"x": 2}, {"allOf": [{"required": ["x"]}, {"properties": {"x": {"const": 1}}}]}),
    ],
)
def test_does_not_fit(value: Any, schema: dict[str, Any]) -> None:
    assert not satisfies(value, schema)


def test_a_schema_that_refers_to_itself_is_bounded() -> None:
    schema: dict[str, Any] = {"anyOf": [{"$ref": "#"}, {"$ref": "#"}, {"type": "integer"}]}
    assert satisfies("x", schema) in (True, False)
    assert types_of(schema, schema) == frozenset()
    loop: dict[str, Any] = {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}
    assert satisfies(1, loop)
    assert property_of(loop, "x", loop) == {}
