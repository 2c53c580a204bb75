"""Mutation tests: every small change of a module must make one of its tests fail.

Rule: a mutant is tried in a process of its own, forked from one that has the foreign packages loaded already, so that it costs
what its tests cost. What was measured is kept in tests/mutation/MODULE.json with the module's hash; survivors stand there with
the reason why they may live, or without one, which counts against the score. A changed module is measured anew.
Surprise: a mutant that hangs is caught by a clock, sooner where it does nothing meanwhile, and counts as noticed.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib
import importlib.abc
import importlib.machinery
import importlib.metadata
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from scripts.mutants import Mutant, mutants

ROOT = Path(__file__).parents[1]
KEPT = ROOT / "tests" / "mutation"

ACCOUNTS = tuple(
    f"tests/state/test_{name}.py"
    for name in ("accounts", "accounts_edges", "servers", "breakers", "fairness", "reports", "bounds", "account_storms")
)
"""The quick ones first: most mutants do not live to see the last, which takes longer than all others."""

LEDGER = tuple(f"tests/state/test_ledger{name}.py" for name in ("_edges", "", "_notes"))

TARGETS: dict[str, tuple[str, ...]] = {
    "ds2d.core.sse": ("tests/core/test_sse.py",),
    "ds2d.state.callers": ("tests/state/test_callers.py",),
    "ds2d.web.auth": ("tests/web/test_auth.py",),
    "ds2d.web.admin_key": ("tests/web/test_admin_key.py",),
    "ds2d.state.accounts": ACCOUNTS,
    "ds2d.state.changes": ACCOUNTS,
    "ds2d.state.roster": ACCOUNTS,
    "ds2d.state.ledger": LEDGER,
    "ds2d.state.ledger_thread": LEDGER,
    "ds2d.state.ledger_notes": ("tests/state/test_ledger_notes.py",),
    "ds2d.state.ledger_file": (
        "tests/state/test_ledger_file.py", "tests/state/test_ledger_versions.py", "tests/state/test_ledger_notes.py",
        "tests/state/test_ledger.py",
    ),
    "ds2d.state.ledger_sums": ("tests/state/test_ledger_file.py",),
    "ds2d.config.store": ("tests/config/test_store_tells.py", "tests/config/test_store.py", "tests/config/test_watch.py",
                          "-k", "not thousand"),
}  # fmt: skip
"""What is measured, and by which tests."""

GOAL = 90.0
FOREIGN = (
    "pytest", "_pytest.assertion.rewrite", "hypothesis", "hypothesis.strategies", "aiohttp", "aiohttp.web", "msgspec", "orjson",
    "uvloop", "sqlite3", "jsonschema", "watchfiles", "jwt", "tiktoken",
)  # fmt: skip
"""Loaded before the forks, with pytest's plugins."""

IDLE_SECONDS, IDLE_TICKS = 5.0, 3
"""Tests that used the processor for no more than so many ticks in so many seconds wait for something that never comes."""

WAITING = {"DS2D_TEST_PATIENCE": "4"}
"""What tells tests to wait less long for what may never come: on a machine that is busy with these alone it comes at once."""

