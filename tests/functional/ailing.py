"""A model server that does everything right, and ways in which one, or what stands before the gateway, can be ill."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
from aiohttp import web

from tests.functional.scenes import calling, calling_whole
from tests.functional.scripted import (
    END,
    RESET,
    Scene,
    ScriptedUpstream,
    Seen,
    Wait,
    answer,
    chunk,
    refuse,
    say,
    sse,
    usage,
    whole,
)

Decide = Callable[[Seen], Scene | None]
CITIES = (("get_weather", {"city": "Paris"}), ("get_weather", {"city": "London"}))
USED = {"usage": {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}}


def text_of(seen: Seen) -> str:
    """What the last message says."""
    messages = seen.body.get("messages")
    return str(messages[-1].get("content")) if isinstance(messages, list) else ""


def continued() -> Scene:
    """A legacy completion in one piece."""
    choice = {"index": 0, "text": "Hi", "logprobs": None, "finish_reason": "stop"}
    counts = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
    return answer(
        {"id": "cmpl-up", "object": "text_completion", "created": 1, "model": "up", "choices": [choice], "usage": counts}
    )


def counting(seen: Seen, *more: Any) -> Scene:
    """A long answer that goes on until its client leaves."""
    heads = sse(*(chunk({"content": f"{number} "}, **USED) for number in range(1, 5)), done=False)
    return Scene([*heads, Wait(until=seen.closed), *more])


class Healthy:
    """Answers as a good model on a good server does. `server` tells how many requests run."""

    def __init__(self, server: ScriptedUpstream) -> None:
        self.server = server
        self.server.gauges = {"num_requests_running": 0.0, "num_requests_waiting": 0.0}
        self._tasks: set[asyncio.Task[None]] = set()

    def __call__(self, seen: Seen) -> Scene | None:
        body = seen.body
        if "messages" not in body:
            return continued() if seen.path.endswith("/completions") else None
        if not isinstance(body.get("messages"), list):
            return refuse(400, {"error": {"message": "messages must be a list", "type": "BadRequestError", "code": 400}})
        if len(seen.raw) > 1_000_000:
            return refuse(400, {"error": {"message": "This model's maximum context length is 4096 tokens.", "code": 400}})
        if "Count" in text_of(seen):
            self.runs(seen)
            return counting(seen)
        if body.get("tools") and body["messages"][-1]["role"] != "tool":
            return calling(*CITIES) if body.get("stream") else calling_whole(*CITIES)
        if "Repeat" in text_of(seen):
            return Scene(say(*"你好，世界！🚀"))
        return None

    def runs(self, seen: Seen) -> None:
        """It shows in the gauges until its client leaves."""
        self.server.gauges["num_requests_running"] += 1

        async def until_left() -> None:
            await seen.closed.wait()
            self.server.gauges["num_requests_running"] -= 1

        task = asyncio.get_running_loop().create_task(until_left())
        self._tasks.add(task)


def half_a_character(seen: Seen) -> Scene | None:
    """Its detokenizer cuts characters in two."""
    if "Repeat" not in text_of(seen):
        return None
    cut = [frame.replace("你".encode(), "你".encode()[:2]) for frame in say("a", "你好", "b")]
    return Scene(cut)


def replaced_character(seen: Seen) -> Scene | None:
    """It sends U+FFFD in place of halves."""
    return Scene(say("a\ufffd", "b")) if "Repeat" in text_of(seen) else None


def closes_early(seen: Seen) -> Scene | None:
    """Its streams end in the middle, in good order."""
    return Scene([*sse(chunk({"content": "Once upon"}), done=False), END]) if "story" in text_of(seen) else None


def resets(seen: Seen) -> Scene | None:
    """Its streams are reset."""
    return Scene([*sse(chunk({"content": "Once upon"}), done=False), RESET]) if "story" in text_of(seen) else None


def wants_tools(seen: Seen) -> bool:
    return bool(seen.body.get("tools")) and seen.body["messages"][-1]["role"] != "tool"


def calls_as_text(seen: Seen) -> Scene | None:
    """No tool parser runs."""
    call = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>\n'
    return Scene(say(*(call + call.replace("Paris", "London")))) if wants_tools(seen) else None


def refuses_tools(seen: Seen) -> Scene | None:
    """It was started without a tool parser, and says so."""
    text = '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'
    return refuse(400, {"error": {"message": text, "code": 400}}) if seen.body.get("tools") else None


def merges_calls(seen: Seen) -> Scene | None:
    """Both calls come under one index."""
    if not wants_tools(seen):
        return None
    pieces = [
        {"index": 0, "id": f"call_{n}", "type": "function", "function": {"name": name, "arguments": json.dumps(given)}}
        for n, (name, given) in enumerate(CITIES)
    ]
    return Scene(sse(*(chunk({"tool_calls": [piece]}) for piece in pieces), chunk({}, "tool_calls"), usage()))


def forgets_thinking(seen: Seen) -> Scene | None:
    """A history with calls is refused."""
    last = seen.body["messages"][-1] if isinstance(seen.body["messages"], list) else {}
    return (
        refuse(400, {"error": {"message": "tool messages are not supported", "code": 400}})
        if last.get("role") == "tool"
        else None
    )


def small_bodies(seen: Seen) -> Scene | None:
    """Something before it takes small bodies only."""
    return Scene([b"<html>413</html>"], 413, content_type="text/html") if len(seen.raw) > 1_000_000 else None


def silent_on_usage(seen: Seen) -> Scene | None:
    """It never tells what was used."""
    if seen.body.get("stream") and "Hello" in text_of(seen):
        return Scene(sse(chunk({"content": "Hi"}), chunk({}, "stop")))
    return whole({"content": "Hi"}, usage=None) if "Hello" in text_of(seen) else None


def answers_500(seen: Seen) -> Scene | None:
    """It fails whenever it is asked."""
    return refuse(500, {"error": {"message": "CUDA error", "code": 500}})


def refuses_the_key(seen: Seen) -> Scene | None:
    """The account's key is wrong."""
    return refuse(401, {"error": {"message": "Unauthorized", "code": 401}})


