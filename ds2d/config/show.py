"""A config as people may see it.

Rule: no secret leaves here. One that stands in the file is masked, one by reference is shown as the reference.
Surprise: encoders refuse a `Secret`, so this is the only way from a snapshot to JSON.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from ds2d.config.describe import keys, value_at
from ds2d.config.schema import Config, derived_fields
from ds2d.core.redact import mask, redact
from ds2d.core.settings import Secret

_HASHES = frozenset({"password_hash"})


def shown(value: Any, *, defaults: bool = True) -> Any:
    """JSON data of a snapshot or a part of it, secrets masked. `defaults` False leaves out fields that nobody set."""
    if isinstance(value, Secret):
        return value.reference or mask(value.reveal() or "")
    if isinstance(value, msgspec.Struct):
        return _struct(value, defaults)
    if isinstance(value, dict) and any(isinstance(item, Secret | msgspec.Struct) for item in value.values()):
        return {redact(name): shown(item, defaults=defaults) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [shown(item, defaults=defaults) for item in value]
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    return redact(value)


def effective(config: Config) -> list[tuple[str, Any, str]]:
    """Path, value and origin of every key that has one value, in the order of the schema; entries as a whole."""
    return [(key.path, _shown_at(config, key.path), config.origin(key.path)) for key in keys() if not key.inside]


def secrets_of(value: Any) -> list[str]:
    """Every secret in a snapshot or a part of it, for taking them out of texts."""
    if isinstance(value, Secret):
        secret = value.reveal()
        return [secret] if secret else []
    if isinstance(value, msgspec.Struct):
        return [secret for name in value.__struct_fields__ for secret in secrets_of(getattr(value, name))]
    if isinstance(value, dict):
        return [secret for item in value.values() for secret in secrets_of(item)]
    if isinstance(value, tuple):
        return [secret for item in value for secret in secrets_of(item)]
    return []


def _shown_at(config: Config, path: str) -> Any:
    value = value_at(config, path)
    return mask(value) if value and path.rpartition(".")[2] in _HASHES else shown(value, defaults=False)


def _struct(value: msgspec.Struct, defaults: bool) -> dict[str, Any]:
    result: dict[str, Any] = {}
    info = type(value).__struct_config__
    if info.tag_field:
        result[info.tag_field] = info.tag
    hidden = derived_fields(type(value))
    blank = _blank(type(value))
    for name in value.__struct_fields__:
        item = getattr(value, name)
        if name in hidden or (not defaults and name in blank and blank[name] == item):
            continue
        result[name] = mask(item) if item and name in _HASHES else shown(item, defaults=defaults)
    return result


def _blank(cls: type[msgspec.Struct]) -> dict[str, Any]:
    """The defaults of a struct's fields."""
    fields = msgspec.structs.fields(cls)
    plain = {field.name: field.default for field in fields if field.default is not msgspec.NODEFAULT}
    made = {field.name: field.default_factory() for field in fields if field.default_factory is not msgspec.NODEFAULT}
    return plain | made
