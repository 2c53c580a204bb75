"""Tools by prompt, for models whose server takes no native tools (toolcalls.md 5).

Rule: a message renders to the same bytes in every turn and nothing is merged, so the prompt of turn n+1 begins with the
prompt of turn n, and prefix caches hit. All that clients wrote is escaped: no text of theirs becomes a special token.
Surprise: only the request that goes upstream is rendered. The answer is still judged by the one that came, whose tools
and choice the stages know (`build`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, cast

import msgspec

from ds2d.core.request import ChatRequest, Message, Tool, ToolChoice
from ds2d.toolcalls.escape import escape_in_json, escape_special_tokens
from ds2d.toolcalls.families import FAMILIES, Call, Family, compact

_FAMILY_BY_NAME: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), family)
    for pattern, family in (
        (r"deepseek.*v4[._-]?1", "deepseek_v41"),
        (r"deepseek.*v4|deepseek-flash", "deepseek_v4"),
        (r"deepseek.*v3[._-]?2", "deepseek_v32"),
        (r"deepseek.*v3[._-]?1", "deepseek_v31"),
        (r"distill|qwen|hermes|qwq", "hermes"),
        (r"deepseek.*(?:r1|v3|v2[._-]5|reasoner)", "deepseek_v3"),
        (r"deepseek", "deepseek_v31"),
    )
)
"""The family of a model by its upstream's name; the first that fits."""

_SCHEMAS = """# Tools

You can call these functions. Each line is one of them, with the JSON schema of its parameters:

{tools}

# How to call

To call functions, write a block of exactly this form, with their names and arguments, and stop behind it:

{example}

{rules}
The results come in the next message."""

_ONE = "Call one function at a time."
_MANY = "Several calls go into one block, one after the other."
_MUST = "You must call a function now."
_MUST_THIS = "You must call the function {name} now."
_JSON_VALUES = 'Text stands as it is with string="true"; any other value is JSON with string="false".'


def family_of(model: str, tool_format: str = "auto") -> str:
    """The format to render for an upstream's model. `tool_format` is the model entry's; "auto" goes by the name."""
    if tool_format in FAMILIES:
        return tool_format
    name = model.lower()
    return next((family for pattern, family in _FAMILY_BY_NAME if pattern.search(name)), "hermes")


def render(request: ChatRequest, family: str) -> ChatRequest:
    """The same question without native tools: the tool list, the history's calls and results are in the messages."""
    how = FAMILIES[family]
    names: dict[str, str] = {}
    messages = [_message(message, how, names) for message in request.messages]
    tools = _offered(request)
    if tools:
        messages = _with_system_text(messages, _instructions(request, tools, how, family))
    return msgspec.structs.replace(request, messages=messages, tools=[], tool_choice=ToolChoice(), parallel_tool_calls=None)


def escape_messages(messages: Sequence[Message]) -> list[Message]:
    """The messages with every special token of their text broken up, where the upstream renders them by itself."""
    return [_edited(message, content=_escaped(message.get("content"))) for message in messages]


def _offered(request: ChatRequest) -> list[Tool]:
    choice = request.tool_choice
    if choice.mode == "none":
        return []
    return [tool for tool in request.tools if choice.names is None or tool["function"]["name"] in choice.names]


def _instructions(request: ChatRequest, tools: list[Tool], how: Family, family: str) -> str:
    listed = "\n".join(escape_in_json(compact(tool["function"])) for tool in tools)
    rules = [_ONE if request.parallel_tool_calls is False else _MANY]
    if family.startswith("deepseek_v") and family not in ("deepseek_v3", "deepseek_v31"):
        rules.append(_JSON_VALUES)
    if request.tool_choice.mode == "required":
        rules.append(_MUST_THIS.format(name=tools[0]["function"]["name"]) if len(tools) == 1 else _MUST)
    example = how.calls([("FUNCTION_NAME", '{"PARAMETER_NAME":"VALUE"}')])
    return _SCHEMAS.format(tools=listed, example=example, rules="\n".join(rules))


def _with_system_text(messages: list[Message], text: str) -> list[Message]:
    """The text behind that of the first system message, or as one of its own."""
    if messages and messages[0]["role"] in ("system", "developer"):
        before = _text_of(messages[0].get("content"))
        return [_edited(messages[0], content=f"{before}\n\n{text}" if before else text), *messages[1:]]
    return [{"role": "system", "content": text}, *messages]


def _message(message: Message, how: Family, names: dict[str, str]) -> Message:
    """One message; `names` learns which call has which name, for the results behind it."""
    if message["role"] == "tool":
        return _result(message, how, names)
    calls = message.get("tool_calls")
    if message["role"] != "assistant" or not calls:
        return _edited(message, content=_escaped(message.get("content")))
    written: list[Call] = []
    for call in calls:
        name = escape_special_tokens(call["function"]["name"])
        names[call["id"]] = name
        written.append((name, call["function"]["arguments"]))
    text = escape_special_tokens(_text_of(message.get("content")))
    edited = _edited(message, content=f"{text}{how.gap if text else ''}{how.calls(written)}")
    del edited["tool_calls"]
    return edited


def _result(message: Message, how: Family, names: dict[str, str]) -> Message:
    """A tool's result as the user's message; pictures in it stay parts."""
    content = message.get("content")
    before, behind = how.result
    before = before.format(name=names.get(message.get("tool_call_id", ""), "the function"))
    text = escape_special_tokens(_text_of(content)).replace(behind.strip(), "< " + behind.strip()[1:])
    framed = f"{before}{text}{behind}"
    others = [part for part in content if part.get("type") != "text"] if isinstance(content, list) else []
    return {"role": "user", "content": [{"type": "text", "text": framed}, *others] if others else framed}


def _escaped(content: str | list[dict[str, Any]] | None) -> str | list[dict[str, Any]] | None:
    if isinstance(content, str):
        return escape_special_tokens(content)
    if content is None:
        return None
    return [{**part, "text": escape_special_tokens(part["text"])} if part.get("type") == "text" else part for part in content]


def _text_of(content: str | list[dict[str, Any]] | None) -> str:
    if isinstance(content, list):
        return "\n".join(part["text"] for part in content if part.get("type") == "text")
    return content or ""


def _edited(message: Message, *, content: str | list[dict[str, Any]] | None) -> Message:
    """The message with other content; itself where nothing changes."""
    if content == message.get("content") and "tool_calls" not in message:
        return message
    return cast("Message", {**message, "content": content})
