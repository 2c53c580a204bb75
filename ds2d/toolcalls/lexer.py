"""Where in running text a call may begin, and where the text is code that only quotes one.

Rule: new text is searched once, by one bounded pattern, for places where a block could begin; only those are looked at in
Python. Text that may still become such a place at its end is held, at most `WINDOW` characters.
Surprise: whether a place counts depends on what stood before it (a fence, a backtick, the comma of a JSON list), so the
context keeps the last characters that went by, and nothing else.
"""

from __future__ import annotations

import re
from collections import deque

from ds2d.toolcalls.formats import OPENERS
from ds2d.toolcalls.json_calls import KEYS
from ds2d.toolcalls.source import run_end
from ds2d.toolcalls.tags import BARS, BRACKETS, MAX_SHELL, OPENING, unfinished

WINDOW = MAX_SHELL
"""Characters at the end of the text that may be held because a block could begin in them."""

SPECIAL = re.compile(rf"[{OPENING}`~{{\[]").search
"""Finds a character that text without calls, fences and inline code has none of: the fast path's first question."""

MAX_RUNS = 256
"""Backtick runs of one paragraph that are counted; in a storm of them nothing counts as quoted."""

_LOOK_BACK = 64
_SPECIALS = re.compile(r"[<{[`~]").findall
_SHORT = 64
"""Characters up to which listing the special ones is cheaper than counting each kind."""

_RUN = re.compile(r"`+|\n")
_TICKS = re.compile(r"`+").findall
_BLANK_LINE = re.compile(r"\n[ \t]*\n")
_PAIR_WORD = "function.name"

_BEGINS = (
    rf"(?<=[{OPENING}])(?=[ /／]?[{BARS}]|[^<>\n]{{0,24}}?(?i:tool|function|invoke|calls|dsml))"
    r"|(?<=`)(?=``)|(?<=~)(?=~~)"
    rf"|(?<=\n)(?=[^\S\n]*+(?ai:{re.escape(_PAIR_WORD)}))"
    rf"|(?<=[{{\[])(?=\s{{0,64}}(?:\{{\s{{0,64}})?\"(?:{'|'.join(KEYS)})\"\s{{0,16}}:)"
)
PLACE = re.compile(rf"[{OPENING}`~\n{{\[](?:{_BEGINS})")
"""Begins with one set of characters, so that the search is a scan, and looks on from there."""

_PAIR = re.compile(rf"[^\S\n]*+(?ai:{re.escape(_PAIR_WORD)})")
_FENCE_RUN = {"`": re.compile(r"`{3,}"), "~": re.compile(r"~{3,}")}

JSON_HEAD = re.compile(rf"[{{\[]\s{{0,64}}(?:\{{\s{{0,64}})?\"({'|'.join(KEYS)})\"\s{{0,16}}:")
_JSON_GOES_ON = r"\s{0,64}(?:\{\s{0,64})?(?:\"([a-z_]{0,16})(?:\"\s{0,16})?)?"
JSON_BEGUN = re.compile(rf"[{{\[]{_JSON_GOES_ON}").fullmatch
_MAY_BEGIN = (
    rf"(?<=[{OPENING}])(?=[^{BRACKETS}]*+\Z)"
    rf"|(?<=[{{\[])(?={_JSON_GOES_ON}\Z)"
    r"|(?<=`)(?=`*+\Z|``)|(?<=~)(?=~*+\Z|~~)"
)
_CANDIDATE = re.compile(rf"[{OPENING}`~{{\[](?:{_MAY_BEGIN})").search
"""Finds every character from which the text may have to be held, and few others: the rest of `held_from` is for those."""

_OF_NOTE = re.compile(rf"[{OPENING}`~\n{{\[](?:{_BEGINS}|{_MAY_BEGIN})").search
"""Finds what `PLACE` finds, and candidates."""

_BEFORE_CLOSING = re.compile(r"[ \t>]*").fullmatch
_BEFORE_FENCE = re.compile(r"[ \t>]*(?:(?:[-*+]|[0-9]{1,9}[.)])[ \t]+)?[ \t]*").fullmatch
_CODE_BEFORE_JSON = re.compile(
    r"(?:[=(\[{+|]\s*"  # assigned, passed, listed, a cell of a table
    r"|[\\$@&'\"]"  # in a string, interpolated
    r"|[}\]\"'0-9]\s*,\s*|\b(?:true|false|null|None|True|False),\s*"  # the next member
    r"|(?:\A|[{,])\s*(?:\"[^\"]*\"|'[^']*')\s*:\s*"  # the value of a key
    r"|\b(?:return|yield|await|case|throw)\s+)\Z"
).search
MAX_REST_OF_LINE = 4096
"""Characters behind a block in which the backtick that would make it a quotation is looked for."""

