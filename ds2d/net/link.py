"""Whole messages between two processes over a UNIX socket: a length of four bytes, then that many bytes.

Rule: messages are handed on in the order in which they were sent, and in the very step in which their bytes are read; a message
above the limit ends the connection.
Surprise: a socket's address holds 107 bytes and a state folder's path may be longer, so sockets are named through an open
descriptor of their folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

MAX_MESSAGE = 512 * 1024 * 1024
"""Bytes of one message; what is larger comes from no process of ours."""

MAX_BEHIND = 256 * 1024 * 1024
"""Bytes that wait for the other side; one that is further behind hangs."""

_LENGTH = 4


class Link(asyncio.Protocol):
    """One end. `received` gets every message; `lost` is called once, when nothing more will come."""

    def __init__(self, received: Callable[[bytes], None] | None = None, lost: Callable[[], None] | None = None) -> None:
        self.received: Callable[[bytes], None] = received or (lambda _message: None)
        self.lost: Callable[[], None] = lost or (lambda: None)
        self.is_open = False
        self._transport: asyncio.Transport | None = None
        self._held = bytearray()
        self._room = asyncio.Event()
        self._room.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are none by name
        self.is_open = True

    def data_received(self, data: bytes) -> None:
        self._held += data
        while len(self._held) >= _LENGTH:
            length = int.from_bytes(self._held[:_LENGTH], "big")
            if length > MAX_MESSAGE:
                self.close()
                return
            if len(self._held) < _LENGTH + length:
                return
            message = bytes(self._held[_LENGTH : _LENGTH + length])
            del self._held[: _LENGTH + length]
            self.received(message)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        self._room.set()
        self.lost()

    def pause_writing(self) -> None:
        self._room.clear()

    def resume_writing(self) -> None:
        self._room.set()

    def send(self, message: bytes) -> None:
        """Send a message; on a connection that has ended it is dropped, as it would be in the kernel. One whose other side takes
        nothing ends."""
        if self._transport is not None and self.is_open:
            if self._transport.get_write_buffer_size() > MAX_BEHIND:
                self._transport.abort()
                return
            self._transport.write(len(message).to_bytes(_LENGTH, "big") + message)

    async def drained(self) -> None:
        """Return when the other side has taken most of what was sent, or has gone."""
        await self._room.wait()

    def close(self) -> None:
        """Let what was sent go out, then end."""
        if self._transport is not None:
            self._transport.close()


def listening(path: Path) -> socket.socket:
    """A socket bound to this path, mode 0600; what was there before is gone. Raises OSError."""
    path.unlink(missing_ok=True)
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        with _short(path) as name:
            server.bind(name)
        os.chmod(path, 0o600)
        server.listen(16)
    except BaseException:
        server.close()
        raise
    return server


def connected(path: Path) -> socket.socket:
    """A connection to the socket at this path, made at once or not at all. Raises OSError."""
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.settimeout(1)  # the other side may hang with a full backlog
    try:
        with _short(path) as name:
            client.connect(name)
        client.setblocking(False)
    except BaseException:
        client.close()
        raise
    return client


async def attach(link: Link, connection: socket.socket) -> None:
    """Let a link run over a connected socket."""
    await asyncio.get_running_loop().create_unix_connection(lambda: link, sock=connection)


@contextlib.contextmanager
def _short(path: Path) -> Iterator[str]:
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
