"""Clients as they come: leaving, slow, silent, many, and malformed. None of them costs the others anything."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from ds2d.config.schema import Server
from ds2d.web import body as body_module
from tests.functional.departures import departures, percentile
from tests.functional.harness import CARRIERS, KEY, Running, config_for, running
from tests.functional.scripted import Scene, ScriptedUpstream, Wait, chunk, say, scripted_upstream, sse, whole
from tests.functional.test_every_dialect import QUESTIONS
from tests.functional.test_faults import as_text
from tests.functional.test_queue import until
from tests.state.ledger_world import look

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHAT = "/v1/chat/completions"
ASK: dict[str, Any] = {"model": "deepseek-chat", "messages": [{"role": "user", "content": "Hello"}]}
BODY = json.dumps(ASK).encode()
World = tuple[Running, ScriptedUpstream]


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="shared")
async def _shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async with scripted_upstream() as upstream:
        server = {"header_seconds": 1, "body_seconds": 1, "write_stall_seconds": 1, "body_limit_bytes": 1024 * 1024}
        config = config_for(upstream.base_url, server=server, runtime={"retry_collapse": False})
        async with running(tmp_path_factory.mktemp("clients"), config) as ds2d:
            yield ds2d, upstream


@pytest.fixture(name="world")
def _world(shared: World) -> World:
    shared[1].scenes.clear()
    shared[1].seen.clear()
    return shared


@asynccontextmanager
async def connected(ds2d: Running, receive_buffer: int = 0) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A bare connection."""
    sock = socket.socket()
    sock.setblocking(False)
    if receive_buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", ds2d.port))
    reader, writer = await asyncio.open_connection(sock=sock, limit=2**16)
    try:
        yield reader, writer
    finally:
        writer.close()


def request(body: bytes = BODY, *lines: str, path: str = CHAT, key: str = KEY, length: bool = True) -> bytes:
    """A POST as bytes."""
    head = [f"POST {path} HTTP/1.1", "Host: x", f"Authorization: Bearer {key}", *lines]
    head += [f"Content-Length: {len(body)}"] * length
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


async def answer_to(ds2d: Running, data: bytes, patience: float = 20) -> tuple[int, bytes, bool]:
    """Status (0: none), the whole of what came, and whether the connection was closed after it."""
    async with connected(ds2d) as (reader, writer):
        writer.write(data)
        got = bytearray()
        closed = False
        try:
            async with asyncio.timeout(patience):
                while piece := await reader.read(65536):
                    got += piece
                    if b"\r\n\r\n" in got and (found := re.search(rb"(?i)content-length: (\d+)", got)):
                        patience_over = len(got) >= got.index(b"\r\n\r\n") + 4 + int(found[1])
                        if patience_over and b"onnection: close" not in got and not got.startswith(b"HTTP/1.0"):
                            break
                else:
                    closed = True
        except ConnectionError:
            closed = True
        found = re.match(rb"HTTP/1\.[01] (\d+)", got)
        return int(found[1]) if found else 0, bytes(got), closed


def server_of(ds2d: Running) -> Any:
    """The daemon's connections."""
    runner = ds2d.daemon.listener.runner
    assert runner is not None
    return runner.server


def unsent(ds2d: Running) -> int:
    """Bytes that clients have not taken."""
    open_ones = [connection.transport for connection in server_of(ds2d).connections]
    return sum(transport.get_write_buffer_size() for transport in open_ones if transport is not None)


# Leaving

HANG_UP = 10.0
"""Seconds, fewer than any clock of the daemon has. How long it really takes is measured: scripts/departures."""


