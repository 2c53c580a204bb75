"""How many connections the process may have: descriptors are a limit of the system's, and running out of them must not happen.

Rule: the soft limit is raised to the hard one at the start; clients' connections are capped so that each can have one to an
upstream, with some left for files, looks and listeners (reliability.md, "bounds on what comes in").
Surprise: running out all the same is survived (the event loop closes what it cannot take, without a word), but a ledger that
cannot open its file then is not what anybody wants to find out.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import resource
from typing import Any

logger = logging.getLogger("ds2d.net")

RESERVED = 128
"""Descriptors kept for files, listeners, looks at upstreams and the admin API's own calls."""

A_CLIENT = 2
"""Descriptors that a client may need: its connection, and one to an upstream."""


SILENCE = 60.0
"""Seconds between two lines about the same shortage."""


def raise_limit() -> None:
    """Let this process have as many descriptors as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Shortage:
    """The event loop's word for what went wrong in it: running out of descriptors is said now and then, in one line."""

    def __init__(self) -> None:
        self._silent_until = 0.0

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """The loop's exception handler."""
        error = context.get("exception")
        if not (isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE)):
            loop.default_exception_handler(context)
        elif loop.time() >= self._silent_until:
            self._silent_until = loop.time() + SILENCE
            logger.error("out of descriptors: no connection can be taken now")


def connections_at_most(wanted: int) -> int:
    """Of so many clients' connections, how many the descriptors are enough for; one at least."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    return max(1, min(wanted, (soft - RESERVED) // A_CLIENT))
