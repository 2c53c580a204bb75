"""The embedded upstream: answers without a network and without a model, so that a fresh clone has something to talk to.

Rule: the same question gets the same answer, byte for byte, and every answer says that it is a demo and how to get a real
one. It speaks the chat-completions wire like any server, so that everything behind it is the same code.
Surprise: a "token" here is a word; tools are called when the user's text speaks of them, with arguments that fit the schema.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

import msgspec
import orjson

from ds2d.core.calls import Preparation, Script
from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.models import Target
from ds2d.core.request import ChatRequest
from ds2d.upstreams.demo.example import example_of

Json = dict[str, Any]

REASONING = "The user wrote to the demo. There is no model here, so I should say so and show how to get one."
GREETING = "This is the demo of ds2d: no model is behind it, and the same question always gets this answer."
ADVICE = (
    "For real answers, name an OpenAI-compatible server in config.json, for example "
    '{"upstreams": [{"name": "gpu", "kind": "openai", "base_url": "http://127.0.0.1:8000/v1"}]}; it takes effect at once.'
)

MAX_QUOTED = 200
"""Characters of the user's text that the answer repeats."""

_WORD = re.compile(r"\s*\S+\s*?(?=\s|$)|\s+$")
_NAME_WORDS = re.compile(r"[A-Za-z]{4,}")
_COMMON = frozenset(("call", "find", "from", "make", "show", "tool", "function", "this", "that", "with"))
"""Words of tool names that say nothing about what a user wants."""


class _Answer(msgspec.Struct):
    """One choice: its deltas (a token each, but for the heads of calls) and how it ends."""

    deltas: list[Json]
    reason: str
    stop: str | None = None

    @property
    def tokens(self) -> int:
        return sum(not _is_head(delta) for delta in self.deltas)

    @property
    def reasoning_tokens(self) -> int:
        return sum("reasoning_content" in delta for delta in self.deltas)


def check(request: ChatRequest, target: Target) -> None:
    """Whatever is asked is answered; nothing else is done here."""
    if request.task:
        raise GatewayError(ErrorKind.NOT_IMPLEMENTED, "The demo does nothing but answer.")


def prepare(request: ChatRequest, target: Target, token: str | None) -> Preparation:
    """The answer as a script, paced by `pace_ms`; the credential is not looked at."""
    yield from ()
    questions = _questions(request)
    answers = [_answer(request, target, question, number) for question in questions for number in range(1, request.choices + 1)]
    pace = target.upstream.pace_ms / 1000
    head = {"id": _identity(request), "created": 0, "model": target.model}
    usage = _usage(request, questions, answers)
    if request.stream:
        return Script(_stream(head, answers, usage, pace, chat=request.prompt is None))
    body = _whole(head, answers, usage, chat=request.prompt is None)
    return Script([(pace * sum(answer.tokens for answer in answers), body)], "application/json")


def _questions(request: ChatRequest) -> list[str]:
    """What is to be answered: the last user message, or the prompts of a legacy completion."""
    if request.prompt is None:
        asked = [message for message in request.messages if message["role"] in ("user", "tool")]
        return [_text(asked[-1].get("content")) if asked else ""]
    if isinstance(request.prompt, str) or isinstance(request.prompt[0], int):
        return [_text(request.prompt)]
    return [_text(prompt) for prompt in request.prompt]


def _answer(request: ChatRequest, target: Target, question: str, number: int) -> _Answer:
    deltas: list[Json] = [{"reasoning_content": piece} for piece in _pieces(REASONING)] if _thinks(request, target) else []
    calls = _calls(request, question)
    reason, stop = ("tool_calls", None) if calls else ("stop", None)
    for index, (name, arguments) in enumerate(calls):
        deltas += _call_deltas(request, index, name, arguments)
    if not calls:
        text, stop = _stopped(_says(request, question, number), request.params.get("stop"))
        deltas += [{"content": piece} for piece in _pieces(text)]
    answer = _Answer(deltas, reason, stop)
    if request.max_tokens is not None and answer.tokens > request.max_tokens:
        return _cut(answer, request.max_tokens)
    return answer


def _thinks(request: ChatRequest, target: Target) -> bool:
    if request.prompt is not None:
        return False
    fixed = target.spec.thinking if target.spec.thinking != "switch" else None
    mode = fixed or request.reasoning.mode
    return mode == "on" or (mode is None and "reasoner" in target.model)


def _says(request: ChatRequest, question: str, number: int) -> str:
    form = request.response_format or {}
    if form.get("type") == "json_schema":
        schema = (form.get("json_schema") or {}).get("schema") or {}
        return orjson.dumps(example_of(schema)).decode()
    if form.get("type") == "json_object":
        return orjson.dumps({"demo": True, "message": GREETING, "advice": ADVICE}).decode()
    of = f" (Answer {number} of {request.choices}.)" if request.choices > 1 else ""
    quoted = question[:MAX_QUOTED].strip()
    answers_tool = bool(request.messages) and request.messages[-1]["role"] == "tool"
    about = f"The tool answered: {quoted}" if answers_tool else f"You wrote: {quoted}"
    return f"{GREETING}{of}\n\n{about}\n\n{ADVICE}" if quoted else f"{GREETING}{of}\n\n{ADVICE}"


