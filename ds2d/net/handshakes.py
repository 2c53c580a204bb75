"""A listener for TLS that counts a connection from the moment it is taken.

Rule: whoever shakes hands has a place among `server.max_connections` and a clock, as those have that ask; a connection that
gets no place is closed before a byte of it is read.
Surprise: event loops make a server's protocol of a connection only when its TLS stands, so by their listeners silent
connections would count for nothing, as many as there are descriptors.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable, Sequence
from typing import Protocol

from ds2d.net.listening import Certificate

HANDSHAKE_SECONDS = 15.0
AT_ONCE = 64
"""Connections that are taken in one go."""

PAUSE = 1.0
"""Seconds without taking any, after the system had nothing to take them with."""

SHORT = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Doorkeeper(Protocol):
    """Counts connections, and makes the protocols of those that were admitted already."""

    def admit(self) -> bool: ...
    def leave(self) -> None: ...
    def admitted(self) -> asyncio.Protocol: ...


class TlsServer:
    """Takes connections from sockets that listen, until it is closed; their handshakes end with it."""

    def __init__(self, sockets: Sequence[socket.socket], doorkeeper: Doorkeeper, certificate: Certificate) -> None:
        self.sockets = tuple(sockets)
        self._doorkeeper = doorkeeper
        self._certificate = certificate
        self._loop = asyncio.get_running_loop()
        self._shaking: set[asyncio.Task[None]] = set()
        self._pauses: set[asyncio.TimerHandle] = set()
        for listener in self.sockets:
            self._watch(listener)

    def close(self) -> None:
        """Take no more. Connections whose TLS stands go on."""
        for pause in self._pauses:
            pause.cancel()
        for listener in self.sockets:
            self._loop.remove_reader(listener.fileno())
            listener.close()
        for task in self._shaking:
            task.cancel()

    async def wait_closed(self) -> None:
        """The last handshake has ended."""
        await asyncio.gather(*self._shaking, return_exceptions=True)

    def _watch(self, listener: socket.socket) -> None:
        self._loop.add_reader(listener.fileno(), self._take, listener)

    def _take(self, listener: socket.socket) -> None:
        for _ in range(AT_ONCE):
            try:
                taken, _ = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._give_up(listener, error)
                return
            if not self._doorkeeper.admit():
                taken.close()
                continue
            taken.setblocking(False)
            task = self._loop.create_task(self._secure(taken))
            self._shaking.add(task)
            task.add_done_callback(self._shaking.discard)

    def _give_up(self, listener: socket.socket, error: OSError) -> None:
        """Where the system is short of something, wait a moment; the loop's exception handler says so."""
        self._loop.call_exception_handler({"message": "a connection could not be taken", "exception": error})
        if error.errno in SHORT:
            self._loop.remove_reader(listener.fileno())
            later: Callable[[socket.socket], None] = self._watch
            self._pauses.add(self._loop.call_later(PAUSE, later, listener))

    async def _secure(self, taken: socket.socket) -> None:
        connection, stands = self._doorkeeper.admitted(), False
        try:
            await self._loop.connect_accepted_socket(
                lambda: connection, taken, ssl=self._certificate.context, ssl_handshake_timeout=HANDSHAKE_SECONDS
            )
            stands = True
        except OSError:  # no TLS, none that we speak, too slow, or gone
            pass
        finally:
            if not stands:
                taken.close()
                self._doorkeeper.leave()
