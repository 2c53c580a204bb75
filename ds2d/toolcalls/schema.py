"""As much of JSON Schema as calls need: which types a value may have, and whether a repaired value fits.

Rule: what this does not understand counts as satisfied; a schema is a client's, and refusing for our own ignorance would
lose a call. Surprise: schemas come from clients and may refer to themselves, so every walk is bounded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MAX_DEPTH = 32
"""Levels that are looked at; below them everything fits."""

MAX_STEPS = 20_000
"""Comparisons that are made; a schema that refers to itself in unions would double them at each level."""

_UNION_DEPTH = 2
_UNION_WIDTH = 64

Schema = Mapping[str, Any]

_TYPES = frozenset({"string", "number", "integer", "boolean", "array", "object", "null"})


def properties_of(schema: Schema) -> Mapping[str, Any]:
    """Declared properties; {} if there are none."""
    found = schema.get("properties")
    return found if isinstance(found, dict) else {}


def required_of(schema: Schema) -> list[str]:
    """Names that must be there."""
    found = schema.get("required")
    return [name for name in found if isinstance(name, str)] if isinstance(found, list) else []


def property_of(schema: Schema, name: str, root: Schema) -> Schema:
    """The schema of one property, references followed; {} if it is not declared."""
    found = properties_of(resolved(schema, root)).get(name)
    return resolved(found, root) if isinstance(found, dict) else {}


def items_of(schema: Schema, root: Schema) -> Schema:
    """The schema of a list's members; {} if it does not say."""
    found = schema.get("items")
    return resolved(found, root) if isinstance(found, dict) else {}


def resolved(schema: Schema, root: Schema) -> Schema:
    """The schema behind a local `$ref`; the schema itself if it has none, {} if the reference leads nowhere."""
    for _ in range(MAX_DEPTH):
        reference = schema.get("$ref")
        if not isinstance(reference, str):
            return schema
        target: Any = root
        for step in reference.removeprefix("#/").split("/"):
            target = target.get(step) if isinstance(target, dict) else None
        if not isinstance(target, dict):
            return {}
        schema = target
    return {}


def types_of(schema: Schema, root: Schema, depth: int = 0) -> frozenset[str]:
    """The JSON types a value may have; empty where the schema does not say (or hides it too deep)."""
    schema = resolved(schema, root)
    declared = schema.get("type")
    if isinstance(declared, str):
        return frozenset({declared}) & _TYPES
    if isinstance(declared, list):
        return frozenset(name for name in declared if isinstance(name, str)) & _TYPES
    for word in ("anyOf", "oneOf"):
        branches = schema.get(word)
        if isinstance(branches, list) and depth < _UNION_DEPTH:
            found = [types_of(branch, root, depth + 1) for branch in branches[:_UNION_WIDTH] if isinstance(branch, dict)]
            return frozenset().union(*found) if all(found) else frozenset()
    for word in ("enum", "const"):
        if word in schema:
            values = schema[word] if word == "enum" and isinstance(schema[word], list) else [schema[word]]
            return frozenset(type_name(value) for value in values)
    return frozenset()


def type_name(value: Any) -> str:
    """The JSON type of a parsed value; whole numbers are "integer"."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, float):
        return "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"


def satisfies(value: Any, schema: Schema) -> bool:
    """Whether a value fits, as far as types, required, properties, items, enum, const and unions say."""
    return _Check(schema).fits(value, schema, 0)


class _Check:
    """One comparison of a value with a schema. `_left` steps may still be taken; after them everything fits."""

    def __init__(self, root: Schema) -> None:
        self._root = root
        self._left = MAX_STEPS

    def fits(self, value: Any, schema: Any, depth: int) -> bool:
        self._left -= 1
        if not isinstance(schema, dict) or depth > MAX_DEPTH or self._left < 0:
            return schema is not False
        schema = resolved(schema, self._root)
        return (
            _fits_type(value, types_of(schema, self._root))
            and _fits_values(value, schema)
            and self._fits_members(value, schema, depth + 1)
            and self._fits_branches(value, schema, depth + 1)
        )

    def _fits_members(self, value: Any, schema: Schema, depth: int) -> bool:
        if isinstance(value, list):
            items = schema.get("items")
            return items is None or all(self.fits(member, items, depth) for member in value)
        if not isinstance(value, dict):
            return True
        declared = properties_of(schema)
        if any(name not in value for name in required_of(schema)):
            return False
        if schema.get("additionalProperties") is False and any(name not in declared for name in value):
            return False
        return all(self.fits(member, declared.get(name, {}), depth) for name, member in value.items())

    def _fits_branches(self, value: Any, schema: Schema, depth: int) -> bool:
        for word in ("anyOf", "oneOf"):
            branches = schema.get(word)
            if isinstance(branches, list) and not any(self.fits(value, branch, depth) for branch in branches):
                return False
        every = schema.get("allOf")
        return not isinstance(every, list) or all(self.fits(value, branch, depth) for branch in every)


def _fits_type(value: Any, types: frozenset[str]) -> bool:
    found = type_name(value)
    if not types or found in types:
        return True
    return (found == "integer" and "number" in types) or (found == "number" and "integer" in types and value.is_integer())


def _fits_values(value: Any, schema: Schema) -> bool:
    values = schema.get("enum")
    if isinstance(values, list) and value not in values:
        return False
    return "const" not in schema or bool(schema["const"] == value)
