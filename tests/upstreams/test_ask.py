"""Each field of a question reaches each kind of server as that server reads it (openai-chat.md 2 to 4, 8; mapping.md 3 to 6)."""

from __future__ import annotations

from typing import Any

import pytest

from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.names import upstream_name
from ds2d.core.request import ToolChoice
from ds2d.core.settings import ModelSpec, Secret
from ds2d.upstreams.openai import check, output_limit
from tests.upstreams.asking import FLAVOURS, NAMED, OFF, ON, REQUIRED, ask, body, call, target, tool

SAMPLING = {"temperature": 0.5, "top_p": 0.9, "stop": ["x"], "presence_penalty": 1, "frequency_penalty": 1}
V_ONLY = {"logit_bias": {"5": 1}, "seed": 7}


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_every_server_gets_the_question_itself(flavour: str) -> None:
    made = body(ask(params=SAMPLING, max_tokens=9), flavour)
    assert made["model"] == "their-model"
    assert made["messages"] == [{"role": "user", "content": "Hi"}]
    assert made["max_tokens"] == 9
    assert {name: made[name] for name in SAMPLING} == SAMPLING
    assert "stream" not in made
    assert "stream_options" not in made


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_a_stream_always_asks_for_usage(flavour: str) -> None:
    options = {"include_usage": True}
    if flavour == "vllm":
        options["continuous_usage_stats"] = True
    made = body(ask(stream=True), flavour)
    assert (made["stream"], made["stream_options"]) == (True, options)


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_bias_and_seed_stay_away_from_the_deepseek_api_only(flavour: str) -> None:
    made = body(ask(params=V_ONLY), flavour)
    assert {name: made.get(name) for name in V_ONLY} == (dict.fromkeys(V_ONLY) if flavour == "deepseek" else V_ONLY)


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_fields_that_nobody_knows_reach_vllm_type_servers_only(flavour: str) -> None:
    made = body(ask(extra={"min_tokens": 3, "odd": {"x": 1}}), flavour)
    assert ("min_tokens" in made, "odd" in made) == ((True, True) if flavour in ("vllm", "sglang") else (False, False))


def test_top_k_reaches_servers_that_have_it_from_params_and_extras() -> None:
    for flavour in ("vllm", "sglang", "llamacpp", "llamacpp_python"):
        assert body(ask(params={"top_k": 5}), flavour)["top_k"] == 5
        assert body(ask(extra={"top_k": 5}), flavour)["top_k"] == 5
    for flavour in ("transformers", "deepseek", "generic"):
        assert "top_k" not in body(ask(params={"top_k": 5}), flavour)


@pytest.mark.parametrize(
    "name",
    [
        "request_id",
        "session_id",
        "kv_transfer_params",
        "ec_transfer_params",
        "prompt_embeds",
        "chat_template",
        "model",
        "messages",
    ],
)
def test_what_steers_a_server_is_not_for_clients(name: str) -> None:
    made = body(ask(extra={name: "evil"}))
    assert made.get(name) != "evil"


def test_stream_interval_is_dropped_when_tools_are_in_play() -> None:
    assert body(ask(extra={"stream_interval": 5}))["stream_interval"] == 5
    assert "stream_interval" not in body(ask(extra={"stream_interval": 5}, tools=[tool()]))


def test_the_user_has_another_name_on_the_deepseek_api_and_512_bytes() -> None:
    assert body(ask(user="ü" * 300))["user"] == "ü" * 300
    made = body(ask(user="ü" * 300), "deepseek")
    assert (made["user_id"], "user" in made) == ("ü" * 256, False)


@pytest.mark.parametrize("flavour", ["llamacpp_python", "transformers", "deepseek"])
def test_several_answers_are_refused_where_a_server_gives_one(flavour: str) -> None:
    with pytest.raises(GatewayError) as caught:
        check(ask(params={"n": 2}), target(flavour))
    assert (caught.value.status, caught.value.param) == (400, "n")
    assert body(ask(params={"n": 1}), flavour).get("n", 1) == 1


