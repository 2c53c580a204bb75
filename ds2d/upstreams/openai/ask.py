"""A question as an HTTP call to an OpenAI-compatible server.

Rule: every field of the contract is forwarded, translated or refused by the server's flavour (flavours.py, `TRAITS`); fields
that nobody knows reach vLLM-type servers only; what steers a server from inside comes from the configuration or not at all.
Surprise: usage is always asked for, whatever the client wanted: on vLLM on every chunk, so that a cut answer is still
counted (upstreams.md 1.12). The dialect hides what its client did not ask for.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import orjson

from ds2d.core import json_pieces
from ds2d.core.calls import Call, Compute, Preparation
from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.letting_go import drop
from ds2d.core.models import Target
from ds2d.core.names import upstream_name
from ds2d.core.openai_shape import NEVER_FORWARDED
from ds2d.core.request import ChatRequest
from ds2d.core.settings import UpstreamSpec
from ds2d.upstreams.openai.flavours import flavour_of, server_root, traits_of, wire_of
from ds2d.upstreams.openai.history import add_system_line, continues, mentions, render_messages
from ds2d.upstreams.openai.thinking import Mode, forces_a_call, switch

MAX_USER_BYTES = 512
"""Of DeepSeek's `user_id` (openai-chat.md 2)."""

MAX_FILL_TOKENS = 4096
"""Of an answer of DeepSeek's fill-in route (upstreams.md 6)."""

_NOT_FROM_CLIENTS = NEVER_FORWARDED | {"chat_template", "model", "messages", "prompt", "stream"}
"""Extras that are dropped (vllm-extras.md 4), and names that no extra may take."""

_OURS = frozenset(("model", "messages", "prompt", "stream"))
"""What `extra_body` of a model entry does not replace."""

_JSON_WORD = re.compile("json", re.IGNORECASE)


def prepare(request: ChatRequest, target: Target, token: str | None) -> Preparation:
    """The call that answers the question; no steps before it but that a large one is written beside the event loop. Raises
    GatewayError of the 400 class for what `check` refuses."""
    if request.large:
        call: Call = yield Compute(partial(call_for, request, target, token))
        return call
    return call_for(request, target, token)


def call_for(request: ChatRequest, target: Target, token: str | None) -> Call:
    """The same outside of a generator."""
    check(request, target)
    wire = wire_of(request, target)
    body = _chat_body(request, target) if wire == "chat" else _completions_body(request, target)
    data = json_pieces.dumps(body) if request.large else orjson.dumps(body)
    if request.large:
        drop(body.pop("messages", []))
    return Call(
        "POST",
        _path(request, target),
        headers_for(target, token, stream=request.stream),
        data,
        stream=request.stream,
        upstream=target.upstream,
    )


def headers_for(target: Target, token: str | None, *, stream: bool) -> dict[str, str]:
    """Headers of a call: the entry's fixed ones, then ours; names in lower case."""
    headers = fixed_headers(target.upstream)
    headers["content-type"] = "application/json"
    headers["accept"] = "text/event-stream" if stream else "application/json"
    if token:
        headers["authorization"] = f"Bearer {token}"
    return headers


def fixed_headers(upstream: UpstreamSpec) -> dict[str, str]:
    """The headers that config adds to every call to this upstream; names in lower case."""
    return {name.lower(): value for name, secret in upstream.headers.items() if (value := secret.reveal())}


def check(request: ChatRequest, target: Target) -> None:
    """Refuse what this target's server cannot do, by the field's name, before it costs anything."""
    traits = traits_of(target)
    if request.choices > 1 and not traits.many:
        raise _unsupported("n", "this model's server gives one answer.")
    if len(request.tools) > traits.max_tools:
        raise _unsupported("tools", f"this model's server takes at most {traits.max_tools} functions.")
    if request.media is not None and not traits.extras:
        path, kind = request.media
        raise _unsupported(path, f"this model's server takes no '{kind}' parts.")
    form = request.response_format or {}
    if form.get("type") == "structural_tag" and not traits.extras:
        raise _unsupported("response_format.type", "this model's server does not know structural_tag.")
    if request.prompt is not None:
        _check_prompt(request, target)


