"""A real systemd that runs the real units: booted as process 1 of namespaces of its own, in front of nothing but ds2d.

Rule: the units are used as they are; a drop-in changes only which Python is started (ProtectHome hides the developer's), the
port, and that no other unit is pulled in, so that nothing of this machine is touched.
Surprise: the network is this machine's, hence a free port and an ordinary client. It needs root, and a kernel that allows it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.aloud import NOT_TESTED
from tests.functional.real_upstream import ROOT, free_port

BOOT_SECONDS = 30
PLACE = "/run/ds2d-test"

INIT = f"""
set -e
mount --make-rprivate /
mount -t proc proc /proc
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/system {PLACE}/python {PLACE}/packages {PLACE}/source
mount --bind "$PREFIX" {PLACE}/python
mount --bind "$PACKAGES" {PLACE}/packages
mount --bind "$SOURCE" {PLACE}/source
cp -r "$UNITS"/. /run/systemd/system
for folder in /tmp /var/lib /var/log; do mount -t tmpfs tmpfs $folder; done
mount -t cgroup2 none /sys/fs/cgroup
exec env -i PATH=/usr/bin:/bin:/usr/sbin:/sbin container=ds2d-test \
    "$SYSTEMD" --system --unit=ds2d-test.target --log-target=console --show-status=0
"""

SERVICE = f"""
[Unit]
DefaultDependencies=no
[Service]
ExecStart=
ExecStart={PLACE}/python/bin/python3 -m ds2d serve
ExecReload=
ExecReload=+-/bin/chown --no-dereference --reference=%S/ds2d %S/ds2d/config.json
ExecReload={PLACE}/python/bin/python3 -m ds2d upgrade
Environment=PYTHONHOME={PLACE}/python LD_LIBRARY_PATH={PLACE}/python/lib PYTHONPATH={PLACE}/source:{PLACE}/packages
StandardOutput=file:/run/ds2d.log
StandardError=inherit
"""

TARGET = """
[Unit]
DefaultDependencies=no
Wants=ds2d.socket ds2d.service
"""


@dataclass(frozen=True)
class Machine:
    """A machine that systemd runs. `pid` is its process 1, seen from here."""

    pid: int
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def run(self, *command: str, check: bool = True) -> str:
        """Run a command inside, as root; its output."""
        inside = ["nsenter", "--target", str(self.pid), "--all", *command]
        return subprocess.run(inside, check=check, capture_output=True, text=True, timeout=60).stdout

    def show(self, unit: str, name: str) -> str:
        """A property of a unit."""
        return self.run("systemctl", "show", "--value", "--property", name, unit, check=False).strip()

    def log(self) -> str:
        """What the daemon has said since the boot."""
        return self.run("cat", "/run/ds2d.log", check=False)

    def write_config(self, text: str) -> None:
        """Leave a config.json the way root's editor does: a new file, root's own."""
        self.run(
            "sh",
            "-c",
            'umask 077; printf "%s" "$1" >/var/lib/ds2d/new; mv /var/lib/ds2d/new /var/lib/ds2d/config.json',
            "sh",
            text,
        )

    def set_watchdog(self, seconds: int) -> None:
        """Another patience for the watchdog, from the next start on."""
        name = "/run/systemd/system/ds2d.service.d/watchdog.conf"
        self.run("sh", "-c", f'printf "[Service]\nWatchdogSec={seconds}\n" >{name}; systemctl daemon-reload')

    def wait_for_processes(self, unit: str, expected: list[str], seconds: float = BOOT_SECONDS) -> None:
        """Wait until the unit consists of these processes, and of one for each that counts tokens for it."""
        until = time.monotonic() + seconds
        place = "/sys/fs/cgroup" + self.show(unit, "ControlGroup") + "/cgroup.procs"
        while True:
            found = self.run("cat", place, check=False).split()
            counting = [one for one in found if "counter_child" in self.run("cat", f"/proc/{one}/cmdline", check=False)]
            if [one for one in found if one not in counting] == expected and len(counting) == len(expected):
                return
            assert time.monotonic() < until, f"{unit} has {found}, not {expected}\n{self.log()}"
            time.sleep(0.1)

    def wait_for(self, unit: str, name: str, value: str, seconds: float = BOOT_SECONDS) -> None:
        """Wait on real time, because a real systemd works on it."""
        until = time.monotonic() + seconds
        while self.show(unit, name) != value:
            assert time.monotonic() < until, f"{unit} {name} is {self.show(unit, name)}, not {value}\n{self.log()}"
            time.sleep(0.1)


def write_units(folder: Path, port: int) -> None:
    """The project's units and the drop-ins of this test."""
    shutil.copytree(
        ROOT / "systemd", folder, dirs_exist_ok=True, ignore=lambda _, names: [n for n in names if not n.startswith("ds2d.")]
    )
    drop_ins = {
        "ds2d.service.d/test.conf": SERVICE,
        "ds2d.socket.d/test.conf": f"[Unit]\nDefaultDependencies=no\n[Socket]\nListenStream=\nListenStream=127.0.0.1:{port}\n",
        "ds2d-test.target": TARGET,
    }
    for name, text in drop_ins.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)


