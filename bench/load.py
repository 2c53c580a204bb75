"""Clients for the benchmark: raw protocols that keep so many requests under way and check that each answer is whole.

    python -m bench.load '{"port": 5001, "key": "sk-…", "kind": "chat", "model": "bench-n200", "stream": true, ...}'

prints one JSON object. It runs in a process of its own, so that its CPU is nobody else's. Every streamed answer must have all
its chunks, each with the text that was sent, and its dialect's end; every whole one its length and its text.
"""

from __future__ import annotations

import asyncio
import json
import re
import statistics
import sys
import time
from dataclasses import dataclass, field
from typing import Any, cast

PATHS = {
    "chat": "/v1/chat/completions",
    "responses": "/v1/responses",
    "claude": "/v1/messages",
    "gemini": "/v1beta/models/{model}:{verb}",
}
ENDS = {
    "chat": b"data: [DONE]\n\n",
    "responses": b"event: response.completed",
    "claude": b"event: message_stop",
    "gemini": b'"finishReason"',
}
TEXTS = {"chat": rb'"content":"', "responses": rb'"delta":"', "claude": rb'"text":"', "gemini": rb'"text":"'}
CHUNKS = {kind: re.compile(rb'(?:%b)(?:@([0-9]{16}) quick|quick \\"b\\")"' % head) for kind, head in TEXTS.items()}
PROMPT = "Summarise the following text in one paragraph, keep the names and the numbers. "


