"""anthropic-messages.md 5, 7, 8: whole answers, counts and errors; and the official types in their strict form."""

from __future__ import annotations

from typing import Any

import anthropic.types as sdk
import orjson
import pytest
from hypothesis import given

from ds2d.core.errors import MATRIX, ErrorKind, GatewayError
from ds2d.core.events import CallPart, Choice, Completion, Ending, Event, ReasoningPart, TextPart, Usage, fold
from ds2d.core.request import ChatRequest
from ds2d.dialects.claude import ROUTES, render, render_count, render_error
from ds2d.dialects.claude.reply import Reply
from tests.dialects.answers import answers, envelope

USAGE = Usage(100, 20, reasoning=5, cached=60)


def request(**reply: Any) -> ChatRequest:
    return ChatRequest("claude-x", [], params={"stop": ["END"]}, reply=Reply(**{"thinking": "shown", **reply}))


def whole(
    *parts: Any, ending: Ending | None = None, usage: Usage | None = USAGE, asked: ChatRequest | None = None
) -> dict[str, Any]:
    completion = Completion([Choice(list(parts), ending or Ending("stop"))], usage)
    return dict(orjson.loads(render(completion, envelope(asked or request(), prompt_tokens=lambda: 95))))


def error(kind: ErrorKind, message: str = "No.", **fields: Any) -> dict[str, Any]:
    return dict(orjson.loads(render_error(GatewayError(kind, message, **fields), "req_9")))


def test_a_whole_answer_has_every_key() -> None:
    assert whole(ReasoningPart("hm"), TextPart("Hi"), CallPart("toolu_1", "f", '{"a": 1}')) == {
        "id": "msg_000000000000000000000001",
        "type": "message",
        "role": "assistant",
        "model": "the-model",
        "content": [
            {"type": "thinking", "thinking": "hm", "signature": ""},
            {"type": "text", "text": "Hi"},
            {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"a": 1}},
        ],
        "stop_reason": "tool_use",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 40,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 60,
            "output_tokens": 20,
            "output_tokens_details": {"thinking_tokens": 5},
            "service_tier": "standard",
            "server_tool_use": None,
            "cache_creation": None,
        },
    }


def test_an_empty_answer_has_no_content() -> None:
    assert whole()["content"] == []
    assert orjson.loads(render(Completion(), envelope(request())))["content"] == []


def test_a_failed_answer_is_its_failure() -> None:
    failure = GatewayError(ErrorKind.UPSTREAM_ERROR, "It broke.")
    with pytest.raises(GatewayError) as caught:
        render(Completion(failure=failure), envelope(request()))
    assert caught.value is failure


@pytest.mark.parametrize(("arguments", "given_input"), [("", {}), ("{}", {}), ('{"a":[1', {"a": [1]})])
def test_arguments_become_an_object(arguments: str, given_input: dict[str, Any]) -> None:
    assert whole(CallPart("c", "f", arguments))["content"][0]["input"] == given_input


@pytest.mark.parametrize("arguments", ["[1]", "null", '{"a":tru', "words"])
def test_arguments_that_cannot_are_a_fault_of_the_upstream(arguments: str) -> None:
    with pytest.raises(GatewayError) as caught:
        whole(CallPart("c", "f", arguments))
    assert (caught.value.kind, caught.value.status, caught.value.row.openai_code) == (
        ErrorKind.MALFORMED_CALL,
        503,
        "upstream_error",
    )


@pytest.mark.parametrize("reason", ["length", "content_filter"])
def test_a_call_that_a_limit_cut_is_dropped(reason: Any) -> None:
    answer = whole(TextPart("a"), CallPart("c", "f", '{"a":"unfin'), ending=Ending(reason))
    assert [block["type"] for block in answer["content"]] == ["text"]
    assert answer["stop_reason"] == {"length": "max_tokens", "content_filter": "refusal"}[reason]


@pytest.mark.parametrize("arguments", ['{"a":1', '{"a":tru'])
def test_a_call_without_an_end_was_cut_whatever_follows(arguments: str) -> None:
    answer = whole(CallPart("c", "f", arguments), ReasoningPart("b"), ending=Ending("length"))
    assert ([block["type"] for block in answer["content"]], answer["stop_reason"]) == (["thinking"], "max_tokens")


def test_a_call_that_ended_before_others_was_not_cut() -> None:
    with pytest.raises(GatewayError):
        whole(CallPart("c", "f", '{"a":tru', ended=True), TextPart("b"), ending=Ending("length"))


