"""Clients that read slowly or not at all, in front of the real process: its memory, its upstream, and everybody else."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from aiohttp import StreamReader

from ds2d.net import client, exchange
from ds2d.net.carrier import Carrier
from ds2d.net.client import LibraryAnswer
from ds2d.net.links import LinkAnswer
from ds2d.web.streaming import ClientStream
from tests.functional.harness import KEY as OWN_KEY
from tests.functional.harness import Running, config_for, running
from tests.functional.scripted import Scene, Seen, chunk, scripted_upstream, sse
from tests.functional.test_every_dialect import QUESTIONS
from tests.functional.test_process import KEY, serving
from tests.functional.test_queue import until

READERS = 40
FRAME = b"".join(sse(*[chunk({"content": f" word{number}"}) for number in range(200)], done=False))
FRAMES = 1500
KERNEL = 16 * 1024 * 1024
"""More than the sockets' buffers on both sides of the daemon hold, and a quarter of what the upstream has to say."""


class Counted(list[Any]):
    """Pieces of an answer, and how many of them were asked for."""

    sent = 0

    def __iter__(self) -> Iterator[Any]:
        for piece in super().__iter__():
            self.sent += 1
            yield piece


def rss(pid: int) -> int:
    """Bytes of memory that the process holds."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmRSS"))) * 1024


def request(stream: bool, text: str = "Hello") -> bytes:
    body = json.dumps({"model": "deepseek-chat", "stream": stream, "messages": [{"role": "user", "content": text}]}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"Connection: close\r\n\r\n" + body


async def quick(port: int, text: str = "Hello") -> bytes:
    """A client that reads all of its stream."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request(True, text))
    answer = await reader.read()
    writer.close()
    return answer


async def at_rest(answers: list[Counted]) -> None:
    """Return when nothing more has gone out of the upstream for a while."""
    before = -1
    while (now := sum(answer.sent for answer in answers)) != before or now < READERS:
        before = now
        await asyncio.sleep(0.5)  # that nothing happens can only be waited for


async def test_slow_readers_cost_little_and_slow_only_their_own_upstream(tmp_path: Path) -> None:
    answers: list[Counted] = []

    def decide(seen: Seen) -> Scene | None:
        text = json.dumps(seen.body)
        if "long" in text:
            return Scene([*[FRAME] * 100, *sse(chunk({}, "stop"))])
        if "slow" not in text:
            return None
        answers.append(Counted([FRAME] * FRAMES))
        return Scene(answers[-1])

    async with scripted_upstream() as upstream:
        upstream.decide = decide
        listed = [{"name": "gpu", "kind": "openai", "base_url": upstream.base_url, "max_inflight": READERS + 20}]
        config = {"keys": [KEY], "upstreams": listed, "ledger": {"checkpoint_seconds": 0.2}}  # what was counted is not held
        with serving(tmp_path, config=config) as process, ExitStack() as stack:
            while (await asyncio.to_thread(process.ask, "/readyz"))[0] != 200:
                pass
            for _ in range(5):
                assert all(b"[DONE]" in text for text in await asyncio.gather(*(quick(process.port) for _ in range(READERS))))
            assert all(b"word199" in text for text in await asyncio.gather(*(quick(process.port, "long") for _ in range(20))))
            before = rss(process.popen.pid)
            for _ in range(READERS):
                sock = stack.enter_context(socket.socket())
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                sock.connect(("127.0.0.1", process.port))
                sock.sendall(request(True, "slow"))
            async with asyncio.timeout(60):
                await until(lambda: len(answers) == READERS)
                await at_rest(answers)
            each = (rss(process.popen.pid) - before) / READERS
            assert each < 512 * 1024, f"{each / 1024:.0f} kB a slow reader"
            assert max(answer.sent for answer in answers) * len(FRAME) < KERNEL
            assert b"[DONE]" in await quick(process.port)
            assert process.popen.poll() is None


RULE = {"own": 256 * 1024, "library": 512 * 1024}
"""Bytes of buffers between an upstream and a client, of one stream (reliability.md). Where the HTTP library carries, over TLS and
proxies, one read of the event loop is 256 KB by itself, and it cannot be told otherwise."""


class Weighed:
    """What stands between one upstream and one client, in bytes; `most` is the greatest sum that was seen."""

    def __init__(self, ds2d: Running, monkeypatch: pytest.MonkeyPatch) -> None:
        self._ds2d = ds2d
        self._carriers: list[Carrier] = []
        self._responses: list[Any] = []
        self.most = 0
        monkeypatch.setattr(exchange, "Carrier", self._carrier)
        for owner, name in ((Carrier, "data"), (LinkAnswer, "hold"), (StreamReader, "feed_data"), (ClientStream, "write")):
            monkeypatch.setattr(owner, name, self._weighing(getattr(owner, name)))
        monkeypatch.setattr(client, "LibraryAnswer", self._library_answer)

    def _carrier(self, *parts: Any) -> Carrier:
        self._carriers.append(Carrier(*parts))
        return self._carriers[-1]

    def _library_answer(self, response: Any, *parts: Any) -> LibraryAnswer:
        self._responses.append(response)
        return LibraryAnswer(response, *parts)

    def _weighing(self, act: Any) -> Any:
        def acted(*arguments: Any) -> Any:
            done = act(*arguments)
            self.most = max(self.most, self.now)
            return done

        return acted

    @property
    def connections(self) -> list[Any]:
        runner = self._ds2d.daemon.listener.runner
        assert runner is not None
        assert runner.server is not None
        return [one for one in runner.server.connections if one.transport is not None]

    @property
    def now(self) -> int:
        unsent = sum(one.transport.get_write_buffer_size() for one in self.connections)
        held = sum(one._pending_size + one._answer._size for one in self._carriers)
        return unsent + held + sum(response.content._size for response in self._responses)


BRIEF = b'data: {"choices":[{"index":0,"delta":{"content":"x"}}]}\n\n'
"""A chunk of which dialects make several times as much: no server is known to leave so much out."""


@pytest.mark.parametrize("carrier", RULE)
@pytest.mark.parametrize("frame", [FRAME, BRIEF * 1000], ids=["usual", "brief"])
@pytest.mark.parametrize("dialect", [name for name in QUESTIONS if name != "completions"])
async def test_buffers_of_a_stream_that_nobody_reads_keep_to_the_rule(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dialect: str, frame: bytes, carrier: str
) -> None:
    _, body, path, more = QUESTIONS[dialect]
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url), carrier=carrier) as ds2d:
        upstream.scenes.append(Scene([frame] * 3000))
        weighed = Weighed(ds2d, monkeypatch)
        content = json.dumps({**body, **more}).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {OWN_KEY}\r\nContent-Length: {len(content)}\r\n\r\n"
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect(("127.0.0.1", ds2d.port))
            sock.sendall(head.encode() + content)
            await until(lambda: any(not one.has_room for one in weighed.connections))
            assert 64 * 1024 < weighed.most <= RULE[carrier]
