"""gemini.md 1 to 4 and 7 to 9, row by row: what is refused and by which path, and what becomes of the rest."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.models import ModelInfo
from ds2d.core.request import ChatRequest, Inbound, ReasoningWish, ToolChoice
from ds2d.dialects.gemini import ROUTES, parse, parse_embed, render_embed, render_model, render_models

GOLDEN = Path(__file__).parent.parent / "golden" / "requests" / "gemini"
HELLO = [{"role": "user", "parts": [{"text": "hello"}]}]
PNG = base64.b64encode(b"\x89PNG\xff\xfe\xfd").decode()


def inbound(body: dict[str, Any], method: str = "generateContent", model: str = "m", **query: str) -> Inbound:
    return Inbound(body, query=query, path={"model": model, "method": method}, unseal={"sealed": "because"}.get)


def ask(**fields: Any) -> ChatRequest:
    return parse(inbound({"contents": HELLO, **fields}))


def refusal(**fields: Any) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        ask(**fields)
    assert caught.value.status == 400
    return caught.value


def config(**fields: Any) -> ChatRequest:
    return ask(generationConfig=fields)


def config_refusal(**fields: Any) -> str:
    param = refusal(generationConfig=fields).param
    assert param is not None
    return param.removeprefix("generationConfig.")


# Section 1: routes ---------------------------------------------------------------------------------------------------


def matched(method: str, path: str) -> tuple[str, dict[str, str]] | None:
    """The first route that takes a path, as the router reads route patterns."""
    for endpoint in ROUTES:
        names = re.sub(r"\{(\w+):([^{}]*)\}", r"(?P<\1>\2)", endpoint.path)
        if endpoint.method == method and (found := re.fullmatch(names, path)):
            return endpoint.action, found.groupdict()
    return None


@pytest.mark.parametrize("version", ["v1", "v1beta"])
@pytest.mark.parametrize(
    ("method", "action"),
    [
        ("generateContent", "generate"),
        ("streamGenerateContent", "generate"),
        ("countTokens", "count"),
        ("embedContent", "embed"),
        ("batchEmbedContents", "batch_embed"),
        ("predict", "unserved"),
        ("predictLongRunning", "unserved"),
        ("asyncBatchEmbedContent", "unserved"),
        ("computeTokens", "unserved"),
        ("batchGenerateContent", "unserved"),
        ("doSomething", "generate"),
    ],
)
@pytest.mark.parametrize("model", ["m", "models/m", "org/m:7b"])
def test_a_path_is_split_at_its_last_colon(version: str, method: str, action: str, model: str) -> None:
    assert matched("POST", f"/{version}/models/{model}:{method}") == (action, {"model": model, "method": method})


def test_a_method_that_does_not_exist_is_a_route_that_does_not_exist() -> None:
    with pytest.raises(GatewayError) as caught:
        parse(inbound({"contents": HELLO}, "doSomething"))
    assert caught.value.status == 404


def test_the_model_stands_in_the_path() -> None:
    for written in ("m", "models/m"):
        assert parse(inbound({"contents": "x", "model": "other"}, model=written)).model == "m"
    with pytest.raises(GatewayError):
        parse(inbound({"contents": "x"}, model="models/"))


@pytest.mark.parametrize(
    ("method", "query", "stream", "form"),
    [
        ("generateContent", {}, False, None),
        ("streamGenerateContent", {}, True, None),
        ("streamGenerateContent", {"alt": "sse"}, True, "sse"),
        ("streamGenerateContent", {"alt": "json"}, True, "array"),
        ("streamGenerateContent", {"$alt": "SSE"}, True, "sse"),
    ],
)
def test_the_path_says_stream_and_the_query_its_form(method: str, query: dict[str, str], stream: bool, form: str | None) -> None:
    request = parse(inbound({"contents": HELLO}, method, **query))
    assert (request.stream, request.reply.form) == (stream, form)


def test_count_tokens_takes_both_bodies() -> None:
    plain = {"contents": HELLO, "systemInstruction": "be brief"}
    wrapped = {"generateContentRequest": {"model": "models/m", **plain}}
    assert parse(inbound(wrapped, "countTokens")).messages == parse(inbound(plain, "countTokens")).messages
    with pytest.raises(GatewayError) as caught:
        parse(inbound({"generate_content_request": {"contents": [{"role": "x"}]}}, "countTokens"))
    assert caught.value.param == "generateContentRequest.contents[0].role"


# Section 2: names -----------------------------------------------------------------------------------------------------

CAMEL = {
    "systemInstruction": {"parts": [{"text": "be brief"}]},
    "contents": [
        {"role": "user", "parts": [{"text": "see"}, {"inlineData": {"mimeType": "image/png", "data": PNG}}]},
        {"role": "model", "parts": [{"functionCall": {"id": "c1", "name": "f", "args": {"user_id": {"first_name": 1}}}}]},
        {"role": "user", "parts": [{"functionResponse": {"id": "c1", "name": "f", "response": {"first_name": {"a_b": 1}}}}]},
    ],
    "tools": [
        {
            "functionDeclarations": [
                {
                    "name": "f",
                    "parameters": {
                        "type": "OBJECT",
                        "properties": {"user_id": {"type": "ARRAY", "minItems": "1", "items": {"anyOf": [{"type": "STRING"}]}}},
                        "propertyOrdering": ["user_id"],
                    },
                },
                {"name": "g", "parametersJsonSchema": {"type": "object", "properties": {"a_b": {"type": "string"}}}},
            ]
        }
    ],
    "toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["f", "g"]}},
    "generationConfig": {
        "topP": 0.5,
        "maxOutputTokens": 9,
        "stopSequences": ["x"],
        "candidateCount": 2,
        "responseMimeType": "application/json",
        "responseJsonSchema": {"type": "object", "properties": {"a_b": {"type": "string"}}},
        "thinkingConfig": {"includeThoughts": True, "thinkingBudget": 100},
    },
}
FREE = {"args", "response", "parametersJsonSchema", "responseJsonSchema"}


def respelled(value: Any, choose: Any) -> Any:
    """The body with its own keys in snake_case where `choose()` says so; a user's objects as they are."""
    if isinstance(value, list):
        return [respelled(one, choose) for one in value]
    if not isinstance(value, dict):
        return value
    made = {}
    for name, member in value.items():
        if name == "properties":
            inner = {key: respelled(one, choose) for key, one in member.items()}
        else:
            inner = member if name in FREE else respelled(member, choose)
        made[re.sub(r"([A-Z])", lambda found: "_" + found.group(1).lower(), name) if choose() else name] = inner
    return made


