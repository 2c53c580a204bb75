"""The real process for tests: started in a folder of its own, asked, told to stop, and cleaned up after, whatever it became."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.planted import found_in, plant

ROOT = Path(__file__).parents[2]
KEY = "sk-process-0123456789abcdef"
plant(KEY)
ASK = {"model": "deepseek-chat", "messages": [{"role": "user", "content": "Hello"}]}
CHAT = "/v1/chat/completions"
CLEAN = ("PATH", "HOME", "LANG", "TMPDIR")
PATIENCE = 60
"""Seconds until what another process should do is called missing. Three that start at once on two busy cores take 5; a machine
whose processes had no turn for 15 was seen, too."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def environment(**more: str) -> dict[str, str]:
    """Nothing of the outside but where programs are."""
    kept = {name: os.environ[name] for name in CLEAN if name in os.environ}
    return {**kept, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1", **more}


def ds2d(folder: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """One command, to its end."""
    command = [sys.executable, "-m", "ds2d", *words]
    return subprocess.run(
        command, cwd=folder, env=environment(**variables), capture_output=True, text=True, timeout=PATIENCE, check=False
    )


@dataclass
class Process:
    """A daemon that runs, and what it says."""

    popen: subprocess.Popen[bytes]
    port: int
    log: Path

    def ask(self, path: str, body: Any = None, key: str = KEY) -> tuple[int, str]:
        link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        headers = {"Authorization": f"Bearer {key}"}
        link.request("GET" if body is None else "POST", path, json.dumps(body) if body is not None else None, headers)
        reply = link.getresponse()
        text = reply.read().decode()
        link.close()
        return reply.status, text

    @contextlib.contextmanager
    def stream(self) -> Iterator[http.client.HTTPResponse]:
        """A stream that has begun."""
        link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        link.request("POST", CHAT, json.dumps({**ASK, "stream": True}), {"Authorization": f"Bearer {KEY}"})
        reply = link.getresponse()
        assert reply.status == 200
        assert reply.readline().startswith(b"data: ")
        yield reply
        reply.close()
        link.close()

    def end(self, number: int = signal.SIGTERM) -> int:
        self.popen.send_signal(number)
        return self.popen.wait(PATIENCE)

    def said(self) -> str:
        return self.log.read_text()

    def stuck(self) -> str:
        """Where it hangs, by its own words; it ends then (faulthandler says where on SIGABRT)."""
        state = Path(f"/proc/{self.popen.pid}/status").read_text().splitlines()[2]
        self.popen.send_signal(signal.SIGABRT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.popen.wait(5)
        return f"{state}; it said:\n{self.said()}"


def until(condition: Callable[[], bool], seconds: float = PATIENCE, otherwise: Callable[[], str] = lambda: "") -> None:
    """Wait for what another process does; where it does not, `otherwise` has the words for it."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"it did not happen within {seconds} s; {otherwise()}"
        time.sleep(0.02)


def answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


@contextlib.contextmanager
def serving(
    folder: Path, *words: str, config: Any = None, port: int | None = None, command: tuple[str, ...] = (), **variables: str
) -> Iterator[Process]:
    """`ds2d serve` in this folder, once its port is open; killed if the test leaves it."""
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    port = port or free_port()
    log = folder / "log.txt"
    asked = [*(command or (sys.executable,)), "-m", "ds2d", "serve", *(() if command else ("--port", str(port))), *words]
    with log.open("wb") as output:
        popen = subprocess.Popen(asked, cwd=folder, env=environment(**variables), stdout=output, stderr=subprocess.STDOUT)
    process = Process(popen, port, log)
    try:
        begun = lambda: "serving on" in process.said() or popen.poll() is not None or (bool(command) and answers(port))  # noqa: E731
        until(begun, PATIENCE, process.stuck)
        assert popen.poll() is None, process.said()
        yield process
        assert found_in(process.said()) == []
    finally:
        if popen.poll() is None:
            popen.kill()
            popen.wait()
        for pid in daemons(folder):  # newer versions that took over
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def daemons(folder: Path) -> list[int]:
    """Every `ds2d serve` that runs in this folder, by process number."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (place / "cwd").readlink() == folder and b"\0serve\0" in (place / "cmdline").read_bytes():
                found.append(int(place.name))
    return sorted(found)


def demo(pace: int = 0, **sections: Any) -> dict[str, Any]:
    """A config with the embedded demo, which may take its time."""
    return {"keys": [KEY], "upstreams": [{"name": "demo", "kind": "demo", "pace_ms": pace}], **sections}