QUIET = ("-q", "-x", "--no-header", "--tb=no", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning")


class Changed(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives one module another source."""

    def __init__(self, module: str, source: str) -> None:
        self._module = module
        self._source = source

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        """Ours, for that one module."""
        if fullname != self._module:
            return None
        return importlib.machinery.ModuleSpec(fullname, self, origin=str(path_of(fullname)))

    def exec_module(self, module: ModuleType) -> None:
        """Run the changed source in it."""
        module.__file__ = str(path_of(self._module))
        exec(compile(self._source, module.__file__, "exec"), module.__dict__)


def path_of(module: str) -> Path:
    """The file of a module of ours."""
    return ROOT / (module.replace(".", "/") + ".py")


def try_one(module: str, source: str, tests: Sequence[str], seconds: float) -> str:
    """Run the tests against this source in a child: noticed, survived or hung."""
    child = os.fork()
    if child == 0:
        code = 70
        with contextlib.suppress(BaseException):
            resource.setrlimit(resource.RLIMIT_CPU, (int(seconds) + 5, int(seconds) + 10))
            os.setpgid(0, 0)
            null = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(null, stream)
            os.environ.update(WAITING)
            sys.meta_path.insert(0, Changed(module, source))
            code = int(importlib.import_module("pytest").main([*QUIET, *tests]))
        os._exit(code)
    end = time.monotonic() + seconds
    used, idle_until = 0, time.monotonic() + IDLE_SECONDS
    while time.monotonic() < min(end, idle_until):
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return "survived" if os.waitstatus_to_exitcode(status) == 0 else "noticed"
        if (now := ticks_of(child)) > used + IDLE_TICKS:
            used, idle_until = now, time.monotonic() + IDLE_SECONDS
        time.sleep(0.01)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "hung"


def ticks_of(process: int) -> int:
    """How long it has had the processor."""
    fields = Path(f"/proc/{process}/stat").read_bytes().rpartition(b")")[2].split()
    return int(fields[11]) + int(fields[12])


class Score:
    """The results of one module, as they are kept."""

    def __init__(self, module: str) -> None:
        self.module = module
        self.path = KEPT / f"{module}.json"
        self.source = path_of(module).read_text()
        kept = json.loads(self.path.read_text()) if self.path.exists() else {}
        survivors: dict[str, str] = kept.get("survivors", {})
        self.reasons = {name: why for name, why in survivors.items() if why}
        self.digest = hashlib.sha256(self.source.encode()).hexdigest()[:16]
        self.all = list(mutants(self.source))
        tried = kept.get("tried", 0) if kept.get("source") == self.digest else 0
        self.results = {one.name: "survived" if one.name in survivors else "noticed" for one in self.all[:tried]}

    @property
    def left(self) -> list[Mutant]:
        """Those that were not tried yet."""
        return [mutant for mutant in self.all if mutant.name not in self.results]

    @property
    def survivors(self) -> list[Mutant]:
        """Those that nobody noticed and no reason excuses."""
        alive = {name for name, result in self.results.items() if result == "survived"} - set(self.reasons)
        return [mutant for mutant in self.all if mutant.name in alive]

    def save(self) -> None:
        """Keep it; survivors keep their reasons, also those that were not tried again yet."""
        survivors = {name: self.reasons.get(name, "") for name, result in self.results.items() if result == "survived"}
        survivors |= {mutant.name: self.reasons[mutant.name] for mutant in self.left if mutant.name in self.reasons}
        KEPT.mkdir(exist_ok=True)
        whole = {"source": self.digest, "mutants": len(self.all), "tried": len(self.results), "score": round(self.score, 1)}
        text = json.dumps({**whole, "survivors": survivors}, indent=1, ensure_ascii=False)
        self.path.write_text(text + "\n")

    @property
    def score(self) -> float:
        """Per cent of the tried that were noticed, or may live for a reason."""
        if not self.results:
            return 0.0
        fine = sum(result != "survived" or bool(self.reasons.get(name)) for name, result in self.results.items())
        return 100 * fine / len(self.results)


def measure(score: Score, chosen: Sequence[Mutant], seconds: float) -> None:
    """Try these, in their order, until all are tried or the time is up."""
    tests = TARGETS[score.module]
    end = time.monotonic() + seconds
    began = time.monotonic()
    if try_one(score.module, score.source, tests, 600) != "survived":
        raise SystemExit(f"{score.module}: its tests fail without any change")
    patience = 20 + 5 * (time.monotonic() - began)
    for mutant in chosen:
        if time.monotonic() > end:
            break
        score.results[mutant.name] = try_one(score.module, mutant.source, tests, patience)
        if score.results[mutant.name] == "survived":
            print(f"  survived: {path_of(score.module).relative_to(ROOT)}:{mutant.line} {mutant.name}", flush=True)
        score.save()


def report(scores: Sequence[Score]) -> int:
    """A line a module; the exit code says whether all reach the goal."""
    short = 0
    for score in scores:
        tried, of = len(score.results), len(score.all)
        reasons = sum(bool(score.reasons.get(name)) for name, result in score.results.items() if result == "survived")
        print(f"{score.module:24} {tried:4} of {of:4} tried, {score.score:5.1f} % noticed ({reasons} may live, with a reason)")
        short += tried < of or score.score < GOAL
    return int(short > 0)


def main() -> int:
    """Measure, or only tell."""
    parser = argparse.ArgumentParser(prog="scripts/mutate", description=__doc__.splitlines()[0])
    parser.add_argument("modules", nargs="*", help=f"of {', '.join(TARGETS)}; all of them without any")
    parser.add_argument("--seconds", type=float, default=1e9, help="stop after so many; what was tried is kept")
    parser.add_argument("--again", action="store_true", help="try those again that survived")
    parser.add_argument("--report", action="store_true", help="only tell what is kept")
    options = parser.parse_args()
    names = options.modules or list(TARGETS)
    if unknown := set(names) - set(TARGETS):
        parser.error(f"not measured: {', '.join(sorted(unknown))}")
    scores = [Score(name) for name in names]
    if options.report:
        for score in scores:
            if score.results:
                score.save()  # reasons may have been written since
        return report(scores)
    os.chdir(ROOT)
    for name in (*FOREIGN, *{plugin.module for plugin in importlib.metadata.entry_points(group="pytest11")}):
        importlib.import_module(name)
    end = time.monotonic() + options.seconds
    for score in scores:
        chosen = (score.survivors if options.again else []) + score.left
        if chosen and time.monotonic() < end:
            measure(score, chosen, end - time.monotonic())
    return report(scores)


if __name__ == "__main__":
    sys.exit(main())
