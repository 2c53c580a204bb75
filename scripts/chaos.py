"""Rounds of questions to servers that break, stall, refuse and come late: what clients got is held against what was said.

Each is played over both ways to an upstream, and with upgrades on the way; and so are stored responses, which clients follow,
continue, cancel and delete meanwhile.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import uvloop

from tests.functional import chaos, responses_chaos
from tests.functional.harness import CARRIERS

Played = tuple[list[str], str]
"""What was done wrong, and how it went."""


async def _answers(round_of: Coroutine[Any, Any, tuple[list[str], list[chaos.Client]]]) -> Played:
    faults, clients = await round_of
    return faults, chaos.told(clients)


async def _responses(round_of: Coroutine[Any, Any, responses_chaos.World]) -> Played:
    world = await round_of
    return world.faults, ", ".join(f"{count} {end}" for end, count in sorted(world.told.items()))


def kinds() -> dict[str, Callable[[Path, int], Coroutine[Any, Any, Played]]]:
    """What is played in a folder, with a seed."""
    found: dict[str, Callable[[Path, int], Coroutine[Any, Any, Played]]] = {}
    for way in CARRIERS:
        found[way] = lambda folder, seed, way=way: _answers(chaos.one_round(folder, seed, carrier=way))
        found[f"responses, {way}"] = lambda folder, seed, way=way: _responses(
            responses_chaos.one_round(folder, seed, carrier=way)
        )
    found["upgraded"] = lambda folder, seed: _answers(chaos.upgraded_round(folder, seed))
    found["responses, upgraded"] = lambda folder, seed: _responses(responses_chaos.upgraded_round(folder, seed))
    return found


def main() -> int:
    """Play the rounds and tell; 1 if anything was done wrong."""
    parser = argparse.ArgumentParser(prog="scripts/chaos", description=__doc__)
    parser.add_argument("--rounds", type=int, default=10, help="of each kind (10)")
    parser.add_argument("--seed", type=int, default=1, help="of the first round; each further one has the next (1)")
    options = parser.parse_args()
    wrong = 0
    for seed in range(options.seed, options.seed + options.rounds):
        for kind, play in kinds().items():
            with tempfile.TemporaryDirectory() as folder:
                faults, told = uvloop.run(play(Path(folder).resolve(), seed))
            print(f"round {seed}, {kind}: {told}; {len(faults)} wrong", flush=True)
            print(*faults, sep="\n", end="\n" * bool(faults))
            wrong += len(faults)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
