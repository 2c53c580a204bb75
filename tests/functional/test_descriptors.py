"""Out of descriptors: a cap keeps the daemon from it; without the cap it does not flood its log, nor spin, nor stay ill."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ds2d.net import descriptors
from tests.functional.test_process import ASK, CHAT, Process, demo, free_port, serving, until

LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (100, {limit}))
{before}
sys.argv = ["ds2d", *sys.argv[3:]]
from ds2d.cli import main
sys.exit(main())
"""
LIMIT = 200
UNCAPPED = "from ds2d.net import descriptors; descriptors.RESERVED = -100000"
LOOPS = {"uvloop": UNCAPPED, "asyncio": UNCAPPED + "; sys.modules['uvloop'] = None"}


@contextlib.contextmanager
def limited(folder: Path, before: str = "") -> Iterator[Process]:
    port = free_port()
    command = (sys.executable, "-c", LIMITED.format(limit=LIMIT, before=before))
    with serving(folder, "--port", str(port), config=demo(), port=port, command=command) as process:
        until(lambda: process.ask("/readyz")[0] == 200)
        until(lambda: "serving on" in process.said())  # lines are written together, a moment later
        yield process


@contextlib.contextmanager
def crowd(port: int, count: int) -> Iterator[list[socket.socket]]:
    """So many connections that say nothing."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(socket.create_connection(("127.0.0.1", port), 10)) for _ in range(count)]


def closed(sock: socket.socket) -> bool:
    """Whether the other side has closed it."""
    sock.setblocking(False)
    try:
        return sock.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


def cpu_of(process: Process) -> float:
    """Seconds of CPU it has used."""
    fields = Path(f"/proc/{process.popen.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_the_cap_leaves_descriptors_for_work(tmp_path: Path) -> None:
    with limited(tmp_path) as process:
        cap = (LIMIT - descriptors.RESERVED) // descriptors.A_CLIENT
        assert f"open connections: {cap} at most" in process.said()
        with crowd(process.port, 3 * cap) as socks:
            until(lambda: sum(map(closed, socks)) >= 2 * cap)
            assert len(os.listdir(f"/proc/{process.popen.pid}/fd")) < LIMIT
            socks[-1].close()
            assert process.said().count("connection limit reached") == 1
        until(lambda: answers_well(process))


@pytest.mark.parametrize("loop", LOOPS)
def test_without_the_cap_it_recovers_by_itself_and_in_silence(tmp_path: Path, loop: str) -> None:
    with limited(tmp_path, LOOPS[loop]) as process:
        before = len(process.said().splitlines())
        with crowd(process.port, LIMIT + 100) as socks:
            until(lambda: len(os.listdir(f"/proc/{process.popen.pid}/fd")) >= LIMIT - 2 or any(map(closed, socks)))
            used, began = cpu_of(process), time.monotonic()
            time.sleep(1.5)  # what is shown is that nothing happens meanwhile
            spent = cpu_of(process) - used
            assert spent < 0.3 * (time.monotonic() - began), "it spins"
            assert len(process.said().splitlines()) - before <= 2, process.said()
        until(lambda: answers_well(process))
        assert process.end() == 0


def answers_well(process: Process) -> bool:
    """Whether a question is answered."""
    with contextlib.suppress(OSError):
        return process.ask(CHAT, ASK)[0] == 200
    return False


@pytest.mark.parametrize(("soft", "wanted", "expected"), [(1024, 4096, 448), (20000, 4096, 4096), (100, 5, 1), (-1, 7, 7)])
def test_how_many_connections_the_descriptors_are_enough_for(
    monkeypatch: pytest.MonkeyPatch, soft: int, wanted: int, expected: int
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, soft))
    assert descriptors.connections_at_most(wanted) == expected