MAX_INFO = 80
"""Characters of a fence's first line, above which it is taken as it stands."""


class Context:
    """What stands before the text that comes next.

    `line_start`: only blanks since the last line feed. `quotation`: the line began with ">". `fences`: the runs that opened
    the fences we are in, outermost first.
    """

    def __init__(self) -> None:
        self.line_start = True
        self.quotation = False
        self.fences: list[str] = []
        self._recent: deque[str] = deque(maxlen=_LOOK_BACK)
        self.remember = self._recent.append
        """Text goes by in which no mark stands, in the middle of a line."""
        self._run = 0  # length of the backtick run that has no partner yet
        self._run_here = False
        self._runs = 0

    def passes_lines(self, text: str) -> bool:
        """Whether text without a special character passes although a line begins or goes on with it: no pair of lines
        begins in it, and no backtick is open. If so it is remembered.
        """
        last = text[text.rfind("\n") + 1 :].lstrip()
        if self._runs or last[:1] in ("f", "F") or ("." in text and "unction." in text.lower()):
            return False
        self.line_start, self.quotation = not last, last[:1] == ">"
        self.remember(text)
        return True

    def passes_in_fence(self, text: str) -> bool:
        """Whether text holds no mark that could close the fence we are in, or open one inside; if so it is remembered."""
        if self.fences[-1][0] in text:
            return False
        self.remember(text)
        if self.line_start or "\n" in text:
            self._look_at_line(text)
        return True

    def note(self, text: str) -> None:
        """Any text."""
        self.remember(text)
        feed = "\n" in text
        if not self.fences and ("`" in text or (feed and self._runs)):
            self._count(text)
        if feed or self.line_start:
            self._look_at_line(text)

    def restart(self) -> None:
        """A block has ended: what comes begins anew."""
        self._recent.clear()
        self.line_start, self.quotation, self._run, self._runs = True, False, 0, 0

    def line(self) -> str:
        """The current line so far; where it is long, its end."""
        recent = self._before()
        return recent[recent.rfind("\n") + 1 :]

    def quote(self) -> int:
        """Length of the backtick run that may quote what comes now; negative if it must close right behind; 0: none."""
        recent = self._before()
        adjacent = len(recent) - len(recent.rstrip("`"))
        if self._run and (self._run_here or not self.line_start):
            return self._run
        return -(self._run or adjacent)

    def in_code(self) -> bool:
        """Whether what stands before says that an object here is part of a larger one, or of a program."""
        return _CODE_BEFORE_JSON(self._before()) is not None

    def _look_at_line(self, text: str) -> None:
        """Text that begins a line, or goes on where only blanks stand."""
        last = text[text.rfind("\n") + 1 :].lstrip()
        self.line_start = not last
        self.quotation = last.startswith(">")

    def _before(self) -> str:
        return "".join(self._recent)[-_LOOK_BACK:]

    def _count(self, text: str) -> None:
        """Pair backtick runs, as Markdown does: of the same length, within one paragraph."""
        if "\n" not in text:
            for run in _TICKS(text):
                if self._runs > MAX_RUNS:
                    return
                self._pair(len(run))
            return
        at, blank = 0, self.line_start
        while True:
            if self._runs > MAX_RUNS:  # a storm: only its end counts
                end = _end_of_paragraph(text, at, blank)
                if end < 0:
                    return
                at, blank, self._runs = end, True, 0
            found = _RUN.search(text, at)
            if found is None:
                return
            start, end = found.span()
            blank = blank and (start == at or text[at:start].isspace())
            at = end
            if text[start] == "\n":
                if blank:
                    self._runs = self._run = 0
                self._run_here, blank = False, True
            else:
                blank = False
                self._pair(end - start)

    def _pair(self, run: int) -> None:
        self._runs += 1
        if self._runs > MAX_RUNS:
            self._run = 0
        elif not self._run:
            self._run, self._run_here = run, True
        elif self._run == run:
            self._run = 0


