"""Print the manual page, made of the commands and options themselves.

ds2d man | man -l -          read it
ds2d man > ds2d.1            where a package wants it
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

from ds2d import __version__
from ds2d.cli.tree import Command, Taken, commands
from ds2d.config.environment import VARIABLES


def configure(parser: argparse.ArgumentParser) -> None:
    """No options."""


def run(options: argparse.Namespace) -> int:
    """Print it."""
    print("\n".join(page(commands())))
    return 0


def page(found: Sequence[Command]) -> Iterator[str]:
    """The lines of ds2d(1), in the macros of man(7)."""
    yield f'.TH DS2D 1 "" "ds2d {__version__}" "User Commands"'
    yield from (".SH NAME", r"ds2d \- a gateway between AI clients and DeepSeek models")
    yield from (".SH SYNOPSIS", ".B ds2d", r"\fICOMMAND\fR [\fIOPTIONS\fR]")
    yield ".SH DESCRIPTION"
    yield _plain(
        "One process between OpenAI, Claude and Gemini clients and vLLM, other OpenAI-compatible servers, or the DeepSeek API. "
        "`ds2d init` makes a configuration, `ds2d serve` runs the daemon, and the other commands look at it and change it. "
        "`ds2d docs` has the manual."
    )
    yield ".SH COMMANDS"
    for command in found:
        yield from _command(command)
    yield ".SH ENVIRONMENT"
    for name, text in VARIABLES.items():
        yield from (".TP", f".B {name}", _plain(text))
    yield ".SH FILES"
    for name, text in FILES.items():
        yield from (".TP", f".I {_plain(name)}", _plain(text))
    yield ".SH EXIT STATUS"
    yield "0 done; 1 refused or failed, said on standard error; 2 asked wrongly; 130 interrupted."


FILES = {
    "config.json": "the configuration, in the working folder",
    "/var/lib/ds2d/config.json": "the configuration under systemd, and where there is none in the working folder",
    "/etc/ds2d/environment": "variables of the service",
}


def _command(command: Command) -> Iterator[str]:
    yield f".SS {_plain(command.usage)}"
    yield _plain(f"{command.summary[:1].upper()}{command.summary[1:]}.")
    if command.text:
        yield from (".PP", ".nf", *(_plain(line) for line in command.text.splitlines()), ".fi")
    for one in command.taken:
        yield from _taken(one)


def _taken(one: Taken) -> Iterator[str]:
    value = rf" \fI{_plain(one.value)}\fR" if one.value and one.flags else ""
    names = ", ".join(rf"\fB{_plain(flag)}\fR" for flag in one.flags) or rf"\fI{_plain(one.value)}\fR"
    yield from (".TP", f"{names}{value}", _plain(one.help) or "(no more to say)")


def _plain(text: str) -> str:
    """Text that no macro or escape is read in."""
    escaped = text.replace("\\", r"\(rs").replace("-", r"\-").replace("'", r"\(aq")
    return rf"\&{escaped}" if escaped.startswith(".") else escaped
