"""What a route, the settings and a server make of a question before it goes upstream.

Rule: each function takes a request and gives one, itself where there is nothing to do; what cannot be done is refused with
the caller's own name for it, before anything was waited for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from functools import partial

import msgspec

from ds2d import toolcalls
from ds2d.core.caller import Caller
from ds2d.core.calls import Compute, Preparation
from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.layouts import text_of
from ds2d.core.models import CHAT_ROUTE, Route, Target
from ds2d.core.request import IMAGE_BELOW, ChatRequest, Message, ReasoningWish
from ds2d.toolcalls import prompt
from ds2d.toolcalls.thinktags import CLOSE, OPEN
from ds2d.upstreams import REGISTRY as UPSTREAMS
from ds2d.upstreams.openai.thinking import mode_of

OMITTED = {"type": "text", "text": "[image omitted]"}
"""What stands in the place of an image that is left out (mapping.md 9)."""


def think_tags(target: Target, request: ChatRequest) -> toolcalls.Think:
    """Whether thinking is split out of this server's text, and whether its answer begins inside (upstreams.md 4).

    Models that always think are told by their name. An answer that the client began itself goes on where that stops: outside,
    unless the client opened a thought.
    """
    if target.upstream.think_tags == "no" or request.prompt is not None or target.facts.flavour == "deepseek":
        return "no"
    thinks = request.reasoning.mode == "on" or (request.reasoning.mode is None and "r1" in target.model.lower())
    if not thinks:
        return "outside"
    if request.messages and True in (request.messages[-1].get("prefix"), request.extra.get("continue_final_message")):
        begun = text_of(request.messages[-1])
        return "inside" if begun.rfind(OPEN) > begun.rfind(CLOSE) else "outside"
    return "inside" if target.upstream.think_tags == "yes" else "unsure"


def prepared(request: ChatRequest, target: Target, token: str | None) -> Preparation:
    """How this server is asked, with the tools as they are offered to it: beside the event loop for a large question."""
    if request.large:
        request = yield Compute(partial(with_tools_offered, request, target))
    else:
        request = with_tools_offered(request, target)
    return (yield from UPSTREAMS[target.upstream.kind].prepare(request, target, token))


def with_tools_offered(request: ChatRequest, target: Target) -> ChatRequest:
    """The request as it goes to this server: with native tools, with tools described in the prompt, or with none.

    "auto" is native until the server has refused that (toolcalls.md 5). The answer is judged by the request as it came.
    """
    how = target.upstream.tools if target.spec.tools == "auto" else target.spec.tools
    by_prompt = how == "prompt" or (how == "auto" and target.facts.native_tools is False)
    if how == "off":
        return msgspec.structs.replace(request, tools=[]) if request.tools else request
    speaks_of_tools = request.tools or any("tool_calls" in message or message["role"] == "tool" for message in request.messages)
    if not (by_prompt and speaks_of_tools):
        return request
    return prompt.render(request, prompt.family_of(target.model, target.spec.tool_format))


def answering(route: Route) -> Route:
    """The route without servers that say that they do not chat: one that embeds may list a model under the same name.

    Raises INVALID_REQUEST where none is left.
    """
    able = tuple(target for target in route.targets if target.facts.routes is None or CHAT_ROUTE in target.facts.routes)
    if len(able) == len(route.targets):
        return route
    if not able:
        raise GatewayError(ErrorKind.INVALID_REQUEST, f"Model '{route.asked}' does not chat.", param="model")
    return msgspec.structs.replace(route, targets=able)


def with_able_servers(request: ChatRequest, route: Route, pinned: Collection[str] = ()) -> Route:
    """The route without servers that cannot do what the request wants. Raises the refusal of its first one if none can, or none
    of those that it is `pinned` to."""
    able: list[Target] = []
    refusals: dict[str, GatewayError] = {}
    for target in route.targets:
        try:
            UPSTREAMS[target.upstream.kind].check(request, target)
            able.append(target)
        except GatewayError as error:
            refusals[target.upstream.name] = error
    if not refusals:
        return route
    theirs = [error for name, error in refusals.items() if name in pinned]
    if not able or (theirs and all(target.upstream.name not in pinned for target in able)):
        raise (theirs or list(refusals.values()))[0]
    return msgspec.structs.replace(route, targets=tuple(able))


def with_rights(request: ChatRequest, caller: Caller) -> ChatRequest:
    """The request without what this caller may not ask of a server: a priority without the right to it, and a template of
    its own, which no setting allows (vllm-extras.md 4)."""
    refused = {"chat_template"} if caller.may_prioritise else {"chat_template", "priority"}
    if refused.isdisjoint(request.extra):
        return request
    return msgspec.structs.replace(request, extra={name: value for name, value in request.extra.items() if name not in refused})


def with_thinking(request: ChatRequest, route: Route) -> ChatRequest:
    """The request with what the model's name says of thinking, where the request says nothing (mapping.md 6)."""
    if request.reasoning.mode is not None or route.thinking == "switch":
        return request
    wish = msgspec.structs.replace(request.reasoning, mode=route.thinking)
    return msgspec.structs.replace(request, reasoning=wish, thinks_by_name=True)


