"""Faults of the upstream, at every point, in every dialect, streamed and whole: told truthfully, within their clock.

Before the first byte a fault has its HTTP status; after it the dialect's own error; never an end that looks like success.
After each the upstream's connection is closed and the slot is back. Clients' faults: test_clients.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import re
import socket
import ssl
import zlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.functional import certificates
from tests.functional.harness import CARRIERS, Running, config_for, running, vocabulary
from tests.functional.scripted import (
    END,
    RESET,
    Scene,
    ScriptedUpstream,
    Seen,
    Wait,
    chunk,
    refuse,
    say,
    scripted_upstream,
    sse,
    usage,
    whole,
)
from tests.functional.stalls import watching_the_loop
from tests.functional.test_every_dialect import ENDS, QUESTIONS
from tests.functional.test_queue import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

HASTY = {"connect": 0.5, "headers": 1, "first_payload": 1, "payload_gap": 1, "answer": 1.4, "total": 60}
"""For faults that a clock ends: long enough for the first part of an answer on a busy machine."""

CONNECTED = {**HASTY, "connect": 60}
"""The same for faults of a server that is reached: on a busy machine the clock of connections would tell another fault."""

PATIENT = dict.fromkeys(HASTY, 60)
"""For all others: no clock has anything to do with their end."""

RUNTIME = {"max_attempts": 1, "retry_collapse": False, "breaker": {"failures": 1000, "open_seconds": 1}}

Pieces = list[Any]


@dataclass(frozen=True)
class Fault:
    """What goes wrong: a scene from the good answer's first part and the rest, when, and what may be said of it."""

    build: Callable[[Pieces, Pieces], Scene]
    codes: tuple[str, ...]
    middle: bool = False
    status: int = 503


def middle(*pieces: Any) -> Callable[[Pieces, Pieces], Scene]:
    """The good answer's first part, then this."""
    return lambda head, _: Scene([*head, *pieces])


