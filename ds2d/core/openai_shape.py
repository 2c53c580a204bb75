"""What the OpenAI-shaped dialects share: sampling fields and their limits, usage and error bodies.

Rule: dialects do not know each other, so what two of them spell the same way stands here; nothing of it knows a route.
Sources: openai-chat.md 2, 5, 6, 8; errors.md 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import msgspec
import orjson
from msgspec import Meta

from ds2d.core.errors import GatewayError
from ds2d.core.events import INSIDE, Ending, Extra, Finish, Usage
from ds2d.core.validate import invalid

MAX_TOKENS = 2**53 - 1
"""Largest token limit that is taken: clients mean "no limit" by numbers up to JavaScript's largest integer."""

NonEmpty = Annotated[str, Meta(min_length=1)]
TokenId = Annotated[str, Meta(pattern=r"^\d+\Z")]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
Stops = Annotated[str, Meta(min_length=1)] | Annotated[list[NonEmpty], Meta(max_length=16)]

NEVER_FORWARDED = frozenset(("request_id", "session_id", "kv_transfer_params", "ec_transfer_params", "prompt_embeds"))
"""Extras that steer a vLLM server from inside: not for clients (vllm-extras.md 4)."""


class StreamOptions(msgspec.Struct):
    """`stream_options`; obfuscation is accepted and ignored."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None
    continuous_usage_stats: bool | None = None


class Sampling(msgspec.Struct, kw_only=True):
    """Fields that chat and legacy completions check alike (openai-chat.md 2)."""

    model: NonEmpty
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    stop: Stops | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: dict[TokenId, Annotated[float, Meta(ge=-100, le=100)]] | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    user: str | None = None


SAMPLED = ("temperature", "top_p", "n", "stop", "presence_penalty", "frequency_penalty", "logit_bias", "seed")
"""The fields of `Sampling` that are given through unchanged."""


RESERVED = frozenset(("id", "object", "created", "model", "choices", "usage", "service_tier"))
"""Top-level keys of an answer that are ours, whatever an upstream's extra fields say."""


def given(body: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """The named fields that are there, neither null nor an empty list, as the client wrote them."""
    return {name: body[name] for name in names if body.get(name) not in (None, [])}


def unknown(body: Mapping[str, Any], known: frozenset[str]) -> dict[str, Any]:
    """The fields that the contract does not know: vLLM-type upstreams get them (openai-chat.md, head)."""
    return {name: value for name, value in body.items() if name not in known and value is not None}


def check_stream_options(view: Sampling) -> None:
    """`stream_options` is refused without `stream: true`."""
    if view.stream_options is not None and not view.stream:
        raise invalid("stream_options", "only allowed when stream is true.")


def usage_object(usage: Usage) -> dict[str, Any]:
    """Token counts (openai-chat.md 5); details only where they are known."""
    body: dict[str, Any] = {
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.completion,
        "total_tokens": usage.total,
    }
    if usage.cached is not None:
        body["prompt_tokens_details"] = {"cached_tokens": usage.cached}
        if usage.cache_write is not None:
            body["prompt_tokens_details"]["cache_write_tokens"] = usage.cache_write
    if usage.reasoning is not None:
        body["completion_tokens_details"] = {"reasoning_tokens": usage.reasoning}
    for name, parts in (usage.details or {}).items():
        body[name] = {**body.get(name, {}), **parts}
    return body


def closing_chunks(
    head: bytes, choices: list[dict[str, Any]], finish: Finish, usage: Usage, end: bytes, *, own_chunk: bool
) -> bytes:
    """The last chunks of a stream: one for each ended choice, usage where it was asked for, and the end mark.

    `head` is a chunk up to its choices, `end` what follows them in chunks without the final usage. `own_chunk`: the client
    asked for usage in a chunk of its own; else it stands on the last choice's (openai-chat.md 6).
    """
    extra = {name: value for name, value in (finish.extra or {}).items() if name not in RESERVED}
    last = b',"usage":' + orjson.dumps(usage_object(usage)) + (b"," + orjson.dumps(extra)[1:] if extra else b"}") + b"\n\n"
    out = [head + b',"choices":[' + orjson.dumps(choice) + b"]" + end for choice in choices]
    if own_chunk:
        out.append(head + b',"choices":[]' + last)
    else:
        out[-1] = out[-1].removesuffix(end) + last
    return b"".join(out) + b"data: [DONE]\n\n"


def parted(extra: Extra | None) -> tuple[Extra, Extra]:
    """An upstream's unknown fields of a choice: those beside its message or delta, and those inside."""
    beside = dict(extra or {})
    inside = beside.pop(INSIDE, None)
    return beside, inside if isinstance(inside, dict) else {}


def ended_choice(known: Extra | None, ending: Ending, body: dict[str, Any]) -> dict[str, Any]:
    """`body` with the fields an upstream sent for this choice, and vLLM's `stop_reason` where a stop string ended it."""
    choice = {"logprobs": None, **(known or {}), **body}
    if ending.stop is not None:
        choice.setdefault("stop_reason", ending.stop)
    return choice


def error_body(error: GatewayError) -> bytes:
    """The envelope: all four keys, always (errors.md 1)."""
    row = error.row
    inner = {"message": error.message, "type": row.openai_type, "code": row.openai_code, "param": error.param}
    return orjson.dumps({"error": inner})
