"""What ds2d costs, beside nginx and beside no gateway at all: CPU of the processes per unit, latencies, memory.

    scripts/bench                              every cell, three rounds, about 8 minutes
    scripts/bench --cells S1,S3 --rounds 1     some of them
    scripts/bench --profile "S2 c16"           a flame graph of one cell (py-spy), an SVG under bench/results
    scripts/bench --peers FOLDER               LiteLLM, Portkey, claude-code-router, sglang-router too, where installed (peers.py)

Everything runs interleaved in one go on this machine, because only ratios within a run travel. Results are kept under
bench/results and compared with the run before.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench import peers, report
from bench.cells import CELLS, Cell
from bench.programs import OTHER_CPUS, Program, cpu_seconds, ds2d, get, memory_mb, minimal, nginx, upstream

RESULTS = Path(__file__).with_name("results")
SLOW_STREAMS = 1000


def told_by_upstream(up: Program) -> dict[str, Any]:
    """What the upstream counted."""
    found: dict[str, Any] = json.loads(get(f"http://127.0.0.1:{up.port}/stats")[1])
    return found


def wait_quiet(up: Program) -> None:
    """Until no stream runs any more: cells must not leak into each other."""
    end = time.monotonic() + 15
    while time.monotonic() < end and told_by_upstream(up)["running"]:
        time.sleep(0.05)


def load(program: Program, cell: Cell, **more: Any) -> subprocess.Popen[str]:
    """Start a load in a process of its own."""
    plan = {
        "port": program.port,
        "key": program.key,
        "kind": cell.kind,
        "model": program.model(cell.kind, cell.model),
        "stream": cell.is_streamed,
        "streams": cell.streams,
        "seconds": cell.seconds,
        "stagger": cell.stagger,
        "size": cell.size,
        "chunks": cell.chunks,
        **more,
    }
    process = subprocess.Popen([sys.executable, "-m", "bench.load", json.dumps(plan)], stdout=subprocess.PIPE, text=True)
    os.sched_setaffinity(process.pid, OTHER_CPUS)
    return process


def finished(process: subprocess.Popen[str]) -> dict[str, Any]:
    """What a load tells when it is over. Raises SystemExit if it failed."""
    out, _ = process.communicate(timeout=180)
    if process.returncode:
        raise SystemExit("a load failed")
    result: dict[str, Any] = json.loads(out)
    return result


def measure(program: Program, cell: Cell, up: Program) -> dict[str, Any]:
    """One cell on one program."""
    wait_quiet(up)
    before = cpu_seconds(program.pid)
    began = time.monotonic()
    result = finished(load(program, cell))
    cpu = cpu_seconds(program.pid) - before
    units = result["chunks"] if cell.is_streamed else result["requests"]
    if result["broken"]:
        print(f"{program.name}, {cell.name}: {result['broken']} broken answers, one of them: {result['sample']}", file=sys.stderr)
    result |= {"cell": cell.name, "program": program.name, "cpu_us": cpu / units * 1e6 if units else None}
    return result | {"units_per_second": units / (time.monotonic() - began)}


def slow_streams(program: Program, up: Program) -> dict[str, Any]:
    """S4: a thousand streams that say something once a second; memory a stream, and CPU."""
    cell = Cell("S4", "1,000 streams, a chunk a second", "chat", "bench-n16-d1000-k1", SLOW_STREAMS, "chunk", 1, 4)
    wait_quiet(up)
    empty = memory_mb(program.pid)
    process = load(program, cell)
    time.sleep(cell.stagger + 4)
    before, began = cpu_seconds(program.pid), time.monotonic()
    time.sleep(5)
    cpu, seconds = cpu_seconds(program.pid) - before, time.monotonic() - began
    full, running = memory_mb(program.pid), told_by_upstream(up)["running"]
    result = finished(process)
    each = (full - empty) * 1024 / max(1, running)
    return result | {
        "cell": "S4",
        "program": program.name,
        "running": running,
        "kb_stream": each,
        "cpu_us": cpu / max(1, running * seconds) * 1e6,
        "cpu_percent": cpu / seconds * 100,
    }


def leavers(program: Program, up: Program, name: str, model: str) -> dict[str, Any]:
    """S8: fifty clients leave at once; which share of the upstream's streams is closed within a second, and how soon."""
    wait_quiet(up)
    before = told_by_upstream(up)
    cell = Cell(name, "", "chat", model, 50, "chunk")
    result = finished(load(program, cell, seconds=60, leave_after=1.5))
    time.sleep(1)
    after = told_by_upstream(up)
    late = sorted(at - result["left_at"] for at in after["cuts"])[-50:]
    wait_quiet(up)
    open_then = after["begun"] - before["begun"] - (after["ended"] - before["ended"])
    share = (after["cut"] - before["cut"]) / max(1, open_then)
    median = statistics.median([max(0, one) for one in late]) / 1000 if late else None
    return {"cell": name, "program": program.name, "share": share, "median_ms": median}


def yardstick(folder: Path) -> dict[str, Any]:
    """S9: a start of a gateway that does nothing."""
    program = minimal(folder)
    try:
        seconds, memory = program.start_seconds, memory_mb(program.pid)
        return {"cell": "S9", "program": "minimal", "start_s": seconds, "memory_mb": memory}
    finally:
        program.stop()


