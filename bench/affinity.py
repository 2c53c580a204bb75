"""What prefix affinity is worth: 20 recorded agent sessions over two servers with prefix caches, by strategy.

    bench/affinity --real            two vLLM servers on the CPU (scripts/real-upstream; 7.2 GB of memory, about 5 minutes)
    bench/affinity --simulated       two small servers that only count; seconds

The hit ratio is the servers' own: prompt tokens found in the prefix cache, of those looked for. "one server" is what a single
one gets with all sessions; no strategy over two can do better than that.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp

from bench.programs import KEY, free_port, started
from bench.transcripts import sessions

ROOT = Path(__file__).resolve().parent.parent
MODEL = "deepseek-tiny"
START_SECONDS = 400
STRATEGIES: dict[str, tuple[int, dict[str, Any]]] = {
    "one server": (1, {"affinity": {"mode": "off"}}),
    "affinity": (2, {"affinity": {"mode": "on"}}),
    "affinity by session key": (2, {"affinity": {"mode": "on"}}),
    "least loaded": (2, {"affinity": {"mode": "off"}}),
    "round robin": (2, {"routing": "weighted", "affinity": {"mode": "off"}}),
}
COUNTERS = re.compile(r"^vllm:prefix_cache_(queries|hits)_total(?:\{.*\})? (\S+)$", re.MULTILINE)


def counters(port: int) -> tuple[float, float]:
    """What a server looked for in its cache, and found."""
    text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read().decode()
    sums = {"queries": 0.0, "hits": 0.0}
    for what, value in COUNTERS.findall(text):
        sums[what] += float(value)
    return sums["queries"], sums["hits"]


async def replay(port: int, salt: str, named: bool, at_once: int, count: int, turns: int) -> tuple[int, float]:
    """Send all sessions, each turn after the one before, some sessions at once. Cached tokens that answers named; seconds."""
    gate = asyncio.Semaphore(at_once)
    cached = 0

    async def one(http: aiohttp.ClientSession, number: int, questions: list[list[dict[str, Any]]]) -> None:
        nonlocal cached
        headers = {"Authorization": f"Bearer {KEY}"} | ({"x-session-id": f"{salt}-{number}"} if named else {})
        for messages in questions:
            body = {"model": MODEL, "messages": messages, "max_tokens": 4, "temperature": 0}
            async with gate, http.post(f"http://127.0.0.1:{port}/v1/chat/completions", json=body, headers=headers) as reply:
                answer = await reply.json()
                if reply.status != 200:
                    raise SystemExit(f"status {reply.status}: {answer}")
            cached += (answer["usage"].get("prompt_tokens_details") or {}).get("cached_tokens") or 0

    began = time.monotonic()
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=300)) as http:
        talks = sessions(count, turns, salt=salt)
        await asyncio.gather(*(one(http, number, questions) for number, questions in enumerate(talks)))
    return cached, time.monotonic() - began


def measure(ports: list[int], options: argparse.Namespace) -> list[dict[str, Any]]:
    """Every strategy in turn, each with sessions that no cache has seen."""
    rows = []
    for number, (name, (servers, runtime)) in enumerate(STRATEGIES.items()):
        upstreams = [
            {"name": f"s{place}", "base_url": f"http://127.0.0.1:{port}/v1", "flavour": "vllm", "poll_seconds": 1}
            for place, port in enumerate(ports[:servers])
        ]
        with tempfile.TemporaryDirectory() as folder:
            file, port = Path(folder, "config.json"), free_port()
            file.write_text(json.dumps({"keys": [KEY], "upstreams": upstreams, "runtime": runtime, "log": {"level": "warning"}}))
            command = [sys.executable, "-m", "ds2d", "serve", "--config", str(file), "--port", str(port)]
            with started(*command, port=port, path="/readyz"):
                before = [counters(one) for one in ports]
                named = "session key" in name
                cached, seconds = asyncio.run(
                    replay(port, f"Run {number}.", named, options.at_once, options.sessions, options.turns)
                )
                after = [counters(one) for one in ports]
        queries = [new[0] - old[0] for new, old in zip(after, before, strict=True)]
        hits = [new[1] - old[1] for new, old in zip(after, before, strict=True)]
        ratio = sum(hits) / sum(queries) if sum(queries) else 0.0
        share = "/".join(f"{100 * one / sum(queries):.0f}" for one in queries)
        rows.append(
            {"strategy": name, "hit_ratio": ratio, "tokens": sum(queries), "share": share, "cached": cached, "s": seconds}
        )
        print(f"  {name}: {ratio:.3f}", file=sys.stderr, flush=True)
    return rows


def show(rows: list[dict[str, Any]]) -> float:
    """Print the table; what affinity gets of a single server's hit ratio."""
    whole = rows[0]["hit_ratio"]
    print("| strategy | prompt tokens | share of the servers, % | hit ratio | of one server's | cached_tokens | seconds |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        ratio = row["hit_ratio"]
        print(
            f"| {row['strategy']} | {row['tokens']:.0f} | {row['share']} | {ratio:.3f} | {ratio / whole:.2f} | {row['cached']} |"
            f" {row['s']:.1f} |"
        )
    return min(row["hit_ratio"] / whole for row in rows if row["strategy"].startswith("affinity"))


@contextlib.contextmanager
def vllm(ports: list[int]) -> Iterator[None]:
    """Real servers on these ports, started together."""
    more = ["--enable-prompt-tokens-details"]
    command = [sys.executable, "-m", "scripts.real_upstream", "serve", "--flavour", "v31"]
    with contextlib.ExitStack() as stack:
        for port in ports:
            process = subprocess.Popen(
                [*command, "--port", str(port), *more], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            stack.callback(process.wait, 30)
            stack.callback(process.terminate)
        began = time.monotonic()
        for port in ports:
            while not _is_up(port):
                if time.monotonic() - began > START_SECONDS:
                    raise SystemExit("vLLM did not start; is it installed? scripts/real-upstream status")
                time.sleep(1)
        print(f"  two servers are up after {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
        yield


def _is_up(port: int) -> bool:
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).close()
    except OSError:
        return False
    return True


@contextlib.contextmanager
def simulated(ports: list[int]) -> Iterator[None]:
    """Servers that count and answer at once."""
    with contextlib.ExitStack() as stack:
        for port in ports:
            stack.enter_context(started(sys.executable, "-m", "bench.prefix_server", str(port), port=port))
        yield


def main() -> None:
    """Measure and print; the exit code is 1 where affinity gets less than 0.9 of a single server's hit ratio."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--real", action="store_true", help="two vLLM servers on the CPU")
    arguments.add_argument("--simulated", action="store_true", help="two servers that only count (the default)")
    arguments.add_argument("--sessions", type=int, default=20)
    arguments.add_argument("--turns", type=int, default=8)
    arguments.add_argument("--at-once", type=int, default=6, help="requests at once")
    options = arguments.parse_args()
    ports = [free_port(), free_port()]
    with vllm(ports) if options.real else simulated(ports):
        rows = measure(ports, options)
    kind = "vLLM servers on the CPU" if options.real else "simulated servers"
    print(f"{options.sessions} sessions of {options.turns} turns, {options.at_once} requests at once, two {kind}\n")
    worst = show(rows)
    sys.exit(0 if worst >= 0.9 else 1)


if __name__ == "__main__":
    main()