def test_the_deepseek_api_takes_128_functions() -> None:
    tools = [tool(f"f{i}") for i in range(129)]
    assert len(body(ask(tools=tools))["tools"]) == 129
    with pytest.raises(GatewayError) as caught:
        check(ask(tools=tools), target("deepseek"))
    assert (caught.value.status, caught.value.param) == (400, "tools")


def test_max_tokens_is_cut_to_what_the_model_writes_and_the_prompt_leaves() -> None:
    at = target(spec=ModelSpec())
    assert output_limit(ask(), at) is None
    assert output_limit(ask(max_tokens=500), at) == 500
    known = type(at)(at.upstream, at.model, at.spec, at.facts, context=1000, max_output=400)
    assert output_limit(ask(max_tokens=500), known) == 400
    assert output_limit(ask(max_tokens=500), known, prompt_tokens=700) == 300
    assert output_limit(ask(max_tokens=500), known, prompt_tokens=1000) == 400
    assert output_limit(ask(max_tokens=5000), type(at)(at.upstream, at.model, at.spec, at.facts, context=1000)) == 1000
    assert body(ask(max_tokens=500), known)["max_tokens"] == 400


# Tools and choice


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        (ToolChoice(), "auto"),
        (REQUIRED, "required"),
        (NAMED, {"type": "function", "function": {"name": "f"}}),
        (ToolChoice("auto", ("g",)), "auto"),
        (ToolChoice("required", ("f", "g")), "required"),
    ],
)
@pytest.mark.parametrize("flavour", ["vllm", "sglang", "llamacpp", "generic"])
def test_choices_are_sent_as_they_are_and_tools_cut_to_the_allowed(flavour: str, choice: ToolChoice, sent: Any) -> None:
    made = body(ask(tools=[tool("f"), tool("g"), tool("h")], tool_choice=choice), flavour)
    assert made["tool_choice"] == sent
    assert [each["function"]["name"] for each in made["tools"]] == list(choice.names or ("f", "g", "h"))


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_without_tools_or_with_none_nothing_is_offered(flavour: str) -> None:
    for request in (ask(parallel_tool_calls=True), ask(tools=[tool()], tool_choice=ToolChoice("none"), parallel_tool_calls=True)):
        assert body(request, flavour).keys().isdisjoint(("tools", "tool_choice", "parallel_tool_calls"))


def test_parallel_tool_calls_goes_on() -> None:
    assert body(ask(tools=[tool()], parallel_tool_calls=False))["parallel_tool_calls"] is False


@pytest.mark.parametrize(
    ("choice", "wish", "thinking", "sent"),
    [
        (ToolChoice(), ON, "enabled", None),
        (ToolChoice(), None, None, None),
        (ToolChoice(), OFF, "disabled", "auto"),
        (REQUIRED, None, "disabled", "required"),
        (NAMED, OFF, "disabled", {"type": "function", "function": {"name": "f"}}),
        (REQUIRED, ON, "enabled", None),
    ],
)
def test_the_deepseek_api_refuses_a_choice_while_it_thinks(choice: ToolChoice, wish: Any, thinking: Any, sent: Any) -> None:
    request = ask(tools=[tool("f"), tool("g")], tool_choice=choice, **({"reasoning": wish} if wish else {}))
    made = body(request, "deepseek")
    assert made.get("thinking") == (thinking and {"type": thinking})
    assert made.get("tool_choice") == sent


def test_a_forced_choice_with_thinking_offers_the_allowed_tools_only() -> None:
    made = body(ask(tools=[tool("f"), tool("g")], tool_choice=NAMED, reasoning=ON), "deepseek")
    assert [each["function"]["name"] for each in made["tools"]] == ["f"]


LONG = "mcp__a_server_with_a_rather_long_name__and_a_tool_with_a_longer_one_still"


