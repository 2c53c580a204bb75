"""Every command with its options as data, read off the argparse parsers: what completion, the man page and the docs are made of.

Rule: nothing about a command is written down twice; a new option is completed and documented by being there.
Surprise: argparse has no public way to list what a parser takes, so its private list of actions is read here and nowhere else.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import NamedTuple

from ds2d.cli import VERBS, parser_of


class Taken(NamedTuple):
    """An option or an argument. `flags` is empty for an argument; `value` is what stands for its value, empty for a switch."""

    flags: tuple[str, ...]
    value: str
    help: str
    choices: tuple[str, ...] = ()
    needed: bool = False

    @property
    def is_file(self) -> bool:
        """Whether the value is a path."""
        return self.value in ("FILE", "FOLDER")


class Command(NamedTuple):
    """One command or action: `words` as they are typed, `text` what `--help` says before the options."""

    words: tuple[str, ...]
    summary: str
    text: str
    taken: tuple[Taken, ...]
    actions: tuple[str, ...] = ()

    @property
    def options(self) -> list[Taken]:
        return [one for one in self.taken if one.flags]

    @property
    def arguments(self) -> list[Taken]:
        return [one for one in self.taken if not one.flags]

    @property
    def usage(self) -> str:
        """The command line in one line."""
        parts = [f"ds2d {' '.join(self.words)}"]
        parts += ["ACTION"] * bool(self.actions)
        parts += [one.value if one.needed else f"[{one.value}]" for one in self.arguments]
        parts += ["[OPTIONS]"] * bool(self.options)
        return " ".join(parts)


def commands() -> list[Command]:
    """All of them, each verb before its actions."""
    return [command for name, entry in VERBS.items() for command in _below((name,), entry.summary, parser_of(name))]


def _below(words: tuple[str, ...], summary: str, parser: argparse.ArgumentParser) -> Iterator[Command]:
    actions = parser._actions  # noqa: SLF001 - see the module's head
    groups = [action for action in actions if isinstance(action, argparse._SubParsersAction)]  # noqa: SLF001
    below: dict[str, argparse.ArgumentParser] = {name: sub for group in groups for name, sub in group.choices.items()}
    told = {choice.dest: choice.help or "" for group in groups for choice in group._choices_actions}  # noqa: SLF001
    taken = tuple(_taken(action) for action in actions if action not in groups and "--help" not in action.option_strings)
    yield Command(words, summary, (parser.description or "").strip(), taken, tuple(below))
    for name, sub in below.items():
        yield from _below((*words, name), told.get(name, ""), sub)


def _taken(action: argparse.Action) -> Taken:
    choices = tuple(map(str, action.choices or ()))
    value = "" if action.nargs == 0 else str(action.metavar or "").strip() or "|".join(choices) or action.dest.upper()
    needed = action.required if action.option_strings else action.nargs not in ("?", "*")
    return Taken(tuple(action.option_strings), value, action.help or "", choices, needed)
