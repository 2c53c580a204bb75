"""What a request and a streamed chunk cost in ds2d: CPU of its process, beside a raw pass-through and no gateway at all.

    python -m bench.gateway [--seconds 3] [--rounds 3] [--json]

Everything runs interleaved in one go on this machine, because only ratios travel. CPU time is read from /proc.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.load import load

KEY = "sk-bench-0123456789"
TICK = os.sysconf("SC_CLK_TCK")
CELLS: list[tuple[str, dict[str, Any], str]] = [
    ("non-stream, 1 kB, 16 at once", {"streams": 16, "model": "bench", "stream": False}, "requests"),
    ("stream, 200 chunks unpaced, 16 at once", {"streams": 16, "model": "bench-n200", "stream": True}, "chunks"),
    ("stream, 20 ms a chunk, 64 at once", {"streams": 64, "model": "bench-n100-d20", "stream": True}, "chunks"),
]


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def cpu_seconds(pid: int) -> float:
    """User and system time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def memory_mb(pid: int) -> float:
    """Resident memory."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


@contextlib.contextmanager
def started(*command: str, port: int, path: str = "/v1/models") -> Iterator[subprocess.Popen[bytes]]:
    """A server process that answers, for the body of the `with`."""
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        for _ in range(200):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=1).read()
                break
            time.sleep(0.05)
        else:
            raise SystemExit(f"did not start: {' '.join(command)}")
        yield process
    finally:
        process.terminate()
        process.wait(10)


def measure(seconds: float, rounds: int) -> list[dict[str, Any]]:
    """Every cell for every server, interleaved."""
    upstream, through, gateway = free_port(), free_port(), free_port()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        config = {
            "keys": [KEY],
            "upstreams": [{"name": "up", "base_url": f"http://127.0.0.1:{upstream}/v1", "max_inflight": 4096}],
            "models": {name: {"upstream": "up"} for name in ("bench", "bench-n200", "bench-n100-d20")},
            "log": {"level": "warning"},
        }
        file = Path(folder, "config.json")
        file.write_text(json.dumps(config))
        run = [sys.executable, "-m", "bench.servers"]
        up = stack.enter_context(started(*run, "upstream", str(upstream), port=upstream))
        raw = stack.enter_context(started(*run, "passthrough", str(through), str(upstream), port=through))
        command = [sys.executable, "-m", "ds2d", "serve", "--config", str(file), "--port", str(gateway)]
        own = stack.enter_context(started(*command, port=gateway, path="/readyz"))
        servers = {"direct": (upstream, up), "pass-through": (through, raw), "ds2d": (gateway, own)}
        rows = []
        for name, kwargs, unit in CELLS:
            figures: dict[str, list[float]] = {server: [] for server in servers}
            first: dict[str, list[float]] = {server: [] for server in servers}
            for _ in range(rounds):
                for server, (port, process) in servers.items():
                    before = cpu_seconds(process.pid)
                    result = asyncio.run(load(port, KEY, seconds=seconds, **kwargs))
                    if result.broken:
                        raise SystemExit(f"{server}: {result.broken} broken answers in '{name}', one of them: {result.sample!r}")
                    figures[server].append((cpu_seconds(process.pid) - before) / getattr(result, unit) * 1e6)
                    first[server].append(result.first_ms(0.5))
            rows.append(
                {
                    "cell": name,
                    "unit": unit.removesuffix("s"),
                    "cpu_us": {server: round(statistics.median(values), 1) for server, values in figures.items()},
                    "first_ms": {server: round(statistics.median(values), 2) for server, values in first.items()},
                    "memory_mb": round(memory_mb(own.pid), 1),
                }
            )
        return rows


def main() -> None:
    """Print the table."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--seconds", type=float, default=3, help="length of one measurement")
    arguments.add_argument("--rounds", type=int, default=3, help="measurements of each cell; the median counts")
    arguments.add_argument("--json", action="store_true", help="print the figures as JSON")
    options = arguments.parse_args()
    rows = measure(options.seconds, options.rounds)
    if options.json:
        print(json.dumps(rows, indent=1))
        return
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; CPU us of the process per unit\n")
    print("| cell | unit | pass-through | ds2d | ratio | first byte p50: direct, ds2d |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        cpu, first = row["cpu_us"], row["first_ms"]
        ratio = cpu["ds2d"] / cpu["pass-through"] if cpu["pass-through"] else 0
        print(
            f"| {row['cell']} | {row['unit']} | {cpu['pass-through']} | {cpu['ds2d']} | {ratio:.1f} |"
            f" {first['direct']} ms, {first['ds2d']} ms |"
        )
    print(f"\nResident memory of ds2d afterwards: {rows[-1]['memory_mb']} MB")


if __name__ == "__main__":
    main()