@pytest.mark.parametrize("name", [LONG, "dots.and:colons", "ümlaut"])
def test_names_that_servers_refuse_are_shortened_everywhere(name: str) -> None:
    called = {"name": name, "arguments": "{}"}
    history = [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function", "function": called}]},
        {"role": "tool", "tool_call_id": "1", "content": "y"},
    ]
    made = body(ask(history, tools=[tool(name)], tool_choice=ToolChoice("required", (name,), named=True)))
    short = upstream_name(name)
    assert short != name
    assert made["tools"][0]["function"]["name"] == short
    assert made["tool_choice"]["function"]["name"] == short
    assert made["messages"][1]["tool_calls"][0]["function"] == {"name": short, "arguments": "{}"}
    assert called["name"] == name, "the client's own messages are not touched"


def test_strict_is_not_for_the_deepseek_api() -> None:
    strict = tool(strict=True)
    assert body(ask(tools=[strict]))["tools"][0]["function"]["strict"] is True
    assert "strict" not in body(ask(tools=[strict]), "deepseek")["tools"][0]["function"]
    assert strict["function"]["strict"] is True


# Forms of answers

SCHEMA = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}, "strict": True}}
JSON = {"type": "json_object"}


@pytest.mark.parametrize("flavour", ["vllm", "sglang", "llamacpp", "generic"])
def test_a_schema_is_sent_to_servers_that_hold_to_it(flavour: str) -> None:
    assert body(ask(response_format=SCHEMA), flavour)["response_format"] == SCHEMA


def test_llama_cpp_python_has_the_schema_inside_the_object_form() -> None:
    assert body(ask(response_format=SCHEMA), "llamacpp_python")["response_format"] == {**JSON, "schema": {"type": "object"}}


@pytest.mark.parametrize("flavour", ["deepseek", "transformers"])
def test_elsewhere_the_schema_is_a_system_line(flavour: str) -> None:
    made = body(
        ask([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "x"}], response_format=SCHEMA), flavour
    )
    assert made["response_format"] == JSON
    assert made["messages"][0]["content"].startswith("Be brief.\n\n")
    assert '{"type":"object"}' in made["messages"][0]["content"]


def test_the_deepseek_api_needs_the_word_json_in_the_prompt() -> None:
    made = body(ask(response_format=JSON), "deepseek")
    assert made["messages"][0]["role"] == "system"
    assert "JSON" in made["messages"][0]["content"]
    said = [{"role": "user", "content": [{"type": "text", "text": "as Json, please"}]}]
    assert [each["role"] for each in body(ask(said, response_format=JSON), "deepseek")["messages"]] == ["user"]
    assert [each["role"] for each in body(ask(response_format=JSON), "vllm")["messages"]] == ["user"]


def test_structural_tags_are_for_vllm_type_servers() -> None:
    form = {"type": "structural_tag", "structures": []}
    assert body(ask(response_format=form))["response_format"] == form
    with pytest.raises(GatewayError) as caught:
        body(ask(response_format=form), "generic")
    assert (caught.value.status, caught.value.param) == (400, "response_format.type")


def test_plain_text_needs_no_form() -> None:
    assert "response_format" not in body(ask(response_format={"type": "text"}))


# Constants, headers, routes


def test_extra_body_is_added_and_wins_but_replaces_nothing_of_ours() -> None:
    spec = ModelSpec(extra_body={"web_search_options": {}, "temperature": 0, "model": "x", "chat_template_kwargs": {"a": 1}})
    made = body(ask(params={"temperature": 1}, reasoning=OFF), target(spec=spec))
    assert made["web_search_options"] == {}
    assert made["temperature"] == 0
    assert made["model"] == "their-model"
    assert made["chat_template_kwargs"] == {"thinking": False, "enable_thinking": False, "a": 1}


