"""docs/config.md, of the schema: default, bounds, live or not, and which settings the admin API changes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ds2d.config.describe import Key, keys
from ds2d.config.parse import NO_EFFECT, NO_EFFECT_INSIDE
from ds2d.web.admin.settings import settings

SETTINGS = settings()

PROSE = Path(__file__).parents[2] / "docs" / "parts" / "config.md"

TITLES = {
    "keys": "Callers' keys: `keys[]`",
    "upstreams": "Servers: `upstreams[]`",
    "accounts": "Credentials on servers: `accounts[]`",
    "models": "Model names: `models{}`",
}


def page() -> str:
    """The whole page."""
    prose = PROSE.read_text().replace("<!-- silent -->", _silent())
    return prose.replace("<!-- tables -->", "\n".join(_tables()).rstrip())


def _tables() -> Iterator[str]:
    sections: dict[str, list[Key]] = {}
    for key in keys():
        sections.setdefault(key.path.partition(".")[0].removesuffix("[]"), []).append(key)
    alone = [name for name, found in sections.items() if len(found) == 1 and name not in TITLES]
    for name, found in sections.items():
        if name in alone:
            continue
        yield f"## {TITLES.get(name, f'`{name}`')}\n"
        yield from _table(key for key in found if key.path != name)
    yield "## Further maps\n"
    yield from _table(sections[name][0] for name in alone)


def _table(found: Iterator[Key]) -> Iterator[str]:
    yield "| key | default | bounds | meaning | |"
    yield "| --- | --- | --- | --- | --- |"
    for key in found:
        yield f"| `{key.path}` | {_default(key)} | {_bounds(key)} | {_escaped(key.text)} | {_notes(key)} |"
    yield ""


def _default(key: Key) -> str:
    if key.required:
        return "required"
    if key.default is None:
        return "none"
    return f"`{_escaped(json.dumps(_plain(key.default), ensure_ascii=False))}`"


def _plain(value: Any) -> Any:
    """Structs, tuples and whole floats as a file would have them."""
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if value is None or isinstance(value, str | int | float | bool | dict) else {}


def _bounds(key: Key) -> str:
    if key.choices:
        return ", ".join(f"`{choice}`" for choice in key.choices) + (", null" if key.nullable else "")
    if key.kind in ("integer", "number") and (key.least is not None or key.most is not None):
        least = "" if key.least is None else f"{key.least:g}"
        most = "" if key.most is None or key.most > 2**40 else f"{key.most:.0f}" if key.most >= 1 else f"{key.most:g}"
        text = f"{least} to {most}" if least and most else f"at least {least}" if least else f"at most {most}" if most else ""
        return text + (", null" if key.nullable else "")
    return key.kind + (", null" if key.nullable else "")


def _notes(key: Key) -> str:
    found = ["restart"] * key.restart + ["settings"] * (key.path in SETTINGS)
    return ", ".join(found)


def _silent() -> str:
    return ", ".join(f"`{name}`" for name in (*NO_EFFECT, *map(".".join, NO_EFFECT_INSIDE), "accounts[].proxy_id"))


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")
