"""The pure parts of a turn as pieces of work that can be counted: bytes in, bytes out, no sockets, clocks or threads.

Each cell is a function that makes its work ready and returns what to run; one run is one unit (a chunk, a request, a body).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import orjson

from ds2d import toolcalls
from ds2d.core.events import Folder
from ds2d.core.models import Facts, Target
from ds2d.core.pipeline import Encoding, Pipeline
from ds2d.core.request import ChatRequest, Envelope, Inbound
from ds2d.core.settings import ModelSpec, UpstreamSpec
from ds2d.core.sse import Splitter, WholeBody
from ds2d.dialects import REGISTRY
from ds2d.net.wire import Chunked
from ds2d.upstreams import openai

HEAD = {"id": "chatcmpl-0123456789abcdef0123456789abcdef", "object": "chat.completion.chunk", "created": 1790000000, "model": "m"}
TOOL = {
    "type": "function",
    "function": {"name": "look_up", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}
TARGET = Target(UpstreamSpec(name="up", base_url="http://127.0.0.1:1"), "m", ModelSpec(), Facts("vllm"))
BATCH = 16
"""Chunks of one read where they come without pauses."""

Work = Callable[[int], object]
"""Do so many units."""


def chunk(delta: dict[str, Any]) -> bytes:
    """One chunk of a stream as a server writes it."""
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None, "token_ids": None}
    return b"data: " + orjson.dumps({**HEAD, "choices": [choice]}) + b"\n\n"


def envelope(request: ChatRequest) -> Envelope:
    """All that an encoder needs; ids and clocks stand still."""
    return Envelope(
        request=request,
        model="m",
        request_id="req_1",
        created=1790000000,
        new_id=lambda prefix: prefix + "0123456789abcdef01234567",
        now=lambda: 1790000000,
        seal=lambda text: text,
        usage=lambda: None,
        prompt_tokens=lambda: 7,
        reasoning_field="reasoning_content",
        settings={"responses.reasoning_events": "summary", "gemini.stream_default": "sse"},
    )


def parsed(dialect: str, **more: Any) -> ChatRequest:
    """A question in this dialect."""
    text = "Summarise the following text in one paragraph. " * 8
    bodies: dict[str, dict[str, Any]] = {
        "claude": {"model": "m", "max_tokens": 100, "messages": [{"role": "user", "content": text}]},
        "gemini": {"contents": [{"role": "user", "parts": [{"text": text}]}]},
        "openai_chat": {
            "model": "m",
            "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": text}],
        },
        "openai_responses": {"model": "m", "input": text},
    }
    path = {"model": "m", "action": "streamGenerateContent"} if dialect == "gemini" else {}
    return REGISTRY[dialect].parse(Inbound({**bodies[dialect], **more}, {}, {}, path))


def pipeline_for(dialect: str, **more: Any) -> Pipeline:
    """The stages of a streamed answer."""
    request = parsed(dialect, **more)
    encoder: Encoding = REGISTRY[dialect].Encoder(envelope(request))
    think: toolcalls.Think = "outside"
    stages = toolcalls.build(request, lambda prefix: prefix + "1", think=think)
    return Pipeline(Splitter(), openai.Decoder(request, TARGET), stages, encoder)


def streamed(dialect: str, delta: dict[str, Any], batch: int, **more: Any) -> Work:
    """Chunks through HTTP's framing and all stages, `batch` in a read."""
    body = chunk(delta)
    read = (b"%x\r\n%b\r\n" % (len(body), body)) * batch
    framing, pipeline = Chunked(), pipeline_for(dialect, **more)
    pipeline.feed(framing.feed(read))

    def work(units: int) -> None:
        for _ in range(units // batch):
            pipeline.feed(framing.feed(read))

    return work


def whole_answers() -> Work:
    """Bodies of 1 kB, folded and written again."""
    message = {"role": "assistant", "content": "x y z, " * 140}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    usage = {"prompt_tokens": 9, "completion_tokens": 100, "total_tokens": 109}
    body = orjson.dumps({**HEAD, "object": "chat.completion", "choices": [choice], "usage": usage})
    request = parsed("openai_chat")

    def work(units: int) -> None:
        for _ in range(units):
            folder = Folder()
            stages = toolcalls.build(request, lambda prefix: prefix + "1", think="outside")
            pipeline = Pipeline(WholeBody(1 << 20), openai.Decoder(request, TARGET), stages, folder)
            pipeline.feed(body)
            pipeline.finish()
            pipeline.close()
            REGISTRY["openai_chat"].render(folder.completion, envelope(request))

    return work


def questions(dialect: str) -> Work:
    """A question read and put to the server."""

    def work(units: int) -> None:
        for _ in range(units):
            steps = openai.prepare(parsed(dialect), TARGET, "sk-1")
            with contextlib.suppress(StopIteration):
                next(steps)

    return work


def calibration() -> Work:
    """Python's own work of the same kinds, and nothing of ours: what every figure is told in."""

    class Thing:
        __slots__ = ("held", "name")

        def __init__(self, name: str) -> None:
            self.name = name
            self.held: list[bytes] = []

        def take(self, data: bytes) -> bytes:
            self.held.append(data)
            first, _, rest = data.partition(b":")
            found = {"name": self.name, "size": len(rest)}
            return first if found.get("size") else b"".join(self.held)

    def work(units: int) -> None:
        for _ in range(units):
            thing = Thing("a")
            for number in range(10):
                thing.take(b"data: %d" % number)

    return work


CELLS: dict[str, tuple[int, Callable[[], Work]]] = {
    "calibration": (400, calibration),
    "chunk, chat": (800, lambda: streamed("openai_chat", {"content": " word"}, BATCH)),
    "chunk alone, chat": (400, lambda: streamed("openai_chat", {"content": " word"}, 1)),
    "chunk, chat with tools": (800, lambda: streamed("openai_chat", {"content": " word"}, BATCH, tools=[TOOL])),
    "chunk of reasoning, chat": (800, lambda: streamed("openai_chat", {"reasoning": " word"}, BATCH)),
    "chunk, claude": (800, lambda: streamed("claude", {"content": " word"}, BATCH)),
    "chunk, gemini": (800, lambda: streamed("gemini", {"content": " word"}, BATCH)),
    "chunk, responses": (800, lambda: streamed("openai_responses", {"content": " word"}, BATCH)),
    "whole answer, chat": (100, whole_answers),
    **{
        f"question, {name}": (100, lambda name=name: questions(name))
        for name in ("openai_chat", "claude", "gemini", "openai_responses")
    },
}
"""Name, units of one count, and what makes the work."""