MOMENTS = ["before the head", "before the first payload", "in the middle"]


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("dialect", QUESTIONS)
async def test_who_leaves_frees_the_upstream(world: World, dialect: str, moment: str, stream: bool) -> None:
    ds2d, upstream = world
    path, body, stream_path, more = QUESTIONS[dialect]
    held = Wait()
    frames = say("Hel", "lo") if stream else whole({"content": "x"}).pieces
    if dialect == "completions" and stream:
        frames = [as_text(frame) for frame in frames]
    pieces = {"before the head": [held], "before the first payload": [held], "in the middle": [*frames[:3], held]}[moment]
    if moment == "in the middle" and not stream:
        pieces = [frames[0][:40], held]
    kind = "text/event-stream" if stream else "application/json"
    upstream.scenes.append(Scene(pieces, content_type=kind, raw=moment == "before the head"))
    where, what = (stream_path, {**body, **more}) if stream else (path, body)
    async with connected(ds2d) as (reader, writer):
        writer.write(request(json.dumps(what).encode(), path=where))
        await held.reached.wait()
        if stream and moment == "in the middle":
            await reader.readuntil(b"Hel")
        writer.close()
        await until(upstream.seen[0].closed.is_set, HANG_UP)
    assert (ds2d.daemon.queue.running, ds2d.daemon.service.turns) == (0, {})


@pytest.mark.parametrize("carrier", CARRIERS)
async def test_of_many_who_leave_most_are_noticed_at_once(tmp_path: Path, carrier: str) -> None:
    """The promise is about 99 of 100 on a machine that is not busy with anything else: scripts/departures."""
    async with scripted_upstream() as upstream:
        config = config_for(upstream.base_url, runtime={"retry_collapse": False})
        config["upstreams"][0] |= {"max_inflight": 10, "poll_seconds": 3600}
        async with running(tmp_path, config, carrier=carrier) as ds2d:
            took = await departures(ds2d, upstream, count=60)
            assert percentile(took, 50) < 0.25
            assert (ds2d.daemon.queue.running, ds2d.daemon.queue.waiting, ds2d.daemon.service.turns) == (0, 0, {})
            await until(lambda: ds2d.daemon.sizes()["books.counting"].now == 0)
    states = look(tmp_path / "state", "SELECT state, cause, count(*) FROM turns GROUP BY 1, 2")
    assert states == [("interrupted", "client_closed", len(took) + 10)]


async def test_a_client_that_only_stops_sending_has_left(world: World) -> None:
    ds2d, upstream = world
    held = Wait()
    upstream.scenes.append(Scene([held]))
    async with connected(ds2d) as (_, writer):
        writer.write(request())
        await held.reached.wait()
        writer.write_eof()
        await until(upstream.seen[0].closed.is_set, HANG_UP)
    await until(lambda: ds2d.daemon.queue.running == 0, HANG_UP)


# Slow


async def test_a_slow_reader_slows_its_own_upstream_and_is_cut_by_its_own_clock(world: World) -> None:
    ds2d, upstream = world
    frame = sse(chunk({"content": "x" * 60_000}), done=False)[0]
    open_gate = asyncio.Event()
    open_gate.set()
    last = Wait(open_gate)
    upstream.scenes.append(Scene([*[frame] * 600, last]))
    async with connected(ds2d, receive_buffer=4096) as (reader, writer):
        writer.write(request(json.dumps({**ASK, "stream": True}).encode()))
        await until(lambda: bool(upstream.seen))
        await reader.read(100)
        status, _, _ = await ds2d.ask(CHAT, ASK)  # others do not notice
        assert status == 200
        (turn,) = ds2d.daemon.service.turns.values()
        assert turn.outcome == "open"
        await until(lambda: ds2d.daemon.queue.running == 0)
        await until(upstream.seen[0].closed.is_set)
        assert not last.reached.is_set()
        assert (turn.outcome, turn.cause) == ("interrupted", "client_closed")


async def test_a_large_whole_answer_does_not_wait_for_ever_for_its_reader(world: World) -> None:
    ds2d, upstream = world
    upstream.scenes.append(whole({"content": "x" * 30_000_000}))
    async with connected(ds2d, receive_buffer=4096) as (reader, writer):
        writer.write(request())
        await reader.read(100)
        await until(lambda: unsent(ds2d) > 0)
        await until(lambda: unsent(ds2d) == 0)  # cut: its reader takes nothing
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(30_000_000)


async def test_who_does_not_read_does_not_hold_up_an_end_at_once(tmp_path: Path) -> None:
    frame = sse(chunk({"content": "x" * 60_000}), done=False)[0]
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        upstream.scenes.append(Scene([frame] * 600))
        async with connected(ds2d, receive_buffer=4096) as (reader, writer):
            writer.write(request(json.dumps({**ASK, "stream": True}).encode()))
            await reader.read(100)
            await until(lambda: unsent(ds2d) > 0)
            at_once = asyncio.Event()
            at_once.set()
            async with asyncio.timeout(20):
                await ds2d.daemon.drain(at_once)
                await until(lambda: not ds2d.daemon.service.turns)


