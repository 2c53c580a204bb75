"""Tools and the choice among them, from Claude's form to chat's (anthropic-messages.md 4).

Rule: a tool that only Anthropic's servers can run is left out and noted, never an error, unless the request insists on it.
Surprise: client tools with a version in their type come without a schema; the two that agents use get it here.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from ds2d.core.errors import ErrorKind
from ds2d.core.names import upstream_name
from ds2d.core.request import Function, Tool, ToolChoice
from ds2d.core.validate import MAX_QUOTED, invalid
from ds2d.dialects.claude.fields import array, flag, mapping, one_of, text

_NAME = re.compile(r"[A-Za-z0-9_-]{1,128}").fullmatch
_SERVER = ("web_search_", "web_fetch_", "code_execution_", "tool_search_", "mcp_toolset", "advisor_")
_CHOICES = ("auto", "any", "tool", "none")


def _object(required: list[str], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required}


def _string(description: str) -> dict[str, Any]:
    return {"type": "string", "description": description}


def _editor(*commands: str) -> dict[str, Any]:
    line = {"type": "integer"}
    return _object(
        ["command", "path"],
        command={"type": "string", "enum": list(commands), "description": "What to do."},
        path=_string("Absolute path of the file or directory."),
        file_text=_string("Content of the new file, for `create`."),
        old_str=_string("Text to replace, for `str_replace`; must occur exactly once."),
        new_str=_string("Replacement for `str_replace`, or the text for `insert`."),
        insert_line={**line, "description": "Line after which `insert` puts the text; 0 for the beginning."},
        insert_text=_string("Text for `insert`."),
        view_range={"type": "array", "items": line, "description": "First and last line to show, for `view`; -1 for the end."},
    )


_BUILT_IN: tuple[tuple[str, str, dict[str, Any]], ...] = (
    (
        "bash_",
        "Run a command in a bash shell that keeps its state between calls.",
        _object([], command=_string("The command to run."), restart={"type": "boolean", "description": "Start the shell anew."}),
    ),
    (
        "text_editor_2024",
        "View, create and edit files.",
        _editor("view", "create", "str_replace", "insert", "undo_edit"),
    ),
    (
        "text_editor_20250124",
        "View, create and edit files.",
        _editor("view", "create", "str_replace", "insert", "undo_edit"),
    ),
    ("text_editor_", "View, create and edit files.", _editor("view", "create", "str_replace", "insert")),
)
"""Prefix of the type, description, schema; the first that fits counts."""


class Toolbox(msgspec.Struct, frozen=True):
    """The tools of one request. `names`: from the upstream's name to the client's, where they differ. `dropped`: server tools,
    from the client's name to their kind."""

    tools: list[Tool]
    names: dict[str, str]
    dropped: dict[str, str]


def read_tools(raw: Any) -> Toolbox:
    """`tools` of the body. Raises GatewayError INVALID_REQUEST, or UNSUPPORTED_TOOL for a typed tool without a known schema."""
    tools: list[Tool] = []
    names: dict[str, str] = {}
    seen: set[str] = set()
    dropped: dict[str, str] = {}
    for index, entry in enumerate(array(raw, "tools") if raw is not None else []):
        path = f"tools.{index}"
        tool = mapping(entry, path)
        kind = tool.get("type")
        if isinstance(kind, str) and (service := next((word for word in _SERVER if kind.startswith(word)), None)):
            dropped[str(tool.get("name") or kind)] = service.rstrip("_")
            continue
        function = _function(tool, path)
        sent = upstream_name(function["name"])
        if sent in seen:
            raise invalid(f"{path}.name", "tool names must be unique.")
        seen.add(sent)
        if sent != function["name"]:
            names[sent] = function["name"]
            function["name"] = sent
        tools.append({"type": "function", "function": function})
    return Toolbox(tools, names, dropped)


def _function(tool: dict[str, Any], path: str) -> Function:
    name = text(tool.get("name"), f"{path}.name")
    if not _NAME(name):
        raise invalid(f"{path}.name", "must be 1 to 128 characters of a-z, A-Z, 0-9, _ and -.")
    kind = tool.get("type")
    if kind is not None and kind != "custom":
        return _built_in(name, text(kind, f"{path}.type"), path)
    if "input_schema" not in tool:
        raise invalid(f"{path}.input_schema", "field required.")
    function = Function(name=name, parameters=mapping(tool["input_schema"], f"{path}.input_schema"))
    description = tool.get("description")
    if description is not None:
        if not isinstance(description, str):
            raise invalid(f"{path}.description", "must be a string.")
        function["description"] = description
    strict = flag(tool, "strict", f"{path}.strict")
    if strict is not None:
        function["strict"] = strict
    return function


def _built_in(name: str, kind: str, path: str) -> Function:
    for prefix, description, schema in _BUILT_IN:
        if kind.startswith(prefix):
            return Function(name=name, description=description, parameters=schema)
    raise invalid(f"{path}.type", f"tools of type '{kind[:MAX_QUOTED]}' are not supported.", ErrorKind.UNSUPPORTED_TOOL)


def read_choice(raw: Any, box: Toolbox) -> tuple[ToolChoice, bool | None]:
    """`tool_choice` of the body: the choice, and False for `parallel_tool_calls` where the client wants one call at most."""
    if raw is None:
        return ToolChoice(), None
    choice = mapping(raw, "tool_choice")
    kind = one_of(choice.get("type"), "tool_choice.type", _CHOICES)
    single = flag(choice, "disable_parallel_tool_use", "tool_choice.disable_parallel_tool_use")
    parallel = False if single and kind != "none" else None
    if kind in ("auto", "none"):
        return ToolChoice("none" if kind == "none" else "auto"), parallel
    if kind == "tool":
        return _named(text(choice.get("name"), "tool_choice.name"), box), parallel
    if not box.tools:
        raise invalid("tool_choice", _no_service(box) or "may be 'any' only where tools are given.")
    return ToolChoice("required"), parallel


def _named(name: str, box: Toolbox) -> ToolChoice:
    sent = upstream_name(name)
    if any(tool["function"]["name"] == sent for tool in box.tools):
        return ToolChoice("required", (sent,), named=True)
    if name in box.dropped:
        raise invalid(
            "tool_choice.name", f"the server tool '{name[:MAX_QUOTED]}' is not available here.", ErrorKind.UNSUPPORTED_TOOL
        )
    raise invalid("tool_choice.name", f"tool '{name[:MAX_QUOTED]}' is not among the tools.")


def _no_service(box: Toolbox) -> str:
    return f"the server tool '{next(iter(box.dropped))[:MAX_QUOTED]}' is not available here." if box.dropped else ""
