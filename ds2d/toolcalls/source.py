"""What a reader reads from: text that arrives in pieces, and what can be given back if it was no call.

A reader is a generator: it takes from the source and yields when it needs more text. That keeps the grammar of nested
formats readable as code (a table of states would need its own stack), and a reader that waits costs nothing.
Rule: from the last mark on everything is kept, up to `MAX_KEPT`, so that text which turns out to be no call can still be
shown. After `forget` nothing is kept, because a call has begun and is never taken back.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Generator
from typing import TypeVar

from ds2d.toolcalls.tags import MAX_SHELL, OPENING, Tag, lex, unfinished

T = TypeVar("T")

Reading = Generator[None, None, T]
"""A part of a reader: waits by yielding, returns what it read."""

MAX_KEPT = 1024 * 1024
"""Bytes of text that may be held back while it is not known whether it is a call (toolcalls.md, reliability.md)."""


_PORTION = 4096
_MAX_WIDTH = 4
"""Bytes of a character at most."""

_FENCE = 3
_SPACE = re.compile(r"\s*+")
_SAME = re.compile(r"(.)\1*+", re.DOTALL)
_CLOSERS = re.compile(r"[\s\]}),;\"']{0,32}+")


class NotACallError(Exception):
    """What was read is text; reading goes on behind it."""


class EndOfBlockError(Exception):
    """The block has ended, although not as its format says; its calls count, and reading goes on here."""


class EndOfTextError(Exception):
    """A reader wants more and there is no more."""


class Source:
    """Text not read yet is `text[at:]`. `ended`: nothing will be added."""

    def __init__(self) -> None:
        self.text = ""
        self.at = 0
        self.ended = False
        self._mark = -1  # where in `text` the kept part begins, -1 if nothing is kept
        self._older: list[str] = []  # what was kept and is no more in `text`
        self._older_size = 0

    def __bool__(self) -> bool:
        return self.at < len(self.text)

    def feed(self, text: str) -> None:
        """Add a piece."""
        if self._mark >= 0:
            self._keep(self.text[self._mark : self.at])
            self._mark = 0
        self.text = self.text[self.at :] + text if self.at < len(self.text) else text
        self.at = 0

    def take(self) -> str:
        """Some of what there is: not all of a long text, because most of it may have to be given back."""
        start, self.at = self.at, min(self.at + _PORTION, len(self.text))
        return self.text[start : self.at]

    def clear(self) -> None:
        """Forget all there is."""
        self.text, self.at = "", 0
        if self._mark >= 0:
            self.forget()

    def give_back(self, rest: str) -> None:
        """The end of what was taken, to be read again."""
        missing = len(rest) - self.at
        self.at = max(0, self.at - len(rest))
        if missing > 0:  # some of it came with an earlier piece
            self.text = rest[:missing] + self.text
            if self._mark >= 0:
                kept = "".join(self._older)
                self._older, self._older_size, self._mark = [], 0, 0
                self._keep(kept[: len(kept) - missing])

    def mark(self) -> None:
        """Keep what is read from here on, and nothing before."""
        self._mark, self._older, self._older_size = self.at, [], 0

    def forget(self) -> None:
        """Keep nothing."""
        self._mark, self._older, self._older_size = -1, [], 0

    def kept(self) -> str:
        """What was read since the mark."""
        return "" if self._mark < 0 else "".join(self._older) + self.text[self._mark : self.at]

    @property
    def too_much(self) -> bool:
        """Whether what was read since the mark is more than may be held back. The same however the text is cut."""
        if self._mark < 0 or self._older_size + (self.at - self._mark) * _MAX_WIDTH <= MAX_KEPT:
            return False
        return self._older_size + _bytes(self.text[self._mark : self.at]) > MAX_KEPT

    def _keep(self, text: str) -> None:
        if text:
            self._older.append(text)
            self._older_size += _bytes(text)


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def after_blanks(text: str, at: int) -> int:
    """Where white space that begins at text[at] ends."""
    found = _SPACE.match(text, at)
    return found.end() if found else at


def run_end(text: str, at: int) -> int:
    """Where the run of the character at text[at] ends."""
    found = _SAME.match(text, at)
    return found.end() if found else at


def more(source: Source) -> Reading[None]:
    """Wait for the next piece. Raises EndOfTextError when there is none."""
    if source.ended:
        raise EndOfTextError
    yield


def peek(source: Source) -> Reading[str]:
    """The next character, not taken."""
    while not source:
        yield from more(source)
    return source.text[source.at]


def blanks(source: Source) -> Reading[str]:
    """Take white space; the character behind it, not taken."""
    while True:
        source.at = after_blanks(source.text, source.at)
        if source:
            return source.text[source.at]
        yield from more(source)


def tag(source: Source, names: Collection[str] | None) -> Reading[Tag | None]:
    """Take the tag that stands here, of any name; None, nothing taken, if there is none.

    Waits for the rest of a tag only while it may become one of `names` (normalised); None: of any name. A caller that
    gives names must do the same with a tag of another name as with none. A doubled bracket is taken in any case.
    """
    doubled = False
    while True:
        if source and source.text[source.at] not in OPENING:
            return None
        if not doubled and source.text[source.at + 1 : source.at + 2] in tuple(OPENING):
            source.at += 1
            doubled = True
        found = lex(source.text, source.at)
        if found is not None:
            source.at = found.end
            return found
        if source and not unfinished(source.text, source.at, names):
            return None
        yield from more(source)


def closers(source: Source) -> Reading[str]:
    """Take blanks, and the closers and commas that models write too many of before a tag or a fence; then as `blanks`."""
    while True:
        found = _CLOSERS.match(source.text, source.at)
        end = found.end() if found else source.at
        if end < len(source.text):
            if source.text[end : end + 1] in (*OPENING, "`"):
                source.at = end
            return (yield from blanks(source))
        yield from more(source)


def line(source: Source, limit: int = MAX_SHELL) -> Reading[str]:
    """Take the text up to and with the next line feed. Raises NotACallError if the line is longer than `limit`."""
    while (end := source.text.find("\n", source.at, source.at + limit)) < 0:
        if len(source.text) - source.at >= limit:
            raise NotACallError
        yield from more(source)
    text = source.text[source.at : end + 1]
    source.at = end + 1
    return text


def fence(source: Source) -> Reading[bool]:
    """Take a run of three or more backticks with its info word and line end, if one stands here."""
    if (yield from blanks(source)) != "`":
        return False
    while (run := _run(source)) == len(source.text) - source.at and run <= MAX_SHELL:
        yield from more(source)
    if not _FENCE <= run <= MAX_SHELL:
        raise NotACallError
    yield from line(source)
    return True


def closing_fence(source: Source) -> Reading[bool]:
    """Take blanks and a run of three or more backticks, if one stands here; what follows it stays. At the end of the text, half
    of a run counts."""
    if (yield from blanks(source)) != "`":
        return False
    while (run := _run(source)) == len(source.text) - source.at and run <= MAX_SHELL and not source.ended:
        yield from more(source)
    if run > MAX_SHELL or (run < _FENCE and not (source.ended and run == len(source.text) - source.at)):
        return False
    source.at += run
    return True


def _run(source: Source) -> int:
    return run_end(source.text, source.at) - source.at
