"""The command line: one small file a verb, found through one table.

Rule: `main` returns the exit code: 0 done, 1 refused or failed (said on standard error), 2 asked wrongly.
Surprise: a verb's module is imported when it is asked for, so `ds2d version` does not load a web server.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import gc
import importlib
import io
import os
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol, cast

from ds2d import __version__

AUTHORITIES = "SSL_CERT_FILE"
"""The variable with which OpenSSL is told where the system's authorities are."""


class Verb(Protocol):
    """What a verb's module offers."""

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Add the verb's options."""

    def run(self, options: argparse.Namespace) -> int:
        """Do it; the exit code."""


class _Entry(NamedTuple):
    module: str
    summary: str


VERBS: dict[str, _Entry] = {
    "serve": _Entry("ds2d.cli.serve", "run the daemon"),
    "upgrade": _Entry("ds2d.cli.upgrade", "have the version that is installed now take over from the running daemon"),
    "init": _Entry("ds2d.cli.init", "make config.json with fresh keys, and find local model servers"),
    "check-config": _Entry("ds2d.cli.check_config", "say everything that is wrong with a config file"),
    "config": _Entry("ds2d.cli.config", "show the values in force, or the schema for editors"),
    "doctor": _Entry("ds2d.cli.doctor", "examine model servers and gateway, and name the layer that fails"),
    "env": _Entry("ds2d.cli.env", "print what to set so that a client talks to this gateway"),
    "explain": _Entry("ds2d.cli.explain", "say why a request went as it did"),
    "keys": _Entry("ds2d.cli.keys", "add, list, revoke API keys, and show what they used"),
    "models": _Entry("ds2d.cli.models", "list the models, or show what a name becomes"),
    "status": _Entry("ds2d.cli.status", "say how the running daemon is"),
    "test-all": _Entry("ds2d.cli.try_accounts", "try every account of the running daemon"),
    "capture": _Entry("ds2d.cli.capture", "take captured exchanges out of the daemon"),
    "replay": _Entry("ds2d.cli.replay", "play a captured exchange again and compare"),
    "usage": _Entry("ds2d.cli.usage", "export the record of use"),
    "import": _Entry("ds2d.cli.import_config", "take over the config of another gateway"),
    "docs": _Entry("ds2d.cli.docs", "read the manual, or write it out as HTML"),
    "completion": _Entry("ds2d.cli.completion", "print the completion of a shell"),
    "man": _Entry("ds2d.cli.man", "print the manual page"),
    "version": _Entry("ds2d.cli.version", "print the version"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; `argv` is without the program's name."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in {"-h", "--help", "help"}:
        print(_usage())
        return 0 if words else 2
    name = "version" if words[0] in {"-V", "--version"} else words[0]
    if name not in VERBS:
        near = difflib.get_close_matches(name, VERBS, 1)
        hint = f"did you mean {near[0]}?" if near else "`ds2d --help` lists the commands"
        print(f"error: there is no command {name!r}: {hint}", file=sys.stderr)
        return 2
    return _run(name, words[1:])


def parser_of(name: str) -> argparse.ArgumentParser:
    """The parser of one verb."""
    verb = _module_of(name)
    parser = argparse.ArgumentParser(
        prog=f"ds2d {name}", description=_for_people(verb.__doc__ or ""), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verb.configure(parser)
    return parser


def _for_people(text: str) -> str:
    """A module's head without what it says to developers: the paragraphs on its rule and its surprises."""
    return "\n\n".join(part for part in text.split("\n\n") if not part.startswith(("Rule:", "Surprise:")))


def _have_standard_error() -> None:
    """Where it was closed (`2>&-`), what is said there goes to standard output, and no file of ours gets its number."""
    if sys.stderr is None:
        os.dup2(os.open(os.devnull, os.O_WRONLY) if sys.stdout is None else sys.stdout.fileno(), 2)
        sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115 - to the end


def _run(name: str, words: list[str]) -> int:
    _have_standard_error()
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal that is not UTF-8 lacks some of our characters
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        return _module_of(name).run(parser_of(name).parse_args(words))
    except SystemExit as stop:  # argparse: --help, or asked wrongly
        return stop.code if isinstance(stop.code, int) else 2
    except KeyboardInterrupt:
        return 130
    except FileNotFoundError:
        if _is_somewhere():
            raise
        print("error: the folder in which this was started is no longer there", file=sys.stderr)
        return 1
    except BrokenPipeError:  # `ds2d config show | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _is_somewhere() -> bool:
    """Whether the working folder is there: most verbs look in it first."""
    try:
        os.getcwd()
    except FileNotFoundError:
        return False
    return True


def _module_of(name: str) -> Verb:
    with _quick_imports():
        return cast(Verb, importlib.import_module(VERBS[name].module))


@contextlib.contextmanager
def _quick_imports() -> Iterator[None]:
    """Import without what takes long and serves nobody.

    Nothing that an import makes is garbage: looking for it is a tenth of the time. aiohttp reads the system's authorities as
    it is imported, twice, for contexts that no call of ours uses (`net.client.authorities`): 70 ms and 3 MB.
    """
    file = os.environ.get(AUTHORITIES)
    os.environ[AUTHORITIES] = os.devnull
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        if file is None:
            del os.environ[AUTHORITIES]
        else:
            os.environ[AUTHORITIES] = file


def _usage() -> str:
    width = max(map(len, VERBS))
    lines = [f"  {name:{width}}  {entry.summary}" for name, entry in VERBS.items()]
    return "\n".join(
        [
            f"ds2d {__version__}: a gateway between AI clients and DeepSeek models",
            "",
            "usage: ds2d COMMAND [options]    (`ds2d COMMAND --help` says more)",
            "",
            *lines,
        ]
    )
