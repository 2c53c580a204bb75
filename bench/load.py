"""Clients for the benchmark: raw asyncio protocols that keep so many requests under way and check each answer's end.

asyncio.run(load(port, key, streams=64, model="bench-n200-d20", stream=True, seconds=5)) -> Result
"""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from dataclasses import dataclass, field
from typing import cast


@dataclass
class Result:
    """What one load did. Times are seconds."""

    requests: int = 0
    chunks: int = 0
    broken: int = 0
    first: list[float] = field(default_factory=list)
    sample: bytes = b""
    """The end or the head of one broken answer."""

    def first_ms(self, share: float) -> float:
        """A quantile of the time to the first chunk, in milliseconds."""
        if len(self.first) < 2:
            return 0.0
        return statistics.quantiles(self.first, n=100)[round(share * 100) - 1] * 1000


def request(port: int, key: str, model: str, stream: bool) -> bytes:
    """One chat request as bytes."""
    question = {"model": model, "messages": [{"role": "user", "content": "Say something. " * 20}], "stream": stream}
    data = json.dumps(question).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {key}\r\n"
    return (head + f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n").encode() + data


class Client(asyncio.Protocol):
    """One connection that asks again and again until the time is up."""

    def __init__(self, ask: bytes, stream: bool, until: float, result: Result) -> None:
        self.ask, self.stream, self.until, self.result = ask, stream, until, result
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass of it
        self.send()

    def send(self) -> None:
        self.tail = b""
        self.began, self.started = time.perf_counter(), False
        self.transport.write(self.ask)

    def data_received(self, data: bytes) -> None:
        if not self.started:
            self.started = True
            self.result.first.append(time.perf_counter() - self.began)
        if self.stream:
            self.result.chunks += data.count(b'"content":')
            self.tail = (self.tail + data)[-64:]
            if not self.tail.endswith(b"0\r\n\r\n"):
                return
            self.judge(b"[DONE]" in self.tail)
        else:
            self.tail += data
            end = self.tail.find(b"\r\n\r\n")
            size = self.tail.lower().find(b"content-length:")
            if end < 0 or len(self.tail) < end + 4 + int(self.tail[size + 15 :].split(b"\r\n", 1)[0]):
                return
            self.judge(b"200 OK" in self.tail[:32])
        self.result.requests += 1
        if time.perf_counter() < self.until:
            self.send()
        else:
            self.transport.close()
            self.finish()

    def judge(self, whole: bool) -> None:
        if not whole:
            self.result.broken += 1
            self.result.sample = self.tail[:400]

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.result.broken += 1
            self.finish()

    def finish(self) -> None:
        if not self.done.done():
            self.done.set_result(None)


async def load(port: int, key: str, *, streams: int, model: str, stream: bool, seconds: float) -> Result:
    """Keep `streams` requests under way for about `seconds`."""
    result = Result()
    loop = asyncio.get_running_loop()
    until = time.perf_counter() + seconds
    clients = []
    for _ in range(streams):
        ask = request(port, key, model, stream)
        _, client = await loop.create_connection(lambda ask=ask: Client(ask, stream, until, result), "127.0.0.1", port)
        clients.append(client)
    await asyncio.gather(*(client.done for client in clients))
    return result
