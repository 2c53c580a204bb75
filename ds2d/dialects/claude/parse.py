"""A Claude body becomes a question in chat form (anthropic-messages.md 2 to 4).

Rule: nothing that changes from one turn of a conversation to the next may reach the head of the prompt, or the upstream's
prefix cache is lost; cache marks, betas and Claude Code's billing line therefore end here.
Surprise: SDKs send fields we know nothing of with every release, so unknown ones are ignored (the real API refuses them).
"""

from __future__ import annotations

from typing import Any

from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.request import ChatRequest, Inbound, ReasoningWish
from ds2d.core.session import session_of
from ds2d.core.validate import invalid
from ds2d.dialects.claude.fields import array, flag, mapping, number, one_of, text, whole
from ds2d.dialects.claude.messages import read_messages, read_system
from ds2d.dialects.claude.reply import Reply, Thinking
from ds2d.dialects.claude.tools import Toolbox, read_choice, read_tools

DEFAULT_MAX_TOKENS = 8192
"""Where the client gave none (the real API requires it; the reference fills this in)."""

MAX_STOPS = 16
_MIN_BUDGET = 1024
_EFFORTS = ("low", "medium", "high", "xhigh", "max")
_THINKING = ("enabled", "adaptive", "disabled", "between_tools")
_SLOW = ("opus", "reasoner", "slow")
_BUDGETS = ((32768, "max"), (8192, "high"), (2048, "medium"), (0, "low"))
"""From which budget on, which effort (mapping.md 6)."""


def parse(inbound: Inbound) -> ChatRequest:
    """The question of a messages or count_tokens body. Raises GatewayError of the 400 class, its message led by the path."""
    body = inbound.body
    model = text(body.get("model"), "model")
    _refuse_thread(body)
    max_tokens = whole(body.get("max_tokens"), "max_tokens", 1) or DEFAULT_MAX_TOKENS
    box = read_tools(body.get("tools"))
    choice, parallel = read_choice(body.get("tool_choice"), box)
    conversation = read_messages(body.get("messages"))
    user = _user(body)
    return ChatRequest(
        model,
        read_system(body.get("system")) + conversation.messages,
        stream=bool(flag(body, "stream", "stream")),
        tools=box.tools,
        tool_choice=choice,
        parallel_tool_calls=parallel,
        max_tokens=max_tokens,
        params=_params(body),
        response_format=_response_format(body),
        reasoning=_wish(body, max_tokens),
        user=user,
        session=session_of(inbound.headers, user if user and "session" in user else None),
        images=conversation.images,
        result_images=conversation.result_images,
        reply=Reply(_shown(body, model), box.names),
        notes=_notes(body, box),
    )


def _refuse_thread(body: dict[str, Any]) -> None:
    """Told this way, the SDK's tool runner sends the whole conversation again without `thread` (clients.md, fact 3)."""
    if body.get("thread") is not None:
        raise GatewayError(
            ErrorKind.THREAD_UNSUPPORTED,
            "thread: conversations are not kept here; send all messages",
            param="thread",
            details={"error_code": "thread_unsupported_request", "unsupported": ["thread"]},
        )


def _params(body: dict[str, Any]) -> dict[str, Any]:
    found = {
        "temperature": number(body, "temperature", 0, 2),
        "top_p": number(body, "top_p", 0, 1),
        "top_k": whole(body.get("top_k"), "top_k", 0),
        "stop": _stops(body.get("stop_sequences")),
    }
    return {name: value for name, value in found.items() if value is not None}


def _stops(raw: Any) -> list[str] | None:
    if raw is None:
        return None
    stops = array(raw, "stop_sequences")
    if len(stops) > MAX_STOPS:
        raise invalid("stop_sequences", f"at most {MAX_STOPS} are allowed.")
    for index, stop in enumerate(stops):
        if not text(stop, f"stop_sequences.{index}").strip():
            raise invalid(f"stop_sequences.{index}", "must hold more than white space.")
    return stops or None


def _output(body: dict[str, Any]) -> dict[str, Any]:
    raw = body.get("output_config")
    return mapping(raw, "output_config") if raw is not None else {}


def _response_format(body: dict[str, Any]) -> dict[str, Any] | None:
    """`output_config.format`, or `output_format` as betas before it spelled the same thing."""
    path = "output_config.format"
    raw = _output(body).get("format")
    if raw is None:
        path, raw = "output_format", body.get("output_format")
    if raw is None:
        return None
    form = mapping(raw, path)
    one_of(form.get("type"), f"{path}.type", ("json_schema",))
    schema = mapping(form.get("schema"), f"{path}.schema")
    return {"type": "json_schema", "json_schema": {"name": "output", "schema": schema}}


def _wish(body: dict[str, Any], max_tokens: int) -> ReasoningWish:
    effort = _output(body).get("effort")
    if effort is not None:
        one_of(effort, "output_config.effort", _EFFORTS)
    raw = body.get("thinking")
    if raw is None:
        return ReasoningWish(None, effort)
    thinking = mapping(raw, "thinking")
    kind = one_of(thinking.get("type"), "thinking.type", _THINKING)
    if kind == "disabled":
        return ReasoningWish("off")
    budget = whole(thinking.get("budget_tokens"), "thinking.budget_tokens", 0)
    if kind != "enabled" or budget is None:
        return ReasoningWish("on", effort)
    # Out of range is a 400 of the real API; here max_tokens may be our own default, so the budget gives way.
    budget = max(_MIN_BUDGET, min(budget, max_tokens - 1))
    return ReasoningWish("on", next(word for low, word in _BUDGETS if budget >= low), budget)


def _shown(body: dict[str, Any], model: str) -> Thinking:
    """Whether thinking blocks go out (anthropic-messages.md 5). Comes after `_wish`, which checked the field."""
    thinking = body.get("thinking")
    if thinking is None:
        return "shown" if any(word in model.lower() for word in _SLOW) else "hidden"
    if thinking["type"] == "disabled":
        return "hidden"
    return "omitted" if thinking.get("display") == "omitted" else "shown"


def _user(body: dict[str, Any]) -> str | None:
    raw = body.get("metadata")
    if raw is None:
        return None
    user = mapping(raw, "metadata").get("user_id")
    if user is not None and not isinstance(user, str):
        raise invalid("metadata.user_id", "must be a string.")
    return user or None


def _notes(body: dict[str, Any], box: Toolbox) -> tuple[str, ...]:
    """What is left out, told by the kind and not by the client's own name for it: notes end in headers."""
    notes = tuple(f"tool_dropped:{kind}" for kind in sorted(set(box.dropped.values()))) if box.dropped else ()
    return (*notes, "mcp_servers_ignored") if body.get("mcp_servers") else notes
