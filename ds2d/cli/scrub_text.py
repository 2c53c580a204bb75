"""A text of which nothing can be read, and in which tool calls are still found.

Rule: every letter and digit becomes x, one for one. What stays is from closed lists: special tokens, the tags and keys in which
models write calls, and the names that the question declares, these only where markup puts a name. That something stands in
<...> says nothing: people write addresses so.
Surprise: arguments are JSON inside a text, so an escape stays one and a number a number (of ones): else they were none.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from ds2d.toolcalls.drift import MARKED_NAMES, near
from ds2d.toolcalls.elements import CONTAINERS, NAME_ELEMENTS
from ds2d.toolcalls.formats import OPENERS
from ds2d.toolcalls.json_calls import ECHO, KEYS
from ds2d.toolcalls.tags import BARS, OPENING, Tag, lex, normalised

TAGS = MARKED_NAMES | OPENERS | NAME_ELEMENTS | CONTAINERS | {"think", "parameter", "param", "toolresponse", "toolresult"}
"""Normalised names of tags that are kept."""

TOKENS = frozenset(
    {
        "begin▁of▁sentence", "end▁of▁sentence", "User", "Assistant", "System", "latest_reminder", "fim▁begin", "fim▁hole",
        "fim▁end", "tool▁outputs▁begin", "tool▁outputs▁end", "tool▁output▁begin", "tool▁output▁end", "im_start", "im_end",
        "im_sep", "endoftext", "eot_id", "eom_id", "begin_of_text", "end_of_text", "start_header_id", "end_header_id",
        "python_tag", "channel", "message", "start", "end", "return", "call", "constrain",
    }
)  # fmt: skip
"""Special tokens of models, as they stand between bars."""

_QUOTES = "\"'`“”‘’„「」『』＂＇«»"
_BAR = f"[{BARS}]"
_PIECE = re.compile(
    rf"(?P<token><{_BAR}(?P<inner>[\w▁]{{1,32}}){_BAR}>)"
    rf"|(?P<tag>[{OPENING}])"
    r"|(?P<escape>\\(?:u[0-9a-fA-F]{4}|[\s\S]))"
    r"|(?P<entity>&(?:lt|gt|amp|quot|apos);|(?<=<!\[)CDATA(?=\[)|(?<=```|~~~)(?:json|xml|tool_calls?)\b"
    r"|\b(?:return|yield|await|case|throw)(?=\s{1,8}[\[{])"
    r"|(?ai:function\.(?:name|arguments|args|parameters|params|input))(?=[ \t]*[:：=]))"
    r"|(?P<literal>(?<=[\[,:\s])(?:true|false|null)(?=\s*[,}\]]))"
    r"|(?P<number>(?<=[\[(,:\s-])\d+(?:\.\d+)?(?:[eE][-+]?\d+)?(?=\s*[,}\]]))"
    r"|(?P<word>\w[\w.:/$-]{0,255}+)"
)
_LITERAL_PLACE = re.compile(r"(?:[\"']\s{0,8}:|[\[(,])\s{0,8}-?\Z").search
_NAME_PLACE = re.compile(rf"function\.name[ \t]{{0,8}}[:：=][ \t]{{0,8}}[{_QUOTES}]?\Z", re.IGNORECASE).search
_BEHIND_TAG = re.compile(r"\s{0,8}(?P<word>[\w.:/-]{1,256}+)(?=\s{0,8}(?:[<＜〈⟨《{`\n]|\Z))")
_LETTER = re.compile(r"[^\W_]")
_PREFIX = re.compile(r"[.:/]")
_ATTRIBUTE_WORDS = frozenset({"name", "string", "type", "true", "false"})
_LEAST = 64
"""Characters before a place that are looked at."""


class Words:
    """The names that a question declares: its tools' and those of their parameters."""

    def __init__(self, tools: Collection[str] = (), parameters: Collection[str] = ()) -> None:
        self.tools = frozenset(tools)
        self.parameters = frozenset(parameters)
        self.folded = frozenset(name.casefold() for name in (*tools, *parameters, *KEYS, *ECHO))
        self.called = frozenset(name.casefold() for name in (*tools, "function"))
        self.tags = TAGS | {normalised(name)[0] for name in (*tools, *parameters)}


