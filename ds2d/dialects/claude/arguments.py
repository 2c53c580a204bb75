"""Arguments of a call, as JSON text from a model, against the promise that `input` is an object (anthropic-messages.md 5).

Rule: nothing that was written is taken back, so all that can be mended is a missing end.
"""

from __future__ import annotations

import re
from typing import Any

import orjson

_TOKENS = re.compile(r'"(?:[^"\\]|\\.)*("?)|[{}\[\]]', re.DOTALL)
_CLOSERS = {"{": "}", "[": "]"}
_SCALAR = re.compile(r"(?:t(?:ru?)?|f(?:a(?:ls?)?)?|n(?:ul?)?|-|-?(?:0|[1-9]\d*)(?:\.\d*)?(?:[eE][+-]?\d*)?)$")
"""A number, or a word that is not whole yet, at the end of a text."""


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
    brackets, string_at = _open_ends(text)
    end = ('"' if string_at is not None else "") + brackets
    return end if end and read_object(text + end) is not None else None


def is_beginning(text: str) -> bool:
    """Whether an object could begin with `text`: what a limit may leave, and what clients can read as partial JSON."""
    if missing_end(text) is not None:
        return True
    brackets, string_at = _open_ends(text)
    whole = _SCALAR.sub("0", text) if string_at is None else text[:string_at] + '""'
    return any(read_object(whole + next_part + brackets) is not None for next_part in ("", ":0", "0", '"":0'))


def _open_ends(text: str) -> tuple[str, int | None]:
    """The brackets that would close what is open, and where a string without an end begins."""
    open_brackets: list[str] = []
    for token in _TOKENS.finditer(text):
        mark = token[0]
        if mark in _CLOSERS:
            open_brackets.append(_CLOSERS[mark])
        elif mark in "}]":
            if not open_brackets or open_brackets.pop() != mark:
                return "", None
        elif not token[1]:
            return "".join(reversed(open_brackets)), token.start()
    return "".join(reversed(open_brackets)), None
