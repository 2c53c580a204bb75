"""What counting costs: a turn, a scrape, an import; ours beside prometheus_client with the same families and labels.

python -m bench.metrics
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from ds2d.core.metrics import Counter, Histogram, render

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
TURN = ("openai_chat", "deepseek-chat", "gpu", "completed")
WHERE = ("deepseek-chat", "gpu")
KINDS = ("prompt", "completion", "cached", "reasoning")
TIMES = 20_000


def ours() -> tuple[Callable[[], None], Callable[[], bytes]]:
    """A turn's updates, and a scrape."""
    turns = Counter("ds2d_turns_total", "x", ("dialect", "model", "upstream", "outcome"))
    tokens = Counter("ds2d_tokens_total", "x", ("model", "upstream", "kind"))
    histograms = [Histogram(f"ds2d_{number}_seconds", "x", BUCKETS, ("model", "upstream")) for number in range(5)]

    def turn() -> None:
        turns.values[TURN] += 1
        for kind in KINDS:
            tokens.values[*WHERE, kind] += 7
        for histogram in histograms:
            histogram.observe(WHERE, 0.3)

    return turn, lambda: render((turns, tokens, *histograms))


def theirs() -> tuple[Callable[[], None], Callable[[], bytes]]:
    """The same with prometheus_client."""
    import prometheus_client as prometheus  # noqa: PLC0415 - its import is measured apart

    registry = prometheus.CollectorRegistry()
    turns = prometheus.Counter("ds2d_turns", "x", ("dialect", "model", "upstream", "outcome"), registry=registry)
    tokens = prometheus.Counter("ds2d_tokens", "x", ("model", "upstream", "kind"), registry=registry)
    histograms: list[Any] = [
        prometheus.Histogram(f"ds2d_{number}_seconds", "x", ("model", "upstream"), buckets=BUCKETS, registry=registry)
        for number in range(5)
    ]

    def turn() -> None:
        turns.labels(*TURN).inc()
        for kind in KINDS:
            tokens.labels(*WHERE, kind).inc(7)
        for histogram in histograms:
            histogram.labels(*WHERE).observe(0.3)

    return turn, lambda: prometheus.generate_latest(registry)


def cpu(action: Callable[[], object], times: int) -> float:
    """Microseconds of CPU that one of them costs, the best of five rounds."""
    rounds = []
    for _ in range(5):
        began = time.process_time()
        for _ in range(times):
            action()
        rounds.append((time.process_time() - began) / times * 1e6)
    return min(rounds)


IMPORT = """
import aiohttp.web, time
rss = lambda: int(open("/proc/self/statm").read().split()[1]) * 4
memory, began = rss(), time.perf_counter()
import {module}
print((time.perf_counter() - began) * 1e3, rss() - memory)
"""


def imported(module: str) -> str:
    """Milliseconds and kilobytes of an import in a process that has its web server already; the quickest of five."""
    found = []
    for _ in range(5):
        code = IMPORT.format(module=module)
        spent, memory = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
        found.append((float(spent), int(memory)))
    spent_ms, kilobytes = min(found)
    return f"{spent_ms:6.1f} ms {kilobytes:6d} kB"


def main() -> None:
    """Print both."""
    for name, module, made in (("ours", "ds2d.core.metrics", ours), ("prometheus_client", "prometheus_client", theirs)):
        turn, scrape = made()
        print(f"{name:18} turn {cpu(turn, TIMES):5.2f} us   scrape {cpu(scrape, 50):6.0f} us   import {imported(module)}")


if __name__ == "__main__":
    main()
