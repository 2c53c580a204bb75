"""Legacy completions: a prompt continued, not a conversation (openai-chat.md 8).

Rule: the prompt goes on as it came, text or tokens; n prompts give n x `n` choices, numbered by prompt first.
Surprise: an upstream may have to answer through its chat route, so log probabilities can arrive in chat's shape and reasoning
can come along: the first is put into this format's, the second has no place in it.
"""

from __future__ import annotations

from itertools import accumulate
from typing import Annotated, Any

import msgspec
import orjson
from msgspec import Meta

from ds2d.core.endpoint import Endpoint
from ds2d.core.errors import GatewayError
from ds2d.core.events import Completion, Ending, Event, Extra, Failure, Finish, Text, TextPart, Usage
from ds2d.core.openai_shape import (
    MAX_TOKENS,
    NEVER_FORWARDED,
    RESERVED,
    SAMPLED,
    Sampling,
    check_stream_options,
    closing_chunks,
    ended_choice,
    error_body,
    given,
    parted,
    unknown,
    usage_object,
)
from ds2d.core.request import ChatRequest, Envelope, Inbound
from ds2d.core.session import session_of
from ds2d.core.validate import convert, invalid

ROUTES = (Endpoint("POST", "/v1/completions"),)

DEFAULT_MAX_TOKENS = 16
MAX_PROMPTS = 2048
"""As many as embeddings take in one request: a bound on work that the format does not state."""

TokenId = Annotated[int, Meta(ge=0)]
Prompts = Annotated[list[str | TokenId | list[TokenId]], Meta(min_length=1)]

_IGNORED = frozenset(("metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"))


class Body(Sampling, kw_only=True):
    """A completions request."""

    prompt: str | Prompts
    max_tokens: Annotated[int, Meta(ge=0, le=MAX_TOKENS)] | None = None
    suffix: str | None = None
    echo: bool | None = None
    best_of: Annotated[int, Meta(ge=0, le=20)] | None = None
    logprobs: Annotated[int, Meta(ge=0, le=5)] | None = None


KNOWN = frozenset(Body.__struct_fields__) | NEVER_FORWARDED | _IGNORED


class Reply(msgspec.Struct, frozen=True):
    """What the answer needs of the question: how usage is told."""

    include_usage: bool = False
    running_usage: bool = False


def parse(inbound: Inbound) -> ChatRequest:
    """The question of a completions body. Raises GatewayError of the 400 class with the field's path."""
    body = inbound.body
    view = convert(body, Body)
    check_stream_options(view)
    _check_prompt(view.prompt)
    _check_best_of(view)
    options = view.stream_options
    wanted = bool(options and options.include_usage)
    params = given(body, (*SAMPLED, "logprobs", "echo", "suffix"))
    if not view.suffix:
        params.pop("suffix", None)
    return ChatRequest(
        model=view.model,
        messages=[],
        prompt=body["prompt"],
        stream=bool(view.stream),
        max_tokens=DEFAULT_MAX_TOKENS if view.max_tokens is None else view.max_tokens,
        params=params,
        extra=unknown(body, KNOWN),
        user=view.user,
        session=session_of(inbound.headers),
        reply=Reply(wanted, bool(wanted and options and options.continuous_usage_stats)),
    )


def _check_prompt(prompt: str | list[Any]) -> None:
    """One text, texts, one row of tokens, or rows of tokens: never mixed."""
    if isinstance(prompt, str):
        return
    kind = type(prompt[0])
    if any(type(one) is not kind for one in prompt):
        raise invalid("prompt", "must be text, texts, tokens or rows of tokens, not a mixture.")
    if kind is not int and len(prompt) > MAX_PROMPTS:
        raise invalid("prompt", f"at most {MAX_PROMPTS} prompts in one request.")
    for index, one in enumerate(prompt):
        if kind is list and not one:
            raise invalid(f"prompt[{index}]", "must not be empty.")


def _check_best_of(view: Body) -> None:
    """Servers have dropped it, so only a value that changes nothing is taken."""
    if view.best_of is None:
        return
    if view.best_of != (view.n or 1):
        raise invalid("best_of", "only 1 or the value of n is accepted.")
    if view.stream and view.best_of > 1:
        raise invalid("best_of", "not allowed with stream.")


