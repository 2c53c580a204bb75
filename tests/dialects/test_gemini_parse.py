"""gemini.md 1 to 3 and 7: paths, spellings, generation config, and recorded bodies."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.request import ReasoningWish
from ds2d.dialects.gemini import ROUTES, parse, parse_embed
from tests.dialects.gemini_questions import GOLDEN, HELLO, JSON, PNG, ask, config, config_refusal, inbound, refusal


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


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.json")), ids=lambda path: path.stem)
def test_recorded_bodies_are_taken_as_written_down(path: Path) -> None:
    case = orjson.loads(path.read_bytes())
    request = parse(inbound(case["body"], "streamGenerateContent"))
    seen = {name: getattr(request, name) for name in case["expect"]}
    assert (
        orjson.loads(orjson.dumps(seen, default=lambda value: {name: getattr(value, name) for name in value.__struct_fields__}))
        == case["expect"]
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
