"""Arguments of a call, as JSON text from a model, against the promise that `input` is an object (anthropic-messages.md 5).

Rule: nothing that was written is taken back, so all that can be mended is a missing end.
"""

from __future__ import annotations

import re
from typing import Any

import orjson

_TOKENS = re.compile(r'"(?:[^"\\]|\\.)*("?)|[{}\[\]]', re.DOTALL)
_CLOSERS = {"{": "}", "[": "]"}


def read_object(text: str) -> dict[str, Any] | None:
    """The object that `text` is, None if it is none."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


def missing_end(text: str) -> str | None:
    """What makes an object of `text` when appended: "" if it is one, "{}" if nothing was written, closing quote and
    brackets if only these are missing; None if nothing can."""
    if not text.strip():
        return "{}"
    if read_object(text) is not None:
        return ""
    open_brackets: list[str] = []
    quote = ""
    for token in _TOKENS.finditer(text):
        mark = token[0]
        if mark in _CLOSERS:
            open_brackets.append(_CLOSERS[mark])
        elif mark in "}]":
            if not open_brackets or open_brackets.pop() != mark:
                return None
        else:
            quote = "" if token[1] else '"'
    end = quote + "".join(reversed(open_brackets))
    return end if end and read_object(text + end) is not None else None
