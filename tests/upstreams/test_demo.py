"""The embedded upstream: deterministic, whole on the wire of any server, and honest about what it is."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds2d.core.calls import Script
from ds2d.core.events import Completion, Event, Finish, fold
from ds2d.core.models import Target
from ds2d.core.request import ChatRequest, ToolChoice
from ds2d.core.settings import ModelSpec, UpstreamSpec
from ds2d.upstreams import REGISTRY
from ds2d.upstreams.demo import _pieces
from ds2d.upstreams.demo.example import MAX_NODES, example_of
from tests.golden.streams import drain
from tests.property.rules import assert_rules
from tests.upstreams.asking import NAMED, OFF, ON, REQUIRED, ask, finished, tool

WEATHER = tool("get_weather", parameters={"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]})


def target(model: str = "deepseek-chat", pace_ms: int = 0, **spec: Any) -> Target:
    return Target(UpstreamSpec(name="demo", kind="demo", pace_ms=pace_ms), model, ModelSpec(**spec))


def script(request: ChatRequest, at: Target | None = None) -> Script:
    made = finished(REGISTRY["demo"].prepare(request, at or target(), None))
    assert isinstance(made, Script)
    return made


def events(request: ChatRequest, at: Target | None = None) -> list[Event]:
    decoder = REGISTRY["demo"].Decoder(request, at or target())
    found = drain(decoder, [piece for _, piece in script(request, at).pieces], request.stream)
    assert_rules(found)
    return found


def answer(request: ChatRequest, at: Target | None = None) -> Completion:
    """The folded answer, which must be the same streamed and whole."""
    completions = []
    for stream in (True, False):
        request.stream = stream
        completions.append(fold(events(request, at)))
    streamed, whole = completions
    assert streamed.usage == whole.usage
    assert [(c.text, c.reasoning, c.calls, c.ending) for c in streamed.choices] == [
        (c.text, c.reasoning, c.calls, c.ending) for c in whole.choices
    ]
    return whole


def user(text: str, **fields: Any) -> ChatRequest:
    return ask([{"role": "user", "content": text}], **fields)


def test_it_says_that_it_is_a_demo_and_how_to_get_a_real_answer() -> None:
    text = answer(user("Grüße 你好")).choices[0].text
    assert "demo" in text
    assert "base_url" in text
    assert "Grüße 你好" in text


def test_the_same_question_gets_the_same_bytes() -> None:
    one, other = (b"".join(piece for _, piece in script(user("Hi", stream=True)).pieces) for _ in range(2))
    assert one == other


@pytest.mark.parametrize(
    ("model", "entry", "wish", "thinks"),
    [
        ("deepseek-reasoner", "switch", None, True),
        ("deepseek-chat", "switch", None, False),
        ("deepseek-chat", "switch", ON, True),
        ("deepseek-reasoner", "switch", OFF, False),
        ("deepseek-chat", "on", OFF, True),
        ("deepseek-reasoner", "off", ON, False),
    ],
)
def test_reasoner_models_reason(model: str, entry: str, wish: Any, thinks: bool) -> None:
    choice = answer(user("Hi", **({"reasoning": wish} if wish else {})), target(model, thinking=entry))
    assert bool(choice.choices[0].reasoning) is thinks
    assert choice.usage is not None
    assert bool(choice.usage.reasoning) is thinks


@pytest.mark.parametrize(
    ("text", "fields", "called"),
    [
        ("What is the weather in Paris?", {}, ["get_weather"]),
        ("use get_weather now", {}, ["get_weather"]),
        ("Tell me a joke", {}, []),
        ("Tell me a joke", {"tool_choice": REQUIRED}, ["get_weather"]),
        ("weather", {"tool_choice": ToolChoice("none")}, []),
        ("weather and send_mail", {}, ["get_weather", "send_mail"]),
        ("weather and send_mail", {"parallel_tool_calls": False}, ["get_weather"]),
        ("weather", {"tool_choice": ToolChoice("required", ("send_mail",), named=True)}, ["send_mail"]),
    ],
)
def test_a_tool_is_called_when_it_is_offered_and_asked_for(text: str, fields: dict[str, Any], called: list[str]) -> None:
    choice = answer(user(text, tools=[WEATHER, tool("send_mail")], **fields)).choices[0]
    assert [call.name for call in choice.calls] == called
    assert choice.ending is not None
    assert choice.ending.reason == ("tool_calls" if called else "stop")
    if called == ["get_weather"]:
        assert isinstance(orjson.loads(choice.calls[0].arguments)["city"], str)


def test_a_tool_s_result_is_answered_with_text() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": ""}}
    messages = [
        {"role": "user", "content": "weather?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "21 degrees weather"},
    ]
    choice = answer(ask(messages, tools=[WEATHER])).choices[0]
    assert not choice.calls
    assert "21 degrees" in choice.text
    assert answer(ask(messages, tools=[tool("f")], tool_choice=NAMED)).choices[0].calls[0].name == "f"


def test_the_token_limit_ends_it_with_length() -> None:
    completion = answer(user("Hi", max_tokens=3))
    assert completion.choices[0].ending is not None
    assert completion.choices[0].ending.reason == "length"
    assert completion.usage is not None
    assert completion.usage.completion == 3
    cut = answer(user("weather", tools=[WEATHER], max_tokens=1)).choices[0]
    assert cut.calls[0].arguments == '{"city":'


@pytest.mark.parametrize("stop", ["model", ["zzz", "model", "is the demo"]])
def test_a_stop_string_ends_it_before_itself(stop: Any) -> None:
    choice = answer(user("Hi", params={"stop": stop})).choices[0]
    assert choice.ending is not None
    assert choice.ending.stop == ("model" if stop == "model" else "is the demo")
    assert choice.ending.stop not in choice.text


def test_several_answers_differ_and_usage_counts_them_all() -> None:
    completion = answer(user("Hi", params={"n": 3}))
    texts = {choice.text for choice in completion.choices}
    assert len(texts) == 3
    assert completion.usage is not None
    assert completion.usage.completion == sum(len(_pieces(text)) for text in texts)


def test_json_is_answered_as_json_that_fits() -> None:
    schema = {"type": "object", "properties": {"age": {"type": "integer", "minimum": 30}}, "required": ["age"]}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    assert orjson.loads(answer(user("Hi", response_format=form)).choices[0].text) == {"age": 30}
    assert orjson.loads(answer(user("Hi", response_format={"type": "json_object"})).choices[0].text)["demo"] is True


def test_legacy_completions_number_by_prompt_first_and_echo() -> None:
    request = ask([], prompt=["one", "two"], params={"n": 2, "echo": True}, max_tokens=2)
    texts = [choice.text for choice in answer(request).choices]
    assert [text[:3] for text in texts] == ["one", "one", "two", "two"]
    assert answer(ask([], prompt=[1, 2, 3], max_tokens=2)).choices[0].text


def test_it_is_paced_like_a_model_if_asked() -> None:
    streamed = list(script(user("Hi", stream=True, max_tokens=5), target(pace_ms=20)).pieces)
    assert sum(wait for wait, _ in streamed) == pytest.approx(0.1)
    assert max(wait for wait, _ in streamed) == pytest.approx(0.02)
    (whole,) = script(user("Hi", max_tokens=5), target(pace_ms=20)).pieces
    assert whole[0] == pytest.approx(0.1)
    assert not any(wait for wait, _ in script(user("Hi", stream=True)).pieces)


@given(st.text())
def test_words_and_blanks_are_all_of_a_text(text: str) -> None:
    assert "".join(_pieces(text)) == text


@given(st.text(max_size=30), st.integers(1, 3), st.integers(0, 80) | st.none(), st.booleans())
def test_any_question_keeps_the_rules(text: str, n: int, limit: int | None, tools: bool) -> None:
    found = events(user(text, params={"n": n}, max_tokens=limit, tools=[WEATHER] if tools else [], stream=True))
    assert isinstance(found[-1], Finish)
    assert len(found[-1].endings) == n


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "object", "properties": {"a": {"type": "string"}, "b": {}}, "required": ["a"]}, {"a": "demo"}),
        ({"properties": {"a": {"type": "boolean"}}}, {"a": True}),
        ({"type": "string", "enum": ["x", "y"]}, "x"),
        ({"const": 7}, 7),
        ({"type": "integer", "default": 9}, 9),
        ({"type": ["null", "string"]}, None),
        ({"type": "number", "minimum": 2.5}, 2.5),
        ({"type": "integer", "exclusiveMinimum": 4}, 5),
        ({"type": "integer", "maximum": -2}, -2),
        ({"type": "integer", "exclusiveMaximum": 0}, -1),
        ({"type": "string", "minLength": 6}, "demooo"),
        ({"type": "string", "maxLength": 2}, "de"),
        ({"type": "string", "format": "date"}, "2026-01-01"),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 2}, [1, 1]),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, 1),
        ({"oneOf": [{"type": "boolean"}]}, True),
        ({"allOf": [{"properties": {"a": {"type": "integer"}}}, {"properties": {"b": {"const": 2}}}]}, {"a": 1, "b": 2}),
        ({"properties": {"a": {"$ref": "#/$defs/x"}}, "$defs": {"x": {"type": "integer"}}}, {"a": 1}),
        ({"$ref": "#/nowhere"}, {}),
        (None, {}),
    ],
)
def test_arguments_satisfy_the_usual_keywords(schema: Any, value: Any) -> None:
    assert example_of(schema) == value


def count(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + sum(count(one) for one in inner)


MANY = {str(i): {"$ref": "#"} for i in range(50)}


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array", "minItems": 10**9, "items": {"type": "array", "minItems": 10**9}},
        {"type": "object", "properties": MANY},
        {"$ref": "#"},
        {"allOf": [{"$ref": "#"}, {"$ref": "#"}]},
        {"type": "string", "minLength": 10**9},
    ],
)
def test_a_schema_that_asks_for_too_much_gets_a_bounded_answer(schema: Any) -> None:
    made = example_of(schema)
    assert count(made) <= 60 * MAX_NODES
    assert len(orjson.dumps(made)) < 10**6


KEYWORDS = ("type", "properties", "required", "items", "enum", "anyOf", "allOf", "$ref", "minItems", "minLength", "minimum", "a")
words = st.sampled_from(["object", "array", "string", "integer"])
nonsense = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=3) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYWORDS), inner, max_size=4),
    max_leaves=12,
)


@given(nonsense)
def test_a_nonsense_schema_is_no_accident(schema: Any) -> None:
    count(example_of(schema))