def _end_of_paragraph(text: str, at: int, blank: bool) -> int:
    """Behind the next blank line; -1 if none ends in this text. `blank`: the line up to text[at] is blank so far."""
    if blank:
        rest = text[at:].lstrip(" \t")
        if rest.startswith("\n"):
            return len(text) - len(rest) + 1
    found = _BLANK_LINE.search(text, at)
    return found.end() if found else -1


def closes_quote(rest: str, quote: int, *, final: bool) -> bool | None:
    """Whether the line behind a block holds the backtick run that closes the quotation round it; None if more must come.

    `quote` is what `Context.quote` said before the block. `final`: no more will come, or enough has been looked at.
    """
    feed = rest.find("\n")
    line, final = (rest[:feed], True) if feed >= 0 else (rest, final)
    if quote < 0:
        run = run_end(line, 0) if line.startswith("`") else 0
        return None if run == len(line) and not final else run == -quote
    for found in _RUN.finditer(line):
        if found.end() == len(line) and not final:
            return None
        if found.end() - found.start() == quote:
            return True
    return False if final else None


def specials(text: str) -> int:
    """How many special characters there are."""
    return len(_SPECIALS(text)) if len(text) <= _SHORT else sum(map(text.count, "<{[`~"))


def pair_at(text: str, at: int) -> int:
    """Where a pair of lines begins, if nothing but blanks stands between it and text[at]; -1 if none does."""
    found = _PAIR.match(text, at)
    return found.end() - len(_PAIR_WORD) if found else -1


def fence_run(text: str, at: int, fence: str) -> re.Match[str] | None:
    """The next run that could close a fence which `fence` opened, or open one in it."""
    return _FENCE_RUN[fence[0]].search(text, at)


def may_close_fence(before: str) -> bool:
    """Whether only what may stand before a fence's last line stands before it."""
    return _BEFORE_CLOSING(before) is not None


def clear_until(text: str, context: Context) -> int:
    """How much of a text that comes anew is neither a place where a block begins nor held; -1 if there is such a place."""
    found = _OF_NOTE(text)
    if found is None and not context.line_start and "\n" not in text:
        return len(text)
    if found is not None and PLACE.search(text, found.start()) is not None:
        return -1
    if context.line_start and pair_at(text, 0) >= 0:
        return -1
    return _pair_held_from(text, 0, context) if found is None else held_from(text, 0, context)


def held_from(text: str, at: int, context: Context) -> int:
    """From where on the end of the text must be held because a block may begin in it; its length if nowhere."""
    low = max(at, len(text) - WINDOW)
    while (found := _CANDIDATE(text, low)) is not None:
        if _may_begin(text, found.start(), at, context):
            return found.start()
        low = found.start() + 1
    return _pair_held_from(text, at, context)


def _pair_held_from(text: str, at: int, context: Context) -> int:
    """The same for a pair of lines alone."""
    start = text.rfind("\n", at) + 1
    if start or context.line_start:
        start = max(start, at)
        word = text[start:].lstrip()
        if word and len(word) < len(_PAIR_WORD) and _PAIR_WORD.startswith(word.lower()):
            return len(text) - len(word)
    return len(text)


def _may_begin(text: str, place: int, at: int, context: Context) -> bool:
    mark = text[place]
    if mark in OPENING:
        return unfinished(text, place, OPENERS)
    if mark in "{[":
        begun = JSON_BEGUN(text, place)
        return begun is not None and any(key.startswith(begun.group(1) or "") for key in KEYS)
    if mark in "`~":
        return _fence_unfinished(text, place, at, context)
    return False


def _fence_unfinished(text: str, place: int, at: int, context: Context) -> bool:
    """A run that touches the end may grow; a fence's first line must be whole to tell what it is."""
    run = run_end(text, place) - place
    if place + run == len(text):
        return run <= WINDOW
    if run < 3 or "\n" in text[place:] or len(text) - place > MAX_INFO:
        return False
    return may_open_fence(text, place, at, context)


def may_open_fence(text: str, place: int, at: int, context: Context) -> bool:
    """Whether only what may stand before a fence stands before text[place] on its line."""
    start = text.rfind("\n", at, place) + 1
    before = text[start:place] if start else context.line() + text[at:place]
    return _BEFORE_FENCE(before) is not None
