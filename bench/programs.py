"""The programs that a benchmark starts, and what they cost: CPU and memory of their processes.

Rule: what was started is stopped by its own number; gateways run on the last processor, upstream and clients on the others.
"""

from __future__ import annotations

import compileall
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parents[1] / "ds2d"
KEY = "sk-bench-0123456789"
TICK = os.sysconf("SC_CLK_TCK")
CPUS = sorted(os.sched_getaffinity(0))
GATEWAY_CPUS = {CPUS[-1]} if len(CPUS) > 1 else set(CPUS)
OTHER_CPUS = set(CPUS[:-1]) or set(CPUS)
MODELS = (
    "bench",
    "bench-n200",
    "bench-n50-d20-k1",
    "bench-n16-d1000-k1",
    "bench-n50-d100",
    "bench-n5-f5000",
    "bench-n100",
    "bench-n100000",
)

NGINX = """
daemon off; worker_processes 1; worker_rlimit_nofile 16384; pid {folder}/nginx.pid; error_log {folder}/nginx.log;
events {{ worker_connections 8192; }}
http {{
  access_log off; client_max_body_size 64m; client_body_buffer_size 2m; tcp_nodelay on; keepalive_requests 1000000;
  client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3; uwsgi_temp_path {folder}/t4;
  scgi_temp_path {folder}/t5;
  upstream behind {{ server 127.0.0.1:{upstream}; keepalive 1024; keepalive_requests 1000000; }}
  server {{ listen 127.0.0.1:{port} backlog=4096; location / {{
    proxy_pass http://behind; proxy_http_version 1.1; proxy_set_header Connection "";
    proxy_buffering off; proxy_read_timeout 600s;
  }} }}
}}
"""


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def processes(pid: int) -> list[int]:
    """A process and its children."""
    found = [pid]
    for one in found:
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{one}/task"):
                found += [int(child) for child in Path(f"/proc/{one}/task/{task}/children").read_text().split()]
    return found


def cpu_seconds(pid: int) -> float:
    """CPU time of a process and its children: the scheduler's nanoseconds, where it keeps them."""
    total = 0.0
    for one in processes(pid):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{one}/stat").read_text().rsplit(")", 1)[1].split()
            ticks = (int(fields[11]) + int(fields[12])) / TICK
            exact = sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{one}/task").glob("*/schedstat")) / 1e9
            total += max(ticks, exact)  # threads that have ended are in the first only
    return total


def memory_mb(pid: int) -> float:
    """Memory of a process and its children, shared pages counted once."""
    kilobytes = 0
    for one in processes(pid):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{one}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    kilobytes += int(line.split()[1])
    return kilobytes / 1024


def get(url: str, key: str = KEY) -> tuple[int, bytes]:
    """One GET."""
    asked = urllib.request.Request(url, headers={"Authorization": f"Bearer {key}"})
    with urllib.request.urlopen(asked, timeout=5) as reply:
        return reply.status, reply.read()


class Program:
    """A process that answers on a port."""

    def __init__(self, name: str, port: int, process: subprocess.Popen[bytes], seconds: float, **more: Any) -> None:
        self.name = name
        self.port = port
        self.pid = process.pid
        self.process = process
        self.start_seconds = seconds
        self.key: str = more.get("key", KEY)
        self.kinds: tuple[str, ...] = more.get("kinds", ("chat",))
        self.model: Callable[[str, str], str] = more.get("model", lambda _kind, name: name)

    def stop(self) -> None:
        """End it and what it started."""
        pids = processes(self.pid)
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(5)
        for pid in pids:
            with contextlib.suppress(OSError):
                if os.getpgid(pid) == self.pid:
                    os.kill(pid, 9)
        self.process.wait(5)


def start(
    name: str, command: list[str], port: int, folder: Path, *, path: str = "/healthz", cpus: set[int] = GATEWAY_CPUS, **more: Any
) -> Program:
    """Start a program and wait until it answers 200. Raises SystemExit with the end of what it said."""
    log = os.open(Path(folder, f"{name}.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    environ = {key: value for key, value in os.environ.items() if "proxy" not in key.lower()} | more.pop("environ", {})
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environ, start_new_session=True)
    os.sched_setaffinity(process.pid, cpus)
    key = more.get("key", KEY)
    while time.monotonic() - began < 90 and process.poll() is None:
        with contextlib.suppress(OSError):
            if get(f"http://127.0.0.1:{port}{path}", key)[0] == 200:
                return Program(name, port, process, time.monotonic() - began, **more)
        time.sleep(0.01)
    Program(name, port, process, 0).stop()
    raise SystemExit(f"{name} did not start: {Path(folder, f'{name}.log').read_text()[-500:]}")


@contextlib.contextmanager
def started(*command: str, port: int, path: str = "/v1/models") -> Iterator[subprocess.Popen[bytes]]:
    """A server process that answers, for the body of the `with`."""
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        for _ in range(200):
            with contextlib.suppress(OSError):
                get(f"http://127.0.0.1:{port}{path}")
                break
            time.sleep(0.05)
        else:
            raise SystemExit(f"did not start: {' '.join(command)}")
        yield process
    finally:
        process.terminate()
        process.wait(10)


def upstream(folder: Path) -> Program:
    """The model server, compiled anew when it has changed. Raises SystemExit where there is no compiler."""
    source = Path(__file__).with_name("upstream.c")
    binary = folder / "upstream"
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise SystemExit("no C compiler for the benchmark's upstream (apt install gcc libc6-dev)")
    subprocess.run([compiler, "-O2", "-o", str(binary), str(source)], check=True)
    port = free_port()
    return start("upstream", [str(binary), str(port)], port, folder, path="/v1/models", cpus=OTHER_CPUS)


def nginx(folder: Path, behind: int) -> Program:
    """A reverse proxy that does nothing but pass bytes."""
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if program is None:
        raise SystemExit("nginx is missing: it is the yardstick (apt install nginx-light)")
    port = free_port()
    file = folder / "nginx.conf"
    file.write_text(NGINX.format(folder=folder, port=port, upstream=behind))
    return start("nginx", [program, "-c", str(file), "-p", str(folder)], port, folder, path="/v1/models")


def minimal(folder: Path) -> Program:
    """An aiohttp gateway that does nothing: what a start of any costs on this machine."""
    port = free_port()
    return start("minimal", [sys.executable, "-m", "bench.minimal", str(port)], port, folder)


def ds2d(folder: Path, behind: int, name: str = "ds2d", accounts: int = 0, keys: int = 0) -> Program:
    """ds2d with everything on, compiled as an installed one is. `accounts` and `keys` more than it needs show whether they cost
    anything."""
    compileall.compile_dir(PACKAGE, quiet=2)
    home = folder / name
    home.mkdir(exist_ok=True)
    port = free_port()
    config: dict[str, Any] = {
        "keys": [KEY, *(f"sk-bench-{number:012d}" for number in range(keys))],
        "upstreams": [{"name": "up", "base_url": f"http://127.0.0.1:{behind}/v1", "max_inflight": 4096}],
        "models": {model: {"upstream": "up"} for model in MODELS},
        "server": {"port": port},
        "runtime": {"account_max_queue": 4096},
    }
    if accounts:
        config["accounts"] = [{"name": f"a{number}", "upstream": "up", "token": f"k{number}"} for number in range(accounts)]
    file = home / "config.json"
    file.write_text(json.dumps(config))
    command = [sys.executable, "-m", "ds2d", "serve", "--config", str(file)]
    return start(name, command, port, folder, kinds=("chat", "responses", "claude", "gemini"))
