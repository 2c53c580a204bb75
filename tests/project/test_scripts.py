"""The scripts, run in a copy of the project where Python is a stand-in that writes down how it was called."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.real_upstream import __main__ as tool
from scripts.real_upstream.texts import TOOL_FORMATS
from scripts.summary import CHECKS
from scripts.summary import main as summary

ROOT = Path(__file__).parents[2]

STAND_IN = """#!/bin/sh
# Answers like a Python of version $FAKE_VERSION; $FAKE_FAIL names a word whose command fails.
echo "$*" >>"$FAKE_LOG"
[ -n "$FAKE_FAIL" ] && case "$*" in *"$FAKE_FAIL"*) echo "pip says no"; exit 1 ;; esac
case "$*" in
    *sys.version_info*) [ "$FAKE_VERSION" != old ] ;;
    "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
    "-m ds2d init") echo '{}' >config.json ;;
esac
"""


class Clone:
    """A copy of what the scripts need, with the stand-in as the machine's Python."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "calls.log"
        self.fake = folder / "fake-python"
        shutil.copytree(ROOT / "scripts", folder / "scripts")
        shutil.copytree(ROOT / "requirements", folder / "requirements")
        for name in ("setup.cfg", "pyproject.toml"):
            shutil.copy(ROOT / name, folder / name)
        self.fake.write_text(STAND_IN)
        self.fake.chmod(0o755)

    def run(self, *command: str, version: str = "new", fail: str = "", **more: str) -> tuple[int, str, list[str]]:
        """Run a script; its exit code, its words, and what Python was asked to do."""
        self.log.write_text("")
        keep = {name: value for name, value in os.environ.items() if not name.startswith(("DS2", "CONFIG_JSON"))}
        fake = {"FAKE_LOG": str(self.log), "FAKE_VERSION": version, "FAKE_FAIL": fail, "DS2D_PYTHON": str(self.fake)}
        script = str(self.folder / "scripts" / command[0])
        done = subprocess.run([script, *command[1:]], env=keep | fake | more, capture_output=True, text=True, check=False)
        calls = [call for call in self.log.read_text().splitlines() if not call.startswith("-c") and "--version" not in call]
        return done.returncode, done.stdout + done.stderr, calls


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path)


def test_a_fresh_clone_gets_an_environment_a_configuration_and_a_daemon(clone: Clone) -> None:
    code, words, calls = clone.run("serve", "--port", "5002")
    assert code == 0, words
    venv, locks, itself, init, serve = calls
    assert venv == f"-m venv {clone.folder}/.venv"
    options = "--no-deps --require-hashes --only-binary :all:"
    assert locks == f"-m pip install {options} -r requirements/build.txt -r requirements/run.txt"
    assert "--no-deps --no-build-isolation --editable ." in itself
    assert (init, serve) == ("-m ds2d init", "-m ds2d serve --port 5002")


def test_the_second_start_installs_nothing_and_keeps_the_configuration(clone: Clone) -> None:
    clone.run("serve")
    assert clone.run("serve")[2] == ["-m ds2d serve"]


@pytest.mark.parametrize("name", ["requirements/run.txt", "requirements/build.txt", "setup.cfg"])
def test_a_changed_lock_is_installed(clone: Clone, name: str) -> None:
    clone.run("serve")
    with (clone.folder / name).open("a") as file:
        file.write("\n# changed\n")
    assert clone.run("serve")[2][0].startswith("-m pip install --no-deps --require-hashes")


def test_a_moved_clone_is_installed_again(clone: Clone, tmp_path_factory: pytest.TempPathFactory) -> None:
    clone.run("serve")
    clone.folder = clone.folder.rename(tmp_path_factory.mktemp("elsewhere") / "ds2d")
    clone.log, clone.fake = clone.folder / "calls.log", clone.folder / "fake-python"
    assert "--editable ." in " ".join(clone.run("serve")[2])


def test_the_developers_environment_is_good_enough_to_serve(clone: Clone) -> None:
    clone.run("format")
    assert clone.run("serve")[2] == ["-m ds2d init", "-m ds2d serve"]


@pytest.mark.parametrize(
    "variable", ["DS2D_CONFIG", "DS2API_CONFIG_PATH", "DS2API_CONFIG_JSON", "DS2D_CONFIG_JSON", "CONFIG_JSON"]
)
def test_nothing_is_invented_where_the_environment_says_what_to_serve(clone: Clone, variable: str) -> None:
    assert clone.run("serve", **{variable: "x"})[2][-1:] == ["-m ds2d serve"]
    assert not (clone.folder / "config.json").exists()