def _calls(request: ChatRequest, question: str) -> list[tuple[str, str]]:
    """Name and arguments of each tool that is to be called: those the text speaks of, or one if the choice demands it."""
    choice = request.tool_choice
    if not request.tools or choice.mode == "none":
        return []
    if request.messages[-1]["role"] == "tool" and choice.mode != "required":
        return []
    functions = [tool["function"] for tool in request.tools if choice.names is None or tool["function"]["name"] in choice.names]
    wanted = [function for function in functions if _speaks_of(question.lower(), function["name"].lower())]
    if not wanted and choice.mode == "required":
        wanted = functions[:1]
    if request.parallel_tool_calls is False or choice.named:
        wanted = wanted[:1]
    return [(function["name"], orjson.dumps(example_of(function["parameters"])).decode()) for function in wanted]


def _speaks_of(text: str, name: str) -> bool:
    if name in text:
        return True
    return any(word in text for word in _NAME_WORDS.findall(name) if word not in _COMMON)


def _call_deltas(request: ChatRequest, index: int, name: str, arguments: str) -> Iterator[Json]:
    seed = f"{_identity(request)} {index}"
    call_id = f"call_{hashlib.sha256(seed.encode()).hexdigest()[:24]}"
    function = {"name": name, "arguments": ""}
    yield {"tool_calls": [{"index": index, "id": call_id, "type": "function", "function": function}]}
    for start in range(0, len(arguments), 8):
        yield {"tool_calls": [{"index": index, "function": {"arguments": arguments[start : start + 8]}}]}


def _is_head(delta: Json) -> bool:
    return "tool_calls" in delta and "id" in delta["tool_calls"][0]


def _stopped(text: str, stops: str | list[str] | None) -> tuple[str, str | None]:
    """The text up to the stop string that comes first in it, and that string."""
    found = [(text.index(stop), stop) for stop in ([stops] if isinstance(stops, str) else stops or ()) if stop in text]
    if not found:
        return text, None
    at, stop = min(found)
    return text[:at], stop


def _cut(answer: _Answer, limit: int) -> _Answer:
    kept: list[Json] = []
    for delta in answer.deltas:
        if limit <= 0:
            break
        limit -= not _is_head(delta)
        kept.append(delta)
    return _Answer(kept, "length")


def _stream(head: Json, answers: list[_Answer], usage: Json, pace: float, *, chat: bool) -> Iterator[tuple[float, bytes]]:
    """The chunks, those of several choices in turn, as a server with a batch of them sends them."""
    head = {**head, "object": "chat.completion.chunk" if chat else "text_completion"}

    def record(choices: list[Json], **more: Any) -> bytes:
        return b"data: " + orjson.dumps({**head, "choices": choices, **more}) + b"\n\n"

    def choice(index: int, delta: Json, reason: str | None = None, **more: Any) -> Json:
        said = {"delta": delta} if chat else {"text": delta.get("content", "")}
        return {"index": index, **said, "logprobs": None, "finish_reason": reason, **more}

    if chat:
        for index in range(len(answers)):
            yield 0.0, record([choice(index, {"role": "assistant", "content": ""})])
    for deltas in zip_longest(*(answer.deltas for answer in answers)):
        for index, delta in enumerate(deltas):
            if delta is not None:
                yield pace, record([choice(index, delta)])
    for index, answer in enumerate(answers):
        yield 0.0, record([choice(index, {}, answer.reason, stop_reason=answer.stop)])
    yield 0.0, record([], usage=usage)
    yield 0.0, b"data: [DONE]\n\n"


def _whole(head: Json, answers: list[_Answer], usage: Json, *, chat: bool) -> bytes:
    choices = []
    for index, answer in enumerate(answers):
        said = {"message": _message(answer)} if chat else {"text": _joined(answer, "content") or ""}
        end = {"logprobs": None, "finish_reason": answer.reason, "stop_reason": answer.stop}
        choices.append({"index": index, **said, **end})
    kind = "chat.completion" if chat else "text_completion"
    return orjson.dumps({**head, "object": kind, "choices": choices, "usage": usage})


def _message(answer: _Answer) -> Json:
    message: Json = {"role": "assistant", "content": _joined(answer, "content")}
    if reasoning := _joined(answer, "reasoning_content"):
        message["reasoning_content"] = reasoning
    calls: list[Json] = []
    for delta in answer.deltas:
        for call in delta.get("tool_calls", ()):
            if "id" in call:
                calls.append({**call, "function": dict(call["function"])})
            else:
                calls[-1]["function"]["arguments"] += call["function"]["arguments"]
    if calls:
        message["tool_calls"] = calls
    return message


def _joined(answer: _Answer, name: str) -> str | None:
    return "".join(delta[name] for delta in answer.deltas if name in delta) or None


def _usage(request: ChatRequest, questions: list[str], answers: list[_Answer]) -> Json:
    texts = [_text(message.get("content")) for message in request.messages] if request.prompt is None else questions
    prompt = max(1, sum(len(_pieces(text)) for text in texts))
    completion = sum(answer.tokens for answer in answers)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "completion_tokens_details": {"reasoning_tokens": sum(answer.reasoning_tokens for answer in answers)},
    }


def _identity(request: ChatRequest) -> str:
    """The answer's id: the same for the same question."""
    told = orjson.dumps([request.messages, request.prompt, request.model], default=str)
    return f"chatcmpl-demo{hashlib.sha256(told).hexdigest()[:24]}"


def _pieces(text: str) -> list[str]:
    """The text in words, each with the blanks before it."""
    return _WORD.findall(text)


def _text(content: Any) -> str:
    if isinstance(content, list):
        texts = (part.get("text") if isinstance(part, dict) else str(part) for part in content)
        return " ".join(text for text in texts if isinstance(text, str))
    return content if isinstance(content, str) else ""
