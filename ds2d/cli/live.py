"""What `ds2d status --watch` shows: looks at a running daemon, and a page made of two of them.

Rule: everything comes from `/readyz?verbose` and `/metrics`, and from `/admin/requests` where the admin key is known; what
may not be read is left out of the page. Names that clients chose are made harmless for the terminal.
Surprise: tokens are counted when a turn ends, so the pieces of answers that are being written are added to them: the rate is
that of now, not of the turns that happened to end.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ds2d.cli.asking import Daemon, harmless

BAR = 20
_SAMPLE = re.compile(r"([a-z0-9_]+)(?:\{(.*)\})? (\S+)")
_LABEL = re.compile(r'([a-z_]+)="((?:[^"\\]|\\.)*)"')

BOLD, DIM, RED, GREEN, YELLOW, PLAIN = "\x1b[1m", "\x1b[2m", "\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[0m"
COLOURS = {"ready": GREEN, "busy": YELLOW, "degraded": YELLOW, "loading": YELLOW, "cooling": YELLOW, "half_open": YELLOW}


class Sample(NamedTuple):
    """One line of /metrics."""

    name: str
    labels: Mapping[str, str]
    value: float


class Look(NamedTuple):
    """What the daemon said at one moment (monotonic seconds); None for what it does not tell us."""

    at: float
    ready: dict[str, Any]
    samples: tuple[Sample, ...] | None
    running: tuple[dict[str, Any], ...] | None

    def sum(self, name: str, **labels: str) -> float:
        """All samples of this name that have these labels."""
        wanted = labels.items()
        return sum(one.value for one in self.samples or () if one.name == name and wanted <= one.labels.items())

    @property
    def tokens(self) -> float:
        """Tokens written so far, running answers included."""
        return self.sum("ds2d_tokens_total", kind="completion") + self.sum("ds2d_answer_pieces")


def look(daemon: Daemon, key: str | None) -> Look | None:
    """Ask the daemon; None if it does not answer."""
    ready = daemon.ask("/readyz?verbose")
    status = ready and _object(ready.body)
    if not status:
        return None
    page = daemon.ask("/metrics", key)
    samples = tuple(samples_of(page.body.decode("utf-8", "replace"))) if page and page.status == 200 else None
    turns = daemon.ask("/admin/requests", key) if key else None
    running = (_object(turns.body) or {}).get("running") if turns and turns.status == 200 else None
    return Look(time.monotonic(), status, samples, None if running is None else tuple(running))


def samples_of(text: str) -> Iterator[Sample]:
    """The samples of a page of /metrics."""
    for line in text.splitlines():
        if not line.startswith("#") and (found := _SAMPLE.fullmatch(line)):
            name, labels, value = found.groups()
            yield Sample(name, {key: _plain(raw) for key, raw in _LABEL.findall(labels or "")}, float(value))


def page(now: Look, before: Look | None, width: int, *, colour: bool) -> list[str]:
    """The lines to show. Without an earlier look there are no rates."""
    lines = [*_head(now, before), "", *_upstreams(now)]
    if now.samples is not None:
        lines += ["", *_accounts(now)]
    if now.running is not None:
        lines += ["", *_turns(now.running)]
    for kind, tint in (("problem", RED), ("warnings", YELLOW), ("pending_restart", YELLOW)):
        lines += [f"{tint}{kind}: {line}{PLAIN}" for line in now.ready.get("config", {}).get(kind, [])]
    if now.samples is None:
        lines += ["", f"{DIM}more with the admin key in $DS2D_ADMIN_KEY (metrics.access){PLAIN}"]
    return [_cut(line, width) if colour else _bare(line)[:width] for line in lines]


def _head(now: Look, before: Look | None) -> Iterator[str]:
    state = str(now.ready.get("status", "unknown"))
    config = now.ready.get("config", {})
    started = now.sum("ds2d_process_start_time_seconds")
    version = next((one.labels["version"] for one in now.samples or () if one.name == "ds2d_build_info"), "")
    parts = [f"{BOLD}ds2d {version}{PLAIN}".replace("  ", " "), f"{COLOURS.get(state, RED)}{state}{PLAIN}"]
    if "generation" in config:
        parts.append(f"config {config['generation']}")
    if started:
        parts.append(f"up {_span(time.time() - started)}")
    yield "   ".join(parts)
    if now.samples is None:
        return
    waiting, may_wait = now.sum("ds2d_queue_waiting"), now.sum("ds2d_queue_limit")
    yield (
        f"{BOLD}{now.sum('ds2d_turns_running'):.0f}{PLAIN} turns, {now.sum('ds2d_turns_streaming'):.0f} streaming   "
        f"{BOLD}{waiting:.0f}{PLAIN} waiting of {may_wait:.0f}   "
        f"{now.sum('ds2d_inflight'):.0f} of {now.sum('ds2d_inflight_limit'):.0f} slots"
    )
    if before is not None and before.samples is not None and now.at > before.at:
        seconds = now.at - before.at
        tokens = max(0.0, now.tokens - before.tokens) / seconds
        turns = max(0.0, now.sum("ds2d_turns_total") - before.sum("ds2d_turns_total")) / seconds
        failed = max(0.0, now.sum("ds2d_turns_total", outcome="failed") - before.sum("ds2d_turns_total", outcome="failed"))
        yield f"{BOLD}{tokens:.0f}{PLAIN} tokens/s   {turns:.1f} turns/s   {failed:.0f} failed just now"


def _upstreams(now: Look) -> Iterator[str]:
    yield f"{DIM}{'upstream':<20} {'state':<10} {'running':>7} {'models':>6}  why{PLAIN}"
    for name, one in now.ready.get("upstreams", {}).items():
        state = str(one.get("state", ""))
        shown = f"{COLOURS.get(state, RED)}{state:<10}{PLAIN}"
        yield f"{name:<20} {shown} {one.get('inflight', 0):>7} {len(one.get('models', [])):>6}  {harmless(one.get('why', ''))}"


def _accounts(now: Look) -> Iterator[str]:
    yield f"{DIM}{'account':<32} {'upstream':<20} {'state':<10} running{PLAIN}"
    states = {
        (one.labels["account"], one.labels["upstream"]): one.labels["state"]
        for one in now.samples or ()
        if one.name == "ds2d_account_state" and one.value
    }
    for (account, upstream), state in states.items():
        names = {"account": account, "upstream": upstream}
        used, limit = now.sum("ds2d_account_inflight", **names), now.sum("ds2d_account_inflight_limit", **names)
        bar = "#" * round(BAR * min(1.0, used / limit)) if limit else ""
        shown = f"{COLOURS.get(state, RED)}{state:<10}{PLAIN}"
        yield f"{harmless(account):<32.32} {upstream:<20.20} {shown} [{bar:<{BAR}}] {used:.0f}/{limit:.0f}"


def _turns(running: tuple[dict[str, Any], ...]) -> Iterator[str]:
    yield f"{DIM}{'request':<28} {'key':<16} {'dialect':<18} {'model':<28} {'account':<20} {'age':>7}{PLAIN}"
    for turn in sorted(running, key=lambda one: -one["age_ms"]):
        state = "streaming" if turn["answering"] else ("asked" if turn["account"] else "waiting")
        names = (f"{harmless(turn[name] or '-'):<{size}.{size}}" for name, size in _COLUMNS)
        yield f"{' '.join(names)} {_span(turn['age_ms'] / 1000):>7}  {state}"


_COLUMNS = (("request_id", 28), ("key", 16), ("dialect", 18), ("model", 28), ("account", 20))


def _object(raw: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(raw)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _plain(raw: str) -> str:
    return re.sub(r"\\(.)", lambda found: "\n" if found.group(1) == "n" else found.group(1), raw)


def _span(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


_ESCAPE = re.compile(r"\x1b\[\d*m")


def _bare(line: str) -> str:
    return _ESCAPE.sub("", line)


def _cut(line: str, width: int) -> str:
    """The line within the width of the terminal, in which colours have none."""
    out, left = "", width
    for piece in re.split(r"(\x1b\[\d*m)", line):
        if piece.startswith("\x1b"):
            out += piece
        else:
            out += piece[:left]
            left = max(0, left - len(piece))
    return out
