"""Asking one hop and hearing exactly what it says: status, events, how it ended, and when.

Rule: nothing is mended here. Bytes that are no UTF-8, events that are no JSON and ends without a finish are what the doctor is
looking for, so they are noted, never raised.
Surprise: this reads streams by itself instead of using a decoder of the gateway's: what is examined must not examine itself.
"""

from __future__ import annotations

import io
import json
import re
import ssl
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import msgspec

from ds2d.net.client import authorities

SECONDS = 120.0
"""For one answer."""


class Hop(msgspec.Struct, frozen=True):
    """One place at which questions can be asked. `layer` is its name in the report, `url` its base without `/v1`, `prefix` what
    stands before the OpenAI routes. `gauge_paths` are where the model server behind it tells what it runs."""

    layer: str
    url: str
    prefix: str
    model: str
    headers: dict[str, str] = {}
    flavour: str = "generic"
    ours: bool = False
    context: ssl.SSLContext | aiohttp.Fingerprint | bool = True
    proxy: str | None = None

    def place(self, path: str) -> str:
        """The URL of an OpenAI route, or with a leading `/` doubled of one at the root (`//load`)."""
        return self.url + path[1:] if path.startswith("//") else self.url + self.prefix + path


class Heard(msgspec.Struct):
    """What came back. `end`: whole (a finish was seen), error (the hop said what went wrong), cut, broken (see `why`), left (we
    hung up), none. `first` is seconds from the question to the first event, `spread` from there to the last read, `arrived` the
    monotonic time of the last read."""

    status: int = 0
    kind: str = ""
    body: bytes = b""
    events: list[dict[str, Any]] = []
    text: str = ""
    reasoning: str = ""
    calls: dict[int, dict[str, str]] = {}
    finish: str | None = None
    usage: dict[str, Any] | None = None
    done: bool = False
    end: str = "none"
    why: str = ""
    first: float = 0.0
    spread: float = 0.0
    arrived: float = 0.0

    @property
    def json(self) -> dict[str, Any]:
        """The whole body as an object; empty where it is none."""
        try:
            found = json.loads(self.body)
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    @property
    def told(self) -> str:
        """What a refusal says, short."""
        error = self.json.get("error") or self.json.get("detail") or self.why or self.body[:120].decode("utf-8", "replace")
        text = error.get("message", error) if isinstance(error, dict) else error
        return " ".join(str(text).split())[:160]


class Ear:
    """Asks. Use it as a context manager."""

    def __init__(self) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=authorities()),
            timeout=aiohttp.ClientTimeout(total=SECONDS, sock_connect=5),
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def __aenter__(self) -> Ear:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def ask(self, hop: Hop, path: str, body: Any = None, *, leave_after: int | None = None) -> Heard:
        """A GET, or a POST of this body. `leave_after`: hang up after so many events with something in them."""
        heard = Heard()
        began = time.monotonic()
        method, data = ("GET", None) if body is None else ("POST", io.BytesIO(json.dumps(body).encode()))
        headers = {"Content-Type": "application/json", "User-Agent": "ds2d-doctor", **hop.headers}
        try:
            async with self._session.request(
                method, hop.place(path), data=data, headers=headers, ssl=hop.context, proxy=hop.proxy, allow_redirects=False
            ) as reply:
                heard.status, heard.kind = reply.status, reply.headers.get("Content-Type", "")
                if reply.status == 200 and "event-stream" in heard.kind:
                    await self._listen(reply, heard, began, leave_after)
                else:
                    heard.body = await reply.read()
                    heard.end = "whole"
        except (aiohttp.ClientConnectorError, aiohttp.InvalidURL) as error:
            heard.end, heard.why = "none", f"cannot connect ({type(error).__name__})"
        except TimeoutError:
            heard.end, heard.why = "broken", f"no end within {SECONDS:.0f} s"
        except (aiohttp.ClientError, OSError) as error:
            heard.end, heard.why = "broken", f"the connection broke ({type(error).__name__})"
        return heard

    async def _listen(self, reply: aiohttp.ClientResponse, heard: Heard, began: float, leave_after: int | None) -> None:
        said = 0
        async for record in _records(reply, heard):
            heard.first = heard.first or heard.arrived - began
            said += _take(record, heard)
            if heard.end == "broken":
                return
            if leave_after is not None and said >= leave_after:
                heard.end = "left"
                return
        heard.spread = heard.arrived - began - heard.first
        if heard.end == "none":
            heard.end = "whole" if heard.finish else "cut"


async def _records(reply: aiohttp.ClientResponse, heard: Heard) -> AsyncIterator[bytes]:
    """The data of each event."""
    held = b""
    async for chunk in reply.content.iter_any():
        heard.arrived = time.monotonic()
        held = (held + chunk).replace(b"\r\n", b"\n")
        *whole, held = held.split(b"\n\n")
        for block in whole:
            lines = [line[5:].removeprefix(b" ") for line in block.split(b"\n") if line.startswith(b"data:")]
            if lines:
                yield b"\n".join(lines)
    if held.strip():
        heard.end, heard.why = ("none", "") if held.strip() == b"data: [DONE]" else ("broken", "the stream ends in mid-event")


def _take(record: bytes, heard: Heard) -> int:
    """One event; 1 if it says something."""
    if record == b"[DONE]":
        heard.done = True
        return 0
    try:
        event = json.loads(record.decode("utf-8"))
    except UnicodeDecodeError:
        heard.end, heard.why = "broken", "an event is not UTF-8: a character was cut in two"
        return 0
    except ValueError:
        heard.end, heard.why = "broken", "an event is not JSON"
        return 0
    if not isinstance(event, dict):
        return 0
    heard.events.append(event)
    if event.get("error"):
        heard.end, heard.why, heard.body = "error", "an error came in mid-stream", record
    if isinstance(event.get("usage"), dict):
        heard.usage = event["usage"]
    return sum(_choice(choice, heard) for choice in event.get("choices") or () if isinstance(choice, dict))


def _choice(choice: dict[str, Any], heard: Heard) -> int:
    delta = choice.get("delta") or {}
    text = delta.get("content") or ""
    thought = delta.get("reasoning_content") or delta.get("reasoning") or ""
    heard.text += text
    heard.reasoning += thought
    heard.finish = choice.get("finish_reason") or heard.finish
    for call in delta.get("tool_calls") or ():
        add_call(call, heard)
    return int(bool(text or thought or delta.get("tool_calls")))


def add_call(call: dict[str, Any], heard: Heard) -> None:
    """A call, or a piece of one, by its index."""
    place = call.get("index", len(heard.calls))
    known = heard.calls.setdefault(place, {"id": "", "name": "", "arguments": ""})
    function = call.get("function") or {}
    known["id"] = known["id"] or call.get("id") or ""
    known["name"] = known["name"] or function.get("name") or ""
    known["arguments"] += function.get("arguments") or ""


MARKUP = re.compile(r"<[｜|]tool|<｜DSML｜|<tool_call|<function[=_]|<invoke ")
"""How models begin calls that nobody has understood (toolcalls.md 1)."""