def test_a_body_in_snake_case_is_the_same_question() -> None:
    assert ask(**respelled(CAMEL, lambda: True)) == ask(**CAMEL)


@given(st.data())
def test_a_body_in_mixed_spelling_is_the_same_question(data: st.DataObject) -> None:
    assert parse(inbound(respelled(CAMEL, lambda: data.draw(st.booleans())))) == ask(**CAMEL)


def test_a_users_own_keys_are_not_rewritten() -> None:
    request = ask(**respelled(CAMEL, lambda: True))
    assert request.messages[2]["tool_calls"][0]["function"]["arguments"] == '{"user_id":{"first_name":1}}'
    assert request.messages[3]["content"] == '{"first_name":{"a_b":1}}'
    assert list(request.tools[0]["function"]["parameters"]["properties"]) == ["user_id"]
    assert list(request.tools[1]["function"]["parameters"]["properties"]) == ["a_b"]


def test_camel_case_wins_whichever_comes_first() -> None:
    assert config(topP=0.5, top_p=0.1).params == {"top_p": 0.5}
    assert config(top_p=0.1, topP=0.5).params == {"top_p": 0.5}
    assert config(topP=None, top_p=0.1).params == {"top_p": 0.1}


def test_unknown_keys_are_ignored_and_enums_come_in_any_case() -> None:
    request = ask(
        tools=[{"functionDeclarations": [{"name": "f", "behavior": "BLOCKING", "response": {}}], "new_thing": {}}],
        toolConfig={"functionCallingConfig": {"mode": "any"}, "retrievalConfig": {}},
        generationConfig={"speechConfig": {}, "mediaResolution": "LOW", "thinkingConfig": {"thinkingLevel": "low"}},
        safetySettings=[{}],
        labels={"a": "b"},
        serviceTier="x",
        store=True,
        never_heard_of=1,
    )
    assert request.tool_choice.mode == "required"
    assert request.reasoning == ReasoningWish("on", "low")
    assert request.extra == {}


# Section 3: request ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("contents", [None, [], "", 5, [5]])
def test_contents_are_required(contents: object) -> None:
    assert (refusal(contents=contents).param or "").startswith("contents")


def test_contents_may_be_one_content_or_text() -> None:
    for contents in ("hello", ["hello"], HELLO[0], HELLO, {"parts": {"text": "hello"}}, {"parts": ["hello"]}, {"text": "hello"}):
        assert ask(contents=contents).messages == [{"role": "user", "content": "hello"}]