async def test_a_head_that_trickles_is_ended(world: World) -> None:
    status, text, closed = await answer_to(world[0], b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nX-A: ")
    assert (status, closed) == (408, True)
    assert b'"request_timeout"' in text


async def test_a_body_that_trickles_is_ended(world: World) -> None:
    ds2d, upstream = world
    status, text, closed = await answer_to(ds2d, request()[:-5])
    assert (status, closed) == (408, True)
    assert b'"request_timeout"' in text
    assert upstream.seen == []


async def test_a_connection_that_says_nothing_costs_nothing_else(world: World) -> None:
    ds2d, _ = world
    async with connected(ds2d):
        assert (await ds2d.ask(CHAT, ASK))[0] == 200


async def test_connections_are_bounded_and_the_bound_recovers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    server = {"max_connections": 5}
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url, server=server)) as ds2d:
        opened = [await asyncio.open_connection("127.0.0.1", ds2d.port) for _ in range(12)]
        refused = 0
        for reader, _ in opened[5:]:
            async with asyncio.timeout(20):
                try:
                    refused += await reader.read() == b""
                except ConnectionError:
                    refused += 1
        assert refused == 7
        assert caplog.text.count("connection limit reached") == 1
        for _, writer in opened:
            writer.close()
        await until(lambda: server_of(ds2d).open_connections == 0)
        assert (await ds2d.ask(CHAT, ASK))[0] == 200


# Bodies

DEEP = b'{"model":"deepseek-chat","messages":' + b"[" * 200 + b"]" * 200 + b"}"
BAD_BODIES: dict[str, bytes] = {
    "nothing": b"",
    "not JSON": b"{",
    "an array": b"[]",
    "a number": b"1",
    "NaN": BODY[:-1] + b',"temperature":NaN}',
    "half a letter": b'{"model":"\xc3"}',
    "deep": DEEP,
    "very deep": b"[" * 500_000,
    "very deep object": b'{"a":' * 100_000,
    "a long number": BODY[:-1] + b',"max_tokens":' + b"9" * 5000 + b"}",
    "half a surrogate": b'{"model":"deepseek-chat","messages":[{"role":"user","content":"\\ud800"}]}',
}


@pytest.mark.parametrize("name", BAD_BODIES)
async def test_a_body_that_is_no_question_is_a_400(world: World, name: str, caplog: pytest.LogCaptureFixture) -> None:
    ds2d, upstream = world
    for dialect in QUESTIONS:
        status, answer, _ = await ds2d.ask(QUESTIONS[dialect][0], data=BAD_BODIES[name], method="POST")
        assert status == 400, answer
        assert answer["error"]["message"]
    assert upstream.seen == []
    assert "Traceback" not in caplog.text


async def test_of_a_key_given_twice_one_meaning_counts_everywhere(world: World) -> None:
    ds2d, upstream = world
    body = b'{"model":"deepseek-nope","model":"deepseek-chat","messages":[{"role":"user","content":"a","content":"b"}]}'
    status, answer, _ = await ds2d.ask(CHAT, data=body)
    assert (status, answer["model"]) == (200, "deepseek-chat")
    assert upstream.seen[-1].body["messages"] == [{"role": "user", "content": "b"}]


async def test_a_body_over_the_limit_is_refused_before_it_is_read(world: World) -> None:
    ds2d, _ = world
    status, text, closed = await answer_to(ds2d, request(b"", "Content-Length: 99999999", length=False))
    assert (status, closed) == (413, True)
    assert b'"request_too_large"' in text
    piece = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    status, text, closed = await answer_to(ds2d, request(b"", "Transfer-Encoding: chunked", length=False) + piece * 17)
    assert (status, closed) == (413, True)