def output_limit(request: ChatRequest, target: Target, prompt_tokens: int | None = None) -> int | None:
    """max_tokens as it is sent: the client's, cut to what the model can write and what the prompt leaves (mapping.md 5).

    `prompt_tokens`: the prompt as it was counted; None where it is not known or only estimated, for an estimate must not cut
    an answer that would have had room. A prompt that fills the window is the server's to refuse. None where the client set no
    limit.
    """
    limit, room = request.max_tokens, target.context
    if limit is None:
        return None
    if room is not None and prompt_tokens is not None and prompt_tokens < room:
        room -= prompt_tokens
    if room is not None and room < limit:
        limit = room
    if target.max_output is not None and target.max_output < limit:
        limit = target.max_output
    if request.prompt is not None and wire_of(request, target) == "fim":
        limit = min(limit, MAX_FILL_TOKENS)
    return limit


def _check_prompt(request: ChatRequest, target: Target) -> None:
    traits, wire, prompt = traits_of(target), wire_of(request, target), request.prompt
    prompts = prompt if isinstance(prompt, list) else [prompt]
    if any(not isinstance(one, str) for one in prompts) and (wire != "completions" or not traits.tokens):
        raise _unsupported("prompt", "this model's server takes text only.")
    if len(prompts) > 1 and wire != "completions":
        raise _unsupported("prompt", "this model's server takes one prompt at a time.")
    if request.params.get("suffix") is not None and (wire == "chat" or not traits.suffix):
        raise _unsupported("suffix", "this model's server cannot fill in.")
    if request.max_tokens == 0 and wire != "completions":
        raise _unsupported("max_tokens", "must be at least 1 on this model's server.")


def _chat_body(request: ChatRequest, target: Target) -> dict[str, Any]:
    thinking = switch(request, target)
    messages = render_messages(request, target, thinking.mode)
    body = _common(request, target)
    messages = _answer_form(request, target, body, messages)
    body |= {"model": target.model, "messages": messages, **thinking.fields, **_tools(request, target, thinking.mode)}
    if request.prompt is not None and "logprobs" in body:
        body |= {"logprobs": True, "top_logprobs": body["logprobs"]}
    if continues(request) and traits_of(target).extras:
        body |= {"continue_final_message": True, "add_generation_prompt": False}
    return _with_constants(body, target)


def _completions_body(request: ChatRequest, target: Target) -> dict[str, Any]:
    body = _common(request, target)
    body |= {"model": target.model, "prompt": request.prompt}
    if request.params.get("echo") and traits_of(target).echoes:
        body["echo"] = True
    if "suffix" in request.params:
        body["suffix"] = request.params["suffix"]
    return _with_constants(body, target)


def _common(request: ChatRequest, target: Target) -> dict[str, Any]:
    """What both routes take: extras first, so that nothing unknown can replace a field of ours."""
    traits = traits_of(target)
    body: dict[str, Any] = {}
    if traits.extras:
        body = {name: value for name, value in request.extra.items() if name not in _NOT_FROM_CLIENTS}
        if request.tools:
            body.pop("stream_interval", None)  # loses text in vLLM's tool parsers (upstreams.md 1.6)
        body |= {name: value for name, value in request.params.items() if name not in ("echo", "suffix")}
    else:
        body |= {name: value for name, value in request.params.items() if name in traits.sampling}
        body |= {name: value for name, value in request.extra.items() if name in traits.sampling}
    limit = output_limit(request, target)
    if limit is not None:
        body["max_tokens"] = limit
    if request.user is not None:
        body |= _user(request.user, target)
    if request.stream:
        body["stream"] = True
        body["stream_options"] = {"include_usage": True}
        if traits.running_usage:
            body["stream_options"]["continuous_usage_stats"] = True
    return body


