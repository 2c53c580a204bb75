"""Tag shells: `<...>` of every markup format, exact or drifted, as one normalised form.

Rule: a shell is read in one bounded look (`MAX_SHELL`), and its name is what is left when bars, blanks and separators are
taken off: `<｜DSML｜tool_calls>`, `<|DSML| tool-calls >` and `<dsml:ToolCalls｜>` are all `toolcalls` with `dsml` set.
Text may arrive letter by letter: what `unfinished` gives up is never a tag later, and no bracket stands inside a shell.
Surprise: V4.1 and the V3 tokens have blanks inside their names, so a name ends only at an attribute or at the bracket.
"""

from __future__ import annotations

import re
from collections.abc import Collection

import msgspec

from ds2d.toolcalls.drift import MARKED_NAMES, meant, near, near_beginning

OPENING = "<＜〈⟨《"
CLOSING = ">＞〉⟩》"
BRACKETS = OPENING + CLOSING
"""No tag has one inside."""

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
    rf"(?:\"\"([^\s{_QUOTES}{BRACKETS}]{{1,256}}+)\"|\"([^{_CURLY}\"{BRACKETS}\n]{{0,256}}+)\""
    rf"|'([^{_CURLY}'{BRACKETS}\n]{{0,256}}+)'"
    rf"|[{_QUOTES}]([^{_QUOTES}{BRACKETS}\n]{{0,256}}+)(?:[{_QUOTES}]|(?=>))"
    rf"|([^\s{_QUOTES}{BRACKETS}/]{{1,256}}+))"
)
_TAIL = re.compile(rf"[\s▁_:{BARS}{_QUOTES}-]*+(?P<empty>[/／]?)[ \t]*+[{CLOSING}]")
_KEYS = ("name", "string")
_MARK = re.compile(rf"[▁{BARS}]")
_MAY_HIDE_NAME = re.compile(rf"[▁{BARS}:：]").search
_BEGIN_DSML = ("d", "s")
_SEPARATORS = re.compile(r"[\W_]+")
_ANY_BRACKET = re.compile(rf"[{BRACKETS}]")
_MAY_FOLLOW_NAME = re.compile(rf"[\s\w.:：=＝/／{BARS}{_QUOTES}-]").match
_NAMESPACE = re.compile(rf"(?:[A-Za-z][\w.-]{{0,{_MAX_WORD}}}+[:：]++)*")  # no `)*` with a plus: tests/project/test_patterns.py
_WORD = re.compile(rf"(?:[A-Za-z][\w.-]{{0,{_MAX_WORD}}})?").fullmatch
_KEY = re.compile(r"[\w.-]{1,64}").fullmatch


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


def only_tags(text: str) -> bool:
    """Whether a text consists of tags and white space."""
    at = 0
    while at < len(text):
        found = lex(text, at) if text[at] in OPENING else None
        if found is None and not text[at].isspace():
            return False
        at = found.end if found else at + 1
    return True


def _without_key(name: str, end: int) -> tuple[str, int]:
    """A name that ran into its first attribute's key, without that key; and where the key begins."""
    whole = name.rstrip()
    runs_in = whole.lower().endswith("name") and normalised(whole[: -len("name")])[0] in MARKED_NAMES
    key = "name" if runs_in else _last_word(whole)  # the blank before it may have been dropped
    return whole[: len(whole) - len(key)], end - (len(name) - len(whole)) - len(key)


def normalised(name: str) -> tuple[str, bool]:
    """The letters and digits of a name, lower case, without namespace; and whether DSML stood before it.

    A marked name that is off by one letter is the one that is meant.
    """
    words = [word.lower() for word in _SEPARATORS.split(name) if word]
    short = "".join(words)
    if short.startswith("dsml"):
        return meant(short[4:]), True
    sure = _before_mark(name)
    if len(words) > 1 and near(words[0], "dsml") and _may_be_dsml(words[0], sure):
        return meant("".join(words[1:])), True
    if sure is not None:
        return meant(short, sure), False
    return _local(name.rstrip(" \t:：")), False


def _before_mark(name: str) -> int | None:
    """How many letters and digits stand before the first mark; None if there is no mark."""
    mark = _MARK.search(name)
    return None if mark is None else len(_SEPARATORS.sub("", name[: mark.start()]))