@pytest.mark.parametrize(
    "instruction", ["be brief", {"parts": [{"text": "be brief"}]}, {"role": "user", "parts": {"text": "be brief"}}]
)
def test_the_system_instruction_comes_first(instruction: object) -> None:
    assert ask(systemInstruction=instruction).messages[0] == {"role": "system", "content": "be brief"}


def test_an_empty_system_instruction_is_none() -> None:
    assert ask(systemInstruction={"parts": [{"text": ""}]}).messages == [{"role": "user", "content": "hello"}]
    two = {"parts": [{"text": "a"}, {"text": "b"}]}
    assert ask(systemInstruction=two).messages[0]["content"] == "a\nb"
    image = {"parts": [{"inlineData": {"mimeType": "image/png", "data": PNG}}]}
    assert refusal(systemInstruction=image).param == "systemInstruction.parts[0]"


LIMITS = {  # field: chat's name, values just inside, values just outside
    "temperature": ("temperature", [0, 2], [-0.1, 2.1, True, "1"]),
    "topP": ("top_p", [0, 1], [-0.1, 1.1]),
    "candidateCount": ("n", [1, 128], [0, 129, 1.5]),
    "presencePenalty": ("presence_penalty", [-2, 2], [-2.1, 2.1]),
    "frequencyPenalty": ("frequency_penalty", [-2, 2], [-2.1, 2.1]),
    "seed": ("seed", [0, -(2**63)], [2**63, True]),
}


@pytest.mark.parametrize("name", LIMITS)
def test_numbers_have_limits_and_go_on_under_their_chat_names(name: str) -> None:
    chat, inside, outside = LIMITS[name]
    for value in inside:
        assert config(**{name: value}).params == {chat: value}
    for value in outside:
        assert config_refusal(**{name: value}) == name


def test_top_k_may_be_written_as_a_fraction() -> None:
    assert [config(topK=value).params["top_k"] for value in (0, 40, 40.0)] == [0, 40, 40]
    assert config_refusal(topK=-1) == "topK"


def test_the_output_limit_and_stop_sequences() -> None:
    assert config(maxOutputTokens=1).max_tokens == 1
    assert config_refusal(maxOutputTokens=0) == "maxOutputTokens"
    assert config(stopSequences=["a"] * 16).params == {"stop": ["a"] * 16}
    assert config(stopSequences=[]).params == {}
    assert config_refusal(stopSequences=["a"] * 17) == "stopSequences"
    assert config_refusal(stopSequences=[""]) == "stopSequences[0]"


def test_log_probabilities_are_asked_for_by_two_fields() -> None:
    assert config(responseLogprobs=True, logprobs=20).params == {"logprobs": True, "top_logprobs": 20}
    assert config(responseLogprobs=False, logprobs=3).params == {}
    assert config_refusal(responseLogprobs=True, logprobs=21) == "logprobs"


def test_only_text_comes_out() -> None:
    assert config(responseModalities=["TEXT", "text"]).params == {}
    error = refusal(generationConfig={"responseModalities": ["TEXT", "IMAGE"]})
    assert (error.kind, error.param) == (ErrorKind.UNSUPPORTED_PARAMETER, "generationConfig.responseModalities[1]")


def test_cached_contents_are_refused_and_an_empty_name_is_none() -> None:
    assert refusal(cachedContent="cachedContents/1").param == "cachedContent"
    assert ask(cachedContent="").messages


OBJECT = {"type": "object", "properties": {"a": {"type": "string"}}}
FORMAT = {"type": "json_schema", "json_schema": {"name": "response", "schema": OBJECT}}
GOOGLES = {"type": "OBJECT", "properties": {"a": {"type": "STRING"}}}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, None),
        ({"responseMimeType": "text/plain"}, None),
        ({"responseMimeType": "application/json"}, {"type": "json_object"}),
        ({"responseMimeType": "application/json", "responseSchema": GOOGLES}, FORMAT),
        ({"responseSchema": GOOGLES}, FORMAT),
        ({"responseJsonSchema": OBJECT}, FORMAT),
        ({"responseJsonSchema": GOOGLES}, FORMAT),
        ({"_responseJsonSchema": OBJECT}, FORMAT),
        ({"response_json_schema": OBJECT}, FORMAT),
        ({"responseFormat": {"text": {"mimeType": "application/json", "schema": OBJECT}}}, FORMAT),
        ({"responseFormat": [{"text": {"mime_type": "APPLICATION_JSON"}}]}, {"type": "json_object"}),
    ],
)
def test_a_response_format(fields: dict[str, Any], expected: object) -> None:
    request = config(**fields)
    assert (request.response_format, request.reply.unquote) == (expected, False)


