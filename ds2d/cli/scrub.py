"""A capture without what anybody said: letters and digits replaced, lengths and structure kept.

Rule: only texts that people or models wrote are changed; names of fields, roles, types, ids and finish reasons stay, for they
are what a fault is found by. Text in one field stays one field, and each read of a stream stays a read.
Surprise: arguments of calls are JSON inside a text, so only what stands between their quotes may change; and special tokens
of models are left whole, because detectors look for them.
"""

from __future__ import annotations

import json
import re
from typing import Any

SAID = frozenset(
    {
        "content", "text", "reasoning", "reasoning_content", "thinking", "arguments", "input", "output", "prompt", "system",
        "instructions", "data", "delta", "partial_json", "summary", "signature", "encrypted_content", "refusal", "description",
        "user", "url", "args", "response", "parts", "messages",
    }
)  # fmt: skip
"""Fields below which texts are what somebody wrote."""

KEPT = frozenset(
    {"role", "type", "id", "name", "object", "model", "finish_reason", "status", "call_id", "tool_call_id", "format"}
)
"""Fields whose texts are structure wherever they stand."""

_MARK = re.compile(r"<[^<>]{0,80}>")
_LETTER = re.compile(r"[^\W_]")


def scrubbed(item: dict[str, Any]) -> dict[str, Any]:
    """A copy of a capture in which nothing can be read."""
    bodies = {name: _body(item[name]) for name in ("request_body", "upstream_request", "response_body", "client_body")}
    return {**item, **bodies, "account_id": "account", "url": "http://upstream.invalid"}


def _body(text: str) -> str:
    """A JSON body, or an event stream of them."""
    try:
        return json.dumps(_clean(json.loads(text), said=False), ensure_ascii=False, separators=(",", ":"))
    except ValueError:
        return "\n".join(_line(line) for line in text.split("\n"))


def _line(line: str) -> str:
    head, colon, rest = line.partition(":")
    if head != "data" or not colon:
        return line if head in ("event", "id", "retry", "") else _covered(line)
    try:
        value = json.loads(rest)
    except ValueError:
        return line if rest.strip() in ("[DONE]", "") else f"data:{_covered(rest)}"
    blank = " " if rest.startswith(" ") else ""
    return f"data:{blank}" + json.dumps(_clean(value, said=False), ensure_ascii=False, separators=(",", ":"))


def _clean(value: Any, *, said: bool) -> Any:
    if isinstance(value, dict):
        return {name: _kept(name, item, said) for name, item in value.items()}
    if isinstance(value, list):
        return [_clean(item, said=said) for item in value]
    return _covered(value) if said and isinstance(value, str) else value


def _kept(name: str, value: Any, said: bool) -> Any:
    if isinstance(value, str) and name in KEPT:
        return value
    return _clean(value, said=said or name in SAID)


def _covered(text: str) -> str:
    """The text with x for every letter and digit, marks of the form <...> left whole."""
    pieces: list[str] = []
    at = 0
    for mark in _MARK.finditer(text):
        pieces += [_LETTER.sub("x", text[at : mark.start()]), mark[0]]
        at = mark.end()
    return "".join([*pieces, _LETTER.sub("x", text[at:])])
