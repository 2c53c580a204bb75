"""Whole bodies: answers, counts and errors (anthropic-messages.md 5, 7, 8), and what streams say the same way.

Rule: blocks come in the order in which the model produced them, and joined streams give the same blocks.
"""

from __future__ import annotations

from typing import Any

import orjson

from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.events import CallPart, Completion, Ending, Part, ReasoningPart, TextPart, Usage
from ds2d.core.request import Envelope
from ds2d.dialects.claude.arguments import is_beginning, missing_end
from ds2d.dialects.claude.reply import Reply

_STOP_REASONS = {"stop": "end_turn", "tool_calls": "tool_use", "length": "max_tokens", "content_filter": "refusal"}
_TIMEOUT_STATUS = 504

_FIELDS = {
    "max_completion_tokens": "max_tokens",
    "stop": "stop_sequences",
    "response_format": "output_config.format",
    "reasoning_effort": "output_config.effort",
    "parallel_tool_calls": "tool_choice.disable_parallel_tool_use",
    "user": "metadata.user_id",
}
"""From chat's names to those of a body here (mapping.md 5)."""

CUTTING = ("length", "content_filter")
"""Finish reasons that may come in the middle of a call: what there is of it is nobody's fault (mapping.md 7)."""


def reply_of(envelope: Envelope) -> Reply:
    """What `parse` left for the answer."""
    reply = envelope.request.reply
    return reply if isinstance(reply, Reply) else Reply()


def broken_arguments(name: str) -> GatewayError:
    """A call whose arguments are no object and cannot be made one."""
    return GatewayError(ErrorKind.MALFORMED_CALL, f"The model's arguments for the tool '{name}' are not a JSON object.")


def render(completion: Completion, envelope: Envelope) -> bytes:
    """The message. Raises GatewayError: the answer's own failure, or MALFORMED_CALL where `input` cannot be an object."""
    if completion.failure:
        raise completion.failure
    choice = completion.choices[0] if completion.choices else None
    ending = (choice.ending if choice else None) or Ending("stop")
    content = _content(choice.parts if choice else [], ending, reply_of(envelope))
    called = any(block["type"] == "tool_use" for block in content)
    usage = completion.usage or envelope.usage() or Usage(envelope.prompt_tokens(), 0)
    body = message(envelope, usage_fields(usage), content)
    body.update(stop_fields(ending, envelope, called=called, refused=bool(choice and choice.refusal)))
    return orjson.dumps(body)


def message(envelope: Envelope, usage: dict[str, Any], content: list[dict[str, Any]]) -> dict[str, Any]:
    """The message object, its end still open."""
    usage |= {"service_tier": "standard", "server_tool_use": None, "cache_creation": None}
    return {
        "id": envelope.new_id("msg_"),
        "type": "message",
        "role": "assistant",
        "model": envelope.model,
        "content": content,
        "stop_reason": None,
        "stop_sequence": None,
        "usage": usage,
    }


def usage_fields(usage: Usage) -> dict[str, Any]:
    """Token counts: `input_tokens` is without what the cache gave (mapping.md 8)."""
    cached, written = usage.cached or 0, usage.cache_write or 0
    fields: dict[str, Any] = {
        "input_tokens": max(0, usage.prompt - cached - written),
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": cached,
        "output_tokens": usage.completion,
    }
    if usage.reasoning is not None:
        fields["output_tokens_details"] = {"thinking_tokens": min(usage.reasoning, usage.completion)}
    return fields


def stop_fields(ending: Ending, envelope: Envelope, *, called: bool, refused: bool) -> dict[str, Any]:
    """`stop_reason` and its company. `called`: whether a call went out, which makes "stop" a tool_use. `refused`: whether the
    model said that it refuses, which makes it a refusal (mapping.md 2)."""
    reason = _STOP_REASONS[ending.reason]
    stop = ending.stop if ending.reason == "stop" and ending.stop in envelope.request.params.get("stop", ()) else None
    if stop is not None:
        reason = "stop_sequence"
    elif reason in ("end_turn", "tool_use"):
        reason = "tool_use" if called else "refusal" if refused else "end_turn"
    fields: dict[str, Any] = {"stop_reason": reason, "stop_sequence": stop}
    if reason == "refusal":
        fields["stop_details"] = {"type": "refusal", "category": None, "explanation": None}
    return fields


def _content(parts: list[Part], ending: Ending, reply: Reply) -> list[dict[str, Any]]:
    content: list[dict[str, Any]] = []
    for part in parts:
        if type(part) is TextPart:
            _add_text(content, part.text)
        elif type(part) is ReasoningPart:
            _add_thinking(content, part.text, reply)
        elif type(part) is CallPart:
            cut = ending.reason in CUTTING and (not part.ended or part is parts[-1])
            block = _call_block(part, reply, cut=cut)
            content += [block] if block else []
    return content


def _add_text(content: list[dict[str, Any]], text: str) -> None:
    """Text that only hidden thinking interrupted is one block, as it is in a stream."""
    if content and content[-1]["type"] == "text":
        content[-1]["text"] += text
    elif text:
        content.append({"type": "text", "text": text})


def _add_thinking(content: list[dict[str, Any]], text: str, reply: Reply) -> None:
    if reply.thinking != "hidden":
        content.append({"type": "thinking", "thinking": text if reply.thinking == "shown" else "", "signature": ""})


def _call_block(call: CallPart, reply: Reply, *, cut: bool) -> dict[str, Any] | None:
    """The tool_use block; None for a call that the token limit or a filter cut (mapping.md 7)."""
    name = reply.names.get(call.name, call.name)
    end = None if call.broken else missing_end(call.arguments)
    if cut and end != "" and is_beginning(call.arguments):
        return None
    if end is None or (cut and end != ""):
        raise broken_arguments(name)
    # What `missing_end` found to be an object goes out as it is: read, its large numbers would come out as others.
    return {"type": "tool_use", "id": call.id, "name": name, "input": orjson.Fragment(call.arguments + end)}


def render_count(tokens: int) -> bytes:
    """The body of a count_tokens answer; never less than one."""
    return orjson.dumps({"input_tokens": max(1, tokens)})


def render_error(error: GatewayError, request_id: str) -> bytes:
    """Anthropic's envelope, with the `code` and `param` of the reference's inside (errors.md 1)."""
    error = error.named(_FIELDS)
    row = error.row
    fields: dict[str, Any] = {
        "type": "timeout_error" if error.status == _TIMEOUT_STATUS else row.anthropic,
        "message": _too_long(error) if error.kind is ErrorKind.CONTEXT_LENGTH else error.message,
        "code": row.openai_code,
        "param": error.param,
    }
    if error.details:
        fields["details"] = error.details
    return orjson.dumps({"type": "error", "error": fields, "request_id": request_id})


def _too_long(error: GatewayError) -> str:
    """The texts that Claude Code reads numbers from, word for word (errors.md 2); it then compacts or asks for less."""
    prompt, max_tokens, window = error.limits or (None, None, None)
    if prompt is None or window is None:
        return f"prompt is too long: {error.message}"
    if max_tokens is None or prompt >= window:
        return f"prompt is too long: {prompt} tokens > {window} maximum"
    return (
        f"input length and `max_tokens` exceed context limit: {prompt} + {max_tokens} > {window}, "
        "decrease input length or `max_tokens` and try again"
    )
