"""How well tool calls written as text are recognised. Run by scripts/toolcall-report.

Two rates: missed calls (a text with calls does not give exactly these calls, with equal arguments, and exactly its text) and
false alarms (a text without calls gives one, or does not come out as it went in). Each text is cut at random places. The
drift run drops or doubles one character at every place of every tag's shell and counts what still gives the same calls.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ds2d.core.events import Ending, Text
from tests.toolcalls.corpus import Outcome, Sample, cut, differs, events_of, innocents, outcome, positives, stages
from tests.toolcalls.drift import CALLS, TAGGED, Drift, drifted
from tests.toolcalls.written import WRITERS, draw_call, draw_innocent, draw_prose, write

SHAPES = 4
"""Layouts of each format in the drift run."""


class Progress:
    """A line on stderr that says how far it is."""

    def __init__(self, what: str, total: int) -> None:
        self._what, self._total, self._done, self._said = what, total, 0, 0.0
        self._shown = sys.stderr.isatty()

    def step(self) -> None:
        self._done += 1
        now = time.monotonic()
        if self._shown and (now - self._said > 0.1 or self._done == self._total):
            self._said = now
            end = "\n" if self._done == self._total else ""
            print(f"\r{self._what}: {self._done} of {self._total}", end=end, file=sys.stderr, flush=True)


def ran(text: str, draw: random.Random) -> Outcome:
    """What comes of a text that arrives cut at random places."""
    places = [draw.randrange(len(text)) for _ in range(draw.choice((0, 1, 5, 40)))]
    return outcome(events_of(cut(text, places), Text, Ending("stop"), stages()))


def corpus_rate(samples: Sequence[Sample], what: str, draw: random.Random) -> tuple[int, list[str]]:
    """How many samples, and those that did not come out as their file says."""
    progress, wrong = Progress(what, len(samples)), []
    for sample in samples:
        pieces = cut(sample.text, [draw.randrange(len(sample.text)) for _ in range(5)])
        for way in ([sample.text], pieces, list(sample.text)):
            found = differs(sample, outcome(events_of(way, sample.channel, sample.ending, stages())))
            if found:
                wrong.append(f"{sample.name}: {found}")
                break
        progress.step()
    return len(samples), wrong


def generated_calls(count: int, draw: random.Random) -> tuple[int, list[str]]:
    """Texts with calls, drawn: those whose calls or text did not come out."""
    progress, wrong = Progress("generated calls", count), []
    for _ in range(count):
        name, before = draw.choice(list(WRITERS)), draw_prose(draw)
        calls = [draw_call(draw) for _ in range(draw.randint(1, 3))]
        text = (f"{before}\n" if before else "") + write(name, calls, draw)
        found = ran(text, draw)
        if found.calls != calls or set(found.states) != {"whole"} or found.shown.strip() != before.strip():
            wrong.append(f"{name}: {text[:300]!r}")
        progress.step()
    return count, wrong


def generated_innocents(count: int, draw: random.Random) -> tuple[int, list[str]]:
    """Texts without calls, drawn: those that gave one or changed."""
    progress, wrong = Progress("generated innocents", count), []
    for _ in range(count):
        text = draw_innocent(draw)
        found = ran(text, draw)
        if found.calls or found.shown != text:
            wrong.append(repr(text[:300]))
        progress.step()
    return count, wrong


def drift_run() -> tuple[Counter[str], Counter[str], list[Drift]]:
    """Of each format: drifted texts, those that still mean the same calls; and the others."""
    drifts = {drift.text: drift for name in TAGGED for seed in range(SHAPES) for drift in drifted(name, seed)}
    progress = Progress("drifted forms", len(drifts))
    total, understood = Counter[str](), Counter[str]()
    lost = []
    for drift in drifts.values():
        found = outcome(events_of([drift.text], Text, Ending("stop"), stages()))
        total[drift.format] += 1
        if found.calls == CALLS and set(found.states) == {"whole"}:
            understood[drift.format] += 1
        else:
            lost.append(drift)
        progress.step()
    return total, understood, lost


def lost_forms(lost: Iterable[Drift]) -> list[str]:
    """What is not understood, by kind: the change, its character, and the shells (values left out) it happened in."""
    kinds: dict[tuple[str, str], set[str]] = {}
    for drift in lost:
        shell = re.sub(r'"[^"]*"', '""', drift.shell)
        kinds.setdefault((drift.change, drift.character), set()).add(shell)
    return [
        f"{change} {character!r} in {len(shells)} shells, such as {min(shells)}"
        for (change, character), shells in sorted(kinds.items())
    ]


def main() -> int:
    """The exit code: 1 if anything was missed or a false alarm."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=10_000, help="generated texts, half of them without calls")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of lines for people")
    parser.add_argument("--drifted", action="store_true", help="list the drifted forms that are not understood")
    options = parser.parse_args()
    draw = random.Random(options.seed)
    half = options.samples // 2
    rates: dict[str, tuple[int, list[str]]] = {
        "corpus, missed": corpus_rate(positives(), "corpus, calls", draw),
        "corpus, false alarms": corpus_rate(innocents(), "corpus, innocents", draw),
        "generated, missed": generated_calls(half, draw),
        "generated, false alarms": generated_innocents(options.samples - half, draw),
    }
    total, understood, lost = drift_run()
    if options.json:
        print(json.dumps(as_json(rates, total, understood, lost, options.seed), ensure_ascii=False, indent=2))
    else:
        show(rates, total, understood, lost, print, everything=options.drifted)
    return int(any(wrong for _, wrong in rates.values()))


def as_json(
    rates: dict[str, tuple[int, list[str]]], total: Counter[str], understood: Counter[str], lost: list[Drift], seed: int
) -> dict[str, Any]:
    """The report for programs."""
    return {
        "seed": seed,
        "rates": {name: {"samples": count, "wrong": len(wrong), "which": wrong[:20]} for name, (count, wrong) in rates.items()},
        "drifted": {name: {"samples": total[name], "understood": understood[name]} for name in total},
        "understood": sum(understood.values()) / sum(total.values()),
        "not_understood": lost_forms(lost),
    }


def show(
    rates: dict[str, tuple[int, list[str]]],
    total: Counter[str],
    understood: Counter[str],
    lost: list[Drift],
    say: Callable[[str], None],
    *,
    everything: bool,
) -> None:
    """The report for people."""
    for name, (count, wrong) in rates.items():
        say(f"{name:26s} {len(wrong):6d} of {count:6d}  {len(wrong) / count:8.4%}")
        for line in wrong[:20]:
            say(f"    {line}")
    whole = sum(total.values())
    say(f"{'drifted forms understood':26s} {whole - len(lost):6d} of {whole:6d}  {1 - len(lost) / whole:8.1%}")
    for name in total:
        say(f"    {name:22s} {understood[name]:6d} of {total[name]:6d}  {understood[name] / total[name]:8.1%}")
    if everything:
        for line in lost_forms(lost):
            say(f"    not understood: {line}")


if __name__ == "__main__":
    sys.exit(main())
