"""Reading objects whose keys come in two spellings (gemini.md 2).

Rule: `level` makes one level of an object readable by its camelCase names and leaves everything below alone, so that nobody's
own keys are ever rewritten; if both spellings occur, camelCase wins; null is absent.
"""

from __future__ import annotations

import re
from typing import Any

from ds2d.core.request import Inbound
from ds2d.core.validate import invalid, is_base64

_JOINT = re.compile(r"_+([A-Za-z0-9])")


def camel(name: str) -> str:
    """The camelCase spelling of a key; an underscore in front (old SDKs: `_responseJsonSchema`) says nothing."""
    return _JOINT.sub(lambda found: found.group(1).upper(), name.lstrip("_"))


def level(value: Any, path: str) -> dict[str, Any]:
    """The members of an object by their camelCase names. Raises INVALID_REQUEST where it is none."""
    if not isinstance(value, dict):
        raise invalid(path, "must be an object.")
    found: dict[str, Any] = {}
    for name, member in value.items():
        if member is None:
            continue
        if "_" in name:
            found.setdefault(camel(name), member)
        else:
            found[name] = member
    return found


def several(value: Any, path: str) -> list[Any]:
    """The items of an array, or the one thing that stands in its place."""
    if isinstance(value, list):
        return value
    if isinstance(value, dict):
        return [value]
    raise invalid(path, "must be an array.")


def text(value: Any, path: str) -> str:
    """`value` if it is a string."""
    if not isinstance(value, str):
        raise invalid(path, "must be a string.")
    return value


def word(value: Any, path: str, allowed: tuple[str, ...]) -> str:
    """An enum value, in any case, in capitals."""
    found = text(value, path).upper()
    if found not in allowed:
        raise invalid(path, f"must be one of {', '.join(allowed)}.")
    return found


def standard_base64(data: str) -> str | None:
    """Base64 of either alphabet, with or without padding, as the standard one; None if it is none."""
    plain = data.replace("-", "+").replace("_", "/")
    plain += "=" * (-len(plain) % 4)
    return plain if not plain or is_base64(plain) else None


def join(path: str, name: str) -> str:
    """The path of a member."""
    return f"{path}.{name}" if path else name


def model_of(inbound: Inbound) -> str:
    """The model in the path; clients write it with or without `models/` in front."""
    model = inbound.path.get("model", "").removeprefix("models/")
    if not model:
        raise invalid("model", "required field is missing.")
    return model
