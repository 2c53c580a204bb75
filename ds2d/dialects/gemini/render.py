"""What answers are made of, the whole answer, counts, and errors (gemini.md 5 to 7, 10).

Rule: only keys that the SDK's types know go out; arguments of a call are an object or the call is not shown at all.
Surprise: some things that are errors elsewhere are a finish reason here, with status 200: see `finish_word`.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Sequence
from typing import Any

import orjson

from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.events import CallPart, Choice, Completion, Ending, ReasoningPart, TextPart, Usage
from ds2d.core.request import Envelope
from ds2d.dialects.gemini.reply import Reply

_FINISH = {"stop": "STOP", "tool_calls": "STOP", "length": "MAX_TOKENS", "content_filter": "SAFETY"}
_UNDECLARED = "tool_call_rejected:undeclared"
"""The note that says so (Finish.notes)."""

_EMPTY = {"undeclared": "UNEXPECTED_TOOL_CALL", "malformed": "MALFORMED_FUNCTION_CALL"}
"""Causes of an empty turn that have a finish reason of their own (`details` of EMPTY_ANSWER)."""

_FIELDS = {
    "messages": "contents",
    "tool_choice": "toolConfig",
    "max_tokens": "generationConfig.maxOutputTokens",
    "max_completion_tokens": "generationConfig.maxOutputTokens",
    "temperature": "generationConfig.temperature",
    "top_p": "generationConfig.topP",
    "top_k": "generationConfig.topK",
    "stop": "generationConfig.stopSequences",
    "n": "generationConfig.candidateCount",
    "seed": "generationConfig.seed",
    "presence_penalty": "generationConfig.presencePenalty",
    "frequency_penalty": "generationConfig.frequencyPenalty",
    "logprobs": "generationConfig.responseLogprobs",
    "top_logprobs": "generationConfig.logprobs",
    "response_format": "generationConfig.responseSchema",
    "reasoning_effort": "generationConfig.thinkingConfig",
    "dimensions": "outputDimensionality",
}
"""From chat's names to those of a body here (mapping.md 5)."""

_BREAKS_LINES = ((b"\xe2\x80\xa8", b"\\u2028"), (b"\xe2\x80\xa9", b"\\u2029"), (b"\xc2\x85", b"\\u0085"))
"""Characters that some HTTP clients of the SDKs take for line ends, in the middle of a frame."""


def dumps(value: Any) -> bytes:
    """JSON that no client cuts in two."""
    data = orjson.dumps(value)
    if not data.isascii():
        for plain, escaped in _BREAKS_LINES:
            data = data.replace(plain, escaped)
    return data


def reply_of(envelope: Envelope) -> Reply:
    """What the question left for its answer."""
    reply = envelope.request.reply
    return reply if isinstance(reply, Reply) else Reply()


def estimate(envelope: Envelope) -> Usage:
    """For turns whose usage nobody counted: it is never left out."""
    return Usage(envelope.prompt_tokens(), 0, source="counted")


def usage_metadata(usage: Usage, *, thinking: bool) -> dict[str, Any]:
    """Token counts (gemini.md 6). `thinking`: it was on, so that its count stands even as zero."""
    thought = usage.reasoning or 0
    body = {"promptTokenCount": usage.prompt, "candidatesTokenCount": max(0, usage.completion - thought)}
    body["totalTokenCount"] = usage.total
    if thought or thinking:
        body["thoughtsTokenCount"] = thought
    if usage.cached:
        body["cachedContentTokenCount"] = usage.cached
    return body


def arguments(written: str) -> Any:
    """The arguments of a call for embedding in JSON; None where they are no object.

    The model's own JSON goes out as it is, large numbers and doubled keys included; only line ends between its values
    would break a frame.
    """
    written = written.strip() or "{}"
    try:
        value = orjson.loads(written)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(value, dict):
        return None
    return orjson.Fragment(written.replace("\n", " ").replace("\r", " "))


def call_part(call_id: str, name: str, args: Any, thoughts: str, seal: Callable[[str], str]) -> dict[str, Any]:
    """A functionCall part; with the reasoning that led to it, which the client carries back (gemini.md 6)."""
    part: dict[str, Any] = {"functionCall": {"id": call_id, "name": name, "args": args}}
    if thoughts and (token := seal(thoughts)):
        part["thoughtSignature"] = base64.b64encode(token.encode()).decode()
    return part


def finish_reason(ending: Ending, *, malformed: bool, called: bool, notes: Sequence[str]) -> str:
    """The finish reason of a candidate; a call that could not be shown is one, unless limit or filter cut it (mapping.md 7)."""
    if malformed and ending.reason not in ("length", "content_filter"):
        return "MALFORMED_FUNCTION_CALL"
    if not called and _UNDECLARED in notes and ending.reason in ("stop", "tool_calls"):
        return "UNEXPECTED_TOOL_CALL"
    return _FINISH.get(ending.reason, "OTHER")


def finish_word(error: GatewayError) -> str | None:
    """The finish reason that stands for an error here, with status 200; None where it stays an error (errors.md 2)."""
    if error.kind is ErrorKind.MALFORMED_CALL:
        return "MALFORMED_FUNCTION_CALL"
    cause = (error.details or {}).get("cause") if error.kind is ErrorKind.EMPTY_ANSWER else None
    return _EMPTY.get(cause) if isinstance(cause, str) else None


