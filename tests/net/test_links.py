"""Connections to upstreams: kept when they may be, never when they may not."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from ds2d.core.calls import Call, Reply
from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.settings import UpstreamSpec
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
    answer: Answer, host: str = "127.0.0.1"
) -> AsyncIterator[tuple[Server, Callable[[str], Awaitable[Reply]], Client]]:
    """A server, a way to ask it, and the client."""
    server, client = Server(answer), Client()
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


async def test_who_is_asked_on_a_connection_that_just_ended_is_asked_again_if_nothing_can_come_of_it() -> None:
    async def answer(writer: asyncio.StreamWriter, carried: int) -> bool:
        if carried == 1:
            writer.write(OK)
        return carried == 1

    async with serving(answer) as (server, ask, _):
        assert (await ask("GET")).body == b"ok"
        assert (await ask("GET")).body == b"ok"
        assert server.connections == 2
        with pytest.raises(GatewayError) as caught:  # a POST may have been done: that is for the service to decide
            await ask("POST")
        assert caught.value.kind is ErrorKind.UPSTREAM_DISCONNECTED


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
