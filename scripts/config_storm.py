"""The long form of the storm of rewrites (tests/functional/storm.py)."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import uvloop

from tests.functional.harness import Running, config_for, running
from tests.functional.scripted import scripted_upstream
from tests.functional.storm import Storm, storm


async def blow(folder: Path, writes: int, clients: int) -> tuple[Storm, int, int]:
    """The storm, the generations it made, and what is left of it in the queue."""
    async with scripted_upstream() as upstream:
        config = config_for(upstream.base_url)
        config["upstreams"][0]["max_inflight"] = clients
        async with running(folder, config) as ds2d:
            result = await storm(ds2d, writes, clients)
            return result, ds2d.daemon.config().generation, left(ds2d)


def left(ds2d: Running) -> int:
    """Turns that did not come back."""
    return ds2d.daemon.queue.running + ds2d.daemon.queue.waiting


def main() -> int:
    """Blow and tell."""
    parser = argparse.ArgumentParser(prog="scripts/config-storm", description=__doc__)
    parser.add_argument("--writes", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=50)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result, generations, rest = uvloop.run(blow(Path(folder), options.writes, options.clients))
    print(f"{options.writes} writes, {generations} generations taken up, {result.served} requests")
    print(f"{len(result.failed)} failed, {rest} left over")
    for failure in result.failed[:5]:
        print(failure, file=sys.stderr)
    return int(bool(result.failed or rest))


if __name__ == "__main__":
    sys.exit(main())
