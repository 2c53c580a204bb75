"""What is handed out: wheel, sdist, Debian package and bundle, each put into an empty place, where it answers a chat.

Rule: nothing of this checkout or its environment is in reach of what is installed, and no network: only the locked wheels.
They are built once. It takes a minute, so it is a part of its own: `scripts/test packages`.
"""

from __future__ import annotations

import gzip
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from ds2d import __version__
from ds2d.cli.tree import commands
from ds2d.web.manual import pages
from tests.functional.test_process import free_port, until

pytestmark = [pytest.mark.packages, pytest.mark.xdist_group("packages"), pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
ASK = {"model": "deepseek-chat", "messages": [{"role": "user", "content": "Hello"}]}
EMPTY = {
    "PATH": "/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "PIP_NO_INDEX": "1",
    "PIP_CONFIG_FILE": "/dev/null",
}


def run(*command: str | Path, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, cwd=cwd, env=env, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All packages, built as a person builds them."""
    folder = tmp_path_factory.mktemp("dist")
    if shutil.which("dpkg-deb") is None:
        pytest.skip("dpkg-deb is not here: no package was built")
    run(ROOT / "scripts" / "package", "all", env={**os.environ, "DS2D_DIST": str(folder), "DS2D_PYTHON": sys.executable})
    return folder


@pytest.fixture(scope="session")
def bundle(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle, unpacked."""
    [archive] = dist.glob("*-py3.*.tar.gz")
    folder = tmp_path_factory.mktemp("bundle")
    shutil.unpack_archive(archive, folder)
    [inner] = folder.iterdir()
    return inner


def answers_a_chat(command: list[str | Path], folder: Path) -> None:
    """`init`, `serve`, a question and the manual, in an empty folder and environment; an orderly end."""
    folder.mkdir()
    made = json.loads(run(*command, "init", "--no-scan", "--json", cwd=folder, env=EMPTY))
    serves([*command, "serve"], folder, lambda: made["key"], EMPTY)


def serves(command: list[str | Path], folder: Path, key: Callable[[], str], env: dict[str, str], patience: float = 60) -> None:
    """Start it, ask it, end it."""
    port = free_port()
    log = folder / "log.txt"
    with log.open("wb") as output:
        asked = [*map(str, command), "--port", str(port)]
        daemon = subprocess.Popen(asked, cwd=folder, env=env, stdout=output, stderr=output)
    try:
        until(lambda: "serving on" in log.read_text() or daemon.poll() is not None, patience)
        assert daemon.poll() is None, log.read_text()
        link = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        link.request("POST", "/v1/chat/completions", json.dumps(ASK), {"Authorization": f"Bearer {key()}"})
        reply = link.getresponse()
        answer = json.loads(reply.read())
        assert reply.status == 200, answer
        assert answer["choices"][0]["message"]["content"]
        assert answer["usage"]["prompt_tokens"] > 0
        link.request("GET", "/docs/config")
        reply = link.getresponse()
        assert (reply.status, b"runtime.account_max_inflight" in reply.read()) == (200, True)
        link.close()
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(30) == 0
    finally:
        daemon.kill()
        daemon.wait()


def test_the_wheel_is_installed_as_pipx_does_it(dist: Path, bundle: Path, tmp_path: Path) -> None:
    """An empty environment, a wheel, and pip left to find what it needs; only the locked wheels are to be had."""
    run(sys.executable, "-m", "venv", tmp_path / "venv", env=EMPTY)
    [wheel] = dist.glob("*.whl")
    run(tmp_path / "venv/bin/python", "-m", "pip", "install", "--quiet", "--find-links", bundle / "wheels", wheel, env=EMPTY)
    assert run(tmp_path / "venv/bin/ds2d", "version", env=EMPTY) == f"ds2d {__version__}\n"
    answers_a_chat([tmp_path / "venv/bin/ds2d"], tmp_path / "here")


def test_the_wheel_carries_the_manual_and_the_sdist_what_makes_it(dist: Path) -> None:
    [wheel] = dist.glob("*.whl")
    html = {name.rpartition("/")[2] for name in zipfile.ZipFile(wheel).namelist() if "/manual/html/" in name}
    assert html == {f"{name}.html" for name in pages.names()} | {"style.css"}
    with tarfile.open(dist / f"ds2d-{__version__}.tar.gz") as packed:
        names = {name.partition("/")[2] for name in packed.getnames()}
    assert {
        "setup.py",
        "docs/index.md",
        "docs/parts/errors.md",
        "requirements/run.txt",
        "systemd/ds2d.service",
        "API.md",
    } <= names


def test_the_debian_package_works_where_it_is_unpacked(dist: Path, tmp_path: Path) -> None:
    [package] = dist.glob("*.deb")
    root = tmp_path / "root"
    run("dpkg-deb", "-x", package, root)
    if Path("/usr/bin/python3").resolve().name != Path(sys.executable).resolve().name:
        command: list[str | Path] = [sys.executable, "-I", root / "usr/bin/ds2d"]
    else:
        command = [root / "usr/bin/ds2d"]
    answers_a_chat(command, tmp_path / "here")
    assert not list(root.rglob("direct_url.json")), "where it was built is nobody's business"
    manual = gzip.decompress((root / "usr/share/man/man1/ds2d.1.gz").read_bytes()).decode()
    assert all(command.usage.replace("-", r"\-") in manual for command in commands())
    for place in ("bash-completion/completions/ds2d", "zsh/vendor-completions/_ds2d", "fish/vendor_completions.d/ds2d.fish"):
        assert "keys" in (root / "usr/share" / place).read_text()
    assert (root / "usr/share/doc/ds2d/html/index.html").is_file()
    assert (root / "etc/ds2d/environment").is_file()


def test_the_debian_package_is_installed_by_dpkg_and_removed_again(dist: Path, tmp_path: Path) -> None:
    """Into a root of its own, its scripts included: they look for a systemd below that root, and there is none."""
    if os.getuid() != 0:
        pytest.skip("installing into a scratch root needs root")
    [package] = dist.glob("*.deb")
    root = tmp_path / "root"
    for name in ("updates", "info", "triggers"):
        (root / "var/lib/dpkg" / name).mkdir(parents=True)
    (root / "var/lib/dpkg/status").touch()
    dpkg = ["dpkg", f"--root={root}", "--force-script-chrootless", "--force-depends", "--log=/dev/null"]
    env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}

    def status() -> str:
        return run("dpkg-query", f"--admindir={root}/var/lib/dpkg", "-W", "-f", "${Status}", "ds2d")

    assert "ds2d init --config" in run(*dpkg, "--install", package, env=env)
    assert status() == "install ok installed"
    assert run("dpkg", f"--root={root}", "--verify", "ds2d", env=env) == ""
    (root / "var/lib/ds2d").mkdir()
    (root / "var/lib/ds2d/config.json").write_text("{}")
    assert "ds2d init" not in run(*dpkg, "--install", package, env=env)  # again: an upgrade
    run(*dpkg, "--remove", "ds2d", env=env)
    assert status() == "deinstall ok config-files"
    assert (root / "var/lib/ds2d/config.json").exists()
    assert not (root / "usr/bin/ds2d").exists()
    run(*dpkg, "--purge", "ds2d", env=env)
    assert not (root / "var/lib/ds2d").exists()
    assert not (root / "etc/ds2d").exists()


def test_the_debian_package_names_the_python_it_fits(dist: Path) -> None:
    [package] = dist.glob("*.deb")
    fields = run("dpkg-deb", "-f", package)
    version = re.search(r"python3 \(>= (3\.\d+)~\), python3 \(<< (3\.\d+)~\)", fields)
    assert version
    assert (version[1], version[2]) == (f"3.{sys.version_info.minor}", f"3.{sys.version_info.minor + 1}")


def test_its_units_are_accepted_by_systemd(dist: Path, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not here")
    [package] = dist.glob("*.deb")
    run("dpkg-deb", "-x", package, tmp_path / "root")
    said = run(ROOT / "scripts/check-units", tmp_path / "root/usr/lib/systemd/system")
    assert "units verified" in said
    # and with the program where the package puts it, nothing replaced
    verified = subprocess.run(
        ["systemd-analyze", "verify", f"--root={tmp_path / 'root'}", "--man=no", "--recursive-errors=no", "ds2d.service"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "ds2d" not in verified.stderr.replace("ds2d.socket", "").replace(str(tmp_path), ""), verified.stderr


def test_the_bundle_installs_itself_without_a_network(bundle: Path, tmp_path: Path) -> None:
    env = {**EMPTY, "DS2D_PYTHON": sys.executable}
    assert "to begin" in run(bundle / "install.sh", tmp_path / "ds2d", env=env)
    answers_a_chat([tmp_path / "ds2d/bin/ds2d"], tmp_path / "here")
    assert (tmp_path / "ds2d/share/doc/ds2d/html/errors.html").is_file()
    assert "to begin" in run(bundle / "install.sh", tmp_path / "ds2d", env=env)  # again: an upgrade


def test_a_bundle_of_which_a_byte_changed_is_refused(bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(bundle, tmp_path / bundle.name)
    wheel = next((tmp_path / bundle.name / "wheels").glob("ds2d-*.whl"))
    wheel.write_bytes(wheel.read_bytes()[:-1] + b"x")
    done = subprocess.run(
        [tmp_path / bundle.name / "install.sh", tmp_path / "ds2d"], capture_output=True, text=True, check=False,
        env={**EMPTY, "DS2D_PYTHON": sys.executable},
    )  # fmt: skip
    assert done.returncode != 0
    assert "FAILED" in done.stdout + done.stderr
    assert not (tmp_path / "ds2d").exists()


def test_a_fresh_clone_serves_as_readme_says(tmp_path: Path) -> None:
    """`git clone`, `scripts/serve`: the two commands of README's first screen, with pip and its index as they are."""
    run("git", "clone", "--quiet", "--depth", "1", f"file://{ROOT}", tmp_path / "ds2d")
    env = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG") or name.startswith("PIP_")}
    keys = tmp_path / "ds2d" / ".ds2d.env"
    serves([tmp_path / "ds2d" / "scripts/serve"], tmp_path / "ds2d", lambda: keys.read_text().split("'")[1], env, patience=300)
