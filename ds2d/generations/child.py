"""Starting the next generation: the version that is on disk now, with this one's arguments, environment and listener.

Rule: until the new process serves, whatever it writes to standard error is kept, because that is what is wrong if it ends.
Surprise: it is no child for long. It forks once (predecessor.py), so that systemd, as everybody's last parent, hears of its end.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence

from ds2d.net.link import Link, attach

VARIABLE = "DS2D_HANDOVER"
"""Descriptors for the new process: the link's, and the real standard error."""

HEADER = 16
"""Bytes beside which the listening sockets travel."""

MAX_SOCKETS = 64
MAX_WORDS = 4000
"""Characters of what a failed process said that are told."""

NOT_HANDED_ON = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID")
"""Variables that name this process."""


class Child:
    """The new process, as long as it does not serve."""

    def __init__(self, link: Link, process: subprocess.Popen[bytes]) -> None:
        self.link = link
        self._process = process
        self._words = _Words()
        self._reaper = asyncio.get_running_loop().run_in_executor(None, process.wait)

    @classmethod
    async def start(cls, listeners: Sequence[socket.socket]) -> Child:
        """Start it and pass the sockets. Raises OSError."""
        ours, theirs = socket.socketpair()
        reading, writing = os.pipe()
        errors = os.dup(2)
        try:
            socket.send_fds(ours, [str(len(listeners)).encode().ljust(HEADER)], [one.fileno() for one in listeners])
            process = subprocess.Popen(  # noqa: ASYNC220, S603 - our own command line, and a fork takes milliseconds
                command(sys.orig_argv, sys.argv, sys.executable),
                env=environment(os.environ) | {VARIABLE: f"{theirs.fileno()},{errors}"},
                stdin=subprocess.DEVNULL,
                stderr=writing,
                pass_fds=(theirs.fileno(), errors),
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            os.close(reading)
            raise
        finally:
            theirs.close()
            os.close(errors)
            os.close(writing)
        ours.setblocking(False)
        child = cls(Link(), process)
        await asyncio.get_running_loop().connect_read_pipe(lambda: child._words, os.fdopen(reading, "rb"))
        await attach(child.link, ours)
        return child

    async def words(self) -> str:
        """What it said, for people; once it has ended."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1):
                await self._words.ended.wait()
        return self._words.text()

    def kill(self) -> None:
        """End it, whatever it does."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self.link.close()


class _Words(asyncio.Protocol):
    """Standard error of the new process: passed on, and its end kept."""

    def __init__(self) -> None:
        self._kept = b""
        self.ended = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        self._kept = (self._kept + data)[-MAX_WORDS:]
        with contextlib.suppress(OSError):
            os.write(2, data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set()

    def text(self) -> str:
        return self._kept.decode(errors="replace").strip()


def command(whole: Sequence[str], argv: Sequence[str], python: str) -> list[str]:
    """The command line of this process, to be run again. A script with a `#!` line says itself which Python is its own."""
    arguments = list(whole[1:])
    is_script = bool(arguments) and arguments == list(argv) and os.access(arguments[0], os.X_OK)
    return arguments if is_script else [python, *arguments]


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What the new process may know of this one's."""
    return {name: value for name, value in environ.items() if name not in NOT_HANDED_ON}
