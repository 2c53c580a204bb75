"""The body of POST /v1/responses to a `ChatRequest` (openai-responses.md 2).

Rule: what the contract names is checked, with the field's path in the error; what it does not name is ignored.
Surprise: `instructions` are the request's own and never carried along a chain, while the items of a chain are.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
import orjson
from msgspec import Meta

from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.request import ChatRequest, Inbound, ReasoningWish
from ds2d.core.session import session_of
from ds2d.core.validate import convert, invalid
from ds2d.dialects.openai_responses.custom import KEY
from ds2d.dialects.openai_responses.items import Talk, from_chat, normalise
from ds2d.dialects.openai_responses.objects import Item, Recalled, Reply
from ds2d.dialects.openai_responses.tools import ToolTable, add_tools, echo_tools, read_choice, read_format, read_tools

MAX_INPUT_ITEMS = 50_000
ENCRYPTED = "reasoning.encrypted_content"
LOGPROBS = "message.output_text.logprobs"

Summary = Literal["auto", "concise", "detailed"]
Include = Literal[
    "reasoning.encrypted_content",
    "message.output_text.logprobs",
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
]


class TextView(msgspec.Struct):
    """`text`."""

    format: dict[str, Any] | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class ReasoningView(msgspec.Struct):
    """`reasoning`; `generate_summary` is the old name of `summary`."""

    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    summary: Summary | None = None
    generate_summary: Summary | None = None


class View(msgspec.Struct):
    """The fields that are checked. Bounds are openai-responses.md 2."""

    model: Annotated[str, Meta(min_length=1)]
    input: Any = None
    messages: list[Any] | None = None
    instructions: str | None = None
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    store: bool | None = None
    background: bool | None = None
    previous_response_id: str | None = None
    conversation: Any = None
    prompt: Any = None
    tools: list[Any] | None = None
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None
    max_output_tokens: Annotated[int, Meta(ge=16)] | None = None
    max_tool_calls: Annotated[int, Meta(ge=0)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    text: TextView | None = None
    reasoning: ReasoningView | None = None
    include: list[Include] | None = None
    truncation: Literal["auto", "disabled"] | None = None
    response_format: dict[str, Any] | None = None
    metadata: (
        Annotated[dict[Annotated[str, Meta(max_length=64)], Annotated[str, Meta(max_length=512)]], Meta(max_length=16)] | None
    ) = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None


def parse(inbound: Inbound) -> ChatRequest:
    """The question in it. Raises GatewayError of the 400 class with the field's path, or 404 for an unknown reference."""
    view = convert(inbound.body, View)
    _refuse(view)
    table = read_tools(view.tools or [])
    earlier, chain = _earlier(view, inbound)
    items = [(_resolved(item, path, inbound), path) for item, path in _own_items(view)]
    for item, path in items:
        if item["type"] == "additional_tools":
            add_tools(table, convert(item.get("tools") or [], list[Any], f"{path}.tools"), f"{path}.tools")
    choice, choice_echo = read_choice(view.tool_choice, table)
    talk = _talk(view, table, inbound, earlier, items)
    messages = talk.messages()
    if not messages:
        raise invalid("input" if view.input is not None else "messages", "holds nothing that a model could answer.")
    text = view.text or TextView()
    path = "text.format" if text.format else "response_format"
    response_format, format_echo = read_format(text.format or view.response_format, path)
    include = view.include or []
    params = _params(view, inbound.body, include)
    echo = _echo(view, inbound.body) | {
        "text": {"format": format_echo} | ({"verbosity": text.verbosity} if text.verbosity else {}),
        "tool_choice": choice_echo,
    }
    return ChatRequest(
        view.model,
        messages,
        stream=bool(view.stream),
        tools=table.tools,
        tool_choice=choice,
        parallel_tool_calls=view.parallel_tool_calls,
        max_tokens=view.max_output_tokens,
        params=params,
        response_format=response_format,
        reasoning=_wish(view.reasoning),
        user=view.user or view.safety_identifier,
        session=session_of(inbound.headers, view.prompt_cache_key),
        images=tuple(talk.images.paths),
        media=talk.images.media,
        text_tools={name: KEY for name, native in table.natives.items() if native.kind == "custom"},
        reply=Reply(
            echo=orjson.dumps(echo)[1:-1],
            items=[item for item, _ in items],
            store=view.store is not False,
            background=bool(view.background),
            encrypted=ENCRYPTED in include,
            logprobs="logprobs" in params,
            natives=table.natives,
            chain=chain,
        ),
    )


