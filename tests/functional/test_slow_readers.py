"""Clients that read slowly or not at all, in front of the real process: its memory, its upstream, and everybody else."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.functional.scripted import Scene, Seen, chunk, scripted_upstream, sse
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
            assert each < 1024 * 1024, f"{each / 1024:.0f} kB a slow reader"
            assert max(answer.sent for answer in answers) * len(FRAME) < KERNEL
            assert b"[DONE]" in await quick(process.port)
            assert process.popen.poll() is None
