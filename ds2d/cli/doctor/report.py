"""The report of an examination: dated, with versions, each endpoint, and what passed.

Rule: no key, token or text of a model is in it; addresses are, for it is the operator's own.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import aiohttp

from ds2d import __version__
from ds2d.cli.doctor.examine import MARKS, Examination, Line


def as_dict(when: datetime, examined: Sequence[Examination], endpoints: Sequence[Line], daemon: str) -> dict[str, Any]:
    """The whole as JSON has it."""
    return {
        "date": when.isoformat(timespec="seconds"),
        "versions": {"ds2d": __version__, "python": platform.python_version(), "aiohttp": aiohttp.__version__},
        "daemon": daemon,
        "upstreams": [{"name": one.upstream, **one.about, "checks": [_line(line) for line in one.lines]} for one in examined],
        "endpoints": [_line(line) for line in endpoints],
        "summary": counts([*(line for one in examined for line in one.lines), *endpoints]),
    }


def counts(lines: Sequence[Line]) -> dict[str, int]:
    """How many ended in which way."""
    found = dict.fromkeys(("ok", "mended", "fail", "skip"), 0)
    for line in lines:
        found["ok" if line.state == "note" else line.state] += 1
    return found


def as_text(report: dict[str, Any]) -> str:
    """The same as Markdown."""
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    out = [f"# ds2d doctor, {report['date']}", "", f"{versions}; daemon: {report['daemon']}", ""]
    for upstream in report["upstreams"]:
        about = ", ".join(f"{name} {value}" for name, value in upstream.items() if name not in ("name", "checks") and value)
        out += [f"## Upstream {upstream['name']}", "", about, "", *_table(upstream["checks"], "check")]
    if report["endpoints"]:
        out += ["## Endpoints", "", *_table(report["endpoints"], "endpoint")]
    said = ", ".join(f"{count} {name}" for name, count in report["summary"].items())
    return "\n".join([*out, said, ""])


def _table(rows: Sequence[dict[str, Any]], what: str) -> list[str]:
    out = [f"| {what} | result | culprit | found | seconds |", "| --- | --- | --- | --- | --- |"]
    for row in rows:
        found = "; ".join(f"{layer}: {one['detail'] or one['state']}" for layer, one in row["found"].items()).replace("|", "\\|")
        out.append(f"| {row['check']} | {MARKS[row['state']]} | {row['culprit'] or ''} | {found} | {row['seconds']:.2f} |")
    return [*out, ""]


def _line(line: Line) -> dict[str, Any]:
    found = {layer: {"state": one.state, "detail": one.detail} for layer, one in line.found.items()}
    return {
        "check": line.check,
        "state": line.state,
        "culprit": line.culprit,
        "found": found,
        "seconds": round(line.seconds, 3),
    }
