"""What is installed: exactly the locked files, no more than setup.cfg asks for, and a wheel that holds all of ds2d."""

import configparser
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import entry_points, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import ds2d

ROOT = Path(__file__).parents[2]
LOCKS = ["build", "run", "dev", "real-upstream"]


def locked(name: str) -> dict[str, str]:
    """Package to version; a line that is neither a pin nor its hashes is an error."""
    text = (ROOT / "requirements" / f"{name}.txt").read_text().replace("\\\n", " ")
    pins = {}
    for line in text.splitlines():
        found = re.fullmatch(r"([a-z0-9.-]+)==(\S+)(?: +; [^#]+?)?((?: +--hash=sha256:[0-9a-f]{64})+) *", line)
        assert found, f"{name}.txt: {line[:100]}"
        pins[found[1]] = found[2]
    return pins


def wanted(*extras: str) -> list[Requirement]:
    """What setup.cfg asks for."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    lines = config["options"]["install_requires"].split("\n")
    for extra in extras:
        lines += config["options.extras_require"][extra].split("\n")
    return [Requirement(line) for line in lines if line]


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_holds_only_pins_with_hashes(name: str) -> None:
    assert locked(name)


@pytest.mark.parametrize(("name", "extras"), [("run", ["fast"]), ("dev", ["fast", "dev"])])
def test_a_lock_is_as_new_as_setup_cfg(name: str, extras: list[str]) -> None:
    pins = locked(name)
    for requirement in wanted(*extras):
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), requirement


def test_the_developers_environment_serves_too() -> None:
    assert locked("run").items() <= locked("dev").items()


def test_the_installed_package_is_this_one() -> None:
    assert version("ds2d") == ds2d.__version__
    [script] = entry_points(group="console_scripts", name="ds2d")
    assert callable(script.load())


def test_the_wheel_holds_every_file_of_the_package(tmp_path: Path) -> None:
    source = tmp_path / "source"
    tracked = subprocess.run(["git", "ls-files", "-z", "ds2d"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    files = [name for name in tracked.split("\0") if name and (ROOT / name).exists()]
    for name in [*files, "setup.cfg", "pyproject.toml", "LICENSE"]:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    (source / "README.md").write_text("# ds2d\n")
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path, source]
    subprocess.run(build, check=True)
    [wheel] = tmp_path.glob("*.whl")
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("ds2d/")}
    assert packed == set(files)


def test_pyproject_holds_nothing_but_how_to_build() -> None:
    assert list(tomllib.loads((ROOT / "pyproject.toml").read_text())) == ["build-system"]


@pytest.mark.parametrize("name", ["config.json", "config.json.tmp", ".ds2d.env", "state/ledger.sqlite", ".venv/pyvenv.cfg"])
def test_secrets_and_state_stay_out_of_git(name: str) -> None:
    assert subprocess.run(["git", "check-ignore", "-q", name], cwd=ROOT, check=False).returncode == 0
