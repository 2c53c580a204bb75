"""The schema told as data: one row a key, and as JSON Schema for editors.

Rule: everything here is read off the types; nothing is written down twice. Rows feed `config show`, the docs, the admin
settings and the list of keys that need a restart.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, cast

import msgspec
import msgspec.inspect as kinds

from ds2d.config.references import KINDS
from ds2d.config.schema import Config, Tls, derived_fields, struct_type
from ds2d.core.settings import AccountSpec, KeySpec, Secret, UpstreamSpec

SCHEMA_URL = "https://json-schema.org/draft/2020-12/schema"

_NAMES: dict[type[kinds.Type], str] = {
    kinds.BoolType: "true or false",
    kinds.IntType: "integer",
    kinds.FloatType: "number",
    kinds.StrType: "text",
    kinds.DateTimeType: "time",
    kinds.CustomType: "secret",
    kinds.VarTupleType: "list",
    kinds.DictType: "object",
    kinds.AnyType: "anything",
}


class Key(msgspec.Struct, frozen=True):
    """One key. `path` has `[]` for items and `.*` for free names. `least` and `most` bound the value, or a text's length.

    `inside` says that it belongs to an entry of a list or map, so that it has no one value.
    """

    path: str
    kind: str
    default: Any
    text: str
    choices: tuple[str | int, ...] = ()
    least: float | None = None
    most: float | None = None
    nullable: bool = False
    required: bool = False
    restart: bool = False
    settings: bool = False

    @property
    def inside(self) -> bool:
        return "[]" in self.path or ".*" in self.path


def keys(cls: type[msgspec.Struct] = Config, prefix: str = "") -> Iterator[Key]:
    """Every key below a struct, in the order of the schema; sections themselves have no row."""
    hidden = derived_fields(cls)
    for field in struct_type(cls).fields:
        kind, extra, text = _unwrapped(field.type)
        if field.name in hidden:
            continue
        path = f"{prefix}{field.name}"
        if isinstance(kind, kinds.StructType):
            yield from keys(kind.cls, f"{path}.")
            continue
        yield _row(path, field, kind, extra, text)
        yield from _below(kind, path)


def value_at(config: Config, path: str) -> Any:
    """The value at a path of sections, such as `runtime.breaker.failures`."""
    value: Any = config
    for name in path.split("."):
        value = getattr(value, name)
    return value


def restart_paths(old: Config, new: Config) -> list[str]:
    """The keys that differ between two snapshots and count only after a restart."""
    return [key.path for key in keys() if key.restart and value_at(old, key.path) != value_at(new, key.path)]


def json_schema() -> dict[str, Any]:
    """JSON Schema 2020-12 of config.json, for editors and for whoever writes one by program."""
    _, parts = msgspec.json.schema_components([Config], schema_hook=_hook, ref_template="#/$defs/{name}")
    parts = copy.deepcopy(parts)
    parts.pop("Notice", None)
    derived = {cls.__name__: derived_fields(cls) for cls in (Config, KeySpec, UpstreamSpec, AccountSpec, Tls)}
    for name, part in parts.items():
        _tidy(part, derived.get(name, frozenset()))
    parts["Secret"] = _secret_schema()
    parts["KeySpec"] = {"anyOf": [{"type": "string", "minLength": 1}, parts["KeySpec"]]}
    upstream = parts["ModelSpec"]["properties"]["upstream"]
    parts["ModelSpec"]["properties"]["upstream"] = {
        "description": upstream.pop("description"),
        "anyOf": [upstream.pop("items"), {"type": "array", "items": {"type": "string"}}],
    }
    whole = parts.pop("Config")
    whole["properties"] |= _reference_names(whole["properties"])
    return {"$schema": SCHEMA_URL, **whole, "title": "ds2d config.json", "$defs": parts}


def _unwrapped(kind: kinds.Type) -> tuple[kinds.Type, dict[str, Any], str]:
    """The type without its metadata, what the metadata says, and the description."""
    if isinstance(kind, kinds.Metadata):
        return kind.type, kind.extra or {}, (kind.extra_json_schema or {}).get("description", "")
    return kind, {}, ""


def _row(path: str, field: kinds.Field, kind: kinds.Type, extra: dict[str, Any], text: str) -> Key:
    nullable = isinstance(kind, kinds.UnionType)
    inner = _first_option(kind)
    least, most = _bounds(inner)
    return Key(
        path=path,
        kind=_NAMES.get(type(inner), "object") if not isinstance(inner, kinds.LiteralType) else "choice",
        default=None if field.required else _default(field),
        text=text,
        choices=cast(tuple[str | int, ...], inner.values) if isinstance(inner, kinds.LiteralType) else (),
        least=least,
        most=most,
        nullable=nullable,
        required=field.required,
        restart=bool(extra.get("restart")),
        settings=bool(extra.get("settings")),
    )


def _first_option(kind: kinds.Type) -> kinds.Type:
    if isinstance(kind, kinds.UnionType):
        return next(option for option in kind.types if not isinstance(option, kinds.NoneType))
    return kind


def _bounds(kind: kinds.Type) -> tuple[float | None, float | None]:
    if isinstance(kind, kinds.IntType | kinds.FloatType):
        return kind.ge, kind.le
    if isinstance(kind, kinds.StrType):
        return kind.min_length, kind.max_length
    return None, None


def _default(field: kinds.Field) -> Any:
    if field.default_factory is not msgspec.NODEFAULT:
        return field.default_factory()
    return field.default


def _below(kind: kinds.Type, path: str) -> Iterator[Key]:
    """The rows of what stands in a list, a map, or one of several structs."""
    if isinstance(kind, kinds.VarTupleType) and isinstance(kind.item_type, kinds.StructType):
        yield from keys(kind.item_type.cls, f"{path}[].")
    elif isinstance(kind, kinds.DictType) and isinstance(kind.value_type, kinds.StructType):
        yield from keys(kind.value_type.cls, f"{path}.*.")
    elif isinstance(kind, kinds.UnionType):
        for option in kind.types:
            if isinstance(option, kinds.StructType):
                yield from keys(option.cls, f"{path}({option.tag}).")


def _hook(kind: type) -> dict[str, Any]:
    if kind is not Secret:
        raise NotImplementedError
    return {"$ref": "#/$defs/Secret"}


def _secret_schema() -> dict[str, Any]:
    name = {"type": "string", "minLength": 1}
    references = [
        {"type": "object", "properties": {kind: name}, "required": [kind], "additionalProperties": False} for kind in KINDS
    ]
    return {"description": "a secret, or where to read it", "anyOf": [{"type": "string"}, *references]}


def _tidy(part: dict[str, Any], derived: frozenset[str]) -> None:
    """Take out of an object's schema what no file holds, refuse unknown keys, allow notes."""
    part["additionalProperties"] = False
    part["patternProperties"] = {"^_": {}}
    for field in derived:
        del part["properties"][field]


def _reference_names(properties: dict[str, Any]) -> dict[str, Any]:
    """The names under which the reference system's file says the same."""
    return {
        "api_keys": {"description": "as keys", "type": "array", "items": properties["keys"]["items"]},
        "claude_model_mapping": {"description": "as claude_mapping", "$ref": properties["claude_mapping"]["$ref"]},
    }
