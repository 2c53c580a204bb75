"""Tables of a run: what each cell cost in each program, as times nginx, and beside the run before."""

from __future__ import annotations

import statistics
from typing import Any

from bench.cells import AIMS, CELLS

Rows = list[dict[str, Any]]


def median(rows: Rows, cell: str, program: str, *path: str) -> float | None:
    """The median of a figure over the rounds."""
    found = []
    for row in rows:
        if (row["cell"], row["program"]) == (cell, program):
            value: Any = row
            for name in path:
                value = value.get(name) if isinstance(value, dict) else None
            if value is not None:
                found.append(value)
    return statistics.median(found) if found else None


def shown(value: float | None, unit: str = "") -> str:
    """Three digits."""
    if value is None:
        return "-"
    return (f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}") + unit


def ratio(one: float | None, other: float | None) -> float | None:
    """One over the other, where both are known."""
    return one / other if one is not None and other else None


def tables(run: dict[str, Any], before: dict[str, Any] | None) -> str:
    """Markdown."""
    rows: Rows = run["rows"]
    names = list(dict.fromkeys(row["program"] for row in rows if row["program"] not in ("direct", "ds2d-large", "minimal")))
    about = f"{run['machine']}; Python {run['python']}, aiohttp {run['aiohttp']}, nginx {run['nginx']}"
    about += f"; {run['when']} UTC, commit {run['commit']}"
    parts = [f"{about}, load at the start {run['load']}", *_costs(rows, names, before), *_latency(rows, names)]
    parts += [*_slow(rows, names), *_leavers(rows, names), *_start(rows), *_growth(rows)]
    return "\n".join(parts)


def _costs(rows: Rows, names: list[str], before: dict[str, Any] | None) -> list[str]:
    others = [name for name in names if name != "nginx"]
    head = ["cell", "", "unit", "nginx us", *(f"{name} us | x nginx" for name in others), "aim", "of direct", "run before"]
    out = ["", "**CPU** of the gateway's processes per unit, medians", "", "| " + " | ".join(head) + " |"]
    out.append("|" + "---|" * (out[-1].count("|") - 1))
    for cell in CELLS:
        beside = cell.beside or cell.name
        nginx = median(rows, beside, "nginx", "cpu_us")
        if median(rows, cell.name, "ds2d", "cpu_us") is None:
            continue
        cells = [cell.name, cell.what, cell.unit, shown(nginx)]
        for name in others:
            cost = median(rows, cell.name, name, "cpu_us")
            cells += [shown(cost), shown(ratio(cost, nginx))]
        pace = ratio(median(rows, cell.name, "ds2d", "units_per_second"), median(rows, beside, "direct", "units_per_second"))
        earlier = median(before["rows"], cell.name, "ds2d", "cpu_us") if before else None
        change = ratio(median(rows, cell.name, "ds2d", "cpu_us"), earlier)
        aim = f"{AIMS[cell.name]:g}" if cell.name in AIMS else "-"
        cells += [aim, shown(pace * 100 if pace else None, " %"), f"{change - 1:+.0%}" if change else "-"]
        broken = sum(row.get("broken", 0) for row in rows if row["cell"] == cell.name)
        out.append("| " + " | ".join(cells) + " |" + (f" {broken} BROKEN" if broken else ""))
    return out


def _latency(rows: Rows, names: list[str]) -> list[str]:
    out = ["", "**Latency** in ms: the first byte p50, a chunk's way p50 / p99; `added` is over direct", ""]
    out += ["| cell | program | first byte | added | a chunk's way | added p99 |", "|---|---|---|---|---|---|"]
    for cell in CELLS:
        if not cell.is_paced:
            continue
        beside = cell.beside or cell.name
        base_first, base_late = (median(rows, beside, "direct", *path) for path in (("first_us", "p50"), ("delay_us", "p99")))
        for name in ("direct", *names):
            first = median(rows, cell.name, name, "first_us", "p50")
            middle, late = (median(rows, cell.name, name, "delay_us", which) for which in ("p50", "p99"))
            if first is None:
                continue
            more = shown((first - base_first) / 1000) if base_first is not None else "-"
            later = shown((late - base_late) / 1000) if late is not None and base_late is not None else "-"
            way = f"{shown(middle / 1000)} / {shown(late / 1000)}" if middle is not None and late is not None else "-"
            out.append(f"| {cell.name} | {name} | {shown(first / 1000)} | {more} | {way} | {later} |")
    return out if len(out) > 5 else []


def _slow(rows: Rows, names: list[str]) -> list[str]:
    out = [
        "",
        "**S4** 1,000 streams, a chunk a second each",
        "",
        "| program | streams | KB a stream | % of a core |",
        "|---|---|---|---|",
    ]
    for name in names:
        if (running := median(rows, "S4", name, "running")) is not None:
            figures = (median(rows, "S4", name, key) for key in ("kb_stream", "cpu_percent"))
            out.append(f"| {name} | {running:.0f} | " + " | ".join(map(shown, figures)) + " |")
    return out if len(out) > 5 else []


def _leavers(rows: Rows, names: list[str]) -> list[str]:
    out = ["", "**S8** clients leave: upstream streams closed within a second", ""]
    out += ["| program | while chunks flow | median ms | before the first chunk | median ms |", "|---|---|---|---|---|"]
    for name in names:
        cells = []
        for what in ("S8 flowing", "S8 silent"):
            share = median(rows, what, name, "share")
            if share is not None:
                cells += [f"{share:.0%}", shown(median(rows, what, name, "median_ms"))]
        if cells:
            out.append(f"| {name} | " + " | ".join(cells) + " |")
    return out if len(out) > 5 else []


def _start(rows: Rows) -> list[str]:
    if median(rows, "S9", "ds2d", "start_s") is None:
        return []
    start, memory, later, idle = (median(rows, "S9", "ds2d", key) for key in ("start_s", "memory_mb", "later_mb", "idle_percent"))
    head = "**S9** start to the first 200 (aim 0.35 s), memory then (aim 45 MB), with the tokenizer in, idle CPU"
    out = ["", head, "", f"{shown(start)} s, {shown(memory)} MB, {shown(later)} MB, {shown(idle)} %"]
    bare, least = (median(rows, "S9", "minimal", key) for key in ("start_s", "memory_mb"))
    if bare is not None:
        out[-1] += f"; a gateway with aiohttp that does nothing: {shown(bare)} s, {shown(least)} MB"
    return out


def _growth(rows: Rows) -> list[str]:
    out = []
    long = ratio(median(rows, "G1 long", "ds2d", "cpu_us"), median(rows, "G1 short", "ds2d", "cpu_us"))
    if long is not None:
        out.append(f"a chunk of a stream of 100,000 costs {long:.2f} of one in a stream of 100 (with its share of the request)")
    slow = ratio(median(rows, "S4", "ds2d", "cpu_us"), median(rows, "S3 c64", "ds2d", "cpu_us"))
    if slow is not None:
        out.append(f"a chunk among 1,000 slow streams costs {slow:.2f} of one among 64")
    large = ratio(median(rows, "G2", "ds2d-large", "cpu_us"), median(rows, "G2", "ds2d", "cpu_us"))
    if large is not None:
        out.append(f"with 1,000 accounts and 10,000 keys a request costs {large:.2f} of one without")
    return ["", "**Growth** " + "; ".join(out)] if out else []
