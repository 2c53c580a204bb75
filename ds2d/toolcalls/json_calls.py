"""Calls written as JSON: one object, a list of items, or `{"tool_calls": [...]}` (toolcalls.md 1, format 1).

Rule: an object is a call once its name and the beginning of its arguments are known; a key that no call has, before that,
makes it text, and `role`, `content` or `tool_call_id` make it an echo. `marked` says that a marker of some format stood
before, so that the object can be nothing else; without it an undeclared name is a call only in the two canonical spellings.
Surprise: tool definitions look like calls (`name`, then `parameters`); their first inner key tells them apart.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from ds2d.toolcalls import notes
from ds2d.toolcalls.calls import Calls
from ds2d.toolcalls.declared import MAX_NAME
from ds2d.toolcalls.json_reader import JsonReader
from ds2d.toolcalls.json_text import Balance, StringReader
from ds2d.toolcalls.source import (
    EndOfBlockError,
    EndOfTextError,
    NotACallError,
    Reading,
    Source,
    blanks,
    more,
    peek,
    tag,
)
from ds2d.toolcalls.tags import OPENING

ARGUMENTS = ("arguments", "input", "args", "parameters", "params")
KEYS = ("tool_calls", "name", "function", "id", "type", "index", "call_id", *ARGUMENTS)
"""The keys that an object may begin with if it is a call."""

ECHO = ("role", "content", "tool_call_id")
_SCALARS = ("id", "type", "index", "call_id")
_CANONICAL = ("arguments", "input")
_DEFINITION = ("type", "properties", "required", "$schema", "additionalProperties")
_FIRST_KEY = re.compile(r'\{\s*"([^"\\]{0,32})"')
_MAY_BE_FIRST_KEY = re.compile(r'\{\s*(?:"[^"\\]{0,32})?').fullmatch
_LITERAL = re.compile(r"[-+.0-9A-Za-z]{1,64}")
_MAX_STRING = 4 * MAX_NAME
_SPLIT = re.compile(rf"[{OPENING}]")


class _Item:
    """One object. `early_arguments`: they came before the name. `done`: it was a call, or held calls.

    `may_wrap`: it may hold `tool_calls`; `may_nest`: `function` may hold name and arguments. Both once, so that nothing
    is read deeper than calls are written.
    """

    def __init__(self, marked: bool, stops: Collection[str], *, outer: bool) -> None:
        self.marked = marked
        self.stops = stops
        self.may_wrap = outer
        self.may_nest = True
        self.name: str | None = None
        self.early_arguments: str | None = None
        self.repairs: list[str] = []
        self.done = False

    def fail(self) -> Exception:
        """What a fault in the shell means: the end of the block after its calls, text before them."""
        return EndOfBlockError() if self.done else NotACallError()


def read(source: Source, calls: Calls, *, marked: bool, stops: Collection[str] = ()) -> Reading[None]:
    """Read the object or list that stands here. `stops`: closing tags that end it even where its JSON is broken."""
    if (yield from peek(source)) == "[":
        yield from _list(source, calls, marked, stops)
    else:
        yield from _object(source, calls, marked, stops, outer=True)


def _list(source: Source, calls: Calls, marked: bool, stops: Collection[str]) -> Reading[None]:
    source.at += 1
    while True:
        mark = yield from blanks(source)
        if mark == "{":
            yield from _object(source, calls, marked, stops)
        elif mark in ",]":
            source.at += 1
            if mark == "]":
                return
        else:
            raise EndOfBlockError if calls.committed else NotACallError


def _object(source: Source, calls: Calls, marked: bool, stops: Collection[str], *, outer: bool = False) -> Reading[None]:
    item = _Item(marked, stops, outer=outer)
    source.at += 1
    yield from _members(source, calls, item)
    if not item.done:
        _without_arguments(calls, item)
    calls.mark()


def _members(source: Source, calls: Calls, item: _Item) -> Reading[None]:
    """Keys and values up to and with the closing brace."""
    while True:
        mark = yield from blanks(source)
        if mark in "},":
            source.at += 1
            if mark == "}":
                return
            continue
        if mark != '"':
            raise item.fail()
        key = yield from _string(source, item)
        if (yield from blanks(source)) != ":":
            raise item.fail()
        source.at += 1
        yield from _member(source, calls, item, key, (yield from blanks(source)))


def _member(source: Source, calls: Calls, item: _Item, key: str, mark: str) -> Reading[None]:
    if item.done:
        yield from _skip(source, item, mark)
    elif key == "tool_calls" and item.may_wrap and item.name is None and mark in "[{":
        yield from _wrapped(source, calls, item, mark)
    elif (key == "name" or (key == "function" and item.marked)) and mark == '"':
        item.name = yield from _string(source, item)
        _named(calls, item, item.name)
    elif key == "function" and mark == "{" and item.may_nest:
        item.may_nest = False
        source.at += 1
        yield from _members(source, calls, item)
    elif key in ARGUMENTS:
        yield from _arguments(source, calls, item, key, mark)
    elif key in ECHO or not (item.marked or (key in _SCALARS and mark not in "{[")):
        raise NotACallError
    else:
        yield from _skip(source, item, mark)


def _wrapped(source: Source, calls: Calls, item: _Item, mark: str) -> Reading[None]:
    """The value of `tool_calls`: a list, one item, or items whose brackets were left out."""
    if mark == "[":
        yield from _list(source, calls, True, item.stops)
    else:
        while (yield from blanks(source)) == "{":
            yield from _object(source, calls, True, item.stops)
            if (yield from blanks(source)) == ",":
                source.at += 1
    item.done = calls.committed


def _named(calls: Calls, item: _Item, name: str) -> None:
    """The name is known; so may the arguments be."""
    if not 0 < len(name) <= MAX_NAME:
        raise NotACallError
    calls.begin(name, certain=item.marked)
    if item.early_arguments is None:
        return
    if not (item.marked or calls.known):
        raise NotACallError
    calls.args(item.early_arguments)
    calls.end(item.repairs)
    item.done = True


def _without_arguments(calls: Calls, item: _Item) -> None:
    """The object has closed: a name alone is a call where a marker says so and the tool needs nothing."""
    if item.name is None or not item.marked or not calls.declared.needs_nothing(item.name):
        raise NotACallError
    calls.args("{}")
    calls.end([notes.NO_ARGUMENTS])


def _arguments(source: Source, calls: Calls, item: _Item, key: str, mark: str) -> Reading[None]:
    if mark not in '{"':
        if not item.marked:
            raise NotACallError
        yield from _skip(source, item, mark)  # null: as if there were none
        return
    if key in ("parameters", "params") and mark == "{" and (yield from _is_definition(source, calls, item)):
        raise NotACallError
    if item.name is None:
        yield from _arguments_before_name(source, item, mark)
        return
    if not (item.marked or calls.known or (key in _CANONICAL and mark == "{")):
        raise NotACallError
    if mark == "{":
        yield from object_arguments(source, calls, item.stops)
        item.done = True
    else:
        item.done = yield from _encoded_arguments(source, calls, item)


def object_arguments(source: Source, calls: Calls, stops: Collection[str] = ()) -> Reading[None]:
    """The arguments of the call that was begun, as the JSON object that stands here; then the call is complete."""
    reader = JsonReader(calls.schema, mend_lines=not calls.fenced)
    try:
        while not reader.over():
            yield from peek(source)
            calls.args(reader.feed(source.take()))
    except EndOfTextError:
        calls.cut(reader.finish(), reader.repairs)
        raise
    source.give_back(reader.rest)
    if reader.fault and calls.fenced:
        raise NotACallError
    if reader.fault:
        yield from _broken(source, calls, Balance(reader.depth), stops)
    calls.end(reader.repairs, broken=reader.fault)


def _broken(source: Source, calls: Calls, balance: Balance, stops: Collection[str]) -> Reading[None]:
    """The rest of arguments that cannot be mended: up to where their brackets close, or to a tag of `stops`."""
    try:
        while True:
            yield from peek(source)
            start = source.at
            found = _SPLIT.search(source.text, start) if stops else None
            end = found.start() if found else len(source.text)
            if end == start:
                closing = yield from tag(source, stops)
                if closing is not None:
                    source.give_back(closing.shell)
                    if closing.name in stops:
                        return
                start, end = source.at, source.at + 1
            closed = balance.feed(source.text[start:end])
            source.at = end if closed is None else start + closed
            calls.garbage(source.text[start : source.at])
            if closed is not None:
                return
    except EndOfTextError:
        calls.cut(None)
        raise


def _encoded_arguments(source: Source, calls: Calls, item: _Item) -> Reading[bool]:
    """Arguments as a JSON string that holds the object. False if the string is empty."""
    source.at += 1
    outer, inner = StringReader(), JsonReader(calls.schema)
    anything = False
    try:
        while not outer.done:
            yield from peek(source)
            text = outer.feed(source.take())
            anything = anything or bool(text.strip())
            if not inner.over():
                calls.args(inner.feed(text))
                text = inner.rest
            if inner.over() and inner.fault:
                calls.garbage(text)
    except EndOfTextError:
        calls.cut("" if inner.done else inner.finish(), inner.repairs)
        raise
    source.give_back(outer.rest)
    if not anything and item.marked:
        return False
    calls.close("" if inner.done else inner.finish(), inner.repairs)
    return True


def _arguments_before_name(source: Source, item: _Item, mark: str) -> Reading[None]:
    reader = JsonReader()
    pieces: list[str] = []
    if mark == '"':
        reader_of_string = StringReader()
        source.at += 1
        while not reader_of_string.done:
            yield from peek(source)
            pieces.append(reader_of_string.feed(source.take()))
        source.give_back(reader_of_string.rest)
        pieces = [reader.feed("".join(pieces))]
    else:
        while not reader.over():
            yield from peek(source)
            pieces.append(reader.feed(source.take()))
        source.give_back(reader.rest)
    if not reader.done:
        raise NotACallError
    item.early_arguments, item.repairs = "".join(pieces), list(reader.repairs)


def _is_definition(source: Source, calls: Calls, item: _Item) -> Reading[bool]:
    """Whether the object that stands here is a schema rather than arguments. Nothing is taken."""
    while (found := _FIRST_KEY.match(source.text, source.at, source.at + MAX_NAME)) is None:
        rest = source.text[source.at : source.at + MAX_NAME]
        if len(rest) == MAX_NAME or not _MAY_BE_FIRST_KEY(rest):
            return False
        yield from more(source)
    return found.group(1) in _DEFINITION and not (item.name and calls.declared.declares(item.name, found.group(1)))


def _string(source: Source, item: _Item) -> Reading[str]:
    """A key or a name: the string that stands here. Only so much of it is taken as a name can have."""
    reader, pieces, left = StringReader(), [], _MAX_STRING
    source.at += 1
    while not reader.done:
        yield from peek(source)
        text = source.text[source.at : source.at + left]
        source.at += len(text)
        left -= len(text)
        pieces.append(reader.feed(text))
        if not left and not reader.done:
            raise item.fail()
    source.give_back(reader.rest)
    return "".join(pieces)


def _skip(source: Source, item: _Item, mark: str) -> Reading[None]:
    """Take a value that no call needs."""
    if mark == '"':
        strings = StringReader()
        source.at += 1
        while not strings.done:
            yield from peek(source)
            strings.feed(source.take())
        source.give_back(strings.rest)
    elif mark in "{[":
        reader = JsonReader(root="{[")
        while not reader.over():
            yield from peek(source)
            reader.feed(source.take())
        source.give_back(reader.rest)
        if reader.fault:
            raise item.fail()
    else:
        yield from _literal(source, item)


def _literal(source: Source, item: _Item) -> Reading[None]:
    while True:
        found = _LITERAL.match(source.text, source.at)
        if found is None:
            raise item.fail()
        if found.end() < len(source.text):
            source.at = found.end()
            return
        yield from more(source)
