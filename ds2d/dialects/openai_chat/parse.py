"""A chat body becomes a question (openai-chat.md 2, 4).

Rule: a value that is wrong is refused with its path before anything is asked of anybody; a value that is right goes on as
it was written; nothing is filled in.
Surprise: several fields exist to be ignored, and unknown ones to be passed on; the difference is the list `Body`.
"""

from __future__ import annotations

from typing import Any

from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.letting_go import drop
from ds2d.core.openai_shape import NEVER_FORWARDED, SAMPLED, check_stream_options, given, unknown
from ds2d.core.request import ChatRequest, Inbound, ReasoningWish
from ds2d.core.session import session_of
from ds2d.core.untracked import untracked
from ds2d.core.validate import convert, invalid
from ds2d.dialects.openai_chat.messages import read_messages
from ds2d.dialects.openai_chat.reply import Reply
from ds2d.dialects.openai_chat.tools import read_tooling
from ds2d.dialects.openai_chat.views import MAX_MESSAGES, Body, MessageView

AT_ONCE = 1000
"""Messages whose types are checked in one step, of two or three milliseconds."""

KNOWN = frozenset(Body.__struct_fields__) | NEVER_FORWARDED


def parse(inbound: Inbound) -> ChatRequest:
    """The question of a chat completions body. Raises GatewayError of the 400 class with the field's path."""
    body = inbound.body
    view = _view(body)
    _check(view)
    messages, images, media = read_messages(body["messages"], view.messages)
    drop(view.messages)
    tooling = read_tooling(body, view)
    extra = unknown(body, KNOWN)
    if view.include_reasoning is not None:
        extra["include_reasoning"] = view.include_reasoning
    return ChatRequest(
        view.model,
        messages,
        stream=bool(view.stream),
        tools=tooling.tools,
        tool_choice=tooling.choice,
        parallel_tool_calls=False if tooling.legacy else view.parallel_tool_calls,
        max_tokens=view.max_completion_tokens or view.max_tokens,
        params=given(body, (*SAMPLED, "logprobs", "top_logprobs")),
        response_format=_response_format(body, view),
        reasoning=_wish(view),
        extra=extra,
        user=view.user if view.user is not None else view.safety_identifier,
        session=session_of(inbound.headers, view.prompt_cache_key),
        images=images,
        media=media,
        reply=_reply(view, tooling.legacy),
    )


def _view(body: dict[str, Any]) -> Body:
    """The body with its types checked; very many messages a part at a time: nobody has their turn while the library looks."""
    messages = body.get("messages")
    if type(messages) is not list or not AT_ONCE < len(messages) <= MAX_MESSAGES:
        return convert(body, Body)
    view = convert({**body, "messages": messages[:AT_ONCE]}, Body)
    untracked(view.messages)
    try:
        for at in range(AT_ONCE, len(messages), AT_ONCE):
            view.messages += convert(messages[at : at + AT_ONCE], list[MessageView])
    except GatewayError:
        return convert(body, Body)  # raises the same with the place in the whole
    return view


def _check(view: Body) -> None:
    """What the types of single fields cannot say."""
    check_stream_options(view)
    if view.top_logprobs is not None and not view.logprobs:
        raise invalid("top_logprobs", "needs logprobs: true.")
    if view.audio is not None:
        raise invalid("audio", "audio answers are not offered here.", ErrorKind.UNSUPPORTED_PARAMETER)
    if "audio" in (view.modalities or ()):
        raise invalid("modalities", "audio answers are not offered here.", ErrorKind.UNSUPPORTED_PARAMETER)


def _response_format(body: dict[str, Any], view: Body) -> dict[str, Any] | None:
    wanted = view.response_format
    if wanted is None or wanted.type == "text":
        return None
    if wanted.type == "json_schema" and wanted.json_schema is None:
        raise invalid("response_format.json_schema", "required field is missing.")
    form: dict[str, Any] = body["response_format"]
    return form


def _wish(view: Body) -> ReasoningWish:
    """mapping.md 6, the first two rows: DeepSeek's switch beats the effort, which says how much if the switch is on."""
    effort = view.reasoning_effort
    if view.thinking is not None:
        if view.thinking.type == "disabled":
            return ReasoningWish("off")
        return ReasoningWish("on", None if effort == "none" else effort)
    if effort is None:
        return ReasoningWish()
    return ReasoningWish("off") if effort == "none" else ReasoningWish("on", effort)


def _reply(view: Body, legacy: bool) -> Reply:
    options = view.stream_options
    wanted = bool(options and options.include_usage)
    return Reply(
        include_usage=wanted,
        running_usage=bool(wanted and options and options.continuous_usage_stats),
        legacy=legacy,
        both_names=view.include_reasoning is True,
        tiered=view.service_tier is not None,
    )