def test_headers_hold_the_credential_and_the_fixed_ones() -> None:
    at = target(headers={"X-Team": Secret("blue"), "Authorization": Secret("Basic x")})
    made = call(ask(stream=True), at, "sk-1")
    assert made.headers["authorization"] == "Bearer sk-1"
    assert made.headers["x-team"] == "blue"
    assert made.headers["accept"] == "text/event-stream"
    assert call(ask(), at).headers["authorization"] == "Basic x"


@pytest.mark.parametrize(("prefix", "path"), [("/v1", "/v1/chat/completions"), ("", "/chat/completions")])
def test_the_path_has_the_prefix_that_was_found_out(prefix: str, path: str) -> None:
    made = call(ask(), target(facts={"prefix": prefix}))
    assert (made.method, made.path, made.stream) == ("POST", path, False)


def test_a_prefix_message_is_continued() -> None:
    begun = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "Once", "prefix": True}]
    made = body(ask(begun))
    assert (made["continue_final_message"], made["add_generation_prompt"]) == (True, False)
    assert made["messages"][1] == {"role": "assistant", "content": "Once"}
    deepseek = target("deepseek", base_url="https://api.deepseek.com/v1", facts={"prefix": ""})
    assert call(ask(begun), deepseek).path == "https://api.deepseek.com/beta/chat/completions"
    assert body(ask(begun), deepseek)["messages"][1]["prefix"] is True
    assert "prefix" not in body(ask(begun), "generic")["messages"][1]


# Legacy completions


def test_a_prompt_goes_to_the_completions_route_where_there_is_one() -> None:
    request = ask([], prompt=["a", "b"], max_tokens=16, params={"echo": True, "logprobs": 2, "n": 2}, extra={"min_p": 0.1})
    made = call(request, target())
    assert made.path == "/v1/completions"
    sent = {"model": "their-model", "prompt": ["a", "b"], "max_tokens": 16, "echo": True, "logprobs": 2, "n": 2, "min_p": 0.1}
    assert body(request) == sent


def test_else_it_is_one_user_message() -> None:
    at = target("generic", facts={"completions": False})
    request = ask([], prompt="Once upon", max_tokens=16, params={"echo": True, "logprobs": 2})
    made = body(request, at)
    assert call(request, at).path == "/v1/chat/completions"
    assert made["messages"] == [{"role": "user", "content": "Once upon"}]
    assert (made["logprobs"], made["top_logprobs"], made["max_tokens"]) == (True, 2, 16)
    assert "echo" not in made
    assert "prompt" not in made


def test_filling_in_is_the_deepseek_api_s_beta_route() -> None:
    at = target("deepseek")
    request = ask([], prompt="def f(", max_tokens=9000, params={"suffix": "return x"})
    assert call(request, at).path == "https://api.deepseek.com/beta/completions"
    assert body(request, at) == {"model": "their-model", "prompt": "def f(", "suffix": "return x", "max_tokens": 4096}
    assert call(ask([], prompt="x", max_tokens=1), at).path == "/v1/chat/completions"


@pytest.mark.parametrize(
    ("flavour", "fields", "param"),
    [
        ("generic", {"prompt": [1, 2, 3]}, "prompt"),
        ("llamacpp_python", {"prompt": [[1], [2]]}, "prompt"),
        ("deepseek", {"prompt": ["a", "b"]}, "prompt"),
        ("vllm", {"prompt": "a", "params": {"suffix": "b"}}, "suffix"),
        ("deepseek", {"prompt": "a", "max_tokens": 0}, "max_tokens"),
    ],
)
def test_prompts_that_a_server_cannot_take_are_refused_by_name(flavour: str, fields: dict[str, Any], param: str) -> None:
    with pytest.raises(GatewayError) as caught:
        body(ask([], **fields), flavour)
    assert (caught.value.kind, caught.value.param) == (ErrorKind.UNSUPPORTED_PARAMETER, param)


def test_token_prompts_go_to_vllm() -> None:
    assert body(ask([], prompt=[[1, 2], [3]], max_tokens=1))["prompt"] == [[1, 2], [3]]
