"""Tools, the choice among them, and the format of the text: from this dialect's forms to chat's (openai-responses.md 4).

Rule: every tool that goes upstream is a plain function with a name upstreams take; `Native` remembers what it was, so
calls come back in the client's own form, and calls in the history find the same name again.
Surprise: hosted tools are dropped without a word, since Codex always sends some; only a choice that forces one is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import orjson

from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.names import upstream_name
from ds2d.core.request import Function, Tool, ToolChoice
from ds2d.core.validate import invalid
from ds2d.dialects.openai_responses.custom import KEY
from ds2d.dialects.openai_responses.objects import Kind, Native

MAX_TOOLS = 1024
HOSTED = frozenset({"file_search", "code_interpreter", "image_generation", "mcp", "tool_search", "programmatic_tool_calling"})
HOSTED_PREFIXES = ("web_search", "computer")

_STRINGS = {"type": "array", "items": {"type": "string"}}
EMULATED: dict[str, tuple[str, dict[str, Any]]] = {
    "local_shell": (
        "Run a command in a shell on the user's machine and return its output.",
        {
            "type": "object",
            "properties": {
                "command": _STRINGS | {"description": "The program and its arguments."},
                "env": {"type": "object", "additionalProperties": {"type": "string"}},
                "timeout_ms": {"type": "integer"},
                "user": {"type": "string"},
                "working_directory": {"type": "string"},
            },
            "required": ["command"],
        },
    ),
    "shell": (
        "Run shell commands on the user's machine and return their output.",
        {
            "type": "object",
            "properties": {
                "commands": _STRINGS | {"description": "Commands, run one after the other."},
                "timeout_ms": {"type": "integer"},
                "max_output_length": {"type": "integer"},
            },
            "required": ["commands"],
        },
    ),
    "apply_patch": (
        "Create, update or delete one file on the user's machine.",
        {
            "type": "object",
            "properties": {
                "type": {"type": "string", "enum": ["create_file", "update_file", "delete_file"]},
                "path": {"type": "string"},
                "diff": {"type": "string", "description": "A unified diff without file headers; not for delete_file."},
            },
            "required": ["type", "path"],
        },
    ),
}


class ToolTable(msgspec.Struct):
    """What goes upstream and what it was. `names` finds the upstream name of a (namespace, name) of the client."""

    tools: list[Tool] = []
    natives: dict[str, Native] = {}
    names: dict[tuple[str | None, str], str] = {}

    def upstream(self, name: str, namespace: str | None = None) -> str:
        """The name that a call in the history has upstream, whether or not its tool is declared now."""
        return self.names.get((namespace, name)) or upstream_name(flat(name, namespace))

    def add(self, native: Native, function: dict[str, Any], path: str) -> None:
        """Declare one tool. Raises INVALID_REQUEST for a name that is taken."""
        key = (native.namespace, native.name)
        if key in self.names:
            raise GatewayError(ErrorKind.INVALID_REQUEST, f"The tool name '{native.name}' is used twice.", param=path)
        name = upstream_name(flat(native.name, native.namespace))
        if name in self.natives:  # "a__b" and b of namespace a: told apart by a hash
            name = upstream_name(f"{flat(native.name, native.namespace)} {native.namespace}")
        self.names[key] = name
        self.natives[name] = native
        declared: dict[str, Any] = {"name": name} | function
        self.tools.append(Tool(type="function", function=Function(**declared)))  # type: ignore[typeddict-item]


def flat(name: str, namespace: str | None) -> str:
    """A namespaced name as one word."""
    return f"{namespace}__{name}" if namespace else name


def read_tools(tools: list[Any]) -> ToolTable:
    """The tools of a question, as they go upstream. Raises INVALID_REQUEST with the path of what is wrong."""
    table = ToolTable([], {}, {})
    add_tools(table, tools, "tools")
    return table


def add_tools(table: ToolTable, tools: list[Any], path: str, namespace: str | None = None) -> None:
    """Add a list of tools, flattening namespaces."""
    for index, tool in enumerate(tools):
        _add_tool(table, tool, f"{path}[{index}]", namespace)
    if len(table.tools) > MAX_TOOLS:
        raise GatewayError(ErrorKind.INVALID_REQUEST, f"At most {MAX_TOOLS} tools are allowed.", param=path)


def _add_tool(table: ToolTable, tool: Any, path: str, namespace: str | None) -> None:
    if not isinstance(tool, dict):
        raise invalid(path, "A tool must be an object.")
    kind = tool.get("type")
    if kind == "function":
        inner = _nested(tool, "function")
        table.add(Native("function", _name(inner, path), namespace), _function(inner, path), f"{path}.name")
    elif kind == "custom":
        inner = _nested(tool, "custom")
        table.add(Native("custom", _name(inner, path), namespace), _custom(inner, path), f"{path}.name")
    elif kind == "namespace" and namespace is None:
        inner_tools = tool.get("tools")
        if not isinstance(inner_tools, list):
            raise invalid(f"{path}.tools", "A namespace needs an array `tools`.")
        add_tools(table, inner_tools, f"{path}.tools", _name(tool, path))
    elif isinstance(kind, str) and kind in EMULATED:
        if not _runs_elsewhere(tool):
            description, parameters = EMULATED[kind]
            native: Kind = kind  # type: ignore[assignment]
            table.add(Native(native, kind), {"description": description, "parameters": parameters}, path)
    elif not is_hosted(kind):
        raise invalid(f"{path}.type", f"Unknown tool type {kind!r}." if kind else "A tool needs a `type`.")


def is_hosted(kind: object) -> bool:
    """Whether a tool of this type runs on OpenAI's servers, which do not exist here."""
    return isinstance(kind, str) and (kind in HOSTED or kind.startswith(HOSTED_PREFIXES))