def cold(folder: Path, up: Program, number: int) -> dict[str, Any]:
    """S9: a start, and what it costs to be there."""
    program = ds2d(folder, up.port, f"cold{number}")
    try:
        memory = memory_mb(program.pid)
        time.sleep(4)
        before, began = cpu_seconds(program.pid), time.monotonic()
        time.sleep(3)
        idle = (cpu_seconds(program.pid) - before) / (time.monotonic() - began) * 100
        later = memory_mb(program.pid)
        return {
            "cell": "S9",
            "program": "ds2d",
            "start_s": program.start_seconds,
            "memory_mb": memory,
            "later_mb": later,
            "idle_percent": idle,
        }
    finally:
        program.stop()


def programs(folder: Path, up: Program, options: argparse.Namespace, stack: contextlib.ExitStack) -> list[Program]:
    """All that are measured, started."""
    found = [Program("direct", up.port, up.process, 0), nginx(folder, up.port), ds2d(folder, up.port)]
    if wanted("G2", options.cells):
        found.append(ds2d(folder, up.port, "ds2d-large", accounts=1000, keys=10_000))
    if options.peers:
        started = [start(Path(options.peers).resolve(), folder, up.port) for start in peers.ALL]
        found += [program for program in started if program is not None]
    for program in found[1:]:
        stack.callback(program.stop)
    return found


def wanted(name: str, cells: str) -> bool:
    """Whether this cell was asked for."""
    asked = [one.strip() for one in cells.split(",") if one.strip()]
    return not asked or any(name == one or name.split()[0].rstrip("p") == one for one in asked)


def run(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Everything that was asked for."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        up = upstream(folder)
        stack.callback(up.stop)
        if wanted("S9", options.cells):
            for number in range(options.rounds):
                rows += [yardstick(folder), cold(folder, up, number)]
        found = programs(folder, up, options, stack)
        usual = [program for program in found if program.name != "ds2d-large"]
        for program in found:  # warm: pools filled, tokenizer loaded
            for kind in program.kinds:
                finished(load(program, Cell("", "", kind, "bench-n200", 4, "chunk", 0.5)))
        time.sleep(2)
        for number in range(options.rounds):
            print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
            for cell in CELLS:
                if wanted(cell.name, options.cells):
                    rows += [measure(program, cell, up) for program in usual if cell.kind in program.kinds]
            if wanted("G2", options.cells):
                few = Cell("G2", "", "chat", "bench", 16, "request")
                rows += [measure(program, few, up) for program in found if program.name.startswith("ds2d")]
            if wanted("S8", options.cells):
                for what, model in (("S8 flowing", "bench-n50-d100"), ("S8 silent", "bench-n5-f5000")):
                    rows += [leavers(program, up, what, model) for program in usual]
        if wanted("S4", options.cells):
            rows += [slow_streams(program, up) for program in usual if program.name != "direct"]
    return rows


def profile(cell: Cell) -> None:
    """A flame graph of one cell."""
    spy = shutil.which("py-spy") or str(Path(sys.executable).with_name("py-spy"))
    if not Path(spy).exists():
        raise SystemExit("py-spy is missing: .venv/bin/python -m pip install py-spy, or put it on the PATH")
    RESULTS.mkdir(exist_ok=True)
    picture = RESULTS / f"{cell.name.replace(' ', '-')}.svg"
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        up = upstream(Path(name))
        stack.callback(up.stop)
        program = ds2d(Path(name), up.port)
        stack.callback(program.stop)
        time.sleep(3)
        process = load(program, cell, seconds=12)
        time.sleep(1)
        command = [
            spy,
            "record",
            "--pid",
            str(program.pid),
            "--duration",
            "10",
            "--rate",
            "500",
            "--gil",
            "--output",
            str(picture),
        ]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        finished(process)
    print(picture)


def machine() -> dict[str, str]:
    """Where this was measured, and with what."""
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), "?"
    )
    proxy = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin:/sbin") or "nginx"
    told = subprocess.run([proxy, "-v"], capture_output=True, text=True, check=False).stderr.rsplit("/", 1)[-1].strip()
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    return {
        "machine": f"{model}, {os.cpu_count()} CPUs, Linux {platform.release()}",
        "python": platform.python_version(),
        "aiohttp": version("aiohttp"),
        "nginx": told,
        "commit": commit,
        "load": f"{os.getloadavg()[0]:.1f}",
        "when": time.strftime("%Y-%m-%d %H:%M", time.gmtime()),
    }


def main() -> None:
    """Measure, keep, compare, print."""
    arguments = argparse.ArgumentParser(
        prog="scripts/bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument(
        "--cells", default="", help="names or their beginnings, comma separated: S1,S3,'S2 c16',S4,S8,S9,G1,G2"
    )
    arguments.add_argument("--rounds", type=int, default=3, help="measurements of each cell; the median counts")
    arguments.add_argument("--peers", default="", help="folder of other gateways")
    arguments.add_argument("--profile", metavar="CELL", help="flame graph of this cell, and nothing else")
    arguments.add_argument("--report", metavar="FILE", help="print the tables of a run that was kept")
    options = arguments.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is stopped
    if options.profile:
        profile(next(cell for cell in CELLS if cell.name == options.profile))
        return
    if options.report:
        print(report.tables(json.loads(Path(options.report).read_text()), None))
        return
    about = machine()
    run_now = {**about, "rows": run(options)}
    RESULTS.mkdir(exist_ok=True)
    kept = sorted(RESULTS.glob("run-*.json"))
    before = json.loads(kept[-1].read_text()) if kept else None
    (RESULTS / f"run-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}.json").write_text(json.dumps(run_now))
    print(report.tables(run_now, before))


if __name__ == "__main__":
    main()
