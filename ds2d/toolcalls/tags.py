"""Tag shells: `<...>` of every markup format, exact or drifted, as one normalised form.

Rule: a shell is read in one bounded look (`MAX_SHELL`), and its name is what is left when bars, blanks and separators are
taken off: `<｜DSML｜tool_calls>`, `<|DSML| tool-calls >` and `<dsml:ToolCalls｜>` are all `toolcalls` with `dsml` set.
Surprise: V4.1 and the V3 tokens have blanks inside their names, so a name ends only at an attribute or at the bracket.
"""

from __future__ import annotations

import re
from collections.abc import Collection

import msgspec

OPENING = "<＜〈⟨《"
CLOSING = ">＞〉⟩》"
BARS = "|｜∣│┃¦❘"
"""What models write for a bar: DeepSeek's own is U+FF5C."""

MAX_SHELL = 512
"""Characters of one tag, brackets included."""

_MAX_WORD = 16
"""Letters of a namespace or of the beginning of an unknown name that may still become one."""

_NAME = re.compile(rf"[{OPENING}](?P<slash>[ \t]?[/／])?(?P<name>[\w▁.:： \t{BARS}-]{{0,96}}+)")
_CURLY = "“”‘’„「」『』＂＇«»"
_QUOTES = "\"'" + _CURLY
_ATTRIBUTE = re.compile(
    rf"\s*+(?P<key>[\w.-]{{1,64}}+)\s*+[=＝]\s*+"
    rf"(?:\"([^{_CURLY}\"<>\n]{{0,256}}+)\"|'([^{_CURLY}'<>\n]{{0,256}}+)'|[{_QUOTES}]([^{_QUOTES}<>\n]{{0,256}}+)[{_QUOTES}]"
    rf"|([^\s{_QUOTES}{OPENING}{CLOSING}/]{{1,256}}+))"
)
_TAIL = re.compile(rf"[\s▁_:{BARS}-]*+(?P<empty>[/／]?)[ \t]*+[{CLOSING}]")
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
    if text[after : after + 1] in ("=", "＝"):
        name, after = _without_key(name, after)
    attributes: dict[str, str] = {}
    while found := _ATTRIBUTE.match(text, after, at + MAX_SHELL):
        value = next((group for group in found.groups()[1:] if group is not None), "")
        attributes[found.group("key").lower()] = value
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
    return whole[: len(whole) - len(key)], end - (len(name) - len(whole)) - len(key)


def normalised(name: str) -> tuple[str, bool]:
    """The letters and digits of a name, lower case, without namespace; and whether DSML stood before it."""
    short = _SEPARATORS.sub("", name).lower()
    if short.startswith("dsml"):
        return short[4:], True
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
        if names is None:
            return after in "=＝/／\r\n"
        if after in "=＝":
            name, _ = _without_key(name, 0)
        return after in "=＝/／\r\n" and normalised(name)[0] in names
    if names is None:
        return True
    written = _SEPARATORS.sub("", name).lower()
    if written.startswith("dsml") or "dsml".startswith(written):
        written = written[4:]
    short = normalised(name)[0]
    return bool(_WORD(text, at)) or any(_may_be(part, name) for name in names for part in (written, short))


def _may_be(written: str, name: str) -> bool:
    """Whether this can grow into the name, or is the name and the beginning of an attribute's key."""
    return name.startswith(written) or (written.startswith(name) and len(written) - len(name) <= _MAX_WORD)