async def test_a_bad_key_is_told_before_the_body_came(world: World) -> None:
    status, text, closed = await answer_to(world[0], request(b"{", "Content-Length: 900000", length=False, key="sk-wrong"))
    assert (status, closed) == (401, True)
    assert b'"invalid_api_key"' in text


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate", "gzip, identity"])
async def test_a_compressed_body_is_refused(world: World, encoding: str) -> None:
    status, text, _ = await answer_to(world[0], request(gzip.compress(BODY), f"Content-Encoding: {encoding}"))
    assert status == 415
    assert b'"unsupported_encoding"' in text


async def test_a_body_in_chunks_and_one_that_asks_first_are_read(world: World) -> None:
    ds2d, _ = world
    pieces = b"".join(f"{len(part):x}\r\n".encode() + part + b"\r\n" for part in (BODY[:9], BODY[9:])) + b"0\r\n\r\n"
    assert (await answer_to(ds2d, request(pieces, "Transfer-Encoding: chunked", length=False)))[0] == 200
    async with connected(ds2d) as (reader, writer):
        writer.write(request(BODY, "Expect: 100-continue")[: -len(BODY)])
        async with asyncio.timeout(20):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100")
            writer.write(BODY)
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")


# Heads


async def test_two_user_agents_are_let_through(world: World) -> None:
    ds2d, _ = world
    assert (await answer_to(ds2d, request(BODY, "User-Agent: a", "X-B: c", "user-agent: b")))[0] == 200
    assert (await answer_to(ds2d, request(BODY, "User-Agent: a", "User-Agent: b", "User-Agent: c")))[0] == 400


@pytest.mark.parametrize("line", ["Host: y", "Content-Type: a\r\nContent-Type: b", "Content-Length: 1"])
async def test_no_other_line_may_come_twice(world: World, line: str) -> None:
    status, _, closed = await answer_to(world[0], request(BODY, line))
    assert (status, closed) == (400, True)
    assert world[1].seen == []


@pytest.mark.parametrize(
    "lines", [["X-Big: " + "a" * 70_000], [f"X-{number}: a" for number in range(120)], ["X-Many: a" * 3000] * 30]
)
async def test_a_head_out_of_bounds_is_refused(world: World, lines: list[str]) -> None:
    status, _, closed = await answer_to(world[0], request(BODY, *lines))
    assert status in (400, 431)
    assert closed
    assert world[1].seen == []


SMUGGLED: dict[str, bytes] = {
    "length and chunks": request(b"0\r\n\r\nGET / HTTP/1.1\r\n\r\n", "Transfer-Encoding: chunked"),
    "two lengths": request(BODY, "Content-Length: 3"),
    "two lengths in one": request(BODY, f"Content-Length: {len(BODY)}, {len(BODY)}", length=False),
    "a length with a sign": request(BODY, f"Content-Length: +{len(BODY)}", length=False),
    "a negative length": request(BODY, "Content-Length: -1", length=False),
    "a length in hex": request(BODY, "Content-Length: 0x10", length=False),
    "unknown coding": request(BODY, "Transfer-Encoding: xchunked", length=False),
    "coding after chunked": request(b"0\r\n\r\n", "Transfer-Encoding: chunked, identity", length=False),
    "chunked twice": request(b"0\r\n\r\n", "Transfer-Encoding: chunked, chunked", length=False),
    "a space before the colon": request(b"0\r\n\r\n", "Transfer-Encoding : chunked", length=False),
    "a folded line": request(BODY, "X-A: b\r\n c"),
    "a bare CR": request(BODY, "X-A: b\rX-C: d"),
    "a bare LF": request(BODY).replace(b"\r\n", b"\n"),
    "a NUL": request(BODY, "X-A: b\0c"),
    "a line without a name": request(BODY, ": b"),
    "a bad chunk size": request(b"zz\r\nhello\r\n0\r\n\r\n", "Transfer-Encoding: chunked", length=False),
    "a chunk longer than it says": request(b"3\r\nhello\r\n0\r\n\r\n", "Transfer-Encoding: chunked", length=False),
    "another version": b"GET / HTTP/3.7\r\nHost: x\r\n\r\n",
    "TLS": bytes.fromhex("160301020001000001fc0303") + b"\r\n\r\n",
    "noise": b"\x00\xff\xfe\r\n\r\n",
}


