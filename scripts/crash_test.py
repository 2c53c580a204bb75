"""Streams through a daemon that is killed with -9 at random moments, and a comparison of three records of them: the ledger,
what the upstream sent, and what the clients received.

Rule: upstream and clients live in this process, which is never killed, so what they counted is the truth. An answer that a
client got whole must stand in the ledger exactly once, with the upstream's numbers; whatever else stands there must be one of
the requests, once, with no more tokens than the upstream sent.
Surprise: a request that reached the upstream less than `GRACE` seconds before the kill may have no row: rows of running turns
are written within 100 ms, and nobody waits for them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import socket
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

ROOT = Path(__file__).parents[1]
KEY = "sk-crash-test-0123456789"
MODEL = "deepseek-crash"
GRACE = 0.25
"""Seconds; more than 100 ms, because two busy cores keep a thread waiting."""
START_SECONDS = 60.0


@dataclass
class Sent:
    """One request as the upstream saw it: when it came, and the tokens that it sent so far."""

    came: float
    prompt: int
    completion: int = 0
    whole: bool = False


@dataclass
class Result:
    """What a run found. `faults` is empty if the ledger told the truth."""

    asked: int = 0
    delivered: int = 0
    states: Counter[str] = field(default_factory=Counter)
    checkpoints: int = 0
    without_row: int = 0
    faults: list[str] = field(default_factory=list)


class CountingUpstream:
    """A model server that streams with running usage and remembers what it sent, by the number in the question."""

    def __init__(self, chance: random.Random) -> None:
        self.sent: dict[str, Sent] = {}
        self._chance = chance
        self._server: asyncio.Server | None = None
        self.port = 0

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def stop(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                method, path, _ = head.split(b"\r\n")[0].decode().split(" ")
                if method == "GET":
                    _answer(writer, path)
                    await writer.drain()
                    continue
                length = next(
                    int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")
                )
                question = json.loads(await reader.readexactly(length))
                await self._stream(writer, question["messages"][-1]["content"])
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()

    async def _stream(self, writer: asyncio.StreamWriter, name: str) -> None:
        sent = self.sent[name] = Sent(time.monotonic(), self._chance.randint(5, 50))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(self._chance.randint(1, 40)):
            sent.completion += 1
            _frame(writer, sent, {"content": " word"}, None)
            await writer.drain()
            await asyncio.sleep(self._chance.uniform(0, 0.02))
        sent.whole = True
        _frame(writer, sent, {}, "stop")
        writer.write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
        await writer.drain()


def _frame(writer: asyncio.StreamWriter, sent: Sent, delta: dict[str, str], finish: str | None) -> None:
    usage = {"prompt_tokens": sent.prompt, "completion_tokens": sent.completion, "total_tokens": sent.prompt + sent.completion}
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    chunk = {
        "id": "chatcmpl-crash",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": MODEL,
        "choices": [choice],
        "usage": usage,
    }
    data = b"data: " + json.dumps(chunk).encode() + b"\n\n"
    writer.write(b"%x\r\n%s\r\n" % (len(data), data))


def _answer(writer: asyncio.StreamWriter, path: str) -> None:
    models = {
        "object": "list",
        "data": [{"id": MODEL, "object": "model", "created": 1, "owned_by": "vllm", "max_model_len": 4096}],
    }
    status, body = ("200 OK", models) if path.endswith("/models") else ("404 Not Found", {})
    raw = json.dumps(body).encode()
    writer.write(f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(raw)}\r\n\r\n".encode() + raw)


class Gateway:
    """A daemon in a process of its own, over one folder."""

    def __init__(self, folder: Path, upstream_port: int) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self._config = folder / "config.json"
        upstream = {"name": "gpu", "kind": "openai", "base_url": f"http://127.0.0.1:{upstream_port}/v1", "flavour": "vllm"}
        ledger = {"checkpoint_seconds": 0.1}
        self._config.write_text(json.dumps({"keys": [{"key": KEY, "name": "crash"}], "upstreams": [upstream], "ledger": ledger}))
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, http: aiohttp.ClientSession) -> None:
        """Start it and wait until it serves."""
        words = ("-m", "ds2d", "serve", "--config", str(self._config), "--port", str(self.port), "--log-level", "error")
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, *words, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
        async with asyncio.timeout(START_SECONDS):
            while not await self._is_ready(http):
                if self._process.returncode is not None:
                    raise RuntimeError("the daemon did not start")
                await asyncio.sleep(0.05)

    async def _is_ready(self, http: aiohttp.ClientSession) -> bool:
        try:
            async with http.get(f"http://127.0.0.1:{self.port}/readyz") as reply:
                return reply.status == 200
        except aiohttp.ClientError:
            return False

    async def kill(self) -> None:
        """At once, with -9."""
        assert self._process is not None
        self._process.kill()
        await self._process.wait()

    async def stop(self) -> None:
        """In order."""
        assert self._process is not None
        self._process.terminate()
        await self._process.wait()


async def ask(http: aiohttp.ClientSession, port: int, name: str) -> bool:
    """One stream; whether all of it arrived."""
    body = {"model": MODEL, "stream": True, "messages": [{"role": "user", "content": name}]}
    headers = {"Authorization": f"Bearer {KEY}", "x-request-id": name}
    try:
        async with http.post(f"http://127.0.0.1:{port}/v1/chat/completions", json=body, headers=headers) as reply:
            return reply.status == 200 and (await reply.read()).endswith(b"data: [DONE]\n\n")
    except (aiohttp.ClientError, ConnectionError):
        return False


async def run(folder: Path, streams: int, cycles: int, seed: int, *, progress: bool = False) -> Result:
    """So many streams, spread over so many kills, then one more start in order, and the comparison."""
    chance = random.Random(seed)
    upstream = CountingUpstream(chance)
    await upstream.start()
    gateway = Gateway(folder, upstream.port)
    delivered: dict[str, bool] = {}
    killed: dict[str, float] = {}
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with aiohttp.ClientSession(connector=connector) as http:
        for cycle in range(cycles):
            await gateway.start(http)
            names = [f"req_{cycle}_{number}" for number in range(streams * cycle // cycles, streams * (cycle + 1) // cycles)]
            work = [asyncio.create_task(_later(chance.uniform(0, 0.3), ask(http, gateway.port, name))) for name in names]
            await _moment(work, chance)
            when = time.monotonic()
            await gateway.kill()
            killed |= dict.fromkeys(names, when)
            delivered |= dict(zip(names, await asyncio.gather(*work), strict=True))
            if progress:
                print(f"\r{cycle + 1}/{cycles} kills", end="", flush=True)
        await gateway.start(http)
        await gateway.stop()
    upstream.stop()
    return compare(folder / "state" / "ledger.sqlite3", upstream.sent, delivered, killed)


async def _moment(work: list[asyncio.Task[bool]], chance: random.Random) -> None:
    """A moment in which some streams are over and some are not, wherever a slow machine puts it."""
    over = chance.randint(0, len(work) - 1)
    async with asyncio.timeout(START_SECONDS):
        pending = set(work)
        while len(work) - len(pending) < over:
            _, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
    await asyncio.sleep(chance.uniform(0, 0.2))


async def _later(delay: float, work: Any) -> bool:
    await asyncio.sleep(delay)
    return bool(await work)


def compare(ledger: Path, sent: dict[str, Sent], delivered: dict[str, bool], killed: dict[str, float]) -> Result:
    """Hold the three records against each other."""
    result = Result(len(delivered), sum(delivered.values()))
    db = sqlite3.connect(ledger)
    rows = db.execute("SELECT request_id, state, prompt_tokens, completion_tokens FROM turns").fetchall()
    by_name: dict[str, tuple[str, int, int]] = {}
    for name, state, prompt, completion in rows:
        result.states[state] += 1
        result.checkpoints += state == "interrupted" and completion > 0
        if name in by_name:
            result.faults.append(f"{name} stands there twice")
        by_name[name] = state, prompt, completion
    for name, whole in delivered.items():
        result.faults += _check(name, by_name.get(name), sent.get(name), whole)
        if name in sent and name not in by_name:
            result.without_row += 1
            if killed[name] - sent[name].came > GRACE:
                result.faults.append(f"{name} ran for {killed[name] - sent[name].came:.2f} s and has no row")
    result.faults += [f"{name} was never asked" for name in by_name.keys() - delivered.keys()]
    result.faults += _check_sums(db)
    db.close()
    return result


def _check(name: str, row: tuple[str, int, int] | None, sent: Sent | None, whole: bool) -> list[str]:
    if row is None:
        return [f"{name} was delivered whole and has no row"] if whole else []
    state, prompt, completion = row
    used = (sent.prompt, sent.completion) if sent else (0, 0)
    if whole and state != "completed":
        return [f"{name} was delivered whole and is {state}"]
    if state == "completed" and (not sent or not sent.whole or (prompt, completion) != used):
        return [f"{name} is completed with {prompt} + {completion}, the upstream sent {used}"]
    if state == "open":
        return [f"{name} is still open"]
    if prompt > used[0] or completion > used[1]:  # less: the checkpoint was made before the upstream had counted
        return [f"{name} is {state} with {prompt} + {completion}, more than the upstream's {used}"]
    return []


def _check_sums(db: sqlite3.Connection) -> list[str]:
    """Roll-ups and keys must say what the rows say."""
    what = "sum(prompt_tokens), sum(completion_tokens)"
    turns = db.execute(f"SELECT count(*), {what} FROM turns").fetchone()
    daily = db.execute(f"SELECT sum(requests), {what} FROM daily").fetchone()
    keys = db.execute(f"SELECT sum(requests), {what} FROM keys").fetchone()
    old = db.execute(f"SELECT count(*), {what} FROM inference_model_api_key_token_usage").fetchone()
    faults = [f"{name} say {sums}, the turns {turns}" for name, sums in (("daily sums", daily), ("keys", keys)) if sums != turns]
    if old[1:] != turns[1:]:
        faults.append(f"the old table's view says {old}, the turns {turns}")
    return faults


def main() -> int:
    """Run it and say what came of it."""
    parser = argparse.ArgumentParser(description="Kill the daemon again and again and check its ledger.")
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=None, help="for the same run again, as far as time allows")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(10**6)
    with tempfile.TemporaryDirectory() as folder:
        result = asyncio.run(run(Path(folder), options.streams, options.kills, seed, progress=sys.stdout.isatty()))
    states = ", ".join(f"{count} {state}" for state, count in sorted(result.states.items()))
    print(f"seed {seed}: {result.asked} streams, {options.kills} kills, {result.delivered} delivered whole")
    print(f"ledger: {states} ({result.checkpoints} of them with tokens); {result.without_row} begun just before a kill have none")
    for fault in result.faults:
        print(f"FAULT {fault}")
    print("sums agree, none lost, none doubled" if not result.faults else f"{len(result.faults)} faults")
    return 1 if result.faults else 0


if __name__ == "__main__":
    sys.exit(main())
