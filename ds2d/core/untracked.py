"""What Python's collector need not look at.

Rule: only for trees: what was read as JSON, and lists and objects made of such. Nothing in them leads back to them, so they go
with the last reference to them, and there is no circle to be found.
Surprise: the collector looks at all that is new, and now and then at all there is, and holds the interpreter meanwhile: for 80 ms
at the objects of fifty thousand tool calls, several times while they are made, and for 20 at a new list of as many.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import Any, TypeVar

T = TypeVar("T")

MANY = 1000
"""Members from which a list is worth it: to be left out costs as much as to be looked at once."""

_untrack = ctypes.pythonapi.PyObject_GC_UnTrack
_untrack.restype, _untrack.argtypes = None, (ctypes.py_object,)


def untracked(value: T, *, many: bool = True) -> T:
    """This list, dict or set, left out if it is one of many, or will have many members. A dict is looked at again once a list or
    dict is put into it; the others are not."""
    if many:
        _untrack(value)
    return value


def untrack(tree: list[Any] | dict[str, Any]) -> None:
    """This and all that is in it."""
    _untrack(tree)
    for top in _containers(tree):
        found = [top]  # of one at a time: a list of all would be a long one that is new
        while found:
            value = found.pop()
            _untrack(value)
            found += _containers(value)


def _containers(value: list[Any] | dict[str, Any]) -> Iterator[Any]:
    """The dicts and lists right in it."""
    for child in value.values() if isinstance(value, dict) else value:
        if type(child) is dict or type(child) is list:
            yield child