def _refuse(view: View) -> None:
    """Fields that would change the answer's meaning and cannot be served."""
    unsupported = ErrorKind.UNSUPPORTED_PARAMETER
    if view.conversation is not None:
        raise invalid("conversation", "conversations are not offered here; use previous_response_id.", unsupported)
    if view.prompt is not None:
        raise invalid("prompt", "stored prompts are not offered here; send input and instructions.", unsupported)
    if view.background and view.store is False:
        raise invalid("background", "needs store, or nobody could fetch the result.")


def _earlier(view: View, inbound: Inbound) -> tuple[list[Item], tuple[Any, ...]]:
    """The items of the chain that the question continues, and the chain as the store wants it back."""
    if view.previous_response_id is None:
        return [], ()
    field, found = "previous_response_id", inbound.recall(view.previous_response_id)
    if found is None or isinstance(found, dict):
        message = f"Previous response with id {view.previous_response_id!r} was not found."
        raise GatewayError(ErrorKind.PREVIOUS_RESPONSE_NOT_FOUND, message, param=field)
    recalled: Recalled = found
    if recalled.status not in ("completed", "incomplete"):
        raise invalid(field, f"that response is {recalled.status}, so it cannot be continued.")
    return recalled.items(), recalled.chain


def _own_items(view: View) -> list[tuple[Item, str]]:
    """The question's own items, each with its path."""
    given = view.input
    if given is None:
        if view.messages is None:
            raise invalid("input", "required field is missing.")
        return from_chat(view.messages, "messages")
    if isinstance(given, str):
        return [({"type": "message", "role": "user", "content": [{"type": "input_text", "text": given}]}, "input")]
    if isinstance(given, dict):
        return [(normalise(given, "input"), "input")]
    if not isinstance(given, list) or not given or len(given) > MAX_INPUT_ITEMS:
        raise invalid("input", f"must be a string, an item, or an array of 1 to {MAX_INPUT_ITEMS} items.")
    return [(normalise(item, f"input[{index}]"), f"input[{index}]") for index, item in enumerate(given)]


def _resolved(item: Item, path: str, inbound: Inbound) -> Item:
    """The stored item that a reference stands for; other items as they are."""
    if item["type"] != "item_reference":
        return item
    name = item.get("id")
    found = inbound.recall(name) if isinstance(name, str) else None
    if not isinstance(found, dict):
        raise GatewayError(ErrorKind.ITEM_NOT_FOUND, f"Item {name!r} was not found.", param=f"{path}.id")
    return found


def _talk(view: View, table: ToolTable, inbound: Inbound, earlier: list[Item], items: list[tuple[Item, str]]) -> Talk:
    """The conversation: instructions, the chain, then the question's own items."""
    talk = Talk(table, inbound.unseal)
    if view.instructions:
        talk.system(view.instructions)
    for item in earlier:
        talk.take(item, "previous_response_id")
    for item, path in items:
        talk.take(item, path)
    return talk


def _wish(given: ReasoningView | None) -> ReasoningWish:
    """What the client wants of thinking (mapping.md 6)."""
    if given is None or given.effort is None:
        return ReasoningWish()
    return ReasoningWish("off") if given.effort == "none" else ReasoningWish("on", given.effort)


def _params(view: View, body: dict[str, Any], include: list[Include]) -> dict[str, Any]:
    """Sampling fields under their chat names, as the client wrote them."""
    params = {name: body[name] for name in ("temperature", "top_p") if body.get(name) is not None}
    if view.top_logprobs or LOGPROBS in include:
        params["logprobs"] = True
    if view.top_logprobs:
        params["top_logprobs"] = view.top_logprobs
    return params


def _echo(view: View, body: dict[str, Any]) -> dict[str, Any]:
    """The members of the response object that repeat the question, but for text and tool_choice (section 6)."""
    reasoning = view.reasoning or ReasoningView()
    return {
        "instructions": view.instructions,
        "max_output_tokens": view.max_output_tokens,
        "max_tool_calls": view.max_tool_calls,
        "parallel_tool_calls": view.parallel_tool_calls is not False,
        "previous_response_id": view.previous_response_id,
        "reasoning": {"effort": reasoning.effort, "summary": reasoning.summary or reasoning.generate_summary},
        "store": view.store is not False,
        "background": bool(view.background),
        "temperature": body.get("temperature") if view.temperature is not None else 1.0,
        "top_p": body.get("top_p") if view.top_p is not None else 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "top_logprobs": view.top_logprobs or 0,
        "tools": echo_tools(view.tools or []),
        "truncation": view.truncation or "disabled",
        "user": view.user,
        "safety_identifier": view.safety_identifier,
        "prompt_cache_key": view.prompt_cache_key,
        "service_tier": "default",
        "metadata": view.metadata or {},
    }
