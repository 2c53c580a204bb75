"""A folded answer as one chat completion (openai-chat.md 5), and errors.

Rule: the same answer streamed and whole says the same, so what the stream has no place for is left out here too.
"""

from __future__ import annotations

from typing import Any

import orjson

from ds2d.core.errors import GatewayError
from ds2d.core.events import CallPart, Choice, Completion, Ending, Extra, ReasoningPart, Usage
from ds2d.core.openai_shape import RESERVED, ended_choice, error_body, parted, usage_object
from ds2d.core.request import Envelope
from ds2d.dialects.openai_chat.encode import finish_reason, scored, wants_scores
from ds2d.dialects.openai_chat.reply import Reply


def render(completion: Completion, envelope: Envelope) -> bytes:
    """The body of a whole answer. Raises the completion's own failure."""
    if completion.failure is not None:
        raise completion.failure
    reply = envelope.request.reply if isinstance(envelope.request.reply, Reply) else Reply()
    both = reply.both_names or envelope.reasoning_field == "both"
    wanted = wants_scores(envelope.request)
    choices = [
        _choice(index, choice, scored(choice.extra, wanted), reply, both) for index, choice in enumerate(completion.choices)
    ]
    usage = completion.usage or Usage(envelope.prompt_tokens(), 0, source="counted")
    body: dict[str, Any] = {
        "id": envelope.new_id("chatcmpl-"),
        "object": "chat.completion",
        "created": envelope.created,
        "model": envelope.model,
        "choices": choices,
        "usage": usage_object(usage),
        "system_fingerprint": None,
    }
    if reply.tiered:
        body["service_tier"] = "default"
    body |= {name: value for name, value in completion.extra.items() if name not in RESERVED}
    return orjson.dumps(body)


def render_error(error: GatewayError, request_id: str) -> bytes:
    """The body of an error (errors.md 1)."""
    return error_body(error)


def _choice(index: int, choice: Choice, extra: Extra | None, reply: Reply, both: bool) -> dict[str, Any]:
    ending = choice.ending or Ending("stop")
    calls = choice.calls
    beside, inside = parted(extra)
    body = {
        "index": index,
        "message": {**inside, **_message(choice, calls, reply.legacy, both)},
        "finish_reason": finish_reason(ending, bool(calls), reply.legacy),
    }
    return ended_choice(beside, ending, body)


def _message(choice: Choice, calls: list[CallPart], legacy: bool, both: bool) -> dict[str, Any]:
    text, refusal = choice.text, choice.refusal
    content = text or (None if calls or refusal else "")
    message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": refusal or None}
    if reasoning := _reasoning(choice):
        message["reasoning_content"] = reasoning
        if both:
            message["reasoning"] = reasoning
    if calls and legacy:
        message["function_call"] = {"name": calls[0].name, "arguments": calls[0].arguments}
    elif calls:
        functions = [{"name": call.name, "arguments": call.arguments} for call in calls]
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": function} for call, function in zip(calls, functions, strict=True)
        ]
    return message


def _reasoning(choice: Choice) -> str:
    """Reasoning before the first text or call, as in a stream."""
    found = []
    for part in choice.parts:
        if type(part) is ReasoningPart:
            found.append(part.text)
        elif type(part) is CallPart or part.text.strip():  # type: ignore[union-attr]
            break
    return "".join(found)
