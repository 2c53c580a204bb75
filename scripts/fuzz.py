"""The long search of the fuzz targets (tests/fuzz)."""

from __future__ import annotations

import argparse
import random
import sys

from tests.fuzz.fuzzer import search
from tests.fuzz.targets import TARGETS


def main() -> int:
    """Search and tell."""
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", help=f"of {', '.join(TARGETS)}; all of them without any")
    parser.add_argument("--seconds", type=float, default=600, help="for each target (600)")
    parser.add_argument("--seed", type=int, default=None, help="to repeat a search")
    options = parser.parse_args()
    if unknown := set(options.targets) - set(TARGETS):
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    failed = 0
    for name in options.targets or TARGETS:
        seed = options.seed if options.seed is not None else random.SystemRandom().randrange(2**32)
        tried, kept, failures = search(name, options.seconds, seed)
        print(f"{name:24} seed {seed}: {tried} inputs, {kept} kept, {len(failures)} failed", flush=True)
        failed += len(failures)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