def request(port: int, key: str, kind: str, model: str, stream: bool, size: int = 400) -> bytes:
    """One request as bytes; `size` is characters of the prompt."""
    text = (PROMPT * (size // len(PROMPT) + 1))[:size]
    body: dict[str, Any] = {
        "chat": {"model": model, "messages": [{"role": "user", "content": text}]},
        "responses": {"model": model, "input": text},
        "claude": {"model": model, "max_tokens": 4096, "messages": [{"role": "user", "content": text}]},
        "gemini": {"contents": [{"role": "user", "parts": [{"text": text}]}]},
    }[kind]
    if stream and kind != "gemini":
        body["stream"] = True
    verb = "streamGenerateContent?alt=sse" if stream else "generateContent"
    data = json.dumps(body, separators=(",", ":")).encode()
    head = (
        f"POST {PATHS[kind].format(model=model, verb=verb)} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {key}\r\n"
    )
    return (head + f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n").encode() + data


@dataclass
class Result:
    """What one load did. Times are microseconds."""

    requests: int = 0
    chunks: int = 0
    broken: int = 0
    cut: int = 0
    first: list[int] = field(default_factory=list)
    delays: list[int] = field(default_factory=list)
    sample: str = ""
    """The head or the end of one broken answer."""

    def told(self) -> dict[str, Any]:
        """For whoever started the load."""
        quantiles = {}
        for name, values in (("first_us", self.first), ("delay_us", self.delays)):
            if len(values) > 1:
                cuts = statistics.quantiles(values, n=100)
                quantiles[name] = {"p50": round(cuts[49]), "p99": round(cuts[98])}
        return {"requests": self.requests, "chunks": self.chunks, "broken": self.broken, "sample": self.sample, **quantiles}


class Client(asyncio.Protocol):
    """One connection that asks again and again until the time is up."""

    def __init__(self, ask: bytes, plan: dict[str, Any], until: float, result: Result) -> None:
        self.ask, self.until, self.result = ask, until, result
        self.kind, self.stream, self.expected = plan["kind"], plan["stream"], plan["chunks"]
        self.pattern, self.end = CHUNKS[self.kind], ENDS[self.kind]
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass of it
        self.send()

    def send(self) -> None:
        self.tail, self.seen, self.ended, self.size = b"", 0, False, 0
        self.raw, self.in_body = b"", False
        self.began, self.started = time.monotonic(), False
        self.transport.write(self.ask)

    def data_received(self, data: bytes) -> None:
        if not self.started:
            self.started = True
            self.result.first.append(round((time.monotonic() - self.began) * 1e6))
        if self.stream:
            self.take(data)
        else:
            self.take_whole(data)

    def take(self, data: bytes) -> None:
        """Count the events; what may be the beginning of one stays for the next read."""
        text, over = self.unframed(data)
        text = self.tail + text
        last = 0
        for found in self.pattern.finditer(text):
            self.seen += 1
            last = found.end()
            if found[1]:
                self.result.delays.append(max(0, round(time.monotonic() * 1e6) - int(found[1])))
        self.ended = self.ended or self.end in text[last:]
        self.tail = text[max(last, len(text) - 200) :]
        if over:
            self.result.chunks += self.seen
            self.judge(self.ended and self.seen == self.expected)

    def unframed(self, data: bytes) -> tuple[bytes, bool]:
        """The content of all whole HTTP chunks so far, and whether the last one was among them. Proxies cut as they like."""
        raw = self.raw + data
        at = 0
        if not self.in_body:
            at = raw.find(b"\r\n\r\n") + 4
            if at < 4:
                self.raw = raw
                return b"", False
            self.in_body = True
        parts = []
        over = False
        while not over and (line := raw.find(b"\r\n", at)) >= 0:
            size = int(raw[at:line], 16)
            if len(raw) < line + 4 + size:
                break
            parts.append(raw[line + 2 : line + 2 + size])
            at = line + 4 + size
            over = not size
        self.raw = raw[at:]
        return b"".join(parts), over

    def take_whole(self, data: bytes) -> None:
        """Until Content-Length is reached."""
        self.tail += data
        end = self.tail.find(b"\r\n\r\n")
        if end >= 0 and not self.size:
            self.size = end + 4 + int(re.search(rb"(?i)content-length: *(\d+)", self.tail)[1])  # type: ignore[index]
        if self.size and len(self.tail) >= self.size:
            self.judge(b" 200 OK" in self.tail[:32] and self.tail.count(b"xxxxxx") >= 1000 // 7)

    def judge(self, whole: bool) -> None:
        if not whole:
            self.result.broken += 1
            self.result.sample = repr(self.tail[-300:] if self.stream else self.tail[:300])
        self.result.requests += 1
        if time.monotonic() < self.until:
            self.send()
        else:
            self.transport.close()
            self.finish()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.result.broken += 1
            self.result.sample = f"connection lost after {self.seen} chunks: {exc!r}"
            self.finish()

    def finish(self) -> None:
        if not self.done.done():
            self.done.set_result(None)


async def load(plan: dict[str, Any]) -> dict[str, Any]:
    """Keep `streams` requests under way for `seconds`, begun over `stagger` seconds; `leave_after`: close all of them then."""
    result = Result()
    loop = asyncio.get_running_loop()
    until = time.monotonic() + plan["seconds"]
    ask = request(plan["port"], plan["key"], plan["kind"], plan["model"], plan["stream"], plan.get("size", 400))
    clients: list[Client] = []
    for _ in range(plan["streams"]):
        _, client = await loop.create_connection(lambda: Client(ask, plan, until, result), "127.0.0.1", plan["port"])
        clients.append(client)
        if plan.get("stagger"):
            await asyncio.sleep(plan["stagger"] / plan["streams"])
    if after := plan.get("leave_after"):
        await asyncio.sleep(after)
        at = round(time.monotonic() * 1e6)
        for client in clients:
            client.transport.abort()
        await asyncio.sleep(0.1)
        return {"left_at": at, **result.told()}
    await asyncio.gather(*(client.done for client in clients))
    return result.told()


def main() -> None:
    """One load."""
    plan = json.loads(sys.argv[1])
    try:
        import uvloop  # noqa: PLC0415 - optional

        print(json.dumps(uvloop.run(load(plan))))
    except ImportError:
        print(json.dumps(asyncio.run(load(plan))))


if __name__ == "__main__":
    main()
