"""The response object and what a question must remember for it.

Rule: an object is kept in two parts, everything but `output` and the output items, so that a store holds each text once;
`Answer.body` joins them. Every key of openai-responses.md 6 is always there.
Surprise: `memory` may differ from the output: reasoning that the client was not shown must still come back upstream when
the conversation goes on (section 7).
"""

from __future__ import annotations

from typing import Any, Literal, Protocol

import msgspec
import orjson

from ds2d.core.events import Usage
from ds2d.core.pipeline import Encoding
from ds2d.core.request import Envelope

Item = dict[str, Any]
Status = Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]
Kind = Literal["function", "custom", "local_shell", "shell", "apply_patch"]


class Native(msgspec.Struct, frozen=True):
    """What a function offered upstream was for the client: the tool's kind, its own name and namespace."""

    kind: Kind
    name: str
    namespace: str | None = None


class Recalled(Protocol):
    """A stored response as a new question sees it. `chain` is opaque here; the store gets it back with the new answer."""

    status: str
    chain: tuple[Any, ...]

    def items(self) -> list[Item]:
        """Every item of the conversation up to and including this response."""


class Answer(msgspec.Struct, frozen=True):
    """One state of a response object. `head` is the JSON object without `output`; `items` are JSON, as the client sees them.

    `memory` are the items as the next turn of a chain must see them. `item_ids` belong to `items`.
    """

    id: str
    status: Status
    head: bytes
    items: tuple[bytes, ...]
    item_ids: tuple[str, ...]
    memory: tuple[bytes, ...]

    @property
    def output(self) -> bytes:
        """The output items as a JSON array."""
        return b"[" + b",".join(self.items) + b"]"

    def body(self) -> bytes:
        """The whole object as JSON."""
        return join_body(self.head, self.output)


class Reply(msgspec.Struct):
    """What the answer needs of the question.

    `echo` are the members of the response object that repeat the question (JSON, without braces). `items` are the question's
    own input items. `chain` is what the previous response gave. `id` is chosen once per question, so attempts share it;
    `opened` counts the events that were written before an encoder began, and `encoder` is the latest one, both of background
    responses only; `answer` is the final state. `written` are the items as they are stored, and their ids, where that was done
    before (`state.responses.prepare`).
    """

    echo: bytes
    items: list[Item]
    store: bool = True
    background: bool = False
    encrypted: bool = False
    logprobs: bool = False
    natives: dict[str, Native] = {}
    chain: tuple[Any, ...] = ()
    id: str = ""
    opened: int = 0
    encoder: Encoding | None = None
    answer: Answer | None = None
    written: tuple[bytes, tuple[str, ...]] | None = None


def join_body(head: bytes, output: bytes) -> bytes:
    """A response object from its two parts."""
    return head[:-1] + b',"output":' + output + b"}"


def response_id(envelope: Envelope) -> str:
    """The id of this question's response, chosen on first use."""
    reply: Reply = envelope.request.reply
    if not reply.id:
        reply.id = envelope.new_id("resp_")
    return reply.id


def head(
    envelope: Envelope,
    status: Status,
    *,
    usage: Usage | None = None,
    error: dict[str, str] | None = None,
    incomplete: str | None = None,
) -> bytes:
    """The response object without `output` (openai-responses.md 6)."""
    reply: Reply = envelope.request.reply
    changing = {
        "id": response_id(envelope),
        "object": "response",
        "created_at": envelope.created,
        "completed_at": envelope.now() if status == "completed" else None,
        "status": status,
        "error": error,
        "incomplete_details": {"reason": incomplete} if incomplete else None,
        "model": envelope.model,
        "usage": usage_object(usage) if usage else None,
    }
    return orjson.dumps(changing)[:-1] + b"," + reply.echo + b"}"


def usage_object(usage: Usage) -> dict[str, Any]:
    """Token counts under the names of this dialect (mapping.md 8); what is not known is 0, since all are required."""
    return {
        "input_tokens": usage.prompt,
        "input_tokens_details": {"cached_tokens": usage.cached or 0, "cache_write_tokens": usage.cache_write or 0},
        "output_tokens": usage.completion,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning or 0},
        "total_tokens": usage.total,
    }