def instead(*pieces: Any, status: int = 200, **headers: str) -> Callable[[Pieces, Pieces], Scene]:
    """This from the beginning."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _head, _rest: Scene(list(pieces), status, named)


def raw(*pieces: Any) -> Callable[[Pieces, Pieces], Scene]:
    """Bytes as they stand, head included."""
    return lambda _head, _rest: Scene(list(pieces), raw=True)


def hang() -> Wait:
    """A pause that nobody ends."""
    return Wait()


OK_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
CHUNKED = OK_HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
ERROR_FRAME = b'data: {"error":{"message":"host 10.1.2.3 exploded","type":"InternalServerError","code":500}}\n\n'
HALF_LETTER = b'data: {"id":"x","choices":[{"index":0,"delta":{"content":"\xc3"},"text":"\xc3"}]}\n\n'
BROKEN = ("upstream_disconnected", "upstream_unreachable", "upstream_error")
GARBLED = ("upstream_error", "upstream_disconnected")
LATE = ("upstream_timeout",)


def framed(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def badly_framed(head: Pieces, _rest: Pieces) -> Scene:
    return Scene([CHUNKED, *(framed(piece) for piece in head), 0.05, b"ZZZ\r\nxx", hang()], raw=True)


def short_of_its_length(head: Pieces, _rest: Pieces) -> Scene:
    body = b"".join(head)
    return Scene([OK_HEAD + f"Content-Length: {len(body) + 100}\r\n\r\n".encode() + body, END], raw=True)


def zipped(data: bytes) -> Scene:
    return Scene([data], headers={"Content-Encoding": "gzip"})


def broken_zip(head: Pieces, _rest: Pieces) -> Scene:
    return zipped(b"\x1f\x8b\x08\x00 this is no gzip")


def cut_zip(head: Pieces, rest: Pieces) -> Scene:
    packer = zlib.compressobj(wbits=31)
    return zipped(packer.compress(b"".join(head)) + packer.flush(zlib.Z_SYNC_FLUSH))


FAULTS: dict[str, Fault] = {
    "silence before the head": Fault(lambda _h, _r: Scene([hang()], raw=True), LATE),
    "silence before the first payload": Fault(lambda _h, _r: Scene([hang()]), LATE),
    "life signs only": Fault(lambda _h, _r: Scene([*[b": keep-alive\n\n", 0.2, b"\n\n", 0.2] * 100, hang()]), LATE),
    "silence between payloads": Fault(lambda head, _r: Scene([*head, hang()]), LATE, middle=True),
    "life signs between payloads": Fault(
        lambda head, _r: Scene([*head, *[b": x\n\n", 0.2] * 200, hang()]), (*LATE, "upstream_error"), middle=True
    ),
    "trickle": Fault(lambda head, _r: Scene([*head, *[b"d", 0.1] * 400, hang()]), (*LATE, "upstream_error"), middle=True),
    "reset before the head": Fault(raw(RESET), BROKEN),
    "closed before the head": Fault(raw(END), BROKEN),
    "reset after the head": Fault(instead(RESET), BROKEN),
    "closed after the head": Fault(instead(END), BROKEN),
    "reset in the middle": Fault(middle(RESET), BROKEN, middle=True),
    "closed in the middle": Fault(middle(END), BROKEN, middle=True),
    "a clean end in the middle": Fault(middle(), GARBLED, middle=True),
    "the last word without a finish": Fault(middle(b"data: [DONE]\n\n"), GARBLED, middle=True),
    "half a frame at the end": Fault(middle(b'data: {"cho'), GARBLED, middle=True),
    "shorter than its length": Fault(short_of_its_length, BROKEN, middle=True),
    "an error first": Fault(instead(ERROR_FRAME), GARBLED),
    "an error in the middle": Fault(middle(ERROR_FRAME), GARBLED, middle=True),
    "garbage first": Fault(instead(b"data: {nope\n\n"), GARBLED),
    "garbage in the middle": Fault(middle(b"data: {nope\n\n"), GARBLED, middle=True),
    "half a letter": Fault(middle(HALF_LETTER), GARBLED, middle=True),
    "bad chunks": Fault(badly_framed, (*BROKEN, *LATE), middle=True),
    "bad chunks at once": Fault(raw(CHUNKED + b"ZZZ\r\nxx", hang()), (*BROKEN, *LATE)),
    "not HTTP": Fault(raw(b"SSH-2.0-OpenSSH_9.2\r\n\r\n", END), BROKEN),
    "a page": Fault(lambda _h, _r: Scene([b"<html>Welcome</html>"], content_type="text/html"), GARBLED),
    "a page of 502": Fault(lambda _h, _r: refuse(502, b"<html>Bad Gateway 10.1.2.3</html>"), ("upstream_error",)),
    "nothing": Fault(instead(), GARBLED),
    "an empty object": Fault(lambda _h, _r: Scene([b"{}"], content_type="application/json"), GARBLED),
    "no content": Fault(raw(b"HTTP/1.1 204 No Content\r\n\r\n", END), GARBLED),
    "broken gzip": Fault(broken_zip, GARBLED),
    "cut gzip": Fault(cut_zip, GARBLED, middle=True),
    "an encoding nobody asked for": Fault(instead(b"xx", Content_Encoding="br"), GARBLED),
    "an encoding nobody asked for, without an end": Fault(instead(b"xx", hang(), Content_Encoding="br"), GARBLED),
    "a redirect": Fault(instead(status=302, Location="http://127.0.0.1:9/"), GARBLED),
    "429": Fault(lambda _h, _r: refuse(429, {}), ("upstream_rate_limited",), status=429),
    "500 that breaks off": Fault(instead(b'{"error"', RESET, status=500), ("upstream_error", *BROKEN)),
    "500 that falls silent": Fault(lambda _h, _r: Scene([b'{"error"', hang()], 500), ("upstream_error", *LATE)),
    "500 in broken gzip": Fault(instead(b"xx", status=500, Content_Encoding="gzip"), ("upstream_error",)),
    "429 in brotli": Fault(instead(b"xx", status=429, Content_Encoding="br"), ("upstream_rate_limited",), status=429),
    "500 in an unknown encoding": Fault(instead(b"xx", status=500, Content_Encoding="br"), ("upstream_error",)),
}


World = tuple[Running, ScriptedUpstream]


def config_with(base_url: str, clocks: dict[str, float]) -> dict[str, Any]:
    config = config_for(base_url, runtime=RUNTIME)
    config["upstreams"][0] |= {"timeouts": clocks, "poll_seconds": 3600}
    return config


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="shared", params=CARRIERS)
async def _shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[dict[str, World]]:
    """Two daemons in front of one upstream, on one of the ways there: one with hasty clocks, one with patient ones."""
    vocabulary()  # to read it while the first questions are asked would take the time that the hasty clocks give
    async with scripted_upstream() as upstream, contextlib.AsyncExitStack() as stack:
        worlds = {}
        for name, clocks in (("hasty", CONNECTED), ("patient", PATIENT)):
            started = running(tmp_path_factory.mktemp(name), config_with(upstream.base_url, clocks), carrier=request.param)
            worlds[name] = await stack.enter_async_context(started), upstream
        yield worlds


async def at_rest(world: World) -> World:
    """The daemon healthy and idle, the upstream without a script."""
    ds2d, upstream = world
    upstream.scenes.clear()
    upstream.seen.clear()
    upstream.decide = lambda seen: None
    await ds2d.daemon.first_look()
    ds2d.daemon.queue.reset()
    return world


@pytest_asyncio.fixture(loop_scope="module", name="world")
async def _world(shared: dict[str, World]) -> World:
    """The patient daemon."""
    return await at_rest(shared["patient"])


def good(dialect: str, stream: bool) -> tuple[Pieces, Pieces]:
    """A good answer on this dialect's wire, cut where some of it has been said."""
    if not stream:
        upstream = ScriptedUpstream()
        upstream.answer_as_completion()
        body = (upstream.scenes[0] if dialect == "completions" else whole({"content": "Hello"})).pieces[0]
        return [body[:60]], [body[60:]]
    frames = say("Hel", "lo")
    if dialect == "completions":
        frames = [as_text(frame) for frame in frames]
    return frames[:2], frames[2:]