def _may_be_dsml(word: str, sure: int | None) -> bool:
    """Whether a word that is nearly `dsml`, or its beginning, is taken for it: any behind a mark, else by its first letter, which
    may be the second of the name."""
    return sure == 0 or word.startswith(_BEGIN_DSML)


def _local(name: str) -> str:
    """The letters and digits of a name, lower case, without namespace."""
    space = _NAMESPACE.match(name)
    return _SEPARATORS.sub("", name[space.end() if space else 0 :]).lower()


def unfinished(text: str, at: int, names: Collection[str] | None) -> bool:
    """Whether what stands at text[at] up to the end of the text may become a tag of one of these (normalised) names.

    None: of any name.
    """
    size = len(text) - at
    if size == 1:
        return text[at] in OPENING
    if size > MAX_SHELL or _ANY_BRACKET.search(text, at + 1):
        return False
    shell = _NAME.match(text, at)
    if shell is None:
        return False
    name, after = shell.group("name"), text[shell.end() : shell.end() + 1]
    if not after:
        return names is None or _may_be_one(name, names)
    if _MAY_FOLLOW_NAME(after) is None:
        return False
    if names is None:
        return True
    if after in "=＝" + _QUOTES:
        name = _without_key(name, 0)[0]
    return normalised(name)[0] in names


def half(text: str, at: int, names: Collection[str]) -> bool:
    """Whether the text ends in what is plainly the beginning of a tag of one of these names: its bracket, or letters of the
    name. What only a namespace could make one is none."""
    if not unfinished(text, at, names):
        return False
    shell = _NAME.match(text, at)
    return shell is None or shell.end() < len(text) or _begins_one(shell.group("name"), names)


def half_closing(text: str, at: int) -> bool:
    """Whether the beginning of a tag that stands at text[at] may become a closing one."""
    return not text[at + 1 :].strip() or text[at + 1 :].lstrip(" \t")[0] in "/／"


def _may_be_one(written: str, names: Collection[str]) -> bool:
    """Whether the beginning of a name, as it is written, may become one of these: by itself, or without the key of an
    attribute.
    """
    space = _NAMESPACE.match(written)
    if _WORD(written, space.end() if space else 0):
        return True  # a namespace, or the first word
    return _begins_one(written, names)


def _begins_one(written: str, names: Collection[str]) -> bool:
    """The same without the namespace that may still come."""
    words = [word.lower() for word in _SEPARATORS.split(written) if word]
    whole = "".join(words)
    if not whole:
        return True
    if whole[0] not in _BEGIN_DSML and not _MAY_HIDE_NAME(written) and whole[0] not in {name[0] for name in names}:
        return False  # `a < b or`: most of what is held ends here
    key = _last_word(written)
    if key and normalised(written.rstrip()[: -len(key)])[0] in names:
        return True
    sure = _before_mark(written)
    parts = {(whole, sure), (_local(written), None)}
    if near_beginning(whole, "dsml") and _may_be_dsml(whole, sure):
        return True
    if whole.startswith("dsml"):
        parts.add((whole[4:], 0))
    elif near(words[0], "dsml") and _may_be_dsml(words[0], sure):
        parts.add(("".join(words[1:]), 0))
    return any(_begins(part, name, exact) or _runs_into_key(part, name, exact) for name in names for part, exact in parts)


def _begins(written: str, name: str, sure: int | None) -> bool:
    """Whether this may still become the name. All but the first `sure` letters may be drifted; None: none may."""
    return name.startswith(written) or (
        sure is not None and name.startswith(written[:sure]) and sure < len(written) and near_beginning(written, name)
    )


def _last_word(written: str) -> str:
    """The last word, if it may be the key of an attribute."""
    words = written.rsplit(None, 1)
    return words[-1] if words and _KEY(words[-1]) else ""


def _runs_into_key(written: str, name: str, sure: int | None) -> bool:
    """Whether this is the name, with drifts as in `_begins`, and the beginning of the key `name` (`_without_key`)."""
    size = len(name)
    if written.startswith(name) and "name".startswith(written[size:]):
        return True
    if sure is None or not name.startswith(written[:sure]):
        return False
    return any("name".startswith(written[end:]) and near(written[:end], name) for end in (size - 1, size + 1))
