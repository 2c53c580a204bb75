"""Questions and targets for the tests of this folder."""

from __future__ import annotations

from typing import Any

import orjson

from ds2d.core.calls import Call, Preparation
from ds2d.core.models import Facts, Target
from ds2d.core.request import ChatRequest, ReasoningWish, Tool, ToolChoice
from ds2d.core.settings import ModelSpec, UpstreamSpec
from ds2d.upstreams.openai import prepare

FLAVOURS = ("vllm", "sglang", "llamacpp", "llamacpp_python", "transformers", "deepseek", "generic")
HI = [{"role": "user", "content": "Hi"}]
ON, OFF = ReasoningWish("on"), ReasoningWish("off")
REQUIRED = ToolChoice("required")
NAMED = ToolChoice("required", ("f",), named=True)


def ask(messages: list[Any] | None = None, **fields: Any) -> ChatRequest:
    return ChatRequest("asked", HI if messages is None else messages, **fields)  # type: ignore[arg-type]


def target(found: str = "vllm", *, spec: ModelSpec | None = None, facts: dict[str, Any] | None = None, **upstream: Any) -> Target:
    base = "https://api.deepseek.com" if found == "deepseek" else "http://127.0.0.1:8000"
    entry = UpstreamSpec(name="up", **{"base_url": base, **upstream})
    return Target(entry, "their-model", spec or ModelSpec(), Facts(found, **(facts or {})))


def tool(name: str = "f", **more: Any) -> Tool:
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {}}, **more}}  # type: ignore[typeddict-item]


def finished(preparation: Preparation) -> Any:
    """What a preparation without steps returns."""
    try:
        next(preparation)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("it asked for a step")


def call(request: ChatRequest, at: Target, token: str | None = None) -> Call:
    made = finished(prepare(request, at, token))
    assert isinstance(made, Call)
    return made


def body(request: ChatRequest, at: Target | str = "vllm") -> dict[str, Any]:
    made = call(request, target(at) if isinstance(at, str) else at)
    assert made.body is not None
    parsed: dict[str, Any] = orjson.loads(made.body)
    return parsed