def as_text(frame: bytes) -> bytes:
    """A chat chunk as a completions chunk."""
    if frame.startswith(b"data: ["):
        return frame
    event = json.loads(frame[6:])
    for choice in event["choices"]:
        choice["text"] = choice.pop("delta").get("content") or ""
    return b"data: " + json.dumps({**event, "object": "text_completion"}).encode() + b"\n\n"


async def ask(ds2d: Running, dialect: str, stream: bool) -> tuple[int, Any, dict[str, str]]:
    path, body, stream_path, more = QUESTIONS[dialect]
    return await (ds2d.ask(stream_path, {**body, **more}) if stream else ds2d.ask(path, body))


def code_in(dialect: str, answer: dict[str, Any]) -> str:
    """The code of an HTTP error, where the dialect has one."""
    error = answer["error"]
    if dialect == "gemini":
        assert error["code"] in (429, 503)
        assert error["status"] in ("UNAVAILABLE", "RESOURCE_EXHAUSTED")
        return ""
    if dialect == "claude":
        assert answer["type"] == "error"
        assert error["type"] in ("api_error", "overloaded_error", "rate_limit_error")
    code: str = error["code"]
    return code


def code_in_stream(dialect: str, text: str) -> str:
    """The code of the error that a stream ended with; the stream must end with it, and with nothing like success."""
    if dialect == "responses":
        assert "response.completed" not in text
    else:
        assert ENDS[dialect] not in text
    data = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
    last = data[-1]
    match dialect:
        case "chat" | "completions":
            assert set(last) == {"error"}
            assert not any(choice["finish_reason"] for event in data[:-1] for choice in event["choices"])
            code: str = last["error"]["code"]
            return code
        case "responses":
            assert last["type"] == "response.failed"
            assert last["response"]["error"]["message"]
        case "claude":
            assert "event: error\n" in text
            assert last["type"] == "error"
        case "gemini":
            assert (last["error"]["code"], last["error"]["status"]) == (503, "UNAVAILABLE")
    return ""


