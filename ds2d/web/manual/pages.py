"""The pages of the manual, in their order, as finished HTML: from the installed package, or rendered from a checkout's Markdown.

Rule: a page needs nothing but itself and `style.css` beside it; there is no script, and nothing comes from elsewhere.
Surprise: the index stands at `/docs`, the others below it, and as files they lie side by side, so how links are written depends
on where the page will be read.
"""

from __future__ import annotations

import html
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path, PurePosixPath

from ds2d import __version__
from ds2d.web.manual.render import Link, Page, render

ROOT = Path(__file__).parents[3]
"""The checkout, where this is one."""

INDEX = "index"

CONTENTS: dict[str, tuple[str, ...]] = {
    "Start": (INDEX, "start", "clients", "migrate"),
    "Use": ("models", "keys", "dialects", "routing"),
    "Operate": ("service", "upgrade", "monitoring", "security", "scaling", "reliability"),
    "Look up": ("config", "commands", "api", "errors", "metrics", "differences", "changes", "start.zh-CN"),
}
"""Pages by chapter. One that is not there (yet) is left out."""

ELSEWHERE = {"api": "API.md", "changes": "CHANGELOG.md"}
"""Pages that are not in `docs/`, relative to the checkout."""

STYLE = """\
:root { color-scheme: light dark; --edge: #8884; --soft: #8881; --link: #0b62c4; }
@media (prefers-color-scheme: dark) { :root { --link: #7db4f0; } }
body { font: 16px/1.6 system-ui, sans-serif; margin: 0 auto; max-width: 76rem; padding: 0 1.25rem 4rem; display: grid;
  grid-template-columns: 13rem minmax(0, 1fr); gap: 2.5rem; }
nav { position: sticky; top: 0; align-self: start; max-height: 100vh; overflow-y: auto; padding: 1.5rem 0; font-size: .9rem; }
nav ul { list-style: none; padding: 0; margin: .2rem 0 1rem; } nav strong { opacity: .7; font-weight: 600; }
nav ul ul { margin: .1rem 0 .5rem .8rem; }
nav li { margin: .15rem 0; } nav [aria-current] { font-weight: 600; color: inherit; text-decoration: none; }
main { padding-top: 1rem; min-width: 0; } a { color: var(--link); }
h1 { line-height: 1.2; } h2 { margin-top: 2.2rem; border-bottom: 1px solid var(--edge); padding-bottom: .2rem; }
code { font: .9em ui-monospace, monospace; background: var(--soft); padding: .1em .25em; border-radius: 3px; }
pre { background: var(--soft); border: 1px solid var(--edge); border-radius: 6px; padding: .8rem 1rem; overflow-x: auto; }
pre code { background: none; padding: 0; } img { max-width: 100%; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .92rem; }
th, td { border: 1px solid var(--edge); padding: .3rem .6rem; text-align: left; vertical-align: top; }
th { background: var(--soft); } footer { margin-top: 3rem; opacity: .7; font-size: .85rem; }
@media (max-width: 50rem) { body { display: block; } nav { position: static; max-height: none; } }
@media print { nav { display: none; } body { display: block; } }
"""


def names() -> tuple[str, ...]:
    """Every page there is, in reading order."""
    there = (
        set(_finished())
        if _is_built()
        else {name for chapter in CONTENTS.values() for name in chapter if _source(name).is_file()}
    )
    return tuple(name for chapter in CONTENTS.values() for name in chapter if name in there)


@cache
def page(name: str) -> str:
    """A page as a file that lies beside the others. Raises KeyError."""
    if name not in names():
        raise KeyError(name)
    if _is_built():
        return _finished()[name].read_text("utf-8")
    return compose(name)


@cache
def served(name: str) -> str:
    """A page as `/docs/NAME` gives it, the index as `/docs` does. Raises KeyError."""
    text = page(name)
    for other in names():
        place = "docs" if name == INDEX and other == INDEX else f"docs/{other}" if name == INDEX else other
        place = "../docs" if other == INDEX and name != INDEX else place
        text = text.replace(f'href="{other}.html', f'href="{place}')
    return text.replace('href="style.css"', f'href="{"docs/" if name == INDEX else ""}style.css"')


def write(folder: Path) -> list[Path]:
    """All of the manual as files. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "style.css").write_text(STYLE)
    made = [folder / f"{name}.html" for name in names()]
    for path in made:
        path.write_text(page(path.stem), "utf-8")
    return [*made, folder / "style.css"]


def text_of(name: str) -> str:
    """A page's Markdown, from a checkout. Raises KeyError, OSError."""
    if name not in names():
        raise KeyError(name)
    return _source(name).read_text("utf-8")


def compose(name: str) -> str:
    """The whole HTML of one page, from its Markdown."""
    found = render(text_of(name), _link_from(name))
    language = "zh-CN" if name.endswith(".zh-CN") else "en"
    head = f"<title>{html.escape(found.title)} · ds2d</title>"
    parts = [f'<!doctype html>\n<html lang="{language}">\n<meta charset="utf-8">\n{head}']
    parts += ['<meta name="viewport" content="width=device-width">', '<link rel="stylesheet" href="style.css">', "<body>"]
    parts += [_navigation(name, found), "<main>", found.body, f"<footer>ds2d {__version__}</footer>"]
    return "\n".join([*parts, "</main>", "</body>", "</html>", ""])


def title_of(name: str) -> str:
    """The first heading of a page."""
    first = text_of(name).lstrip().partition("\n")[0]
    return first.removeprefix("#").strip().replace("`", "")


def _navigation(name: str, found: Page) -> str:
    parts = ["<nav>"]
    for chapter, pages in CONTENTS.items():
        parts += [f"<strong>{chapter}</strong>", "<ul>"]
        for other in pages:
            if other not in names():
                continue
            current = ' aria-current="page"' if other == name else ""
            below = "".join(
                f'<li><a href="#{html.escape(anchor)}">{html.escape(text)}</a></li>' for anchor, text in found.sections
            )
            inner = f"<ul>{below}</ul>" if other == name and len(found.sections) > 1 else ""
            parts.append(f'<li><a href="{other}.html"{current}>{html.escape(title_of(other))}</a>{inner}</li>')
        parts.append("</ul>")
    return "\n".join([*parts, "</nav>"])


def _link_from(name: str) -> Link:
    """Links between pages as links between files; to what is no page here, none."""
    folder = PurePosixPath("docs") if name not in ELSEWHERE else PurePosixPath()
    pages = {_normal(PurePosixPath(ELSEWHERE.get(other, f"docs/{other}.md"))): other for other in names()}

    def link(target: str) -> str | None:
        if target.startswith(("http://", "https://", "#")):
            return target
        path, mark, anchor = target.partition("#")
        other = pages.get(_normal(folder / path))
        return f"{other}.html{mark}{anchor}" if other else None

    return link


def _normal(path: PurePosixPath) -> str:
    parts: list[str] = []
    for part in path.parts:
        if part == ".." and parts:
            parts.pop()
        else:
            parts.append(part)
    return "/".join(parts)


def _source(name: str) -> Path:
    return ROOT / ELSEWHERE.get(name, f"docs/{name}.md")


def _is_built() -> bool:
    return bool(_finished())


@cache
def _finished() -> dict[str, Traversable]:
    """The pages that a wheel brought along."""
    folder = files("ds2d.web.manual").joinpath("html")
    if not folder.is_dir():
        return {}
    return {path.name.removesuffix(".html"): path for path in folder.iterdir() if path.name.endswith(".html")}