def boot(folder: Path, port: int) -> subprocess.Popen[bytes]:
    """Start systemd as process 1 of new namespaces."""
    paths = {
        "PREFIX": sys.base_prefix,
        "PACKAGES": sysconfig.get_path("purelib"),
        "SOURCE": str(ROOT),
        "UNITS": str(folder),
        "SYSTEMD": "/lib/systemd/systemd",
    }
    write_units(folder, port)
    namespaces = ["unshare", "--fork", "--kill-child", "--pid", "--mount", "--uts", "--ipc", "--cgroup"]
    with (folder / "boot.log").open("wb") as output:
        return subprocess.Popen(
            [*namespaces, "bash", "-c", INIT], env=os.environ | paths, stdout=output, stderr=output, start_new_session=True
        )


def first_child(process: subprocess.Popen[bytes]) -> int | None:
    """The process that `unshare` became the parent of."""
    with contextlib.suppress(OSError, IndexError):
        return int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0])
    return None


def answers(pid: int) -> bool:
    """True once systemctl reaches this process 1."""
    if Path(f"/proc/{pid}/comm").read_text().strip() != "systemd":
        return False
    ask = ["nsenter", "--target", str(pid), "--all", "systemctl", "is-system-running"]
    return bool(subprocess.run(ask, capture_output=True, check=False, timeout=10).stdout.strip())


def wait_for_systemd(process: subprocess.Popen[bytes]) -> int | None:
    """The process number of systemd, or None where it does not come up."""
    until = time.monotonic() + BOOT_SECONDS
    while process.poll() is None and time.monotonic() < until:
        with contextlib.suppress(OSError):
            if (pid := first_child(process)) and answers(pid):
                return pid
        time.sleep(0.1)
    return None


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A booted machine whose ds2d has no config.json yet."""
    if (
        os.geteuid()
        or not all(map(shutil.which, ("unshare", "nsenter", "systemctl")))
        or not Path("/lib/systemd/systemd").exists()
    ):
        pytest.skip(NOT_TESTED + "the daemon under a real systemd: that needs root, systemd and util-linux")
    folder = tmp_path_factory.mktemp("units")
    port = free_port()
    process = boot(folder, port)
    try:
        pid = wait_for_systemd(process)
        if pid is None:
            words = (folder / "boot.log").read_text(errors="replace").strip().splitlines()[-1:]
            pytest.skip(f"{NOT_TESTED}the daemon under a real systemd: it does not boot in a namespace here ({' '.join(words)})")
        yield Machine(pid, port)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its child, process 1, dies with it, and all of the machine with that
        process.wait()
