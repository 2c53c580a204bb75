"""A conversation as the server's chat template or checks want it.

Rule: a message that needs no change goes on as it came; one that does is copied at its top level only, so that a megabyte
of history costs one pass. The bytes of old turns never depend on new ones, or prefix caches would miss.
Surprise: the DeepSeek API answers 400 when an assistant message with tool calls lacks `reasoning_content` in thinking mode;
an empty one will do (mapping.md 6).
"""

from __future__ import annotations

import re
from typing import Any

from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.models import Target
from ds2d.core.names import upstream_name
from ds2d.core.request import ChatRequest
from ds2d.core.untracked import MANY, untracked
from ds2d.upstreams.openai.flavours import flavour_of, traits_of
from ds2d.upstreams.openai.thinking import Mode

Raw = dict[str, Any]

_SYSTEM = ("system", "developer")
_MEDIA = frozenset(("input_audio", "audio_url", "video_url"))
"""Parts that only vLLM-type servers take (openai-chat.md 3)."""

_SPECIAL = re.compile(r"<(?=｜[^<>｜\n]{1,60}｜>|/?think>|/?｜DSML｜)")
"""Text that DeepSeek's tokenizer takes for one of its marks (upstreams.md 4)."""


def render_messages(request: ChatRequest, target: Target, thinking: Mode | None) -> list[Raw]:
    """The messages to send. Raises UNSUPPORTED_PARAMETER for parts that the server cannot take."""
    messages: list[Any] = list(request.messages)
    if request.prompt is not None:
        messages = [{"role": "user", "content": _prompt_text(request.prompt)}]
    deepseek = flavour_of(target) == "deepseek"
    policy = target.spec.system or ("keep" if deepseek else "merge_leading")
    last = len(messages) - 1
    each = (_message(message, index, target, thinking, last=index == last) for index, message in enumerate(messages))
    many = last >= MANY
    untracked(messages, many=many)
    rendered: list[Raw] = untracked([], many=many)
    rendered += map(untracked, each) if many else each
    return _merged(rendered, policy)


def continues(request: ChatRequest) -> bool:
    """Whether the last message is the beginning of the answer (`prefix: true`)."""
    return bool(request.messages) and request.messages[-1].get("prefix") is True


def add_system_line(messages: list[Raw], line: str) -> list[Raw]:
    """The messages with one more line of instructions, in the system message at the start."""
    if messages and messages[0]["role"] == "system":
        first = {**messages[0], "content": f"{_text(messages[0].get('content'))}\n\n{line}"}
        return [first, *messages[1:]]
    return [{"role": "system", "content": line}, *messages]


def mentions(messages: list[Raw], word: re.Pattern[str]) -> bool:
    """Whether any message's text holds the word."""
    return any(word.search(_text(message.get("content"))) for message in messages)


def lacks_reasoning(request: ChatRequest) -> bool:
    """Whether a turn with tool calls comes without its reasoning, which the DeepSeek API wants back (config.md, when_lost)."""
    return any(message.get("tool_calls") and "reasoning_content" not in message for message in request.messages)


def _message(message: Raw, index: int, target: Target, thinking: Mode | None, *, last: bool) -> Raw:
    edits: Raw = {}
    content = message.get("content")
    if isinstance(content, list):
        edits["content"] = content = _parts(content, index, target)
    role = message["role"]
    if role == "developer":
        edits["role"] = "system"
    elif role == "assistant":
        edits |= _assistant(message, target, thinking, last=last)
    elif target.upstream.escape_special_tokens and role in ("user", "tool"):
        edits["content"] = _broken_up(content)
    if not edits:
        return message
    return {name: value for name, value in {**message, **edits}.items() if value is not _GONE}


_GONE = object()
"""Stands for a key that is taken out."""


def _assistant(message: Raw, target: Target, thinking: Mode | None, *, last: bool) -> Raw:
    """The changes to an assistant message: reasoning under the server's name, tool names as they went out, `prefix`."""
    edits: Raw = {}
    name = traits_of(target).reasoning
    deepseek = flavour_of(target) == "deepseek"
    calls = message.get("tool_calls")
    if "reasoning_content" in message:
        if name is None or (deepseek and thinking == "off"):
            edits["reasoning_content"] = _GONE
        elif name != "reasoning_content":
            edits |= {"reasoning_content": _GONE, name: message["reasoning_content"]}
    elif deepseek and calls and thinking != "off":
        edits["reasoning_content"] = ""
    if calls and any(upstream_name(call["function"]["name"]) != call["function"]["name"] for call in calls):
        edits["tool_calls"] = [
            {**call, "function": {**call["function"], "name": upstream_name(call["function"]["name"])}} for call in calls
        ]
    if "prefix" in message and not (deepseek and last):
        edits["prefix"] = _GONE
    return edits


def _parts(parts: list[Raw], index: int, target: Target) -> str | list[Raw]:
    """Parts that are all text become text: not every server and template takes a list."""
    for position, part in enumerate(parts):
        if part.get("type") in _MEDIA and not traits_of(target).extras:
            path = f"messages[{index}].content[{position}]"
            message = f"{path}: this model's server takes no '{part['type']}' parts."
            raise GatewayError(ErrorKind.UNSUPPORTED_PARAMETER, message, param=path)
    if all(part.get("type") in ("text", "refusal") for part in parts):
        return _text(parts)
    return parts


def _text(content: Any) -> str:
    if isinstance(content, list):
        texts = (part.get("text", part.get("refusal")) for part in content if isinstance(part, dict))
        return "\n".join(text for text in texts if isinstance(text, str))
    return content if isinstance(content, str) else ""


def _broken_up(content: Any) -> Any:
    """Text in which no mark of the model's own can be read; what a user types must stay what a user typed."""
    if isinstance(content, str):
        return _SPECIAL.sub("< ", content)
    if not isinstance(content, list):
        return content
    return [{**part, "text": _SPECIAL.sub("< ", part["text"])} if part.get("type") == "text" else part for part in content]


def _merged(messages: list[Raw], policy: str) -> list[Raw]:
    """System messages where the chat template takes them (mapping.md 1)."""
    if policy == "keep":
        return messages
    if policy == "merge_all":
        system = [message for message in messages if message["role"] == "system"]
        others = [message for message in messages if message["role"] != "system"]
        return [*_joined(system), *others]
    leading = next((index for index, message in enumerate(messages) if message["role"] != "system"), len(messages))
    later = untracked(messages[leading:], many=len(messages) > MANY)
    if any(message["role"] == "system" for message in later):
        later = [{**message, "role": "user"} if message["role"] == "system" else message for message in later]
    return untracked([*_joined(messages[:leading]), *later], many=len(later) > MANY)


def _joined(system: list[Raw]) -> list[Raw]:
    if len(system) < 2:
        return system
    return [{**system[0], "content": "\n\n".join(_text(message.get("content")) for message in system)}]


def _prompt_text(prompt: str | list[Any]) -> str:
    return prompt if isinstance(prompt, str) else prompt[0]
