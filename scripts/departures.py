"""Clients that leave at any moment: the time until their upstream's connection is closed, or their place in the queue is free."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from statistics import median

import uvloop

from tests.functional.departures import departures, percentile
from tests.functional.harness import CARRIERS, config_for, running
from tests.functional.scripted import scripted_upstream
from tests.functional.test_queue import until

BOUND = 0.25
"""Seconds (reliability.md, promise 5)."""


async def measure(folder: Path, count: int, carrier: str) -> list[float]:
    """The seconds that each took."""
    async with scripted_upstream() as upstream:
        config = config_for(upstream.base_url)
        config["upstreams"][0] |= {"max_inflight": 20, "poll_seconds": 3600}
        async with running(folder, config, carrier=carrier) as ds2d:
            await until(lambda: ds2d.daemon.counter.loaded)  # loading it is a start's affair
            return await departures(ds2d, upstream, count)


def main() -> int:
    """Measure over both ways to an upstream and tell."""
    parser = argparse.ArgumentParser(prog="scripts/departures", description=__doc__)
    parser.add_argument("--count", type=int, default=500, help="clients that run when they leave; a tenth more wait (500)")
    options = parser.parse_args()
    late = False
    for carrier in CARRIERS:
        with tempfile.TemporaryDirectory() as folder:
            took = uvloop.run(measure(Path(folder), options.count, carrier))
        p99 = percentile(took, 99)
        late = late or p99 >= BOUND
        middle, worst = median(took) * 1000, max(took) * 1000
        print(f"{carrier:8} {len(took)} departures: median {middle:.1f} ms, p99 {p99 * 1000:.1f} ms, worst {worst:.1f} ms")
    return int(late)


if __name__ == "__main__":
    sys.exit(main())
