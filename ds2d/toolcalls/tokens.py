"""DeepSeek's token formats: R1, V3 and V3-0324 (`function`, name, fenced JSON) and V3.1 (name, JSON) (toolcalls.md 1, 2 and 3).

Rule: both begin with the same tokens; what stands behind the separator tells which it is. The end of a call may be
missing where the next call or the end of the block follows.
"""

from __future__ import annotations

import re

from ds2d.toolcalls import notes
from ds2d.toolcalls.calls import Calls
from ds2d.toolcalls.declared import MAX_NAME
from ds2d.toolcalls.json_calls import object_arguments
from ds2d.toolcalls.source import (
    EndOfBlockError,
    NotACallError,
    Reading,
    Source,
    blanks,
    closers,
    closing_fence,
    fence,
    line,
    more,
    tag,
)
from ds2d.toolcalls.tags import OPENING, Tag

BLOCK, CALL = "toolcallsbegin", "toolcallbegin"
SEPARATOR, CALL_END, BLOCK_END = "toolsep", "toolcallend", "toolcallsend"
_NAMES = frozenset({BLOCK, CALL, SEPARATOR, CALL_END, BLOCK_END})
_BRACKET = re.compile(rf"[{OPENING}]")
_STOPS = frozenset({CALL, CALL_END, BLOCK_END})


def read(source: Source, calls: Calls, opening: Tag) -> Reading[None]:
    """Read what follows the token that opened the block, or a call without a block around it."""
    if opening.name == CALL:
        yield from _call(source, calls)
    while True:
        if (yield from closers(source)) not in OPENING:
            raise EndOfBlockError if calls.committed else NotACallError
        found = yield from tag(source, _NAMES)
        if found is None or found.name not in _STOPS:
            if found is not None:
                source.give_back(found.shell)
            raise EndOfBlockError if calls.committed else NotACallError
        if found.name == BLOCK_END:
            return
        if found.name == CALL:
            calls.mark()
            yield from _call(source, calls)
        else:
            calls.mark()


def _call(source: Source, calls: Calls) -> Reading[None]:
    head = yield from _head(source)
    mark = yield from blanks(source)
    name = head.strip()
    if mark not in "{`" and not (mark in OPENING and (yield from _stands_at_end(source))):
        name = (yield from line(source, MAX_NAME)).strip()
    if not name or " " in name:
        raise NotACallError
    calls.begin(name, certain=True)
    fenced = yield from fence(source)
    if (yield from blanks(source)) == "{":
        yield from object_arguments(source, calls, _STOPS)
        if fenced:
            yield from closers(source)
            yield from closing_fence(source)
    else:
        yield from _without_arguments(source, calls, fenced=fenced)


def _without_arguments(source: Source, calls: Calls, *, fenced: bool) -> Reading[None]:
    """A call may end where its arguments would stand, if its tool needs none."""
    if fenced and not (yield from closing_fence(source)):
        raise NotACallError
    yield from blanks(source)
    if not (yield from _stands_at_end(source)):
        raise NotACallError
    if not calls.known or calls.declared.needs_nothing(calls.name):
        calls.args("{}")
        calls.end([notes.NO_ARGUMENTS])
    elif calls.started:
        calls.end(broken=True)
    else:
        raise NotACallError


def _stands_at_end(source: Source) -> Reading[bool]:
    """Whether a token that ends a call stands here. Nothing is taken."""
    found = yield from tag(source, _STOPS)
    if found is None:
        return False
    source.give_back(found.shell)
    return found.name in _STOPS


def _head(source: Source) -> Reading[str]:
    """What stands before the separator: the word `function`, or in V3.1 the name."""
    while (found := _BRACKET.search(source.text, source.at, source.at + MAX_NAME)) is None:
        if len(source.text) - source.at >= MAX_NAME:
            raise NotACallError
        yield from more(source)
    head = source.text[source.at : found.start()]
    if "\n" in head.strip():
        raise NotACallError
    source.at = found.start()
    separator = yield from tag(source, _NAMES)
    if separator is None or separator.name != SEPARATOR:
        if separator is not None:
            source.give_back(separator.shell)
        raise NotACallError
    return head
