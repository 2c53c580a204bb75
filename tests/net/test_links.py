"""Connections to upstreams: kept when they may be, never when they may not."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from ds2d.core.calls import Call, Reply
from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.settings import UpstreamSpec
from ds2d.net import client as net_client
from ds2d.net import pool
from ds2d.net.client import Client
from tests.functional.test_queue import until

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
Answer = Callable[[asyncio.StreamWriter, int], Awaitable[bool]]
"""Given the connection and how many requests it has carried; False: hang up."""
Ask = Callable[[str], Awaitable[Reply]]


class Server:
    """Answers as it is told and counts connections."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.connections = 0
        self.closed = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        carried = 0
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                carried += 1
                if not await self.answer(writer, carried):
                    break
        self.closed += 1
        writer.close()


async def plainly(writer: asyncio.StreamWriter, _carried: int) -> bool:
    writer.write(OK)
    return True


@contextlib.asynccontextmanager
async def serving(
    answer: Answer, host: str = "127.0.0.1", own: bool = True
) -> AsyncIterator[tuple[Server, Callable[[str], Awaitable[Reply]], Client]]:
    """A server, a way to ask it, and the client."""
    server, client = Server(answer), Client(own)
    listener = await asyncio.start_server(server, "127.0.0.1")
    port = listener.sockets[0].getsockname()[1]
    spec = UpstreamSpec(name="up", base_url=f"http://{host}:{port}")
    try:
        yield server, lambda method: client.fetch(Call(method, "/x", {}, None if method == "GET" else b"", False, spec)), client
    finally:
        await client.close()
        listener.close()
        await until(lambda: server.closed == server.connections)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_one_connection_carries_one_call_after_the_other(host: str) -> None:
    async with serving(plainly, host) as (server, ask, _):
        assert [(await ask(method)).body for method in ("GET", "POST", "GET")] == [b"ok"] * 3
        assert server.connections == 1


async def test_calls_at_the_same_time_have_connections_of_their_own() -> None:
    async with serving(plainly) as (server, ask, client):
        await asyncio.gather(*(ask("GET") for _ in range(5)))
        assert server.connections == 5
        assert client.sizes()["unused_connections"].now == 5


@pytest.mark.parametrize(
    "reply",
    [
        OK + b"HTTP/1.1 200 OK\r\n",  # more than was asked for
        OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"),
        OK.replace(b"1.1", b"1.0"),
    ],
)
async def test_a_connection_is_not_kept_when_it_must_not_be(reply: bytes) -> None:
    async def answer(writer: asyncio.StreamWriter, _carried: int) -> bool:
        writer.write(reply)
        return True

    async with serving(answer) as (server, ask, _):
        for number in (1, 2):
            assert (await ask("GET")).body == b"ok"
            assert server.connections == number


async def once_a_connection(writer: asyncio.StreamWriter, carried: int) -> bool:
    """As a server looks that closed an idle connection while the next call was on its way."""
    if carried == 1:
        writer.write(OK)
    return carried == 1


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_kept_connection_that_ends_as_it_is_asked_is_no_fault_and_a_new_one_is_asked(
    method: str, own: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(net_client, "AT_ONCE", 3600.0)  # the machine may be busy
    async with serving(once_a_connection, own=own) as (server, ask, _):
        assert [(await ask(method)).body for _ in range(3)] == [b"ok"] * 3
        assert 2 <= server.connections <= 5  # the library does not keep one that was asked again


def reset_by(writer: asyncio.StreamWriter) -> None:
    writer.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


@pytest.mark.parametrize("own", [True, False])
async def test_a_reset_counts_as_such_an_end(own: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(net_client, "AT_ONCE", 3600.0)

    async def answer(writer: asyncio.StreamWriter, carried: int) -> bool:
        if carried == 2:
            reset_by(writer)
        return await once_a_connection(writer, carried)

    async with serving(answer, own=own) as (_, ask, _client):
        assert [(await ask("POST")).body for _ in range(2)] == [b"ok"] * 2


@pytest.mark.parametrize(
    ("opening", "at_once", "own"),
    [
        (b"", -1.0, True),
        (b"", -1.0, False),
        (b"H", 3600.0, True),
        (b"H", 3600.0, False),
        (b"HTTP/1.1 102 Processing\r\n\r\n", 3600.0, True),  # the library keeps these to itself
    ],
)
async def test_a_server_that_may_have_read_the_call_is_not_asked_again(
    opening: bytes, at_once: float, own: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(net_client, "AT_ONCE", at_once)

    async def answer(writer: asyncio.StreamWriter, carried: int) -> bool:
        if carried == 2:
            writer.write(opening)
        return await once_a_connection(writer, carried)

    async with serving(answer, own=own) as (server, ask, _):
        await ask("POST")
        with pytest.raises(GatewayError) as caught:
            await ask("POST")
        assert caught.value.kind is ErrorKind.UPSTREAM_DISCONNECTED
        assert server.connections == 1


@pytest.mark.parametrize("own", [True, False])
async def test_a_new_connection_that_ends_is_a_fault_also_as_the_second_one(own: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(net_client, "AT_ONCE", 3600.0)
    served = 0

    async def answer(writer: asyncio.StreamWriter, _carried: int) -> bool:
        nonlocal served
        served += 1
        if served == 1:
            writer.write(OK)
        return served == 1

    async with serving(answer, own=own) as (server, ask, _):
        await ask("POST")
        with pytest.raises(GatewayError) as caught:
            await ask("POST")
        assert caught.value.kind is ErrorKind.UPSTREAM_DISCONNECTED
        assert (served, server.connections) == (3, 2)


async def test_what_nobody_uses_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "IDLE_SECONDS", 0.02)
    async with serving(plainly) as (server, ask, client):
        await ask("GET")
        await until(lambda: server.closed == 1)
        assert client.sizes()["unused_connections"].now == 0


async def test_no_more_than_so_many_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "MAX_UNUSED", 2)
    async with serving(plainly) as (server, ask, client):
        await asyncio.gather(*(ask("GET") for _ in range(5)))
        await until(lambda: server.closed == 3)
        assert client.sizes()["unused_connections"].now == 2


async def test_a_header_cannot_be_more_than_one_line() -> None:
    async with serving(plainly) as (server, _, client):
        spec = UpstreamSpec(name="up", base_url="http://127.0.0.1:1")
        with pytest.raises(GatewayError):
            await client.fetch(Call("POST", "/x", {"X-A": "b\r\nX-C: d"}, b"{}", False, spec))
        assert server.connections == 0
