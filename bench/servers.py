"""Two small servers to measure against: a model server that costs little, and a pass-through that does nothing else.

    python -m bench.servers upstream PORT            answers like vLLM: `bench-n200-d20` means 200 chunks, 20 ms apart
    python -m bench.servers passthrough PORT UPSTREAM

Both are raw asyncio protocols, so the pass-through is close to what Python can do at best: the yardstick for ds2d.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from typing import cast

CHUNK = (
    b'data: {"id":"chatcmpl-bench0123456789abcdef","object":"chat.completion.chunk","created":1763640000,"model":"bench",'
    b'"choices":[{"index":0,"delta":{"content":"quick \\"b"},"logprobs":null,"finish_reason":null}]}\n\n'
)
FINISH = CHUNK.replace(b'{"content":"quick \\"b"}', b"{}").replace(b'"finish_reason":null', b'"finish_reason":"stop"')
USAGE = (
    b'data: {"id":"chatcmpl-bench0123456789abcdef","object":"chat.completion.chunk","created":1763640000,"model":"bench",'
    b'"choices":[],"usage":{"prompt_tokens":9,"total_tokens":109,"completion_tokens":100}}\n\n'
)
STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
WHOLE = json.dumps(
    {
        "id": "chatcmpl-bench0123456789abcdef",
        "object": "chat.completion",
        "created": 1763640000,
        "model": "bench",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "x" * 1000}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 100, "total_tokens": 109},
    }
).encode()
MODELS = json.dumps({"object": "list", "data": [{"id": "bench", "object": "model", "created": 1, "owned_by": "vllm"}]}).encode()
KNOBS = re.compile(rb"bench-n(\d+)(?:-d(\d+))?")


def framed(data: bytes) -> bytes:
    """One HTTP chunk."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def body(data: bytes) -> bytes:
    """A whole JSON answer."""
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(data), data)


class Upstream(asyncio.Protocol):
    """One connection of the model server."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass of it
        self.held = b""
        self.task: asyncio.Task[None] | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        if self.task:
            self.task.cancel()

    def data_received(self, data: bytes) -> None:
        self.held += data
        while (end := self.held.find(b"\r\n\r\n")) >= 0:
            head = self.held[:end].lower()
            found = re.search(rb"content-length: *(\d+)", head)
            size = int(found.group(1)) if found else 0
            if len(self.held) < end + 4 + size:
                return
            question, self.held = self.held[end + 4 : end + 4 + size], self.held[end + 4 + size :]
            self.answer(head, question)

    def answer(self, head: bytes, question: bytes) -> None:
        if head.startswith(b"get"):
            self.transport.write(body(b'{"version":"0.32.0"}' if b"/version" in head else MODELS))
        elif b'"stream":true' not in question.replace(b" ", b""):
            self.transport.write(body(WHOLE))
        else:
            knobs = KNOBS.search(question)
            count, pause = (int(knobs.group(1)), int(knobs.group(2) or 0)) if knobs else (200, 0)
            self.task = asyncio.get_running_loop().create_task(self.stream(count, pause / 1000))

    async def stream(self, count: int, pause: float) -> None:
        self.transport.write(STREAM_HEAD)
        chunk = framed(CHUNK)
        for number in range(count):
            self.transport.write(chunk)
            if pause:
                await asyncio.sleep(pause)
            elif number % 20 == 19:
                await asyncio.sleep(0)
        self.transport.write(framed(FINISH) + framed(USAGE) + framed(b"data: [DONE]\n\n") + b"0\r\n\r\n")


class Side(asyncio.Protocol):
    """One side of the pass-through: what comes in here goes out there."""

    def __init__(self, port: int = 0, other: Side | None = None) -> None:
        self.port = port
        self.other = other
        self.transport: asyncio.Transport | None = None
        self.early: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass of it
        if self.other is None:
            self.other = Side(other=self)
            loop = asyncio.get_running_loop()
            self.opening = loop.create_task(loop.create_connection(lambda: self.other, "127.0.0.1", self.port))
        else:
            for data in self.other.early:
                self.transport.write(data)

    def data_received(self, data: bytes) -> None:
        assert self.other is not None
        if self.other.transport is None:
            self.early.append(data)
        else:
            self.other.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.other and self.other.transport:
            self.other.transport.close()


async def main() -> None:
    """Serve until killed."""
    loop = asyncio.get_running_loop()
    kind, port = sys.argv[1], int(sys.argv[2])
    factory = Upstream if kind == "upstream" else lambda: Side(int(sys.argv[3]))
    server = await loop.create_server(factory, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    try:
        import uvloop

        uvloop.run(main())
    except ImportError:
        asyncio.run(main())
