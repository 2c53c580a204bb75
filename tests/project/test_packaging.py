"""What is installed: exactly the locked files, no more than setup.cfg asks for, and a wheel that holds all of ds2d."""

import configparser
import http.client
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
from tests.functional.processes import demo, serving

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


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, set[str]]:
    """The wheel of what git knows, and the names of its files."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    tracked = subprocess.run(["git", "ls-files", "-z", "ds2d"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    files = [name for name in tracked.split("\0") if name and (ROOT / name).exists()]
    for name in [*files, "setup.cfg", "setup.py", "pyproject.toml", "LICENSE", "docs/index.md"]:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    (source / "README.md").write_text("# ds2d\n")
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, source]
    subprocess.run(build, check=True)
    [made] = folder.glob("*.whl")
    return made, set(files)


def test_the_wheel_holds_every_file_of_the_package_and_the_console_s_packed_as_well(wheel: tuple[Path, set[str]]) -> None:
    path, files = wheel
    packed = {name for name in zipfile.ZipFile(path).namelist() if name.startswith("ds2d/")}
    console = {f"{name}.gz" for name in files if name.startswith("ds2d/web/console/")}
    assert console
    manual = {f"ds2d/web/manual/html/{name}" for name in ("index.html", "style.css")}
    assert packed == files | console | manual


def test_the_installed_wheel_serves_the_console(wheel: tuple[Path, set[str]], tmp_path: Path) -> None:
    installed, folder = tmp_path / "site", tmp_path / "folder"
    folder.mkdir()
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", installed, wheel[0]], check=True)
    with serving(folder, config=demo(), PYTHONPATH=str(installed)) as process:
        where = subprocess.run(
            [sys.executable, "-c", "import ds2d; print(ds2d.__file__)"],
            env={"PYTHONPATH": str(installed)}, cwd=folder, capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert where.stdout.startswith(str(installed))
        link = http.client.HTTPConnection("127.0.0.1", process.port, timeout=20)
        link.request("GET", "/", headers={"Accept": "text/html"})
        page = link.getresponse().read().decode()
        files = re.findall(r'="(/console/[^"]+)"', page)
        assert files
        for name in files:
            link.request("GET", name, headers={"Accept-Encoding": "gzip"})
            reply = link.getresponse()
            body = reply.read()
            assert reply.status == 200
            beside = installed / "ds2d" / "web" / (name.partition("?")[0].removeprefix("/") + ".gz")
            assert body == beside.read_bytes(), "what was packed at build is what goes out"
        link.close()


def test_pyproject_holds_nothing_but_how_to_build() -> None:
    assert list(tomllib.loads((ROOT / "pyproject.toml").read_text())) == ["build-system"]


@pytest.mark.parametrize(
    "name", ["config.json", "config.json.tmp", ".ds2d.env", ".other.ds2d.env", "state/ledger.sqlite", ".venv/pyvenv.cfg"]
)
def test_secrets_and_state_stay_out_of_git(name: str) -> None:
    assert subprocess.run(["git", "check-ignore", "-q", name], cwd=ROOT, check=False).returncode == 0


def test_what_builds_the_wheel_needs_nothing_installed() -> None:
    """`pipx install ./ds2d` builds in an environment that holds setuptools only."""
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import ds2d.web.assets; from ds2d.web.manual import pages; "
    code += "print(len(pages.page(pages.INDEX)))"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 1000
