"""The prompt as a DeepSeek chat template writes it, for counting its tokens where no server can be asked.

Rule: the text here is counted, never sent: it has to have as many tokens as the server's, not the same words. Instructions
that a template adds by itself are numbers, measured once on the published templates.
Surprise: a template is a property of the server, not of the model's name; the layouts differ most in what tools cost.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Literal

import msgspec
import orjson

from ds2d.core.gather import joined
from ds2d.core.request import ChatRequest, Message

LayoutName = Literal["plain", "v31", "v32"]
"""plain: tools as lines of JSON without instructions; v31: DeepSeek V3 to V3.1; v32: V3.2 and later (DSML)."""

BOS, EOS = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"
USER, ASSISTANT = "<｜User｜>", "<｜Assistant｜>"
_NO_THINKING = "</think>"  # one token, as is <think>
_V31_INSTRUCTIONS = 91
_V32_INSTRUCTIONS = 247
_DSML = "｜DSML｜"


class Prompt(msgspec.Struct, frozen=True):
    """`text` to be tokenized with special tokens recognised, and `more` tokens that are not in it."""

    text: str
    more: int = 0


def lay_out(request: ChatRequest, layout: LayoutName = "plain") -> Prompt:
    """The prompt of a chat or completions request."""
    if request.prompt is not None:
        return _completions_prompt(request.prompt)
    tools = [dict(tool["function"]) for tool in request.tools] if request.tool_choice.mode != "none" else []
    head, more = _TOOLS[layout](tools) if tools else ("", 0)
    out = [BOS]
    for message in request.messages:
        if message["role"] in ("system", "developer"):
            out += ("\n\n" if len(out) > 1 else "", text_of(message))
    out.append(head)
    out += _dsml_body(request.messages) if layout == "v32" else _token_body(request.messages, layout)
    return Prompt(joined(out), more)


def _completions_prompt(prompt: str | list[Any]) -> Prompt:
    """Text, token ids, or a list of either; a server puts the beginning mark before each text."""
    if isinstance(prompt, str):
        return Prompt(joined([BOS, prompt]))
    if prompt and all(isinstance(token, int) for token in prompt):
        return Prompt("", len(prompt))
    parts = [_completions_prompt(part) for part in prompt if isinstance(part, str | list)]
    return Prompt(joined([part.text for part in parts]), sum(part.more for part in parts))


def _json(value: Any) -> str:
    """As templates print it: a blank after comma and colon, letters of all alphabets as they are."""
    return json.dumps(value, ensure_ascii=False)


def _plain_tools(tools: list[dict[str, Any]]) -> tuple[str, int]:
    return "\n\n## Tools\n" + "".join(f"\n{_json(tool)}" for tool in tools), 0


def _v31_tools(tools: list[dict[str, Any]]) -> tuple[str, int]:
    sections = (
        f"\n### {tool['name']}\nDescription: {tool.get('description', '')}\n\nParameters: {_json(tool['parameters'])}\n"
        for tool in tools
    )
    return "\n\n## Tools\nYou have access to the following tools:\n" + "".join(sections), _V31_INSTRUCTIONS


def _v32_tools(tools: list[dict[str, Any]]) -> tuple[str, int]:
    return "".join(f"{_json(tool)}\n" for tool in tools), _V32_INSTRUCTIONS


_TOOLS = {"plain": _plain_tools, "v31": _v31_tools, "v32": _v32_tools}


def text_of(message: Message) -> str:
    """The text of a message; images and other parts are nothing."""
    content = message.get("content")
    if isinstance(content, list):
        return joined([part["text"] for part in content if isinstance(part.get("text"), str)])
    return content or ""


def _calls(message: Message) -> Iterable[tuple[str, Any]]:
    """Name and arguments of the calls; arguments that are no JSON stay text."""
    for call in message.get("tool_calls") or ():
        function = call["function"]
        try:
            yield function["name"], orjson.loads(function["arguments"])
        except orjson.JSONDecodeError:
            yield function["name"], function["arguments"]


def _token_body(messages: list[Message], layout: LayoutName) -> list[str]:
    """V3 and V3.1 mark calls and results with tokens of their own. V3.1 continues one turn behind a result, without a mark."""
    out: list[str] = []
    follows_result = False
    for message in messages:
        role = message["role"]
        mark = "" if follows_result and layout == "v31" else ASSISTANT + _NO_THINKING
        if role == "user":
            out += (USER, text_of(message))
        elif role == "tool":
            out += ("<｜tool▁output▁begin｜>", text_of(message), "<｜tool▁output▁end｜>")
        elif role == "assistant":
            calls = "".join(
                f"<｜tool▁call▁begin｜>{name}<｜tool▁sep｜>{given if isinstance(given, str) else _json(given)}<｜tool▁call▁end｜>"
                for name, given in _calls(message)
            )
            wrapped = f"<｜tool▁calls▁begin｜>{calls}<｜tool▁calls▁end｜>" if calls else ""
            out += (mark, text_of(message), wrapped, EOS)
        follows_result = role == "tool"
    if not (follows_result and layout == "v31"):
        out += (ASSISTANT, _NO_THINKING)
    return out


def _dsml_body(messages: list[Message]) -> list[str]:
    """V3.2 and later write calls as markup; reasoning counts only behind the last user message, older one is dropped."""
    last_user = max((index for index, message in enumerate(messages) if message["role"] == "user"), default=-1)
    out: list[str] = []
    for index, message in enumerate(messages):
        role = message["role"]
        if role == "user":
            out += (USER, text_of(message), ASSISTANT, _NO_THINKING)
        elif role == "tool":
            out += ("\n<result>", text_of(message), "</result>")
            if index + 1 == len(messages) or messages[index + 1]["role"] != "tool":
                out.append("\n\n<function_results>\n</function_results>\n\n" + _NO_THINKING)
        elif role == "assistant":
            reasoning = message.get("reasoning_content", "") if index > last_user else ""
            out += (reasoning, text_of(message), _dsml_calls(message), EOS)
    return out


def _dsml_calls(message: Message) -> str:
    blocks = []
    for name, given in _calls(message):
        values = given.items() if isinstance(given, dict) else (("arguments", given),)
        parameters = "\n".join(
            f'<{_DSML}parameter name="{key}" string="{"true" if isinstance(value, str) else "false"}">'
            f"{value if isinstance(value, str) else _json(value)}</{_DSML}parameter>"
            for key, value in values
        )
        blocks.append(f'<{_DSML}invoke name="{name}">\n{parameters}\n</{_DSML}invoke>')
    written = "\n".join(blocks)
    return f"\n\n<{_DSML}function_calls>\n{written}\n</{_DSML}function_calls>" if blocks else ""
