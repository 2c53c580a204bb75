"""Secrets that must not come out: every one that any config of any test holds, and the keys that tests ask with.

Rule: whoever reads output (of tests: conftest.py; of real processes: functional/processes.py; answers: functional/harness.py)
looks for them. Short ones could be words, and are left out.
"""

from __future__ import annotations

from typing import Any

from ds2d.core.settings import Secret

SHORTEST = 12

_planted: set[str] = set()


def plant(*secrets: str) -> None:
    """Look for these from now on."""
    _planted.update(secret for secret in secrets if len(secret) >= SHORTEST)


def found_in(text: str) -> list[str]:
    """The planted secrets in this text, shown by their first letters only."""
    return sorted(f"{secret[:4]}… ({len(secret)} characters)" for secret in _planted if secret in text)


def watch() -> None:
    """Have every secret planted that a config is read with."""
    made = Secret.__init__

    def planting(self: Secret, value: str | None, *more: Any, **named: Any) -> None:
        if value:
            plant(value)
        made(self, value, *more, **named)

    Secret.__init__ = planting  # type: ignore[method-assign]
