"""The small scripts under node/ and python/: one case each; a script asserts by itself and says `ok: WHAT` for each thing.

Rule: what a script wants of the model stands in its prompt (acting.py), so a script needs nothing but a URL and a key.
Surprise: Node looks for packages beside the script's real place, so the scripts are copied beside node_modules.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.clients.running import Case, Outcome

HERE = Path(__file__).parent


def said_ok(outcome: Outcome) -> str:
    if outcome.code != 0:
        return f"exit code {outcome.code}"
    return "" if "ok: " in outcome.out else "it checked nothing"


def cases(node: str, cache: Path) -> list[Case]:
    """All of them, in the order of their names."""
    made = []
    for path in sorted((HERE / "node").glob("*.mjs")):
        copied = shutil.copy(path, cache / "node")
        if path.stem != "common":
            made.append(_script(f"node/{path.stem}", [node, str(copied)]))
    python = str(cache / "venv" / "bin" / "python")
    with_python = sorted((HERE / "python").glob("with_*.py"))
    return made + [_script(f"python/{path.stem.removeprefix('with_')}", [python, str(path)]) for path in with_python]


def _script(name: str, command: list[str]) -> Case:
    return Case(name, "its script", lambda _stage: command, said_ok)
