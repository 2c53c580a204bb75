"""Calls written as elements: DSML of DeepSeek V3.2, V4 and V4.1 with its drifts, XML, Hermes (toolcalls.md 1, 4 to 9).

Rule: a call is an element with a name (attribute or child) and arguments (a JSON object, parameters, or children of a
container); what follows an opening tag and is neither makes it text, as long as no call has been read from the block.
Surprise: arguments are written anew as JSON value by value, so the brace opens with the first parameter and a call
without any opens and closes it at its end. A lone `arguments` or `input` that the tool does not declare is unwrapped.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import orjson

from ds2d.toolcalls import json_calls, notes
from ds2d.toolcalls.calls import Calls
from ds2d.toolcalls.declared import MAX_NAME
from ds2d.toolcalls.json_reader import JsonReader
from ds2d.toolcalls.schema import property_of
from ds2d.toolcalls.source import (
    EndOfBlockError,
    EndOfTextError,
    NotACallError,
    Reading,
    Source,
    blanks,
    closers,
    closing_fence,
    fence,
    more,
    peek,
    tag,
)
from ds2d.toolcalls.tags import CLOSING, OPENING, Tag, half_closing
from ds2d.toolcalls.value_reader import Place, Streamed, Whole, is_call, is_wrapper, read_value
from ds2d.toolcalls.values import as_json, quoted, streams

NAME_ELEMENTS = frozenset({"toolname", "name", "functionname", "function", "tool"})
CONTAINERS = frozenset({"parameters", "arguments", "args", "input", "params", "toolinput", "toolparameters", "toolarguments"})
_UNWRAPPED = frozenset({"arguments", "input"})
_MAX_JUNK = 4096
_BRACKET = re.compile(rf"[{OPENING}]")


class _Call:
    """The call that is being read. `keys` were given; `lone`: the value of a first `arguments` or `input`, held back.
    `may_hold`: it may turn out to be a tag round calls. `stray`: a doubled bracket was skipped."""

    def __init__(self, opening: Tag) -> None:
        self.opening = opening
        self.name = ""
        self.keys: set[str] = set()
        self.lone: tuple[str, str] | None = None
        self.complete = False
        self.may_hold = True
        self.stray = False


def read(source: Source, calls: Calls, opening: Tag) -> Reading[None]:
    """Read what follows the tag that opened the block."""
    if is_call(opening):
        yield from _call(source, calls, opening)
    else:
        yield from _block(source, calls, opening)


def _block(source: Source, calls: Calls, opening: Tag) -> Reading[None]:
    """Calls up to and with the closing tag of what is round them."""
    while True:
        mark = yield from (closers(source) if calls.committed else blanks(source))
        if mark in OPENING:
            found = yield from tag(source, None)
            if found is not None and found.closing and (is_wrapper(found) or found.closes(opening)):
                return
            if found is not None and found.closing and is_call(found) and calls.committed:
                continue
            if found is not None and not found.closing and (is_call(found) or _names_a_tool(calls, found)):
                yield from _call(source, calls, found)
                continue
            if found is not None:
                source.give_back(found.shell)
            raise EndOfBlockError if calls.committed else NotACallError
        if mark in "{[" and not calls.committed:
            yield from json_calls.read(source, calls, marked=True, stops=(opening.name,))
        elif mark == "`" and not calls.committed:
            yield from fence(source)
        elif not (mark == "`" and (yield from closing_fence(source))):
            raise EndOfBlockError if calls.committed else NotACallError


def _names_a_tool(calls: Calls, found: Tag) -> bool:
    """Whether an element of any name says which declared tool it calls."""
    return calls.declared.resolve(found.attributes.get("name", "")) is not None


def _call(source: Source, calls: Calls, opening: Tag, *, inner: bool = False) -> Reading[None]:
    """One call up to and with its closing tag. `inner`: it stands in an element that could have been one itself."""
    calls.mark()
    call = _Call(opening)
    call.may_hold = not inner
    name = next((opening.attributes[key] for key in ("name", "tool", "function") if key in opening.attributes), "")
    if name:
        _named(calls, call, name)
    try:
        if not opening.empty:
            yield from _body(source, calls, call)
        _finish(calls, call)
    except EndOfTextError:
        if call.name and not call.complete:
            calls.cut(_what_closes(calls, call) if _only_closers_lack(source) else None)
        raise
    calls.mark()


def _body(source: Source, calls: Calls, call: _Call) -> Reading[None]:
    while True:
        mark = yield from (closers(source) if call.complete else blanks(source))
        if call.name and not call.complete and (mark in OPENING or mark == "{"):
            calls.certain()
        if mark in OPENING:
            found = yield from tag(source, None)
            if found is None:
                yield from _junk(source, calls, call)
            elif (yield from _child(source, calls, call, found)):
                return
        elif mark == "`" and (yield from (closing_fence(source) if call.complete else fence(source))):
            continue
        elif mark in "{[" and not call.complete and not call.keys:
            yield from _json(source, calls, call, mark)
        elif mark in CLOSING and not call.stray and not call.keys:
            call.stray = True
            source.at += 1
        else:
            yield from _junk(source, calls, call)


def _child(source: Source, calls: Calls, call: _Call, found: Tag) -> Reading[bool]:
    """Take a tag inside the call; True if the call has ended with it (or before it, then it stays)."""
    if found.closing:
        if found.closes(call.opening):
            return True
        if is_call(found) or is_wrapper(found):
            source.give_back(found.shell)
            return True
        return False  # left over from a parameter
    if is_call(found) or is_wrapper(found):
        if call.may_hold and not call.name and not call.complete and found.name != call.opening.name and is_call(found):
            yield from _call(source, calls, found, inner=True)  # the outer tag of another family's name
            call.complete = calls.committed
            return False
        source.give_back(found.shell)
        return True
    if call.complete:
        raise EndOfBlockError
    if found.name == "parameter" or "name" in found.attributes:
        yield from _parameter(source, calls, call, found, _key(found))
    elif not call.name and found.name in NAME_ELEMENTS:
        _named(calls, call, (yield from _text(source, found)))
    elif found.name in CONTAINERS and not call.keys and not found.empty:
        yield from _container(source, calls, call, found)
    elif call.name and calls.declared.declares(call.name, found.raw):
        yield from _parameter(source, calls, call, found, found.raw)
    else:
        source.give_back(found.shell)
        yield from _junk(source, calls, call)
    return False


def _named(calls: Calls, call: _Call, name: str) -> None:
    name = name.strip()
    if not name or len(name) > MAX_NAME or "\n" in name:
        raise NotACallError
    call.name = name
    calls.begin(name, certain=False)


def _key(found: Tag) -> str:
    for attribute in ("name", "key"):
        if attribute in found.attributes:
            return found.attributes[attribute]
    raise NotACallError


def _junk(source: Source, calls: Calls, call: _Call) -> Reading[None]:
    """Something that belongs to no call: text before the first argument, skipped up to the next tag after it."""
    if call.complete:
        raise EndOfBlockError
    if not call.keys:
        raise NotACallError
    first = source.text[source.at]
    source.at += 1
    while (found := _BRACKET.search(source.text, source.at, source.at + _MAX_JUNK)) is None:
        if len(source.text) - source.at >= _MAX_JUNK:
            source.at += _MAX_JUNK
            raise NotACallError
        if source.ended and calls.ending == "whole":
            source.give_back(first)
            calls.cut(_what_closes(calls, call))
            raise EndOfBlockError if calls.committed else NotACallError
        yield from more(source)
    source.at = found.start()
    calls.notes[notes.LEFTOVER] = None


def _json(source: Source, calls: Calls, call: _Call, mark: str) -> Reading[None]:
    """JSON in the body: the arguments where the name is known, else whole items."""
    stops = (call.opening.name,)
    if not call.name:
        yield from json_calls.read(source, calls, marked=True, stops=stops)
    elif mark == "[":
        raise NotACallError
    elif (yield from _begins_with_wrapper(source, calls, call)):
        yield from _wrapped_json(source, calls)
    else:
        yield from json_calls.object_arguments(source, calls, stops)
    call.complete = True


def _begins_with_wrapper(source: Source, calls: Calls, call: _Call) -> Reading[bool]:
    """Whether the object that stands here begins with a key that may have to be unwrapped. Nothing is taken."""
    while True:
        seen = source.text[source.at : source.at + MAX_NAME]
        rest = "".join(seen.split())
        for key in _UNWRAPPED:
            if rest.startswith(f'{{"{key}":'):
                return not calls.declared.declares(call.name, key)
        if len(seen) == MAX_NAME or not any(f'{{"{key}":'.startswith(rest) for key in _UNWRAPPED):
            return False
        yield from more(source)


def _wrapped_json(source: Source, calls: Calls) -> Reading[None]:
    reader, pieces = JsonReader(), []
    try:
        while not reader.over():
            yield from peek(source)
            pieces.append(reader.feed(source.take()))
    except EndOfTextError:
        closing = reader.finish()
        calls.cut(None if closing is None else _unwrapped("".join(pieces) + closing), reader.repairs)
        raise
    source.give_back(reader.rest)
    if reader.fault:
        raise NotACallError
    calls.args(_unwrapped("".join(pieces)))
    calls.end(reader.repairs)


def _unwrapped(text: str) -> str:
    """The object inside a lone `arguments` or `input`, else the text itself."""
    try:
        value = orjson.loads(text)
        inner = next(iter(value.values())) if len(value) == 1 else None
        if isinstance(inner, str):
            inner = orjson.loads(inner)
        return orjson.dumps(inner).decode() if isinstance(inner, dict) else text
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        return text


def _text(source: Source, opening: Tag) -> Reading[str]:
    """The text of an element that holds a name."""
    whole = Whole()
    closed = yield from read_value(source, Place(opening, opening, lambda _: False), whole.put)
    return whole.text(closed=closed)


def _container(source: Source, calls: Calls, call: _Call, opening: Tag) -> Reading[None]:
    """`<parameters>` and its like: a JSON object, or parameters as elements."""
    mark = yield from blanks(source)
    if mark == "{" and call.name:
        yield from _json(source, calls, call, mark)
        return
    found = (yield from tag(source, None)) if mark in OPENING else None
    if found is None:
        if calls.declared.declares(call.name, opening.raw):
            yield from _parameter(source, calls, call, opening, opening.raw)
        else:
            yield from _whole_object(source, calls, call, opening)
        return
    while not (found is not None and found.closing):
        if found is None or not call.name:
            raise NotACallError
        key = _key(found) if found.name == "parameter" else found.raw
        yield from _parameter(source, calls, call, found, key)
        if (yield from blanks(source)) not in OPENING:
            yield from _junk(source, calls, call)
        found = yield from tag(source, None)
    if not found.closes(opening):
        source.give_back(found.shell)


def _whole_object(source: Source, calls: Calls, call: _Call, opening: Tag) -> Reading[None]:
    """A container whose JSON stands in CDATA or before the name."""
    whole = Whole()
    closed = yield from read_value(source, Place(opening, call.opening, lambda _: False), whole.put)
    reader = JsonReader()
    text = reader.feed(whole.text(closed=closed).strip())
    if not reader.done or not call.name:
        raise NotACallError
    calls.args(text)
    calls.end(reader.repairs)
    call.complete = True


def _parameter(source: Source, calls: Calls, call: _Call, opening: Tag, key: str) -> Reading[None]:
    if not call.name:
        raise NotACallError
    schema = property_of(calls.schema, key, calls.schema)
    string = opening.attributes.get("string")
    held = not call.keys and key in _UNWRAPPED and not calls.declared.declares(call.name, key)
    place = Place(opening, call.opening, _next_of(calls, call, key))
    if not held and not opening.empty and streams(schema, calls.schema, string, dsml=opening.dsml):
        yield from _streamed(source, calls, call, place, key)
        return
    whole = Whole()
    try:
        closed = opening.empty or (yield from read_value(source, place, whole.put))
    except EndOfTextError:
        if calls.ending == "whole" and _only_closers_lack(source):
            _give(calls, call, key, _json_of(whole, calls, key, string, closed=False, dsml=opening.dsml), held=held)
        else:
            calls.cut(None)
            call.complete = True
        raise
    _give(calls, call, key, _json_of(whole, calls, key, string, closed=closed, dsml=opening.dsml), held=held)


def _streamed(source: Source, calls: Calls, call: _Call, place: Place, key: str) -> Reading[None]:
    calls.args(_head(call, key) + '"')
    value = Streamed(calls.args, entities=not place.opening.dsml and place.opening.attributes.get("string") != "true")
    try:
        closed = yield from read_value(source, place, value.put)
    except EndOfTextError:
        if calls.ending == "whole" and _only_closers_lack(source):
            value.finish(closed=False)
            calls.args('"')
        else:
            calls.cut(None)
            call.complete = True
        raise
    value.finish(closed=closed)
    calls.args('"')


def _json_of(whole: Whole, calls: Calls, key: str, string: str | None, *, closed: bool, dsml: bool) -> str:
    schema = property_of(calls.schema, key, calls.schema)
    return as_json(whole.text(closed=closed), schema, calls.schema, literal=whole.literal, string=string, dsml=dsml)


def _give(calls: Calls, call: _Call, key: str, value: str, *, held: bool) -> None:
    if held:
        call.keys.add(key)
        call.lone = (key, value)
    else:
        calls.args(_head(call, key) + value)


def _head(call: _Call, key: str) -> str:
    """What goes before the next value: brace or comma, a value held back, the key."""
    before = "," if call.keys else "{"
    if call.lone is not None:
        before = f"{{{quoted(call.lone[0])}:{call.lone[1]},"
        call.lone = None
    call.keys.add(key)
    return f"{before}{quoted(key)}:"


def _next_of(calls: Calls, call: _Call, key: str) -> Callable[[Tag], bool]:
    """Whether a parameter's opening tag inside a value is the next parameter: one that the tool has and that is not given."""
    given = {*call.keys, key}

    def may_follow(found: Tag) -> bool:
        name = found.attributes.get("name")
        return name is not None and name not in given and (calls.declared.declares(call.name, name) or not calls.known)

    return may_follow


def _finish(calls: Calls, call: _Call) -> None:
    if call.complete:
        return
    if not call.name:
        raise NotACallError
    if not call.keys and not (call.opening.attributes or calls.declared.needs_nothing(call.name)):
        raise NotACallError
    calls.args(_closing(call))
    calls.end()
    call.complete = True


def _closing(call: _Call) -> str:
    """What completes the arguments."""
    if call.lone is not None:
        text = f"{{{quoted(call.lone[0])}:{call.lone[1]}}}"
        return _unwrapped(text)
    return "}" if call.keys else "{}"


def _only_closers_lack(source: Source) -> bool:
    """Whether what stands at the end of the text, and was not taken, may be the beginning of a closing tag: half of an opening
    one is more than that."""
    return not source or source.text[source.at] not in OPENING or half_closing(source.text, source.at)


def _what_closes(calls: Calls, call: _Call) -> str | None:
    if not call.keys and not calls.declared.needs_nothing(call.name):
        return None
    return _closing(call)
