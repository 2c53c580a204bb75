"""Completion and the man page: made of the commands, understood by the shells themselves and by man."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from ds2d.cli import VERBS, main
from ds2d.cli.tree import commands

SHELLS = ("bash", "zsh", "fish")
ASK = {
    # compgen answers in bash itself
    "bash": "source {script}; COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _ds2d;"
    ' printf "%s\\n" "${{COMPREPLY[@]}}"',
    # the completion system draws menus; what would be in them is printed instead
    "zsh": "_describe() {{ for one in ${{(P)2}}; do print -r -- ${{one%%:*}}; done }}; compdef() {{ }};"
    " compadd() {{ shift; print -l -- $@ }}; _files() {{ print FILES }};"
    " words=({words}); CURRENT=${{#words}}; source {script}",
    "fish": "source {script}; complete -C {line} | cut -f1",
}


@pytest.fixture(params=SHELLS)
def offered(request: pytest.FixtureRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., set[str]]:
    """What a shell offers after these words, the last of which is being typed."""
    shell: str = request.param
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not here: its completion was not tried")
    assert main(["completion", shell]) == 0
    script = tmp_path / "script"
    script.write_text(capsys.readouterr().out)

    def ask(*words: str) -> set[str]:
        line = "'" + " ".join(("ds2d", *words)) + "'"
        quoted = " ".join(f"'{word}'" for word in ("ds2d", *words))
        command = ASK[shell].format(script=script, words=quoted, line=line)
        done = subprocess.run([shell, "-c", command], capture_output=True, text=True, timeout=20, check=True, cwd=tmp_path)
        assert not done.stderr
        found = set(done.stdout.split("\n")) - {""}
        return {word for word in found if word.startswith(words[-1])} | found & {"FILES"}

    return ask


def test_verbs_then_actions_then_options(offered: Callable[..., set[str]]) -> None:
    assert offered("") >= set(VERBS)
    assert offered("ca") == {"capture"}
    assert offered("keys", "") >= {"add", "list", "show", "revoke", "restore", "usage"}
    assert offered("keys", "add", "--max-t") == {"--max-tokens"}
    assert offered("serve", "--log-level", "w") == {"warning"}
    assert offered("completion", "z") == {"zsh"}


def test_a_word_that_is_a_value_does_not_lead_astray(offered: Callable[..., set[str]]) -> None:
    assert offered("keys", "add", "team", "--quota-window", "m") == {"month"}
    assert offered("serve", "--host", "keys", "--log-l") == {"--log-level"}


def test_files_are_offered_where_files_go(offered: Callable[..., set[str]]) -> None:
    assert offered("serve", "--config", "scr") & {"script", "FILES"}
    assert offered("check-config", "scr") & {"script", "FILES"}


def test_the_manual_page_names_every_command_and_option(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["man"]) == 0
    text = capsys.readouterr().out
    for command in commands():
        assert command.usage.replace("-", r"\-") in text
        for option in command.options:
            assert all(flag.replace("-", r"\-") in text for flag in option.flags)
    if shutil.which("man") is None:
        pytest.skip("man is not here: the page was not formatted")
    page = tmp_path / "ds2d.1"
    page.write_text(text)
    done = subprocess.run(
        ["man", "--warnings", "-l", str(page)], capture_output=True, text=True, timeout=20, check=True,
        env={"PATH": "/usr/bin:/bin", "MANWIDTH": "100", "LC_ALL": "C.UTF-8"},
    )  # fmt: skip
    assert not done.stderr
    assert "ds2d keys add NAME [OPTIONS]" in done.stdout
