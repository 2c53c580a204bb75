"""How long very large questions hold the event loop at most.

    .venv/bin/python -m bench.bodies [--dialect NAME] [SHAPE...]

One daemon with everything on, in this process; client and upstream are others. Between any two looks of the loop at itself:
`loop` is its own thread's CPU, `process` that of all threads, which bounds what it waited for the interpreter. Wall time is left
out: on a busy machine it tells of others.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvloop

from bench.programs import KEY, upstream
from ds2d.app import Daemon
from ds2d.cli.allocator import keep_memory
from ds2d.cli.serve import SWITCH, spare_collector
from ds2d.config.source import Source
from ds2d.config.store import ConfigStore

MB = 1024 * 1024
TIMES = 3
"""Questions of each shape, one after the other."""

CODE = 'def f(x):\n    """Say "what" it does."""\n    return "a" + str(x)  # and why\n\n'

CLIENT = """
import socket, sys
port, key, file, times, path = int(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5]
body = open(file, "rb").read()
head = f"POST {path} HTTP/1.1\\r\\nHost: x\\r\\nAuthorization: Bearer {key}\\r\\nConnection: close\\r\\n"
for _ in range(times):
    with socket.create_connection(("127.0.0.1", port)) as link:
        link.sendall(f"{head}Content-Type: application/json\\r\\nContent-Length: {len(body)}\\r\\n\\r\\n".encode() + body)
        answer = b"".join(iter(lambda: link.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 200"), answer[-300:]
"""


def said(*content: Any) -> list[dict[str, Any]]:
    """Messages of a user."""
    return [{"role": "user", "content": one} for one in content]


def image(size: int) -> dict[str, Any]:
    """An image part of about so many bytes."""
    data = base64.b64encode(random.Random(1).randbytes(size // 4 * 3)).decode()
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}


def calls(count: int) -> list[dict[str, Any]]:
    """A history of so many tool calls."""
    function = {"name": "look", "arguments": '{"path": "src/main.py"}'}
    turns: list[dict[str, Any]] = said("go")
    for number in range(count):
        call = {"id": f"c{number}", "type": "function", "function": function}
        turns.append({"role": "assistant", "content": None, "tool_calls": [call]})
        turns.append({"role": "tool", "tool_call_id": f"c{number}", "content": CODE * 4})
    return turns


def contents(messages: list[dict[str, Any]]) -> dict[str, Any]:
    """A question to Gemini's routes."""
    return {"contents": [{"role": "user", "parts": [{"text": message["content"]}]} for message in messages]}


DIALECTS: dict[str, tuple[str, Callable[[list[dict[str, Any]]], dict[str, Any]]]] = {
    "openai_chat": ("/v1/chat/completions", lambda messages: {"model": "bench", "messages": messages}),
    "openai_responses": ("/v1/responses", lambda messages: {"model": "bench", "input": messages}),
    "claude": ("/v1/messages", lambda messages: {"model": "bench", "max_tokens": 9, "messages": messages}),
    "gemini": ("/v1beta/models/bench:generateContent", contents),
}
"""Path and body of a question; but for chat only of words."""

SHAPES: dict[str, Callable[[], list[dict[str, Any]]]] = {
    "text of 28 MB": lambda: said("word " * (28 * MB // 5)),
    "code of 28 MB": lambda: said(CODE * (28 * MB // len(json.dumps(CODE)))),
    "Chinese of 28 MB": lambda: said("你好世界" * (28 * MB // 12)),
    "16 MB of small messages": lambda: said(*["word " * 60] * (16 * MB // 340)),
    "16 MB of calls": lambda: calls(25_000),
    "an image of 40 MB": lambda: said([{"type": "text", "text": "What is it?"}, image(40 * MB)]),
    "63 MB of messages": lambda: said(*["word " * 400] * (63 * MB // 2033)),
    "text of 63 MB": lambda: said("word " * (63 * MB // 5)),
    "the same with an emoji at its end": lambda: said("word " * (63 * MB // 5) + "🙂"),
    "28 MB of calls": lambda: calls(49_900),
}

WORDS = [shape for shape in SHAPES if "call" not in shape and "image" not in shape]
"""Shapes for every dialect."""


async def longest(work: asyncio.Task[Any]) -> tuple[float, float]:
    """The most CPU between two looks while it runs, in milliseconds: the loop's, and the process's."""
    loop = process = 0.0
    before = time.thread_time(), time.process_time()
    while not work.done():
        await asyncio.sleep(0)
        now = time.thread_time(), time.process_time()
        loop, process = max(loop, now[0] - before[0]), max(process, now[1] - before[1])
        before = now
    await work
    return loop * 1000, process * 1000


async def ask(port: int, file: Path, path: str) -> None:
    """Send what is in the file, from another process. Raises SystemExit where it was not answered."""
    command = (sys.executable, "-c", CLIENT, str(port), KEY, str(file), str(TIMES), path)
    # the event loop's own way forks, which takes longer the more memory this process has
    if (await asyncio.to_thread(subprocess.run, command, check=False)).returncode:
        raise SystemExit("a question was not answered")


async def measure(folder: Path, dialect: str, shapes: list[str]) -> None:
    """Print a line for each shape."""
    up = upstream(folder)
    path, question = DIALECTS[dialect]
    config = {
        "keys": [KEY],
        "upstreams": [{"name": "up", "base_url": f"http://127.0.0.1:{up.port}/v1"}],
        "models": {"bench": {"upstream": "up", "images": True}},
        "images": {"max_bytes": 64 * MB},
    }
    (folder / "config.json").write_text(json.dumps(config))
    daemon = Daemon(ConfigStore(Source.file(folder / "config.json")))
    port = await daemon.start(port=0)
    try:
        await daemon.first_look()
        await daemon.counter.tried.wait()  # what comes late in a start is none of a question's
        spare_collector()
        for shape in shapes:
            body = json.dumps(question(SHAPES[shape]()), ensure_ascii=False).encode()
            (folder / "body").write_bytes(body)
            loop, process = await longest(asyncio.create_task(ask(port, folder / "body", path)))
            print(f"{shape:33s} {len(body) / MB:5.1f} MB   loop {loop:6.1f} ms   process {process:6.1f} ms", flush=True)
    finally:
        await daemon.stop()
        up.stop()


def main() -> None:
    """The command."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--dialect", default="openai_chat", choices=DIALECTS)
    arguments.add_argument("shapes", nargs="*", metavar="SHAPE", help=", ".join(SHAPES))
    options = arguments.parse_args()
    shapes = options.shapes or (list(SHAPES) if options.dialect == "openai_chat" else WORDS)
    keep_memory()
    sys.setswitchinterval(SWITCH)
    with tempfile.TemporaryDirectory() as folder:
        uvloop.run(measure(Path(folder), options.dialect, shapes))


if __name__ == "__main__":
    main()
