"""Markdown to HTML: the part of it that this project's documents use.

Rule: everything is escaped; no HTML of a document passes, so nothing in one can become a tag. What is not known stays text.
Surprise: why not a package: the documents are ours, 150 lines read them all, and a wheel can be built, and a checkout can serve
them, with nothing installed for it.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

Link = Callable[[str], str | None]
"""What a link's target becomes; None: it leads nowhere here and only its text stays."""

_FENCE = re.compile(r"```(\w*)")
_HEADING = re.compile(r"(#{1,4}) (.+)")
_ITEM = re.compile(r"( *)([-*]|\d+\.) (.*)")
_RULE = re.compile(r"\|?[ :-]+(\|[ :-]+)+\|?")
_CODE = re.compile(r"(`+)(.+?)\1")
_IMAGE = re.compile(r"!\[([^\]]*)\]\(([^)\s]+)\)")
_LINK = re.compile(r"\[([^\]]+)\]\(([^)\s]+)\)")
_BOLD = re.compile(r"\*\*(.+?)\*\*")
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)


class Page(NamedTuple):
    """A document: its first heading, the headings below with their anchors, and all of it as HTML."""

    title: str
    sections: list[tuple[str, str]]
    body: str


def render(text: str, link: Link = lambda target: target) -> Page:
    """The HTML of a document."""
    return _Renderer(link).page(_COMMENT.sub("", text))


def anchor(heading: str) -> str:
    """The id of a heading, as GitHub makes it."""
    plain = re.sub(r"[^\w\- ]", "", re.sub(r"[`*]", "", heading).lower())
    return plain.strip().replace(" ", "-")


