"""Play a captured exchange again and compare: the same question, the same upstream bytes, today's answer.

A daemon of its own runs on a free port of this host with a throw-away state folder, in front of a server that says what was
captured, read by read. Ids, times and sealed texts are left out of the comparison. Exit code 0: the same; 1: it differs (the
difference is printed), or the file cannot be played.
"""

from __future__ import annotations

import argparse
import asyncio
import difflib
import json
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp

from ds2d.app import Daemon
from ds2d.cli.capture import FORMAT
from ds2d.config.source import Source
from ds2d.config.store import ConfigStore

KEY = "sk-replay"
SECONDS = 60.0

_VOLATILE = (
    (re.compile(r"\b((?:chatcmpl|cmpl|resp|msg|rs|fc|call|toolu|item|req|ctc)[-_])[0-9A-Za-z]{16,64}\b"), r"\1ID"),
    (re.compile(r'("(?:created|created_at|completed_at)": ?)[0-9.]+'), r"\g<1>0"),
    (re.compile(r'("(?:signature|encrypted_content|thoughtSignature|responseId|createTime)": ?)"[^"]*"'), r'\1"SEALED"'),
)
"""What is another one each time."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of this verb."""
    parser.add_argument("file", type=Path, metavar="FILE", help="what `ds2d capture export` wrote")
    parser.add_argument("--print", action="store_true", help="print today's answer instead of comparing")


def run(options: argparse.Namespace) -> int:
    """Play and compare."""
    try:
        item = json.loads(options.file.read_bytes())
    except (OSError, ValueError):
        return _refuse(f"{options.file} cannot be read")
    if not isinstance(item, dict) or item.get("format") != FORMAT:
        return _refuse(f"{options.file} is no capture")
    if item["response_truncated"]:
        return _refuse("the captured answer was cut (capture.max_body_bytes): it cannot be played")
    if item.get("request_truncated"):
        return _refuse("the captured question was cut (capture.max_body_bytes): it cannot be asked again")
    if not item["status_code"]:
        return _refuse("no upstream answered in this exchange: there is nothing to play")
    answer = asyncio.run(replay(item))
    if options.print:
        print(answer)
        return 0
    before, now = (comparable(text).splitlines() for text in (item["client_body"], answer))
    difference = list(difflib.unified_diff(before, now, "captured", "today", lineterm="", n=1))
    print("\n".join(difference) if difference else "the same answer")
    return 1 if difference else 0


async def replay(item: dict[str, Any]) -> str:
    """What the client would get today."""
    server = await asyncio.start_server(lambda reader, writer: _play(item, reader, writer), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="ds2d-replay-") as folder:
        path = Path(folder) / "config.json"
        path.write_text(json.dumps(_config(item, port)))
        daemon = Daemon(ConfigStore(Source.file(path)))
        try:
            own = await daemon.start(port=0)
            await daemon.first_look()
            return await _ask(item, own)
        finally:
            await daemon.stop()
            server.close()


def comparable(text: str) -> str:
    """An answer without what is another one each time; a JSON body a line a member."""
    for pattern, instead in _VOLATILE:
        text = pattern.sub(instead, text)
    try:
        return json.dumps(json.loads(text), indent=1, ensure_ascii=False, sort_keys=True)
    except ValueError:
        return text


async def _ask(item: dict[str, Any], port: int) -> str:
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json", "anthropic-version": "2023-06-01"}
    url = f"http://127.0.0.1:{port}{item['path']}"
    timeout = aiohttp.ClientTimeout(total=SECONDS)
    async with (
        aiohttp.ClientSession(timeout=timeout) as http,
        http.post(url, data=item["request_body"].encode(), headers=headers) as reply,
    ):
        return (await reply.read()).decode("utf-8", "replace")


def _config(item: dict[str, Any], port: int) -> dict[str, Any]:
    """A config in which the name that was asked for leads to the captured server."""
    upstream = {"name": "captured", "base_url": f"http://127.0.0.1:{port}/v1", "flavour": item["flavour"] or "auto"}
    models = {name: {"upstream": "captured", "model": item["model"] or name} for name in _asked_names(item)}
    return {"keys": [KEY], "upstreams": [upstream], "models": models}


def _asked_names(item: dict[str, Any]) -> Iterator[str]:
    body = json.loads(item["request_body"])
    if isinstance(body.get("model"), str):
        yield body["model"]
    if found := re.search(r"/models/([^:?]+):", item["path"]):
        yield found[1]


async def _play(item: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one request: the model list, or what was captured; then close."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        if length := re.search(r"(?i)content-length: *([0-9]+)", head):
            await reader.readexactly(int(length[1]))
        if head.startswith("GET"):
            listing = json.dumps({"object": "list", "data": [{"id": item["model"], "object": "model", "owned_by": "capture"}]})
            _write_head(writer, 200, "application/json")
            writer.write(listing.encode())
        else:
            _write_head(writer, item["status_code"] or 200, item["content_type"] or "application/json")
            for piece in _reads(item):
                writer.write(piece)
                await writer.drain()
        await writer.drain()
    except (ConnectionError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.close()


def _write_head(writer: asyncio.StreamWriter, status: int, content_type: str) -> None:
    writer.write(f"HTTP/1.1 {status} X\r\nContent-Type: {content_type}\r\nConnection: close\r\n\r\n".encode("latin-1"))


def _reads(item: dict[str, Any]) -> Iterator[bytes]:
    """The captured bytes as they were read, where nothing was masked in them."""
    body = item["response_body"].encode()
    cuts = item["cuts"] if sum(item["cuts"]) == len(body) else [len(body)]
    at = 0
    for size in cuts:
        yield body[at : at + size]
        at += size


def _refuse(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 1
