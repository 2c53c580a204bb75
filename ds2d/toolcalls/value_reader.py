"""The value of one parameter between its tags, as it arrives.

Rule: only its own closing tag ends a value, so markup inside it is text. Two liberties that models take are allowed for
(toolcalls.md 1, format 5): the closing tag may be missing where the next parameter or the end of the call follows.
Surprise: a value may itself quote calls (a file about this format, say). Calls that open inside are followed until they
close; a lone closing tag of the call ends the value only where the call could really end there.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import msgspec

from ds2d.toolcalls.drift import near
from ds2d.toolcalls.source import EndOfTextError, Reading, Source, after_blanks, more, peek
from ds2d.toolcalls.tags import MAX_SHELL, OPENING, Tag, half, lex, unfinished
from ds2d.toolcalls.values import CDATA_CLOSE, begun_entity, quoted, unescaped

CALLS = frozenset({"toolcall", "functioncall", "tooluse", "invoke"})
_WRAPPERS = frozenset({"toolcalls", "functioncalls"})
_DSML_WRAPPERS = _WRAPPERS | {"calls", "tool"}
STRUCTURE = CALLS | _DSML_WRAPPERS
"""Names of tags that hold calls or are calls; `is_wrapper` tells whether one is such a tag in its family."""

MAX_BRACKETS = 1 << 14
"""Brackets of one value that are looked at; behind them only the exact closing tag ends it."""

_LOOK = 2 * MAX_SHELL
_BRACKET = re.compile(rf"[{OPENING}]")
_CLOSES = re.compile(r".[ \t]?[/／]").match
_CDATA = re.compile(r"[<＜]\s?[!！]?\s?[\[［【]\s?CDATA\s?[\[［【]", re.IGNORECASE)
_CDATA_BEGUN = re.compile(r"[<＜]\s?[!！]?\s?(?:[\[［【]\s?(?:C(?:D(?:A(?:T(?:A\s?)?)?)?)?)?)?", re.IGNORECASE).fullmatch

Put = Callable[[str, bool], None]
"""Takes a piece of the value; True: it stood in CDATA."""


def is_wrapper(tag: Tag) -> bool:
    """Whether the tag is one that holds calls."""
    return tag.name in (_DSML_WRAPPERS if tag.dsml else _WRAPPERS)


def is_call(tag: Tag) -> bool:
    """Whether the tag is a call."""
    return tag.name in CALLS


class Place(msgspec.Struct, frozen=True):
    """Where a value stands: its opening tag, the call's, and which names a next parameter could have."""

    opening: Tag
    call: Tag
    may_follow: Callable[[Tag], bool]


def read_value(source: Source, place: Place, put: Put) -> Reading[bool]:
    """Read up to and with the closing tag: True. Up to what ends the value in its stead, if that is missing: False."""
    inner = _Quoted()
    names = {place.opening.name, "parameter", *STRUCTURE}
    blank_line = True  # nothing but blanks stands before on this line
    while True:
        yield from peek(source)
        found = _BRACKET.search(source.text, source.at)
        end = found.start() if found else len(source.text)
        if end > source.at:
            piece = source.text[source.at : end]
            put(piece, False)
            last = piece.rpartition("\n")
            blank_line = not last[2].strip() and (bool(last[1]) or blank_line)
            source.at = end
            continue
        if (yield from _cdata(source, put)):
            continue
        if inner.brackets == MAX_BRACKETS:
            yield from _to_exact_end(source, f"</{place.opening.raw}>", put)
            return True
        tag = lex(source.text, source.at)
        awaited = None if _CLOSES(source.text, source.at) else names  # a closing tag may be nearly the one
        if tag is None and not source.ended and unfinished(source.text, source.at, awaited):
            yield from more(source)
            continue
        if tag is None and source.ended and half(source.text, source.at, names):
            raise EndOfTextError  # it stays, and the caller says what it means
        inner.brackets += 1
        if tag is not None and (yield from _ends(source, place, inner, tag, blank_line)):
            return tag.closes(place.opening)
        piece = source.text[source.at] if tag is None else tag.shell
        source.at += len(piece)
        put(piece, False)
        blank_line = False


def _to_exact_end(source: Source, end: str, put: Put) -> Reading[None]:
    """Read up to and with the closing tag, which must be exactly this."""
    yield from _up_to(source, end, put, literal=False)
    source.at += len(end)


def _up_to(source: Source, end: str, put: Put, *, literal: bool) -> Reading[None]:
    """Read up to this text. Where it does not come, its beginning stays at the end."""
    while (at := source.text.find(end, source.at)) < 0:
        at = max(source.at, len(source.text) - len(end) + 1)
        while source.ended and not end.startswith(source.text[at:]):
            at += 1
        put(source.text[source.at : at], literal)
        source.at = at
        yield from more(source)
    put(source.text[source.at : at], literal)
    source.at = at


class _Quoted:
    """Calls and parameters that have opened inside a value."""

    def __init__(self) -> None:
        self.calls = 0
        self.parameters = 0
        self.brackets = 0


