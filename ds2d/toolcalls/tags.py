"""Tag shells: `<...>` of every markup format, exact or drifted, as one normalised form.

Rule: a shell is read in one bounded look (`MAX_SHELL`), and its name is what is left when bars, blanks and separators are
taken off: `<｜DSML｜tool_calls>`, `<|DSML| tool-calls >` and `<dsml:ToolCalls｜>` are all `toolcalls` with `dsml` set.
Surprise: V4.1 and the V3 tokens have blanks inside their names, so a name ends only at an attribute or at the bracket.
"""

from __future__ import annotations

import re
from collections.abc import Collection

import msgspec

from ds2d.toolcalls.drift import MARKED_NAMES, meant, near, near_beginning

OPENING = "<＜〈⟨《"
CLOSING = ">＞〉⟩》"
BARS = "|｜∣│┃¦❘"
"""What models write for a bar: DeepSeek's own is U+FF5C."""

MAX_SHELL = 512
"""Characters of one tag, brackets included."""

_MAX_WORD = 16
"""Letters of a namespace or of the beginning of an unknown name that may still become one."""

_NAME = re.compile(rf"[{OPENING}](?P<slash>[ \t]?[/／]{{1,2}})?(?P<name>[\w▁.:： \t{BARS}-]{{0,96}}+)")
_CURLY = "“”‘’„「」『』＂＇«»"
_QUOTES = "\"'" + _CURLY
_ATTRIBUTE = re.compile(
    rf"\s*+(?P<key>[\w.-]{{1,64}}+)\s*+(?:[=＝]{{1,2}}\s*+|(?=[{_QUOTES}]))"
    rf"(?:\"\"([^\s{_QUOTES}<>]{{1,256}}+)\"|\"([^{_CURLY}\"<>\n]{{0,256}}+)\"|'([^{_CURLY}'<>\n]{{0,256}}+)'"
    rf"|[{_QUOTES}]([^{_QUOTES}<>\n]{{0,256}}+)(?:[{_QUOTES}]|(?=[{CLOSING}]))"
    rf"|([^\s{_QUOTES}{OPENING}{CLOSING}/]{{1,256}}+))"
)
_TAIL = re.compile(rf"[\s▁_:{BARS}{_QUOTES}-]*+(?P<empty>[/／]?)[ \t]*+[{CLOSING}]")
_KEYS = ("name", "string")
_MARK = re.compile(rf"[▁{BARS}]")
_SEPARATORS = re.compile(r"[\W_]+")
_ANY_BRACKET = re.compile(rf"[{OPENING}{CLOSING}]")
_WORD = re.compile(rf"[{OPENING}][/／]?[A-Za-z]{{0,{_MAX_WORD}}}[:：]?").fullmatch


class Tag(msgspec.Struct, frozen=True):
    """One tag. `name` is normalised, `raw` is the name as it stands there, `end` is where the text goes on,
    `shell` is the whole tag as written.
    """

    name: str
    raw: str
    dsml: bool
    closing: bool
    empty: bool
    shell: str
    attributes: dict[str, str]
    end: int

    def closes(self, opening: Tag) -> bool:
        """Whether this is the closing tag of `opening`: the same element of the same family."""
        return self.closing and self.name == opening.name and self.dsml == opening.dsml


def lex(text: str, at: int) -> Tag | None:
    """The tag that begins at text[at]; None if there is none, or not all of it yet (`unfinished` tells)."""
    shell = _NAME.match(text, at, at + MAX_SHELL)
    if shell is None:
        return None
    name, after = shell.group("name"), shell.end()
    if text[after : after + 1] in tuple("=＝" + _QUOTES):
        name, after = _without_key(name, after)
    attributes: dict[str, str] = {}
    while found := _ATTRIBUTE.match(text, after, at + MAX_SHELL):
        value = next((group for group in found.groups()[1:] if group is not None), "")
        key = found.group("key").lower()
        attributes[next((name for name in _KEYS if near(key, name)), key)] = value
        after = found.end()
    tail = _TAIL.match(text, after, at + MAX_SHELL)
    if tail is None:
        return None
    short, dsml = normalised(name)
    if not short:
        return None
    return Tag(
        name=short,
        raw=name.strip(),
        dsml=dsml,
        closing=shell.group("slash") is not None,
        empty=bool(tail.group("empty")),
        shell=text[at : tail.end()],
        attributes=attributes,
        end=tail.end(),
    )


def _without_key(name: str, end: int) -> tuple[str, int]:
    """A name that ran into its first attribute's key, without that key; and where the key begins."""
    whole = name.rstrip()
    key = whole.split()[-1] if whole else ""
    if len(key) > len("name") and key.lower().endswith("name") and normalised(whole[: -len("name")])[0] in MARKED_NAMES:
        key = "name"  # the blank before it was dropped
    return whole[: len(whole) - len(key)], end - (len(name) - len(whole)) - len(key)


def normalised(name: str) -> tuple[str, bool]:
    """The letters and digits of a name, lower case, without namespace; and whether DSML stood before it.

    A marked name that is off by one letter is the one that is meant.
    """
    words = [word.lower() for word in _SEPARATORS.split(name) if word]
    short = "".join(words)
    if short.startswith("dsml"):
        return meant(short[4:]), True
    if len(words) > 1 and near(words[0], "dsml"):
        return meant("".join(words[1:])), True
    if _MARK.search(name):
        return meant(short), False
    for colon in (":", "："):
        name = name.rstrip(" \t:：").rpartition(colon)[2]
    return _SEPARATORS.sub("", name).lower(), False


def unfinished(text: str, at: int, names: Collection[str] | None) -> bool:
    """Whether what stands at text[at] up to the end of the text may become a tag of one of these (normalised) names.

    None: of any name.
    """
    if len(text) - at > MAX_SHELL or _ANY_BRACKET.search(text, at + 1):
        return False
    shell = _NAME.match(text, at)
    if shell is None:
        return False
    name, after = shell.group("name"), text[shell.end() : shell.end() + 1]
    if after:
        if names is None or after not in "=＝" + _QUOTES:
            return after in "=＝/／\r\n" + _QUOTES and (names is None or normalised(name)[0] in names)
        return normalised(_without_key(name, 0)[0])[0] in names
    return names is None or bool(_WORD(text, at)) or _may_be_one(name, names)


def _may_be_one(written: str, names: Collection[str]) -> bool:
    """Whether the beginning of a name, as it is written, may become one of these."""
    words = [word.lower() for word in _SEPARATORS.split(written) if word]
    whole = "".join(words)
    marked = _MARK.search(written) is not None or whole.startswith("dsml")
    begins = near_beginning if marked else _begins
    if whole.startswith("dsml") or "dsml".startswith(whole):
        rest = whole[4:]
    elif words and near(words[0], "dsml"):
        rest, begins = "".join(words[1:]), near_beginning
    else:
        rest = whole
    parts = (rest, normalised(written)[0])
    drifted = begins is near_beginning
    return any(begins(part, name) or _runs_into_key(part, name, drifted) for name in names for part in parts)


def _begins(written: str, name: str) -> bool:
    return name.startswith(written)


def _runs_into_key(written: str, name: str, drifted: bool) -> bool:
    """Whether this is the name and the beginning of an attribute's key. A drifted name runs into `name` only (`_without_key`)."""
    if written.startswith(name):
        return len(written) - len(name) <= _MAX_WORD
    sizes = (len(name) - 1, len(name) + 1) if drifted else ()
    return any("name".startswith(written[size:]) and near(written[:size], name) for size in sizes)
