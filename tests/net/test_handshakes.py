"""Taking connections for TLS: what the system lacks is waited out, and every place is given back."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest

from ds2d.net.handshakes import TlsServer
from ds2d.net.listening import Certificate
from tests.functional import certificates


class Door:
    """Lets everybody in; what it makes answers a line with the same line."""

    def __init__(self) -> None:
        self.inside = 0
        self.changed = asyncio.Event()

    def admit(self) -> bool:
        self.inside += 1
        self.changed.set()
        return True

    def leave(self) -> None:
        self.inside -= 1
        self.changed.set()

    async def until(self, inside: int) -> None:
        while self.inside != inside:
            self.changed.clear()
            await self.changed.wait()

    def admitted(self) -> asyncio.Protocol:
        return Echo(self)


class Echo(asyncio.Protocol):
    def __init__(self, door: Door) -> None:
        self.door = door

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.door.leave()


class Short(socket.socket):
    """A listener of a process that has no descriptor left, the first time."""

    refusals = 1

    def accept(self) -> tuple[socket.socket, Any]:
        if self.refusals:
            self.refusals -= 1
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return super().accept()


def listener(kind: type[socket.socket] = socket.socket) -> socket.socket:
    found = kind(socket.AF_INET, socket.SOCK_STREAM)
    found.bind(("127.0.0.1", 0))
    found.listen()
    found.setblocking(False)
    return found


async def echoed(port: int, trusted: Path) -> bytes:
    context = ssl.create_default_context(cafile=trusted)
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    writer.write(b"hello\n")
    line = await reader.readline()
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return line


async def test_a_lack_of_descriptors_is_said_and_waited_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ds2d.net.handshakes.PAUSE", 0.05)
    said: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: said.append(context["exception"].errno))
    trusted = certificates.write(tmp_path, "own")
    sock, door = listener(Short), Door()
    server = TlsServer([sock], door, Certificate(str(trusted), str(tmp_path / "key.pem"), "1"))
    async with asyncio.timeout(30):
        assert await echoed(sock.getsockname()[1], trusted) == b"hello\n"
        await door.until(0)
    server.close()
    await server.wait_closed()
    assert said == [errno.EMFILE]


async def test_a_server_that_closes_gives_back_the_places_of_handshakes(tmp_path: Path) -> None:
    trusted = certificates.write(tmp_path, "own")
    sock, door = listener(), Door()
    server = TlsServer([sock], door, Certificate(str(trusted), str(tmp_path / "key.pem"), "1"))
    _, writer = await asyncio.open_connection("127.0.0.1", sock.getsockname()[1])
    async with asyncio.timeout(30):
        await door.until(1)
    server.close()
    await server.wait_closed()
    assert door.inside == 0
    assert sock.fileno() == -1
    writer.close()