def _user(user: str, target: Target) -> dict[str, str]:
    if flavour_of(target) != "deepseek":
        return {"user": user}
    return {"user_id": user.encode("utf-8", "replace")[:MAX_USER_BYTES].decode("utf-8", "ignore")}


def _tools(request: ChatRequest, target: Target, thinking: Mode | None) -> dict[str, Any]:
    """Tools and choice (mapping.md 4). Where the DeepSeek API thinks, it refuses any choice: the gateway checks by itself."""
    choice = request.tool_choice
    if not request.tools or choice.mode == "none":
        return {}
    allowed = request.tools
    if choice.names is not None:
        allowed = [tool for tool in request.tools if tool["function"]["name"] in choice.names]
    deepseek = flavour_of(target) == "deepseek"
    fields: dict[str, Any] = {"tools": [_tool(tool, deepseek) for tool in allowed]}
    if not deepseek or thinking == "off":
        fields["tool_choice"] = choice.mode
        if forces_a_call(request) and choice.named and choice.names:
            fields["tool_choice"] = {"type": "function", "function": {"name": upstream_name(choice.names[0])}}
    if request.parallel_tool_calls is not None:
        fields["parallel_tool_calls"] = request.parallel_tool_calls
    return fields


def _tool(tool: Any, deepseek: bool) -> Any:
    """The declaration, under a name that servers take; `strict` is for the DeepSeek API's beta only."""
    function = tool["function"]
    name = upstream_name(function["name"])
    without_strict = "strict" in function and (deepseek or function["strict"] is None)
    if name == function["name"] and not without_strict:
        return tool
    function = {**function, "name": name}
    if without_strict:
        del function["strict"]
    return {**tool, "function": function}


def _answer_form(
    request: ChatRequest, target: Target, body: dict[str, Any], messages: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """`response_format` as the server knows it (openai-chat.md 4); what it does not know goes into the prompt."""
    form = request.response_format
    kind = form.get("type") if form else None
    if form is None or kind == "text":
        return messages
    way = traits_of(target).schema
    described = form.get("json_schema") or {}
    if kind != "json_schema" or way == "native":
        body["response_format"] = form
    elif way == "inside":
        body["response_format"] = {"type": "json_object", "schema": described.get("schema")}
    else:
        body["response_format"] = {"type": "json_object"}
        schema = orjson.dumps(described.get("schema")).decode()
        return add_system_line(messages, f"Answer with one JSON object that satisfies this JSON Schema: {schema}")
    if kind == "json_object" and way == "object" and not mentions(messages, _JSON_WORD):
        return add_system_line(messages, "Answer with one JSON object.")
    return messages


def _with_constants(body: dict[str, Any], target: Target) -> dict[str, Any]:
    """The body with the model entry's `extra_body`; objects are joined, and the entry wins."""
    for name, value in target.spec.extra_body.items():
        if name in _OURS:
            continue
        given = body.get(name)
        body[name] = {**given, **value} if isinstance(given, dict) and isinstance(value, dict) else value
    return body


def _path(request: ChatRequest, target: Target) -> str:
    """The route below the base URL; DeepSeek's beta routes stand elsewhere (mapping.md 10)."""
    wire = wire_of(request, target)
    if flavour_of(target) == "deepseek":
        beta = f"{server_root(target.upstream.base_url)}/beta"
        if wire == "fim":
            return f"{beta}/completions"
        if continues(request):
            return f"{beta}/chat/completions"
    return f"{target.facts.prefix}/{'chat/completions' if wire == 'chat' else 'completions'}"


def _unsupported(param: str, message: str) -> GatewayError:
    return GatewayError(ErrorKind.UNSUPPORTED_PARAMETER, f"{param}: {message}", param=param)
