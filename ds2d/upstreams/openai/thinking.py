"""Thinking switched on or off, in the words of each server (mapping.md 6).

Rule: a model entry that says on or off decides; else the request does; where neither says anything, nothing is sent and the
server's own default holds.
Surprise: the DeepSeek API thinks by default and then refuses a forced tool choice, so a request that forces one without
asking for thinking turns it off (mapping.md 4); and vLLM ignores `thinking` without a word, its switch is in the template.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from ds2d.core.models import Target
from ds2d.core.request import ChatRequest
from ds2d.upstreams.openai.flavours import traits_of

Mode = Literal["off", "on"]

_DEEPSEEK_EFFORT = {"minimal": "low", "low": "low", "medium": "high", "high": "high", "xhigh": "high", "max": "max"}
_TEMPLATE_EFFORT = {"minimal": "low"}
_SWITCHES = ("thinking", "enable_thinking")


class Switch(msgspec.Struct, frozen=True):
    """What goes into the body. `mode`: whether the model will think; None where the server's default decides."""

    mode: Mode | None
    fields: dict[str, Any] = {}


def switch(request: ChatRequest, target: Target) -> Switch:
    """How this request's wish is told to this target's server."""
    traits = traits_of(target)
    configured = target.upstream.thinking
    method = traits.thinking if configured == "auto" else configured
    fixed = target.spec.thinking if target.spec.thinking != "switch" else None
    mode = fixed or request.reasoning.mode
    effort = request.reasoning.effort if mode == "on" else None
    if method == "template":
        return _by_template(request, mode, effort, fixed is not None, traits.effort_none)
    if method == "deepseek":
        asked = request.reasoning.mode == "on" and not request.thinks_by_name
        if forces_a_call(request) and fixed != "on" and not asked:
            mode = "off"
        return _by_field(mode, effort)
    if method == "effort":
        word = "none" if mode == "off" and (configured == "effort" or traits.effort_none) else effort
        return Switch(mode, {"reasoning_effort": word} if word else {})
    return Switch(mode)


def mode_of(request: ChatRequest, target: Target) -> Mode | None:
    """Whether the model will think, for those who read its answer: `switch`, and the model entry's constants, which win."""
    constant = target.spec.extra_body.get("chat_template_kwargs")
    told = _told(constant) if isinstance(constant, dict) else None
    return switch(request, target).mode if told is None else told


def forces_a_call(request: ChatRequest) -> bool:
    """Whether the answer must call a tool."""
    return bool(request.tools) and request.tool_choice.mode == "required"


def _by_template(request: ChatRequest, mode: Mode | None, effort: str | None, fixed: bool, knows_none: bool) -> Switch:
    """vLLM, SGLang, llama-server: arguments of the chat template. A client's own beat its wish, not the configuration."""
    own = request.extra.get("chat_template_kwargs")
    kwargs = dict(own) if isinstance(own, dict) else {}
    told = _told(kwargs)
    if told is not None and not fixed:
        mode = told
    elif mode is not None:
        kwargs |= dict.fromkeys(_SWITCHES, mode == "on")
    fields: dict[str, Any] = {"chat_template_kwargs": kwargs} if kwargs else {}
    if mode == "off" and knows_none:
        fields["reasoning_effort"] = "none"
    elif mode == "on" and effort:
        fields["reasoning_effort"] = _TEMPLATE_EFFORT.get(effort, effort)
    return Switch(mode, fields)


def _told(kwargs: dict[str, Any]) -> Mode | None:
    """What a template's arguments say of thinking."""
    told = next((kwargs[name] for name in _SWITCHES if isinstance(kwargs.get(name), bool)), None)
    return None if told is None else "on" if told else "off"


def _by_field(mode: Mode | None, effort: str | None) -> Switch:
    """The DeepSeek API."""
    if mode is None:
        return Switch(None)
    if mode == "off":
        return Switch("off", {"thinking": {"type": "disabled"}})
    fields: dict[str, Any] = {"thinking": {"type": "enabled"}}
    if effort:
        fields["reasoning_effort"] = _DEEPSEEK_EFFORT.get(effort, "high")
    return Switch("on", fields)
