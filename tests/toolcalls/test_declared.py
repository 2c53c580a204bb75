"""Which declared tool a written name means (toolcalls.md 3, names)."""

from __future__ import annotations

import pytest

from ds2d.core.names import upstream_name
from ds2d.core.request import ChatRequest, Tool, ToolChoice
from ds2d.toolcalls.declared import Declared, allowed_by

LONG = "mcp__a_server_with_a_rather_long_name__and_a_tool_with_a_rather_long_name_too"


def tool(name: str, *required: str) -> Tool:
    schema = {"type": "object", "properties": {key: {} for key in required}, "required": list(required)}
    return {"type": "function", "function": {"name": name, "parameters": schema}}


TOOLS = [tool("get_weather", "city"), tool("Read"), tool("fs.read"), tool("a:b"), tool("Same"), tool("same"), tool(LONG)]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("get_weather", "get_weather"),
        ("Get_Weather", "get_weather"),
        (" get_weather\n", "get_weather"),
        ("functions.get_weather", "get_weather"),
        ("functions.tools.GET_WEATHER", "get_weather"),
        ("default_api:get_weather", "get_weather"),
        ("a/b/get_weather", "get_weather"),
        ("READ", "Read"),
        ("fs.read", "fs.read"),
        ("FS.Read", "fs.read"),
        ("a:b", "a:b"),
        ("Same", "Same"),
        ("same", "same"),
        ("SAME", None),
        ("functions.SAME", None),
        ("functions.same", "same"),
        (LONG, LONG),
        (upstream_name(LONG), LONG),
        ("get", None),
        ("get_weather_now", None),
        ("weather.get", None),
        ("", None),
        ("functions.", None),
        ("x" * 10_000, None),
    ],
)
def test_names(written: str, meant: str | None) -> None:
    assert Declared(TOOLS).resolve(written) == meant


def test_the_schema_is_that_of_the_tool_that_is_meant() -> None:
    declared = Declared(TOOLS)
    assert declared.declares("functions.get_weather", "city")
    assert not declared.declares("get_weather", "town")
    assert declared.needs_nothing("read")
    assert not declared.needs_nothing("get_weather")
    assert not declared.needs_nothing("unheard_of")


def test_the_choice_cuts_the_tools_down() -> None:
    def names(choice: ToolChoice) -> list[str | None]:
        declared = allowed_by(ChatRequest("m", [], tools=TOOLS, tool_choice=choice))
        return [declared.resolve("get_weather"), declared.resolve("Read")]

    assert names(ToolChoice()) == ["get_weather", "Read"]
    assert names(ToolChoice("none")) == [None, None]
    assert names(ToolChoice("required", ("Read",))) == [None, "Read"]
    assert names(ToolChoice("auto", ("Read",))) == [None, "Read"]
