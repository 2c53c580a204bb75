"""Who changed what: one line a change, for people who ask later.

Rule: only ever appended to, mode 0600; what comes in is masked already. A line that cannot be written is said in the log and
stops no change: the file may be on a full disk, and the operator must be able to act.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

logger = logging.getLogger("ds2d.audit")

NAME = "audit.log"


class Audit:
    """The file in the state folder. `now` gives the time as RFC 3339."""

    def __init__(self, folder: Path, now: Callable[[], str]) -> None:
        self._path = folder / NAME
        self._now = now

    def add(self, action: str, who: str, address: str, request_id: str, **what: Any) -> None:
        """Note one action."""
        line = orjson.dumps(
            {"time": self._now(), "action": action, "who": who, "from": address, "request_id": request_id, **what}, default=str
        )
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.write(descriptor, line + b"\n")
            finally:
                os.close(descriptor)
        except OSError as error:
            logger.warning("the audit line could not be written: %s", error.strerror)
