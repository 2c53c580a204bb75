"""Read the manual, or write it out as HTML.

ds2d docs                    the pages there are; a running daemon serves them at /docs
ds2d docs keys               one of them as text
ds2d docs --out FOLDER       all of them as HTML files, for a browser on a host without a network
"""

from __future__ import annotations

import argparse
import html
import os
import re
import shutil
import sys
import textwrap
from pathlib import Path

from ds2d.web.manual import pages


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of this verb."""
    parser.add_argument("page", nargs="?", help="a page to read, such as `start`")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write all pages there as HTML")


def run(options: argparse.Namespace) -> int:
    """Print or write. 1 if there is no such page, or the folder cannot be written."""
    if options.out:
        try:
            made = pages.write(options.out)
        except OSError as error:
            print(f"error: {error.filename}: {os.strerror(error.errno or 0)}", file=sys.stderr)
            return 1
        print(f"wrote {len(made)} files; begin with {options.out / pages.INDEX}.html")
        return 0
    if options.page is None:
        for name in pages.names():
            print(f"{name:14} {_title(name)}")
        return 0
    if options.page not in pages.names():
        print(f"error: there is no page {options.page!r}; there are: {', '.join(pages.names())}", file=sys.stderr)
        return 1
    print(_as_text(options.page))
    return 0


def _title(name: str) -> str:
    found = re.search(r"<title>(.*?) · ds2d</title>", pages.page(name))
    return html.unescape(found[1]) if found else name


_BLOCK = re.compile(
    r"<pre>(?P<pre>.*?)</pre>|<tr>(?P<row>.*?)</tr>|<(?P<tag>h[1-4]|p|li)[^>]*>(?P<text>.*?)(?=</?(?:h[1-4]|p|li|ul|ol|div)\b)",
    re.DOTALL,
)


def _as_text(name: str) -> str:
    """What stands on a page, without its tags, for a terminal: a package has the HTML only."""
    width = min(shutil.get_terminal_size((100, 24)).columns, 110)
    lines: list[str] = []
    before = ""
    for found in _BLOCK.finditer(re.split(r"</?main>", pages.page(name))[1]):
        kind = found["tag"] or ("pre" if found["pre"] is not None else "row")
        if not (kind == before and kind in ("row", "li")):
            lines.append("")
        lines += _block(kind, found, width)
        before = kind
    return "\n".join(lines).strip()


def _block(kind: str, found: re.Match[str], width: int) -> list[str]:
    if kind == "pre":
        return [f"    {line}" for line in _plain(found["pre"]).splitlines()]
    if kind == "row":
        cells = [" ".join(_plain(cell).split()) for cell in re.findall(r"<t[dh]>(.*?)</t[dh]>", found["row"], re.DOTALL)]
        return textwrap.wrap(
            "  |  ".join(cells), width, subsequent_indent="      ", break_long_words=False, break_on_hyphens=False
        ) or [""]
    text = " ".join(_plain(found["text"]).split())
    if kind.startswith("h"):
        return [text.upper() if kind in ("h1", "h2") else text]
    mark = "- " if kind == "li" else ""
    return textwrap.wrap(
        text, width, initial_indent=mark, subsequent_indent=" " * len(mark), break_long_words=False, break_on_hyphens=False
    )


def _plain(text: str) -> str:
    return html.unescape(re.sub(r"<[^>]+>", "", text))
