"""One client process in front of its own daemon and its own acting upstream, inside a time limit.

Rule: a client sees an empty HOME, an empty working folder and nothing of this machine's environment but the PATH; all its
traffic goes to 127.0.0.1. Whatever happens, its whole process group is gone afterwards.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.clients.acting import ActingUpstream
from tests.functional.harness import KEY, config_for, running


@dataclass
class Stage:
    """Where a client runs, and what is behind the daemon that it asks."""

    url: str
    home: Path
    work: Path
    upstream: ActingUpstream
    node: str
    modules: Path
    """The folder of node_modules."""


@dataclass
class Outcome:
    """What a client did: exit code (None: it was stopped at its limit), its words, seconds."""

    code: int | None
    out: str
    err: str
    seconds: float
    stage: Stage


@dataclass(frozen=True)
class Case:
    """One run of one client. `check` names what is wrong with an outcome, or gives ""."""

    client: str
    does: str
    command: Callable[[Stage], list[str]]
    check: Callable[[Outcome], str]
    environment: Callable[[Stage], dict[str, str]] = lambda _stage: {}
    prepare: Callable[[Stage], None] = lambda _stage: None
    limit: int = 60

    @property
    def name(self) -> str:
        return f"{self.client}: {self.does}"


@dataclass
class Result:
    """A case that has run. `fault` is "" for a good one."""

    case: Case
    fault: str
    seconds: float
    words: str = field(repr=False, default="")
    """What the client said, for the report of a failure."""


async def run_case(case: Case, cache: Path, node: str) -> Result:
    """Run one case from nothing."""
    folder = cache / "runs" / "".join(c if c.isalnum() else "-" for c in case.name)
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("home", "work", "daemon"):
        (folder / name).mkdir(parents=True)
    upstream = ActingUpstream()
    await upstream.start()
    try:
        async with running(folder / "daemon", config_for(upstream.base_url)) as ds2d:
            stage = Stage(ds2d.url, folder / "home", folder / "work", upstream, node, cache / "node" / "node_modules")
            case.prepare(stage)
            outcome = await _run(case, stage)
    finally:
        await upstream.stop()
    fault = f"stopped after {case.limit} s" if outcome.code is None else case.check(outcome)
    said = f"exit {outcome.code}\n{outcome.out[-3000:]}\n{outcome.err[-3000:]}"
    return Result(case, fault, outcome.seconds, said if fault else "")


async def _run(case: Case, stage: Stage) -> Outcome:
    plain = {
        "HOME": str(stage.home),
        "PATH": f"{Path(stage.node).parent}:{os.environ['PATH']}",
        "LANG": "C.UTF-8",
        "NO_COLOR": "1",
    }
    own = {"DS2D_URL": stage.url, "DS2D_KEY": KEY, "NO_PROXY": "127.0.0.1", **case.environment(stage)}
    began = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        *case.command(stage),
        env=plain | own,
        cwd=stage.work,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    words = asyncio.ensure_future(process.communicate())
    done, _ = await asyncio.wait([words], timeout=case.limit)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    out, err = await words
    code = process.returncode if done else None
    return Outcome(code, out.decode(errors="replace"), err.decode(errors="replace"), time.monotonic() - began, stage)
