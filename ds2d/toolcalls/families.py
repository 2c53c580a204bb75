"""How each family of models writes calls and reads results, for models that get their tools by prompt (toolcalls.md 5).

Rule: what `calls` writes, the detector reads back as the same calls; rendering depends on nothing but its arguments.
Surprise: DeepSeek's families see their own special tokens in the prompt on purpose; what clients wrote is escaped before.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import orjson

from ds2d.toolcalls.escape import escape_in_json, escape_special_tokens

Call = tuple[str, str]
"""A call of the history: name, and arguments as JSON text."""


class Family(msgspec.Struct, frozen=True):
    """One way to write calls. `result` is what stands before and behind a tool's result, with `{name}` for the tool;
    `gap` is what stands between text and calls."""

    calls: Callable[[Sequence[Call]], str]
    result: tuple[str, str]
    gap: str = "\n\n"


def _v3(calls: Sequence[Call]) -> str:
    written = (
        f"<｜tool▁call▁begin｜>function<｜tool▁sep｜>{name}\n```json\n{escape_in_json(arguments)}\n```<｜tool▁call▁end｜>"
        for name, arguments in calls
    )
    return "<｜tool▁calls▁begin｜>" + "\n".join(written) + "<｜tool▁calls▁end｜>"


def _v31(calls: Sequence[Call]) -> str:
    written = (
        f"<｜tool▁call▁begin｜>{name}<｜tool▁sep｜>{escape_in_json(arguments)}<｜tool▁call▁end｜>" for name, arguments in calls
    )
    return "<｜tool▁calls▁begin｜>" + "".join(written) + "<｜tool▁calls▁end｜>"


def _elements(outer: str, prefix: str, *, literal: bool) -> Callable[[Sequence[Call]], str]:
    """Writer of `outer` with `invoke` and `parameter` in it; `literal`: strings are marked and stand as they are."""

    def write(calls: Sequence[Call]) -> str:
        lines = [f"<{prefix}{outer}>"]
        for name, arguments in calls:
            lines += [f'<{prefix}invoke name="{name}">', *_parameters(arguments, prefix, literal=literal), f"</{prefix}invoke>"]
        return "\n".join([*lines, f"</{prefix}{outer}>"])

    return write


def _parameters(arguments: str, prefix: str, *, literal: bool) -> list[str]:
    values = _object(arguments)
    if values is None:
        return [escape_in_json(arguments)]
    return [_parameter(key, value, prefix, literal=literal) for key, value in values.items()]


def _parameter(key: str, value: Any, prefix: str, *, literal: bool) -> str:
    is_text, key = isinstance(value, str), escape_special_tokens(key).replace('"', "&quot;")
    text = escape_special_tokens(value) if is_text else escape_in_json(compact(value))
    if literal:
        return f'<{prefix}parameter name="{key}" string="{str(is_text).lower()}">{text}</{prefix}parameter>'
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return f'<{prefix}parameter name="{key}">{text}</{prefix}parameter>'


def _hermes(calls: Sequence[Call]) -> str:
    return "\n".join(f"<tool_call>\n{_item(name, arguments, 'arguments')}\n</tool_call>" for name, arguments in calls)


def _json(calls: Sequence[Call]) -> str:
    return '{"tool_calls": [' + ", ".join(_item(name, arguments, "input") for name, arguments in calls) + "]}"


def _pairs(calls: Sequence[Call]) -> str:
    return "\n".join(f"function.name: {name}\nfunction.arguments: {escape_in_json(arguments)}" for name, arguments in calls)


def _item(name: str, arguments: str, key: str) -> str:
    """An item whose arguments stand as the client sent them; those that are no object, as a string."""
    written = arguments if _object(arguments) is not None else compact(arguments)
    return f'{{"name": {compact(name)}, "{key}": {escape_in_json(written)}}}'


def compact(value: Any) -> str:
    """JSON as short as it gets, members in the order they came, characters as they are."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _object(arguments: str) -> dict[str, Any] | None:
    try:
        value = orjson.loads(arguments)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


_DSML = "｜DSML｜"
_OUTPUT = ("<｜tool▁output▁begin｜>", "<｜tool▁output▁end｜>")
_NAMED = ("[result of {name}]\n", "\n[end of result]")

FAMILIES: dict[str, Family] = {
    "json": Family(_json, _NAMED),
    "deepseek_v3": Family(_v3, ("<｜tool▁outputs▁begin｜>" + _OUTPUT[0], _OUTPUT[1] + "<｜tool▁outputs▁end｜>"), gap=""),
    "deepseek_v31": Family(_v31, _OUTPUT, gap=""),
    "deepseek_v32": Family(
        _elements("function_calls", _DSML, literal=True),
        ("<function_results>\n<result>", "</result>\n</function_results>"),
    ),
    "deepseek_v4": Family(_elements("tool_calls", _DSML, literal=True), ("<tool_result>", "</tool_result>")),
    "deepseek_v41": Family(_elements("calls", _DSML + " ", literal=True), ("<tool_result>", "</tool_result>")),
    "xml": Family(
        _elements("function_calls", "", literal=False),
        ("<function_results>\n<result>", "</result>\n</function_results>"),
    ),
    "hermes": Family(_hermes, ("<tool_response>\n", "\n</tool_response>"), gap="\n"),
    "text": Family(_pairs, _NAMED),
}
"""By the names of config's `tool_format`."""
