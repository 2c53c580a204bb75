"""What is fuzzed: functions of bytes that raise AssertionError, or anything else that is no answer to bad input.

Rule: a target says in itself what must hold for any bytes; seeds are real material from the golden cases. The first bytes of an
input may choose where it is cut: what bytes mean never depends on that.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from ds2d.config.notices import ConfigErrors
from ds2d.config.parse import parse as parse_config
from ds2d.core.errors import GatewayError
from ds2d.core.events import Ending, Event, Text, fold
from ds2d.core.models import Facts, Target
from ds2d.core.request import ChatRequest, Inbound
from ds2d.core.settings import ModelSpec, UpstreamSpec
from ds2d.core.sse import Splitter
from ds2d.dialects import REGISTRY as DIALECTS
from ds2d.net.wire import BadAnswerError, Head, read_head
from ds2d.upstreams.openai import Decoder
from ds2d.web.body import _parse
from tests.golden.streams import FOLDER as STREAMS
from tests.golden.streams import drain
from tests.property.rules import assert_rules
from tests.toolcalls.corpus import cut, events_of, innocents, positives, stages

ROOT = Path(__file__).parents[2]
REQUESTS = ROOT / "tests/golden/requests"
FLAVOURS = ("vllm", "sglang", "llamacpp", "transformers", "deepseek", "generic")


class Fuzzed(NamedTuple):
    """A target: what is run, what it begins with, and the modules whose lines guide the search."""

    run: Callable[[bytes], None]
    seeds: Callable[[], Iterator[bytes]]
    modules: tuple[str, ...]


def pieces(data: bytes) -> list[bytes]:
    """The input in reads: its first four bytes say where the rest is cut."""
    knife, rest = data[:4], data[4:]
    places = sorted({byte * len(rest) // 256 for byte in knife} - {0, len(rest)})
    return [rest[a:b] for a, b in zip([0, *places], [*places, len(rest)], strict=True)]


def splitter(data: bytes) -> None:
    """Any cut gives the same records; nothing but GarbledError ever comes of it."""
    assert records(pieces(data)) == records([data[4:]])


def records(reads: list[bytes]) -> Any:
    """The records of these reads, or that there were too many bytes without an end."""
    made = Splitter(limit=2000)
    found = []
    try:
        for read in reads:
            found += made.feed(read)
    except GatewayError:
        return "too long" if sum(map(len, reads)) > 2000 else "wrongly refused"
    return found + made.finish()


def decoder(data: bytes) -> None:
    """Any body gives events that keep the rules, streamed or whole, from any flavour."""
    flavour, streamed = FLAVOURS[data[0] % len(FLAVOURS)] if data else "vllm", not data or data[0] < 128
    target = Target(UpstreamSpec(name="up", base_url="http://127.0.0.1:1"), "m", ModelSpec(), Facts(flavour))
    made = Decoder(ChatRequest("m", [{"role": "user", "content": "Hi"}]), target)
    try:
        events = drain(made, pieces(data[1:]), streamed)
    except GatewayError:
        return
    assert_rules(events)


def detector(data: bytes) -> None:
    """Any text, in any pieces, gives events that keep the rules and mean the same."""
    text = data[4:].decode("utf-8", "replace")
    if text:
        whole = events_of([text], Text, Ending("stop"), stages())
        in_pieces = events_of(cut(text, [byte * len(text) // 256 for byte in data[:4]]), Text, Ending("stop"), stages())
        assert_rules(whole)
        assert_rules(in_pieces)
        assert_same(in_pieces, whole)


def same_letter_by_letter(data: bytes) -> None:
    """A text means the same calls and shows the same words in one piece and in as many as there are."""
    text = data[4:].decode("utf-8", "replace")
    whole = events_of([text], Text, Ending("stop"), stages())
    assert_same(events_of(list(text), Text, Ending("stop"), stages()), whole)


def assert_same(events: list[Event], others: list[Event]) -> None:
    """The same calls and the same words."""
    assert _meaning(events) == _meaning(others)


def _meaning(events: list[Event]) -> Any:
    """Calls as they were written, and words. What arrived of a broken call may differ."""
    choices = fold(events).choices
    calls = choices[0].calls if choices else []
    written = [(call.name, call.ended, call.broken, "" if call.broken else call.arguments) for call in calls]
    return written, choices[0].text if choices else ""


def dialect(name: str) -> Callable[[bytes], None]:
    """Any body is a question or an error of the 400 class, and a question can be written as JSON."""

    def run(data: bytes) -> None:
        path = {"model": "gemini-2.5-flash", "action": "generateContent"} if name == "gemini" else {}
        try:
            request = DIALECTS[name].parse(Inbound(_parse(data), {}, {}, path))
        except GatewayError as error:
            if not 400 <= error.status < 500:
                raise
            DIALECTS[name].render_error(error, "req_1")
            return
        orjson.dumps([request.messages, request.tools, request.params])

    return run


def config(data: bytes) -> None:
    """Any file is a config or a list of what is wrong with it, each with its place."""

    def read_file(path: str) -> bytes:
        raise FileNotFoundError(path)

    try:
        parse_config(data, environ={}, base_dir="/nowhere", read_file=read_file)
    except ConfigErrors as errors:
        if not all(str(error) for error in errors.errors) or not errors.errors:
            raise


def wire(data: bytes) -> None:
    """Any head and body: the same however they are cut, or refused; never more content than bytes."""
    assert body_in(pieces(data)) == body_in([data[4:]])


def body_in(reads: list[bytes]) -> Any:
    """Status and content, or that it was refused."""
    whole, head, content = b"", None, b""
    try:
        for number, read in enumerate(reads):
            whole += read
            end = whole.find(b"\r\n\r\n") + 4
            if end >= 4:
                head = read_head(whole, end)
                if not isinstance(head, Head):
                    return "interim"
                rest = [whole[end:], *reads[number + 1 :]]
                for piece in rest:
                    content += head.body.feed(piece) if piece and not head.body.done else b""
                break
    except BadAnswerError:
        return "refused"
    assert len(content) <= sum(map(len, reads))
    return None if head is None else (head.status, content, head.body.done)


def _of_streams() -> Iterator[bytes]:
    for path in sorted(STREAMS.glob("*/upstream.*")):
        raw = path.read_bytes()
        if len(raw) < 4000:
            yield (b"\x10" if path.suffix == ".sse" else b"\x90") + b"\x40\x80\x81\xf0" + raw


def _of_requests(name: str) -> Callable[[], Iterator[bytes]]:
    def seeds() -> Iterator[bytes]:
        yield json.dumps({"model": "m", "messages": [{"role": "user", "content": "Hi"}], "prompt": "Hi", "input": "Hi"}).encode()
        for path in sorted((REQUESTS / name).glob("*.json")):
            body = orjson.dumps(orjson.loads(path.read_bytes())["body"])
            if len(body) < 6000:
                yield body

    return seeds


def _of_texts() -> Iterator[bytes]:
    for sample in [*positives()[::8], *innocents()[::8]]:
        yield b"\x20\x60\x90\xe0" + sample.text.encode()


def _of_configs() -> Iterator[bytes]:
    for path in (ROOT / "tests/config/example_full.json", ROOT / "ds2d/config/example.json"):
        yield path.read_bytes()


def _of_wires() -> Iterator[bytes]:
    head = b"\x20\x60\x90\xe0HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
    yield head + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1;x=y\r\n!\r\n0\r\nX: y\r\n\r\n"
    yield head + b"Content-Length: 5\r\nConnection: keep-alive\r\n\r\nhello"
    yield b"\x20\x60\x90\xe0HTTP/1.0 404 No\r\n\r\nhello"
    yield b"\x20\x60\x90\xe0HTTP/1.1 100 Continue\r\n\r\n"


TARGETS: dict[str, Fuzzed] = {
    "splitter": Fuzzed(splitter, lambda: (seed[1:] for seed in _of_streams()), ("ds2d/core/sse.py",)),
    "decoder": Fuzzed(decoder, _of_streams, ("ds2d/upstreams/openai/", "ds2d/core/sse.py")),
    "detector": Fuzzed(detector, _of_texts, ("ds2d/toolcalls/",)),
    "config": Fuzzed(config, _of_configs, ("ds2d/config/",)),
    "wire": Fuzzed(wire, _of_wires, ("ds2d/net/wire.py",)),
    **{
        f"dialect_{name}": Fuzzed(dialect(name), _of_requests(name), (f"ds2d/dialects/{name}", "ds2d/web/body.py"))
        for name in DIALECTS
    },
}
