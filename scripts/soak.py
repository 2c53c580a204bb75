"""Memory and descriptors of the real process over many mixed turns. The short form is tests/functional/test_soak.py."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import uvloop

from tests.functional.processes import KEY, Process, serving
from tests.functional.scripted import END, RESET, Scene, ScriptedUpstream, Seen, chunk, refuse, say, scripted_upstream, sse
from tests.functional.test_every_dialect import QUESTIONS

BOUND = 5 * 1024 * 1024
"""Bytes by which memory may grow after the warm-up (reliability.md, promise 3)."""

CONFIG: dict[str, Any] = {
    "keys": [KEY],
    "runtime": {"max_attempts": 1, "breaker": {"failures": 1000, "open_seconds": 1}},
    "responses": {"store_bytes": 1048576},
    "reasoning": {"memory_bytes": 1048576},
}
"""Stores that are meant to fill up are full after the warm-up."""

THOUGHT = sse(
    chunk({"reasoning": "Let me see."}),
    chunk({"tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]}),
    chunk({}, "tool_calls"),
)
FAULTS = (
    Scene([*say("Hel", "lo")[:2], RESET]),
    Scene([*say("Hel", "lo")[:2], END]),
    Scene([*say("Hel", "lo")[:2], b"data: {nope\n\n"]),
    refuse(500, {"error": {"message": "no"}}),
    refuse(429, {}),
)


@dataclass
class Result:
    """What came of it."""

    turns: int = 0
    statuses: dict[str, int] = field(default_factory=dict)
    memory: list[int] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)
    sizes: dict[str, Any] = field(default_factory=dict)

    @property
    def growth(self) -> int:
        """Bytes between the end of the warm-up and the end."""
        return self.memory[-1] - self.memory[0]

    def note(self, name: str) -> None:
        self.turns += 1
        self.statuses[name] = self.statuses.get(name, 0) + 1


class Load:
    """Clients without a pause."""

    def __init__(self, process: Process, upstream: ScriptedUpstream, seed: int) -> None:
        self._process = process
        self._dice = random.Random(seed)
        self.result = Result()
        upstream.decide = self._decide

    def _decide(self, seen: Seen) -> Scene | None:
        if self._dice.random() < 0.1:
            return self._dice.choice(FAULTS)
        if "/chat/" not in seen.path:
            return Scene([plain_completion(bool(seen.body.get("stream")))], content_type=kind_of(seen))
        return Scene(THOUGHT) if seen.body.get("stream") and self._dice.random() < 0.1 else None

    async def run(self, turns: int, clients: int) -> None:
        """So many turns by so many clients."""
        end = self.result.turns + turns
        async with aiohttp.ClientSession() as http:
            await asyncio.gather(*(self._client(http, end) for _ in range(clients)))

    async def _client(self, http: aiohttp.ClientSession, end: int) -> None:
        while self.result.turns < end:
            dialect = self._dice.choice(list(QUESTIONS))
            path, body, stream_path, more = QUESTIONS[dialect]
            where, what = (stream_path, {**body, **more}) if self._dice.random() < 0.6 else (path, body)
            fate = self._dice.random()
            key = "sk-wrong" if fate < 0.02 else KEY
            if 0.02 <= fate < 0.04:
                what = {"model": 7}
            url = f"http://127.0.0.1:{self._process.port}{where}"
            async with http.post(url, json=what, headers={"Authorization": f"Bearer {key}"}) as reply:
                if fate > 0.95:
                    await reply.content.readany()
                    reply.close()
                    self.result.note("left")
                else:
                    await reply.read()
                    self.result.note(str(reply.status))

    def look(self) -> None:
        """Take the process's measure."""
        folder = Path(f"/proc/{self._process.popen.pid}")
        lines = (folder / "status").read_text().splitlines()
        self.result.memory.append(int(next(line.split()[1] for line in lines if line.startswith("VmRSS"))) * 1024)
        self.result.descriptors.append(len(os.listdir(folder / "fd")))


def kind_of(seen: Seen) -> str:
    """The content type that this question expects."""
    return "text/event-stream" if seen.body.get("stream") else "application/json"


def plain_completion(stream: bool) -> bytes:
    """An answer on the legacy wire."""
    choice = {"index": 0, "text": "Hello", "logprobs": None, "finish_reason": "stop"}
    body = {"id": "cmpl-up", "object": "text_completion", "created": 1763640000, "model": "up", "choices": [choice]}
    return b"".join(sse(body)) if stream else json.dumps(body).encode()


async def soak(folder: Path, turns: int, warm_up: int, clients: int = 20, looks: int = 10, seed: int = 7) -> Result:
    """Warm up, then look at the process `looks` times while the turns go on."""
    async with scripted_upstream() as upstream:
        upstreams = [{"name": "gpu", "kind": "openai", "base_url": upstream.base_url, "max_inflight": 100}]
        with serving(folder, config={**CONFIG, "upstreams": upstreams}) as process:
            while (await asyncio.to_thread(process.ask, "/readyz"))[0] != 200:
                pass
            load = Load(process, upstream, seed)
            await load.run(warm_up, clients)
            load.look()
            for _ in range(looks):
                await load.run(turns // looks, clients)
                load.look()
            return load.result


def main() -> int:
    """Soak and tell."""
    parser = argparse.ArgumentParser(prog="scripts/soak", description=__doc__)
    parser.add_argument("--turns", type=int, default=100_000)
    parser.add_argument("--warm-up", type=int, default=10_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = uvloop.run(soak(Path(folder), options.turns, options.warm_up))
    print(f"{result.turns} turns: " + ", ".join(f"{count} {name}" for name, count in sorted(result.statuses.items())))
    print("memory, MB: " + ", ".join(f"{size / 1024 / 1024:.1f}" for size in result.memory))
    print("descriptors: " + ", ".join(map(str, result.descriptors)))
    print(f"grown by {result.growth / 1024 / 1024:.1f} MB since the warm-up, of {BOUND / 1024 / 1024:.0f} allowed")
    return int(result.growth > BOUND)


if __name__ == "__main__":
    sys.exit(main())
