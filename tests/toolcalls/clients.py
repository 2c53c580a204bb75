"""What clients of each dialect see of a model's text: the whole way from the server's bytes to theirs, and back to calls.

Rule: a dialect has one entry in `CLIENTS`. Text completions have none: they cannot carry tools.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import orjson

from ds2d.core.errors import GatewayError
from ds2d.core.events import Folder, Usage
from ds2d.core.models import Facts, Target
from ds2d.core.pipeline import Pipeline
from ds2d.core.request import ChatRequest, Envelope, Inbound
from ds2d.core.settings import ModelSpec, UpstreamSpec
from ds2d.core.sse import Splitter
from ds2d.dialects import REGISTRY
from ds2d.toolcalls import build
from ds2d.upstreams import REGISTRY as UPSTREAMS
from tests.toolcalls.corpus import TOOLS, Sample, ids

FUNCTIONS: list[Any] = [tool["function"] for tool in TOOLS]
TARGET = Target(UpstreamSpec(name="up", kind="openai", base_url="http://127.0.0.1:8000/v1"), "m", ModelSpec(), Facts())


class Seen(msgspec.Struct):
    """What a client has after an answer. `failed`: it says that it is none."""

    text: str = ""
    reasoning: str = ""
    calls: list[tuple[str, Any]] = []
    failed: bool = False


class Client(msgspec.Struct, frozen=True):
    """One dialect's client: its question (`path` are the route's parameters), and how it reads a stream and a body."""

    body: dict[str, Any]
    read_stream: Callable[[list[Any]], Seen]
    read_body: Callable[[Any], Seen]
    path: dict[str, str] = {}


def server_bytes(sample: Sample, size: int = 7) -> bytes:
    """The sample as a chat server streams it."""
    field = "content" if sample.channel.__name__ == "Text" else "reasoning_content"
    deltas: list[dict[str, Any]] = [
        {"delta": {field: sample.text[at : at + size]}, "finish_reason": None} for at in range(0, len(sample.text), size)
    ]
    deltas.append({"delta": {}, "finish_reason": sample.ending.reason})
    chunks = [{"id": "x", "object": "chat.completion.chunk", "choices": [{"index": 0, **delta}]} for delta in deltas]
    return b"".join(b"data: " + orjson.dumps(chunk) + b"\n\n" for chunk in chunks) + b"data: [DONE]\n\n"


def asked(client: Client, dialect: str, *, stream: bool) -> ChatRequest:
    path = {
        key: value.replace("METHOD", "streamGenerateContent" if stream else "generateContent")
        for key, value in client.path.items()
    }
    body = client.body if client.path else {**client.body, "stream": stream}
    return REGISTRY[dialect].parse(Inbound(body, path=path, query={"alt": "sse"} if client.path and stream else {}))


def client_bytes(dialect: str, reads: Iterable[bytes], *, stream: bool) -> bytes:
    """What the client gets when the server's bytes arrive in these reads."""
    request = asked(CLIENTS[dialect], dialect, stream=stream)
    envelope = Envelope(request, "m", "req_1", 1, ids(), lambda: 1, lambda text: text, lambda: Usage(1, 1), lambda: 1)
    encoder: Any = REGISTRY[dialect].Encoder(envelope) if stream else Folder()
    pipeline = Pipeline(Splitter(), UPSTREAMS["openai"].Decoder(request, TARGET), build(request, ids()), encoder)
    out = [pipeline.feed(read) for read in reads]
    out += [pipeline.finish(), pipeline.close()]
    if stream:
        return b"".join(piece for piece in out if piece)
    try:
        if encoder.completion.failure is not None:
            raise encoder.completion.failure
        return REGISTRY[dialect].render(encoder.completion, envelope)
    except GatewayError as error:
        return REGISTRY[dialect].render_error(error, "req_1")


def seen_by(dialect: str, raw: bytes, *, stream: bool) -> Seen:
    client = CLIENTS[dialect]
    if not stream:
        return client.read_body(orjson.loads(raw))
    lines = [line.removeprefix(b"data:").strip() for line in raw.split(b"\n") if line.startswith(b"data:")]
    return client.read_stream([orjson.loads(line) for line in lines if line != b"[DONE]"])


def _chat_stream(frames: list[Any]) -> Seen:
    seen = Seen()
    parts: dict[int, list[str]] = {}
    for frame in frames:
        seen.failed = seen.failed or "error" in frame
        for choice in frame.get("choices", ()):
            delta = choice["delta"]
            seen.text += delta.get("content") or ""
            seen.reasoning += delta.get("reasoning_content") or ""
            for call in delta.get("tool_calls") or ():
                name, arguments = parts.setdefault(call["index"], ["", ""])
                function = call["function"]
                parts[call["index"]] = [name + function.get("name", ""), arguments + function.get("arguments", "")]
    seen.calls = [(name, _value(arguments)) for name, arguments in parts.values()]
    return seen