MODES = [(dialect, stream) for dialect in QUESTIONS for stream in (True, False)]


def scene_for(fault: Fault, seen: Seen) -> Scene:
    """The fault on the wire and in the mode that this question uses."""
    stream = bool(seen.body.get("stream"))
    scene = fault.build(*good("chat" if "/chat/" in seen.path else "completions", stream))
    if not stream and scene.content_type.startswith("text/event-stream"):
        scene.content_type = "application/json"
        kinds = (b"text/event-stream", b"application/json")
        scene.pieces = [piece.replace(*kinds) if isinstance(piece, bytes) else piece for piece in scene.pieces]
    return scene


ASKED_AGAIN = ("reset before the head", "closed before the head")
"""What ends a kept connection without a byte: the question goes once over a new one (client.py)."""


@pytest.mark.parametrize("name", FAULTS)
async def test_a_fault_is_told_truthfully(shared: dict[str, World], name: str, caplog: pytest.LogCaptureFixture) -> None:
    """Asked in every dialect, streamed and whole, at the same time."""
    fault = FAULTS[name]
    ds2d, upstream = await at_rest(shared["hasty" if set(LATE) & set(fault.codes) else "patient"])
    upstream.decide = lambda seen: scene_for(fault, seen)
    async with asyncio.timeout(30):
        answers = await asyncio.gather(*(ask(ds2d, *mode) for mode in MODES))
    for (dialect, stream), (status, answer, headers) in zip(MODES, answers, strict=True):
        if stream and fault.middle:
            assert status == 200, (dialect, answer)
            code = code_in_stream(dialect, answer)
        else:
            assert status == fault.status, (dialect, stream, answer)
            assert headers["content-type"].startswith("application/json")
            assert 1 <= int(headers["retry-after"]) <= 120
            code = code_in(dialect, answer)
        assert code in fault.codes or dialect in ("gemini", "responses", "claude"), (dialect, stream, answer)
        assert "10.1.2.3" not in (answer if isinstance(answer, str) else json.dumps(answer))
    assert "Traceback" not in caplog.text
    assert (ds2d.daemon.queue.running, ds2d.daemon.service.turns) == (0, {})
    assert len(MODES) <= len(upstream.seen) <= len(MODES) * (2 if name in ASKED_AGAIN else 1)
    await until(lambda: all(seen.closed.is_set() or seen.done.is_set() for seen in upstream.seen))


# A fault after every event

LONG = sse(
    chunk({"role": "assistant", "content": ""}),
    *[chunk({"reasoning": word}) for word in ("Let me", " see")],
    *[chunk({"content": word}) for word in ("Hel", "lo", " wörld")],
    chunk({"tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": ""}}]}),
    chunk({"tool_calls": [{"index": 0, "function": {"arguments": '{"a":'}}]}),
    chunk({"tool_calls": [{"index": 0, "function": {"arguments": "1}"}}]}),
    chunk({}, "tool_calls"),
    usage(),
)
PLAIN = [as_text(frame) for frame in say("Hel", "lo", " wörld")]
BREAKS: dict[str, Pieces] = {
    "reset": [RESET],
    "close": [END],
    "clean end": [],
    "garbage": [b"data: {nope\n\n"],
    "error": [ERROR_FRAME],
    "half a frame": [b'data: {"choices":[{"ind', END],
    "half a letter": [HALF_LETTER],
}