def unquoted(words: str) -> str:
    """The word inside a JSON string; anything else as it is."""
    try:
        value = orjson.loads(words)
    except orjson.JSONDecodeError:
        return words
    return value if isinstance(value, str) else words


def logprobs_result(logprobs: Any) -> dict[str, Any] | None:
    """Chat's log probabilities in Gemini's shape."""
    entries = logprobs.get("content") if isinstance(logprobs, dict) else None
    if not isinstance(entries, list):
        return None
    entries = [entry for entry in entries if isinstance(entry, dict)]
    tops = [top if isinstance(top := entry.get("top_logprobs"), list) else [] for entry in entries]
    return {
        "chosenCandidates": [_likely(entry) for entry in entries],
        "topCandidates": [{"candidates": [_likely(one) for one in top if isinstance(one, dict)]} for top in tops],
    }


def _likely(entry: dict[str, Any]) -> dict[str, Any]:
    return {"token": entry.get("token"), "logProbability": entry.get("logprob")}


def render(completion: Completion, envelope: Envelope) -> bytes:
    """The body of a whole answer. Raises the completion's own failure unless a finish reason says it."""
    reply = reply_of(envelope)
    failure = completion.failure
    word = finish_word(failure) if failure else None
    if failure is not None and word is None:
        raise failure
    choices = completion.choices or [Choice()]
    thought = any(choice.reasoning for choice in choices)
    body = {
        "candidates": [
            _candidate(index, choice, envelope, reply, word, completion.notes) for index, choice in enumerate(choices)
        ],
        "usageMetadata": usage_metadata(completion.usage or estimate(envelope), thinking=reply.thinking or thought),
        "modelVersion": envelope.model,
        "responseId": envelope.new_id(""),
    }
    return dumps(body)


def _candidate(
    index: int, choice: Choice, envelope: Envelope, reply: Reply, word: str | None, notes: Sequence[str]
) -> dict[str, Any]:
    parts, malformed = _parts(choice, envelope, reply)
    reason = word or finish_reason(
        choice.ending or Ending("stop"),
        malformed=malformed,
        called=any("functionCall" in part for part in parts),
        notes=notes,
    )
    candidate: dict[str, Any] = {
        "index": index,
        "content": {"role": "model", "parts": parts or [{"text": ""}]},
        "finishReason": reason,
    }
    if result := logprobs_result(choice.extra.get("logprobs")):
        candidate["logprobsResult"] = result
        chosen = [given for entry in result["chosenCandidates"] if isinstance(given := entry["logProbability"], int | float)]
        if chosen:
            candidate["avgLogprobs"] = sum(chosen) / len(chosen)
    return candidate


def _parts(choice: Choice, envelope: Envelope, reply: Reply) -> tuple[list[dict[str, Any]], bool]:
    """The parts of a candidate, and whether a call could not be shown."""
    parts: list[dict[str, Any]] = []
    thoughts: list[str] = []
    malformed = called = False
    shown = choice.parts
    if reply.unquote:
        words = "".join(part.text for part in shown if type(part) is TextPart)
        shown = [*(part for part in shown if type(part) is not TextPart), TextPart(unquoted(words))]
    for part in shown:
        if type(part) is ReasoningPart:
            thoughts.append(part.text)
            if reply.thoughts:
                parts.append({"text": part.text, "thought": True})
        elif type(part) is TextPart:
            if part.text:
                parts.append({"text": part.text})
        elif type(part) is CallPart:
            args = None if part.broken or not part.ended else arguments(part.arguments)
            if args is None:
                malformed = True
                continue
            parts.append(call_part(part.id, part.name, args, "" if called else "".join(thoughts), envelope.seal))
            called = True
    return parts, malformed


def render_count(tokens: int) -> bytes:
    """The body of a countTokens answer."""
    return orjson.dumps({"totalTokens": tokens, "promptTokensDetails": [{"modality": "TEXT", "tokenCount": tokens}]})


def render_error(error: GatewayError, request_id: str) -> bytes:
    """The body of an error (gemini.md 10)."""
    return dumps(error_object(error))


def error_object(error: GatewayError) -> dict[str, Any]:
    """The error as it stands in bodies and in streams alike."""
    error = error.named(_FIELDS)
    late = error.status == 504
    inner: dict[str, Any] = {
        "code": error.status,
        "message": "invalid json" if error.kind is ErrorKind.INVALID_JSON else error.message,
        "status": "DEADLINE_EXCEEDED" if late else error.row.gemini,
    }
    if details := _details(error):
        inner["details"] = details
    return {"error": inner}


def _details(error: GatewayError) -> list[dict[str, Any]]:
    prefix = "type.googleapis.com/google.rpc."
    if error.kind is ErrorKind.INVALID_KEY:
        return [{"@type": prefix + "ErrorInfo", "reason": "API_KEY_INVALID", "domain": "googleapis.com"}]
    if error.param is not None and error.row.gemini == "INVALID_ARGUMENT":
        violation = {"field": error.param, "description": error.message}
        return [{"@type": prefix + "BadRequest", "fieldViolations": [violation]}]
    if error.row.gemini in ("RESOURCE_EXHAUSTED", "UNAVAILABLE") and not error.row.final:
        return [{"@type": prefix + "RetryInfo", "retryDelay": f"{max(1, math.ceil(error.retry_after or 1))}s"}]
    return []
