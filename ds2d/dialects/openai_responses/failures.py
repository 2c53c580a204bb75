"""What went wrong, in this dialect's words: HTTP bodies, and `response.error` inside a stream.

Rule: the code decides what Codex does next, so passing trouble is `server_error` or `rate_limit_exceeded`, and the codes that
make it give up are used for exactly their cause (clients.md, Codex CLI).
Surprise: a cancelled response has no error at all (openai-responses.md 5).
"""

from __future__ import annotations

import math
import re

import orjson

from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.openai_shape import error_body
from ds2d.dialects.openai_responses.frames import frame

_CODES: dict[ErrorKind, str] = {
    ErrorKind.CONTEXT_LENGTH: "context_length_exceeded",
    ErrorKind.QUOTA_EXHAUSTED: "insufficient_quota",
    ErrorKind.INVALID_IMAGE: "invalid_image",
    ErrorKind.UPSTREAM_REJECTED: "invalid_prompt",
    ErrorKind.UPSTREAM_TOO_LARGE: "invalid_prompt",
    ErrorKind.INVALID_REQUEST: "invalid_prompt",
    ErrorKind.UNSUPPORTED_PARAMETER: "invalid_prompt",
    ErrorKind.IMAGE_NOT_SUPPORTED: "invalid_prompt",
    ErrorKind.UPSTREAM_RATE_LIMITED: "rate_limit_exceeded",
    ErrorKind.RATE_LIMITED: "rate_limit_exceeded",
    ErrorKind.QUEUE_FULL: "rate_limit_exceeded",
    ErrorKind.QUEUE_TIMEOUT: "rate_limit_exceeded",
}

_AGAIN = re.compile(r"\s*(?:please )?try again in [\d.]+ ?s\.?$", re.IGNORECASE)
"""What a message says of it in its own words: Codex reads ours, and nobody needs both."""

_FIELDS = {
    "messages": "input",
    "max_tokens": "max_output_tokens",
    "max_completion_tokens": "max_output_tokens",
    "response_format": "text.format",
    "reasoning_effort": "reasoning.effort",
    "logprobs": "top_logprobs",
}
"""From chat's names to those of a body here (mapping.md 5)."""


def stream_error(error: GatewayError) -> dict[str, str] | None:
    """`response.error`: code and message; None for a cancelled response."""
    if error.kind is ErrorKind.CANCELLED:
        return None
    code, message = _CODES.get(error.kind, "server_error"), error.named(_FIELDS).message
    if error.kind is ErrorKind.TOOL_CHOICE_VIOLATION:
        message = f"tool_choice_violation: {message}"
    if code == "rate_limit_exceeded" and error.retry_after:
        message = f"{_AGAIN.sub('', message)} Please try again in {math.ceil(error.retry_after)}s."
    return {"code": code, "message": message}


def error_frame(error: GatewayError, number: int) -> bytes:
    """The event of a stream that has no response yet, in both forms that clients look for (section 5)."""
    inner = orjson.loads(error_body(error.named(_FIELDS)))["error"]
    flat = {name: inner[name] for name in ("message", "code", "param")}
    return frame("error", {"type": "error", "sequence_number": number} | flat | {"error": inner})


def render_error(error: GatewayError, request_id: str) -> bytes:
    """The body of an error."""
    return error_body(error.named(_FIELDS))
