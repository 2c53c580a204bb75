"""Google's subset of OpenAPI schemas as JSON Schema (gemini.md 3).

Rule: keys of `properties` and `$defs` are the user's own; everything that JSON Schema has too keeps its meaning.
Surprise: clients also put schemas with types in capitals where a JSON Schema belongs (clients.md, Gemini CLI), and a server that
follows the schema while it generates would refuse those.
"""

from __future__ import annotations

from typing import Any

from ds2d.core.validate import invalid
from ds2d.dialects.gemini.fields import level

Schema = dict[str, Any]

TYPES = frozenset(("string", "number", "integer", "boolean", "array", "object", "null"))

_PLAIN = frozenset(("required", "enum", "description", "title", "default", "format", "pattern", "minimum", "maximum"))
_JSON_SCHEMA_ONLY = frozenset(("const", "uniqueItems", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "$schema", "$id"))
_COUNTS = frozenset(("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties"))
_ONE = frozenset(("items", "additionalProperties", "not", "contains", "propertyNames"))
_LISTS = frozenset(("anyOf", "oneOf", "allOf", "prefixItems"))
_MAPS = {"properties": "properties", "patternProperties": "patternProperties", "defs": "$defs", "$defs": "$defs"}


def convert_schema(raw: Any, path: str) -> Schema:
    """A Schema as JSON Schema. Raises INVALID_REQUEST with the path of what is wrong in it; unknown keys are left out."""
    members = level(raw, path)
    made: Schema = {}
    for name, value in members.items():
        where = f"{path}.{name}"
        if name == "type":
            if kind := _type(value, where):
                made["type"] = kind
        elif name in _PLAIN or name in _JSON_SCHEMA_ONLY:
            made[name] = value
        elif name in _COUNTS:
            made[name] = _count(value, where)
        elif name in _ONE:
            made[name] = convert_schema(value, where) if isinstance(value, dict) else value
        elif name in _LISTS:
            made[name] = [convert_schema(one, f"{where}[{i}]") for i, one in enumerate(_array(value, where))]
        elif name in _MAPS:
            made[_MAPS[name]] = _named(value, where)
        elif name in ("ref", "$ref"):
            made["$ref"] = value.replace("#/defs/", "#/$defs/") if isinstance(value, str) else value
    return _nullable(made) if members.get("nullable") is True else made


def lower_types(schema: Any) -> Any:
    """A JSON Schema as it is, but for types in capitals. The same object where there are none."""
    if not isinstance(schema, dict):
        return schema
    changed: Schema = {}
    for name, value in schema.items():
        new = value
        if name == "type":
            new = _lower(value)
        elif name in _ONE:
            new = lower_types(value)
        elif name in _LISTS and isinstance(value, list):
            new = _same_or([lower_types(one) for one in value], value)
        elif name in _MAPS and isinstance(value, dict):
            lowered = {key: lower_types(one) for key, one in value.items()}
            new = lowered if any(lowered[key] is not value[key] for key in value) else value
        if new is not value:
            changed[name] = new
    return {**schema, **changed} if changed else schema


def _same_or(new: list[Any], old: list[Any]) -> list[Any]:
    return new if any(a is not b for a, b in zip(new, old, strict=True)) else old


def _lower(kind: Any) -> Any:
    if isinstance(kind, str):
        return kind.lower() if kind not in TYPES and kind.lower() in TYPES else kind
    if isinstance(kind, list):
        return _same_or([_lower(one) for one in kind], kind)
    return kind


def _type(value: Any, path: str) -> str | list[str] | None:
    """A type in small letters; None for Google's "unspecified"."""
    if isinstance(value, list):
        return [kind for one in value if isinstance(kind := _type(one, path), str)]
    if not isinstance(value, str):
        raise invalid(path, "must be a string.")
    kind = value.lower()
    if kind == "type_unspecified":
        return None
    if kind not in TYPES:
        raise invalid(path, f"must be one of {', '.join(sorted(TYPES))}.")
    return kind


def _count(value: Any, path: str) -> int:
    """A count, which Google's JSON may write as a string."""
    if isinstance(value, str) and value.isascii() and value.isdigit():
        return int(value[:18])
    if type(value) is not int or value < 0:
        raise invalid(path, "must be a whole number.")
    return value


def _array(value: Any, path: str) -> list[Any]:
    if not isinstance(value, list):
        raise invalid(path, "must be an array.")
    return value


def _named(value: Any, path: str) -> dict[str, Schema]:
    if not isinstance(value, dict):
        raise invalid(path, "must be an object.")
    return {name: convert_schema(one, f"{path}.{name}") for name, one in value.items()}


def _nullable(schema: Schema) -> Schema:
    """The schema with null allowed: an enum has to say so, too."""
    words = schema.get("enum")
    if isinstance(words, list) and None not in words:
        schema["enum"] = [*words, None]
    kind = schema.get("type")
    if isinstance(kind, str) and kind != "null":
        schema["type"] = [kind, "null"]
    elif isinstance(kind, list) and "null" not in kind:
        schema["type"] = [*kind, "null"]
    elif kind is None and "anyOf" in schema:
        schema["anyOf"] = [*schema["anyOf"], {"type": "null"}]
    return schema
