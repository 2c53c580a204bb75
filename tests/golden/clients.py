"""Recorded upstream answers as every dialect's client gets them: `client.<dialect>.sse` streamed, `client.<dialect>.json` whole.

Rule: the way is the service's own (splitter, decoder, stages of toolcalls, encoder), with ids that count up and a clock that
stands still. A dialect that cannot have asked the question has no file: legacy completions ask for recordings of their own.
Surprise: an answer that failed before its first byte has the HTTP error's body in both files, as its client would.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from itertools import count
from typing import Any

import msgspec
import orjson

from ds2d import toolcalls
from ds2d.core.errors import GatewayError
from ds2d.core.events import Failure, Folder
from ds2d.core.pipeline import Encoding, Pipeline
from ds2d.core.request import ChatRequest, Envelope, Inbound
from ds2d.core.sse import Splitter, WholeBody
from ds2d.dialects import REGISTRY
from ds2d.upstreams import REGISTRY as UPSTREAMS
from tests.golden.streams import MAX_BODY, Case

HELLO = [{"role": "user", "content": "Hi"}]
PARAMETERS = {"type": "object", "properties": {}}


def asks(dialect: str, case: Case) -> bool:
    """Whether this dialect's clients can have asked what the case answers: its prompt, and tools of such names."""
    if (dialect == "openai_completions") != ("prompt" in case.about):
        return False
    try:
        question(dialect, case, stream=True)
    except GatewayError:
        return False
    return True


def body_of(dialect: str, case: Case, *, stream: bool) -> dict[str, Any]:
    """The question as a client of this dialect writes it, thinking shown where that must be asked for."""
    functions = [{"name": name, "parameters": PARAMETERS} for name in case.about.get("tools", ())]
    match dialect:
        case "claude":
            tools: Any = [{"name": function["name"], "input_schema": PARAMETERS} for function in functions]
            thinking = {"type": "enabled", "budget_tokens": 1024}
            return {
                "model": "asked",
                "messages": HELLO,
                "max_tokens": 4096,
                "tools": tools,
                "thinking": thinking,
                "stream": stream,
            }
        case "gemini":
            declared: Any = [{"functionDeclarations": functions}] if functions else []
            contents = [{"role": "user", "parts": [{"text": "Hi"}]}]
            thoughts = {"thinkingConfig": {"includeThoughts": True}}
            return {"contents": contents, "tools": declared, "generationConfig": thoughts}
        case "openai_responses":
            flat = [{"type": "function", **function} for function in functions]
            include = ["reasoning.encrypted_content"]
            return {"model": "asked", "input": "Hi", "tools": flat, "include": include, "stream": stream}
        case "openai_completions":
            return {"model": "asked", "prompt": case.about["prompt"], "stream": stream, **_with_usage(stream)}
    nested = [{"type": "function", "function": function} for function in functions]
    return {"model": "asked", "messages": HELLO, "tools": nested, "stream": stream, **_with_usage(stream)}


def question(dialect: str, case: Case, *, stream: bool) -> ChatRequest:
    """The parsed question, with the parameters and the history that the recording belongs to."""
    method = "streamGenerateContent" if stream else "generateContent"
    inbound = Inbound(body_of(dialect, case, stream=stream), query={"alt": "sse"}, path={"model": "asked", "method": method})
    parsed = REGISTRY[dialect].parse(inbound)
    recorded = case.request()
    params = {**parsed.params, **recorded.params}
    return msgspec.structs.replace(parsed, stream=stream, params=params, messages=recorded.messages, prompt=recorded.prompt)


def answer(dialect: str, case: Case, *, stream: bool, cuts: Iterable[int] = ()) -> bytes:
    """What the client gets when the upstream's bytes arrive in reads that end at `cuts`."""
    module = REGISTRY[dialect]
    request = question(dialect, case, stream=stream)
    ids = count(1)

    def new_id(prefix: str) -> str:
        return f"{prefix}{next(ids):024d}"

    envelope = Envelope(
        request=request,
        model="asked",
        request_id="req_1",
        created=1_700_000_000,
        new_id=new_id,
        now=lambda: 1_700_000_009,
        seal=lambda text: base64.b64encode(text.encode()).decode(),
    )
    encoder: Encoding = module.Encoder(envelope) if stream else Folder()
    decoder = UPSTREAMS[case.kind].Decoder(request, case.target())
    splitter = Splitter() if case.streamed else WholeBody(MAX_BODY)
    pipeline = Pipeline(splitter, decoder, toolcalls.build(request, new_id), encoder)
    out = b"".join([pipeline.feed(read) for read in reads(case.raw, cuts)]) + pipeline.finish()
    try:
        if isinstance(pipeline.ending, Failure) and not out:
            raise pipeline.ending.error
        out += pipeline.close()
        return module.render(encoder.completion, envelope) if isinstance(encoder, Folder) else out
    except GatewayError as error:
        return module.render_error(error, "req_1")


def reads(raw: bytes, cuts: Iterable[int]) -> Iterator[bytes]:
    """The bytes in pieces."""
    ends = [*sorted({cut for cut in cuts if 0 < cut < len(raw)}), len(raw)]
    start = 0
    for end in ends:
        yield raw[start:end]
        start = end


def expected_files(case: Case) -> Iterator[tuple[str, str, bool]]:
    """Name, dialect and whether it streams, of each file that a case has."""
    for dialect in REGISTRY:
        if asks(dialect, case):
            yield f"client.{dialect}.sse", dialect, True
            yield f"client.{dialect}.json", dialect, False


def _with_usage(stream: bool) -> dict[str, Any]:
    return {"stream_options": {"include_usage": True}} if stream else {}


GROWING = {"content", "reasoning_content", "refusal", "text", "delta", "partial_json", "thinking", "arguments"}
"""Keys whose text comes in pieces."""


def normalised(data: bytes) -> list[Any]:
    """A stream's frames with neighbouring pieces of one text joined: what must not depend on where bytes were cut."""
    if not data.startswith((b"data:", b"event:")):
        return [orjson.loads(data)]
    lines = [line[5:].strip() for line in data.decode().split("\n") if line.startswith("data:")]
    frames = [one for line in lines for one in _single(orjson.loads(line) if line != "[DONE]" else line)]
    joined: list[Any] = []
    for frame in frames:
        grown = _grown(joined[-1], frame) if joined else None
        if grown is None:
            joined.append(frame)
        else:
            joined[-1] = grown
    return joined


def _single(frame: Any) -> list[Any]:
    """Gemini puts several parts into one frame where they come together; then each is one."""
    if not isinstance(frame, dict):
        return [frame]
    frame.pop("sequence_number", None)
    candidates = frame.get("candidates") or [{}]
    parts = (candidates[0].get("content") or {}).get("parts") or []
    if len(parts) < 2:
        return [frame]
    first = candidates[0]
    return [{**frame, "candidates": [{**first, "content": {**first["content"], "parts": [part]}}]} for part in parts]


def _grown(before: Any, after: Any) -> Any:
    """Two frames as one, if they are the same but for text that comes in pieces; else None."""
    grew = False

    def both(one: Any, other: Any, key: str) -> Any:
        nonlocal grew
        if key in GROWING and isinstance(one, str) and isinstance(other, str):
            grew = True
            return one + other
        if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
            return {name: both(one[name], other[name], name) for name in one}
        if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
            return [both(*pair, "") for pair in zip(one, other, strict=True)]
        if one != other:
            raise ValueError(key)
        return one

    try:
        merged = both(before, after, "")
    except ValueError:
        return None
    return merged if grew else None
