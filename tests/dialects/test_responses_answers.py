"""Answers of the Responses dialect, streamed and whole: the cases of openai-responses.md 10, and failures (section 5)."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from ds2d.core.errors import MATRIX, ErrorKind, GatewayError
from ds2d.core.events import (
    Completion,
    Ending,
    Event,
    Failure,
    Finish,
    Reasoning,
    Text,
    ToolArgs,
    ToolEnd,
    ToolStart,
    Usage,
    fold,
)
from ds2d.core.request import Inbound
from ds2d.dialects import openai_responses
from ds2d.dialects.openai_responses.custom import MAX_DOUBT, InputReader
from tests.dialects.responses_kit import check, envelope, frames, stream, validate_event, validate_response

F = {"type": "function", "name": "f"}
PATCH = {"type": "custom", "name": "patch"}
STOP = Finish((Ending("stop"),), Usage(3, 5, 2, 1))
CALLED = Finish((Ending("tool_calls"),), Usage(3, 5))
BROKEN = Failure(GatewayError(ErrorKind.UPSTREAM_DISCONNECTED, "The upstream broke off."))


def call(index: int, name: str = "f", *pieces: str, end: bool = True) -> list[Event]:
    ends: list[Event] = [ToolEnd(index)] if end else []
    return [ToolStart(index, f"call_{index}", name), *(ToolArgs(index, piece) for piece in pieces), *ends]


def output(events: list[Event], **body: Any) -> list[dict[str, Any]]:
    """The items of the stream; the whole answer has the same."""
    items: list[dict[str, Any]] = check(stream(events, body)).response["output"]
    whole = orjson.loads(openai_responses.render(fold(events), envelope(body)))
    assert whole["output"] == items
    validate_response(whole)
    return items


def test_plain_text_is_the_message_sequence() -> None:
    checked = check(stream([Text("Hel"), Text("lo"), STOP]))
    assert checked.types() == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert all(event["logprobs"] == [] for event in checked.of("output_text.delta"))


def test_the_response_object_has_every_key() -> None:
    response = check(stream([Text("x"), STOP], {"metadata": {"a": "b"}, "instructions": "Be brief."})).response
    assert response.pop("output")[0]["content"][0]["text"] == "x"
    assert response == {
        "id": "resp_000000000000000000000001",
        "object": "response",
        "created_at": 1_700_000_000,
        "completed_at": 1_700_000_009,
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "instructions": "Be brief.",
        "max_output_tokens": None,
        "max_tool_calls": None,
        "model": "m",
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
        "usage": {
            "input_tokens": 3,
            "input_tokens_details": {"cached_tokens": 1, "cache_write_tokens": 0},
            "output_tokens": 5,
            "output_tokens_details": {"reasoning_tokens": 2},
            "total_tokens": 8,
        },
        "user": None,
        "safety_identifier": None,
        "prompt_cache_key": None,
        "service_tier": "default",
        "metadata": {"a": "b"},
    }


def test_a_call_without_text_has_no_message_at_all() -> None:
    assert [item["type"] for item in output([*call(0, "f", "{}"), CALLED], tools=[F])] == ["function_call"]


def test_text_then_call_are_done_in_order() -> None:
    checked = check(stream([Text("I look."), *call(0, "f", '{"a":', "1}"), CALLED], {"tools": [F]}))
    done = checked.of("output_item.done")
    assert [(event["output_index"], event["item"]["type"]) for event in done] == [(0, "message"), (1, "function_call")]
    assert done[1]["item"]["arguments"] == '{"a":1}'


def test_two_calls_are_two_items_with_their_own_ids() -> None:
    items = output([*call(0, "f", "{}"), *call(1, "f", "{}"), CALLED], tools=[F])
    assert [item["call_id"] for item in items] == ["call_0", "call_1"]
    assert len({item["id"] for item in items}) == 2


def test_reasoning_is_one_item_before_the_call() -> None:
    checked = check(stream([Reasoning("a"), Reasoning("b"), *call(0, "f"), CALLED], {"tools": [F]}))
    first, second = checked.response["output"]
    assert first["summary"] == [{"type": "summary_text", "text": "ab"}]
    assert "content" not in first
    assert "encrypted_content" not in first
    assert second["type"] == "function_call"
    deltas = checked.of("reasoning_summary_text.delta")
    assert {event["item_id"] for event in deltas} == {first["id"]}


def test_reasoning_as_text() -> None:
    data = stream([Reasoning("ab"), Text("c"), STOP], settings={"responses.reasoning_events": "text"})
    item = check(data).response["output"][0]
    assert (item["summary"], item["content"]) == ([], [{"type": "reasoning_text", "text": "ab"}])


def test_reasoning_unseen_is_remembered() -> None:
    made = envelope({}, settings={"responses.reasoning_events": "off"})
    encoder = openai_responses.Encoder(made)
    data = encoder.feed([Reasoning("secret"), Text("c"), STOP])
    assert b"secret" not in data
    assert [item["type"] for item in check(data).response["output"]] == ["message"]
    assert encoder.final is not None
    assert orjson.loads(encoder.final.memory[0])["summary"][0]["text"] == "secret"
    assert len(encoder.final.memory) == 2


@pytest.mark.parametrize("mode", ["summary", "text", "off"])
def test_reasoning_travels_sealed_where_it_was_asked_for(mode: str) -> None:
    body = {"include": ["reasoning.encrypted_content"], "store": False}
    data = stream(
        [Reasoning("ab"), *call(0), CALLED], body, settings={"responses.reasoning_events": mode}, seal=lambda text: f"<{text}>"
    )
    items = check(data).response["output"]
    assert [item["type"] for item in items] == ["reasoning", "function_call"]
    assert items[0]["encrypted_content"] == "<ab>"
    back = [{"role": "user", "content": "hi"}, *items, {"type": "function_call_output", "call_id": "call_0", "output": "x"}]
    request = openai_responses.parse(Inbound({"model": "m", "input": back}, unseal={"<ab>": "ab"}.get))
    assert request.messages[1]["reasoning_content"] == "ab"


def test_refusals() -> None:
    checked = check(stream([Text("I "), Text("cannot.", refusal=True), STOP]))
    (item,) = checked.response["output"]
    assert [part["type"] for part in item["content"]] == ["output_text", "refusal"]
    assert checked.of("refusal.done")[0]["refusal"] == "cannot."


@pytest.mark.parametrize(("reason", "detail"), [("length", "max_output_tokens"), ("content_filter", "content_filter")])
def test_what_was_cut_is_incomplete(reason: Any, detail: str) -> None:
    for events in ([Text("ab")], [Reasoning("ab")], [*call(0, "f", '{"a', end=False)], []):
        ending = Finish((Ending(reason),), Usage(1, 1))
        made = check(stream([*events, ending])).response
        assert (made["status"], made["incomplete_details"]) == ("incomplete", {"reason": detail})
        assert made["output"][-1]["status"] == "incomplete"
        whole = orjson.loads(openai_responses.render(fold([*events, ending]), envelope({})))
        assert whole == made


def test_only_the_open_item_is_incomplete() -> None:
    items = output([Text("a"), *call(0, "f", "{}"), Finish((Ending("length"),), None)])
    assert [item["status"] for item in items] == ["completed", "completed"]


def test_a_call_with_broken_arguments_is_marked() -> None:
    items = output([ToolStart(0, "call_0", "f"), ToolArgs(0, "{"), ToolEnd(0, broken=True), CALLED])
    assert items[0]["status"] == "incomplete"


def test_an_answer_of_nothing_is_an_empty_message() -> None:
    (item,) = output([STOP])
    assert item["content"] == [{"type": "output_text", "text": "", "annotations": [], "logprobs": []}]
    empty = orjson.loads(openai_responses.render(Completion(), envelope({})))
    assert empty["output"][0]["content"][0]["text"] == ""


def test_usage_is_never_missing() -> None:
    ending = Finish((Ending("stop"),))
    assert check(stream([Text("x"), ending])).response["usage"]["total_tokens"] == 0
    counted = envelope({}, usage=lambda: Usage(1, 2))
    assert check(openai_responses.Encoder(counted).feed([ending])).response["usage"]["total_tokens"] == 3


# Tools that are no functions -----------------------------------------------------------------------------------------

RAW = 'line one\n\t"quoted" \\d C:\\new \\u0041 é 😀\n*** End'


def test_a_custom_call_gives_the_raw_text_as_it_comes() -> None:
    arguments = orjson.dumps({"input": RAW}).decode()
    pieces = [arguments[at : at + 3] for at in range(0, len(arguments), 3)]
    checked = check(stream([*call(0, "patch", *pieces), CALLED], {"tools": [PATCH]}))
    (item,) = checked.response["output"]
    assert (item["type"], item["name"], item["input"]) == ("custom_tool_call", "patch", RAW)
    assert len(checked.of("custom_tool_call_input.delta")) > 10
    back = [item, {"type": "custom_tool_call_output", "call_id": "call_0", "output": "ok"}]
    request = openai_responses.parse(Inbound({"model": "m", "input": back, "tools": [PATCH]}))
    sent = request.messages[0]["tool_calls"][0]["function"]["arguments"]
    assert orjson.loads(sent) == {"input": RAW}


@pytest.mark.parametrize(
    ("arguments", "raw"),
    [
        ("*** Begin Patch\nbare text", "*** Begin Patch\nbare text"),
        ('"a string"', "a string"),
        ('{"reason": "x", "input": "y"}', "y"),
        ('{"input": "y", "reason": "x"}', "y"),
        ('{"patch": "y"}', '{"patch": "y"}'),
        ('{"input": 5}', '{"input": 5}'),
        ('{"input": "say "hi" now"}', 'say "hi" now'),
        ('{"input": "\\d and \\u12"}', "\\d and \\u12"),
        ('{"input": "real\nnewline"}', "real\nnewline"),
        ('{"input": "half \\ud83d pair"}', "half \ufffd pair"),
        ('{"input": "cut', "cut"),
        ('{"input": "cut\\', "cut\\"),
        ('{"inp', '{"inp'),
        ("", ""),
        (" " * 5000 + '{"input": "late"}', "late"),
    ],
)
def test_custom_input_of_models_that_do_it_their_way(arguments: str, raw: str) -> None:
    (item,) = output([*call(0, "patch", *([arguments] if arguments else [])), CALLED], tools=[PATCH])
    assert item["input"] == raw


@pytest.mark.parametrize("text", ["x", " ", "{", '{"input": "x', '{"input": "\\', '{"input": "a" '])
def test_only_a_little_raw_input_is_held_in_doubt_so_reading_is_linear(text: str) -> None:
    reader = InputReader()
    for piece in (text, *[text[-1] * 10] * 1000):
        reader.feed(piece)
        assert len(reader._held) <= MAX_DOUBT + 10


def test_a_namespace_is_put_back() -> None:
    tools = [{"type": "namespace", "name": "s", "description": "d", "tools": [F, {"type": "custom", "name": "c"}]}]
    items = output([*call(0, "s__f", "{}"), *call(1, "s__c", '{"input": "x"}'), CALLED], tools=tools)
    assert [(item["type"], item["namespace"], item["name"]) for item in items] == [
        ("function_call", "s", "f"),
        ("custom_tool_call", "s", "c"),
    ]


@pytest.mark.parametrize(
    ("tool", "arguments", "item"),
    [
        (
            "local_shell",
            '{"command": ["ls"]}',
            {"type": "local_shell_call", "action": {"type": "exec", "command": ["ls"], "env": {}}},
        ),
        ("shell", '{"commands": ["ls"], "timeout_ms": 5}', {"type": "shell_call"}),
        (
            "apply_patch",
            '{"type": "create_file", "path": "a", "diff": "+x"}',
            {"type": "apply_patch_call", "operation": {"type": "create_file", "path": "a", "diff": "+x"}},
        ),
        ("shell", '{"command": "ls"}', {"type": "function_call", "name": "shell", "arguments": '{"command": "ls"}'}),
        ("shell", "", {"type": "function_call", "arguments": ""}),
        ("local_shell", "[]", {"type": "function_call", "arguments": "[]"}),
        ("apply_patch", '{"type": "rename", "path": "a"}', {"type": "function_call"}),
    ],
)
def test_emulated_shells_answer_in_their_own_type(tool: str, arguments: str, item: dict[str, Any]) -> None:
    (made,) = output([*call(0, tool, *([arguments] if arguments else [])), CALLED], tools=[{"type": tool}])
    assert made["call_id"] == "call_0"
    assert item.items() <= made.items()


# Log probabilities ---------------------------------------------------------------------------------------------------


def scored(text: str, **more: Any) -> Text:
    entry = {"token": text, "logprob": -0.5, "bytes": None, "top_logprobs": [{"token": text, "logprob": -0.5, "bytes": [1]}]}
    return Text(text, extra={"logprobs": {"content": [entry | more]}})


def test_log_probabilities_go_with_their_text_and_into_the_item() -> None:
    checked = check(stream([Text("a"), scored("b"), scored("c"), STOP], {"top_logprobs": 1}))
    expected = [
        {"token": t, "logprob": -0.5, "bytes": [], "top_logprobs": [{"token": t, "logprob": -0.5, "bytes": [1]}]} for t in "bc"
    ]
    assert [event["logprobs"] for event in checked.of("output_text.delta")] == [[], expected[:1], expected[1:]]
    assert checked.response["output"][0]["content"][0]["logprobs"] == expected
    whole = orjson.loads(openai_responses.render(fold([scored("b"), scored("c"), STOP]), envelope({"top_logprobs": 1})))
    assert whole["output"][0]["content"][0]["logprobs"] == expected


def test_log_probabilities_nobody_asked_for_are_left_out() -> None:
    assert check(stream([Text("a"), scored("b"), STOP])).response["output"][0]["content"][0]["logprobs"] == []


# Failures ------------------------------------------------------------------------------------------------------------


def test_a_break_after_three_deltas_keeps_the_partial_item() -> None:
    made = envelope({})
    encoder = openai_responses.Encoder(made)
    response = check(encoder.feed([Text("a"), Text("b"), Text("c"), BROKEN])).response
    assert response["status"] == "failed"
    assert response["error"] == {"code": "server_error", "message": "The upstream broke off."}
    assert response["output"][0]["content"][0]["text"] == "abc"
    assert response["output"][0]["status"] == "incomplete"
    assert made.request.reply.answer is encoder.final


def test_a_break_inside_a_call_closes_it() -> None:
    response = check(stream([*call(0, "f", '{"a', end=False), BROKEN])).response
    assert (response["output"][0]["arguments"], response["output"][0]["status"]) == ('{"a', "incomplete")


def test_a_failure_before_the_response_is_an_error_event_in_both_forms() -> None:
    made = envelope({})
    encoder = openai_responses.Encoder(made)
    data = encoder.feed([Failure(GatewayError(ErrorKind.UPSTREAM_REJECTED, "Bad prompt.", param="input"))])
    ((name, event),) = frames(data)
    assert name == event["type"] == "error"
    inner = {"message": "Bad prompt.", "code": "invalid_request", "param": "input"}
    assert event == {"type": "error", "sequence_number": 0, **inner, "error": inner | {"type": "invalid_request_error"}}
    validate_event(event)
    assert encoder.final is None
    assert made.request.reply.answer is None


def test_a_tool_choice_violation_is_always_response_failed() -> None:
    violation = Failure(GatewayError(ErrorKind.TOOL_CHOICE_VIOLATION, "No call was made."))
    for events in ([violation], [Text("no"), violation]):
        checked = check(stream(events))
        assert checked.types()[-1] == "failed"
        assert "tool_choice_violation" in checked.response["error"]["message"]


def test_cancelled_is_failed_without_an_error() -> None:
    response = check(stream([Text("a"), Failure(GatewayError(ErrorKind.CANCELLED, "Cancelled."))])).response
    assert (response["status"], response["error"]) == ("cancelled", None)


@pytest.mark.parametrize("kind", [kind for kind in MATRIX if kind is not ErrorKind.CANCELLED])
def test_codes_that_end_codex_are_used_for_their_causes_only(kind: ErrorKind) -> None:
    error = GatewayError(kind, "It broke.", retry_after=19.2)
    made = check(stream([Text("a"), Failure(error)])).response["error"]
    final = {
        ErrorKind.CONTEXT_LENGTH: "context_length_exceeded",
        ErrorKind.QUOTA_EXHAUSTED: "insufficient_quota",
    }
    if kind in final:
        assert made["code"] == final[kind]
    elif error.status == 429:
        assert made == {"code": "rate_limit_exceeded", "message": "It broke. Please try again in 20s."}
    elif error.status >= 500:
        assert made["code"] == "server_error"
    else:
        assert made["code"] in ("invalid_prompt", "invalid_image", "server_error")


@pytest.mark.parametrize(
    "message",
    ["Too many.", "Too many. Try again in 60 s.", "Too many. Please try again in 59.2s.", "Too many. Please try again in 60s"],
)
def test_when_to_try_again_is_said_once(message: str) -> None:
    error = GatewayError(ErrorKind.RATE_LIMITED, message, retry_after=59.2)
    made = check(stream([Text("a"), Failure(error)])).response["error"]
    assert made["message"] == "Too many. Please try again in 60s."


def test_a_failed_whole_answer_is_an_exception() -> None:
    with pytest.raises(GatewayError) as caught:
        openai_responses.render(fold([Text("a"), BROKEN]), envelope({}))
    assert caught.value is BROKEN.error


def test_error_bodies() -> None:
    error = GatewayError(ErrorKind.TOOL_CHOICE_VIOLATION, "No call was made.", param="tool_choice")
    body = orjson.loads(openai_responses.render_error(error, "req_1"))
    assert error.status == 422
    assert body == {
        "error": {
            "message": "No call was made.",
            "type": "invalid_request_error",
            "code": "tool_choice_violation",
            "param": "tool_choice",
        }
    }


# Background ----------------------------------------------------------------------------------------------------------


def test_a_background_stream_is_queued_first() -> None:
    made = envelope({"background": True})
    opening = openai_responses.opening(made)
    encoder = openai_responses.Encoder(made)
    assert orjson.loads(encoder.snapshot().body())["status"] == "queued"
    checked = check(opening + encoder.feed([Text("a"), STOP]))
    assert checked.types()[:3] == ["created", "queued", "in_progress"]


def test_a_second_attempt_goes_on_under_the_same_id() -> None:
    made = envelope({"background": True})
    opening = openai_responses.opening(made)
    openai_responses.Encoder(made)
    checked = check(opening + openai_responses.Encoder(made).feed([Text("a"), STOP]))
    assert orjson.loads(openai_responses.queued(made).body())["id"] == checked.response["id"]


def test_a_queued_response_can_fail() -> None:
    made = envelope({"background": True})
    full = Failure(GatewayError(ErrorKind.QUEUE_TIMEOUT, "Waited too long."))
    assert check(openai_responses.opening(made) + openai_responses.Encoder(made).feed([full])).response["status"] == "failed"


def test_an_end_from_outside_goes_on_from_what_was_written() -> None:
    error = GatewayError(ErrorKind.SHUTTING_DOWN, "Shutting down.")
    for events in ([], [Text("a")], [Text("a"), *call(0, "f", "{", end=False)]):
        made = envelope({"background": True})
        opening = openai_responses.opening(made)
        assert check(opening + openai_responses.fail(made, error)).response["status"] == "failed"
        made = envelope({"background": True})
        opening = openai_responses.opening(made)
        written = openai_responses.Encoder(made).feed(list(events))
        check(opening + written + openai_responses.fail(made, error))
        assert openai_responses.fail(made, error) == b""


def test_snapshots_show_how_far_it_is() -> None:
    encoder = openai_responses.Encoder(envelope({"background": True, "tools": [F, PATCH]}))
    for events, kinds in [
        ([Reasoning("a")], ["reasoning"]),
        ([Text("b")], ["reasoning", "message"]),
        (call(0, "patch", '{"input": "x', end=False), ["reasoning", "message", "custom_tool_call"]),
        ([ToolEnd(0), *call(1, "f", "{", end=False)], ["reasoning", "message", "custom_tool_call", "function_call"]),
    ]:
        encoder.feed(list(events))
        response = orjson.loads(encoder.snapshot().body())
        validate_response(response)
        assert response["status"] == "in_progress"
        assert [item["type"] for item in response["output"]] == kinds
        assert response["output"][-1]["status"] == "in_progress"
    assert response["output"][1]["content"][0]["text"] == "b"
    assert response["output"][2]["input"] == "x"


# The rest ------------------------------------------------------------------------------------------------------------


def test_life_signs_are_comments() -> None:
    encoder = openai_responses.Encoder(envelope({}))
    assert encoder.keep_alive() == b": keep-alive\n\n"
    assert encoder.content_type.startswith("text/event-stream")
    check(encoder.keep_alive() + encoder.feed([Text("a")]) + encoder.keep_alive() + encoder.feed([STOP]))


def test_only_the_first_choice_is_answered() -> None:
    assert output([Text("a"), Text("b", choice=1), STOP])[0]["content"][0]["text"] == "a"


def test_counts() -> None:
    assert orjson.loads(openai_responses.render_count(7)) == {"object": "response.input_tokens", "input_tokens": 7}


def test_routes() -> None:
    routes = {(route.method, route.path): route.action for route in openai_responses.ROUTES}
    for base in ("/v1/responses", "/responses"):
        assert routes["POST", base] == "generate"
        assert routes["GET", base] == "responses_socket"
        assert routes["POST", f"{base}/input_tokens"] == "count"
        assert routes["POST", f"{base}/compact"] == "responses_compact"
        assert routes["GET", f"{base}/{{id}}"] == "responses_get"
        assert routes["DELETE", f"{base}/{{id}}"] == "responses_delete"
        assert routes["POST", f"{base}/{{id}}/cancel"] == "responses_cancel"
        assert routes["GET", f"{base}/{{id}}/input_items"] == "responses_items"
