"""Print the completion of a shell, made of the commands and options themselves.

ds2d completion bash > ~/.local/share/bash-completion/completions/ds2d
ds2d completion zsh > ~/.zfunc/_ds2d          (a folder in $fpath)
ds2d completion fish > ~/.config/fish/completions/ds2d.fish
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence

from ds2d.cli import VERBS
from ds2d.cli.tree import Command, Taken, commands


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of this verb."""
    parser.add_argument("shell", choices=tuple(SHELLS), help="which shell")


def run(options: argparse.Namespace) -> int:
    """Print it."""
    print("\n".join(SHELLS[options.shell](commands())))
    return 0


def bash(found: Sequence[Command]) -> Iterator[str]:
    """Offer what may follow the words so far: actions, options, a value's choices, or files."""
    yield "# bash completion of ds2d; made by `ds2d completion bash`"
    yield "_ds2d() {"
    yield '    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]} at="" word'
    yield from _walk("${COMP_WORDS[@]:1:COMP_CWORD-1}")
    yield '    case "$at $previous" in'
    for pattern, option in _values(found):
        offered = "-f" if option.is_file else f'-W "{" ".join(option.choices)}"'
        yield f'        {pattern}) COMPREPLY=($(compgen {offered} -- "$current")); return ;;'
    yield "    esac"
    yield '    case "$at" in'
    yield f'        "") COMPREPLY=($(compgen -W "{" ".join(VERBS)} --help --version" -- "$current")) ;;'
    for command in found:
        files = ' $(compgen -f -- "$current")' if any(one.is_file for one in command.arguments) else ""
        offered = f'$(compgen -W "{" ".join(_offered(command))}" -- "$current")'
        yield f'        "{" ".join(command.words)}") COMPREPLY=({offered}{files}) ;;'
    yield "    esac"
    yield "}"
    yield "complete -F _ds2d ds2d"


def zsh(found: Sequence[Command]) -> Iterator[str]:
    """The same for zsh, with what each word means."""
    yield "#compdef ds2d"
    yield "# zsh completion of ds2d; made by `ds2d completion zsh`"
    yield "_ds2d() {"
    yield '    local previous=${words[CURRENT-1]} at="" word'
    yield "    local -a offered"
    yield from _walk("${words[2,CURRENT-1]}")
    yield '    case "$at $previous" in'
    for pattern, option in _values(found):
        offered = "_files" if option.is_file else f"compadd -- {' '.join(option.choices)}"
        yield f"        {pattern}) {offered}; return ;;"
    yield "    esac"
    yield '    case "$at" in'
    yield f'        "") offered=({" ".join(_zsh(name, entry.summary) for name, entry in VERBS.items())}) ;;'
    for command in found:
        told = {one.words[-1]: one.summary for one in found if one.words[:-1] == command.words}
        told |= {flag: one.help for one in command.options for flag in one.flags}
        told |= {choice: one.help for one in command.arguments for choice in one.choices}
        files = " _files" if any(one.is_file for one in command.arguments) else " :"
        offered = " ".join(_zsh(word, text) for word, text in told.items())
        yield f'        "{" ".join(command.words)}") offered=({offered});{files} ;;'
    yield "    esac"
    yield "    _describe ds2d offered"
    yield "}"
    yield '_ds2d "$@"'


def fish(found: Sequence[Command]) -> Iterator[str]:
    """The same for fish."""
    yield "# fish completion of ds2d; made by `ds2d completion fish`"
    yield "function __ds2d_at"
    yield "    set -l at"
    yield "    for word in (commandline -opc)[2..]"
    yield '        switch "$at $word"'
    yield f"            case {' '.join(_quoted(' ' + name) for name in VERBS)}"
    yield "                set at $word"
    yield f"            case {' '.join(_quoted(' '.join(command.words)) for command in found if command.words[1:])}"
    yield '                set at "$at $word"'
    yield "        end"
    yield "    end"
    yield '    test "$at" = "$argv"'
    yield "end"
    yield "complete -c ds2d -f"
    for name, entry in VERBS.items():
        yield f"complete -c ds2d -n '__ds2d_at' -a {name} -d {_quoted(entry.summary)}"
    for command in found:
        here = f"complete -c ds2d -n '__ds2d_at {' '.join(command.words)}'"
        for below in found:
            if below.words[:-1] == command.words:
                yield f"{here} -a {below.words[-1]} -d {_quoted(below.summary)}"
        for option in command.options:
            names = " ".join(f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}" for flag in option.flags)
            yield f"{here} {names}{_fish_value(option)} -d {_quoted(option.help)}"
        for argument in command.arguments:
            if value := _fish_value(argument).replace(" -r -a", " -a").replace(" -r -F", " -F").replace(" -x", ""):
                yield f"{here}{value} -d {_quoted(argument.help)}"


SHELLS: dict[str, Callable[[Sequence[Command]], Iterator[str]]] = {"bash": bash, "zsh": zsh, "fish": fish}


def _walk(words: str) -> Iterator[str]:
    """Shell lines that set `at` to the command that the words before the cursor name."""
    names = [" ".join(command.words) for command in commands()]
    yield f"    for word in {words}; do"
    yield '        case "$at $word" in'
    yield f"            {'|'.join(_quoted(' ' + name) for name in VERBS)}) at=$word ;;"
    yield f'            {"|".join(_quoted(name) for name in names if " " in name)}) at="$at $word" ;;'
    yield "        esac"
    yield "    done"


def _values(found: Sequence[Command]) -> Iterator[tuple[str, Taken]]:
    """A pattern of command and flag for each option whose value can be offered."""
    for command in found:
        for option in command.options:
            if option.choices or option.is_file:
                yield "|".join(_quoted(" ".join((*command.words, flag))) for flag in option.flags), option


def _offered(command: Command) -> list[str]:
    flags = [flag for option in command.options for flag in option.flags]
    return [*command.actions, *(choice for one in command.arguments for choice in one.choices), *flags, "--help"]


def _fish_value(one: Taken) -> str:
    if one.choices:
        return f" -x -a {_quoted(' '.join(one.choices))}"
    if one.is_file:
        return " -r -F"
    return " -x" if one.value else ""


def _zsh(word: str, text: str) -> str:
    """An entry of `_describe`, in which a colon parts the word from its meaning."""
    return _quoted(f"{word}:{text}")


def _quoted(text: str) -> str:
    escaped = text.replace("'", "'\\''")
    return f"'{escaped}'"
