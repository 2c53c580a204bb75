"""Counts the instructions of the pure parts and holds them against kept numbers: steady where clocks are not.

    .venv/bin/python -m bench.instructions            compare; exit status 1 if a cell has grown by more than 10 %
    .venv/bin/python -m bench.instructions --keep     keep what is counted now

A count is the difference between running a cell's work twice as long and once, under valgrind, divided by the count of a
loop of plain Python in the same run. That takes out start-up and processor. What it cannot take out are versions of Python
and the flags they were built with (up to 10 % between builds of one version), so numbers are kept for each build; for a build
that has none the largest of its version count, with 25 % instead of 10. No clocks, no random hashes: two runs differ by 0.3 %.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

KEPT = Path(__file__).with_name("instructions.json")
ALLOWED, ALLOWED_ELSEWHERE = 1.10, 1.25
VERSION = f"{sys.version_info[0]}.{sys.version_info[1]}"
_FLAGS = " ".join(str(sysconfig.get_config_var(name)) for name in ("CFLAGS", "CONFIG_ARGS", "LTOFLAGS", "PGO_PROF_USE_FLAG"))
BUILD = f"{VERSION} {hashlib.sha256(_FLAGS.encode()).hexdigest()[:8]}"
SKIPPED = 3


def child() -> None:
    """Under valgrind: each cell once and twice as long, each in a fork, so that the imports are paid for once."""
    from bench.pure import CELLS  # noqa: PLC0415 - the parent has no use for it

    works = {name: (units, make()) for name, (units, make) in CELLS.items()}
    for _, work in works.values():
        work(32)
    gc.collect()
    gc.disable()
    for name, (units, work) in works.items():
        for times in (1, 2):
            pid = os.fork()
            if pid == 0:
                work(units * times)
                os._exit(0)
            os.waitpid(pid, 0)
            print(f"{name}\t{units}\t{times}\t{pid}", flush=True)


def count() -> dict[str, float]:
    """Instructions a unit of every cell, in calibration units. Raises SystemExit if valgrind cannot run it."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            "valgrind",
            "--tool=cachegrind",
            "--cache-sim=no",
            f"--cachegrind-out-file={folder}/%p",
            "--log-file=/dev/null",
        ]
        environ = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONMALLOC": "pymalloc"}
        run = [*command, sys.executable, "-m", "bench.instructions", "--child"]
        told = subprocess.run(run, env=environ, check=True, stdout=subprocess.PIPE, text=True).stdout
        totals: dict[str, dict[int, int]] = {}
        units: dict[str, int] = {}
        for line in told.splitlines():
            name, size, times, pid = line.split("\t")
            units[name] = int(size)
            summary = re.search(r"^summary: +(\d+)", Path(folder, pid).read_text(), re.MULTILINE)
            if summary is None:
                raise SystemExit(f"valgrind counted nothing for {name}")
            totals.setdefault(name, {})[int(times)] = int(summary[1])
    each = {name: (both[2] - both[1]) / units[name] for name, both in totals.items()}
    base = each.pop("calibration")
    print(f"one unit is {base:.0f} instructions of this machine's Python {VERSION}")
    return {name: round(value / base, 3) for name, value in each.items()}


def main() -> int:
    """Compare or keep."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--keep", action="store_true", help="keep these numbers for this version of Python")
    arguments.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.child:
        child()
        return 0
    if shutil.which("valgrind") is None:
        print("NOT CHECKED: valgrind is missing (apt install valgrind)")
        return SKIPPED
    kept: dict[str, dict[str, float]] = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    before, allowed = kept.get(BUILD, {}), ALLOWED
    if not before:
        allowed = ALLOWED_ELSEWHERE
        for build, numbers in kept.items():
            if build.startswith(VERSION + " "):
                before = {name: max(value, before.get(name, 0)) for name, value in numbers.items()}
    if not before and not options.keep:
        print(f"NOT CHECKED: no numbers are kept for Python {VERSION} (scripts/bench --keep-counts makes them)")
        return SKIPPED
    now = count()
    grown = [name for name, value in now.items() if name in before and value > before[name] * allowed]
    for name, value in now.items():
        change = f"{value / before[name] - 1:+7.1%}" if name in before else "    new"
        print(f"{name:28} {value:9.3f} {change}{'  GROWN' if name in grown else ''}")
    if options.keep:
        KEPT.write_text(json.dumps({**kept, BUILD: now}, indent=1, sort_keys=True) + "\n")
        print("kept")
        return 0
    missing = sorted(set(now) ^ set(before))
    if missing:
        print("cells without kept numbers, or numbers without cells:", ", ".join(missing))
    if grown:
        print(f"{len(grown)} cells cost {allowed - 1:.0%} more than kept, or worse.")
        print("Is it worth that? Then: scripts/bench --keep-counts")
    else:
        print(f"{len(now)} cells within {allowed - 1:.0%} of what is kept")
    return 1 if grown or missing else 0


if __name__ == "__main__":
    sys.exit(main())
