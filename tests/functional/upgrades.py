"""Long streams over several upgrades, with somebody who knocks all the time: is any stream cut, is anybody refused?

    python -m tests.functional.upgrades --streams 200 --seconds 120 --upgrades 3

Rule: the model server numbers its pieces and a stream counts as whole only if every number arrived, once and in order, and its
dialect's own end came; the server counts how many requests it has at once, which no number of generations may raise.
Surprise: streams last until the last upgrade is over, if that is longer than `--seconds`, so a slow machine tests the same thing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import socket
import sqlite3
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from ds2d.state.ledger_schema import OPEN
from tests.functional.processes import KEY, daemons, environment, serving, until

SLACK = 4
"""Slots that short requests share, beside those of the streams."""

QUESTION = "Count, please."
DIALECTS: dict[str, tuple[str, dict[str, Any], str]] = {
    "chat": (
        "/v1/chat/completions",
        {"model": "m", "stream": True, "messages": [{"role": "user", "content": QUESTION}]},
        "data: [DONE]",
    ),
    "completions": ("/v1/completions", {"model": "m", "stream": True, "prompt": QUESTION}, "data: [DONE]"),
    "responses": ("/v1/responses", {"model": "m", "stream": True, "input": QUESTION}, "event: response.completed"),
    "claude": (
        "/v1/messages",
        {"model": "m", "stream": True, "max_tokens": 9999, "messages": [{"role": "user", "content": QUESTION}]},
        "event: message_stop",
    ),
    "gemini": (
        "/v1beta/models/m:streamGenerateContent?alt=sse",
        {"contents": [{"role": "user", "parts": [{"text": QUESTION}]}]},
        '"finishReason":"STOP"',
    ),
}


class Server:
    """A model server whose answers are numbered pieces: long ones until `enough` is set, short ones of three."""

    def __init__(self, pause: float, limit: int) -> None:
        self.enough = asyncio.Event()
        self.now = self.most = 0
        self.full = asyncio.Event()
        self._limit = limit
        self._pause = pause

    async def models(self, _request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": "m", "object": "model", "owned_by": "test"}]})

    async def chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.now += 1
        self.most = max(self.most, self.now)
        if self.now >= self._limit:
            self.full.set()
        try:
            return await self._answer(request, long=QUESTION in json.dumps(body), streamed=bool(body.get("stream")))
        finally:
            self.now -= 1

    async def _answer(self, request: web.Request, *, long: bool, streamed: bool) -> web.StreamResponse:
        if not streamed:
            await asyncio.sleep(self._pause)
            message = {"role": "assistant", "content": "0 1 2 "}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            return web.json_response({"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]})
        reply = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await reply.prepare(request)
        chunk = _text_chunk if request.path.endswith("/v1/completions") else _chat_chunk
        number = 0
        while number < 3 or (long and not self.enough.is_set()):
            await reply.write(chunk(f"{number} ", None))
            number += 1
            await asyncio.sleep(self._pause)
        await reply.write(chunk("end", None) + chunk("", "stop") + b"data: [DONE]\n\n")
        return reply


def _chat_chunk(text: str, finish: str | None) -> bytes:
    return _event("chat.completion.chunk", {"index": 0, "delta": {"content": text}, "finish_reason": finish})


def _text_chunk(text: str, finish: str | None) -> bytes:
    return _event("text_completion", {"index": 0, "text": text, "finish_reason": finish})


def _event(kind: str, choice: dict[str, Any]) -> bytes:
    whole = {"id": "c", "object": kind, "created": 1, "model": "m", "choices": [choice]}
    return b"data: %b\n\n" % json.dumps(whole).encode()


@dataclass
class Outcome:
    """What was seen. `wrong` says what went wrong, a line each; `told` is what the service manager heard."""

    wrong: list[str] = field(default_factory=list)
    whole: int = 0
    pieces: int = 0
    short: int = 0
    most_at_once: int = 0
    limit: int = 0
    upgrades: list[float] = field(default_factory=list)
    generations: int = 0
    slowest: float = 0.0
    told: list[str] = field(default_factory=list)
    seconds: float = 0.0
    left: int = 0
    rows: dict[str, int] = field(default_factory=dict)

    def report(self) -> str:
        """The figures, for people."""
        took = ", ".join(f"{one:.1f} s" for one in self.upgrades)
        return (
            f"{self.whole} streams whole, {self.pieces} pieces, {self.seconds:.0f} s; {len(self.upgrades)} upgrades ({took}), "
            f"{self.generations} processes at once; {self.short} short requests, slowest {self.slowest:.2f} s; "
            f"{self.most_at_once} of {self.limit} requests upstream at once; rows {self.rows}; {len(self.wrong)} faults"
        )


class Run:
    """One run of it."""

    def __init__(self, folder: Path, streams: int, seconds: float, upgrades: int, pause: float) -> None:
        self.folder = folder
        self.streams = streams
        self.seconds = seconds
        self.upgrades = upgrades
        self.outcome = Outcome(limit=streams + SLACK)
        self.server = Server(pause, self.outcome.limit)
        self._stop = asyncio.Event()
        self._begun = 0
        self._more = asyncio.Condition()

    async def run(self) -> Outcome:
        """Do it."""
        began = time.monotonic()
        outcome = self.outcome
        async with _served(self.server) as base, _manager(self.folder, outcome) as address:
            limits = {"account_max_inflight": outcome.limit, "account_max_queue": 1000, "queue_timeout_seconds": 120}
            upstream = {"name": "gpu", "kind": "openai", "base_url": base, "max_inflight": outcome.limit}
            accounts = [{"name": "a", "upstream": "gpu", "token": "sk-of-the-account"}]
            config = {"keys": [KEY], "upstreams": [upstream], "accounts": accounts, "runtime": limits}
            manager = serving(self.folder, config=config, NOTIFY_SOCKET=address)
            process = await asyncio.to_thread(manager.__enter__)
            try:
                await asyncio.to_thread(until, lambda: process.ask("/readyz")[0] == 200)
                self.url = f"http://127.0.0.1:{process.port}"
                await self._go(began)
                outcome.left = await self._wait_for_the_last()
                ledger = self.folder / "state" / "ledger.sqlite3"
                await asyncio.to_thread(until, lambda: OPEN not in _rows(ledger))  # its tables have a turn a moment after its end
                outcome.rows = _rows(ledger)
            finally:
                await asyncio.to_thread(manager.__exit__, None, None, None)
                if outcome.wrong:
                    said = (line for line in process.said().splitlines() if "ds2d.access" not in line)
                    outcome.wrong = [*outcome.wrong[:20], "the daemon said:", *list(said)[-60:]]
        outcome.seconds = time.monotonic() - began
        outcome.most_at_once = self.server.most
        return outcome

    async def _go(self, began: float) -> None:
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        async with aiohttp.ClientSession(connector=connector, headers={"Authorization": f"Bearer {KEY}"}) as fresh:
            kept = aiohttp.ClientSession(headers={"Authorization": f"Bearer {KEY}"})
            async with kept, asyncio.TaskGroup() as group:
                callers = [group.create_task(self._knock(fresh)) for _ in range(SLACK)]
                callers += [group.create_task(self._knock(kept)) for _ in range(SLACK)]
                share = self.streams // (self.upgrades + 1)
                running = [group.create_task(self._stream(fresh, n)) for n in range(self.streams - share * self.upgrades)]
                await self._begun_are(len(running))
                for number in range(1, self.upgrades + 1):
                    await asyncio.sleep(max(0.0, began + self.seconds / 2 * number / self.upgrades - time.monotonic()))
                    await self._upgrade()
                    first = len(running)
                    running += [group.create_task(self._stream(fresh, first + n)) for n in range(share)]
                    await self._begun_are(len(running))
                    self.outcome.generations = max(self.outcome.generations, len(daemons(self.folder)))
                await asyncio.sleep(max(0.0, began + self.seconds - time.monotonic()))
                await asyncio.wait_for(
                    self.server.full.wait(), 60
                )  # every generation holds some: now the limit is put to the test
                self.server.enough.set()
                await asyncio.gather(*running)
                self._stop.set()
                await asyncio.gather(*callers)

    async def _upgrade(self) -> None:
        began = time.monotonic()
        command = [sys.executable, "-m", "ds2d", "upgrade", "--state", str(self.folder / "state")]
        done = await asyncio.create_subprocess_exec(
            *command, cwd=self.folder, env=environment(), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        words, _ = await done.communicate()
        if done.returncode:
            self.outcome.wrong.append(f"upgrade: {words.decode()}")
        self.outcome.upgrades.append(time.monotonic() - began)

    async def _stream(self, session: aiohttp.ClientSession, number: int) -> None:
        name = list(DIALECTS)[number % len(DIALECTS)]
        path, body, end = DIALECTS[name]
        try:
            async with session.post(self.url + path, json=body, timeout=aiohttp.ClientTimeout(total=None)) as reply:
                text = ""
                async for data in reply.content.iter_any():
                    if not text:
                        async with self._more:
                            self._begun += 1
                            self._more.notify_all()
                    text += data.decode()
        except aiohttp.ClientError as error:
            self.outcome.wrong.append(f"{name} {number}: {type(error).__name__} {error}")
            return
        said = "".join(_said(name, text))
        counted = [int(one) for one in said.removesuffix("end").split()]
        if reply.status == 200 and end in text and said.endswith("end") and counted == list(range(len(counted))):
            self.outcome.whole += 1
            self.outcome.pieces += len(counted)
        else:
            self.outcome.wrong.append(f"{name} {number}: {reply.status}, cut after {len(counted)}: ...{text[-300:]!r}")

    async def _begun_are(self, count: int) -> None:
        async with asyncio.timeout(120), self._more:
            await self._more.wait_for(lambda: self._begun >= count)

    async def _knock(self, session: aiohttp.ClientSession) -> None:
        """One short request after the other."""
        path = DIALECTS["chat"][0]
        body = {"model": "m", "messages": [{"role": "user", "content": "Short, please."}]}
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                async with session.post(self.url + path, json=body) as reply:
                    text = await reply.text()
                    if reply.status != 200 or "0 1 2" not in text:
                        self.outcome.wrong.append(f"short: {reply.status} {text[:200]}")
            except (aiohttp.ClientError, TimeoutError) as error:
                self.outcome.wrong.append(f"short: {type(error).__name__} {error}")
            self.outcome.short += 1
            self.outcome.slowest = max(self.outcome.slowest, time.monotonic() - began)

    async def _wait_for_the_last(self) -> int:
        """How many processes are left once the old ones have had time to end: one is right."""
        for _ in range(600):
            if len(daemons(self.folder)) <= 1:
                break
            await asyncio.sleep(0.1)
        return len(daemons(self.folder))


def _said(name: str, text: str) -> list[str]:
    """The pieces of the answer's text, as a client of that dialect finds them."""
    found = []
    for line in text.splitlines():
        if not line.startswith("data: {"):
            continue
        data = json.loads(line.removeprefix("data: "))
        if name == "chat":
            found += [choice["delta"].get("content") or "" for choice in data.get("choices", [])]
        elif name == "completions":
            found += [choice["text"] for choice in data.get("choices", [])]
        elif name == "responses" and data["type"] == "response.output_text.delta":
            found.append(data["delta"])
        elif name == "claude" and data["type"] == "content_block_delta":
            found.append(data["delta"].get("text", ""))
        elif name == "gemini":
            parts = [part for one in data.get("candidates", []) for part in one.get("content", {}).get("parts", [])]
            found += [part.get("text", "") for part in parts]
    return found


