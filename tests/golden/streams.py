"""Recorded streams as data: what a server sent, and the events that it means.

A case is a folder of `streams/`: `upstream.openai.sse` or `.json` (raw bytes), `events.jsonl` (expected), and, where the
question matters, `case.json`: flavour, tools (names), params, prompt, history_call_ids. `scripts/golden` writes events.jsonl.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import orjson

from ds2d.core.events import Event, Failure, Reasoning, Text, ToolArgs, merge_extra
from ds2d.core.models import Facts, Target
from ds2d.core.pipeline import Decoding
from ds2d.core.request import ChatRequest
from ds2d.core.settings import ModelSpec, UpstreamSpec
from ds2d.core.sse import Splitter, WholeBody
from ds2d.upstreams import REGISTRY

FOLDER = Path(__file__).parent / "streams"
MAX_BODY = 1 << 20


class Case:
    """One folder. `kind` is the upstream's kind; `streamed` says how its bytes are split."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = folder.name
        upstream = next(folder.glob("upstream.*"))
        self.kind = upstream.name.split(".")[1]
        self.streamed = upstream.suffix == ".sse"
        self.raw = upstream.read_bytes()
        described = folder / "case.json"
        self.about: dict[str, Any] = orjson.loads(described.read_bytes()) if described.exists() else {}

    def __repr__(self) -> str:
        return self.name

    @property
    def expected(self) -> str:
        return (self.folder / "events.jsonl").read_text()

    def request(self) -> ChatRequest:
        """The question that this was the answer to."""
        function = {"parameters": {"type": "object", "properties": {}}}
        calls = [
            {"id": call_id, "type": "function", "function": {"name": "f", "arguments": "{}"}}
            for call_id in self.about.get("history_call_ids", ())
        ]
        history: list[Any] = [{"role": "assistant", "content": None, "tool_calls": calls}] if calls else []
        return ChatRequest(
            model="asked",
            messages=[{"role": "user", "content": "Hi"}, *history],
            stream=self.streamed,
            tools=[{"type": "function", "function": {"name": name, **function}} for name in self.about.get("tools", ())],
            params=self.about.get("params", {}),
            prompt=self.about.get("prompt"),
        )

    def target(self) -> Target:
        flavour = self.about.get("flavour", "generic")
        upstream = UpstreamSpec(name="up", kind=self.kind, base_url="http://127.0.0.1:8000/v1")  # type: ignore[arg-type]
        return Target(upstream, "their-model", ModelSpec(), Facts(flavour=flavour))

    def decode(self, cuts: Iterable[int] = ()) -> list[Event]:
        """The events of the bytes, handed over in reads that end at `cuts`."""
        decoder = REGISTRY[self.kind].Decoder(self.request(), self.target())
        ends = sorted({cut for cut in cuts if 0 < cut < len(self.raw)})
        starts = [0, *ends]
        return drain(decoder, [self.raw[a:b] for a, b in zip(starts, [*ends, len(self.raw)], strict=True)], self.streamed)


def drain(decoder: Decoding, reads: Iterable[bytes], streamed: bool) -> list[Event]:
    """All events of one body."""
    splitter = Splitter() if streamed else WholeBody(MAX_BODY)
    events: list[Event] = []
    for read in reads:
        events += decoder.feed(splitter.feed(read))
    events += decoder.feed(splitter.finish())
    events += decoder.finish()
    return events


def all_cases() -> list[Case]:
    return [Case(folder) for folder in sorted(FOLDER.iterdir()) if folder.is_dir()]


def normalised(events: Iterable[Event]) -> list[Event]:
    """The same answer with neighbouring pieces of one text joined: what must not depend on where bytes were cut."""
    joined: list[Event] = []
    for event in events:
        last = joined[-1] if joined else None
        if last is not None and _joins(last, event):
            more: dict[str, Any] = {"text": last.text + event.text}  # type: ignore[union-attr]
            if extra := getattr(event, "extra", None):
                more["extra"] = {**(last.extra or {})}  # type: ignore[union-attr]
                merge_extra(more["extra"], extra)
            joined[-1] = msgspec.structs.replace(last, **more)
        else:
            joined.append(event)
    return joined


def _joins(last: Event, event: Event) -> bool:
    if type(last) is not type(event) or last.choice != event.choice:  # type: ignore[union-attr]
        return False
    if isinstance(event, ToolArgs):
        return last.index == event.index  # type: ignore[union-attr]
    return isinstance(event, Reasoning) or (isinstance(event, Text) and last.refusal == event.refusal)  # type: ignore[union-attr]


def as_lines(events: Iterable[Event]) -> str:
    """Events as JSON lines, defaults left out, for people to read."""
    return "".join(orjson.dumps(_plain(event)).decode() + "\n" for event in normalised(events))


def _plain(event: Event) -> dict[str, Any]:
    if isinstance(event, Failure):
        error = event.error
        told: dict[str, Any] = {"kind": str(error.kind), "status": error.status, "message": error.message, "usage": event.usage}
        return {"event": "Failure", **_without_defaults(told)}
    return {"event": type(event).__name__, **_without_defaults(msgspec.structs.asdict(event))}


def _without_defaults(fields: dict[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, tuple):
            value = [_inner(one) for one in value] or None
        elif isinstance(value, msgspec.Struct):
            value = _inner(value)
        if value is not None and value is not False and (name, value) != ("choice", 0):
            kept[name] = value
    return kept


def _inner(value: Any) -> Any:
    return _without_defaults(msgspec.structs.asdict(value)) if isinstance(value, msgspec.Struct) else value
