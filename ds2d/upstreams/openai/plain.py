"""The narrow view of a chunk: nearly every record of every server is one piece of text, or of a call's arguments.

Rule: what this view accepts holds nothing else, so that reading it loses no field. Fields typed None are accepted as null
only, and a field that is not here refuses the whole record, which is then read the careful way (decode.py).
"""

from __future__ import annotations

from typing import Any

import msgspec


class PlainArguments(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """A piece of JSON text."""

    arguments: str
    name: None = None


class PlainCall(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """A further piece of a call's arguments."""

    index: int
    function: PlainArguments
    id: None = None
    type: str | None = None


class PlainDelta(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """What a choice says in this chunk; the two names of reasoning are upstreams.md 1.1."""

    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    role: str | None = None
    refusal: None = None
    tool_calls: list[PlainCall] | None = None
    function_call: None = None


class PlainChoice(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """A choice that has not ended; `text` instead of a delta on the completions route."""

    index: int = 0
    delta: PlainDelta | None = None
    text: str | None = None
    finish_reason: None = None
    logprobs: None = None
    stop_reason: None = None
    matched_stop: None = None
    token_ids: None = None
    prompt_token_ids: None = None


class PlainChunk(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """A chunk of which all choices are plain."""

    choices: list[PlainChoice]
    id: str | None = None
    object: Any = None
    created: Any = None
    model: Any = None
    system_fingerprint: str | None = None
    usage: dict[str, Any] | None = None
    service_tier: None = None
    prompt_token_ids: None = None
    prompt_text: None = None


read_plain = msgspec.json.Decoder(PlainChunk).decode
"""Raises ValueError (msgspec's errors, and bytes that are no UTF-8, are ValueErrors) or RecursionError."""
