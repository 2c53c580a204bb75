"""Documents whose commands are run as they are printed.

Rule: every `sh` block runs, in the order of the document, in one folder where `ds2d init` was run and the daemon serves; a block
whose first line is `# needs …` does not, and is counted. `json` blocks are configs and are checked; `python` blocks run.
Surprise: what is replaced is the port, the key in `sk-…`, and `ds2d init`, which must not look for servers of this machine. A
block that is `ds2d serve` alone starts the daemon.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from tests.functional.processes import answers, ds2d, environment, free_port, serving

ROOT = Path(__file__).parents[2]
PORT = 5001
NEEDS = re.compile(r"# needs (.+)")


class Block(NamedTuple):
    """A fenced block. `needs` is what its mark says, empty if it has none."""

    language: str
    text: str
    needs: str


def blocks(document: Path) -> list[Block]:
    """All fenced blocks of a document."""
    found = re.findall(r"^```(\w+)\n(.*?)^```$", document.read_text(), re.DOTALL | re.MULTILINE)
    return [Block(language, text, mark[1] if (mark := NEEDS.match(text)) else "") for language, text in found]


class Reader:
    """Somebody who types what a document says."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder = folder
        self._stack = stack
        self._port = free_port()
        self._bin = folder / "bin"
        self._bin.mkdir()
        launcher = self._bin / "ds2d"
        launcher.write_text(f'#!/bin/sh\nexec {sys.executable} -m ds2d "$@"\n')
        launcher.chmod(0o755)
        self._exports = ""

    def begin(self) -> None:
        """Where a document does not say it itself: `init` and `serve`."""
        self._type("ds2d init")
        self._serve()

    def read(self, block: Block) -> None:
        """Do what the block says; it must go well."""
        if block.text.strip() == "ds2d serve":
            self._serve()
        elif block.language == "sh":
            self._type(block.text)
        elif block.language == "python":
            self._type(f"{sys.executable} - <<'END'\n{block.text}END\n")

    def _serve(self) -> None:
        if not answers(self._port):
            self._stack.enter_context(serving(self._folder, port=self._port))

    def _type(self, text: str) -> None:
        source = ". ./.ds2d.env\n" if (self._folder / ".ds2d.env").exists() else ""
        self._run(["sh", "-eu", "-c", source + self._exports + self._as_printed(text)])
        self._exports += "".join(f"{self._as_printed(line)}\n" for line in text.splitlines() if line.startswith("export "))
        config = self._folder / "config.json"
        if f'"port": {PORT}' in config.read_text():
            config.write_text(config.read_text().replace(f'"port": {PORT}', f'"port": {self._port}'))

    def _run(self, command: list[str]) -> None:
        env = environment()
        env["PATH"] = f"{self._bin}:{env['PATH']}"
        done = subprocess.run(command, cwd=self._folder, env=env, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, f"{command[-1]}\n{done.stdout}{done.stderr}"
        assert '"error"' not in done.stdout, f"{command[-1]}\n{done.stdout}"
        assert '{"detail"' not in done.stdout, f"{command[-1]}\n{done.stdout}"

    def _as_printed(self, text: str) -> str:
        text = text.replace(f"127.0.0.1:{PORT}", f"127.0.0.1:{self._port}")
        text = re.sub(r"^ds2d init$", "ds2d init --no-scan", text, flags=re.MULTILINE)
        return text.replace("sk-…", self.key)

    @property
    def key(self) -> str:
        path = self._folder / ".ds2d.env"
        lines = path.read_text().splitlines() if path.exists() else []
        return next((line.partition("=")[2].strip("'") for line in lines if "DS2D_KEY" in line), "sk-…")


def check_config(folder: Path, text: str) -> str:
    """What `ds2d check-config` has against a config, files that only a host has apart; empty if nothing."""
    text = text.replace("sk-…", "sk-0123456789abcdef")
    (folder / "checked.json").write_text(text)
    done = ds2d(folder, "check-config", "checked.json")
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    return "\n".join(line for line in errors if not line.endswith("the file is missing"))


def inline_commands(document: Path) -> Iterator[list[str]]:
    """Commands of ours that are named in a sentence: verb, action, options."""
    for text in re.findall(r"`ds2d ([^`]+)`", document.read_text()):
        yield text.split()
