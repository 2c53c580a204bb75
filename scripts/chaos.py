"""Rounds of 150 questions to servers that break, stall, refuse and come late: what clients got is held against what was said."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import uvloop

from tests.functional.chaos import one_round, told
from tests.functional.harness import CARRIERS


def main() -> int:
    """Play the rounds over both ways to an upstream and tell; 1 if anything was done wrong."""
    parser = argparse.ArgumentParser(prog="scripts/chaos", description=__doc__)
    parser.add_argument("--rounds", type=int, default=10, help="on each way (10)")
    parser.add_argument("--seed", type=int, default=1, help="of the first round; each further one has the next (1)")
    options = parser.parse_args()
    wrong = 0
    for seed in range(options.seed, options.seed + options.rounds):
        for carrier in CARRIERS:
            with tempfile.TemporaryDirectory() as folder:
                faults, clients = uvloop.run(one_round(Path(folder), seed, carrier=carrier))
            print(f"round {seed} {carrier:8} {told(clients)}, {len(faults)} wrong", flush=True)
            print(*faults, sep="\n", end="\n" * bool(faults))
            wrong += len(faults)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