class _Renderer:
    def __init__(self, link: Link) -> None:
        self._link = link
        self._title = ""
        self._sections: list[tuple[str, str]] = []

    def page(self, text: str) -> Page:
        body = "\n".join(self._blocks(text.splitlines()))
        return Page(self._title, self._sections, body)

    def _blocks(self, lines: list[str]) -> Iterator[str]:
        at = 0
        while at < len(lines):
            line = lines[at]
            if not line.strip():
                at += 1
            elif fence := _FENCE.fullmatch(line.strip()):
                end = next((end for end in range(at + 1, len(lines)) if lines[end].strip() == "```"), len(lines))
                yield _code(lines[at + 1 : end], fence[1])
                at = end + 1
            elif heading := _HEADING.fullmatch(line):
                yield self._heading(len(heading[1]), heading[2])
                at += 1
            elif line.startswith("    "):
                end = _while(lines, at, lambda text: text.startswith("    ") or not text.strip())
                yield _code([text[4:] for text in lines[at:end]], "")
                at = end
            elif line.startswith("|") and at + 1 < len(lines) and _RULE.fullmatch(lines[at + 1].strip()):
                end = _while(lines, at, lambda text: text.startswith("|"))
                yield from self._table(lines[at], lines[at + 2 : end])
                at = end
            elif line.startswith(">"):
                end = _while(lines, at, lambda text: text.startswith(">"))
                inner = [text[1:].removeprefix(" ") for text in lines[at:end]]
                yield f"<blockquote>{''.join(self._blocks(inner))}</blockquote>"
                at = end
            elif _ITEM.fullmatch(line):
                end = _list_end(lines, at)
                yield self._list(lines[at:end])
                at = end
            else:
                end = _while(lines, at + 1, _goes_on)
                yield f"<p>{self._inline(' '.join(text.strip() for text in lines[at:end]))}</p>"
                at = end

    def _heading(self, level: int, text: str) -> str:
        name = anchor(text)
        if level == 1 and not self._title:
            self._title = re.sub(r"[`*]", "", text)
        elif level == 2:
            self._sections.append((name, re.sub(r"[`*]", "", text)))
        return f'<h{level} id="{html.escape(name)}">{self._inline(text)}</h{level}>'

    def _table(self, head: str, rows: list[str]) -> Iterator[str]:
        yield '<div class="wide"><table><thead><tr>'
        yield from (f"<th>{self._inline(cell)}</th>" for cell in _cells(head))
        yield "</tr></thead><tbody>"
        for row in rows:
            yield f"<tr>{''.join(f'<td>{self._inline(cell)}</td>' for cell in _cells(row))}</tr>"
        yield "</tbody></table></div>"

    def _list(self, lines: list[str]) -> str:
        first = _ITEM.fullmatch(lines[0])
        assert first is not None
        indent, kind = len(first[1]), "ul" if first[2] in "-*" else "ol"
        items: list[list[str]] = []
        for line in lines:
            found = _ITEM.fullmatch(line)
            if found and len(found[1]) == indent:
                items.append([found[3]])
            else:
                items[-1].append(line[min(indent + 2, len(line) - len(line.lstrip())) :])
        return f"<{kind}>{''.join(f'<li>{self._item(item)}</li>' for item in items)}</{kind}>"

    def _item(self, lines: list[str]) -> str:
        end = _while(lines, 1, _goes_on)
        return self._inline(" ".join(text.strip() for text in lines[:end])) + "".join(self._blocks(lines[end:]))

    def _inline(self, text: str) -> str:
        """Code first, for nothing in it means anything."""
        parts: list[str] = []
        last = 0
        for code in _CODE.finditer(text):
            parts += [self._spans(text[last : code.start()]), f"<code>{html.escape(code[2].strip())}</code>"]
            last = code.end()
        return _BOLD.sub(r"<strong>\1</strong>", self._linked("".join([*parts, self._spans(text[last:])])))

    def _spans(self, text: str) -> str:
        return html.escape(text, quote=False)

    def _linked(self, text: str) -> str:
        """Links around text that is escaped already, code in their names included."""
        text = _IMAGE.sub(lambda found: self._image(found[1], found[2]), text)
        return _LINK.sub(lambda found: self._anchor(found[1], found[2]), text)

    def _image(self, name: str, target: str) -> str:
        source = self._link(html.unescape(target))
        return f'<img src="{html.escape(source)}" alt="{html.escape(name)}">' if source else name

    def _anchor(self, name: str, target: str) -> str:
        address = self._link(html.unescape(target))
        return f'<a href="{html.escape(address)}">{name}</a>' if address else name


def _code(lines: list[str], language: str) -> str:
    kind = f' class="{language}"' if language else ""
    return f"<pre><code{kind}>{html.escape(chr(10).join(lines).rstrip())}</code></pre>"


def _cells(row: str) -> list[str]:
    return [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", row.strip().removeprefix("|").removesuffix("|"))]


def _while(lines: list[str], at: int, holds: Callable[[str], bool]) -> int:
    while at < len(lines) and holds(lines[at]):
        at += 1
    return at


def _goes_on(line: str) -> bool:
    """Whether a line belongs to the paragraph before it."""
    starts = _FENCE.fullmatch(line.strip()) or _HEADING.fullmatch(line) or _ITEM.fullmatch(line) or line.startswith(("|", ">"))
    return bool(line.strip()) and not starts


def _list_end(lines: list[str], at: int) -> int:
    """A list goes on while lines are items of its kind, indented, or the rest of an item's paragraph."""
    numbered = _is_numbered(lines[at])
    end = at + 1
    while end < len(lines):
        line = lines[end]
        if not line.strip():
            after = next((text for text in lines[end + 1 :] if text.strip()), "")
            if not after.startswith("  ") and _is_numbered(after) is not numbered:
                return end
        elif not (_ITEM.fullmatch(line) or line.startswith("  ") or (lines[end - 1].strip() and _goes_on(line))):
            return end
        end += 1
    return end


def _is_numbered(line: str) -> bool | None:
    """Whether an item has a number; None if it is no item."""
    found = _ITEM.fullmatch(line)
    return found[2] not in "-*" if found else None
