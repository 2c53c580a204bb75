"""Tools, who may be called, and the older `functions` (openai-chat.md 4).

Rule: what leaves here is a list of functions with `parameters` always present, and a choice that names declared ones only.
Surprise: clients list tools that the provider would run itself (web search and the like); those are left out rather than
refused, since the client works without them (clients.md, checklist).
"""

from __future__ import annotations

from typing import Any

import msgspec

from ds2d.core.errors import ErrorKind
from ds2d.core.request import Function, Tool, ToolChoice
from ds2d.core.validate import invalid
from ds2d.dialects.openai_chat.views import AllowedTools, Body, FunctionView, Named

HOSTED = ("web_search", "file_search", "code_interpreter", "computer", "image_generation", "tool_search", "mcp", "local_shell")
"""Beginnings of the types of tools that run at a provider."""


class Tooling(msgspec.Struct):
    """What a body says about tools. `legacy`: in the words of `functions` and `function_call`."""

    tools: list[Tool]
    choice: ToolChoice
    legacy: bool = False


def read_tooling(body: dict[str, Any], view: Body) -> Tooling:
    """Tools and choice of a body whose types have been checked. Raises INVALID_REQUEST and UNSUPPORTED_TOOL."""
    if view.functions:
        if view.tools:
            raise invalid("functions", "use either tools or functions, not both.")
        functions = [
            (f"functions[{i}]", raw, fun) for i, (raw, fun) in enumerate(zip(body["functions"], view.functions, strict=True))
        ]
        tools = _declared(functions)
        return Tooling(tools, _legacy_choice(view, tools), legacy=True)
    tools = _declared(_functions(body, view))
    if isinstance(view.function_call, Named) and view.tool_choice is None:
        return Tooling(tools, _forced(view.function_call.name, tools, "function_call"))
    return _chosen(view, tools)


def _functions(body: dict[str, Any], view: Body) -> list[tuple[str, dict[str, Any], FunctionView]]:
    """The functions among the tools, each with its path and the client's own object."""
    found = []
    for index, tool in enumerate(view.tools or ()):
        path = f"tools[{index}]"
        if tool.type == "function":
            if tool.function is None:
                raise invalid(f"{path}.function", "required field is missing.")
            found.append((f"{path}.function", body["tools"][index]["function"], tool.function))
        elif tool.type == "custom":
            raise invalid(path, "custom tools are not offered on this route; use a function.", ErrorKind.UNSUPPORTED_TOOL)
        elif not tool.type.startswith(HOSTED):
            raise invalid(f"{path}.type", "must be function.")
    return found


def _declared(functions: list[tuple[str, dict[str, Any], FunctionView]]) -> list[Tool]:
    tools: list[Tool] = []
    names: set[str] = set()
    for path, raw, view in functions:
        if view.name in names:
            raise invalid(f"{path}.name", "two tools have this name.")
        names.add(view.name)
        tools.append({"type": "function", "function": _function(raw)})
    return tools


def _function(raw: dict[str, Any]) -> Function:
    kept: Any = {name: value for name, value in raw.items() if value is not None}
    kept.setdefault("parameters", {"type": "object", "properties": {}})
    function: Function = kept
    return function


def _chosen(view: Body, tools: list[Tool]) -> Tooling:
    wanted = view.tool_choice
    if wanted is None or isinstance(wanted, str):
        mode = wanted or ("auto" if tools else "none")
        if mode == "required" and not tools:
            raise invalid("tool_choice", "needs tools.")
        return Tooling(tools, ToolChoice(mode))
    if wanted.type == "custom":
        raise invalid("tool_choice", "custom tools are not offered on this route.", ErrorKind.UNSUPPORTED_TOOL)
    if wanted.type == "allowed_tools":
        if wanted.allowed_tools is None:
            raise invalid("tool_choice.allowed_tools", "required field is missing.")
        return _allowed(wanted.allowed_tools, tools)
    return Tooling(tools, _forced(_name_of(wanted, "tool_choice.function"), tools, "tool_choice"))


def _allowed(allowed: AllowedTools, tools: list[Tool]) -> Tooling:
    """Only these tools are sent, so that no upstream needs to know of the list."""
    names = tuple(_name_of(tool, f"tool_choice.allowed_tools.tools[{i}]") for i, tool in enumerate(allowed.tools))
    declared = {tool["function"]["name"] for tool in tools}
    if unknown := next((name for name in names if name not in declared), None):
        raise invalid("tool_choice", f"the tool '{unknown[:64]}' is not declared.")
    kept = [tool for tool in tools if tool["function"]["name"] in names]
    return Tooling(kept, ToolChoice(allowed.mode, names))


def _name_of(choice: Any, path: str) -> str:
    """The function's name in its nested or flat spelling."""
    named: Named | None = choice.function
    name = named.name if named is not None else choice.name
    if not name:
        raise invalid(path, "must name a function.")
    return str(name)


def _forced(name: str, tools: list[Tool], param: str) -> ToolChoice:
    if all(tool["function"]["name"] != name for tool in tools):
        raise invalid(param, f"the tool '{name[:64]}' is not declared.")
    return ToolChoice("required", (name,), named=True)


def _legacy_choice(view: Body, tools: list[Tool]) -> ToolChoice:
    wanted = view.function_call
    if isinstance(wanted, Named):
        return _forced(wanted.name, tools, "function_call")
    return ToolChoice(wanted or "auto")
