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
import sys
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


def _as_text(name: str) -> str:
    """What stands on a page, without its tags: a package has the HTML only."""
    body = re.split(r"</?main>", pages.page(name))[1]
    body = re.sub(r"<h[1-4][^>]*>", "\n## ", body)
    body = re.sub(r"<li>", "- ", body)
    body = re.sub(r"</(t[dh])>(?=<t[dh]>)|</th>\n(?=<th>)", "  |  ", body)
    body = re.sub(r"</(tr|li|p|h[1-4]|pre|ul|ol)>", "\n", body)
    return re.sub(r"\n{3,}", "\n\n", html.unescape(re.sub(r"<[^>]+>", "", body))).strip()
