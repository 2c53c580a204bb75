"""Rounds of 150 questions to servers that break, stall, refuse and come late: what clients got is held against what was said."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import uvloop

from tests.functional.chaos import one_round, told, upgraded_round
from tests.functional.harness import CARRIERS


def main() -> int:
    """Play the rounds over both ways to an upstream, and with upgrades on the way, and tell; 1 if anything was done wrong."""
    parser = argparse.ArgumentParser(prog="scripts/chaos", description=__doc__)
    parser.add_argument("--rounds", type=int, default=10, help="of each kind (10)")
    parser.add_argument("--seed", type=int, default=1, help="of the first round; each further one has the next (1)")
    options = parser.parse_args()
    wrong = 0
    for seed in range(options.seed, options.seed + options.rounds):
        for way in (*CARRIERS, "upgraded"):
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name).resolve()
                one = upgraded_round(folder, seed) if way == "upgraded" else one_round(folder, seed, carrier=way)
                faults, clients = uvloop.run(one)
            print(f"round {seed} {way:8} {told(clients)}, {len(faults)} wrong", flush=True)
            print(*faults, sep="\n", end="\n" * bool(faults))
            wrong += len(faults)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