def test_nothing_is_invented_where_an_option_names_the_configuration(clone: Clone) -> None:
    assert "-m ds2d init" not in clone.run("serve", "--config", "other.json")[2]


def test_a_failed_installation_says_what_to_do_and_is_taken_up_again(clone: Clone) -> None:
    code, words, calls = clone.run("serve", fail="--require-hashes")
    assert code == 1
    assert "pip says no" in words
    assert "run this again" in words
    assert "-m ds2d serve" not in calls
    assert "--require-hashes" in clone.run("serve")[2][0]


def test_an_environment_that_cannot_be_made_leaves_nothing_behind(clone: Clone) -> None:
    code, words, _ = clone.run("serve", fail="-m venv")
    assert code == 1
    assert "apt install python3-venv" in words
    assert not (clone.folder / ".venv").exists()


def test_an_old_python_is_named(clone: Clone) -> None:
    code, words, calls = clone.run("serve", version="old")
    assert code == 1
    assert "no Python 3.11 or newer" in words
    assert calls == []


def test_an_unknown_part_of_the_tests_is_named(clone: Clone) -> None:
    code, words, _ = clone.run("test", "everything")
    assert code == 1
    assert "no part is called everything" in words


def test_ci_does_what_the_readme_says_and_nothing_else() -> None:
    lines = [line for line in (ROOT / ".ci" / "run").read_text().splitlines() if not line.startswith("#")]
    assert lines == ['cd "$(dirname "$0")/.." && CI=true exec scripts/test']


def report(folder: Path, name: str, code: int, **counts: int) -> None:
    numbers = " ".join(
        f'{key}="{value}"' for key, value in ({"tests": 0, "failures": 0, "errors": 0, "skipped": 0} | counts).items()
    )
    (folder / f"{name}.xml").write_text(f"<testsuites><testsuite {numbers}/></testsuites>")
    (folder / f"{name}.code").write_text(str(code))


def test_the_last_line_adds_everything_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report(tmp_path, "unit", 0, tests=10, skipped=1)
    report(tmp_path, "real", 1, tests=5, failures=1, errors=1)
    (tmp_path / "check.counts").write_text("1 1\n")
    assert summary(tmp_path) == 1
    assert capsys.readouterr().out.splitlines()[-1] == f"{CHECKS + 10} passed, 3 failed, 2 skipped"
    assert (ROOT / "scripts" / "check").read_text().count('\ncheck "') == CHECKS


def test_all_well_is_exit_code_zero(tmp_path: Path) -> None:
    report(tmp_path, "unit", 0, tests=1)
    assert summary(tmp_path) == 0


def test_a_part_that_broke_without_a_report_has_failed(tmp_path: Path) -> None:
    (tmp_path / "unit.code").write_text("4")
    assert summary(tmp_path) == 1


def test_nothing_run_is_not_a_success(tmp_path: Path) -> None:
    assert summary(tmp_path) == 1


@pytest.fixture
def elsewhere(tmp_path: Path) -> dict[str, str]:
    """An environment whose cache folder is empty."""
    return os.environ | {"XDG_CACHE_HOME": str(tmp_path)}


def real_upstream(environment: dict[str, str], *arguments: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "scripts.real_upstream", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_without_the_environment_status_says_so(elsewhere: dict[str, str]) -> None:
    code, words = real_upstream(elsewhere, "status")
    assert code == 1
    assert "missing" in words


@pytest.mark.parametrize("verb", ["serve", "model"])
def test_without_the_environment_the_next_command_is_named(elsewhere: dict[str, str], verb: str) -> None:
    code, words = real_upstream(elsewhere, verb)
    assert code == 1
    assert "scripts/real-upstream install" in words


def test_a_part_is_current_only_while_what_it_was_made_from_is_unchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool, "CACHE", tmp_path)
    folder = tmp_path / "models" / "recite"
    folder.mkdir(parents=True)
    assert not tool.model_is_current("recite")
    (folder / "ds2d.stamp").write_text(tool.model_digest("recite"))
    assert tool.model_is_current("recite")
    monkeypatch.setattr(tool, "HERE", Path(shutil.copytree(tool.HERE, tmp_path / "changed")))
    (tool.HERE / "texts.py").write_text("PLAIN = ''")
    assert not tool.model_is_current("recite")


def test_every_flavour_with_parsers_says_its_format_to_the_template() -> None:
    for flavour in tool.PARSERS:
        command = tool.serve_command(flavour, 8000, [])
        given = json.loads(command[command.index("--default-chat-template-kwargs") + 1])
        assert given["tool_format"] in TOOL_FORMATS
