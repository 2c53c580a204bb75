"""A capture without what anybody said: letters and digits replaced, lengths and structure kept.

Rule: a text is kept only where its field is listed here and it looks like a word of the protocol; every other one is covered,
whatever field it stands in. Below what is free in form (a tool's input, metadata) nothing is kept but the names of declared
parameters. Each read of a stream stays a read.
Surprise: a stream's texts come in pieces, so the pieces of one field are covered as one text: a mark of a tool call that was
cut in two is still known, and the capture still replays to the same calls.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from ds2d.cli.scrub_text import Words, covered

ABOUT = frozenset(
    {
        "id", "created_at", "dialect", "path", "label", "status_code", "request_truncated", "response_truncated", "timing",
        "cuts", "error", "content_type", "flavour", "model",
    }
)  # fmt: skip
"""What is kept of the capture beside its bodies."""

STRUCTURE = frozenset(
    {
        "role", "type", "object", "model", "modelVersion", "owned_by", "finish_reason", "finishReason", "stop_reason", "status",
        "format", "tool_choice", "mode", "reasoning_effort", "effort", "thinkingLevel", "thinking_level", "truncation", "phase",
        "encoding_format", "service_tier", "verbosity", "mime_type", "mimeType", "media_type", "responseMimeType", "include",
        "response_mime_type", "system_fingerprint", "modalities", "responseModalities", "required", "$ref",
    }
)  # fmt: skip
"""Fields whose texts, or lists of them, are words of a protocol, of a model list or of a schema."""

FREE = frozenset(
    {"arguments", "args", "metadata", "partial_args", "enum", "const", "default", "example", "examples", "variables"}
)
"""Fields below which anybody may have made up the form."""

_OF_ERRORS = frozenset({"code", "param"})
_DETAILS = frozenset({"auto", "low", "high", "original"})
_RESULTS = frozenset({"functionResponse", "function_response"})
_WORD = re.compile(r"[\w$#.:/\[\]-]{1,128}").fullmatch
_KEY = re.compile(r"[\w$.-]{1,64}").fullmatch
_MADE_ID = re.compile(
    r"(?:chatcmpl|cmpl|resp|msg|rs|fc|ctc|call|toolu|item|req|cap|functions\.[\w-]{1,64}:)[-_]?[0-9A-Za-z]{0,2}[0-9a-f-]{16,64}"
).fullmatch
_ID = re.compile(r"(?:.*_)?id|responseId").fullmatch
_PLACES = ("index", "output_index", "content_index", "summary_index", "item_id")
_BODIES = ("request_body", "upstream_request", "response_body", "client_body")

Place = tuple[object, ...]
Cover = Callable[[Place, str], str]


def scrubbed(item: dict[str, Any]) -> dict[str, Any]:
    """A copy of a capture in which nothing can be read."""
    scrubber = _Scrubber(_declared(item))
    about = {name: value for name, value in item.items() if name in ABOUT}
    if isinstance(path := item.get("path"), str):
        about["path"] = path if path.endswith("?alt=sse") else path.partition("?")[0]
    bodies = {name: scrubber.body(item[name]) for name in _BODIES}
    return {**about, **bodies, "account_id": "account", "url": "http://upstream.invalid"}


def _declared(item: dict[str, Any]) -> Words:
    """The names of the tools, and of their parameters, that the question declares."""
    tools: set[str] = set()
    parameters: set[str] = set()
    for name in ("request_body", "upstream_request"):
        asked = _parsed(item[name])
        if isinstance(asked, dict):
            for key in ("tools", "functions"):
                _declare(asked.get(key), tools, parameters)
    return Words(tools, parameters)


def _declare(value: Any, tools: set[str], parameters: set[str]) -> None:
    if isinstance(value, list):
        for entry in value:
            _declare(entry, tools, parameters)
    elif isinstance(value, dict):
        if isinstance(name := value.get("name"), str) and _WORD(name):
            tools.add(name)
        if isinstance(properties := value.get("properties"), dict):
            parameters.update(filter(_WORD, properties))
        for name, entry in value.items():
            if name not in FREE:
                _declare(list(entry.values()) if name == "properties" and isinstance(entry, dict) else entry, tools, parameters)


class _Scrubber:
    """One capture's. An id that nobody's generator made gets a number in its place, the same wherever it stands."""

    def __init__(self, words: Words) -> None:
        self._words = words
        self._ids: dict[str, str] = {}

    def body(self, text: str) -> str:
        """A JSON body, or an event stream of them."""
        value = _parsed(text)
        if value is not None:
            return _dumped(self._clean(value, (), self._at_once, free=False))
        lines = text.split("\n")
        pieces: dict[Place, list[str]] = {}

        def note(place: Place, piece: str) -> str:
            pieces.setdefault(place, []).append(piece)
            return piece

        for line in lines:
            self._line(line, note)
        slices = {place: _cut(covered("".join(found), self._words), found) for place, found in pieces.items()}
        return "\n".join(self._line(line, lambda place, _: next(slices[place])) for line in lines)

    def _line(self, line: str, cover: Cover) -> str:
        """A line of an event stream; of anything else, too."""
        head, colon, rest = line.partition(":")
        if head != "data" or not colon:
            same = not line or (head in ("event", "retry") and _WORD(rest.strip()))
            return line if same else cover((), line)
        value = _parsed(rest)
        if value is None:
            return line if rest.strip() in ("[DONE]", "") else f"data:{cover((), rest)}"
        kind = value.get("type") if isinstance(value, dict) else None
        return f"data:{' ' if rest.startswith(' ') else ''}" + _dumped(self._clean(value, (str(kind),), cover, free=False))

    def _at_once(self, _: Place, text: str) -> str:
        return covered(text, self._words)

    def _clean(self, value: Any, place: Place, cover: Cover, *, free: bool) -> Any:
        if isinstance(value, dict):
            place = (*place, *(value[name] for name in _PLACES if isinstance(value.get(name), str | int)))
            result: dict[str, Any] = {}
            for name, item in value.items():
                shown = name if self._may_name(name, free=free) else covered(name, self._words)
                while shown in result:
                    shown += "x"
                result[shown] = self._field(name, item, (*place, shown), cover, free=free)
            return result
        if isinstance(value, list):
            return [self._entry(item, (*place, at), cover, free=free) for at, item in enumerate(value)]
        if isinstance(value, str):
            return cover(place, value)
        return _hidden(value) if free else value

    def _entry(self, value: Any, place: Place, cover: Cover, *, free: bool) -> Any:
        """Numbers in a list are a text's bytes, tokens or embedding."""
        return self._clean(value, place, cover, free=free or isinstance(value, int | float))

    def _field(self, name: str, value: Any, place: Place, cover: Cover, *, free: bool) -> Any:
        if not free and isinstance(value, str) and value:
            if self._is_word(name, value, place):
                return value
            if _ID(name) and name != "user_id":
                return value if _MADE_ID(value) else self._ids.setdefault(value, f"id_{len(self._ids) + 1}")
        if not free and name in STRUCTURE and isinstance(value, list):
            return [entry if isinstance(entry, str) and _WORD(entry) else self._alone(entry) for entry in value]
        return self._clean(value, place, cover, free=free or _is_free(name, value, place))

    def _alone(self, value: Any) -> Any:
        return self._clean(value, (), self._at_once, free=False)

    def _is_word(self, name: str, value: str, place: Place) -> bool:
        """Whether this text is the protocol's or the name of a declared tool."""
        if name == "name":
            return value in self._words.tools
        if name == "detail":
            return value in _DETAILS
        return (name in STRUCTURE or (name in _OF_ERRORS and place[-2:-1] == ("error",))) and _WORD(value) is not None

    def _may_name(self, name: str, *, free: bool) -> bool:
        return name in self._words.parameters or (not free and _KEY(name) is not None)


def _is_free(name: str, value: Any, place: Place) -> bool:
    """Whether the form of what is below is anybody's. A schema may call a property `metadata`: what is below that is a schema."""
    if place[-2:-1] == ("properties",):
        return False
    of_call = name == "input" or (name == "response" and bool(_RESULTS & set(place[-2:-1])))
    return name in FREE or (of_call and isinstance(value, dict))


def _cut(text: str, like: list[str]) -> Iterator[str]:
    at = 0
    for piece in like:
        yield text[at : at + len(piece)]
        at += len(piece)


def _hidden(value: Any) -> Any:
    """A number as long as this one."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    return json.loads(re.sub(r"\d", "1", json.dumps(value)))


def _parsed(text: str) -> Any:
    """What a JSON text says; None where it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _dumped(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
