"""Advisories about what is locked, from osv.dev: names and versions go there, nothing else."""

from __future__ import annotations

import argparse
import json
import sys
import urllib.error
import urllib.request
from collections.abc import Iterable

from scripts.supply_chain import BAD, LOCKS, locked

SERVICE = "https://api.osv.dev/v1/querybatch"
BATCH = 500


def advisories(pairs: Iterable[tuple[str, str]], service: str) -> dict[tuple[str, str], list[str]]:
    """Ids of the advisories about each version that has any. Raises OSError."""
    asked = sorted(set(pairs))
    found: dict[tuple[str, str], list[str]] = {}
    for begin in range(0, len(asked), BATCH):
        batch = asked[begin : begin + BATCH]
        queries = [{"package": {"name": name, "ecosystem": "PyPI"}, "version": version} for name, version in batch]
        body = json.dumps({"queries": queries}).encode()
        request = urllib.request.Request(service, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as reply:
            results = json.loads(reply.read())["results"]
        for pair, result in zip(batch, results, strict=True):
            if ids := [one["id"] for one in result.get("vulns", [])]:
                found[pair] = ids
    return found


def main() -> int:
    """Ask and tell: 1 if there is an advisory, 2 if the service could not be asked."""
    parser = argparse.ArgumentParser(prog="scripts/audit", description=__doc__)
    parser.add_argument("locks", nargs="*", default=["run", "dev", "build"], help="of requirements/ (run dev build)")
    parser.add_argument("--service", default=SERVICE, help="another server with the same answers")
    options = parser.parse_args()
    pairs = [pair for name in options.locks for pair in locked(LOCKS / f"{name}.txt")]
    try:
        found = advisories(pairs, options.service)
    except (OSError, urllib.error.URLError, ValueError, KeyError) as error:
        print(f"error: the service could not be asked: {error}", file=sys.stderr)
        return 2
    for (name, version), ids in found.items():
        print(f"{name} {version}: {', '.join(ids)}")
    print(f"{len(set(pairs))} versions asked about, {len(found)} with advisories; what must not come back goes into {BAD.name}")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