class Encoder:
    """The stream of one completion."""

    content_type = "text/event-stream; charset=utf-8"

    def __init__(self, envelope: Envelope) -> None:
        self._envelope = envelope
        reply = envelope.request.reply
        self._reply: Reply = reply if isinstance(reply, Reply) else Reply()
        self._head = b"data: " + orjson.dumps(_constant(envelope))[:-1]
        self._offsets: dict[int, int] = {}
        self._close(b',"usage":null}\n\n' if self._reply.include_usage else b"}\n\n")

    def feed(self, batch: list[Event]) -> bytes:
        """The chunks for these events, as one piece. Reasoning and calls have no place here."""
        if self._reply.running_usage:
            usage = self._envelope.usage()
            self._close(b',"usage":' + (orjson.dumps(usage_object(usage)) if usage else b"null") + b"}\n\n")
        out: list[bytes] = []
        for event in batch:
            kind = type(event)
            if kind is Text:
                self._text(event, out)  # type: ignore[arg-type]
            elif kind is Finish:
                self._finish(event, out)  # type: ignore[arg-type]
            elif kind is Failure:
                out.append(b"data: " + error_body(event.error) + b"\n\n")  # type: ignore[union-attr]
        return b"".join(out)

    def keep_alive(self) -> bytes:
        """A comment: safe in this dialect."""
        return b": keep-alive\n\n"

    def _close(self, end: bytes) -> None:
        """`end` is what comes after the choices of a chunk."""
        self._end = end
        self._tail = b',"finish_reason":null,"logprobs":null}]' + end

    def _text(self, event: Text, out: list[bytes]) -> None:
        if event.extra is None:
            self._advance(event)
            out.append(self._head + b',"choices":[{"index":%d,"text":' % event.choice + orjson.dumps(event.text) + self._tail)
            return
        extra = _flat(event.extra)
        if "logprobs" in extra:
            extra["logprobs"] = _legacy_logprobs(extra["logprobs"], self._offsets.get(event.choice, 0))
        self._advance(event)
        choice = {"logprobs": None, **extra, "index": event.choice, "text": event.text, "finish_reason": None}
        out.append(self._head + b',"choices":[' + orjson.dumps(choice) + b"]" + self._end)

    def _advance(self, event: Text) -> None:
        self._offsets[event.choice] = self._offsets.get(event.choice, 0) + len(event.text)

    def _finish(self, event: Finish, out: list[bytes]) -> None:
        choices = [
            _ended(index, "", ending.extra, ending, self._offsets.get(index, 0)) for index, ending in enumerate(event.endings)
        ]
        usage = event.usage or _estimate(self._envelope)
        out.append(closing_chunks(self._head, choices, event, usage, self._end, own_chunk=self._reply.include_usage))


def render(completion: Completion, envelope: Envelope) -> bytes:
    """The body of a whole answer. Raises the completion's own failure."""
    if completion.failure is not None:
        raise completion.failure
    choices = []
    for index, choice in enumerate(completion.choices):
        text = "".join(part.text for part in choice.parts if type(part) is TextPart)
        choices.append(_ended(index, text, choice.extra, choice.ending or Ending("stop"), 0))
    usage = completion.usage or _estimate(envelope)
    extra = {name: value for name, value in completion.extra.items() if name not in RESERVED}
    return orjson.dumps({**_constant(envelope), "choices": choices, "usage": usage_object(usage), **extra})


def render_error(error: GatewayError, request_id: str) -> bytes:
    """The body of an error (errors.md 1)."""
    return error_body(error)


def _constant(envelope: Envelope) -> dict[str, Any]:
    """What every chunk, and the whole answer, begins with."""
    made = envelope.new_id("cmpl-")
    return {"id": made, "object": "text_completion", "created": envelope.created, "model": envelope.model}


def _estimate(envelope: Envelope) -> Usage:
    return Usage(envelope.prompt_tokens(), 0, source="counted")


def _ended(index: int, text: str, extra: Extra | None, ending: Ending, offset: int) -> dict[str, Any]:
    """A choice with its finish reason; tools are not offered on this route, so a call's reason is a stop."""
    reason = "stop" if ending.reason == "tool_calls" else ending.reason
    choice = ended_choice(_flat(extra), ending, {"index": index, "text": text, "finish_reason": reason})
    choice["logprobs"] = _legacy_logprobs(choice["logprobs"], offset)
    return choice


def _flat(extra: Extra | None) -> Extra:
    """This format has no message: what came inside one stands beside the text."""
    beside, inside = parted(extra)
    return {**inside, **beside}


def _legacy_logprobs(logprobs: Any, offset: int) -> Any:
    """Log probabilities in this format's shape. `offset` is where the text they belong to begins, in characters."""
    if not isinstance(logprobs, dict) or not isinstance(logprobs.get("content"), list):
        return logprobs
    entries = [entry for entry in logprobs["content"] if isinstance(entry, dict)]
    tokens = [str(entry.get("token", "")) for entry in entries]
    starts = accumulate(map(len, tokens), initial=offset)
    return {
        "tokens": tokens,
        "token_logprobs": [entry.get("logprob") for entry in entries],
        "top_logprobs": [_top(entry.get("top_logprobs")) for entry in entries],
        "text_offset": list(starts)[:-1],
    }


def _top(entries: Any) -> dict[str, Any] | None:
    if not isinstance(entries, list):
        return None
    return {str(entry.get("token", "")): entry.get("logprob") for entry in entries if isinstance(entry, dict)} or None