@asynccontextmanager
async def _served(server: Server) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_get("/v1/models", server.models)
    app.router.add_post("/v1/chat/completions", server.chat)
    app.router.add_post("/v1/completions", server.chat)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=4096)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def _manager(folder: Path, outcome: Outcome) -> AsyncIterator[str]:
    """A stand-in for systemd's end of the notify socket."""
    address = str(folder / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as channel:
        channel.bind(address)
        loop = asyncio.get_running_loop()
        loop.add_reader(channel, lambda: outcome.told.append(channel.recv(4096).decode()))
        try:
            yield address
        finally:
            loop.remove_reader(channel)


def _rows(ledger: Path) -> dict[str, int]:
    """How many turns the ledger holds, by state."""
    with closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)) as db:
        return dict(db.execute("SELECT state, count(*) FROM turns GROUP BY state"))


def main_pids(told: list[str]) -> list[int]:
    """The main processes that the service manager was told of, each with READY."""
    return [int(found[1]) for one in told if "READY=1" in one and (found := re.search(r"MAINPID=(\d+)", one))]


def main() -> int:
    """By hand: the figures; 0 if nothing was cut or refused."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--upgrades", type=int, default=3)
    parser.add_argument("--pause", type=float, default=0.25, help="seconds from piece to piece")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        outcome = asyncio.run(Run(Path(folder), options.streams, options.seconds, options.upgrades, options.pause).run())
    sys.stdout.write("\n".join([outcome.report(), *outcome.wrong, ""]))
    return 1 if outcome.wrong or outcome.whole < options.streams or outcome.most_at_once > outcome.limit else 0


if __name__ == "__main__":
    sys.exit(main())
