"""A value that satisfies a JSON Schema, for arguments and JSON answers that nobody thought about.

Rule: the schema is a client's: it may be nonsense, refer to itself or ask for a billion items, and none of that may cost
more than `MAX_NODES` values. Usual keywords are read, patterns and conditions are not.
"""

from __future__ import annotations

from typing import Any

MAX_DEPTH = 8
"""Levels that are filled in."""

MAX_NODES = 1000
"""Values that are made for one schema."""

MAX_LENGTH = 4096
"""Characters of one text."""

_FORMATS = {
    "date": "2026-01-01",
    "date-time": "2026-01-01T00:00:00Z",
    "time": "00:00:00Z",
    "email": "demo@example.com",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}


def example_of(schema: Any) -> Any:
    """The same value every time. An empty object where the schema asks for nothing that is known here."""
    return _Examples(schema).of(schema, 0)


class _Examples:
    """Counts what it makes; `root` is where local references point into."""

    def __init__(self, root: Any) -> None:
        self._root = root
        self._left = MAX_NODES

    def of(self, schema: Any, depth: int) -> Any:
        self._left -= 1
        if not isinstance(schema, dict) or depth > MAX_DEPTH or self._left < 0:
            return {}
        for name in ("const", "default"):
            if name in schema:
                return schema[name]
        if values := _list(schema.get("enum")):
            return values[0]
        if isinstance(schema.get("$ref"), str):
            return self.of(self._resolved(schema["$ref"]), depth + 1)
        if options := _list(schema.get("anyOf")) or _list(schema.get("oneOf")):
            return self.of(options[0], depth + 1)
        if parts := _list(schema.get("allOf")):
            return self._joined([{**schema, "allOf": None}, *parts], depth)
        kind = schema.get("type")
        if isinstance(kind, list):
            kind = kind[0] if kind else None
        if kind == "object" or (kind is None and "properties" in schema):
            return self._object(schema, depth)
        if kind == "array":
            return self._array(schema, depth)
        return {} if kind is None else _scalar(schema, kind)

    def _object(self, schema: dict[str, Any], depth: int) -> dict[str, Any]:
        """The required members, or all where none is required."""
        properties = schema.get("properties")
        properties = properties if isinstance(properties, dict) else {}
        names = _list(schema.get("required")) or list(properties)
        wanted = [name for name in names[:MAX_NODES] if isinstance(name, str)]
        return {name: self.of(properties.get(name, {"type": "string"}), depth + 1) for name in wanted}

    def _array(self, schema: dict[str, Any], depth: int) -> list[Any]:
        least = _number(schema, "minItems") or 1
        return [self.of(schema.get("items"), depth + 1) for _ in range(int(min(max(least, 1), max(self._left, 1))))]

    def _joined(self, parts: list[Any], depth: int) -> dict[str, Any]:
        made = [self.of(part, depth + 1) for part in parts]
        return {name: value for part in made if isinstance(part, dict) for name, value in part.items()}

    def _resolved(self, reference: str) -> Any:
        at = self._root
        for name in reference.removeprefix("#").strip("/").split("/")[:MAX_DEPTH]:
            at = at.get(name) if isinstance(at, dict) else None
        return at


def _scalar(schema: dict[str, Any], kind: Any) -> Any:
    if kind in ("integer", "number"):
        return _in_range(schema)
    if kind == "boolean":
        return True
    if kind == "null":
        return None
    form = schema.get("format")
    text = _FORMATS.get(form, "demo") if isinstance(form, str) else "demo"
    least, most = _number(schema, "minLength") or 0, _number(schema, "maxLength")
    text = text.ljust(int(min(least, MAX_LENGTH)), "o")
    return text if most is None else text[: int(max(most, 0))]


def _in_range(schema: dict[str, Any]) -> int | float:
    """1, unless the bounds say otherwise."""
    low, high = _number(schema, "minimum"), _number(schema, "maximum")
    if (above := _number(schema, "exclusiveMinimum")) is not None:
        low = above + 1
    if (below := _number(schema, "exclusiveMaximum")) is not None:
        high = below - 1
    value: int | float = 1
    if low is not None:
        value = max(value, low)
    return value if high is None else min(value, high)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _number(schema: dict[str, Any], name: str) -> int | float | None:
    value = schema.get(name)
    return value if type(value) in (int, float) else None
