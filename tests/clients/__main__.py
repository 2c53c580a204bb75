"""What `scripts/try-clients` runs: every client against the daemon, progress as it goes, a table at the end.

    python -m tests.clients --cache FOLDER --node PATH [--junit FILE] [WORD...]

Words choose cases by name. Exit code 1 if a case failed.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
import xml.etree.ElementTree as ET
from pathlib import Path

from tests.clients import agents, scripts
from tests.clients.running import Case, Result, run_case

AT_ONCE = 2


async def run_all(cases: list[Case], cache: Path, node: str) -> list[Result]:
    """Run them, two at a time; say of each how it went."""
    gate = asyncio.Semaphore(AT_ONCE)
    done = 0

    async def one(case: Case) -> Result:
        nonlocal done
        async with gate:
            try:
                result = await run_case(case, cache, node)
            except OSError as error:
                result = Result(case, f"cannot be started: {error}", 0.0)
        done += 1
        print(
            f"  {done:2}/{len(cases)}  {'ok    ' if not result.fault else 'FAILED'} {result.seconds:5.1f} s  {case.name}",
            flush=True,
        )
        return result

    return await asyncio.gather(*map(one, cases))


def table(results: list[Result]) -> str:
    """One line a case, and what the failed ones said."""
    wide = max(len(result.case.client) for result in results)
    lines = [
        f"  {result.case.client:<{wide}}  {result.case.does:<38} {result.seconds:5.1f} s  {result.fault or 'ok'}"
        for result in results
    ]
    said = [f"\n--- {result.case.name}: {result.fault}\n{result.words}" for result in results if result.fault]
    return "\n".join([*said, "", *lines])


def junit(results: list[Result]) -> ET.ElementTree:
    """The report that scripts/summary.py reads."""
    failures = sum(bool(result.fault) for result in results)
    suite = ET.Element("testsuite", name="clients", tests=str(len(results)), failures=str(failures), errors="0", skipped="0")
    for result in results:
        case = ET.SubElement(suite, "testcase", classname=result.case.client, name=result.case.does, time=f"{result.seconds:.1f}")
        if result.fault:
            ET.SubElement(case, "failure", message=result.fault).text = result.words
    return ET.ElementTree(suite)


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/try-clients")
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--node", required=True)
    parser.add_argument("--junit", type=Path)
    parser.add_argument("words", nargs="*")
    options = parser.parse_args()
    everything = [*scripts.cases(options.node, options.cache), *agents.cases()]
    cases = [case for case in everything if not options.words or any(word.lower() in case.name.lower() for word in options.words)]
    if not cases:
        print("no case has such a name; there are:", *(case.name for case in everything), sep="\n  ")
        return 1
    began = time.monotonic()
    results = asyncio.run(run_all(cases, options.cache, options.node))
    print(table(results))
    failed = sum(bool(result.fault) for result in results)
    print(f"\n{len(results) - failed} passed, {failed} failed, 0 skipped after {time.monotonic() - began:.0f} s")
    if options.junit:
        junit(results).write(options.junit)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