def test_an_enum_answer_is_a_schema_and_will_be_unquoted() -> None:
    request = config(responseMimeType="text/x.enum", responseSchema={"type": "STRING", "enum": ["a", "b"]})
    assert request.response_format is not None
    assert request.response_format["json_schema"]["schema"] == {"type": "string", "enum": ["a", "b"]}
    assert request.reply.unquote


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"responseMimeType": "image/png"}, "responseMimeType"),
        ({"responseMimeType": 1}, "responseMimeType"),
        ({"responseMimeType": "text/plain", "responseSchema": GOOGLES}, "responseSchema"),
        ({"responseMimeType": "text/x.enum"}, "responseSchema"),
        ({"responseMimeType": "text/x.enum", "responseSchema": GOOGLES}, "responseSchema"),
        ({"responseSchema": GOOGLES, "responseJsonSchema": OBJECT}, "responseJsonSchema"),
        ({"responseSchema": {"type": "BLOB"}}, "responseSchema.type"),
        ({"responseJsonSchema": []}, "responseJsonSchema"),
    ],
)
def test_a_response_format_that_is_none(fields: dict[str, Any], param: str) -> None:
    assert config_refusal(**fields) == param


@pytest.mark.parametrize(
    ("thinking", "wish"),
    [
        ({"thinkingBudget": 0}, ReasoningWish("off")),
        ({"thinkingBudget": -1}, ReasoningWish("on")),
        ({"thinkingBudget": 1}, ReasoningWish("on", "low", 1)),
        ({"thinkingBudget": 2047}, ReasoningWish("on", "low", 2047)),
        ({"thinkingBudget": 2048}, ReasoningWish("on", "medium", 2048)),
        ({"thinkingBudget": 8192}, ReasoningWish("on", "high", 8192)),
        ({"thinkingBudget": 32768}, ReasoningWish("on", "max", 32768)),
        *[
            ({"thinkingLevel": level}, ReasoningWish("on", level.lower()))
            for level in ("MINIMAL", "LOW", "MEDIUM", "HIGH", "XHIGH")
        ],
        ({"thinkingLevel": "THINKING_LEVEL_UNSPECIFIED", "thinkingBudget": 0}, ReasoningWish("off")),
        ({"includeThoughts": True}, ReasoningWish()),
        ({}, ReasoningWish()),
    ],
)
def test_a_wish_about_thinking(thinking: dict[str, Any], wish: ReasoningWish) -> None:
    request = config(thinkingConfig=thinking)
    assert request.reasoning == wish
    assert request.reply.thoughts == ("includeThoughts" in thinking)
    assert request.reply.thinking == (wish.mode == "on")


@pytest.mark.parametrize(
    ("thinking", "param"),
    [
        ({"thinkingBudget": 1, "thinkingLevel": "LOW"}, "thinkingLevel"),
        ({"thinkingBudget": -2}, "thinkingBudget"),
        ({"thinkingBudget": True}, "thinkingBudget"),
        ({"thinkingLevel": "ENORMOUS"}, "thinkingLevel"),
        ({"includeThoughts": 1}, "includeThoughts"),
    ],
)
def test_a_wish_about_thinking_that_is_none(thinking: dict[str, Any], param: str) -> None:
    assert config_refusal(thinkingConfig=thinking) == f"thinkingConfig.{param}"


# Tools -----------------------------------------------------------------------------------------------------------------


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
    assert request.reply.notes == ("tool_dropped:codeExecution", "tool_dropped:googleSearch", "tool_dropped:other")


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
            "type": {"type": ["string", "null"], "enum": ["RED", "BLUE"]},
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


# Section 4: contents ----------------------------------------------------------------------------------------------------


def talk(*contents: dict[str, Any]) -> list[Any]:
    return ask(contents=list(contents)).messages


def user(*parts: Any) -> dict[str, Any]:
    return {"role": "user", "parts": list(parts)}


def model(*parts: Any) -> dict[str, Any]:
    return {"role": "model", "parts": list(parts)}


def calls(name: str, call_id: str | None = None, **args: Any) -> dict[str, Any]:
    return {"functionCall": {"name": name, "args": args, **({"id": call_id} if call_id else {})}}


def answers_to(name: str, call_id: str | None = None, **response: Any) -> dict[str, Any]:
    return {"functionResponse": {"name": name, "response": response, **({"id": call_id} if call_id else {})}}


def test_turns_of_a_conversation() -> None:
    assert talk({"parts": [{"text": "a"}]}, model({"text": "b"}, {"text": ""}), user({"text": "c"}, {"text": "d"})) == [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": [{"type": "text", "text": "c"}, {"type": "text", "text": "d"}]},
    ]


