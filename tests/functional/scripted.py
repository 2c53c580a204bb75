"""A model server that says what a test wrote: real HTTP on loopback, every byte and pause under control.

A `Scene` is one answer: status, headers, and pieces that are bytes to send, `Wait(event)` to hold until the test says so,
seconds (a float) to pause, or `RESET` / `END`. Scenes are taken in order from `scenes`; without one the server answers like
a small vLLM.
Raw sockets instead of a web framework, because faults (a broken chunk, a reset in mid-line) are what it is for.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

RESET = object()
"""Close with a TCP reset."""
END = object()
"""Close in order, without the last chunk."""


@dataclass
class Wait:
    """Hold the answer here until the event is set; `reached` tells the test that it got here."""

    until: asyncio.Event = field(default_factory=asyncio.Event)
    reached: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass
class Scene:
    """One answer. Chunked unless `headers` say otherwise; `raw` sends the pieces without chunk framing or head."""

    pieces: list[Any]
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    content_type: str = "text/event-stream; charset=utf-8"
    raw: bool = False


@dataclass
class Seen:
    """One request that arrived; `closed` is set when its connection went away before the answer was whole."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any
    raw: bytes
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    done: asyncio.Event = field(default_factory=asyncio.Event)


def sse(*events: Any, done: bool = True) -> list[bytes]:
    """Events as the frames that vLLM sends."""
    frames = [b"data: " + json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n" for event in events]
    return [*frames, b"data: [DONE]\n\n"] if done else frames


def chunk(delta: dict[str, Any] | None = None, finish: str | None = None, index: int = 0, **more: Any) -> dict[str, Any]:
    """One chat chunk."""
    choice = {"index": index, "delta": delta or {}, "logprobs": None, "finish_reason": finish}
    head = {"id": "chatcmpl-up", "object": "chat.completion.chunk", "created": 1763640000, "model": "up"}
    return {**head, "choices": [choice], **more}


def usage(prompt: int = 7, completion: int = 5) -> dict[str, Any]:
    """The usage chunk that comes last."""
    return {
        **chunk(),
        "choices": [],
        "usage": {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion},
    }


def say(*texts: str, finish: str = "stop", reasoning: tuple[str, ...] = ()) -> list[bytes]:
    """A whole streamed answer of these texts."""
    events = [chunk({"role": "assistant", "content": ""})]
    events += [chunk({"reasoning": text}) for text in reasoning]
    events += [chunk({"content": text}) for text in texts]
    return sse(*events, chunk({}, finish), usage())


def whole(message: dict[str, Any], finish: str = "stop", **more: Any) -> Scene:
    """A non-streamed answer."""
    body = {
        "id": "chatcmpl-up",
        "object": "chat.completion",
        "created": 1763640000,
        "model": "up",
        "choices": [{"index": 0, "message": {"role": "assistant", **message}, "logprobs": None, "finish_reason": finish}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12},
        **more,
    }
    return Scene([json.dumps(body).encode()], content_type="application/json")


def refuse(status: int, body: Any, **headers: str) -> Scene:
    """An error answer."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Scene([raw], status, {name.replace("_", "-"): value for name, value in headers.items()}, "application/json")


def answer(body: Any) -> Scene:
    """Some JSON."""
    return Scene([json.dumps(body).encode()], content_type="application/json")


class ScriptedUpstream:
    """The server. `seen` are the model requests in order; polls of the model list are answered and counted apart."""

    def __init__(self, models: tuple[str, ...] = ("deepseek-tiny",)) -> None:
        self.models = models
        self.scenes: list[Scene] = []
        self.by_model: dict[str, Scene] = {}
        self.decide: Callable[[Seen], Scene | None] = lambda seen: None
        """Asked first, where an answer depends on the question (logins, tokens)."""
        self.seen: list[Seen] = []
        self.polls = 0
        self.polled: list[str] = []
        self.answer_text = "Hello from upstream."
        self.version: str | None = "0.32.0"
        self.gauges: dict[str, float] = {}
        """What it says of its load, by vLLM's names without their prefix; empty: nothing."""
        self.pages: dict[str, Scene] = {}
        """Answers to GETs by path, besides the model list and the version."""
        self.up = True
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = 0

    async def start(self, port: int = 0) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            for writer in list(self._writers):
                writer.transport.abort()
            await self._server.wait_closed()
            self._server = None

    def answer_as_completion(self) -> None:
        """Answer the next two questions on the legacy wire: one whole, one streamed."""
        head = {"id": "cmpl-up", "object": "text_completion", "created": 1763640000, "model": "up"}
        counts = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
        choice = {"index": 0, "text": self.answer_text, "logprobs": None, "finish_reason": "stop"}
        body = json.dumps({**head, "choices": [choice], "usage": counts}).encode()
        said = {**head, "choices": [{**choice, "finish_reason": None}]}
        end = {**head, "choices": [{**choice, "text": ""}]}
        self.scenes += [
            Scene([body], content_type="application/json"),
            Scene(sse(said, end, {**head, "choices": [], "usage": counts})),
        ]

    def tell_routes(self, *paths: str) -> None:
        """Have a document of routes, as vLLM has."""
        self.pages["/openapi.json"] = answer({"openapi": "3.1.0", "paths": {path: {} for path in paths}})

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while await self._one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # cancelled: the test is over while an answer was held
        finally:
            self._writers.discard(writer)
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return False
        first, *lines = head.decode("latin-1").split("\r\n")
        method, path, _ = first.split(" ")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
        raw = await reader.readexactly(int(headers.get("content-length", 0)))
        if method == "GET":
            self.polls += 1
            self.polled.append(path)
            await self._send(writer, self._poll(path))
            return True
        is_json = "json" in headers.get("content-type", "")
        seen = Seen(method, path, headers, json.loads(raw) if raw and is_json else None, raw)
        self.seen.append(seen)
        watcher = asyncio.create_task(self._watch(reader, seen))
        try:
            keep = await self._send(writer, self._scene(seen))
        except (ConnectionError, RuntimeError):  # uvloop's word for a handle that is closed
            seen.closed.set()
            keep = False
        finally:
            seen.done.set()
            watcher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watcher
        return keep and not seen.closed.is_set()

    async def _watch(self, reader: asyncio.StreamReader, seen: Seen) -> None:
        """Nothing more may come on this connection while it is answered: its end means that the client left."""
        with contextlib.suppress(ConnectionError):  # a reset is an end, too
            while not reader.at_eof():
                if reader._buffer:  # type: ignore[attr-defined]  # pipelined bytes belong to the next request
                    return
                await reader._wait_for_data("watch")  # type: ignore[attr-defined]
        seen.closed.set()

    def _scene(self, seen: Seen) -> Scene:
        if scene := self.decide(seen):
            return scene
        if self.scenes:
            return self.scenes.pop(0)
        body = seen.body or {}
        if scene := self.by_model.get(body.get("model", "")):
            return scene
        if seen.path.endswith("/tokenize"):
            counted = {"count": len(seen.raw) // 4, "max_model_len": 4096, "tokens": []}
            return Scene([json.dumps(counted).encode()], content_type="application/json")
        if body.get("stream"):
            words = self.answer_text.split(" ")
            return Scene(say(*[word if i == 0 else " " + word for i, word in enumerate(words)]))
        return whole({"content": self.answer_text})

    def _poll(self, path: str) -> Scene:
        if path in self.pages:
            return self.pages[path]
        if path.endswith("/version") and self.version:
            return Scene([json.dumps({"version": self.version}).encode()], content_type="application/json")
        if path == "/metrics" and self.gauges:
            text = "".join(f'vllm:{name}{{engine="0"}} {value}\n' for name, value in self.gauges.items())
            return Scene([text.encode()], content_type="text/plain")
        if path.endswith("/models"):
            data = [
                {
                    "id": model,
                    "object": "model",
                    "created": 1763640000,
                    "owned_by": "vllm",
                    "root": model,
                    "parent": None,
                    "max_model_len": 4096,
                    "permission": [{"id": "modelperm-1", "object": "model_permission", "allow_sampling": True}],
                }
                for model in self.models
            ]
            return Scene([json.dumps({"object": "list", "data": data}).encode()], content_type="application/json")
        return refuse(404, {"detail": "Not Found"})

    async def _send(self, writer: asyncio.StreamWriter, scene: Scene) -> bool:
        """Write one answer; False when the connection is of no further use."""
        if not scene.raw:
            headers = {"Content-Type": scene.content_type, "Transfer-Encoding": "chunked", **scene.headers}
            head = f"HTTP/1.1 {scene.status} X\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers.items())
            writer.write(head.encode("latin-1") + b"\r\n")
        for piece in scene.pieces:
            if isinstance(piece, Wait):
                piece.reached.set()
                await piece.until.wait()
            elif isinstance(piece, float):
                await asyncio.sleep(piece)
            elif piece is RESET:
                sock: socket.socket = writer.get_extra_info("socket")
                await writer.drain()
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
                return False
            elif piece is END:
                await writer.drain()
                return False
            else:
                writer.write(piece if scene.raw else f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
                await writer.drain()
        if not scene.raw:
            writer.write(b"0\r\n\r\n")
        await writer.drain()
        return not scene.raw


@contextlib.asynccontextmanager
async def scripted_upstream(*models: str) -> AsyncIterator[ScriptedUpstream]:
    """A running server for the body of the `with`."""
    server = ScriptedUpstream(models or ("deepseek-tiny",))
    await server.start()
    try:
        yield server
    finally:
        await server.stop()
