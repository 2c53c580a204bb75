"""gemini.md 3, tools: declarations, schemas, and who may be called."""

from __future__ import annotations

from typing import Any

import pytest

from ds2d.core.errors import GatewayError
from ds2d.core.request import ChatRequest, ToolChoice
from tests.dialects.gemini_questions import ask, refusal

OBJECT = {"type": "object", "properties": {"a": {"type": "string"}}}


def declare(*functions: dict[str, Any], **fields: Any) -> ChatRequest:
    return ask(tools=[{"functionDeclarations": list(functions)}], **fields)


def schema(raw: dict[str, Any]) -> Any:
    (tool,) = declare({"name": "f", "parameters": raw}).tools
    return tool["function"]["parameters"]


def test_a_declaration_becomes_a_function() -> None:
    request = declare({"name": "a.b:c-d_e", "description": "does"}, {"name": "g", "parametersJsonSchema": OBJECT})
    assert request.tools == [
        {
            "type": "function",
            "function": {"name": "a.b:c-d_e", "parameters": {"type": "object", "properties": {}}, "description": "does"},
        },
        {"type": "function", "function": {"name": "g", "parameters": OBJECT}},
    ]
    assert request.tool_choice == ToolChoice("auto")


@pytest.mark.parametrize(
    ("function", "param"),
    [
        ({}, "name"),
        ({"name": ""}, "name"),
        ({"name": "1a"}, "name"),
        ({"name": "a b"}, "name"),
        ({"name": "a" * 129}, "name"),
        ({"name": "f", "description": 1}, "description"),
        ({"name": "f", "parameters": {}, "parametersJsonSchema": {}}, "parametersJsonSchema"),
        ({"name": "f", "parametersJsonSchema": 1}, "parametersJsonSchema"),
        ({"name": "f", "parameters": 1}, "parameters"),
    ],
)
def test_a_wrong_declaration_is_refused_by_its_path(function: dict[str, Any], param: str) -> None:
    assert refusal(tools=[{"functionDeclarations": [function]}]).param == f"tools[0].functionDeclarations[0].{param}"


def test_names_are_unique_and_of_128_characters_at_most_and_functions_1024() -> None:
    assert declare({"name": "a" * 128}).tools
    twice = [{"functionDeclarations": [{"name": "f"}]}, {"functionDeclarations": [{"name": "f"}]}]
    assert refusal(tools=twice).param == "tools[1].functionDeclarations[0].name"
    assert len(declare(*({"name": f"f{i}"} for i in range(1024))).tools) == 1024
    assert refusal(tools=[{"functionDeclarations": [{"name": f"f{i}"} for i in range(1025)]}]).param == "tools"


def test_tools_that_run_at_google_are_left_out_and_noted() -> None:
    request = ask(tools=[{"googleSearch": {}}, {"code_execution": {}}, {"<script>": {}}])
    assert request.tools == []
    assert request.tool_choice == ToolChoice("none")
    assert request.notes == ("tool_dropped:codeExecution", "tool_dropped:googleSearch", "tool_dropped:other")


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        *[
            ({"type": kind.upper()}, {"type": kind})
            for kind in ("string", "number", "integer", "boolean", "array", "object", "null")
        ],
        ({"type": "String"}, {"type": "string"}),
        ({"type": "TYPE_UNSPECIFIED"}, {}),
        ({"type": ["STRING", "NULL"]}, {"type": ["string", "null"]}),
        ({"type": "STRING", "nullable": True}, {"type": ["string", "null"]}),
        ({"type": "STRING", "nullable": False}, {"type": "string"}),
        (
            {"type": "STRING", "nullable": True, "enum": ["x", "y"]},
            {"type": ["string", "null"], "enum": ["x", "y", None]},
        ),
        ({"type": "STRING", "nullable": True, "enum": ["x", None]}, {"type": ["string", "null"], "enum": ["x", None]}),
        ({"anyOf": [{"type": "STRING"}], "nullable": True}, {"anyOf": [{"type": "string"}, {"type": "null"}]}),
        ({"type": "ARRAY", "minItems": "1", "maxItems": 3}, {"type": "array", "minItems": 1, "maxItems": 3}),
        ({"min_length": "0", "max_length": "9", "minProperties": 1, "maxProperties": "2"}, None),
        (
            {"defs": {"X_y": {"type": "STRING"}}, "ref": "#/defs/X_y"},
            {"$defs": {"X_y": {"type": "string"}}, "$ref": "#/$defs/X_y"},
        ),
        ({"$defs": {"X": {"type": "STRING"}}, "$ref": "#/$defs/X"}, {"$defs": {"X": {"type": "string"}}, "$ref": "#/$defs/X"}),
        ({"propertyOrdering": ["a"], "example": 1, "unheard": 1}, {}),
        ({"additionalProperties": False}, {"additionalProperties": False}),
        ({"additional_properties": {"type": "STRING"}}, {"additionalProperties": {"type": "string"}}),
        ({"minimum": 1, "maximum": 2.5, "pattern": "a", "format": "int32", "title": "t", "default": 1, "enum": ["A"]}, "same"),
    ],
)
def test_a_schema_becomes_json_schema(raw: dict[str, Any], expected: object) -> None:
    if expected is None:
        expected = {"minLength": 0, "maxLength": 9, "minProperties": 1, "maxProperties": 2}
    assert schema(raw) == (raw if expected == "same" else expected)


