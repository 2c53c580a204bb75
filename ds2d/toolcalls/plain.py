"""Calls without tags: a fence that holds one JSON call and nothing else, and pairs of lines (toolcalls.md 1, 1 and 10)."""

from __future__ import annotations

import re

from ds2d.toolcalls import json_calls
from ds2d.toolcalls.calls import Calls
from ds2d.toolcalls.declared import MAX_NAME
from ds2d.toolcalls.source import EndOfTextError, NotACallError, Reading, Source, blanks, more, peek

_NAME_LINE = re.compile(r"function\.name[ \t]*[:：=][ \t]*[\"'`]?([^\s\"'`{}<>]{1,256})[\"'`,]*(?=\s)", re.IGNORECASE)
_ARGUMENTS = re.compile(r"function\.(?:arguments|args|parameters|params|input)[ \t]*[:：=]", re.IGNORECASE)
_MAX_LINE = MAX_NAME + 32
_MAX_WORD = 64
_WORDS = ("function.arguments:", "function.args:", "function.parameters:", "function.params:", "function.input:")


def read_fenced(source: Source, calls: Calls, fence: str) -> Reading[None]:
    """Read a fence's lines behind its first, up to and with the line that closes it; `fence` is its run of marks."""
    if (yield from blanks(source)) not in "{[":
        raise NotACallError
    yield from json_calls.read(source, calls, marked=False)
    if (yield from blanks(source)) != fence[0]:
        raise NotACallError
    run = 0
    try:
        while (yield from peek(source)) == fence[0]:
            source.at += 1
            run += 1
        while run >= len(fence) and (yield from peek(source)) in " \t\r":
            source.at += 1
    except EndOfTextError:
        if run < len(fence):
            raise
        return
    if run < len(fence) or source.text[source.at] != "\n":
        raise NotACallError


def read_pairs(source: Source, calls: Calls) -> Reading[None]:
    """Read `function.name: NAME` and `function.arguments: {...}`."""
    while (found := _NAME_LINE.match(source.text, source.at, source.at + _MAX_LINE)) is None:
        if len(source.text) - source.at >= _MAX_LINE or "\n" in source.text[source.at :]:
            raise NotACallError
        yield from more(source)
    source.at = found.end()
    yield from blanks(source)
    while (arguments := _ARGUMENTS.match(source.text, source.at, source.at + _MAX_WORD)) is None:
        rest = "".join(source.text[source.at : source.at + _MAX_WORD].split()).lower()
        if len(source.text) - source.at >= _MAX_WORD or not any(word.startswith(rest) for word in _WORDS):
            raise NotACallError
        yield from more(source)
    source.at = arguments.end()
    if (yield from blanks(source)) != "{":
        raise NotACallError
    calls.begin(found.group(1), certain=True)
    yield from json_calls.object_arguments(source, calls)
