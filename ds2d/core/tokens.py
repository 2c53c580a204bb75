"""How many tokens a text has, about: for numbers that must not cost time, and while nothing counts exactly (tokens.md)."""

from __future__ import annotations

import math

import orjson

from ds2d.core.layouts import lay_out, text_of
from ds2d.core.request import ChatRequest

_MARKS = 3
"""Tokens that templates put round a message, about."""

_STEP = 256 * 1024
"""Characters that are looked at in one step: of a text of megabytes many are, in a thread."""


def rough(text: str) -> int:
    """An estimate, mostly within 40 %: a quarter of a token for an ASCII character, two thirds for another."""
    others = 0 if text.isascii() else sum(_others(text[at : at + _STEP]) for at in range(0, len(text), _STEP))
    return math.ceil(0.26 * (len(text) - others) + 0.65 * others)


def _others(text: str) -> int:
    return len(text) - len(text.encode("ascii", "ignore"))


def rough_request(request: ChatRequest) -> int:
    """An estimate of the prompt: its texts, and some tokens for the marks round each message."""
    if request.estimate is not None:
        return request.estimate
    if request.prompt is not None:
        prompt = lay_out(request)
        return rough(prompt.text) + prompt.more
    tools = len(orjson.dumps(request.tools)) if request.tools else 0
    calls = sum(len(call["function"]["arguments"]) for message in request.messages for call in message.get("tool_calls") or ())
    texts = sum(rough(text_of(message)) + _MARKS for message in request.messages)
    return texts + math.ceil(0.26 * (tools + calls)) + _MARKS
