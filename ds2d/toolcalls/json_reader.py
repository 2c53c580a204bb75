"""Arguments as they arrive: JSON text handed on verbatim, mended at the point of fault.

Rule (toolcalls.md 3): what was handed on is a prefix of the (mended) arguments, so nothing is ever taken back. Each
character is looked at once; what waits for its successor (a comma, a backslash, a literal, a bare key) is short.
Surprise: a parameter declared as a list whose value is no list waits until its end, because `"k": {..}, {..}` needs a
bracket before what came first. A plain object where a list is declared still goes out as the model wrote it.
What the grammar allows and strict parsers refuse is no JSON either: half of a surrogate pair is mended, a number beyond what a
double holds is a fault.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from math import isfinite

from ds2d.toolcalls import notes
from ds2d.toolcalls.schema import Schema, property_of, types_of

MAX_DEPTH = 128
"""Levels of nesting; the same bound that requests have (reliability.md)."""

MAX_HELD = 1024 * 1024
"""Characters of one value that may wait for what follows it."""

_MAX_LITERAL = 1024
_MAX_KEY = 128
_MAX_LOOK = 4096
"""Characters of a string that may turn out to be a key or a member."""

_SPACE = re.compile(r"[ \t\r\n]*+")
_PLAIN = re.compile(r'[^"\\\x00-\x1f]*+')
_LITERAL = re.compile(r"[-+.0-9A-Za-z_]++")
_WHOLE_LITERAL = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?|true|false|null").fullmatch
_BARE_KEY = re.compile(r"[A-Za-z_$][\w$-]*+")
_STRING = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*"', re.DOTALL)
_HEX = re.compile(r"[0-9a-fA-F]{0,4}")
_HALF = re.compile(r"[dD][89a-fA-F]").match
_FIRST_HALF = re.compile(r"[dD][89abAB]").match
_SECOND_HALF = re.compile(r"\\u[dD][c-fC-F][0-9a-fA-F]{2}").fullmatch

_CLOSER = {"{": "}", "[": "]", "(": "]"}
"""By what is open: object, list, and "(" for a list whose brackets the model left out."""

_MORE = -1


class JsonReader:
    """Reads one JSON object, or what `root` allows to begin with.

    `done`: it has closed, `rest` is what came after it. `fault`: it cannot be mended, `rest` is what was not handed on.
    `repairs`: notes on what was mended. `mend_lines`: line feeds inside strings are mended like other control characters.
    """

    def __init__(self, schema: Schema | None = None, root: str = "{", *, mend_lines: bool = True) -> None:
        self.done = False
        self._root = root
        self._mend_lines = mend_lines
        self.fault = False
        self.rest = ""
        self.repairs: dict[str, None] = {}
        self._schema: Schema = schema or {}
        self._stack: list[str] = []
        self._out: list[str] = []
        self._held: list[str] | None = None  # a value whose place wants a list; goes out when it is known to stand alone
        self._held_size = 0
        self._wait = ""
        self._comma = ""
        self._key: list[str] = []
        self._in_key = False
        self._step: Callable[[str, int], int] = self._value

    @property
    def depth(self) -> int:
        """How many brackets are open."""
        return len(self._stack)

    def over(self) -> bool:
        """Whether nothing more may be fed."""
        return self.done or self.fault

    def feed(self, text: str) -> str:
        """Take the next piece; return what may go out. After `done` or `fault` nothing more may be fed."""
        text = self._wait + text if self._wait else text
        self._wait = ""
        at, size = 0, len(text)
        while at < size and not (self.done or self.fault):
            if text[at] in " \t\r\n" and self._step != self._string:
                at = self._space(text, at)
                continue
            after = self._step(text, at)
            if after == _MORE:
                self._wait = text[at:]
                break
            at = after
        if self.done or self.fault:
            self.rest = text[at:]
        return self._take()

    def finish(self) -> str | None:
        """No more text will come: what closes the object, if closers are all that it lacks, else None."""
        literal = self._wait if self._step == self._value and _is_literal(self._wait) else ""
        at_end = self._step == self._after or self._step in (self._first_key, self._first_item) or literal
        if self.fault or not self._stack or not at_end:
            return None
        self._put(literal)
        self._release()
        self._out += [_CLOSER[opened] for opened in reversed(self._stack)]
        self.done = True
        self.repairs[notes.CLOSERS] = None
        return self._take()

    def unsent(self) -> str:
        """What was fed and not handed on, as it came: for a call that ends broken."""
        self._release()
        withheld = self._take() + self._comma + self._wait
        self._comma = self._wait = ""
        return withheld

    # Each step looks at text[at], no blank except in strings, in one place of the grammar; it returns where to go on, or _MORE.

    def _value(self, text: str, at: int) -> int:
        mark = text[at]
        if not self._stack and mark not in self._root:
            return self._fail(at)
        if len(self._stack) == 1 and self._held is None:
            self._hold_if_alone(mark)
        if mark in "{[":
            return self._open(mark, at)
        if mark == '"':
            self._put('"')
            self._in_key, self._step = False, self._string
            return at + 1
        return self._literal(text, at)

    def _literal(self, text: str, at: int) -> int:
        found = _LITERAL.match(text, at)
        if found is None or found.end() - at > _MAX_LITERAL:
            return self._fail(at)
        if found.end() == len(text):
            return _MORE
        if not _is_literal(found.group()):
            return self._fail(at)
        self._put(found.group())
        self._step = self._after
        return found.end()

    def _first_key(self, text: str, at: int) -> int:
        return self._close(at) if text[at] == "}" else self._begin_key(text, at)

    def _next_key(self, text: str, at: int) -> int:
        if text[at] != "}":
            return self._begin_key(text, at)
        self._drop_comma()
        return self._close(at)

    def _begin_key(self, text: str, at: int) -> int:
        if text[at] == '"':
            self._put_comma('"')
            self._key = []
            self._in_key, self._step = True, self._string
            return at + 1
        found = _BARE_KEY.match(text, at)
        if found is None or found.end() - at > _MAX_KEY:
            return self._fail(at)
        end = _SPACE.match(text, found.end()).end()  # type: ignore[union-attr]
        if end == len(text):
            return _MORE if end - at <= _MAX_KEY else self._fail(at)
        if text[end] != ":":
            return self._fail(at)
        self._put_comma(f'"{found.group()}"')
        self._key = [found.group()]
        self.repairs[notes.BARE_KEY] = None
        self._step = self._colon
        return found.end()

    def _colon(self, text: str, at: int) -> int:
        if text[at] != ":":
            return self._fail(at)
        self._put(":")
        self._step = self._value
        return at + 1

    def _first_item(self, text: str, at: int) -> int:
        if text[at] == "]":
            return self._close(at)
        self._step = self._value
        return at

    def _next_item(self, text: str, at: int) -> int:
        if text[at] == "]":
            self._drop_comma()
            return self._close(at)
        self._put_comma("")
        self._step = self._value
        return at

    def _after(self, text: str, at: int) -> int:
        """A value has ended: a comma or a closer comes."""
        mark, opened = text[at], self._stack[-1]
        if mark == ",":
            self._comma = ","
            if opened == "(" or (self._held is not None and len(self._stack) == 1):
                self._step = self._key_or_member
            else:
                self._step = self._next_key if opened == "{" else self._next_item
            return at + 1
        if opened == "(":
            self._end_bare_list()
            if mark == "]":  # only the opening bracket was missing
                return at + 1
            opened = "{"
        return self._close(at) if mark == _CLOSER[opened] else self._fail(at)

    def _key_or_member(self, text: str, at: int) -> int:
        """After a comma where a list without brackets may be: a key ends the list, anything else is its next member."""
        kind = self._look(text, at)
        if kind is None:
            return _MORE
        if kind == "member":
            self._begin_bare_list()
            self._put_comma("")
            self._step = self._value
            return at
        if self._stack[-1] == "(":
            self._end_bare_list()
        self._release()
        self._step = self._next_key
        return at

    def _look(self, text: str, at: int) -> str | None:
        """Whether a "key", a "member" or the "end" stands there; None if more text must come to tell."""
        if text[at] == "}":
            return "end"
        found = (_STRING if text[at] == '"' else _BARE_KEY).match(text, at)
        if found is None:
            undecided = text[at] == '"' and len(text) - at <= _MAX_LOOK
            return None if undecided else "key" if text[at] == '"' else "member"
        end = _SPACE.match(text, found.end()).end()  # type: ignore[union-attr]
        if end == len(text):
            return None if end - at <= _MAX_LOOK else "key"
        return "key" if text[end] == ":" else "member"

    def _string(self, text: str, at: int) -> int:
        end = _PLAIN.match(text, at).end()  # type: ignore[union-attr]
        if end > at:
            run = text[at:end]
            self._put(run)
            if self._in_key and len(self._stack) == 1:
                self._key.append(run)
            return end
        mark = text[at]
        if mark == '"':
            self._put('"')
            self._step = self._colon if self._in_key else self._after
            return at + 1
        return self._escape(text, at) if mark == "\\" else self._control(mark, at)

    def _escape(self, text: str, at: int) -> int:
        if at + 1 == len(text):
            return _MORE
        mark = text[at + 1]
        if mark in '"\\/bfnrt':
            self._put(text[at : at + 2])
            return at + 2
        if mark == "u":
            digits = _HEX.match(text, at + 2).group()  # type: ignore[union-attr]
            if len(digits) == 4:
                return self._halves(text, at, digits) if _HALF(digits) else self._whole_unit(text, at)
            if at + 2 + len(digits) == len(text):
                return _MORE
        self._put("\\\\")
        self.repairs[notes.BACKSLASH] = None
        return at + 1

    def _whole_unit(self, text: str, at: int) -> int:
        self._put(text[at : at + 6])
        return at + 6

    def _halves(self, text: str, at: int, digits: str) -> int:
        """A `u` escape that is half of a character: as it is where the other half follows, else U+FFFD."""
        if _FIRST_HALF(digits):
            second = text[at + 6 : at + 12]
            if _SECOND_HALF(second):
                self._put(text[at : at + 12])
                return at + 12
            if len(second) < 6 and "\\u".startswith(second[:2]):
                return _MORE
        self._put("\\ufffd")
        self.repairs[notes.SURROGATE] = None
        return at + 6

    def _control(self, mark: str, at: int) -> int:
        if mark in "\r\n" and not self._mend_lines:
            return self._fail(at)
        self._put({"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(mark) or f"\\u{ord(mark):04x}")
        self.repairs[notes.CONTROL] = None
        return at + 1

    def _open(self, mark: str, at: int) -> int:
        if len(self._stack) >= MAX_DEPTH:
            return self._fail(at)
        self._stack.append(mark)
        self._put(mark)
        self._step = self._first_key if mark == "{" else self._first_item
        return at + 1

    def _close(self, at: int) -> int:
        if len(self._stack) == 1:
            self._release()
        self._put(_CLOSER[self._stack.pop()])
        self._step = self._after
        self.done = not self._stack
        return at + 1

    def _fail(self, at: int) -> int:
        self._release()
        self._put_comma("")
        self.fault = True
        return at

    # What goes out, and what waits.

    def _put(self, text: str) -> None:
        if self._held is None:
            self._out.append(text)
            return
        self._held.append(text)
        self._held_size += len(text)
        if self._held_size > MAX_HELD:
            self._release()

    def _put_comma(self, text: str) -> None:
        self._put(self._comma + text)
        self._comma = ""

    def _drop_comma(self) -> None:
        self._put(self._comma[1:])
        self._comma = ""
        self.repairs[notes.COMMA] = None

    def _take(self) -> str:
        text = "".join(self._out)
        self._out.clear()
        return text

    def _release(self) -> None:
        """What was held stands alone."""
        if self._held is not None:
            self._out += self._held
            self._held = None

    def _hold_if_alone(self, mark: str) -> None:
        """Begin to hold a value whose parameter is declared as a list, and which is none."""
        wanted = types_of(property_of(self._schema, "".join(self._key), self._schema), self._schema)
        if "array" in wanted and mark != "[" and not (_types_begun_by(mark) & wanted):
            self._held, self._held_size = [], 0

    def _begin_bare_list(self) -> None:
        if self._stack[-1] == "(":
            return
        self._out.append("[")
        self._release()
        self._stack.append("(")
        self.repairs[notes.LIST] = None

    def _end_bare_list(self) -> None:
        self._stack.pop()
        self._put("]")

    def _space(self, text: str, at: int) -> int:
        """Blanks go out as they are, before the object not at all, after a comma together with it."""
        end = _SPACE.match(text, at).end()  # type: ignore[union-attr]
        if self._comma:
            self._comma += text[at:end]
        elif self._stack:
            self._put(text[at:end])
        return end


def _is_literal(text: str) -> bool:
    """Whether it is a literal that strict parsers read: 1e999 is a number to JSON's grammar and to none that keeps doubles."""
    return _WHOLE_LITERAL(text) is not None and (text[-1] in "el" or isfinite(float(text)))


def _types_begun_by(mark: str) -> frozenset[str]:
    if mark == "{":
        return frozenset({"object"})
    if mark == '"':
        return frozenset({"string"})
    if mark in "tf":
        return frozenset({"boolean"})
    return frozenset({"null"}) if mark == "n" else frozenset({"number", "integer"})
