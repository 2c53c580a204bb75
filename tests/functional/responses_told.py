"""What clients are told of a response, and what must hold of it (for responses_chaos.py)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.functional.chaos import MARK, MARKER, Attempt
from tests.functional.harness import Running

ENDED = ("completed", "incomplete", "failed", "cancelled")

Said = tuple[str, str, tuple[str, ...]]
"""A message: role, text, and the arguments of its calls as JSON."""


@dataclass
class Got:
    """What came back: `left` if the client did not wait for all of it."""

    asked: str = ""
    status: int = 0
    text: str = ""
    left: bool = False
    request_id: str = ""

    @property
    def json(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.text)
        return found

    @property
    def is_whole(self) -> bool:
        """Whether it is all of what was asked for."""
        return self.status == 200 and not self.left

    def events(self) -> list[dict[str, Any]]:
        """Those that came whole."""
        return [json.loads(part.split("data: ", 1)[1]) for part in self.text.split("\n\n")[:-1] if part.startswith("event:")]


@dataclass
class Made:
    """A response: what was asked, and all that anybody was told of it."""

    question: int
    key: str
    body: dict[str, Any] = field(repr=False)
    earlier: Made | None = field(repr=False)
    """What it continues."""
    repeat: str = ""
    id: str = ""
    request_id: str = ""
    events: dict[int, dict[str, Any]] = field(default_factory=dict, repr=False)
    partly: list[str] = field(default_factory=list)
    """Its text as it was told before it had ended."""
    final: dict[str, Any] | None = None
    cancelling: bool = False
    deleting: bool = False
    deleted: bool = False

    @property
    def asked(self) -> list[Said] | None:
        """The conversation up to its question; None if nobody was told all of it."""
        before = self.earlier.asked if self.earlier else []
        if self.earlier and before is not None:
            before = [*before, told(self.earlier.final["output"])] if self.earlier.final else None
        return None if before is None else [*before, *map(said, self.body["input"])]

    @property
    def is_kept(self) -> bool:
        """Whether it must be found."""
        there = self.body["background"] or self.final is not None
        return bool(self.id) and self.body["store"] and there and not self.deleting

    @property
    def is_chained_on(self) -> bool:
        """Whether it may be continued, as far as it is known."""
        return self.is_kept and self.final is not None and self.final["status"] in ("completed", "incomplete")


def wrongs(made: Made, everything: list[Attempt], short: set[int]) -> Iterator[str]:
    """What is wrong with how it ended, in words. `everything` are all attempts of all servers, `short` those that end
    at a limit."""
    final, attempts = made.final, [one for one in everything if one.question == made.question]
    if final is None:
        if made.is_kept:
            yield "has not ended"
        return
    _, text, calls = told(final["output"])
    marks = [tuple(map(int, found)) for found in MARK.findall(text)]
    more, whole = MARK.sub("", text), final["status"] in ("completed", "incomplete")
    if more and (whole or len(more) > MARKER):
        yield "was shown markup"
    if [piece for _, piece, _ in marks] != list(range(len(marks))) or len({number for number, _, _ in marks}) > 1:
        yield "has the text of two answers, or not all, or not in order"
    attempt = everything[marks[0][0]] if marks else None
    if attempt is not None and (attempt not in attempts or (attempt is not attempts[-1] and not made.repeat)):
        yield "has another's text, or another was asked for"
    if whole and attempt is None and all(one.kind != "empty" for one in attempts):
        yield "has no text and looks whole"
    if whole and attempt is not None:
        arguments = tuple(plain(json.dumps(one)) for one in attempt.arguments)
        if (attempt.kind, len(marks), calls) != ("whole", attempt.pieces, arguments):
            yield "is cut and looks whole, or has not the calls that were made"
        if (final["status"] == "incomplete") != (attempt.number in short):
            yield "has another end than was said"
        if final["usage"]["input_tokens"] != attempt.number:
            yield "was counted by another's use"
    if final["status"] == "cancelled" and not (made.cancelling or made.deleting):
        yield "was cancelled by nobody"
    if not all(text.startswith(part) for part in made.partly):
        yield f"lost some of {made.partly}"
    if made.events and sorted(made.events) == list(range(len(made.events))):
        yield from _unfolded(made, final)


def _unfolded(made: Made, final: dict[str, Any]) -> Iterator[str]:
    """Whether its events, all of them, come to what it is."""
    events = [event for _, event in sorted(made.events.items())]
    last = events[-1].get("response", {})
    if last.get("status") not in ENDED:
        return  # nobody heard it to its end
    done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    parts: dict[str, str] = {}
    for event in events:
        if event["type"].endswith(".delta"):
            parts[event["item_id"]] = parts.get(event["item_id"], "") + event["delta"]
    written = {item["id"]: item["content"][0]["text"] if item["type"] == "message" else item["arguments"] for item in done}
    if done != final["output"] or last != final or {name: text for name, text in written.items() if text} != parts:
        yield f"folds to {done} {parts}"


def marked(piece: bytes, number: int, reason: bytes) -> bytes:
    """A piece of an answer, with this count of prompt tokens and this end, in both spellings of JSON."""
    for space in (b"", b" "):
        piece = piece.replace(b'"prompt_tokens":%b7' % space, b'"prompt_tokens":%d' % number)
        piece = piece.replace(b'"finish_reason":%b"stop"' % space, b'"finish_reason":' + reason)
    return piece


def plain(arguments: str) -> str:
    """The same JSON in one spelling; half of one as it is."""
    try:
        return json.dumps(json.loads(arguments), sort_keys=True)
    except ValueError:
        return arguments


def said(item: dict[str, Any]) -> Said:
    """An item of a question as a message."""
    if item["type" if "type" in item else "role"] == "function_call_output":
        return "tool", item["output"], ()
    content = item["content"]
    return item["role"], content if isinstance(content, str) else "".join(part["text"] for part in content), ()


def told(output: list[dict[str, Any]]) -> Said:
    """All items of an answer as a message, without half calls."""
    text = "".join(part["text"] for item in output if item["type"] == "message" for part in item["content"])
    return "assistant", text, tuple(plain(item["arguments"]) for item in calls(output))


def put(message: dict[str, Any]) -> Said:
    """A message as a server gets it."""
    calls = message.get("tool_calls") or ()
    return message["role"], message.get("content") or "", tuple(plain(call["function"]["arguments"]) for call in calls)


def calls(output: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [item for item in output if item["type"] == "function_call" and item["status"] == "completed"]


def outputs(output: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What a client's tools say to an answer."""
    return [{"type": "function_call_output", "call_id": call["call_id"], "output": "sunny"} for call in calls(output)]


def misbooked(made: Made, row: dict[str, Any] | None) -> str:
    """What is wrong with its record. A request that joined another has one that says nothing, and so has a client that left."""
    final = made.final
    if final is None or made.repeat or not made.body["background"]:
        return ""
    state = "completed" if final["status"] in ("completed", "incomplete") else "failed"
    if row is None or row["state"] != state:
        return f"is on record as {row}"
    used = row.get("tokens", {}).get("prompt")
    return f"is on record with {row}" if state == "completed" and used not in (None, final["usage"]["input_tokens"]) else ""


def leaks(ds2d: Running) -> list[str]:
    """What is still held though nothing runs; empty if nothing is."""
    store, queue = ds2d.daemon.responses, ds2d.daemon.queue
    segments = {id(one): one for entry in store.entries for one in (*entry.chain, entry.output)}
    size = sum(entry.weight for entry in store.entries) + sum(one.weight for one in segments.values())
    kept = {"runs": len(store.runs), "running": len(store._running), "leases": queue.running + queue.waiting}
    kept |= {
        "bytes": store.bytes - size,
        "turns": len(ds2d.daemon.service.turns),
        "nameless": len(store) - len(list(store.entries)),
    }
    return [f"{name} {count}" for name, count in kept.items() if count]