def finish_at(frames: list[bytes]) -> int:
    """Frames until the answer has its finish."""
    said = [json.loads(frame[6:]) for frame in frames[:-1]]
    return next(n for n, event in enumerate(said, 1) if any(choice["finish_reason"] for choice in event["choices"]))


@pytest.mark.parametrize("dialect", QUESTIONS)
async def test_a_fault_after_every_event_of_a_stream(shared: dict[str, World], dialect: str) -> None:
    """An answer that had its finish may be whole; one that had not never looks so."""
    ds2d, upstream = await at_rest(shared["patient"])
    frames = PLAIN if dialect == "completions" else LONG
    places = [(kind, count) for kind in BREAKS for count in range(len(frames))]

    def decide(seen: Seen) -> Scene:
        kind, count = places[int(re.findall(r"place (\d+)", json.dumps(seen.body))[-1])]
        return Scene([*frames[:count], *BREAKS[kind]])

    upstream.decide = decide
    _, body, stream_path, more = QUESTIONS[dialect]
    asked = [json.loads(json.dumps({**body, **more}).replace('"Hello"', f'"place {n}"')) for n in range(len(places))]
    async with asyncio.timeout(60):
        answers = await asyncio.gather(*(ds2d.ask(stream_path, one) for one in asked))
    finished = finish_at(frames)
    for (kind, count), (status, answer, _) in zip(places, answers, strict=True):
        where = f"{kind} after {count} of {len(frames)}"
        if status != 200:
            assert status == 503, (where, answer)
            assert count < finished, where
            code_in(dialect, answer)
        elif looks_whole(dialect, answer):
            assert count >= finished, (where, answer)
        else:
            code_in_stream(dialect, answer)
    assert (ds2d.daemon.queue.running, ds2d.daemon.service.turns) == (0, {})


def looks_whole(dialect: str, text: str) -> bool:
    """Whether a client would take the stream for a whole answer."""
    marks = {"chat": "[DONE]", "completions": "[DONE]", "responses": "response.completed", "claude": "message_stop"}
    return marks.get(dialect, '"finishReason"') in text


@pytest.mark.parametrize("dialect", ["chat", "completions"])
async def test_a_whole_answer_cut_anywhere_is_no_answer(world: World, dialect: str) -> None:
    ds2d, upstream = world
    body = b"".join(piece for part in good(dialect, False) for piece in part)
    cuts = [*range(0, len(body), 7), len(body) - 1]
    path, asked, _, _ = QUESTIONS[dialect]
    for last in (RESET, END, b""):
        upstream.decide = (
            lambda seen, last=last: Scene(  # type: ignore[misc]
                [body[: cuts[int(re.findall(r"place (\d+)", json.dumps(seen.body))[-1])]], *([last] if last else [])],
                content_type="application/json",
            )
        )
        questions = [json.loads(json.dumps(asked).replace('"Hello"', f'"place {n}"')) for n in range(len(cuts))]
        answers = await asyncio.gather(*(ds2d.ask(path, one) for one in questions))
        assert [status for status, _, _ in answers] == [503] * len(cuts)
    assert ds2d.daemon.queue.running == 0


# Oddities that are no faults

ODDITIES: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "CRLF": lambda frames: [frame.replace(b"\n", b"\r\n") for frame in frames],
    "CR": lambda frames: [frame.replace(b"\n", b"\r") for frame in frames],
    "comments and blank lines": lambda frames: [piece for frame in frames for piece in (b": keep-alive\n\n", b"\n\n", frame)],
    "no space": lambda frames: [frame.replace(b"data: ", b"data:") for frame in frames],
    "event and id lines": lambda frames: [b"event: message\nid: 7\nretry: 10\n" + frame for frame in frames],
    "a BOM": lambda frames: [b"\xef\xbb\xbf" + frames[0], *frames[1:]],
    "no last word": lambda frames: frames[:-1],
    "words after the last": lambda frames: [*frames, frames[1]],
    "one byte a piece": lambda frames: [bytes([byte]) for byte in b"".join(frames)],
    "all in one": lambda frames: [b"".join(frames)],
}


