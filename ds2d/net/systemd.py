"""What systemd passes to a service, and what a service tells systemd: sockets, readiness, watchdog.

Rule: without the variables of systemd everything here does nothing, so the daemon runs the same by hand.
Source: sd_notify(3), sd_listen_fds(3). An abstract socket's name begins with `@`.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

FIRST_FD = 3


def notify(message: str, environ: Mapping[str, str] = os.environ) -> bool:
    """Tell the service manager; True if there is one. A manager that has gone is no reason to fail."""
    address = environ.get("NOTIFY_SOCKET")
    if not address:
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.sendto(message.encode(), address)
    except OSError:
        return False
    return True


def watchdog_seconds(environ: Mapping[str, str] = os.environ) -> float | None:
    """How often the watchdog wants a sign of life (half its time), or None."""
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    try:
        return int(environ["WATCHDOG_USEC"]) / 2_000_000
    except (KeyError, ValueError):
        return None


def inherited_sockets(environ: Mapping[str, str] = os.environ) -> list[socket.socket]:
    """The listening sockets that were passed in, if they were meant for this process."""
    if environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    count = int(environ.get("LISTEN_FDS", "0"))
    found = []
    for number in range(FIRST_FD, FIRST_FD + count):
        inherited = socket.socket(fileno=number)
        inherited.set_inheritable(False)
        inherited.setblocking(False)
        found.append(inherited)
    return found