def _nested(value: dict[str, Any], key: str) -> dict[str, Any]:
    """The object under `key`, as chat spells it, or the flat form itself."""
    inner = value.get(key)
    return inner if isinstance(inner, dict) else value


def _runs_elsewhere(tool: Mapping[str, Any]) -> bool:
    environment = tool.get("environment")
    return isinstance(environment, dict) and environment.get("type") not in (None, "local")


def _name(tool: Mapping[str, Any], path: str) -> str:
    name = tool.get("name")
    if not isinstance(name, str) or not name:
        raise invalid(f"{path}.name", "A tool needs a `name`.")
    return name


def _function(tool: Mapping[str, Any], path: str) -> dict[str, Any]:
    parameters = tool.get("parameters")
    if parameters is not None and not isinstance(parameters, dict):
        raise invalid(f"{path}.parameters", "`parameters` must be a JSON Schema object.")
    function: dict[str, Any] = {"parameters": parameters or {"type": "object", "properties": {}}}
    if description := _description(tool, path):
        function = {"description": description} | function
    if tool.get("strict") is not None:
        if not isinstance(tool["strict"], bool):
            raise invalid(f"{path}.strict", "`strict` must be a boolean.")
        function["strict"] = tool["strict"]
    return function


def _custom(tool: Mapping[str, Any], path: str) -> dict[str, Any]:
    """A function with one string; the grammar can only be described, not enforced."""
    lines = [_description(tool, path) or ""]
    form = tool.get("format")
    if isinstance(form, dict):
        inner = _nested(form, "grammar")
        if form.get("type") == "grammar" and isinstance(inner.get("definition"), str):
            lines.append(f"The text must follow this {inner.get('syntax') or 'lark'} grammar:\n{inner['definition']}")
    lines.append(f"Give the whole text, raw and unquoted by you, as the string `{KEY}`.")
    text = {"type": "string", "description": "The raw text for the tool."}
    parameters = {"type": "object", "properties": {KEY: text}, "required": [KEY], "additionalProperties": False}
    return {"description": "\n\n".join(line for line in lines if line), "parameters": parameters}


def _description(tool: Mapping[str, Any], path: str) -> str | None:
    description = tool.get("description")
    if description is not None and not isinstance(description, str):
        raise invalid(f"{path}.description", "`description` must be a string.")
    return description


def echo_tools(tools: list[Any]) -> list[Any]:
    """The tools for the response object: as given, functions in the flat form with every key (section 6)."""
    return [_echo_tool(tool) for tool in tools]


def _echo_tool(tool: dict[str, Any]) -> dict[str, Any]:
    kind = tool.get("type")
    if kind not in ("function", "custom"):
        return tool
    tool = {"type": kind} | _nested(tool, kind)
    return tool if kind == "custom" else {"description": None, "parameters": None, "strict": None} | tool


def read_choice(choice: Any, table: ToolTable) -> tuple[ToolChoice, Any]:
    """The choice for upstream, and as it is echoed. Cuts `table.tools` to the allowed ones of an `allowed_tools` choice.

    Raises INVALID_REQUEST for tools that are unknown or hosted, and for a forced call without tools.
    """
    if choice is None:
        return ToolChoice(), "auto"
    if choice in ("none", "auto", "required"):
        if choice == "required" and not table.tools:
            raise _bad_choice("`tool_choice` is required, but no tool can be called.")
        return ToolChoice(choice), choice
    if not isinstance(choice, dict):
        raise _bad_choice("`tool_choice` must be none, auto, required or an object.")
    if choice.get("type") == "allowed_tools":
        return _allowed(choice, table), choice
    name = _chosen(choice, table)
    return ToolChoice("required", (name,), named=True), _echo_choice(choice)


