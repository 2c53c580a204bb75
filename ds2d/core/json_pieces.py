"""JSON of many megabytes in steps, each of which holds the interpreter for a few milliseconds at most.

Rule: the same values and the same refusals as orjson's, whatever is read; it runs in a thread, between whose steps the event
loop gets its turns.
Surprise: nothing here looks at single characters. A guess where some elements end is right exactly if they are JSON by
themselves, because they begin where an element does; and a long string is cut where no escape and no character is cut.
"""

from __future__ import annotations

import re
from typing import Any

import orjson

from ds2d.core.gather import gathered, joined
from ds2d.core.untracked import untrack, untracked

STEP = 256 * 1024
"""Bytes that are read at once: one or two milliseconds of the interpreter, of many small values some more."""

_SMALLER = 8
"""How much smaller a step gets where what is left is less than one, and by how much it grows along a string."""

_LEAST = 2048
"""Bytes below which elements are read one by one."""

_SHORT = 512
"""Bytes in which most strings end: the first look at one."""

_SINGLY = 16
"""Members that an object must have had before several are read at once: most objects have fewer."""

_TRIES = 2
"""Places that are tried for the end of a step."""

_BLANK = re.compile(rb"[ \t\r\n]*")
_SCALAR = re.compile(rb"[^,\]} \t\r\n]*")
_NEXT_MEMBER = re.compile(rb',[ \t\r\n]*(?=")')
_NEXT = {
    b"{": re.compile(rb"(?<=\})[ \t\r\n]*,[ \t\r\n]*(?=\{)"),
    b"[": re.compile(rb"(?<=\])[ \t\r\n]*,[ \t\r\n]*(?=\[)"),
    b'"': re.compile(rb'(?<=")[ \t\r\n]*,[ \t\r\n]*(?=")'),
}
"""Where an element of a list may end and the next begin, by its first character."""

_NEXT_SCALAR = re.compile(rb",[ \t\r\n]*")
_PARTNERS = (b"dc", b"dd", b"de", b"df")
"""How the second half of an escaped character beyond U+FFFF begins."""


def loads(data: bytes | memoryview, deepest: int, step: int = STEP) -> Any:
    """The value, untracked. `step` is 32 bytes or more. Raises ValueError: no JSON, or more than `deepest` levels taken apart."""
    reader = _Reader(data, deepest, step)
    value, at = reader.value(0, 0)
    if _after(_BLANK, data, at) != len(data):
        raise ValueError("something follows")
    return value


