"""Two small readers beside `JsonReader`: the text inside a JSON string, and where broken JSON ends.

Rule: both take text in pieces and look at each character once.
"""

from __future__ import annotations

import re

_MORE = -1


class StringReader:
    """The text inside a JSON string that arrives in pieces; feeding begins after the opening quote. `done`: it has
    closed, `rest` is what came after. Escapes that JSON does not know stay as they are: the reader of what is inside
    mends them."""

    def __init__(self) -> None:
        self.done = False
        self.rest = ""
        self._wait = ""

    def feed(self, text: str) -> str:
        """Take the next piece; return the text it stands for. After `done` nothing more may be fed."""
        text = self._wait + text
        self._wait = ""
        out: list[str] = []
        at = 0
        while at < len(text):
            end = _INSIDE.match(text, at).end()  # type: ignore[union-attr]
            out.append(text[at:end])
            if end == len(text):
                break
            if text[end] == '"':
                self.done = True
                self.rest = text[end + 1 :]
                break
            at = self._escape(text, end, out)
            if at == _MORE:
                self._wait = text[end:]
                break
        return "".join(out)

    def _escape(self, text: str, at: int, out: list[str]) -> int:
        found = _ESCAPE.match(text, at)
        if found is None:
            out.append("\\")
            return at + 1
        simple, digits = found.groups()
        if simple is not None:
            out.append(_SIMPLE[simple])
            return found.end()
        if digits is None or (len(digits) < 4 and found.end() == len(text)):
            return _MORE
        if len(digits) < 4:
            out.append("\\")
            return at + 1
        return self._code_point(text, found, out)

    def _code_point(self, text: str, found: re.Match[str], out: list[str]) -> int:
        """One \\uXXXX, or two that are halves of one character; a half alone becomes U+FFFD."""
        code = int(found.group(2), 16)
        if not 0xD800 <= code < 0xE000:
            out.append(chr(code))
            return found.end()
        second = text[found.end() : found.end() + 6]
        if code < 0xDC00 and len(second) < 6 and "\\u".startswith(second[:2]):
            return _MORE
        low = _LOW_HALF.fullmatch(second)
        if code < 0xDC00 and low:
            out.append(chr(0x10000 + ((code - 0xD800) << 10) + int(low.group(1), 16) - 0xDC00))
            return found.end() + 6
        out.append("\ufffd")
        return found.end()


_SIMPLE = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_INSIDE = re.compile(r'[^"\\]*+')
_ESCAPE = re.compile(r'\\(?:(["\\/bfnrt])|u([0-9a-fA-F]{0,4})|\Z)')
_LOW_HALF = re.compile(r"\\u([dD][c-fC-F][0-9a-fA-F]{2})")


class Balance:
    """Where brackets close in text that is no JSON: how far a call goes whose arguments are broken beyond mending."""

    def __init__(self, depth: int) -> None:
        self._depth = depth
        self._quoted = False
        self._escaped = False

    def feed(self, text: str) -> int | None:
        """How many characters of `text` belong to it, if it ends in there; None if all do."""
        at = int(self._escaped)
        self._escaped = False
        while found := (_QUOTED_MARK if self._quoted else _MARK).search(text, at):
            at, mark = found.end(), found.group()
            if mark == '"':
                self._quoted = not self._quoted
            elif mark[0] == "\\":
                self._escaped = len(mark) == 1
            else:
                self._depth += 1 if mark in "{[" else -1
                if self._depth <= 0:
                    return at
        return None


_QUOTED_MARK = re.compile(r'"|\\.?', re.DOTALL)
_MARK = re.compile(r'["{}\[\]]')