def _chat_body(body: Any) -> Seen:
    if "error" in body:
        return Seen(failed=True)
    message = body["choices"][0]["message"]
    calls = [(call["function"]["name"], _value(call["function"]["arguments"])) for call in message.get("tool_calls") or ()]
    return Seen(message["content"] or "", message.get("reasoning_content") or "", calls)


def _responses_stream(frames: list[Any]) -> Seen:
    last = frames[-1]
    if last["type"] in ("response.failed", "error"):
        return Seen(failed=True)
    return _responses_body(last["response"])


def _responses_body(body: Any) -> Seen:
    seen = Seen(failed=body.get("error") is not None)
    for item in body.get("output", ()):
        if item["type"] == "message":
            seen.text += "".join(part["text"] for part in item["content"])
        elif item["type"] == "reasoning":
            seen.reasoning += "".join(part["text"] for part in item["summary"])
        elif item["type"] == "function_call":
            seen.calls.append((item["name"], _value(item["arguments"])))
    return seen


def _claude_stream(frames: list[Any]) -> Seen:
    seen = Seen()
    inputs: dict[int, str] = {}
    names: dict[int, str] = {}
    for frame in frames:
        match frame["type"]:
            case "error":
                seen.failed = True
            case "content_block_start" if frame["content_block"]["type"] == "tool_use":
                names[frame["index"]], inputs[frame["index"]] = frame["content_block"]["name"], ""
            case "content_block_delta":
                delta = frame["delta"]
                seen.text += delta.get("text", "")
                seen.reasoning += delta.get("thinking", "")
                if "partial_json" in delta:
                    inputs[frame["index"]] += delta["partial_json"]
    seen.calls = [(names[index], _value(inputs[index] or "{}")) for index in names]
    return seen


def _claude_body(body: Any) -> Seen:
    seen = Seen(failed=body["type"] == "error")
    for block in body.get("content", ()):
        seen.text += block.get("text", "")
        seen.reasoning += block.get("thinking", "")
        if block["type"] == "tool_use":
            seen.calls.append((block["name"], block["input"]))
    return seen


def _gemini_stream(frames: list[Any]) -> Seen:
    seen = Seen()
    for frame in frames:
        one = _gemini_body(frame)
        seen.text += one.text
        seen.reasoning += one.reasoning
        seen.calls += one.calls
        seen.failed = seen.failed or one.failed
    return seen


def _gemini_body(body: Any) -> Seen:
    seen = Seen(failed="error" in body)
    for candidate in body.get("candidates", ()):
        seen.failed = seen.failed or candidate.get("finishReason") in ("UNEXPECTED_TOOL_CALL", "MALFORMED_FUNCTION_CALL")
        for part in candidate.get("content", {}).get("parts", ()):
            if "functionCall" in part:
                seen.calls.append((part["functionCall"]["name"], part["functionCall"].get("args", {})))
            elif part.get("thought"):
                seen.reasoning += part.get("text", "")
            else:
                seen.text += part.get("text", "")
    return seen


def _value(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


_HELLO = [{"role": "user", "content": "hi"}]

CLIENTS: dict[str, Client] = {
    "openai_chat": Client({"model": "m", "messages": _HELLO, "tools": TOOLS}, _chat_stream, _chat_body),
    "openai_responses": Client(
        {
            "model": "m",
            "input": "hi",
            "reasoning": {"summary": "auto"},
            "tools": [{"type": "function", "strict": False, **function} for function in FUNCTIONS],
        },
        _responses_stream,
        _responses_body,
    ),
    "claude": Client(
        {
            "model": "m",
            "max_tokens": 9999,
            "messages": _HELLO,
            "thinking": {"type": "enabled", "budget_tokens": 2048},
            "tools": [
                {"name": function["name"], "description": function["description"], "input_schema": function["parameters"]}
                for function in FUNCTIONS
            ],
        },
        _claude_stream,
        _claude_body,
    ),
    "gemini": Client(
        {
            "contents": [{"role": "user", "parts": [{"text": "hi"}]}],
            "generationConfig": {"thinkingConfig": {"includeThoughts": True}},
            "tools": [
                {
                    "functionDeclarations": [
                        {
                            "name": function["name"],
                            "description": function["description"],
                            "parametersJsonSchema": function["parameters"],
                        }
                        for function in FUNCTIONS
                    ]
                }
            ],
        },
        _gemini_stream,
        _gemini_body,
        {"model": "m", "method": "METHOD"},
    ),
}
