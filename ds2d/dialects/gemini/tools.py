"""Function declarations and who may be called (gemini.md 3).

Rule: names stay the client's own, dots and colons included; the upstream side maps what its servers refuse (mapping.md 3).
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from ds2d.core.request import Function, Tool, ToolChoice
from ds2d.core.validate import invalid
from ds2d.dialects.gemini.fields import join, level, several, text, word
from ds2d.dialects.gemini.schema import convert_schema, lower_types

MAX_TOOLS = 1024
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.:-]{0,127}").fullmatch
_SEARCHES = frozenset(("googleSearch", "googleSearchRetrieval", "googleMaps", "urlContext", "retrieval", "fileSearch"))
_HOSTED = _SEARCHES | {"codeExecution", "computerUse", "mcpServers"}
_MODES = ("MODE_UNSPECIFIED", "AUTO", "ANY", "NONE", "VALIDATED")


class Tooling(msgspec.Struct):
    """What a body says about tools. `ignored`: kinds of tools that would run at Google."""

    tools: list[Tool]
    choice: ToolChoice
    ignored: tuple[str, ...] = ()


def read_tooling(body: dict[str, Any], at: str) -> Tooling:
    """`tools` and `toolConfig` of a body. Raises INVALID_REQUEST with the path of what is wrong."""
    tools: list[Tool] = []
    names: set[str] = set()
    ignored: set[str] = set()
    path = join(at, "tools")
    for i, raw in enumerate(several(body.get("tools", []), path)):
        for kind, value in level(raw, f"{path}[{i}]").items():
            if kind != "functionDeclarations":
                ignored.add(kind)
                continue
            where = f"{path}[{i}].functionDeclarations"
            for j, declared in enumerate(several(value, where)):
                tools.append(_tool(declared, f"{where}[{j}]", names))
    if len(tools) > MAX_TOOLS:
        raise invalid(path, f"at most {MAX_TOOLS} functions are allowed.")
    tools, choice = _choose(tools, body.get("toolConfig"), join(at, "toolConfig"))
    return Tooling(tools, choice, tuple(sorted({kind if kind in _HOSTED else "other" for kind in ignored})))


def _tool(raw: Any, path: str, names: set[str]) -> Tool:
    declared = level(raw, path)
    name = text(declared.get("name"), f"{path}.name")
    if not _NAME(name):
        raise invalid(f"{path}.name", "must be 1 to 128 letters, digits, underscores, dots, colons or dashes.")
    if name in names:
        raise invalid(f"{path}.name", "two functions have this name.")
    names.add(name)
    function: Function = {"name": name, "parameters": _parameters(declared, path)}
    if "description" in declared:
        function["description"] = text(declared["description"], f"{path}.description")
    return {"type": "function", "function": function}


def _parameters(declared: dict[str, Any], path: str) -> dict[str, Any]:
    if "parametersJsonSchema" in declared:
        if "parameters" in declared:
            raise invalid(f"{path}.parametersJsonSchema", "use either parameters or parametersJsonSchema.")
        schema = declared["parametersJsonSchema"]
        if not isinstance(schema, dict):
            raise invalid(f"{path}.parametersJsonSchema", "must be an object.")
        lowered: dict[str, Any] = lower_types(schema)
        return lowered
    if "parameters" in declared:
        return convert_schema(declared["parameters"], f"{path}.parameters")
    return {"type": "object", "properties": {}}


def _choose(tools: list[Tool], raw: Any, path: str) -> tuple[list[Tool], ToolChoice]:
    """The tools that are offered, and what the client allows."""
    automatic = ToolChoice("auto" if tools else "none")
    config = level(raw, path).get("functionCallingConfig") if raw is not None else None
    if config is None:
        return tools, automatic
    path += ".functionCallingConfig"
    members = level(config, path)
    mode = word(members.get("mode", "AUTO"), f"{path}.mode", _MODES)
    names = _allowed(members.get("allowedFunctionNames"), tools, f"{path}.allowedFunctionNames")
    if mode == "NONE":
        return tools, ToolChoice("none")
    if mode == "ANY" and not tools:
        raise invalid(f"{path}.mode", "ANY needs functions.")
    if mode == "ANY" and len(names) == 1:
        return tools, ToolChoice("required", names, named=True)
    if mode not in ("ANY", "VALIDATED"):
        return tools, automatic
    if names:
        kept = [tool for tool in tools if tool["function"]["name"] in names]
        return kept, ToolChoice("required" if mode == "ANY" else "auto", names)
    return tools, ToolChoice("required") if mode == "ANY" else automatic


def _allowed(raw: Any, tools: list[Tool], path: str) -> tuple[str, ...]:
    if raw is None:
        return ()
    if not isinstance(raw, list):
        raise invalid(path, "must be an array.")
    declared = {tool["function"]["name"] for tool in tools}
    for i, name in enumerate(raw):
        if text(name, f"{path}[{i}]") not in declared:
            raise invalid(f"{path}[{i}]", "names a function that is not declared.")
    return tuple(dict.fromkeys(raw))