@pytest.mark.parametrize("name", SMUGGLED)
async def test_what_could_be_read_in_two_ways_is_refused(world: World, name: str, caplog: pytest.LogCaptureFixture) -> None:
    status, text, closed = await answer_to(world[0], SMUGGLED[name])
    assert status in (400, 501, 408)
    assert b"\r\nServer: ds2d\r\n" in text
    assert closed
    assert text.count(b"HTTP/1.") == 1
    assert b'"error"' in text
    assert world[1].seen == []
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize("head", ["Expect: 200-ok", f"X-Long: {'x' * 70_000}"])
async def test_what_is_refused_before_any_handler_names_no_software_but_ours(world: World, head: str) -> None:
    status, text, _ = await answer_to(world[0], request(BODY, head))
    assert status in (417, 431)
    assert re.findall(rb"\r\nServer: ([^\r]*)", text) == [b"ds2d"]


async def test_two_requests_in_one_write_are_two_answers_in_order(world: World) -> None:
    ds2d, _ = world
    async with connected(ds2d) as (reader, writer):
        get = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
        writer.write(request() + get + get[:-2])
        async with asyncio.timeout(20):
            assert (await reader.readuntil(b'"usage":')).startswith(b"HTTP/1.1 200")
            assert b"HTTP/1.1 200" in await reader.readuntil(b'{"status":"ok"}')
            writer.write(get[-2:])
            assert b"HTTP/1.1 200" in await reader.readuntil(b'{"status":"ok"}')


# Clocks as they are by default, and a body's least speed


async def test_the_clocks_of_heads_and_bodies_are_those_that_are_promised() -> None:
    server = Server()
    assert (server.header_seconds, server.body_seconds) == (15, 60)
    assert (body_module.SLOW_WINDOW, body_module.SLOW_BYTES) == (30, 30 * 1024)


async def test_a_body_slower_than_its_least_speed_is_ended_before_its_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body_module, "SLOW_WINDOW", 0.5)
    monkeypatch.setattr(body_module, "SLOW_BYTES", 1000)
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        body = b" " * 100_000 + BODY
        async with connected(ds2d) as (reader, writer):
            writer.write(request(body)[: -len(body) + 100])
            async with asyncio.timeout(20):  # of a clock of 60
                answer = asyncio.create_task(reader.readuntil(b"\r\n\r\n"))
                while not answer.done():
                    writer.write(b" ")
                    await asyncio.sleep(0.02)
            assert answer.result().startswith(b"HTTP/1.1 408")
        async with connected(ds2d) as (reader, writer):
            writer.write(request(body)[: -len(body)])
            for begin in range(0, len(body), 10_000):
                writer.write(body[begin : begin + 10_000])
                await asyncio.sleep(0.02)
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        assert len(upstream.seen) == 1


# Where we connect


async def test_nothing_in_a_request_makes_us_connect_anywhere(world: World) -> None:
    """URLs in bodies, headers and queries are the model's to read or nobody's: the trap hears of none."""
    ds2d, upstream = world
    heard: list[bytes] = []

    async def trap(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read(100))
        writer.close()

    server = await asyncio.start_server(trap, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    named = {"base_url": url, "api_base": url, "callback_url": url, "webhook_url": url, "proxy": url, "endpoint": url}
    lines = {
        "X-Upstream": url,
        "X-Base-Url": url,
        "X-Forwarded-Host": url[7:-3],
        "Forwarded": f"host={url[7:-3]}",
        "Referer": url,
    }
    image = {"type": "image_url", "image_url": {"url": f"{url}/a.png"}}
    for dialect in QUESTIONS:
        path, body, _, _ = QUESTIONS[dialect]
        await ds2d.ask(f"{path}?base_url={url}", {**body, **named}, headers=lines)
        await ds2d.ask(path, {**body, "model": url}, headers={"Host": url[7:-3]})
    seen = [{"role": "user", "content": [{"type": "text", "text": "x"}, image]}]
    await ds2d.ask(CHAT, {**ASK, "messages": seen})
    assert upstream.seen
    assert not any(
        name in seen.headers for seen in upstream.seen for name in ("x-upstream", "x-base-url", "forwarded", "referer")
    )
    server.close()
    await server.wait_closed()
    assert heard == []
