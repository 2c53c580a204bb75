"""docs/reliability.md: every promise is held by tests, all of them exist, and the figures of mutation are the kept ones."""

from __future__ import annotations

import ast
import json
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reliability.md").read_text()
ROWS = [line for line in PAGE.splitlines() if line.startswith("| ") and "::" in line]
NAMED = re.findall(r"`(test_\w+\.py)::(test_\w+)`", PAGE)


@cache
def functions_in(name: str) -> frozenset[str]:
    """The test functions of the files of that name."""
    nodes = [node for path in (ROOT / "tests").rglob(name) for node in ast.parse(path.read_text()).body]
    return frozenset(node.name for node in nodes if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))


def test_every_promise_is_there_once_and_held_by_a_test() -> None:
    numbers = [int(found[1]) for row in ROWS if (found := re.match(r"\| \*\*(\d+)\. ", row))]
    assert numbers == list(range(1, 13))
    table = PAGE.partition("## Where it is weaker")[0]
    rows = [
        line for line in table.splitlines() if line.startswith("| ") and not line.startswith(("| ---", "| promise", "| bound"))
    ]
    assert [row for row in rows if "::" not in row] == []


@pytest.mark.parametrize(("file", "test"), sorted(set(NAMED)))
def test_every_test_that_is_named_exists(file: str, test: str) -> None:
    assert test in functions_in(file)


def test_every_script_that_is_named_exists() -> None:
    for name in set(re.findall(r"`(scripts/[\w-]+)", PAGE)):
        assert (ROOT / name).stat().st_mode & 0o111, name


def test_the_mutation_figures_are_those_that_were_kept() -> None:
    told = re.findall(r"^\| `(ds2d[\w.]+)` \| (\d+) of (\d+) \| ([\d.]+) % \|", PAGE, re.MULTILINE)
    kept = {path.stem: json.loads(path.read_text()) for path in (ROOT / "tests" / "mutation").glob("*.json")}
    assert {name for name, *_ in told} == set(kept)
    for name, tried, of, score in told:
        assert (int(tried), int(of), float(score)) == (kept[name]["tried"], kept[name]["mutants"], kept[name]["score"]), name