def test_contents_of_one_side_in_a_row_are_one_turn() -> None:
    assert talk(user({"text": "a"}), user({"text": "b"}), model({"text": "c"}), model({"text": "d"}, calls("f", "c1"))) == [
        {"role": "user", "content": "a"},
        {"role": "user", "content": "b"},
        {
            "role": "assistant",
            "content": "cd",
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
        },
    ]


def test_an_empty_model_turn_is_left_out() -> None:
    assert talk(user({"text": "a"}), model({"text": ""}), {"role": "model"}, user({"text": "b"})) == [
        {"role": "user", "content": "a"},
        {"role": "user", "content": "b"},
    ]


def test_thoughts_are_the_reasoning_of_their_turn() -> None:
    history = [user({"text": "a"}), model({"text": "hm", "thought": True}, {"text": "!", "thought": True}, {"text": "b"})]
    assert talk(*history)[1] == {"role": "assistant", "content": "b", "reasoning_content": "hm!"}
    assert talk(user({"text": "x", "thought": True})) == [{"role": "user", "content": "x"}]


@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_a_signature_of_ours_brings_the_reasoning_back(encode: Any) -> None:
    signed = {**calls("f", "c1"), "thought_signature": encode(b"sealed").decode()}
    (message,) = talk(model({"text": "seen", "thought": True}, signed))
    assert message["reasoning_content"] == "because"


def test_a_foreign_signature_does_not_hide_ours() -> None:
    ours = {**calls("f", "c1"), "thoughtSignature": base64.b64encode(b"sealed").decode()}
    assert talk(model(ours, {**calls("f", "c2"), "thoughtSignature": "AAAA"}))[0]["reasoning_content"] == "because"


@pytest.mark.parametrize("foreign", ["skip_thought_signature_validator", "", "!", "AAAA", base64.b64encode(b"\xff").decode(), 5])
def test_a_foreign_signature_is_ignored(foreign: object) -> None:
    (message,) = talk(model({**calls("f", "c1"), "thoughtSignature": foreign}))
    assert "reasoning_content" not in message
    assert talk(user({"text": "a"}), model({"text": "b"}, {"thoughtSignature": "AAAA"}))[1] == {
        "role": "assistant",
        "content": "b",
    }


def test_calls_with_ids_and_answers_in_any_order() -> None:
    history = [
        model(calls("f", "c1", city="Köln"), calls("f", "c2")),
        user({"text": "here:"}, answers_to("f", "c2", result="two"), answers_to("f", "c1", output="one")),
    ]
    assert talk(*history) == [
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"city":"Köln"}'}},
                {"id": "c2", "type": "function", "function": {"name": "f", "arguments": "{}"}},
            ],
        },
        {"role": "tool", "tool_call_id": "c2", "content": "two"},
        {"role": "tool", "tool_call_id": "c1", "content": "one"},
        {"role": "user", "content": "here:"},
    ]


def test_calls_without_ids_are_paired_by_name_and_order() -> None:
    history = [
        model(calls("f"), calls("g"), calls("f")),
        user(answers_to("f", a=1)),
        user(answers_to("f", a=2), answers_to("g", a=3)),
    ]
    first, *answered = talk(*history)
    ids = [call["id"] for call in first["tool_calls"]]
    assert len(set(ids)) == 3
    assert [(message["tool_call_id"], message["content"]) for message in answered] == [
        (ids[0], '{"a":1}'),
        (ids[2], '{"a":2}'),
        (ids[1], '{"a":3}'),
    ]


def test_made_ids_stay_the_same_as_the_conversation_grows() -> None:
    history = [user({"text": "a"}), model(calls("f")), user(answers_to("f", a=1))]
    longer = [*history, model(calls("f")), user(answers_to("f", a=2))]
    assert talk(*longer)[: len(talk(*history))] == talk(*history)


def test_an_answer_without_an_id_belongs_to_the_first_open_call_of_its_name() -> None:
    _, message = talk(model(calls("f", "c1")), user(answers_to("f", a=1)))
    assert message["tool_call_id"] == "c1"
    _, message = talk(model(calls("f")), user(answers_to("f", "their-own", a=1)))
    assert message["tool_call_id"].startswith("call_")


@pytest.mark.parametrize("role", ["function", "tool", "user", "USER"])
def test_answers_come_in_contents_of_several_roles(role: str) -> None:
    assert talk(model(calls("f", "c1")), {"role": role, "parts": [answers_to("f", "c1", a=1)]})[1]["role"] == "tool"