def _ends(source: Source, place: Place, inner: _Quoted, tag: Tag, blank_line: bool) -> Reading[bool]:
    """Whether this tag ends the value; its own closing tag is taken, any other stays."""
    if tag.closes(place.opening) and not inner.parameters:
        source.at = tag.end
        return True
    if tag.dsml != place.call.dsml:
        return False
    if _nearly_closes(tag, place.opening) and (yield from _fits_behind(source, tag, _ends_parameter)):
        source.at += len(tag.shell)
        return True
    if tag.name == "parameter":
        if not tag.closing and not inner.calls and place.opening.name == "parameter" and place.may_follow(tag):
            return True
        inner.parameters += -1 if tag.closing and inner.parameters else 0 if tag.closing or tag.empty else 1
    elif is_call(tag) or is_wrapper(tag):
        if tag.closing and not inner.calls:
            alone = is_call(tag) and blank_line and (yield from _line_ends(source, tag))
            return alone or (yield from _fits_behind(source, tag, _ends_call))
        inner.calls += -1 if tag.closing else 0 if tag.empty else 1
    return False


def _nearly_closes(tag: Tag, opening: Tag) -> bool:
    """A closing tag with a letter too few or too many, or without its slash."""
    if tag.closing:
        return near(tag.name, opening.name)
    return tag.name == opening.name == "parameter" and not tag.attributes and not tag.empty


def _ends_parameter(following: Tag) -> bool:
    return is_call(following) or is_wrapper(following) if following.closing else following.name == "parameter"


def _ends_call(following: Tag) -> bool:
    return is_wrapper(following) if following.closing else is_call(following)


def _line_ends(source: Source, tag: Tag) -> Reading[bool]:
    while len(source.text) == source.at + len(tag.shell) and not source.ended:
        yield from more(source)
    return source.text[source.at + len(tag.shell) :][:1] in ("\n", "\r")


def _fits_behind(source: Source, tag: Tag, fits: Callable[[Tag], bool]) -> Reading[bool]:
    """Whether a tag could end what it seems to end: what follows it must fit. Nothing is taken."""
    start = source.at + len(tag.shell)
    while True:
        at = after_blanks(source.text, start)
        if at - start > _LOOK:
            return False
        if at == len(source.text):
            if source.ended:
                return True
        elif source.text[at] not in OPENING:
            return False
        else:
            following = lex(source.text, at)
            if following is not None:
                return following.dsml == tag.dsml and fits(following)
            if source.ended or not unfinished(source.text, at, STRUCTURE | {"parameter"}):
                return False
        yield from more(source)
        start = source.at + len(tag.shell)


def _cdata(source: Source, put: Put) -> Reading[bool]:
    """Take a CDATA section, if one stands here."""
    while (found := _CDATA.match(source.text, source.at)) is None:
        if source.ended or not _CDATA_BEGUN(source.text, source.at):
            return False
        yield from more(source)
    source.at = found.end()
    while True:
        yield from _up_to(source, CDATA_CLOSE, put, literal=True)
        ends = yield from _section_ends(source)
        source.at += len(CDATA_CLOSE)
        if ends:
            return True
        put(CDATA_CLOSE, True)


def _section_ends(source: Source) -> Reading[bool]:
    """Whether `]]>` ends the section: code such as `a[b[0]]>c` holds it too, and then no tag follows."""
    while True:
        at = after_blanks(source.text, source.at + len(CDATA_CLOSE))
        if at < len(source.text):
            return source.text[at] in OPENING
        if source.ended:
            return True
        yield from more(source)


class Whole:
    """Collects a value that must be whole before it can be told what it is."""

    def __init__(self) -> None:
        self._plain: list[str] = []
        self._sections: list[str] = []
        self.literal = False

    def put(self, piece: str, literal: bool) -> None:
        """Take a piece. Beside CDATA, white space is layout."""
        self.literal = self.literal or literal
        (self._sections if literal else self._plain).append(piece)

    def text(self, *, closed: bool) -> str:
        """The value. Without its closing tag, white space at its end is the layout of what follows."""
        if self.literal:
            return "".join(self._sections)
        text = "".join(self._plain)
        return text if closed else text.rstrip()


class Streamed:
    """Hands a value that can only be a string on as it comes, as the inside of a JSON string."""

    def __init__(self, emit: Callable[[str], None], *, entities: bool) -> None:
        self._emit = emit
        self._entities = entities
        self._blank = ""  # white space so far: layout if CDATA follows, or if the closing tag is missing
        self._wait = ""
        self._begun = False
        self._literal = False

    def put(self, piece: str, literal: bool) -> None:
        """Take a piece."""
        if literal:
            self._literal, self._blank, self._begun = True, "", True
            self._send(self._flush() + piece)
        elif not piece.strip():
            self._blank += piece
        else:
            text, self._begun = self._blank + piece, True
            solid = len(text.rstrip())
            text, self._blank = text[:solid], text[solid:]
            self._send(self._decoded(text) if self._entities and not self._literal else text)

    def finish(self, *, closed: bool) -> None:
        """The value has ended, by its closing tag or without one."""
        self._send(self._flush() + (self._blank if closed and not self._literal else ""))

    def _decoded(self, text: str) -> str:
        text = self._wait + text
        end = begun_entity(text)
        self._wait = text[end:]
        return unescaped(text[:end])

    def _flush(self) -> str:
        text, self._wait = self._wait, ""
        return text

    def _send(self, text: str) -> None:
        if text:
            self._emit(quoted(text)[1:-1])
