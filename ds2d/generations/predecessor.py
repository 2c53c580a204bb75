"""The older process, as the one that takes over from it sees it.

Rule: nothing is taken from it before this process has checked itself, and nothing changes for anybody if it ends before that.
Surprise: `find` forks, so it is called before there are threads or a loop.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Mapping, MutableMapping
from pathlib import Path
from typing import Any

from ds2d.generations import messages as m
from ds2d.generations.child import HEADER, MAX_SOCKETS, VARIABLE
from ds2d.generations.shared import Shared
from ds2d.net.link import Link, attach
from ds2d.state.responses import Segment


class PredecessorGoneError(Exception):
    """The older process ended, or gave up, before this one had taken over."""


class Predecessor:
    """Its end of the link, and the sockets that it handed on."""

    def __init__(self, connection: socket.socket, errors: int) -> None:
        header, descriptors, _, _ = socket.recv_fds(connection, HEADER, MAX_SOCKETS)
        self.sockets = [_ours(number) for number in descriptors]
        self.link = Link(self._received, self._lost)
        self._connection = connection
        self._errors = errors
        self._segments: dict[int, Segment] = {}
        self._shared: Shared | None = None
        self._switched: asyncio.Future[m.Switch] | None = None
        self._later: list[bytes] = []
        if len(self.sockets) != int(header or b"0"):
            raise PredecessorGoneError("not all sockets came through")

    async def take_over(self, shared: Shared, version: str, folder: Path) -> m.Switch:
        """Say that this process can serve, take in what comes, and return how things stood when the older one let go.

        Raises PredecessorGoneError."""
        self._shared = shared
        self._switched = asyncio.get_running_loop().create_future()
        self._connection.setblocking(False)
        await attach(self.link, self._connection)
        self.link.send(m.encode(m.Ready(pid=os.getpid(), version=version, folder=str(folder), protocol=m.PROTOCOL)))
        return await self._switched

    def listen(self, received: Callable[[bytes], None], lost: Callable[[], None]) -> None:
        """Have somebody else hear what it says from now on, and what it has said since it let go."""
        self.link.received, self.link.lost = received, lost
        later, self._later = self._later, []
        for data in later:
            received(data)
        if not self.link.is_open:
            lost()

    def serving(self) -> None:
        """This process takes connections: from now on it speaks for itself."""
        self.link.send(m.encode(m.Serving()))
        os.dup2(self._errors, 2)
        os.close(self._errors)

    def _received(self, data: bytes) -> None:
        assert self._shared is not None
        assert self._switched is not None
        if self._switched.done():
            self._later.append(data)
            return
        responses = self._shared.responses
        match m.decode(data):
            case m.Kept() as kept:
                responses.restore(responses.unpack(kept.piece, self._segments), kept.piece.row.age)
            case m.Forget() as gone:
                responses.delete(gone.caller, gone.name)
            case m.Remember() as known:
                self._shared.reasoning.adopt(known.thought)
            case m.Switch() as switch:
                self._segments.clear()
                self._switched.set_result(switch)
            case _:
                pass

    def _lost(self) -> None:
        if self._switched is not None and not self._switched.done():
            self._switched.set_exception(PredecessorGoneError("the running daemon gave up the upgrade"))


def find(environ: MutableMapping[str, str]) -> Predecessor | None:
    """The process that started this one to take over from it, if any did. Returns in a process that nobody is the parent of."""
    value = environ.pop(VARIABLE, None)
    if value is None:
        return None
    link, errors = map(int, value.split(","))
    if os.fork():
        os._exit(0)
    os.set_inheritable(errors, False)
    return Predecessor(_ours(link), errors)


def install(switch: m.Switch, shared: Shared) -> None:
    """Take over how things stood."""
    shared.queue.load(switch.accounts)
    shared.quotas.restore(switch.meters)
    for upstream, model, inside in switch.inside:
        shared.inside[upstream, model] = inside


def _ours(number: int) -> socket.socket:
    one = socket.socket(fileno=number)
    one.set_inheritable(False)
    one.setblocking(False)
    return one


def is_successor(environ: Mapping[str, Any]) -> bool:
    """Whether this process was started to take over."""
    return VARIABLE in environ
