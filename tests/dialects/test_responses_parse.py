"""Questions of the Responses dialect: every field, item and tool of openai-responses.md 2 to 4, 7 and 9."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.request import ChatRequest, Inbound, ReasoningWish, ToolChoice
from ds2d.dialects.openai_responses import parse

GOLDEN = Path(__file__).parent.parent / "golden" / "requests" / "openai_responses"
PIXEL = "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()
F = {"type": "function", "name": "f"}
PATCH = {"type": "custom", "name": "patch"}
CALL = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"}
OUTPUT = {"type": "function_call_output", "call_id": "c1", "output": "done"}
USER = {"role": "user", "content": "hi"}


def ask(inbound: dict[str, Any] | None = None, /, **fields: Any) -> ChatRequest:
    return parse(Inbound({"model": "m", "input": "hi"} | fields, **(inbound or {})))


def refusal(inbound: dict[str, Any] | None = None, /, **fields: Any) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        ask(inbound, **fields)
    return caught.value


def echo(request: ChatRequest) -> dict[str, Any]:
    value: dict[str, Any] = orjson.loads(b"{" + request.reply.echo + b"}")
    return value


def messages(*items: Any, **fields: Any) -> list[Any]:
    return list(ask(input=list(items), **fields).messages)


# Whole bodies --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.json")), ids=lambda path: path.stem)
def test_bodies_of_real_clients_are_taken_as_written_down(path: Path) -> None:
    case = orjson.loads(path.read_bytes())
    recall, unseal = case.get("recall", {}), case.get("unseal", {})
    request = parse(Inbound(case["body"], recall=recall.get, unseal=unseal.get))
    seen = {name: getattr(request, name) for name in case["expect"]}
    assert orjson.loads(orjson.dumps(seen, default=_plain)) == case["expect"]


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return orjson.loads(b"{" + value + b"}")
    later = ("id", "opened", "encoder", "answer", "written")
    return {name: getattr(value, name) for name in value.__struct_fields__ if name not in later}


# Fields --------------------------------------------------------------------------------------------------------------


def test_input_may_be_text_an_item_or_items() -> None:
    expected = [{"role": "user", "content": "hi"}]
    assert ask().messages == expected
    assert ask(input=USER).messages == expected
    assert ask(input=[USER | {"type": "message"}]).messages == expected


def test_messages_are_taken_where_input_is_absent() -> None:
    assert ask(input=None, messages=[USER]).messages == [USER]
    assert ask(messages=[{"role": "user", "content": "other"}]).messages == [USER]
    assert refusal(input=None).param == "input"


THOUGHT = {"type": "reasoning", "id": "rs_1", "summary": []}


@pytest.mark.parametrize("items", [[THOUGHT], [{"type": "web_search_call", "id": "ws_1"}], [{"type": "compaction"}, THOUGHT]])
def test_a_question_of_which_nothing_is_left_is_refused(items: list[Any]) -> None:
    """It went upstream as `messages: []`."""
    assert refusal(input=items).param == "input"
    assert ask(input=items, instructions="Be brief.").messages == [{"role": "system", "content": "Be brief."}]
    assert ask(input=[*items, USER]).messages[-1] == USER


def test_a_question_without_messages_is_refused() -> None:
    assert refusal(input=None, messages=[]).param == "messages"


def test_instructions_stand_first() -> None:
    assert ask(instructions="Be brief.").messages == [{"role": "system", "content": "Be brief."}, USER]


@pytest.mark.parametrize(
    ("param", "fields"),
    [
        ("model", {"model": ""}),
        ("model", {"model": 5}),
        ("input", {"input": []}),
        ("input", {"input": 5}),
        ("input[0]", {"input": ["text"]}),
        ("input[0].type", {"input": [{}]}),
        ("input[1].type", {"input": [USER, {"type": "surprise"}]}),
        ("input[0].role", {"input": [{"role": "tool", "content": "x"}]}),
        ("input[0].role", {"input": [{"role": ["user"], "content": "x"}]}),
        ("input[0].content", {"input": [{"role": "user"}]}),
        ("input[0].content[0].type", {"input": [{"role": "user", "content": [{"type": "video"}]}]}),
        ("input[0].content[0].text", {"input": [{"role": "user", "content": [{"type": "input_text", "text": 5}]}]}),
        ("input[0].content", {"input": [{"role": "assistant", "content": [{"type": "input_image", "image_url": PIXEL}]}]}),
        ("instructions", {"instructions": ["x"]}),
        ("stream", {"stream": 1}),
        ("store", {"store": "yes"}),
        ("background", {"background": True, "store": False}),
        ("prompt", {"prompt": {"id": "pmpt_1"}}),
        ("max_output_tokens", {"max_output_tokens": 15}),
        ("max_output_tokens", {"max_output_tokens": True}),
        ("max_tool_calls", {"max_tool_calls": -1}),
        ("temperature", {"temperature": 2.1}),
        ("temperature", {"temperature": "1"}),
        ("top_p", {"top_p": 1.1}),
        ("top_logprobs", {"top_logprobs": 21}),
        ("include[0]", {"include": ["everything"]}),
        ("truncation", {"truncation": "some"}),
        ("reasoning.effort", {"reasoning": {"effort": "huge"}}),
        ("reasoning.summary", {"reasoning": {"summary": "long"}}),
        ("text.verbosity", {"text": {"verbosity": "loud"}}),
        ("text.format.type", {"text": {"format": {"type": "xml"}}}),
        ("text.format.schema", {"text": {"format": {"type": "json_schema", "name": "n"}}}),
        ("text.format.name", {"text": {"format": {"type": "json_schema", "name": "a b", "schema": {}}}}),
        ("response_format.type", {"response_format": {"type": "xml"}}),
        ("metadata", {"metadata": {str(n): "" for n in range(17)}}),
        ("metadata", {"metadata": {"k" * 65: "v"}}),
        ("metadata", {"metadata": {"k": "v" * 513}}),
        ("metadata", {"metadata": {"k": 1}}),
        ("tools[0]", {"tools": ["f"]}),
        ("tools[1].type", {"tools": [F, {"type": "surprise"}]}),
        ("tools[0].name", {"tools": [{"type": "function"}]}),
        ("tools[1].name", {"tools": [F, F]}),
        ("tools[0].parameters", {"tools": [F | {"parameters": []}]}),
        ("tools[0].strict", {"tools": [F | {"strict": "yes"}]}),
        ("tools[0].tools", {"tools": [{"type": "namespace", "name": "n"}]}),
        ("tools[0].tools[0].name", {"tools": [{"type": "namespace", "name": "n", "tools": [{"type": "function"}]}]}),
    ],
)
def test_what_is_wrong_is_named(param: str, fields: dict[str, Any]) -> None:
    error = refusal(**fields)
    assert (error.status, error.param) == (400, param)


def test_nulls_count_as_absent() -> None:
    names = "instructions stream store background previous_response_id conversation tools tool_choice parallel_tool_calls"
    more = "max_output_tokens temperature top_p top_logprobs text reasoning include truncation metadata prompt user"
    assert echo(ask(**dict.fromkeys(f"{names} {more}".split()))) == echo(ask())


def test_unknown_fields_are_ignored() -> None:
    request = ask(context_management=[], moderation={}, image={}, modalities=["text"], service_tier="flex", surprise=1)
    assert request.extra == {}
    assert echo(request)["service_tier"] == "default"


def test_conversations_are_refused_by_name() -> None:
    assert refusal(conversation="conv_1").kind is ErrorKind.UNSUPPORTED_PARAMETER
    assert refusal(conversation={"id": "conv_1"}, previous_response_id="resp_1").param == "conversation"


def test_sampling_goes_through_unchanged() -> None:
    request = ask(temperature=1, top_p=0.5, max_output_tokens=16, top_logprobs=3, parallel_tool_calls=False)
    assert request.params == {"temperature": 1, "top_p": 0.5, "logprobs": True, "top_logprobs": 3}
    assert type(request.params["temperature"]) is int
    assert (request.max_tokens, request.parallel_tool_calls) == (16, False)
    assert ask(include=["message.output_text.logprobs"]).params == {"logprobs": True}
    assert ask(top_logprobs=0).params == {}


def test_who_asks_and_what_belongs_together() -> None:
    assert ask(user="u", safety_identifier="s").user == "u"
    assert ask(safety_identifier="s").user == "s"
    assert ask(prompt_cache_key="k").session == "k"


@pytest.mark.parametrize(
    ("reasoning", "wish"),
    [
        ({}, ReasoningWish()),
        ({"summary": "auto"}, ReasoningWish()),
        ({"effort": "none"}, ReasoningWish("off")),
        ({"effort": "minimal"}, ReasoningWish("on", "minimal")),
        ({"effort": "max", "context": "all_turns", "mode": "pro"}, ReasoningWish("on", "max")),
    ],
)
def test_reasoning_wishes(reasoning: dict[str, Any], wish: ReasoningWish) -> None:
    assert ask(reasoning=reasoning).reasoning == wish


def test_the_old_name_of_the_summary() -> None:
    assert echo(ask(reasoning={"generate_summary": "concise"}))["reasoning"] == {"effort": None, "summary": "concise"}


def test_formats() -> None:
    schema = {"name": "n", "schema": {"type": "object"}, "strict": True}
    nested = {"type": "json_schema", "json_schema": schema}
    for fields in (
        {"text": {"format": {"type": "json_schema"} | schema}},
        {"text": {"format": nested}},
        {"response_format": nested},
        {"text": {"format": None}, "response_format": nested},
    ):
        request = ask(**fields)
        assert request.response_format == nested
        assert echo(request)["text"] == {"format": {"type": "json_schema"} | schema}
    assert ask(text={"format": {"type": "json_object"}}).response_format == {"type": "json_object"}
    assert ask(text={"format": {"type": "text"}}, response_format=nested).response_format is None
    assert ask(response_format={}).response_format is None
    assert echo(ask(text={"verbosity": "low"}))["text"] == {"format": {"type": "text"}, "verbosity": "low"}


def test_the_echo_has_every_key_and_its_default() -> None:
    assert echo(ask()) == {
        "instructions": None,
        "max_output_tokens": None,
        "max_tool_calls": None,
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "store": True,
        "background": False,
        "temperature": 1.0,
        "top_p": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "top_logprobs": 0,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "truncation": "disabled",
        "user": None,
        "safety_identifier": None,
        "prompt_cache_key": None,
        "service_tier": "default",
        "metadata": {},
    }


# Items ---------------------------------------------------------------------------------------------------------------


def test_a_turn_is_one_assistant_message() -> None:
    found = messages(
        USER,
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "think"}]},
        {"role": "assistant", "content": [{"type": "output_text", "text": "I look."}]},
        CALL,
        CALL | {"call_id": "c2"},
        OUTPUT | {"call_id": "c2", "output": "two"},
        OUTPUT,
        {"type": "reasoning", "id": "rs_2", "summary": [], "content": [{"type": "reasoning_text", "text": "more"}]},
        {"role": "assistant", "content": "Done."},
        tools=[F],
    )
    call = {"type": "function", "function": {"name": "f", "arguments": "{}"}}
    assert found == [
        USER,
        {
            "role": "assistant",
            "content": "I look.",
            "reasoning_content": "think",
            "tool_calls": [{"id": "c1"} | call, {"id": "c2"} | call],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "done"},
        {"role": "tool", "tool_call_id": "c2", "content": "two"},
        {"role": "assistant", "content": "Done.", "reasoning_content": "more"},
    ]


def test_a_call_after_an_output_is_the_next_turn() -> None:
    found = messages(USER, CALL, OUTPUT, CALL | {"call_id": "c2"}, OUTPUT | {"call_id": "c2"})
    assert [message["role"] for message in found] == ["user", "assistant", "tool", "assistant", "tool"]


def test_an_output_stands_behind_its_call_wherever_the_client_put_it() -> None:
    late = OUTPUT | {"call_id": "c2", "output": "late"}
    found = messages(USER, CALL, CALL | {"call_id": "c2"}, OUTPUT, {"role": "developer", "content": "note"}, late)
    assert [message["role"] for message in found] == ["user", "assistant", "tool", "tool", "system"]
    assert found[3]["content"] == "late"


def test_reasoning_is_read_from_the_best_source() -> None:
    item = {"type": "reasoning", "id": "rs", "summary": [{"text": "summary"}], "encrypted_content": "token"}
    text = {"content": [{"type": "reasoning_text", "text": "text"}]}
    items = [USER, item | text, CALL, OUTPUT]

    def said(**inbound: Any) -> Any:
        return parse(Inbound({"model": "m", "input": items}, **inbound)).messages[1]["reasoning_content"]

    assert said(unseal={"token": "sealed"}.get) == "sealed"
    assert said() == "text"
    items[1] = item
    assert said() == "summary"
    items[1] = {"type": "reasoning", "id": "rs", "summary": None, "content": None, "encrypted_content": 5}
    assert said() == ""


def test_reasoning_that_led_to_nothing_is_left_out() -> None:
    assert messages(USER, {"type": "reasoning", "id": "rs", "summary": [{"text": "x"}]}, USER) == [USER, USER]


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([USER, OUTPUT], "No tool call found for the output of 'c1'."),
        ([CALL, USER], "No tool output found for function call c1."),
        ([CALL, CALL | {"call_id": "c2"}, OUTPUT], "No tool output found for function call c2."),
        ([CALL, {"role": "assistant", "content": "x"}], "No tool output found for function call c1."),
    ],
)
def test_calls_and_outputs_belong_together(items: list[Any], message: str) -> None:
    error = refusal(input=items)
    assert (error.status, error.param, error.message) == (400, "input", message)


def test_only_calls_at_the_very_end_may_be_open() -> None:
    found = messages(USER, CALL, CALL | {"call_id": "c2"})
    assert [call["id"] for call in found[1]["tool_calls"]] == ["c1", "c2"]


def test_ids_are_used_once() -> None:
    assert refusal(input=[CALL, OUTPUT, CALL]).param == "input[2].call_id"
    assert refusal(input=[CALL, OUTPUT, OUTPUT]).param == "input[2].call_id"


def test_images_in_outputs_move_to_a_user_message() -> None:
    parts = [
        {"type": "input_text", "text": "see"},
        {"type": "input_image", "image_url": PIXEL},
        {"type": "input_text", "text": "!"},
    ]
    request = ask(input=[USER, CALL, OUTPUT | {"output": parts}])
    assert request.messages[2]["content"] == "see\n!"
    assert request.messages[3] == {"role": "user", "content": [{"type": "image_url", "image_url": {"url": PIXEL}}]}
    assert request.images == ("input[2].output[1]",)


def test_content_parts() -> None:
    data = "data:text/plain;base64," + base64.b64encode("grüß".encode()).decode()
    parts = [
        {"type": "input_text", "text": "a"},
        {"type": "input_file", "filename": "n.txt", "file_data": data},
        {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
        {"type": "input_image", "image_url": "https://example.org/i.png", "detail": "high"},
        {"type": "refusal", "refusal": "no"},
    ]
    request = ask(input=[{"role": "user", "content": parts}])
    assert request.messages[0]["content"] == [
        {"type": "text", "text": "a"},
        {"type": "text", "text": "n.txt\n\ngrüß"},
        {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
        {"type": "image_url", "image_url": {"url": "https://example.org/i.png", "detail": "high"}},
        {"type": "text", "text": "no"},
    ]
    assert request.images == ("input[0].content[3]",)


@pytest.mark.parametrize(
    ("part", "param", "code"),
    [
        ({"type": "input_image", "file_id": "file_1"}, "file_id", "unsupported_parameter"),
        ({"type": "input_file", "file_id": "file_1"}, "file_id", "unsupported_parameter"),
        ({"type": "input_file", "file_url": "https://e.org/x"}, "file_url", "unsupported_parameter"),
        ({"type": "input_file", "file_data": "data:application/pdf;base64,AA=="}, "file_data", "unsupported_parameter"),
        ({"type": "input_file", "file_data": "data:text/plain;base64,/w=="}, "file_data", "invalid_request"),
        ({"type": "input_image", "image_url": "data:image/tiff;base64,AA=="}, "image_url", "invalid_image"),
        ({"type": "input_image", "image_url": "data:image/png;base64,?"}, "image_url", "invalid_image"),
        ({"type": "input_image", "image_url": PIXEL, "detail": "most"}, "detail", "invalid_request"),
        ({"type": "input_image", "image_url": PIXEL, "detail": ["low"]}, "detail", "invalid_request"),
        ({"type": "input_image"}, "image_url", "invalid_request"),
        ({"type": "input_audio"}, "input_audio", "invalid_request"),
    ],
)
def test_parts_that_cannot_be_used(part: dict[str, Any], param: str, code: str) -> None:
    error = refusal(input=[{"role": "user", "content": [part]}])
    assert (error.param, error.row.openai_code) == (f"input[0].content[0].{param}", code)


def test_items_of_other_servers_are_dropped() -> None:
    kinds = "web_search_call file_search_call code_interpreter_call image_generation_call computer_call computer_call_output"
    more = "mcp_call mcp_list_tools mcp_approval_request tool_search_call tool_search_output program program_output"
    rest = "compaction_trigger configuration_update additional_tools compaction"
    items = [{"type": kind, "id": "x", "call_id": "y"} for kind in f"{kinds} {more} {rest}".split()]
    assert messages(USER, *items) == [USER]


def test_a_compaction_of_ours_is_a_system_note() -> None:
    body = {"model": "m", "input": [{"type": "compaction", "encrypted_content": "token"}, USER]}
    assert parse(Inbound(body, unseal={"token": "what was"}.get)).messages == [{"role": "system", "content": "what was"}, USER]


def test_additional_tools_are_added_and_not_echoed() -> None:
    request = ask(input=[{"type": "additional_tools", "role": "developer", "tools": [F]}, USER], tool_choice="required")
    assert [tool["function"]["name"] for tool in request.tools] == ["f"]
    assert echo(request)["tools"] == []


@pytest.mark.parametrize("raw", ['line\n"quoted" \\d \\n end', "", "{}", '{"input": "x"}', "\u2028é😀"])
def test_a_custom_call_in_the_history_carries_its_input_back(raw: str) -> None:
    items = [{"type": "custom_tool_call", "call_id": "c1", "name": "patch", "input": raw}]
    items.append({"type": "custom_tool_call_output", "call_id": "c1", "output": "ok"})
    call = messages(USER, *items, tools=[PATCH])[1]["tool_calls"][0]
    assert call["function"]["name"] == "patch"
    assert orjson.loads(call["function"]["arguments"]) == {"input": raw}


def test_shell_calls_in_the_history() -> None:
    action = {"type": "exec", "command": ["ls"], "env": {}}
    found = messages(
        USER,
        {"type": "local_shell_call", "id": "l1", "call_id": "c1", "action": action, "status": "completed"},
        {"type": "local_shell_call_output", "id": "c1", "output": '{"output":"a"}'},
        {"type": "shell_call", "call_id": "c2", "action": {"commands": ["ls"]}},
        {"type": "shell_call_output", "call_id": "c2", "output": [{"stdout": "a", "stderr": ""}]},
        {"type": "apply_patch_call", "call_id": "c3", "operation": {"type": "delete_file", "path": "a"}},
        {"type": "apply_patch_call_output", "call_id": "c3", "status": "completed"},
    )
    calls = [message["tool_calls"][0]["function"] for message in found if "tool_calls" in message]
    assert [call["name"] for call in calls] == ["local_shell", "shell", "apply_patch"]
    assert orjson.loads(calls[0]["arguments"]) == action
    outputs = [message["content"] for message in found if message["role"] == "tool"]
    assert outputs == ['{"output":"a"}', '[{"stdout":"a","stderr":""}]', "completed"]


# Tools and choice ----------------------------------------------------------------------------------------------------


def test_function_tools_in_both_spellings() -> None:
    schema = {"type": "object", "properties": {"a": {}}}
    flat = F | {"description": "d", "parameters": schema, "strict": True}
    nested = {"type": "function", "function": {"name": "f", "description": "d", "parameters": schema, "strict": True}}
    expected = {"type": "function", "function": {"name": "f", "description": "d", "parameters": schema, "strict": True}}
    for tool in (flat, nested):
        request = ask(tools=[tool])
        assert request.tools == [expected]
        assert echo(request)["tools"] == [flat]
    assert ask(tools=[F]).tools == [
        {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
    ]
    assert echo(ask(tools=[F]))["tools"] == [F | {"description": None, "parameters": None, "strict": None}]


def test_a_custom_tool_is_offered_as_one_string_with_its_grammar() -> None:
    grammar = {"type": "grammar", "syntax": "lark", "definition": "start: /x+/"}
    (tool,) = ask(tools=[PATCH | {"description": "Edit.", "format": grammar}]).tools
    assert tool["function"]["parameters"]["required"] == ["input"]
    assert tool["function"]["parameters"]["properties"]["input"]["type"] == "string"
    assert tool["function"]["description"].startswith("Edit.")
    assert "start: /x+/" in tool["function"]["description"]


def test_namespaces_are_flattened_also_where_names_are_long_or_taken() -> None:
    long = "n" * 40
    request = ask(
        tools=[
            {"type": "function", "name": "a__b"},
            {"type": "namespace", "name": "a", "tools": [{"type": "function", "name": "b"}, {"type": "custom", "name": "c"}]},
            {"type": "namespace", "name": long, "tools": [{"type": "function", "name": long}]},
        ]
    )
    names = [tool["function"]["name"] for tool in request.tools]
    assert len(set(names)) == 4
    assert all(len(name) <= 64 for name in names)
    natives = {name: (native.kind, native.namespace, native.name) for name, native in request.reply.natives.items()}
    assert [natives[name] for name in names] == [
        ("function", None, "a__b"),
        ("function", "a", "b"),
        ("custom", "a", "c"),
        ("function", long, long),
    ]


def test_history_finds_the_upstream_name_of_a_namespaced_tool() -> None:
    tools = [{"type": "namespace", "name": "n.s", "tools": [F]}]
    request = ask(input=[USER, CALL | {"namespace": "n.s"}, OUTPUT], tools=tools)
    (declared,) = request.tools
    assert request.messages[1]["tool_calls"][0]["function"]["name"] == declared["function"]["name"]
    undeclared = ask(input=[USER, CALL | {"namespace": "n.s"}, OUTPUT])
    assert undeclared.messages[1]["tool_calls"][0]["function"]["name"] == declared["function"]["name"]


def test_hosted_tools_are_dropped_and_echoed() -> None:
    kinds = "web_search web_search_preview_2025_03_11 file_search code_interpreter image_generation computer_use_preview mcp"
    hosted = [{"type": kind, "surprise": 1} for kind in f"{kinds} tool_search programmatic_tool_calling".split()]
    hosted.append({"type": "shell", "environment": {"type": "container_auto"}})
    request = ask(tools=[*hosted, F | {"defer_loading": True}])
    assert [tool["function"]["name"] for tool in request.tools] == ["f"]
    assert echo(request)["tools"][:-1] == hosted
    for tool in hosted[:-1]:
        assert refusal(tools=hosted, tool_choice={"type": tool["type"]}).param == "tool_choice"
    assert refusal(tools=hosted, tool_choice="required").param == "tool_choice"


def test_shells_are_emulated() -> None:
    request = ask(tools=[{"type": "local_shell"}, {"type": "shell"}, {"type": "apply_patch"}], tool_choice={"type": "shell"})
    assert [tool["function"]["name"] for tool in request.tools] == ["local_shell", "shell", "apply_patch"]
    assert request.tool_choice == ToolChoice("required", ("shell",), named=True)


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (None, ToolChoice()),
        ("auto", ToolChoice()),
        ("none", ToolChoice("none")),
        ("required", ToolChoice("required")),
        ({"type": "function", "name": "f"}, ToolChoice("required", ("f",), named=True)),
        ({"type": "function", "function": {"name": "f"}}, ToolChoice("required", ("f",), named=True)),
        ({"type": "custom", "name": "patch"}, ToolChoice("required", ("patch",), named=True)),
        ({"type": "function", "name": "go", "namespace": "s"}, ToolChoice("required", ("s__go",), named=True)),
        ({"type": "function", "name": "s__go"}, ToolChoice("required", ("s__go",), named=True)),
        ({"type": "allowed_tools", "mode": "auto", "tools": [F, {"type": "mcp"}]}, ToolChoice("auto", ("f",))),
        (
            {"type": "allowed_tools", "mode": "required", "tools": [{"type": "namespace", "name": "s"}]},
            ToolChoice("required", ("s__go",)),
        ),
    ],
)
def test_choices(choice: Any, expected: ToolChoice) -> None:
    tools = [F, PATCH, {"type": "namespace", "name": "s", "tools": [{"type": "function", "name": "go"}]}]
    request = ask(tools=tools, tool_choice=choice)
    assert request.tool_choice == expected
    if isinstance(choice, dict) and "function" not in choice:
        assert echo(request)["tool_choice"] == choice
    if choice and "allowed_tools" in choice:
        assert tuple(tool["function"]["name"] for tool in request.tools) == expected.names


@pytest.mark.parametrize(
    "choice",
    [
        "some",
        ["auto"],
        {},
        {"type": "function", "name": "unknown"},
        {"type": "function", "name": "patch"},
        {"type": "custom", "name": "f"},
        {"type": "web_search"},
        {"type": "mcp", "server_label": "s"},
        {"type": "shell"},
        {"type": "allowed_tools", "mode": "some", "tools": []},
        {"type": "allowed_tools", "mode": "auto"},
        {"type": "allowed_tools", "mode": "required", "tools": [{"type": "web_search"}]},
        {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "unknown"}]},
    ],
)
def test_choices_that_cannot_be(choice: Any) -> None:
    error = refusal(tools=[F, PATCH, {"type": "web_search"}], tool_choice=choice)
    assert (error.status, error.param) == (400, "tool_choice")


def test_a_forced_call_needs_tools() -> None:
    assert refusal(tool_choice="required").param == "tool_choice"
    assert ask(tool_choice="none").tool_choice == ToolChoice("none")


# Chains --------------------------------------------------------------------------------------------------------------


class Earlier(msgspec.Struct):
    """A stored response as the store gives it."""

    status: str = "completed"
    chain: tuple[Any, ...] = ("pieces",)

    def items(self) -> list[dict[str, Any]]:
        return [
            {"type": "message", "role": "user", "content": "first", "id": "msg_1"},
            {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "think"}]},
            CALL | {"id": "fc_1"},
        ]


def test_a_chain_comes_before_the_new_items_and_after_the_new_instructions() -> None:
    recall = {"recall": {"resp_1": Earlier()}.get}
    request = ask(recall, previous_response_id="resp_1", input=[OUTPUT], instructions="New.")
    assert [message["role"] for message in request.messages] == ["system", "user", "assistant", "tool"]
    assert request.messages[0]["content"] == "New."
    assert request.messages[2]["reasoning_content"] == "think"
    assert request.reply.chain == ("pieces",)
    assert request.reply.items == [OUTPUT]
    assert echo(request)["previous_response_id"] == "resp_1"


def test_a_chain_with_an_open_call_needs_its_output() -> None:
    assert refusal({"recall": {"resp_1": Earlier()}.get}, previous_response_id="resp_1").param == "input"


def test_only_what_is_there_and_ended_well_can_be_continued() -> None:
    error = refusal(previous_response_id="resp_1")
    assert (error.status, error.row.openai_code, error.param) == (400, "previous_response_not_found", "previous_response_id")
    for status in ("queued", "in_progress", "failed", "cancelled"):
        error = refusal({"recall": {"resp_1": Earlier(status)}.get}, previous_response_id="resp_1")
        assert (error.status, error.param) == (400, "previous_response_id")
    assert ask({"recall": {"resp_1": Earlier("incomplete")}.get}, previous_response_id="resp_1", input=[OUTPUT]).messages


def test_references_stand_for_stored_items() -> None:
    stored = {"id": "msg_1", "type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "yes"}]}
    for reference in ({"type": "item_reference", "id": "msg_1"}, {"id": "msg_1"}):
        request = ask({"recall": {"msg_1": stored}.get}, input=[USER, reference])
        assert request.messages[1] == {"role": "assistant", "content": "yes"}
        assert request.reply.items[1] == stored
    error = refusal(input=[{"type": "item_reference", "id": "msg_1"}])
    assert (error.status, error.row.openai_code, error.param) == (404, "item_not_found", "input[0].id")


# Anything ------------------------------------------------------------------------------------------------------------

NAMES = "model input messages type role content text tools tool_choice function custom namespace name call_id output arguments id"
KINDS = "input_text input_image image_url message reasoning function_call function_call_output item_reference local_shell_call"
MORE = "user assistant allowed_tools mode required auto format json_schema schema include metadata action summary"
WORDS = st.sampled_from(f"{NAMES} {KINDS} {MORE}".split())
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | WORDS | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=12,
)


def status(body: dict[str, Any]) -> int:
    try:
        parse(Inbound({"model": "m"} | body))
    except GatewayError as error:
        return error.status
    return 200


@given(st.dictionaries(WORDS, JSON, max_size=5))
def test_any_body_is_taken_or_refused(body: dict[str, Any]) -> None:
    assert status(body) in (200, 400, 404)


FIELDS = dict.fromkeys(["role", "content", "call_id", "name", "output", "id", "arguments", "tools"], JSON)


@given(st.lists(st.fixed_dictionaries({"type": WORDS}, optional=FIELDS)))
def test_any_items_are_taken_or_refused(items: list[Any]) -> None:
    for body in ({"input": items}, {"messages": items}, {"input": "hi", "tools": items}):
        assert status(body) in (200, 400, 404)
