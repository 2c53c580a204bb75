"""What the ledger costs: how long the last frame of an answer waits for its row, beside the disk's own fsync, and CPU a turn.

    .venv/bin/python -m bench.ledger [--turns 500] [--seconds 10] [--folder DIR] [--json]

`--turns` a second begin at even distances, last 200 ms (so none has a checkpoint) and are closed. The disk is measured in that
folder: append 4 KB, fsync, so often. The loop is uvloop where there is one, and collector and threads are set as in the daemon.

CPU is user and system time, the loop's thread and the writer's apart. Two empty runs, one before and one after, do the same
without a ledger (tasks, timers, the load itself); their mean is taken off and printed. What is left is a turn's row being made
and filled, its three calls, batches, commits, checkpoints and fsync; not what the books do besides (quotas, counting tokens, the
JSON of decisions).

Beside it stands what no ledger can do without that has answers wait for the disk: a thread that wakes as often as one batch
follows another, appends as much as they note and forces it, and nothing else. Where waking and the disk are dear (on virtual
machines both leave it), that alone may be most of the figure.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from ds2d.app.toolbox import new_id
from ds2d.cli.serve import SWITCH, spare_collector
from ds2d.config.schema import Ledger as Settings
from ds2d.state.ledger import GATHER, Ledger
from ds2d.state.ledger_schema import Row

TURN_SECONDS = 0.2
FSYNCS = 200
NOTE_BYTES = 350
"""What a turn's end adds to the notes."""


class Cost(NamedTuple):
    """CPU seconds of a run: the loop's thread, and all others together."""

    loop: float
    others: float

    @classmethod
    def now(cls) -> Cost:
        """Since the process began; asked in the loop's thread."""
        loop = time.thread_time()
        return cls(loop, time.process_time() - loop)

    def since(self, begin: Cost) -> Cost:
        """What was spent after `begin`."""
        return Cost(self.loop - begin.loop, self.others - begin.others)


def percentile(values: list[float], share: float) -> float:
    """The value below which this share of them lies, in milliseconds."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1000


def fsyncs(folder: Path) -> list[float]:
    """Seconds of one append and fsync, so often."""
    took = []
    with (folder / "probe").open("wb", buffering=0) as file:
        for _ in range(FSYNCS):
            began = time.perf_counter()
            file.write(b"x" * 4096)
            os.fsync(file.fileno())
            took.append(time.perf_counter() - began)
    return took


def bare(folder: Path, rate: int, seconds: float) -> float:
    """CPU seconds of a thread that appends and forces as often as the ledger does, with so many turns a second, for so long."""
    data = b"x" * max(NOTE_BYTES, int(NOTE_BYTES * rate * GATHER))
    file = os.open(folder / "probe", os.O_RDWR)
    took = 0.0

    def work() -> None:
        nonlocal took
        for number in range(int(seconds / GATHER)):
            time.sleep(GATHER)
            os.pwrite(file, data, len(data) * number % (FSYNCS * 2048))
            os.fdatasync(file)
        took = time.thread_time()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    os.close(file)
    return took


async def turn(ledger: Ledger | None, waits: list[float]) -> None:
    """One turn: opened, asked, closed."""
    if ledger is None:
        await asyncio.sleep(TURN_SECONDS)
        return
    row = Row(new_id("req_"), "k" * 64, "bench", "openai_chat", "deepseek-chat", time.time(), True)
    row.used, row.reserved_tokens = "deepseek-chat", 4200
    ticket = ledger.open(row)
    row.upstream = row.account = "gpu"
    ledger.touch(ticket)
    await asyncio.sleep(TURN_SECONDS)
    row.state, row.cause, row.ended_at = "completed", "stop", time.time()
    row.prompt_tokens, row.completion_tokens, row.usage_source = 100, 200, "upstream"
    row.why = (
        '{"model":{"asked":"deepseek-chat","used":"deepseek-chat","why":"native"},"tries":[{"account":"gpu","end":"answered"}]}'
    )
    began = time.perf_counter()
    await ledger.close(ticket)
    waits.append(time.perf_counter() - began)


async def load(ledger: Ledger | None, rate: int, seconds: float) -> tuple[list[float], Cost]:
    """So many turns a second for so long: the waits, and what it cost."""
    waits: list[float] = []
    loop = asyncio.get_running_loop()
    began, start = Cost.now(), loop.time()
    async with asyncio.TaskGroup() as group:
        for number in range(int(rate * seconds)):
            if (delay := start + number / rate - loop.time()) > 0:
                await asyncio.sleep(delay)
            group.create_task(turn(ledger, waits))
    return waits, Cost.now().since(began)


async def measure(folder: Path, rate: int, seconds: float) -> dict[str, Any]:
    """All figures."""
    sys.setswitchinterval(SWITCH)
    spare_collector()
    _, before = await load(None, rate, seconds)
    ledger = Ledger(folder, Settings())
    await ledger.start()
    waits, cost = await load(ledger, rate, seconds)
    await ledger.close_file()
    _, after = await load(None, rate, seconds)
    disk = fsyncs(folder)
    empty = (before.loop + after.loop) / 2
    a_turn = 1e6 / len(waits)
    return {
        "turns": len(waits),
        "wait_p50_ms": percentile(waits, 0.5),
        "wait_p99_ms": percentile(waits, 0.99),
        "wait_max_ms": percentile(waits, 1),
        "fsync_p50_ms": percentile(disk, 0.5),
        "fsync_p99_ms": percentile(disk, 0.99),
        "cpu_us_a_turn": (cost.loop - empty + cost.others) * a_turn,
        "loop_us_a_turn": (cost.loop - empty) * a_turn,
        "writer_us_a_turn": cost.others * a_turn,
        "empty_us_a_turn": empty * a_turn,
        "bare_us_a_turn": bare(folder, rate, seconds) * a_turn,
    }


def runner() -> Callable[..., dict[str, Any]]:
    """The event loop of the daemon."""
    try:
        import uvloop  # noqa: PLC0415 - optional
    except ImportError:
        return asyncio.run
    return uvloop.run


def main() -> None:
    parser = argparse.ArgumentParser(description="Cost of the ledger.")
    parser.add_argument("--turns", type=int, default=500, help="a second")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--folder", type=Path, help="on the disk to measure (default: the system's temporary folder)")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        figures = runner()(measure(Path(folder), options.turns, options.seconds))
    if options.json:
        print(json.dumps(figures))
        return
    print(f"{figures['turns']} turns at {options.turns}/s")
    print("the last frame waits  p50 {wait_p50_ms:.2f} ms  p99 {wait_p99_ms:.2f} ms  max {wait_max_ms:.2f} ms".format(**figures))
    print("the disk's own fsync  p50 {fsync_p50_ms:.2f} ms  p99 {fsync_p99_ms:.2f} ms".format(**figures))
    print(
        "CPU a turn            {cpu_us_a_turn:.0f} us: loop {loop_us_a_turn:.0f}, writer {writer_us_a_turn:.0f}; "
        "an empty run takes {empty_us_a_turn:.0f} us, not counted".format(**figures)
    )
    print("  of which a thread that only wakes, appends and forces takes {bare_us_a_turn:.0f} us".format(**figures))


if __name__ == "__main__":
    main()
