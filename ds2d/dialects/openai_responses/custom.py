"""The raw input of a custom tool, taken out of the JSON argument that the emulating function got.

Rule: the text given out piece by piece is the text of the whole: `unwrap` is the same reader fed once, so streams and
whole answers cannot differ.
Surprise: models forget to escape. A quote that no `}` or `,` follows is taken as text, which valid JSON never asks for;
an answer that is no JSON object with `input` is taken as it is (openai-responses.md 4).
"""

from __future__ import annotations

import re

import orjson

KEY = "input"
MAX_DOUBT = 4096
"""Characters that may be held undecided, all of them blank: keeps the work linear."""

_OPENING = re.compile(r'\s*\{\s*"input"\s*:\s*"')
_PARTIAL = re.compile(r'\s*(\{\s*("(i(n(p(u(t("\s*(:\s*)?)?)?)?)?)?)?)?)?$')
_PLAIN = re.compile(r'[^"\\]+')
_ESCAPES = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_HEX = re.compile(r"[0-9a-fA-F]{4}")


def wrap(text: str) -> str:
    """The arguments that carry this raw input."""
    return '{"input": ' + orjson.dumps(text).decode() + "}"


def unwrap(arguments: str) -> str:
    """The raw input in complete arguments."""
    reader = InputReader()
    return reader.feed(arguments) + reader.finish()


class InputReader:
    """Pieces of arguments in, pieces of raw input out. What cannot be decided yet is held."""

    def __init__(self) -> None:
        self._held = ""
        self._pieces: list[str] = []
        self._mode = "opening"  # opening, inside, after (the closing quote is valid), whole (decide at the end)

    def feed(self, text: str) -> str:
        """Take a piece of the arguments; return the input text that is certain now."""
        if self._mode == "whole":
            self._pieces.append(text)
            return ""
        if self._mode == "after":
            return ""
        self._held += text  # short: a few characters of doubt
        if self._mode == "opening":
            self._open()
        return self._inside(last=False) if self._mode == "inside" else ""

    def finish(self) -> str:
        """The arguments have ended: what is left of the input."""
        if self._mode == "inside":
            return self._inside(last=True)
        return "" if self._mode == "after" else _from_whole(self._held + "".join(self._pieces))

    def _open(self) -> None:
        if found := _OPENING.match(self._held):
            self._held = self._held[found.end() :]
            self._mode = "inside"
        elif len(self._held) > MAX_DOUBT or not _PARTIAL.match(self._held):
            self._mode = "whole"

    def _inside(self, *, last: bool) -> str:
        """Decode the string up to the point of doubt, which stays held."""
        held, out, at = self._held, [], 0
        while at < len(held):
            if plain := _PLAIN.match(held, at):
                out.append(plain.group())
                at = plain.end()
            elif held[at] == "\\":
                text, size = _escape(held, at, last=last)
                if not size:
                    break
                out.append(text)
                at += size
            else:
                following = held[at + 1 :].lstrip()
                if not following and not last and len(held) - at < MAX_DOUBT:
                    break
                if not following or following[0] in "},":
                    self._mode, at = "after", len(held)
                    break
                out.append('"')
                at += 1
        self._held = held[at:]
        return "".join(out)


def _escape(text: str, at: int, *, last: bool) -> tuple[str, int]:
    """What the escape at this place means and its length; length 0: more text is needed to know."""
    if at + 1 >= len(text):
        return ("\\", 1) if last else ("", 0)
    letter = text[at + 1]
    if letter in _ESCAPES:
        return _ESCAPES[letter], 2
    if letter != "u":
        return "\\" + letter, 2
    if len(text) < at + 6 and not last:
        return "", 0
    if not _HEX.match(text, at + 2):
        return "\\u", 2
    code = int(text[at + 2 : at + 6], 16)
    if 0xD800 <= code < 0xDC00:
        return _pair(text, at, code, last=last)
    return ("\ufffd" if 0xDC00 <= code < 0xE000 else chr(code)), 6


def _pair(text: str, at: int, high: int, *, last: bool) -> tuple[str, int]:
    """A surrogate pair written as two escapes; half a pair becomes the replacement character."""
    if len(text) < at + 12 and not last and text[at + 6 : at + 8] in ("", "\\", "\\u"):
        return "", 0
    if text[at + 6 : at + 8] == "\\u" and _HEX.match(text, at + 8):
        low = int(text[at + 8 : at + 12], 16)
        if 0xDC00 <= low < 0xE000:
            return chr(0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00)), 12
    return "\ufffd", 6


def _from_whole(text: str) -> str:
    """The input in arguments that do not begin with it: another order of keys, a bare string, or no JSON at all."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
    if isinstance(value, dict) and isinstance(value.get(KEY), str):
        return str(value[KEY])
    return value if isinstance(value, str) else text