def test_a_nested_schema_in_capitals() -> None:
    raw = {
        "type": "OBJECT",
        "properties": {
            "type": {"type": "STRING", "enum": ["RED", "BLUE"], "nullable": True},
            "min_items": {"type": "ARRAY", "items": {"type": "OBJECT", "properties": {"deep_er": {"type": "INTEGER"}}}},
        },
        "required": ["type"],
    }
    assert schema(raw) == {
        "type": "object",
        "properties": {
            "type": {"type": ["string", "null"], "enum": ["RED", "BLUE", None]},
            "min_items": {"type": "array", "items": {"type": "object", "properties": {"deep_er": {"type": "integer"}}}},
        },
        "required": ["type"],
    }


@pytest.mark.parametrize(
    ("raw", "param"),
    [
        ({"type": "BLOB"}, "type"),
        ({"type": 1}, "type"),
        ({"properties": []}, "properties"),
        ({"properties": {"a": 1}}, "properties.a"),
        ({"items": {"type": "X"}}, "items.type"),
        ({"anyOf": {}}, "anyOf"),
        ({"anyOf": [{}, {"minItems": "many"}]}, "anyOf[1].minItems"),
        ({"maxLength": -1}, "maxLength"),
        ({"maxLength": True}, "maxLength"),
    ],
)
def test_a_wrong_schema_is_refused_by_its_path(raw: dict[str, Any], param: str) -> None:
    function = {"name": "f", "parameters": raw}
    assert refusal(tools=[{"functionDeclarations": [function]}]).param == f"tools[0].functionDeclarations[0].parameters.{param}"


def test_a_json_schema_passes_as_it_is_but_for_types_in_capitals() -> None:
    plain = {
        "type": "object",
        "properties": {"OBJECT": {"enum": ["STRING"], "type": ["string", "null"]}},
        "x_y": {"type": "STRING"},
    }
    assert declare({"name": "f", "parametersJsonSchema": plain}).tools[0]["function"]["parameters"] is plain
    shouted = {
        "type": "OBJECT",
        "properties": {"type": {"type": "STRING"}},
        "anyOf": [{"type": ["NULL"]}, {"items": {"type": "ARRAY"}}],
    }
    assert declare({"name": "f", "parameters_json_schema": shouted}).tools[0]["function"]["parameters"] == {
        "type": "object",
        "properties": {"type": {"type": "string"}},
        "anyOf": [{"type": ["null"]}, {"items": {"type": "array"}}],
    }


def choice_of(mode: str | None = None, *names: str) -> tuple[ToolChoice, list[str]]:
    calling: dict[str, Any] = {"allowedFunctionNames": list(names)} if names else {}
    if mode:
        calling["mode"] = mode
    request = declare({"name": "f"}, {"name": "g"}, {"name": "h"}, toolConfig={"functionCallingConfig": calling})
    return request.tool_choice, [tool["function"]["name"] for tool in request.tools]


def test_who_may_be_called() -> None:
    everyone = ["f", "g", "h"]
    assert choice_of() == (ToolChoice("auto"), everyone)
    assert choice_of("AUTO") == (ToolChoice("auto"), everyone)
    assert choice_of("MODE_UNSPECIFIED") == (ToolChoice("auto"), everyone)
    assert choice_of("AUTO", "f") == (ToolChoice("auto"), everyone)
    assert choice_of("ANY") == (ToolChoice("required"), everyone)
    assert choice_of("ANY", "g") == (ToolChoice("required", ("g",), named=True), everyone)
    assert choice_of("ANY", "h", "f") == (ToolChoice("required", ("h", "f")), ["f", "h"])
    assert choice_of("VALIDATED") == (ToolChoice("auto"), everyone)
    assert choice_of("VALIDATED", "g") == (ToolChoice("auto", ("g",)), ["g"])
    assert choice_of("NONE") == (ToolChoice("none"), everyone)


@pytest.mark.parametrize(
    ("calling", "param"),
    [
        ({"mode": "SOMETIMES"}, "mode"),
        ({"mode": 1}, "mode"),
        ({"mode": "ANY", "allowedFunctionNames": ["f", "x"]}, "allowedFunctionNames[1]"),
        ({"mode": "ANY", "allowedFunctionNames": "f"}, "allowedFunctionNames"),
    ],
)
def test_a_wrong_choice_is_refused_by_its_path(calling: dict[str, Any], param: str) -> None:
    with pytest.raises(GatewayError) as caught:
        declare({"name": "f"}, toolConfig={"functionCallingConfig": calling})
    assert caught.value.param == f"toolConfig.functionCallingConfig.{param}"


def test_any_without_functions_is_refused() -> None:
    assert refusal(toolConfig={"functionCallingConfig": {"mode": "ANY"}}).param == "toolConfig.functionCallingConfig.mode"
