"""The examination: every check at every hop, and whose fault a failure is.

Rule: a question goes client -> what stands in front -> ds2d -> model server, so each check runs at the server first and then
further out; the first layer at which it fails is the culprit. What a later layer mends is said, and is no failure.
Surprise: to examine one of several servers through ds2d, its account is pinned (X-Ds2-Target-Account); an embedded upstream
has no hop of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import msgspec

from ds2d.cli.doctor.checks import CHECKS, Bench, Found
from ds2d.cli.doctor.endpoints import ENDPOINTS, ask_endpoint
from ds2d.cli.doctor.hearing import Ear, Hop

Progress = Callable[[str], None]


class Line(msgspec.Struct):
    """One check: what was found at each hop, by layer, and how long it took in all."""

    check: str
    found: dict[str, Found]
    seconds: float = 0.0

    @property
    def culprit(self) -> str | None:
        """The layer at which it goes wrong first."""
        return next((layer for layer, found in self.found.items() if found.state == "fail"), None)

    @property
    def mended(self) -> bool:
        """Whether clients do not notice: a layer further out does it right."""
        last = next(reversed(self.found.values()), None)
        return self.culprit is not None and last is not None and last.state in ("ok", "note")

    @property
    def state(self) -> str:
        """ok, note, mended, fail or skip."""
        if self.culprit is not None:
            return "mended" if self.mended else "fail"
        states = {found.state for found in self.found.values()}
        return next((state for state in ("note", "ok") if state in states), "skip")


class Examination(msgspec.Struct):
    """One upstream examined. `about` is what is known of it: flavour, version, models."""

    upstream: str
    about: dict[str, str]
    lines: list[Line]


async def examine(ear: Ear, hops: Sequence[Hop], server: Hop | None, progress: Progress) -> list[Line]:
    """Every check at these hops, in the order from the server outwards."""
    lines: list[Line] = []
    lost: dict[str, Found] = {}
    for name, check in CHECKS.items():
        line = Line(name, {})
        began = time.monotonic()
        before: Found | None = None
        for hop in hops:
            found = lost.get(hop.layer) or await check(Bench(ear, hop, server, before))
            if found.gone:
                lost[hop.layer] = found
            if found.aside and any(line.culprit == hops[0].layer for line in lines):
                found = Found("skip", "the server was put aside for what is said above")
            line.found[hop.layer] = before = found
        line.seconds = time.monotonic() - began
        lines.append(line)
        progress(told(line))
    return lines


async def examine_endpoints(ear: Ear, hop: Hop, progress: Progress, *, chats: bool) -> list[Line]:
    """Every endpoint of the gateway, once. `chats`: some served model answers questions."""
    lines: list[Line] = []
    for name, endpoint in ENDPOINTS.items():
        began = time.monotonic()
        idle = endpoint.body is not None and not endpoint.optional and not chats
        found = Found("skip", "no served model chats") if idle else await ask_endpoint(ear, hop, endpoint)
        lines.append(Line(name, {hop.layer: found}, time.monotonic() - began))
        progress(told(lines[-1]))
    return lines


MARKS = {"ok": "ok", "note": "ok", "mended": "mended", "fail": "FAIL", "skip": "-"}


def told(line: Line) -> str:
    """A line for people: the check, how it went, and where it goes wrong."""
    head = f"  {line.check:30} {MARKS[line.state]:7}"
    if line.culprit is not None:
        mended = ", which clients do not notice" if line.mended else ""
        return f"{head} {line.culprit}: {line.found[line.culprit].detail}{mended}"
    details = dict.fromkeys(f"{layer}: {found.detail}" for layer, found in line.found.items() if found.detail)
    return f"{head} {'; '.join(details)}".rstrip()
