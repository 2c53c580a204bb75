"""From a parsed document to the structs of the schema, remembering every problem instead of stopping at the first.

Rule: the schema's types are the only description there is; this module knows kinds of types, not keys.
Surprise: a struct with a faulty field is `UNSET` in the list it stands in, and checks between entries look at the sound
ones only, so that one run tells all there is to tell.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any

import msgspec
import msgspec.inspect as kinds
from msgspec import UNSET

from ds2d.config.notices import Notice, child, nearest
from ds2d.config.references import Sources, UnreadableError, is_reference, unreadable
from ds2d.config.schema import Section, readable_fields, required_fields, struct_type
from ds2d.core.settings import MAX_INT, Entry, KeySpec, Secret


class Reader:
    """Reads one document. Afterwards `errors`, `warnings` and `origins` tell how it went.

    `origins` are the paths whose value came into the document from elsewhere: `flag`, or `$NAME` of a variable.
    `elsewhere(name)` is the path of a key in another section.
    """

    def __init__(self, sources: Sources, origins: Mapping[str, str], elsewhere: Callable[[str], str | None]) -> None:
        self.errors: list[Notice] = []
        self.warnings: list[Notice] = []
        self.origins: dict[str, str] = {}
        self._sources = sources
        self._origins = origins
        self._elsewhere = elsewhere

    def fields(self, cls: type[msgspec.Struct], data: Mapping[str, Any], path: str = "") -> dict[str, Any]:
        """The fields of a struct that stand in `data`; UNSET for a faulty or a missing one."""
        known = readable_fields(cls)
        values: dict[str, Any] = {}
        for name, value in data.items():
            field = known.get(name)
            if field is None:
                self._unknown(child(path, name), name, cls)
            elif value is not None or not _is_container(field.type):  # null for a section or a list is its default
                place = child(path, name)
                origin = self._origins.get(place)
                values[name] = self.read(field.type, value, origin if origin and origin.startswith("$") else place)
                if "[" not in place and not isinstance(_bare(field.type), kinds.StructType):
                    self.origins[place] = origin or "file"
        for name in required_fields(cls):
            if name not in values:
                self.errors.append(Notice(child(path, name), "is required"))
                values[name] = UNSET
        return values

    def read(self, kind: kinds.Type, value: Any, path: str) -> Any:
        """The value as the schema wants it, or UNSET after an error was noted."""
        extra: dict[str, Any] = {}
        if isinstance(kind, kinds.Metadata):
            extra = kind.extra or {}
            kind = kind.type
        if isinstance(kind, kinds.UnionType):
            return self._union(kind, value, path)
        if isinstance(kind, kinds.StructType):
            return self._struct(kind, value, path)
        if isinstance(kind, kinds.VarTupleType):
            return self._list(kind, [value] if extra.get("one") and isinstance(value, str) else value, path)
        if isinstance(kind, kinds.DictType):
            return self._mapping(kind, value, path)
        if isinstance(kind, kinds.CustomType):
            return self._secret(value, path)
        if isinstance(kind, kinds.AnyType):
            return value
        return self._leaf(kind, value, path)

    def _unknown(self, path: str, name: str, cls: type[msgspec.Struct]) -> None:
        """Note a key that the schema does not have; notes and the tag of a struct are none."""
        tag_field = struct_type(cls).tag_field
        if name.startswith("_") or name == tag_field:
            return
        hint = nearest(name, [*readable_fields(cls), tag_field] if tag_field else readable_fields(cls))
        if not hint and (other := self._elsewhere(name)):
            hint = f"did you mean {other}?"
        self.errors.append(Notice(path, "unknown key", hint))

    def _union(self, kind: kinds.UnionType, value: Any, path: str) -> Any:
        if value is None and kind.includes_none:
            return None
        options = [option for option in kind.types if not isinstance(option, kinds.NoneType)]
        if len(options) == 1:
            if value == "" and kind.includes_none and isinstance(options[0], kinds.StrType):
                return None  # the reference system writes "" for none
            return self.read(options[0], value, path)
        tagged = {option.tag: option for option in options if isinstance(option, kinds.StructType)}
        tag_field = next(iter(tagged.values())).tag_field or ""
        if not isinstance(value, dict):
            return self._bad(path, "must be an object or null" if kind.includes_none else "must be an object")
        if value.get(tag_field) not in tagged:
            return self._bad(child(path, tag_field), "must be one of " + ", ".join(map(str, tagged)))
        return self._struct(tagged[value[tag_field]], value, path)

    def _struct(self, kind: kinds.StructType, value: Any, path: str) -> Any:
        if kind.cls is KeySpec and isinstance(value, str):
            key = self._secret(value, path)
            return UNSET if key is UNSET else KeySpec(key=key)
        if not isinstance(value, dict):
            return self._bad(path, "must be a string or an object" if kind.cls is KeySpec else "must be an object")
        values = self.fields(kind.cls, value, path)
        if issubclass(kind.cls, Section):  # the other keys of the section can be checked still
            values = {name: value for name, value in values.items() if value is not UNSET}
        elif _sound(values, values.values()) is UNSET:
            return UNSET
        if issubclass(kind.cls, Entry) and any(map(unreadable, values.values())):
            values["problem"] = "secret_unreadable"
        return kind.cls(**values)

    def _list(self, kind: kinds.VarTupleType, value: Any, path: str) -> Any:
        if not isinstance(value, list):
            return self._bad(path, "must be a list")
        items = tuple(self.read(kind.item_type, item, child(path, index)) for index, item in enumerate(value))
        return items if isinstance(kind.item_type, kinds.StructType) else _sound(items, items)

    def _mapping(self, kind: kinds.DictType, value: Any, path: str) -> Any:
        if not isinstance(value, dict):
            return self._bad(path, "must be an object")
        free = isinstance(kind.value_type, kinds.AnyType)  # somebody else's fields: nothing in there is a note of ours
        result: dict[str, Any] = {}
        for name, item in value.items():
            place = child(path, name)
            if (free or not name.startswith("_")) and self.read(kind.key_type, name, place) is not UNSET:
                result[name] = self.read(kind.value_type, item, place)
                if result[name] is None and isinstance(kind.value_type, kinds.CustomType):
                    del result[name]  # an empty header is none
        return result if isinstance(kind.value_type, kinds.StructType) else _sound(result, result.values())

    def _secret(self, value: Any, path: str) -> Any:
        """A Secret; None for an empty string; UNSET for anything that is neither text nor a reference."""
        if isinstance(value, str):
            return Secret(value) if value else None
        if not is_reference(value):
            return self._bad(path, 'must be a string, {"$env": NAME}, {"$file": PATH} or {"$credential": NAME}')
        try:
            return Secret(self._sources.resolve(value), dict(value))
        except UnreadableError as reason:
            self.warnings.append(Notice(path, f"{reason}; what needs it is out of use"))
            return Secret(None, dict(value))

    def _leaf(self, kind: kinds.Type, value: Any, path: str) -> Any:
        if isinstance(kind, kinds.BoolType):
            return value if isinstance(value, bool) else self._bad(path, "must be true or false")
        if isinstance(kind, kinds.LiteralType):
            return self._choice(kind, value, path)
        if isinstance(kind, kinds.IntType | kinds.FloatType):
            return self._number(kind, value, path)
        if isinstance(kind, kinds.DateTimeType):
            return self._time(value, path)
        if isinstance(kind, kinds.StrType):
            return self._text(kind, value, path)
        raise TypeError(f"the schema has a type that nobody reads: {kind}")

    def _choice(self, kind: kinds.LiteralType, value: Any, path: str) -> Any:
        if any(value == choice and type(value) is type(choice) for choice in kind.values):
            return value
        choices = [str(choice) for choice in kind.values]
        return self._bad(path, "must be one of " + ", ".join(choices), nearest(value, choices) if isinstance(value, str) else "")

    def _number(self, kind: kinds.IntType | kinds.FloatType, value: Any, path: str) -> Any:
        whole = isinstance(kind, kinds.IntType)
        if isinstance(value, bool) or not isinstance(value, int | float) or (whole and value != int(value)):
            return self._bad(path, "must be an integer" if whole else "must be a number")
        if (kind.ge is not None and value < kind.ge) or (kind.le is not None and value > kind.le):
            is_low = kind.le == MAX_INT and value < kind.le
            return self._bad(path, f"must be {kind.ge} or more" if is_low else f"must be {kind.ge} to {kind.le}")
        return int(value) if whole else float(value)

    def _time(self, value: Any, path: str) -> Any:
        try:
            time = msgspec.convert(value, datetime)
        except msgspec.ValidationError:
            time = None
        if time is None or time.tzinfo is None or not 1970 < time.year < 9000:
            return self._bad(path, "must be a time as in 2027-01-31T00:00:00Z (RFC 3339)")
        return time

    def _text(self, kind: kinds.StrType, value: Any, path: str) -> Any:
        if not isinstance(value, str):
            return self._bad(path, "must be a string")
        if kind.pattern is not None and not re.search(kind.pattern, value):
            return self._bad(path, f"must match {kind.pattern}")
        least, most = kind.min_length or 0, kind.max_length
        if len(value) < least or (most is not None and len(value) > most):
            return self._bad(path, f"must have {least} to {most} characters")
        if least and not value.isprintable():  # names and the like end in logs and headers
            return self._bad(path, "must not hold control characters")
        return value

    def _bad(self, path: str, message: str, hint: str = "") -> Any:
        self.errors.append(Notice(path, message, hint))
        return UNSET


def _sound(whole: Any, items: Iterable[Any]) -> Any:
    return UNSET if any(item is UNSET for item in items) else whole


def _bare(kind: kinds.Type) -> kinds.Type:
    return kind.type if isinstance(kind, kinds.Metadata) else kind


def _is_container(kind: kinds.Type) -> bool:
    return isinstance(_bare(kind), kinds.VarTupleType | kinds.DictType | kinds.StructType)
