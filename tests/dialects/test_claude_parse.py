"""anthropic-messages.md 2 and 4: what is refused and by which path, and what becomes of the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.request import Inbound, ReasoningWish, ToolChoice
from ds2d.dialects.claude import parse
from tests.dialects.claude_requests import HELLO, IMAGE, READ, ask, refusal, result, said, text, use, user

GOLDEN = Path(__file__).parent.parent / "golden" / "requests" / "claude"
SEARCH = {"type": "web_search_20250305", "name": "web_search"}
LONG = "mcp__" + "a_very_long_server_name__" * 3

# Fields ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "inside", "outside"),
    [
        ("max_tokens", [1, 64000], [0, -1, 1.5, "9", True]),
        ("temperature", [0, 1, 2, 0.5], [-0.1, 2.1, "1", True]),
        ("top_p", [0, 1, 0.9], [-0.1, 1.1, "1", False]),
        ("top_k", [0, 40], [-1, 1.5, "1", True]),
        ("stream", [True, False], ["true", 1]),
        ("stop_sequences", [[], ["END"], ["x"] * 16], ["END", [1], [""], [" \n"], ["x"] * 17]),
        ("metadata", [{}, {"user_id": "u"}], ["u", {"user_id": 7}]),
        ("model", ["m"], ["", None, 5]),
        ("messages", [HELLO], [[], None, "hi", {}, ["hi"]]),
        ("tools", [[], None, [READ]], [{}, "x", ["x"]]),
        ("system", [None, "", "be", [], [text("be")]], [5, ["be"], [IMAGE], [{"type": "text"}]]),
        ("output_config", [{}, {"effort": "max"}, {"format": None}], ["x", {"effort": "huge"}, {"format": {"type": "text"}}]),
        (
            "thinking",
            [{"type": "disabled"}, {"type": "adaptive"}],
            ["on", {}, {"type": "on"}, {"type": "enabled", "budget_tokens": "9"}],
        ),
    ],
)
def test_a_field_is_taken_inside_its_bounds_and_refused_by_name_outside(
    field: str, inside: list[Any], outside: list[Any]
) -> None:
    for value in inside:
        ask(**{field: value})
    for value in outside:
        assert str(refusal(**{field: value}).param).split(".")[0] == field


def test_sampling_goes_on_as_it_was_written() -> None:
    request = ask(temperature=1, top_p=0.5, top_k=40, stop_sequences=["END"], max_tokens=77)
    assert request.params == {"temperature": 1, "top_p": 0.5, "top_k": 40, "stop": ["END"]}
    assert request.max_tokens == 77


def test_absent_max_tokens_are_8192() -> None:
    assert ask().max_tokens == 8192


def test_the_user_id_is_the_user_and_names_the_session_only_where_it_says_so() -> None:
    request = ask(metadata={"user_id": "u-1"})
    assert (request.user, request.session) == ("u-1", None)
    named = '{"device_id":"d","account_uuid":"","session_id":"0c1f"}'
    request = ask(metadata={"user_id": named})
    assert (request.user, request.session) == (named, named)


@pytest.mark.parametrize(
    "field",
    [
        "service_tier",
        "speed",
        "inference_geo",
        "container",
        "context_management",
        "diagnostics",
        "cache_control",
        "betas",
        "who_knows",
    ],
)
def test_what_nobody_here_needs_is_ignored(field: str) -> None:
    assert msgspec.structs.asdict(ask(**{field: {"any": ["thing"]}})) == msgspec.structs.asdict(ask())


def test_ignored_servers_are_noted() -> None:
    assert ask(mcp_servers=[{"url": "https://x"}]).notes == ("mcp_servers_ignored",)


def test_threads_are_refused_so_that_the_sdk_sends_everything_again() -> None:
    error = refusal(thread={"type": "create"})
    assert error.kind is ErrorKind.THREAD_UNSUPPORTED
    assert error.details == {"error_code": "thread_unsupported_request", "unsupported": ["thread"]}
    assert ask(thread=None).messages == HELLO


def test_structured_output_becomes_a_response_format() -> None:
    form = {"type": "json_schema", "schema": {"type": "object"}}
    wanted = {"type": "json_schema", "json_schema": {"name": "output", "schema": {"type": "object"}}}
    assert ask(output_config={"format": form}).response_format == wanted
    assert ask(output_format=form).response_format == wanted


# Thinking --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "wish"),
    [
        ({}, ReasoningWish()),
        ({"output_config": {"effort": "low"}}, ReasoningWish(None, "low")),
        ({"thinking": {"type": "disabled"}, "output_config": {"effort": "low"}}, ReasoningWish("off")),
        ({"thinking": {"type": "adaptive"}}, ReasoningWish("on")),
        ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "xhigh"}}, ReasoningWish("on", "xhigh")),
        ({"thinking": {"type": "between_tools"}, "output_config": {"effort": "high"}}, ReasoningWish("on", "high")),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, ReasoningWish("on", "low", 1024)),
        ({"thinking": {"type": "enabled", "budget_tokens": 2048}}, ReasoningWish("on", "medium", 2048)),
        ({"thinking": {"type": "enabled", "budget_tokens": 31999}, "max_tokens": 64000}, ReasoningWish("on", "high", 31999)),
        ({"thinking": {"type": "enabled", "budget_tokens": 32768}, "max_tokens": 64000}, ReasoningWish("on", "max", 32768)),
        ({"thinking": {"type": "enabled", "budget_tokens": 1}}, ReasoningWish("on", "low", 1024)),
        ({"thinking": {"type": "enabled", "budget_tokens": 31999}}, ReasoningWish("on", "medium", 8191)),
    ],
)
def test_what_is_wished_of_thinking(fields: dict[str, Any], wish: ReasoningWish) -> None:
    assert ask(**fields).reasoning == wish


@pytest.mark.parametrize(
    ("model", "thinking", "shown"),
    [
        ("claude-sonnet-4-5", None, "hidden"),
        ("claude-opus-4-6", None, "shown"),
        ("deepseek-Reasoner", None, "shown"),
        ("my-slow-one", None, "shown"),
        ("claude-opus-4-6", {"type": "disabled"}, "hidden"),
        ("claude-sonnet-4-5", {"type": "enabled", "budget_tokens": 2000}, "shown"),
        ("claude-sonnet-4-5", {"type": "adaptive", "display": "summarized"}, "shown"),
        ("claude-sonnet-4-5", {"type": "adaptive", "display": "omitted"}, "omitted"),
    ],
)
def test_when_thinking_is_shown(model: str, thinking: Any, shown: str) -> None:
    assert ask(model=model, thinking=thinking).reply.thinking == shown


# System ----------------------------------------------------------------------------------------------------------------


def test_system_blocks_are_one_message_with_blank_lines() -> None:
    blocks = [{**text("One."), "cache_control": {"type": "ephemeral"}}, text(""), text("Two.")]
    assert ask(system=blocks).messages == [{"role": "system", "content": "One.\n\nTwo."}, *HELLO]


@pytest.mark.parametrize(
    "system", [[text("x-anthropic-billing-header: cc=1; cch=ab12;"), text("Be.")], "x-anthropic-billing-header: cc=1;\nBe."]
)
def test_the_billing_line_never_reaches_the_prompt(system: Any) -> None:
    assert ask(system=system).messages[0] == {"role": "system", "content": "Be."}


def test_system_messages_stay_in_their_place() -> None:
    note = {"role": "system", "content": [text("Note.")]}
    assert ask(messages=[user("a"), note, said("b"), user("c")]).messages == [
        user("a"),
        {"role": "system", "content": "Note."},
        said("b"),
        user("c"),
    ]


# Tools -----------------------------------------------------------------------------------------------------------------


def test_a_tool_becomes_a_function() -> None:
    tool = {
        **READ,
        "type": "custom",
        "description": "d",
        "strict": True,
        "cache_control": {"type": "ephemeral"},
        "defer_loading": True,
    }
    function = {"name": "read", "parameters": READ["input_schema"], "description": "d", "strict": True}
    assert ask(tools=[tool]).tools == [{"type": "function", "function": function}]


@pytest.mark.parametrize(
    ("tool", "path"),
    [
        ({"name": "read"}, "tools.0.input_schema"),
        ({"name": "read", "input_schema": []}, "tools.0.input_schema"),
        ({"input_schema": {}}, "tools.0.name"),
        ({"name": "a b", "input_schema": {}}, "tools.0.name"),
        ({"name": "x" * 129, "input_schema": {}}, "tools.0.name"),
        ({**READ, "description": 5}, "tools.0.description"),
        ({**READ, "strict": "yes"}, "tools.0.strict"),
        ({"type": "computer_20250124", "name": "computer"}, "tools.0.type"),
        ({"type": "memory_20250818", "name": "memory"}, "tools.0.type"),
    ],
)
def test_a_bad_tool_is_refused_by_its_path(tool: dict[str, Any], path: str) -> None:
    assert refusal(tools=[tool]).param == path


def test_a_typed_tool_without_a_known_schema_is_refused_by_its_type() -> None:
    error = refusal(tools=[{"type": "computer_20250124", "name": "computer"}])
    assert error.kind is ErrorKind.UNSUPPORTED_TOOL
    assert "computer_20250124" in error.message


def test_two_tools_of_one_name_are_refused() -> None:
    assert refusal(tools=[READ, READ]).param == "tools.1.name"


@pytest.mark.parametrize(
    ("kind", "name", "undo"),
    [
        ("text_editor_20241022", "str_replace_editor", True),
        ("text_editor_20250124", "str_replace_editor", True),
        ("text_editor_20250429", "str_replace_based_edit_tool", False),
        ("text_editor_20250728", "str_replace_based_edit_tool", False),
    ],
)
def test_the_text_editor_gets_the_schema_of_its_version(kind: str, name: str, undo: bool) -> None:
    function = ask(tools=[{"type": kind, "name": name}]).tools[0]["function"]
    assert function["name"] == name
    assert ("undo_edit" in function["parameters"]["properties"]["command"]["enum"]) == undo


def test_bash_gets_its_schema() -> None:
    function = ask(tools=[{"type": "bash_20250124", "name": "bash"}]).tools[0]["function"]
    assert function["parameters"]["properties"].keys() == {"command", "restart"}


@pytest.mark.parametrize(
    ("kind", "noted"),
    [
        ("web_search_20250305", "web_search"),
        ("web_fetch_20250910", "web_fetch"),
        ("code_execution_20250825", "code_execution"),
        ("tool_search_tool_bm25_20251119", "tool_search"),
        ("mcp_toolset", "mcp_toolset"),
    ],
)
def test_server_tools_are_dropped_and_noted_by_their_kind(kind: str, noted: str) -> None:
    request = ask(tools=[{"type": kind, "name": "svc"}, READ])
    assert [tool["function"]["name"] for tool in request.tools] == ["read"]
    assert request.notes == (f"tool_dropped:{noted}",)


@pytest.mark.parametrize("choice", [{"type": "tool", "name": "web_search"}, {"type": "any"}])
def test_a_server_tool_cannot_be_forced(choice: dict[str, Any]) -> None:
    assert "web_search" in refusal(tools=[SEARCH], tool_choice=choice).message


@pytest.mark.parametrize(
    ("choice", "wanted"),
    [
        (None, ToolChoice()),
        ({"type": "auto"}, ToolChoice()),
        ({"type": "any"}, ToolChoice("required")),
        ({"type": "tool", "name": "read"}, ToolChoice("required", ("read",), named=True)),
        ({"type": "none"}, ToolChoice("none")),
    ],
)
def test_the_choice_among_tools(choice: Any, wanted: ToolChoice) -> None:
    assert ask(tools=[READ], tool_choice=choice).tool_choice == wanted


@pytest.mark.parametrize("choice", [{"type": "maybe"}, {}, "auto", {"type": "tool"}, {"type": "tool", "name": "write"}])
def test_a_bad_choice_is_refused(choice: Any) -> None:
    assert str(refusal(tools=[READ], tool_choice=choice).param).startswith("tool_choice")


def test_any_without_tools_is_refused_and_auto_is_not() -> None:
    refusal(tool_choice={"type": "any"})
    ask(tool_choice={"type": "auto"})


@pytest.mark.parametrize(("kind", "parallel"), [("auto", False), ("any", False), ("tool", False), ("none", None)])
def test_one_call_at_a_time(kind: str, parallel: bool | None) -> None:
    choice = {"type": kind, "name": "read", "disable_parallel_tool_use": True}
    assert ask(tools=[READ], tool_choice=choice).parallel_tool_calls is parallel
    assert ask(tools=[READ], tool_choice={**choice, "disable_parallel_tool_use": False}).parallel_tool_calls is None


def test_a_long_name_is_the_same_short_one_in_tools_choice_and_history() -> None:
    request = ask(
        tools=[{**READ, "name": LONG}],
        tool_choice={"type": "tool", "name": LONG},
        messages=[user("go"), said({**use("a"), "name": LONG}), user(result("a"))],
    )
    short = request.tools[0]["function"]["name"]
    assert len(short) <= 64
    assert request.tool_choice.names == (short,)
    assert request.messages[1]["tool_calls"][0]["function"]["name"] == short
    assert request.reply.names == {short: LONG}


# Whole bodies ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.json")), ids=lambda path: path.stem)
def test_recorded_bodies_are_taken_as_written_down(path: Path) -> None:
    case = orjson.loads(path.read_bytes())
    request = parse(Inbound(case["body"]))
    seen = {name: msgspec.to_builtins(getattr(request, name)) for name in case["expect"]}
    assert orjson.loads(orjson.dumps(seen)) == case["expect"]


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.text(max_size=5)
    | st.sampled_from(["user", "text", "tool_use", "assistant", "a"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["type", "role", "content", "text", "id", "name", "input", "tool_use_id", "source", "data", "thinking"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
FIELDS = [
    "messages",
    "tools",
    "system",
    "tool_choice",
    "thinking",
    "output_config",
    "metadata",
    "stop_sequences",
    "max_tokens",
    "stream",
]


@given(st.dictionaries(st.sampled_from(FIELDS), JSON), st.booleans())
def test_any_body_is_a_question_or_a_refusal(body: dict[str, Any], plausible: bool) -> None:
    if plausible:
        body = {"messages": HELLO, **body}
    try:
        parse(Inbound({"model": "m", **body}))
    except GatewayError as error:
        refused = error
    else:
        return
    assert refused.status == 400
    assert refused.message.startswith(f"{refused.param}: ")
