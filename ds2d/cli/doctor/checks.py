"""What the doctor looks at: one function a check, one row each in `CHECKS`.

Rule: a check asks one hop and judges only what that hop said; whose fault it is follows from the first hop that fails
(examine.py). A check costs a few hundred tokens at most.
Surprise: a model that does not call a tool or says no Chinese proves nothing about any layer; that is a note, not a fault.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, Literal

import msgspec

from ds2d.cli.doctor.hearing import MARKUP, Ear, Heard, Hop
from ds2d.core.load import Load
from ds2d.upstreams.openai import SOURCES

State = Literal["ok", "note", "fail", "skip"]

PATIENCE = 5.0
"""Seconds until a turn that was left must be gone, and what it used must be in the books."""

BIG = 2 * 1024 * 1024
"""Bytes of a body that everybody must take, were it only to say that it is too long."""

WORDS = "你好，世界！🚀👩‍💻 Привіт"


class Found(msgspec.Struct):
    """What a check found at one hop. `first`: seconds to a stream's first event, `spread`: from there to its last. `gone`:
    nothing else can be found there either. `aside`: the gateway asks the server no more, for what it did before."""

    state: State
    detail: str = ""
    first: float = 0.0
    spread: float = 0.0
    gone: bool = False
    aside: bool = False


class Bench(msgspec.Struct, frozen=True):
    """What a check has at hand: the ear, the hop, the model server behind it (None where it is embedded), and what the hop
    before was found to do."""

    ear: Ear
    hop: Hop
    server: Hop | None = None
    before: Found | None = None


def _chat(hop: Hop, text: str, **more: Any) -> dict[str, Any]:
    body = {"model": hop.model, "messages": [{"role": "user", "content": text}], "temperature": 0, "max_tokens": 400}
    return {**body, **more}


def _stream(hop: Hop, text: str, **more: Any) -> dict[str, Any]:
    return _chat(hop, text, stream=True, stream_options={"include_usage": True}, **more)


def _refused(heard: Heard) -> Found | None:
    """What any check says of an answer that is none."""
    if heard.end == "none":
        return Found("fail", heard.why, gone=True)
    if heard.status in (401, 403):
        return Found("fail", f"{heard.status}: the key is refused", gone=True)
    if heard.status != 200:
        error = heard.json.get("error")
        aside = isinstance(error, dict) and error.get("code") == "model_unavailable"
        return Found("fail", f"{heard.status}: {heard.told}", aside=aside)
    return None


async def models(bench: Bench) -> Found:
    """It is there and lists the model."""
    heard = await bench.ear.ask(bench.hop, "/models")
    if refused := _refused(heard):
        return refused
    entries = heard.json.get("data")
    if not isinstance(entries, list):
        return Found("fail", "the model list cannot be read")
    names = [str(entry.get("id")) for entry in entries if isinstance(entry, dict)]
    return Found(
        "ok", f"{len(names)} models" if bench.hop.model in names else f"{len(names)} models, {bench.hop.model} not listed"
    )


async def answer(bench: Bench) -> Found:
    """A whole answer."""
    heard = await bench.ear.ask(bench.hop, "/chat/completions", _chat(bench.hop, "Hello"))
    if heard.end == "broken":
        return Found("fail", heard.why)
    if refused := _refused(heard):
        return refused
    choices = heard.json.get("choices") or [{}]
    message = choices[0].get("message") or {}
    if not choices[0].get("finish_reason"):
        return Found("fail", "no finish_reason")
    if not (message.get("content") or message.get("reasoning_content") or message.get("reasoning")):
        return Found("fail", "it says nothing")
    return Found("ok") if isinstance(heard.json.get("usage"), dict) else Found("note", "no usage: ds2d counts by itself")


async def stream(bench: Bench) -> Found:
    """A streamed answer, as it is made."""
    heard = await bench.ear.ask(bench.hop, "/chat/completions", _stream(bench.hop, "Hello"))
    if refused := _refused(heard):
        return refused
    if "event-stream" not in heard.kind:
        return Found("fail", f"no stream but {heard.kind or 'something without a type'}")
    if heard.end != "whole":
        return _badly_ended(heard)
    if bench.before is not None and _holds_back(heard, bench.before):
        return Found("fail", "it holds the stream back and gives it all at once", heard.first, heard.spread)
    if bench.hop.ours and not heard.done:
        return Found("fail", "no [DONE]", heard.first, heard.spread)
    usage = "" if heard.usage else ", no usage: ds2d counts by itself"
    return Found(
        "note" if usage else "ok",
        f"first after {heard.first:.2f} s, {len(heard.events)} events{usage}",
        heard.first,
        heard.spread,
    )


def _holds_back(heard: Heard, before: Found) -> bool:
    """Whether a stream that was spread out came in one piece here, and as late: a server may be quicker the second time."""
    return before.spread > 0.3 and heard.spread < before.spread / 5 and heard.first > before.first + before.spread / 2


async def utf8(bench: Bench) -> Found:
    """Characters of several bytes stay whole."""
    asked = _stream(bench.hop, f"Repeat this word for word: {WORDS}")
    heard = await bench.ear.ask(bench.hop, "/chat/completions", asked)
    if refused := _refused(heard):
        return refused
    if heard.end != "whole":
        return _badly_ended(heard)
    said = heard.text + heard.reasoning
    if "\ufffd" in said:
        return Found("fail", "half a character was sent (U+FFFD)")
    return Found("note", "the model said only ASCII: nothing shown") if said.isascii() else Found("ok")


async def early_close(bench: Bench) -> Found:
    """An answer ends with a finish, or says what went wrong."""
    heard = await bench.ear.ask(bench.hop, "/chat/completions", _stream(bench.hop, "Tell me a story of 200 words."))
    if heard.status != 200 and bench.hop.ours and _failed(bench.before):
        return Found("ok", f"told truthfully: {heard.status} {heard.told}")
    if refused := _refused(heard):
        return refused
    if heard.end == "error" and bench.hop.ours and _failed(bench.before):
        return Found("ok", f"told truthfully: {heard.told}")
    return Found("ok", str(heard.finish)) if heard.end == "whole" else _badly_ended(heard)


async def cancel(bench: Bench) -> Found:
    """A client that leaves frees the server."""
    if await _running(bench) is None:
        return Found("skip", "the server shows no gauges")
    before = await _running(bench) or 0
    more = {"max_tokens": 2000, **({"ignore_eos": True} if _extras(bench) else {})}
    heard = await bench.ear.ask(bench.hop, "/chat/completions", _stream(bench.hop, "Count to a thousand.", **more), leave_after=2)
    if refused := _refused(heard):
        return refused
    if heard.end != "left":
        return Found("note", "the answer ended before it could be left")
    for _ in range(int(PATIENCE / 0.1)):
        if (await _running(bench) or 0) <= before:
            return Found("ok")
        await asyncio.sleep(0.1)
    return Found("fail", f"it still runs {PATIENCE:.0f} s after its client left")


async def tools(bench: Bench) -> Found:
    """Two calls in one answer come whole and apart."""
    text = "What is the weather in Paris and in London? Call get_weather for each of them, both at once."
    heard = await bench.ear.ask(bench.hop, "/chat/completions", _stream(bench.hop, text, tools=[WEATHER]))
    if heard.status == 400 and not bench.hop.ours:
        return Found("fail", f"it takes no tools: {heard.told}")
    if refused := _refused(heard):
        return refused
    if heard.end != "whole":
        return _badly_ended(heard)
    if MARKUP.search(heard.text):
        return Found("fail", "calls are left in the text")
    if not heard.calls:
        return Found("note", "the model called nothing: nothing shown")
    if wrong := _wrong_with(heard):
        return Found("fail", wrong)
    return Found("ok", f"{len(heard.calls)} calls") if len(heard.calls) > 1 else Found("note", "the model made one call only")


async def replay(bench: Bench) -> Found:
    """A turn with a call goes on when its thinking comes back, and through ds2d also when a client lost it."""
    call = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'}}
    asked: dict[str, Any] = {"role": "assistant", "content": "", "tool_calls": [call]}
    if not bench.hop.ours:
        asked["reasoning_content"] = "I should look at the weather."
    result = {"role": "tool", "tool_call_id": "call_1", "content": "21 degrees"}
    question = {"role": "user", "content": "What is the weather in Paris?"}
    body = _chat(bench.hop, "", messages=[question, asked, result], tools=[WEATHER])
    if bench.hop.ours or bench.hop.flavour == "deepseek":
        body["thinking"] = {"type": "enabled"}
    heard = await bench.ear.ask(bench.hop, "/chat/completions", body)
    return _refused(heard) or (Found("fail", heard.why) if heard.end != "whole" else Found("ok"))


async def big_body(bench: Bench) -> Found:
    """Two megabytes are taken, or refused for being too long for the model."""
    heard = await bench.ear.ask(bench.hop, "/chat/completions", _chat(bench.hop, "word " * (BIG // 5), max_tokens=1))
    if heard.status == 400:
        return Found("ok", "too long for the model, and said so")
    if heard.end == "broken":
        return Found("fail", heard.why)
    return _refused(heard) or Found("ok")


async def cut_usage(bench: Bench) -> Found:
    """What an answer used is known when its client left in the middle."""
    used = await _used(bench)
    more = {"stream_options": {"include_usage": True, "continuous_usage_stats": True}} if _extras(bench) else {}
    body = {**_stream(bench.hop, "Count to a thousand.", max_tokens=2000), **more}
    heard = await bench.ear.ask(bench.hop, "/chat/completions", body, leave_after=2)
    if refused := _refused(heard):
        return refused
    if not bench.hop.ours:
        return (
            Found("ok", "told on each chunk") if heard.usage else Found("note", "not told before the end: ds2d counts by itself")
        )
    if used is None:
        return Found("skip", "the key's use cannot be read")
    for _ in range(int(PATIENCE / 0.1)):
        if (now := await _used(bench) or 0) > used:
            return Found("ok", f"{now - used} tokens on record")
        await asyncio.sleep(0.1)
    return Found("fail", "what the cut answer used is on no record")


async def refusals(bench: Bench) -> Found:
    """A bad request is refused as such, in JSON."""
    heard = await bench.ear.ask(bench.hop, "/chat/completions", {"model": bench.hop.model, "messages": "no list"})
    if heard.end in ("none", "broken"):
        return Found("fail", heard.why)
    if heard.status in (401, 403):
        return Found("fail", f"{heard.status}: the key is refused")
    if not heard.json:
        return Found("fail", f"{heard.status} without JSON: something else answers in its place")
    if 400 <= heard.status < 500:
        return Found("ok", str(heard.status))
    return Found("note" if not bench.hop.ours else "fail", f"{heard.status} for a client's mistake")


CHECKS: dict[str, Callable[[Bench], Awaitable[Found]]] = {
    "model list": models,
    "whole answer": answer,
    "stream": stream,
    "UTF-8": utf8,
    "early close": early_close,
    "cancel": cancel,
    "parallel tools": tools,
    "thinking replay": replay,
    "big body": big_body,
    "usage of cut streams": cut_usage,
    "refusals": refusals,
}
"""In the order in which they run; the first decides whether the others make sense."""

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def _badly_ended(heard: Heard) -> Found:
    if heard.end == "cut":
        return Found("fail", "the stream ends without a finish")
    return Found("fail", f"{heard.why}: {heard.told}" if heard.end == "error" else heard.why)


def _failed(found: Found | None) -> bool:
    return found is not None and found.state == "fail"


def _wrong_with(heard: Heard) -> str:
    """What is wrong with calls; empty if nothing."""
    calls = heard.calls.values()
    if len({call["id"] for call in calls}) < len(calls) or not all(call["id"] for call in calls):
        return "calls share an id, or have none"
    for call in calls:
        if call["name"] != "get_weather":
            return "a call of something that was not declared"
        try:
            whole = isinstance(json.loads(call["arguments"]), dict)
        except ValueError:
            whole = False
        if not whole:
            return "arguments of a call are not whole JSON"
    return ""


def _extras(bench: Bench) -> bool:
    """Whether the model server behind takes vLLM's own fields."""
    return bench.server is not None and bench.server.flavour in ("vllm", "sglang")


async def _running(bench: Bench) -> int | None:
    """Requests in the model server, by its own word; where it tells nothing, those in ds2d."""
    server = bench.server
    for path, read in SOURCES.get(server.flavour, ()) if server is not None else ():
        assert server is not None
        heard = await bench.ear.ask(server, "/" + path)
        load: Load | None = read(heard.body) if heard.status == 200 else None
        if load is not None:
            return load.requests
    if not bench.hop.ours:
        return None
    heard = await bench.ear.ask(bench.hop, "//load")
    found = heard.json.get("server_load")
    return found if isinstance(found, int) else None


async def _used(bench: Bench) -> int | None:
    """Tokens on the key's record."""
    if not bench.hop.ours:
        return None
    used = (await bench.ear.ask(bench.hop, "/usage")).json.get("used") or {}
    total = (used.get("total") or {}).get("total_tokens")
    return total if isinstance(total, int) else None
