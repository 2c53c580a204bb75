"""How the next version is started: as this one was, by the Python that is its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ds2d.generations.child import command, environment
from tests.functional.processes import KEY, ROOT, daemons, ds2d, until
from tests.functional.processes import environment as plain


@pytest.mark.parametrize(
    ("whole", "argv", "expected"),
    [
        (["python", "-m", "ds2d", "serve"], ["/x/ds2d/__main__.py", "serve"], ["/new/python", "-m", "ds2d", "serve"]),
        (["/old/python", "{script}", "serve"], ["{script}", "serve"], ["{script}", "serve"]),
        (["/old/python", "-I", "{script}", "serve"], ["{script}", "serve"], ["/new/python", "-I", "{script}", "serve"]),
        (["/old/python", "{plain}", "serve"], ["{plain}", "serve"], ["/new/python", "{plain}", "serve"]),
    ],
)
def test_the_command_line_is_run_again(tmp_path: Path, whole: list[str], argv: list[str], expected: list[str]) -> None:
    script, text = tmp_path / "script", tmp_path / "plain"
    script.write_text("#!/usr/bin/python3\n")
    script.chmod(0o755)
    text.write_text("")
    filled = [[word.format(script=script, plain=text) for word in words] for words in (whole, argv, expected)]
    assert command(filled[0], filled[1], "/new/python") == filled[2]


def test_what_names_the_old_process_is_not_handed_on() -> None:
    mine = {"LISTEN_PID": "1", "LISTEN_FDS": "1", "WATCHDOG_PID": "1", "WATCHDOG_USEC": "9", "NOTIFY_SOCKET": "/n", "A": "b"}
    assert environment(mine) == {"WATCHDOG_USEC": "9", "NOTIFY_SOCKET": "/n", "A": "b"}


def test_an_installed_script_that_moved_on_is_what_starts(tmp_path: Path) -> None:
    """The script is a link that now leads to another version's, as installers do it."""
    for name, version in (("old", "1.0"), ("new", "2.0")):
        folder = tmp_path / name
        folder.mkdir()
        code = f"import ds2d\nds2d.__version__ = {version!r}\nimport ds2d.cli, sys\nsys.exit(ds2d.cli.main())\n"
        (folder / "ds2d").write_text(f"#!{sys.executable}\n{code}")
        (folder / "ds2d").chmod(0o755)
    script = tmp_path / "ds2d"
    script.symlink_to("old/ds2d")
    (tmp_path / "config.json").write_text(f'{{"keys": ["{KEY}"], "upstreams": [{{"name": "d", "kind": "demo"}}]}}')
    log = (tmp_path / "log").open("wb")
    old = subprocess.Popen([script, "serve", "--port", "0"], cwd=tmp_path, env=plain(), stdout=log, stderr=log)
    try:
        until((tmp_path / "state" / "control.sock").exists, 30)
        script.unlink()
        script.symlink_to("new/ds2d")
        done = ds2d(ROOT, "upgrade", "--state", str(tmp_path / "state"))
        assert "version 2.0 serves" in done.stdout, done.stderr
        assert old.wait(30) == 0
    finally:
        log.close()
        for pid in daemons(tmp_path):
            subprocess.run(["kill", str(pid)], check=True)
        until(lambda: not daemons(tmp_path))