@pytest.mark.parametrize(
    ("response", "content"),
    [
        ({"result": "x"}, "x"),
        ({"output": "x"}, "x"),
        ({"result": 1}, '{"result":1}'),
        ({"result": "x", "more": 1}, '{"result":"x","more":1}'),
        ({"error": "x"}, '{"error":"x"}'),
        ({}, "{}"),
    ],
)
def test_what_a_tool_said(response: dict[str, Any], content: str) -> None:
    assert talk(model(calls("f", "c1")), user(answers_to("f", "c1", **response)))[1]["content"] == content


def test_images_of_a_tool_are_shown_after_the_answers() -> None:
    answer = answers_to("f", "c1", a=1)
    answer["functionResponse"]["parts"] = [{"inlineData": {"mimeType": "image/png", "data": PNG}}]
    request = ask(contents=[model(calls("f", "c1"), calls("g", "c2")), user(answer, answers_to("g", "c2", a=2))])
    assert [message["role"] for message in request.messages] == ["assistant", "tool", "tool", "user"]
    assert request.images == ("contents[1].parts[0].functionResponse.parts[0]",)


@pytest.mark.parametrize(
    ("contents", "param"),
    [
        ([{"role": "robot", "parts": [{"text": "x"}]}], "contents[0].role"),
        ([user({})], "contents[0].parts[0]"),
        ([user({"videoMetadata": {}})], "contents[0].parts[0]"),
        ([user({"text": 5})], "contents[0].parts[0].text"),
        ([user(5)], "contents[0].parts[0]"),
        ([user({"text": "a"}), {"parts": "x"}], "contents[1].parts"),
        ([user()], "contents"),
        ([user(answers_to("f"))], "contents[0].parts[0].functionResponse"),
        ([user(calls("f"))], "contents[0].parts[0].functionCall"),
        ([model(calls("f", "c1")), user(answers_to("g"))], "contents[1].parts[0].functionResponse"),
        ([model(calls("f", "c1")), user(answers_to("f", "c2"))], "contents[1].parts[0].functionResponse"),
        ([model(calls("f")), user(answers_to("f"), answers_to("f"))], "contents[1].parts[1].functionResponse"),
        ([model(calls("f")), user({"text": "never mind"})], "contents"),
        ([model(calls("f"), calls("g")), user(answers_to("f")), model({"text": "x"})], "contents"),
        ([model(calls("f", "c1"), calls("f", "c1"))], "contents[0].parts[1].functionCall.id"),
        ([model({"functionCall": {"args": {}}})], "contents[0].parts[0].functionCall.name"),
        ([model({"functionCall": {"name": "f", "args": []}})], "contents[0].parts[0].functionCall.args"),
        (
            [model(calls("f")), user({"functionResponse": {"name": "f", "response": "x"}})],
            "contents[1].parts[0].functionResponse.response",
        ),
        ([model({"inlineData": {"mimeType": "image/png", "data": PNG}})], "contents[0].parts[0]"),
        ({"role": "robot"}, "contents.role"),
    ],
)
def test_a_wrong_content_is_refused_by_its_path(contents: Any, param: str) -> None:
    assert refusal(contents=contents).param == param


def test_images_pass_as_data_urls_and_their_paths_are_kept() -> None:
    urlsafe = base64.urlsafe_b64encode(base64.b64decode(PNG)).decode().rstrip("=")
    for data in (PNG, urlsafe):
        request = ask(contents=[user({"text": "see"}, {"inlineData": {"mimeType": "IMAGE/PNG", "data": data}})])
        assert request.messages[0]["content"][1] == {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}
        assert request.images == ("contents[0].parts[1]",)
    parameter = {"inlineData": {"mimeType": "image/png; charset=binary", "data": PNG}}
    assert ask(contents=[user(parameter)]).messages[0]["content"][0]["image_url"]["url"].startswith("data:image/png;base64,")
    linked = {"fileData": {"fileUri": "https://example.com/a.png", "mimeType": "image/png"}}
    assert ask(contents=[user(linked)]).images == ("contents[0].parts[0]",)


def shown(part: dict[str, Any]) -> Any:
    return ask(contents=[user(part)]).messages[0]["content"]


def test_sound_and_text_files() -> None:
    for mime, form in (("audio/wav", "wav"), ("audio/mp3", "mp3"), ("audio/mpeg", "mp3")):
        part = shown({"inlineData": {"mimeType": mime, "data": "AAAA"}})
        assert part == [{"type": "input_audio", "input_audio": {"data": "AAAA", "format": form}}]
    text = base64.b64encode("größe".encode()).decode()
    assert shown({"inline_data": {"mime_type": "text/markdown; charset=utf-8", "data": text}}) == "größe"


