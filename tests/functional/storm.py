"""config.json rewritten again and again in every editor's way, one write in five broken, while clients are served.

The short form is a test (test_config_live.py), the long one `scripts/config-storm`.
"""

from __future__ import annotations

import asyncio
import json
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.config.test_store import STYLES
from tests.functional.harness import Running
from tests.functional.test_queue import until

CHAT = "/v1/chat/completions"
ASK: dict[str, Any] = {"model": "deepseek-chat", "messages": [{"role": "user", "content": "Hello"}]}
STREAM: dict[str, Any] = {**ASK, "stream": True}
BROKEN = ["{", "", '{"keys": [1]}', '{"x": 1}', "[]", '{"runtime": {"max_attempts": 99}}']

SETTLE_EVERY = 10
"""Every so many writes the storm holds its breath until the last one counts, however fast or slow the machine is."""


@dataclass
class Storm:
    """What came of it: requests served, those that failed, and writes that were seen to count."""

    served: int = 0
    counted: int = 0
    failed: list[Any] = field(default_factory=list)


def write(style: Any, path: Path, content: object) -> None:
    """Save as this editor does, without a pause."""
    for _ in style(path, content if isinstance(content, str) else json.dumps(content)):
        pass


async def storm(ds2d: Running, writes: int, clients: int, seed: int = 7) -> Storm:
    """Rewrite the file `writes` times, with pauses in mid-write, while `clients` ask without a pause. The daemon watches."""
    good = ds2d.config()
    dice = random.Random(seed)
    stop = asyncio.Event()
    result = Storm()

    async def client(body: dict[str, Any]) -> None:
        while not stop.is_set():
            status, answer, _ = await ds2d.ask(CHAT, body)
            whole = "[DONE]" in answer and '"error"' not in answer if body.get("stream") else "choices" in answer
            if status != 200 or not whole:
                result.failed.append((status, answer))
            result.served += 1

    async def counts(alias: str) -> None:
        await until(lambda: ds2d.daemon.config().model_aliases.get("storm") == alias, 20)
        result.counted += 1

    tasks = [asyncio.create_task(client((ASK, STREAM)[number % 2])) for number in range(clients)]
    try:
        for number in range(writes):
            alias = f"alias-{number}"
            content = json.dumps({**good, "model_aliases": {"storm": alias}})
            for _ in dice.choice(STYLES)(ds2d.path, dice.choice(BROKEN) if number % 5 == 4 else content):
                await asyncio.sleep(dice.choice((0, 0, 0.004)))
            if number % SETTLE_EVERY == 0:
                await counts(alias)
            await asyncio.sleep(dice.choice((0, 0.002, 0.01)))
        await asyncio.to_thread(write, STYLES[0], ds2d.path, {**good, "model_aliases": {"storm": "deepseek-chat"}})
        await counts("deepseek-chat")
    finally:
        stop.set()
        await asyncio.gather(*tasks)
    return result