def test_names_come_back_as_the_client_wrote_them() -> None:
    assert whole(CallPart("c", "short", "{}"), asked=request(names={"short": "long"}))["content"][0]["name"] == "long"


def test_without_usage_the_counted_prompt_stands() -> None:
    assert whole(TextPart("a"), usage=None)["usage"]["input_tokens"] == 95


def test_the_three_input_counts_sum_up_to_the_prompt() -> None:
    usage = whole(TextPart("a"), usage=Usage(100, 1, cached=60, cache_write=30))["usage"]
    assert [usage[f"{name}input_tokens"] for name in ("", "cache_read_", "cache_creation_")] == [10, 60, 30]


@given(answers(choices=1))
def test_any_whole_answer_passes_the_official_types(batches: list[list[Event]]) -> None:
    body = render(fold([event for batch in batches for event in batch]), envelope(request()))
    sdk.Message.model_validate_json(body, strict=True)


def test_a_count_is_at_least_one() -> None:
    assert orjson.loads(render_count(12)) == {"input_tokens": 12}
    assert orjson.loads(render_count(0)) == {"input_tokens": 1}
    sdk.MessageTokensCount.model_validate_json(render_count(12), strict=True)


# Errors ----------------------------------------------------------------------------------------------------------------


def test_an_error_is_anthropics_envelope_with_the_references_keys_inside() -> None:
    assert error(ErrorKind.INVALID_REQUEST, "model: field required.", param="model") == {
        "type": "error",
        "error": {
            "type": "invalid_request_error",
            "message": "model: field required.",
            "code": "invalid_request",
            "param": "model",
        },
        "request_id": "req_9",
    }


@pytest.mark.parametrize("kind", list(ErrorKind))
def test_every_kind_has_its_word_from_the_matrix(kind: ErrorKind) -> None:
    assert error(kind)["error"]["type"] == MATRIX[kind].anthropic


def test_a_timeout_told_as_504_has_its_own_word() -> None:
    assert error(ErrorKind.UPSTREAM_TIMEOUT)["error"]["type"] == "api_error"
    assert error(ErrorKind.UPSTREAM_TIMEOUT, status=504)["error"]["type"] == "timeout_error"


def test_details_ride_inside_the_error() -> None:
    details: dict[str, object] = {"error_code": "thread_unsupported_request", "unsupported": ["thread"]}
    assert error(ErrorKind.THREAD_UNSUPPORTED, details=details)["error"]["details"] == details


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ((210_000, 1000, 200_000), "prompt is too long: 210000 tokens > 200000 maximum"),
        ((200_000, 1000, 200_000), "prompt is too long: 200000 tokens > 200000 maximum"),
        ((210_000, None, 200_000), "prompt is too long: 210000 tokens > 200000 maximum"),
        (
            (190_000, 32_000, 200_000),
            "input length and `max_tokens` exceed context limit: 190000 + 32000 > 200000, "
            "decrease input length or `max_tokens` and try again",
        ),
        ((None, 1000, 200_000), "prompt is too long: No."),
        (None, "prompt is too long: No."),
    ],
)
def test_over_long_input_is_said_in_the_words_that_claude_code_parses(limits: Any, message: str) -> None:
    assert error(ErrorKind.CONTEXT_LENGTH, limits=limits)["error"]["message"] == message


# Routes ----------------------------------------------------------------------------------------------------------------


def test_the_routes_are_those_of_the_contract() -> None:
    found = {(route.method, route.path, route.action) for route in ROUTES}
    bases = ["/anthropic/v1/messages", "/v1/messages", "/messages"]
    assert found == {
        *(("POST", base, "generate") for base in bases),
        *(("POST", f"{base}/count_tokens", "count") for base in bases),
        ("GET", "/anthropic/v1/models", "models"),
        ("GET", "/anthropic/v1/models/{id:.+}", "model"),
    }


@pytest.mark.parametrize("arguments", ['{"id":123456789012345678901234567890}', '{ "a": 1.10, "b": [-18446744073709551616]}'])
def test_numbers_in_arguments_are_the_models_own(arguments: str) -> None:
    body = render(Completion([Choice([CallPart("toolu_1", "f", arguments)], Ending("tool_calls"))], USAGE), envelope(request()))
    assert b'"input":' + arguments.encode() in body


def test_whole_arguments_whose_end_is_missing_are_closed() -> None:
    assert whole(CallPart("toolu_1", "f", ""))["content"][0]["input"] == {}
    assert whole(CallPart("toolu_1", "f", '{"a": ["x'))["content"][0]["input"] == {"a": ["x"]}
