"""Reading the fields of a Claude body: types and bounds, with the path that Anthropic's own messages begin with.

Rule: null is the same as absent, a boolean is no number, and what is wrong is said as `path: what it must be`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ds2d.core.validate import invalid


def mapping(value: Any, path: str) -> dict[str, Any]:
    """`value` if it is an object."""
    if not isinstance(value, dict):
        raise invalid(path, "must be an object.")
    return value


def array(value: Any, path: str) -> list[Any]:
    """`value` if it is an array."""
    if not isinstance(value, list):
        raise invalid(path, "must be an array.")
    return value


def text(value: Any, path: str) -> str:
    """`value` if it is a string that is not empty."""
    if value is None:
        raise invalid(path, "field required.")
    if not isinstance(value, str):
        raise invalid(path, "must be a string.")
    if not value:
        raise invalid(path, "must not be empty.")
    return value


def flag(body: Mapping[str, Any], name: str, path: str) -> bool | None:
    """A boolean member, None where it is absent."""
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise invalid(path, "must be true or false.")
    return value


def number(body: Mapping[str, Any], name: str, low: float, high: float) -> int | float | None:
    """A number within its bounds, as it was written."""
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise invalid(name, "must be a number.")
    if not low <= value <= high:
        raise invalid(name, f"must be from {low:g} to {high:g}.")
    return value


def whole(value: Any, path: str, low: int) -> int | None:
    """An integer of at least `low`, None where it is absent."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise invalid(path, "must be an integer.")
    if value < low:
        raise invalid(path, f"must be at least {low}.")
    return value


def one_of(value: Any, path: str, allowed: tuple[str, ...]) -> str:
    """`value` if it is one of the words."""
    if value not in allowed:
        raise invalid(path, f"must be one of {', '.join(allowed)}.")
    return str(value)