def _allowed(choice: dict[str, Any], table: ToolTable) -> ToolChoice:
    given = _nested(choice, "allowed_tools")
    mode, tools = given.get("mode", "auto"), given.get("tools")
    if mode not in ("auto", "required") or not isinstance(tools, list):
        raise _bad_choice("`allowed_tools` needs a mode (auto or required) and an array `tools`.")
    names = tuple(dict.fromkeys(_allowed_names(tools, table)))
    if mode == "required" and not names:
        raise _bad_choice("`tool_choice` is required, but no allowed tool can be called.")
    table.tools = [tool for tool in table.tools if tool["function"]["name"] in names]
    return ToolChoice(mode, names)


def _allowed_names(tools: list[Any], table: ToolTable) -> Iterator[str]:
    """Upstream names of the allowed tools; a namespace stands for all it holds, a hosted one for nothing."""
    for tool in tools:
        if not isinstance(tool, dict):
            raise _bad_choice("An allowed tool must be an object.")
        if tool.get("type") == "namespace":
            yield from (name for name, native in table.natives.items() if native.namespace == tool.get("name"))
        elif not is_hosted(tool.get("type")):
            yield _chosen(tool, table)


def _chosen(choice: dict[str, Any], table: ToolTable) -> str:
    kind = choice.get("type")
    if isinstance(kind, str) and kind in EMULATED:
        if (None, kind) in table.names:
            return table.names[None, kind]
        raise _bad_choice(f"`tool_choice` names the tool '{kind}', which is not declared.")
    if kind not in ("function", "custom"):
        raise _bad_choice(f"`tool_choice` cannot force a tool of type {kind!r}.")
    inner = _nested(choice, kind)
    name, namespace = inner.get("name"), inner.get("namespace")
    for (space, known), upstream in table.names.items():
        fits = space == namespace or (namespace is None and flat(known, space) == name)
        if fits and name in (known, flat(known, space)) and table.natives[upstream].kind == kind:
            return upstream
    raise _bad_choice(f"`tool_choice` names the {kind} {name!r}, which is not declared.")


def _echo_choice(choice: dict[str, Any]) -> dict[str, Any]:
    return {"type": choice["type"]} | _nested(choice, choice["type"])


def read_format(form: Any, path: str) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """The `response_format` for upstream (None for plain text), and `text.format` as it is echoed, always flat."""
    if form is None or form == {}:
        return None, {"type": "text"}
    kind = form.get("type") if isinstance(form, dict) else None
    if kind == "text":
        return None, {"type": "text"}
    if kind == "json_object":
        return {"type": "json_object"}, {"type": "json_object"}
    if kind != "json_schema":
        raise invalid(f"{path}.type", "The format must be text, json_object or json_schema.")
    given = _nested(form, "json_schema")
    if not isinstance(given.get("schema"), dict):
        raise invalid(f"{path}.schema", "A json_schema format needs an object `schema`.")
    name = given.get("name", "schema")
    if not isinstance(name, str) or upstream_name(name) != name:
        raise invalid(f"{path}.name", "`name` must be 1 to 64 of the characters A-Z a-z 0-9 _ -.")
    keys = ("description", "strict")
    schema = {"name": name, "schema": given["schema"]} | {key: given[key] for key in keys if given.get(key) is not None}
    return {"type": "json_schema", "json_schema": schema}, {"type": "json_schema"} | schema


def native_action(kind: Kind, arguments: str) -> dict[str, Any] | None:
    """The action of an emulated hosted tool as its call item carries it; None if the model wrote something else."""
    try:
        value = orjson.loads(arguments)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(value, dict):
        return None
    if kind == "local_shell" and _are_strings(value.get("command")):
        return {"action": {"env": {}} | value | {"type": "exec"}}
    if kind == "shell" and _are_strings(value.get("commands")):
        return {"action": {"max_output_length": None, "timeout_ms": None} | value}
    operations = ("create_file", "update_file", "delete_file")
    if kind == "apply_patch" and value.get("type") in operations and isinstance(value.get("path"), str):
        return {"operation": value if value["type"] == "delete_file" else {"diff": ""} | value}
    return None


def _are_strings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(entry, str) for entry in value)


def _bad_choice(message: str) -> GatewayError:
    return invalid("tool_choice", message)
