"""The pages of the manual that say what the code says: clients, config, commands, errors, metrics.

Rule: `made()` is pure, so that a test can compare it with what is in docs/. A page is wholly made, or not at all.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from scripts.make_docs import clients, commands, config, errors, metrics

DOCS = Path(__file__).parents[2] / "docs"


@cache
def made() -> dict[str, str]:
    """File name in docs/ to text."""
    return {
        "clients.md": clients.page(),
        "commands.md": commands.page(),
        "config.md": config.page(),
        "errors.md": errors.page(),
        "metrics.md": metrics.page(),
    }