@pytest.mark.parametrize("name", ODDITIES)
async def test_what_is_odd_but_legal_is_an_answer_in_every_dialect(world: World, name: str) -> None:
    ds2d, upstream = world
    frames = say("Grüße", " 🐚")
    texted = [as_text(frame) for frame in frames]
    upstream.decide = lambda seen: Scene(ODDITIES[name](frames if "/chat/" in seen.path else texted))
    for dialect in QUESTIONS:
        status, text, _ = await ask(ds2d, dialect, True)
        assert status == 200, dialect
        assert ENDS[dialect] in text, (dialect, text)
        assert '"error"' not in text.replace('"error":null', ""), (dialect, text)
        said = "".join(shown_in(dialect, event) for event in data_of(text))
        assert said == "Grüße 🐚", (dialect, text)
    assert ds2d.daemon.queue.running == 0


def shown_in(dialect: str, event: Any) -> str:
    """The text of one event, as a client of that dialect would add it up."""
    match dialect:
        case "chat":
            return "".join(choice["delta"].get("content") or "" for choice in event["choices"])
        case "completions":
            return "".join(choice["text"] for choice in event["choices"])
        case "responses":
            return str(event["delta"]) if event["type"] == "response.output_text.delta" else ""
        case "claude":
            return str(event["delta"].get("text", "")) if event["type"] == "content_block_delta" else ""
    parts = [part for one in event.get("candidates", []) for part in one.get("content", {}).get("parts", [])]
    return "".join(part.get("text", "") for part in parts)


def data_of(text: str) -> list[Any]:
    return [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]


@pytest.mark.parametrize("stream", [True, False])
async def test_a_compressed_answer_is_read(world: World, stream: bool) -> None:
    ds2d, upstream = world
    head, rest = good("chat", stream)
    scene = zipped(gzip.compress(b"".join([*head, *rest])))
    scene.content_type = scene.content_type if stream else "application/json"
    upstream.scenes.append(scene)
    status, answer, _ = await ask(ds2d, "chat", stream)
    assert status == 200
    assert "Hel" in (answer if stream else json.dumps(answer))


# Bounds, with clocks that leave time to reach them


@pytest.mark.parametrize("name", ["endless line", "bomb in a line", "bomb of blank lines", "bomb of a page"])
@pytest.mark.parametrize("carrier", CARRIERS)
async def test_what_never_ends_is_ended_by_its_bound(tmp_path: Path, name: str, carrier: str) -> None:
    block = b"x" * 65536
    scenes = {
        "endless line": Scene([b"data: ", *[block] * 300]),
        "bomb in a line": zipped(gzip.compress(b"data: " + block * 300)),
        "bomb of blank lines": Scene([gzip.compress(b"\n" * 80_000_000), hang()], headers={"Content-Encoding": "gzip"}),
        "bomb of a page": Scene([gzip.compress(block * 1000)], 500, {"Content-Encoding": "gzip"}),
    }
    async with scripted_upstream() as upstream:
        clocks = {**PATIENT, "first_payload": 2} if name == "bomb of blank lines" else PATIENT
        async with running(tmp_path, config_with(upstream.base_url, clocks), carrier=carrier) as ds2d:
            upstream.scenes.append(scenes[name])
            async with watching_the_loop() as stall:
                status, answer, _ = await ask(ds2d, "chat", True)
            assert (status, answer["error"]["type"]) == (503, "server_error")
            assert stall.worst < 0.05
            assert ds2d.daemon.queue.running == 0


# Retry-After


@pytest.mark.parametrize(("given", "told"), [("7", "7"), ("500", "120"), ("0.2", "1"), ("nonsense", "1")])
async def test_an_announced_delay_is_passed_on_within_bounds(world: World, given: str, told: str) -> None:
    ds2d, upstream = world
    upstream.scenes.append(refuse(429, {}, Retry_After=given))
    status, _, headers = await ask(ds2d, "chat", True)
    assert (status, headers["retry-after"]) == (429, told)