class _Reader:
    """One text; every method takes where something begins, and gives it and where it ends."""

    def __init__(self, data: bytes | memoryview, deepest: int, step: int) -> None:
        self._data = data
        self._deepest = deepest
        self._step = step

    def value(self, at: int, depth: int) -> tuple[Any, int]:
        """A value, with blanks before it."""
        at = _after(_BLANK, self._data, at)
        first = self._data[at : at + 1]
        if first == b'"':
            return self._string(at)
        if first in (b"[", b"{"):
            if depth == self._deepest:
                raise ValueError("too deep")
            return (self._list if first == b"[" else self._object)(at + 1, depth + 1)
        end = _after(_SCALAR, self._data, at)
        return orjson.loads(self._data[at:end]), end

    def _list(self, at: int, depth: int) -> tuple[list[Any], int]:
        values: list[Any] = untracked([])
        at = _after(_BLANK, self._data, at)
        if self._data[at : at + 1] == b"]":
            return values, at + 1
        small = True
        while True:
            if small:
                several, at = self._several(at, _NEXT.get(bytes(self._data[at : at + 1]), _NEXT_SCALAR), b"[%b]")
                values += several or ()
            one, end = self.value(at, depth)
            small = end - at < self._step
            values.append(one)
            at, is_last = self._past(end, b"]")
            if is_last:
                return values, at

    def _object(self, at: int, depth: int) -> tuple[dict[str, Any], int]:
        values: dict[str, Any] = {}
        at = _after(_BLANK, self._data, at)
        if self._data[at : at + 1] == b"}":
            return values, at + 1
        small = 0
        while True:
            if small >= _SINGLY:
                several, at = self._several(at, _NEXT_MEMBER, b"{%b}")
                values |= several or {}
            if self._data[at : at + 1] != b'"':
                raise ValueError("no name")
            name, end = self._string(at)
            end = _after(_BLANK, self._data, end)
            if self._data[end : end + 1] != b":":
                raise ValueError("no colon")
            values[name], end = self.value(end + 1, depth)
            small = small + 1 if end - at < self._step else 0
            at, is_last = self._past(end, b"}")
            if is_last:
                return untracked(values), at

    def _past(self, at: int, closer: bytes) -> tuple[int, bool]:
        """Where the next element begins, or past the end."""
        at = _after(_BLANK, self._data, at)
        found = self._data[at : at + 1]
        if found == closer:
            return at + 1, True
        if found != b",":
            raise ValueError("no comma")
        return _after(_BLANK, self._data, at + 1), False

    def _several(self, at: int, border: re.Pattern[bytes], around: bytes) -> tuple[Any, int]:
        """As many elements as fit into a step, if the end of one is found there, and where the next begins."""
        step = self._step
        while step > _LEAST and at + step > len(self._data):
            step //= _SMALLER
        found = None
        for _ in range(_TRIES):
            found = border.search(self._data, found.end() if found else at + step // 2, at + step)
            if found is None:
                break
            try:
                several = orjson.loads(around % self._data[at : found.start()])
            except ValueError:
                continue
            untrack(several)
            return several, found.end()
        return None, at

    def _string(self, at: int) -> tuple[str, int]:
        pieces: list[str] = []
        at += 1
        size = min(_SHORT, self._step)
        while True:
            window = bytes(self._data[at : at + size])
            plain = window.replace(rb"\\", b"__").replace(rb"\"", b"__") if b"\\" in window else window
            end = plain.find(b'"')
            if end >= 0:
                pieces.append(orjson.loads(b'"%b"' % window[:end]))
                return joined(pieces), at + end + 1
            cut = self._whole(at, plain)
            if not cut or len(window) < size:
                raise ValueError("no end of a string")
            pieces.append(orjson.loads(b'"%b"' % window[:cut]))
            at += cut
            size = min(size * _SMALLER, self._step)

    def _whole(self, at: int, plain: bytes) -> int:
        """How many bytes of a window are whole characters and escapes; in `plain` no backslash is escaped itself."""
        data, cut = self._data, len(plain)
        if plain.endswith(b"\\"):
            cut -= 1
        escape = plain.rfind(b"\\u", max(0, cut - 12), cut)
        if escape >= 0:
            is_partner = bytes(data[at + escape + 2 : at + escape + 4]).lower() in _PARTNERS
            return escape - 6 if is_partner and plain[escape - 6 : escape - 4] == b"\\u" else escape
        while cut and at + cut < len(data) and data[at + cut] & 0xC0 == 0x80:
            cut -= 1
        return cut


def _after(pattern: re.Pattern[bytes], data: bytes | memoryview, at: int) -> int:
    """Where what this pattern describes ends; it may be nothing."""
    found = pattern.match(data, at)
    return found.end() if found else at


def dumps(value: Any, step: int = STEP) -> memoryview:
    """What orjson writes. `step` is 32 characters at least. Raises what orjson raises."""
    pieces: list[bytes] = []
    _write(value, step, pieces)
    return gathered(pieces)


def _write(value: Any, step: int, pieces: list[bytes]) -> None:
    if _weight(value) <= step:
        pieces.append(orjson.dumps(value))
    elif isinstance(value, str):
        pieces.append(b'"')
        pieces.extend(orjson.dumps(value[at : at + step])[1:-1] for at in range(0, len(value), step))
        pieces.append(b'"')
    elif isinstance(value, dict):
        for number, (name, member) in enumerate(value.items()):
            pieces.append(b"%b%b:" % (b"," if number else b"{", orjson.dumps(name)))
            _write(member, step, pieces)
        pieces.append(b"}")
    else:
        _write_list(value, step, pieces)


def _write_list(values: list[Any], step: int, pieces: list[bytes]) -> None:
    """As many elements at once as are light enough together."""
    between, at = b"[", 0
    while at < len(values):
        end, weight = at, 0
        while end < len(values) and (weight := weight + _weight(values[end])) <= step:
            end += 1
        pieces.append(between)
        if end > at:
            pieces.append(orjson.dumps(values[at:end])[1:-1])
        else:
            end += 1
            _write(values[at], step, pieces)
        between, at = b",", end
    pieces.append(b"]")


def _weight(value: Any) -> int:
    """About how much there is to write."""
    if isinstance(value, str):
        return len(value) + 2
    if isinstance(value, dict):
        return 16 * len(value) + sum(map(_weight, value.values())) + 2
    return sum(map(_weight, value)) + 2 if isinstance(value, list) else 8