def html(seen: Seen) -> Scene | None:
    """Something else answers in its place."""
    return Scene([b"<html>It works!</html>"], content_type="text/html")


class Between:
    """A proxy before the gateway. `ill` is one of buffer, cut, half, small, strip, html, or nothing."""

    def __init__(self, target: str, ill: str = "") -> None:
        self.target = target
        self.ill = ill
        self.url = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        if self.ill == "small" and len(body) > 1_000_000:
            return web.Response(status=413, text="<html>413</html>", content_type="text/html")
        if self.ill == "html":
            return web.Response(text="<html>It works!</html>", content_type="text/html")
        headers = {name: value for name, value in request.headers.items() if name.lower() not in ("host", "content-length")}
        if self.ill == "strip":
            headers.pop("Authorization", None)
        url = self.target + request.path_qs
        async with aiohttp.ClientSession() as session, session.request(request.method, url, data=body, headers=headers) as reply:
            if "event-stream" not in reply.headers.get("Content-Type", ""):
                return web.Response(status=reply.status, body=await reply.read(), content_type=reply.content_type)
            out = web.StreamResponse(headers={"Content-Type": reply.headers["Content-Type"]})
            await out.prepare(request)
            with contextlib.suppress(aiohttp.ClientError, ConnectionError):
                await self._relay(reply, out, body)
            return out

    async def _relay(self, reply: aiohttp.ClientResponse, out: web.StreamResponse, asked: bytes) -> None:
        held = b""
        async for piece in reply.content.iter_any():
            if self.ill == "buffer" and b"Hello" in asked:
                held += piece
            elif self.ill == "half":
                await out.write(piece.replace("你".encode(), "你".encode()[:2]))
            elif self.ill == "cut" and b"story" in asked:
                assert out._req is not None
                assert out._req.transport is not None
                await out.write(piece)
                out._req.transport.abort()
                return
            else:
                await out.write(piece)
        await out.write(held or b"\n")


@contextlib.asynccontextmanager
async def standing_before(target: str, ill: str = "") -> AsyncIterator[Between]:
    """It, listening."""
    between = Between(target, ill)
    app = web.Application(client_max_size=2**28)
    app.router.add_route("*", "/{path:.*}", between.handle)
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    between.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield between
    finally:
        await runner.cleanup()
