"""docs/commands.md, of the argparse parsers."""

from __future__ import annotations

from collections.abc import Iterator

from ds2d.cli.tree import Command, commands
from ds2d.config.environment import VARIABLES


def page() -> str:
    """The whole page."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield "# Commands"
    yield ""
    yield "Every command of `ds2d`; `ds2d COMMAND --help` says the same. Exit codes: 0 done; 1 refused or failed, said on"
    yield "standard error; 2 asked wrongly. `ds2d man` prints the manual page, `ds2d completion bash|zsh|fish` a completion."
    found = commands()
    for command in found:
        yield ""
        yield f"{'#' * (1 + len(command.words))} `ds2d {' '.join(command.words)}`"
        yield ""
        yield from _command(command)
    yield from ("", "## Environment", "", "| variable | meaning |", "| --- | --- |")
    yield from (f"| `{name.replace(', ', '`, `')}` | {text} |" for name, text in VARIABLES.items())


def _command(command: Command) -> Iterator[str]:
    yield f"{command.summary[:1].upper()}{command.summary[1:]}."
    yield ""
    yield f"    {command.usage}"
    if len(command.words) == 1 and "\n" in command.text:
        yield ""
        yield from ("```text", *command.text.splitlines()[2:], "```")
    if command.taken:
        yield from ("", "| | |", "| --- | --- |")
    for one in command.taken:
        names = ", ".join(f"`{flag}{f' {one.value}' if one.value else ''}`" for flag in one.flags) or f"`{one.value}`"
        choices = f" One of {', '.join(one.choices)}." if one.choices and one.value != "|".join(one.choices) else ""
        yield f"| {names.replace('|', chr(92) + '|')} | {one.help}{choices} |"