def test_work_of_googles_tools_is_text_in_history() -> None:
    assert shown({"executableCode": {"language": "PYTHON", "code": "print(1)"}}) == "```python\nprint(1)\n```"
    assert shown({"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "1"}}) == "```\n1\n```"
    assert shown({"toolCall": {"name": "x"}}) == '{"name":"x"}'


@pytest.mark.parametrize(
    ("part", "kind", "param"),
    [
        ({"inlineData": {"mimeType": "image/png", "data": "@"}}, ErrorKind.INVALID_IMAGE, "inlineData.data"),
        ({"inlineData": {"mimeType": "image/bmp", "data": "AAAA"}}, ErrorKind.INVALID_IMAGE, "inlineData.data"),
        ({"inlineData": {"mimeType": "application/pdf", "data": "AAAA"}}, ErrorKind.UNSUPPORTED_PARAMETER, "inlineData.mimeType"),
        ({"inlineData": {"mimeType": "audio/wav", "data": "@"}}, ErrorKind.INVALID_REQUEST, "inlineData.data"),
        ({"inlineData": {"mimeType": "text/plain", "data": "/w=="}}, ErrorKind.INVALID_REQUEST, "inlineData.data"),
        ({"inlineData": {"mimeType": "image/png"}}, ErrorKind.INVALID_REQUEST, "inlineData.data"),
        ({"inlineData": 5}, ErrorKind.INVALID_REQUEST, "inlineData"),
        ({"fileData": {"fileUri": "gs://b/a.png", "mimeType": "image/png"}}, ErrorKind.UNSUPPORTED_PARAMETER, "fileData.fileUri"),
        ({"fileData": {"fileUri": "https://a/b", "mimeType": "video/mp4"}}, ErrorKind.UNSUPPORTED_PARAMETER, "fileData.fileUri"),
        ({"fileData": {}}, ErrorKind.INVALID_REQUEST, "fileData.fileUri"),
    ],
)
def test_data_that_cannot_be_shown_is_refused(part: dict[str, Any], kind: ErrorKind, param: str) -> None:
    error = refusal(contents=[user(part)])
    assert (error.kind, error.param) == (kind, f"contents[0].parts[0].{param}")


# Sections 8, 9 ----------------------------------------------------------------------------------------------------------


def test_one_text_to_embed() -> None:
    body = {"content": {"parts": [{"text": "a"}, {"text": "b"}]}, "taskType": "X", "output_dimensionality": 3}
    asked = parse_embed(inbound(body, "embedContent"))
    assert (asked.model, asked.inputs, asked.dimensions, asked.batch) == ("m", ("a\nb",), 3, False)
    assert orjson.loads(render_embed([[0.5, 1.0]], asked, 4)) == {
        "embedding": {"values": [0.5, 1.0]},
        "usageMetadata": {"promptTokenCount": 4, "totalTokenCount": 4},
    }


def test_a_batch_to_embed() -> None:
    requests = [{"model": "models/m", "content": {"parts": [{"text": word}]}} for word in ("a", "b")]
    asked = parse_embed(inbound({"requests": requests}, "batchEmbedContents"))
    assert (asked.inputs, asked.batch) == (("a", "b"), True)
    assert orjson.loads(render_embed([[1.0], [2.0]], asked, 2))["embeddings"] == [{"values": [1.0]}, {"values": [2.0]}]
    assert len(parse_embed(inbound({"requests": requests[:1] * 100}, "batchEmbedContents")).inputs) == 100


@pytest.mark.parametrize(
    ("method", "body", "param"),
    [
        ("embedContent", {}, "content"),
        ("embedContent", {"content": {"parts": []}}, "content"),
        ("embedContent", {"content": {"parts": [{"inlineData": {}}]}}, "content.parts[0].text"),
        ("embedContent", {"content": "a", "outputDimensionality": 0}, "outputDimensionality"),
        ("batchEmbedContents", {}, "requests"),
        ("batchEmbedContents", {"requests": []}, "requests"),
        ("batchEmbedContents", {"requests": [{"content": "a"}] * 101}, "requests"),
        ("batchEmbedContents", {"requests": [{"content": "a"}, {}]}, "requests[1].content"),
        ("batchEmbedContents", {"requests": [{"content": "a"}, {"content": "a", "outputDimensionality": 2}]}, "requests"),
    ],
)
def test_a_wrong_text_to_embed(method: str, body: dict[str, Any], param: str) -> None:
    with pytest.raises(GatewayError) as caught:
        parse_embed(inbound(body, method))
    assert caught.value.param == param


MODELS = [
    ModelInfo(f"m{i}", 1, "me", "ready", max_model_len=4096, max_output=100 if i else None, thinking=True) for i in range(120)
]


def test_a_model_in_geminis_shape() -> None:
    assert orjson.loads(render_model(MODELS[1], inbound({}))) == {
        "name": "models/m1",
        "baseModelId": "m1",
        "version": "1",
        "displayName": "m1",
        "description": "m1, served by me",
        "inputTokenLimit": 4096,
        "outputTokenLimit": 100,
        "supportedGenerationMethods": ["generateContent", "streamGenerateContent", "countTokens", "embedContent"],
        "thinking": True,
    }
    assert orjson.loads(render_model(MODELS[0], inbound({})))["outputTokenLimit"] == 4096


@pytest.mark.parametrize(
    ("query", "sizes"),
    [({}, [50, 50, 20]), ({"pageSize": "119"}, [119, 1]), ({"page_size": "120"}, [120]), ({"pageSize": "1000"}, [120])],
)
def test_the_list_comes_in_pages_until_no_token_is_left(query: dict[str, str], sizes: list[int]) -> None:
    seen: list[str] = []
    found = []
    token: dict[str, str] = {}
    while True:
        page = orjson.loads(render_models(MODELS, inbound({}, **query, **token)))
        found.append(len(page["models"]))
        seen += [model["name"] for model in page["models"]]
        if "nextPageToken" not in page:
            break
        token = {"pageToken": page["nextPageToken"]}
    assert (found, seen) == (sizes, [f"models/m{i}" for i in range(120)])


@pytest.mark.parametrize(
    "query", [{"pageSize": "0"}, {"pageSize": "1001"}, {"pageSize": "-1"}, {"pageSize": "x"}, {"pageToken": "gone"}]
)
def test_a_page_that_cannot_be(query: dict[str, str]) -> None:
    with pytest.raises(GatewayError) as caught:
        render_models(MODELS, inbound({}, **query))
    assert caught.value.param == next(iter(query))


# Whole bodies -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.json")), ids=lambda path: path.stem)
def test_recorded_bodies_are_taken_as_written_down(path: Path) -> None:
    case = orjson.loads(path.read_bytes())
    request = parse(inbound(case["body"], "streamGenerateContent"))
    seen = {name: getattr(request, name) for name in case["expect"]}
    assert (
        orjson.loads(orjson.dumps(seen, default=lambda value: {name: getattr(value, name) for name in value.__struct_fields__}))
        == case["expect"]
    )


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(
    [
        "text",
        "inlineData",
        "fileData",
        "functionCall",
        "functionResponse",
        "executableCode",
        "toolCall",
        "thoughtSignature",
        "thought",
    ]
)
INNER = st.dictionaries(
    st.sampled_from(["name", "id", "args", "response", "parts", "mimeType", "data", "fileUri", "code"]), JSON, max_size=3
)
CONTENTS = st.lists(
    st.fixed_dictionaries(
        {"parts": JSON | st.lists(st.dictionaries(KEYS, JSON | INNER, max_size=2), max_size=3)},
        optional={"role": st.sampled_from(["user", "model", "function"]) | JSON},
    ),
    max_size=3,
)
FIELDS = st.sampled_from(
    ["systemInstruction", "tools", "toolConfig", "generationConfig", "generateContentRequest", "cachedContent"]
)
SCHEMAS = st.recursive(
    st.fixed_dictionaries({}, optional={"type": JSON, "enum": JSON, "minItems": JSON, "nullable": JSON, "properties": JSON}),
    lambda inner: st.fixed_dictionaries(
        {}, optional={"items": inner, "anyOf": st.lists(inner), "properties": st.dictionaries(st.text(), inner)}
    ),
    max_leaves=4,
)


@given(st.dictionaries(FIELDS, JSON, max_size=3), CONTENTS | JSON, SCHEMAS, st.sampled_from(["generateContent", "countTokens"]))
def test_any_json_is_taken_or_refused(fields: dict[str, Any], contents: Any, parameters: Any, method: str) -> None:
    tools = [{"functionDeclarations": [{"name": "f", "parameters": parameters}]}]
    try:
        parse(inbound({"contents": contents, "tools": tools, **fields}, method))
    except GatewayError as error:
        assert error.status == 400  # noqa: PT017 - both outcomes are right


@given(JSON, st.sampled_from(["embedContent", "batchEmbedContents"]))
def test_any_json_to_embed_is_taken_or_refused(value: Any, method: str) -> None:
    for body in ({"content": value}, {"requests": value}, {"requests": [value]}, {"content": {"parts": value}}):
        try:
            parse_embed(inbound(body, method))
        except GatewayError as error:
            assert error.status == 400  # noqa: PT017 - both outcomes are right
