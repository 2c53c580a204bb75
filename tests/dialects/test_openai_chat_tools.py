"""openai-chat.md 4: tools, who may be called, and response formats."""

from __future__ import annotations

from typing import Any

import pytest

from ds2d.core.errors import ErrorKind
from ds2d.core.request import ToolChoice
from tests.dialects.chat_questions import allowed, ask, function, named, refusal


def test_a_function_without_parameters_gets_an_empty_schema() -> None:
    request = ask(tools=[function("f", description=None, strict=True), function("g", parameters={"type": "object"})])
    assert request.tools == [
        function("f", parameters={"type": "object", "properties": {}}, strict=True),
        function("g", parameters={"type": "object"}),
    ]
    assert request.tool_choice == ToolChoice("auto")


@pytest.mark.parametrize(
    ("tools", "param"),
    [
        ([{"type": "function"}], "tools[0].function"),
        ([{"function": {"name": "f"}}], "tools[0].type"),
        ([function(""), function("f")], "tools[0].function.name"),
        ([function("a" * 65)], "tools[0].function.name"),
        ([function("f.g")], "tools[0].function.name"),
        ([function("f\n")], "tools[0].function.name"),
        ([function("f"), function("f")], "tools[1].function.name"),
        ([function("f", parameters=[])], "tools[0].function.parameters"),
        ([function("f", strict="yes")], "tools[0].function.strict"),
        ([{"type": "bogus"}], "tools[0].type"),
        ([function(f"f{i}") for i in range(1025)], "tools"),
        ({}, "tools"),
    ],
)
def test_a_wrong_tool_is_refused_by_its_path(tools: object, param: str) -> None:
    assert refusal(tools=tools).param == param


def test_1024_tools_with_names_of_64_characters_are_taken() -> None:
    assert len(ask(tools=[function(f"{i:064d}") for i in range(1024)]).tools) == 1024


def test_custom_tools_are_refused_by_name_and_hosted_ones_left_out() -> None:
    error = refusal(tools=[{"type": "custom", "custom": {"name": "c"}}])
    assert (error.kind, error.param, error.row.openai_code) == (ErrorKind.UNSUPPORTED_TOOL, "tools[0]", "unsupported_tool")
    assert refusal(tools=[function()], tool_choice={"type": "custom", "custom": {"name": "c"}}).kind is ErrorKind.UNSUPPORTED_TOOL
    assert ask(tools=[{"type": "web_search_preview"}]).tools == []


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (None, ToolChoice("auto")),
        ("none", ToolChoice("none")),
        ("auto", ToolChoice("auto")),
        ("required", ToolChoice("required")),
        (named("f"), ToolChoice("required", ("f",), named=True)),
        ({"type": "function", "name": "f"}, ToolChoice("required", ("f",), named=True)),
    ],
)
def test_who_may_be_called(choice: object, expected: ToolChoice) -> None:
    request = ask(tools=[function("f"), function("g")], tool_choice=choice)
    assert request.tool_choice == expected
    assert len(request.tools) == 2


@pytest.mark.parametrize("mode", ["auto", "required"])
def test_an_allowed_list_cuts_the_tools(mode: str) -> None:
    request = ask(tools=[function("f"), function("g"), function("h")], tool_choice=allowed("h", "f", mode=mode))
    assert [tool["function"]["name"] for tool in request.tools] == ["f", "h"]
    assert request.tool_choice == ToolChoice(mode, ("h", "f"))


def test_without_tools_only_none_and_auto_make_sense() -> None:
    assert ask().tool_choice.mode == "none"
    assert ask(tools=[]).tool_choice.mode == "none"
    assert ask(tool_choice="auto").tool_choice.mode == "auto"
    for wrong in ("required", named("f"), allowed("f")):
        assert refusal(tool_choice=wrong).param == "tool_choice"


@pytest.mark.parametrize(
    ("choice", "param"),
    [
        (named("g"), "tool_choice"),
        (allowed("f", "g"), "tool_choice"),
        ("any", "tool_choice"),
        ({"type": "tool"}, "tool_choice.type"),
        ({"type": "function"}, "tool_choice.function"),
        ({"type": "allowed_tools"}, "tool_choice.allowed_tools"),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "none", "tools": [named("f")]}}, "tool_choice.allowed_tools.mode"),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": []}}, "tool_choice.allowed_tools.tools"),
    ],
)
def test_a_choice_of_nothing_declared_is_refused(choice: object, param: str) -> None:
    assert refusal(tools=[function("f")], tool_choice=choice).param == param


def test_parallel_calls_are_the_clients_wish() -> None:
    assert ask(parallel_tool_calls=False).parallel_tool_calls is False
    assert ask().parallel_tool_calls is None
    assert refusal(parallel_tool_calls="no").param == "parallel_tool_calls"


def test_legacy_functions_are_tools_called_one_at_a_time() -> None:
    functions = [{"name": "f"}, {"name": "g", "parameters": {"type": "object"}}]
    request = ask(functions=functions, function_call={"name": "g"})
    assert [tool["function"]["name"] for tool in request.tools] == ["f", "g"]
    assert request.tool_choice == ToolChoice("required", ("g",), named=True)
    assert request.parallel_tool_calls is False
    assert request.reply.legacy
    assert ask(functions=functions, function_call="none").tool_choice == ToolChoice("none")
    assert ask(functions=functions).tool_choice == ToolChoice("auto")
    assert refusal(functions=functions, function_call={"name": "h"}).param == "function_call"
    assert refusal(functions=[{"name": "f f"}]).param == "functions[0].name"
    assert refusal(functions=functions, tools=[function()]).param == "functions"


def test_a_legacy_choice_without_functions_is_a_choice_of_tools() -> None:
    """openai-chat.md 4: an unknown name is 400; without any tools it was taken, and forgotten."""
    assert refusal(function_call={"name": "x"}).param == "function_call"
    assert refusal(functions=[], function_call={"name": "x"}).param == "function_call"
    assert refusal(tools=[function("f")], function_call={"name": "x"}).param == "function_call"
    assert ask(tools=[function("f")], function_call={"name": "f"}).tool_choice == ToolChoice("required", ("f",), named=True)
    assert ask(function_call="auto").tool_choice == ToolChoice("none")


SCHEMA = {"type": "json_schema", "json_schema": {"name": "out", "schema": {"type": "object"}, "strict": True}}


@pytest.mark.parametrize("form", [{"type": "json_object"}, SCHEMA, {"type": "structural_tag", "format": {}}])
def test_a_response_format_goes_on_as_it_is(form: dict[str, Any]) -> None:
    assert ask(response_format=form).response_format is form


def test_the_format_text_is_no_format() -> None:
    assert ask(response_format={"type": "text"}).response_format is None


@pytest.mark.parametrize(
    ("form", "param"),
    [
        ({"type": "xml"}, "response_format.type"),
        ({}, "response_format.type"),
        ("json", "response_format"),
        ({"type": "json_schema"}, "response_format.json_schema"),
        ({"type": "json_schema", "json_schema": {"name": "out"}}, "response_format.json_schema.schema"),
        ({"type": "json_schema", "json_schema": {"name": "out", "schema": []}}, "response_format.json_schema.schema"),
        ({"type": "json_schema", "json_schema": {"name": "o.ut", "schema": {}}}, "response_format.json_schema.name"),
        ({"type": "json_schema", "json_schema": {"schema": {}}}, "response_format.json_schema.name"),
    ],
)
def test_a_wrong_response_format_is_refused_by_its_path(form: object, param: str) -> None:
    assert refusal(response_format=form).param == param
