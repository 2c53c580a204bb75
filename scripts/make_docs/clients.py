"""docs/clients.md: the clients that the code knows the settings of, and what else there is to say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ds2d.core.connect import CLIENTS, Setup, connect

PROSE = Path(__file__).parents[2] / "docs" / "parts" / "clients.md"
KEY = "sk-…"
LANGUAGES = {".py": "python", ".toml": "toml"}


def page() -> str:
    """The whole page."""
    setups = (connect(name, "http://127.0.0.1:5001", KEY, "deepseek-chat") for name in CLIENTS)
    made = "\n".join(line for setup in setups for line in _section(setup))
    return PROSE.read_text().replace("<!-- clients -->\n", made)


def _section(setup: Setup) -> Iterator[str]:
    yield f"## {setup.title}\n"
    variables = {name: value for name, value in setup.variables.items() if name != "DS2D_KEY"}
    if variables != setup.variables:
        yield "`DS2D_KEY` in the environment has the key; `. ./.ds2d.env` puts it there.\n"
    if variables:
        yield "```sh"
        yield from (f"export {name}={_value(value)}" for name, value in variables.items())
        yield "```\n"
    for file in setup.files:
        yield f"`{file.path}`:\n"
        yield f"```{LANGUAGES.get(Path(file.path).suffix, 'text')}\n{file.text.rstrip()}\n```\n"
    if setup.run:
        yield f"```sh\n# needs {setup.title}\n{setup.run}\n```\n"


def _value(text: str) -> str:
    return "$DS2D_KEY" if text == KEY else text