def as_it_thinks(request: ChatRequest, target: Target) -> ChatRequest:
    """The request as its answer must be read: with thinking as this server was told. A model entry, or template arguments of the
    client's own, may say otherwise than its wish."""
    mode = mode_of(request, target)
    if mode is None or mode == request.reasoning.mode:
        return request
    return msgspec.structs.replace(request, reasoning=ReasoningWish(mode))


def with_images_checked(request: ChatRequest, route: Route, policy: str) -> ChatRequest:
    """The request, if its images can be shown to a model of this route (mapping.md 9).

    Raises IMAGE_NOT_SUPPORTED with the first image's path; under the policy "drop" images become a note in the text, and those
    that a tool's result showed always do.
    """
    if not request.images or any(target.spec.images for target in route.targets):
        return request
    if request.result_images:
        request = _without_result_images(request)
    if not request.images:
        return request
    if policy != "drop":
        where = request.images[0]
        message = f"Model '{request.model}' does not accept images ({where})."
        raise GatewayError(ErrorKind.IMAGE_NOT_SUPPORTED, message, param=where)
    return msgspec.structs.replace(request, messages=[_without_images(message) for message in request.messages], images=())


def _without_result_images(request: ChatRequest) -> ChatRequest:
    """The request with a note in each result in place of its images (anthropic-messages.md 3): the client cannot take back what
    a tool gave, so a refusal would end its conversation."""
    shown = request.result_images
    calls = Counter(shown.values())
    paths = iter(request.images)
    messages: list[Message] = []
    for message in request.messages:
        content = message.get("content")
        if isinstance(content, list):
            kept = [part for part in content if part.get("type") != "image_url" or next(paths) not in shown]
            if not kept:
                continue
            message = message.copy()
            message["content"] = kept
        elif isinstance(content, str) and (count := calls[message.get("tool_call_id", "")]):
            message = message.copy()
            message["content"] = _with_notes(content, count)
        messages.append(message)
    images = tuple(path for path in request.images if path not in shown)
    return msgspec.structs.replace(request, messages=messages, images=images, result_images={})


def _with_notes(words: str, count: int) -> str:
    notes = "\n\n".join([OMITTED["text"]] * count)
    return words.removesuffix(IMAGE_BELOW) + notes if words.endswith(IMAGE_BELOW) else f"{words}\n\n{notes}"


def _without_images(message: Message) -> Message:
    content = message.get("content")
    if not isinstance(content, list):
        return message
    shown = message.copy()
    shown["content"] = [OMITTED if part.get("type") == "image_url" else part for part in content]
    return shown