async def test_a_refused_connection_is_a_503_in_every_dialect(tmp_path: Path) -> None:
    async with scripted_upstream() as upstream:
        config = config_for(upstream.base_url, runtime=RUNTIME)
        config["upstreams"][0]["poll_seconds"] = 3600
        async with running(tmp_path, config) as ds2d:
            await upstream.stop()
            for dialect in QUESTIONS:
                for stream in (True, False):
                    status, answer, headers = await ask(ds2d, dialect, stream)
                    assert status == 503, answer
                    assert "retry-after" in headers
                    assert code_in(dialect, answer) in ("", "upstream_unreachable", "model_unavailable")
            assert ds2d.daemon.queue.running == 0


async def test_a_name_that_nobody_has_and_servers_without_the_right_tls_are_503(tmp_path: Path) -> None:
    """DNS; TLS that nobody speaks, that nobody answers, and that nobody vouches for."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.write(tmp_path, "stranger"), tmp_path / "key.pem")
    async with scripted_upstream() as upstream, listening(silent) as mute, listening(silent, ssl=context) as stranger:
        places = {
            "noname": "http://no-such-host.invalid/v1",
            "notls": f"https://127.0.0.1:{upstream.port}/v1",
            "mute": f"https://127.0.0.1:{mute}/v1",
            "stranger": f"https://127.0.0.1:{stranger}/v1",
        }
        config = config_for(upstream.base_url, runtime=RUNTIME)
        config["models"] = {name: {"upstream": name, "model": "m"} for name in places}
        config["upstreams"] = [
            {"name": name, "kind": "openai", "base_url": url, "proxy": "direct", "timeouts": HASTY, "poll_seconds": 3600}
            for name, url in places.items()
        ]
        async with running(tmp_path, config) as ds2d:
            for stream in (True, False):
                bodies = [{"model": name, "messages": [{"role": "user", "content": "x"}], "stream": stream} for name in places]
                answers = await asyncio.gather(*(ds2d.ask("/v1/chat/completions", body) for body in bodies))
                for name, (status, answer, _) in zip(places, answers, strict=True):
                    assert status == 503, (name, answer)
                    assert answer["error"]["code"] in ("upstream_unreachable", "model_unavailable", "upstream_error"), name
            assert ds2d.daemon.queue.running == 0


@pytest.mark.parametrize("carrier", CARRIERS)
async def test_a_server_that_accepts_nobody_is_a_503(tmp_path: Path, carrier: str) -> None:
    """Its backlog is full: the kernel answers nothing at all."""
    with contextlib.ExitStack() as sockets:
        listener = sockets.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        waiting = [sockets.enter_context(socket.socket()) for _ in range(4)]
        for sock in waiting:
            sock.setblocking(False)
            sock.connect_ex(address)
        config = config_with(f"http://127.0.0.1:{address[1]}/v1", HASTY)
        config["models"] = {"m": {"upstream": "gpu", "model": "m"}}
        async with running(tmp_path, config, carrier=carrier) as ds2d:
            ds2d.daemon.queue.reset()
            body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "stream": True}
            async with asyncio.timeout(30):
                status, answer, _ = await ds2d.ask("/v1/chat/completions", body)
            assert (status, answer["error"]["code"]) in ((503, "upstream_unreachable"), (503, "model_unavailable"))
            assert ds2d.daemon.queue.running == 0


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A server that takes everything and says nothing."""
    with contextlib.suppress(ConnectionError):
        while await reader.read(65536):
            pass
    writer.close()


@contextlib.asynccontextmanager
async def listening(serve: Callable[..., Any], **kwargs: Any) -> AsyncIterator[int]:
    """A server on a port of its own."""
    server = await asyncio.start_server(serve, "127.0.0.1", 0, **kwargs)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