def covered(text: str, words: Words) -> str:
    """The text with x for every letter and digit, as long as it was."""
    out: list[str] = []
    at = 0
    while found := _PIECE.search(text, at):
        out.append(_plain(text[at : found.start()]))
        piece, at = _piece(text, found, words)
        out.append(piece)
    out.append(_plain(text[at:]))
    return "".join(out)


def _piece(text: str, found: re.Match[str], words: Words) -> tuple[str, int]:
    """What stands for this piece, and where the text goes on."""
    start, end = found.span()
    match found.lastgroup:
        case "token" if found["inner"] in TOKENS:
            return found[0], end
        case "token" | "tag":
            return _tag(text, start, words)
        case "escape":
            return _escape(found[0]), end
        case "entity":
            return found[0], end
        case "literal" | "number" if _LITERAL_PLACE(text, max(start - _LEAST, 0), start):
            return found[0] if found["literal"] else re.sub(r"\d", "1", found[0]), end
    return _word(text, start, end, words), end


def _tag(text: str, start: int, words: Words) -> tuple[str, int]:
    """A tag of a tool call and the tool's name behind it; of anything else, its bracket."""
    tag = lex(text, start)
    if tag is None or tag.name not in words.tags:
        return text[start], start + 1
    shown = _shell(tag, words)
    behind = None if tag.closing else _BEHIND_TAG.match(text, tag.end)
    if behind is None or _last(behind["word"]).casefold() not in words.called:
        return shown, tag.end
    return shown + text[tag.end : behind.start("word")] + _without_prefix(behind["word"]), behind.end()


def _shell(tag: Tag, words: Words) -> str:
    """A tag with its own name and the names that it gives; of namespaces those that models write."""
    before, raw, after = tag.shell.partition(tag.raw)
    *spaces, name = re.split(r"([:：])", raw)
    return before + "".join(map(_namespace, spaces)) + name + _attributes(after, words)


def _namespace(word: str) -> str:
    short = re.sub(r"[\W_]", "", word).lower()
    return word if short in ("", "antml", "function") or short == "dsml" or near(short, "dsml") else _plain(word)


def _attributes(text: str, words: Words) -> str:
    def shown(found: re.Match[str]) -> str:
        known = found[0] in _ATTRIBUTE_WORDS or _last(found[0]).casefold() in words.folded
        return _without_prefix(found[0]) if known else _plain(found[0])

    return re.sub(r"[\w.:-]{1,256}", shown, text)


def _escape(text: str) -> str:
    """One that says nothing."""
    if text[1] == "u":
        return "\\u0078" if len(text) > 2 else "\\x"
    if text[1] in "bfnrt":
        return "\\n"
    return "\\" + _plain(text[1])


def _word(text: str, start: int, end: int, words: Words) -> str:
    """A word: kept where it is a known name between quotes, or the value of `function.name`."""
    word = text[start:end]
    quoted = text[start - 1 : start] in tuple(_QUOTES) and text[end : end + 1] in tuple(_QUOTES)
    if quoted and _last(word).casefold() in words.folded | words.called:
        return _without_prefix(word)
    if _last(word).casefold() in words.called and _NAME_PLACE(text, max(start - _LEAST, 0), start):
        return _without_prefix(word)
    return _plain(word)


def _last(word: str) -> str:
    return _PREFIX.split(word)[-1]


def _without_prefix(word: str) -> str:
    """A name that is kept, what stands before its last dot covered."""
    last = _last(word)
    return _plain(word[: len(word) - len(last)]) + last


def _plain(text: str) -> str:
    return _LETTER.sub("x", text)
