"""gemini.md 5, 6 and 10: what a client gets, in both stream forms and whole, and that all of them say the same."""

from __future__ import annotations

import base64
from typing import Any

import orjson
import pytest
from google.genai import types
from hypothesis import given
from hypothesis import strategies as st

from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.events import Ending, Event, Failure, Finish, Reasoning, Text, ToolArgs, ToolEnd, ToolStart, Usage, fold
from ds2d.core.request import ChatRequest, Envelope
from ds2d.dialects.gemini import Encoder, finish_word, render, render_count, render_error
from ds2d.dialects.gemini.reply import Form, Reply
from tests.dialects.answers import answers, envelope

USAGE = Usage(10, 20, reasoning=5, cached=4)
COUNTED = {
    "promptTokenCount": 10,
    "candidatesTokenCount": 15,
    "totalTokenCount": 30,
    "thoughtsTokenCount": 5,
    "cachedContentTokenCount": 4,
}
UNDECLARED = "tool_call_rejected:undeclared"


def asked(*, form: Form | None = "sse", **fields: Any) -> Envelope:
    return envelope(ChatRequest("m", [], reply=Reply(form=form, **fields)), seal=lambda text: f"sealed:{text}")


def written(batches: list[list[Event]], env: Envelope) -> bytes:
    encoder = Encoder(env)
    return b"".join(encoder.feed(batch) for batch in batches)


def objects(data: bytes, form: Form | None) -> list[Any]:
    """The objects of a stream, as a client that knows nothing but the framing reads them."""
    if form == "array":
        parsed = orjson.loads(data)
        assert isinstance(parsed, list)
        return parsed
    assert data.endswith(b"\n\n")
    frames = data.decode().removesuffix("\n\n").split("\n\n")
    assert all(frame.startswith("data: ") for frame in frames)
    assert all(len(frame.splitlines()) == 1 for frame in frames), "a line end inside a frame, for str.splitlines"
    return [orjson.loads(frame.removeprefix("data: ")) for frame in frames]


def stream(batches: list[list[Event]], env: Envelope | None = None) -> list[Any]:
    env = env or asked()
    return objects(written(batches, env), env.request.reply.form)


def whole(events: list[Event], env: Envelope | None = None) -> Any:
    return orjson.loads(render(fold(events), env or asked()))


def finish(reason: Any = "stop", usage: Usage | None = USAGE, **fields: Any) -> Finish:
    return Finish((Ending(reason),), usage, **fields)


def parts(frames: list[Any]) -> list[Any]:
    return [part for frame in frames for candidate in frame["candidates"] for part in candidate["content"]["parts"]]


def call(arguments: str, index: int = 0, *, broken: bool = False) -> list[Event]:
    pieces: list[Event] = [ToolArgs(index, piece) for piece in (arguments[:3], arguments[3:]) if piece]
    return [ToolStart(index, f"call_{index}", "f"), *pieces, ToolEnd(index, broken=broken)]


# An independent reading of section 5 ---------------------------------------------------------------------------------


class Checker:
    """Follows a stream object by object, as section 5 says it must be, and puts the candidates together."""

    def __init__(self) -> None:
        self.candidates: dict[int, dict[str, Any]] = {}
        self.usage: Any = None

    def read(self, frames: list[Any]) -> dict[str, Any]:
        for number, frame in enumerate(frames):
            types.GenerateContentResponse.model_validate(frame)  # refuses keys that it does not know
            assert (frame["responseId"], frame["modelVersion"]) == (frames[0]["responseId"], "the-model")
            assert ("usageMetadata" in frame) == (number == len(frames) - 1)
            (candidate,) = frame["candidates"]
            assert candidate["content"]["role"] == "model"
            self._candidate(candidate)
        assert all(seen["finishReason"] for seen in self.candidates.values())
        return {"candidates": self.candidates, "usage": frames[-1]["usageMetadata"]}

    def _candidate(self, candidate: dict[str, Any]) -> None:
        empty = {"text": "", "thought": "", "calls": [], "finishReason": None}
        seen = self.candidates.setdefault(candidate["index"], empty)
        assert seen["finishReason"] is None, "something after the finish of a candidate"
        collect(seen, candidate["content"]["parts"])
        seen["finishReason"] = candidate.get("finishReason")


def collect(seen: dict[str, Any], found: list[Any]) -> None:
    for part in found:
        if "functionCall" in part:
            seen["calls"].append(part)
        else:
            seen["thought" if part.get("thought") else "text"] += part["text"]


def gathered(body: dict[str, Any]) -> dict[str, Any]:
    types.GenerateContentResponse.model_validate(body)
    candidates = {}
    for candidate in body["candidates"]:
        seen = {"text": "", "thought": "", "calls": [], "finishReason": candidate["finishReason"]}
        collect(seen, candidate["content"]["parts"])
        candidates[candidate["index"]] = seen
    return {"candidates": candidates, "usage": body["usageMetadata"]}


@given(answers(), st.booleans(), st.booleans(), st.sampled_from(["sse", "array"]))
def test_any_answer_streams_by_the_rules_and_says_what_the_whole_one_says(
    batches: list[list[Event]], thoughts: bool, thinking: bool, form: Form
) -> None:
    env = asked(form=form, thoughts=thoughts, thinking=thinking)
    seen = Checker().read(stream(batches, env))
    assert seen == gathered(whole([event for batch in batches for event in batch], env))


# Streams -------------------------------------------------------------------------------------------------------------


def test_the_frames_of_a_plain_answer_byte_by_byte() -> None:
    encoder = Encoder(asked())
    tail = b',"modelVersion":"the-model","responseId":"000000000000000000000001"}\n\n'
    text = b'data: {"candidates":[{"index":0,"content":{"role":"model","parts":[{"text":"hi"}]}}]' + tail
    last = b'data: {"candidates":[{"index":0,"content":{"role":"model","parts":[{"text":""}]},"finishReason":"STOP"}]'
    usage = b',"usageMetadata":{"promptTokenCount":1,"candidatesTokenCount":2,"totalTokenCount":3}'
    assert encoder.feed([Text("hi")]) == text
    assert encoder.keep_alive() == b"\n"
    assert encoder.feed([]) == b""
    assert encoder.feed([finish(usage=Usage(1, 2))]) == last + usage + tail
    assert encoder.content_type == "text/event-stream"


def test_an_array_is_one_json_value_with_life_signs_anywhere_between() -> None:
    encoder = Encoder(asked(form="array"))
    pieces = [encoder.keep_alive(), encoder.feed([Text("a"), Text("b")]), encoder.keep_alive(), encoder.feed([Text("c")])]
    assert pieces[1].startswith(b'[{"candidates"')
    pieces += [encoder.keep_alive(), encoder.feed([finish()])]
    assert [part["text"] for part in parts(orjson.loads(b"".join(pieces)))] == ["a", "b", "c", ""]
    assert encoder.content_type == "application/json"


@pytest.mark.parametrize(
    ("form", "setting", "content_type"),
    [
        (None, None, "text/event-stream"),
        (None, "sse", "text/event-stream"),
        (None, "array", "application/json"),
        ("sse", "array", "text/event-stream"),
        ("array", "sse", "application/json"),
    ],
)
def test_the_query_beats_the_setting(form: Form | None, setting: str | None, content_type: str) -> None:
    env = asked(form=form)
    env.settings = {"gemini.stream_default": setting} if setting else {}
    assert Encoder(env).content_type == content_type


@pytest.mark.parametrize("form", ["sse", "array"])
def test_characters_that_clients_take_for_line_ends_are_intact(form: Form) -> None:
    text = "a\u2028b\u2029c\u0085d\x0b\x0c\x1c\r\n你"
    env = asked(form=form)
    assert parts(stream([[Text(text), *call('{"a":"\u2028"}')], [finish()]], env))[:2] == [
        {"text": text},
        {"functionCall": {"id": "call_0", "name": "f", "args": {"a": "\u2028"}}},
    ]


def test_thoughts_are_shown_only_where_asked() -> None:
    events: list[Event] = [Reasoning("hm"), Text("a")]
    assert parts(stream([events, [finish()]]))[:-1] == [{"text": "a"}]
    shown = asked(thoughts=True)
    assert parts(stream([events, [finish()]], shown))[:-1] == [{"text": "hm", "thought": True}, {"text": "a"}]
    assert whole([*events, finish()])["candidates"][0]["content"]["parts"] == [{"text": "a"}]


def test_a_call_goes_out_at_its_end_and_text_before_it_at_once() -> None:
    encoder = Encoder(asked())
    begun = encoder.feed([Text("wait"), ToolStart(0, "call_0", "f"), ToolArgs(0, '{"a":')])
    assert b"wait" in begun
    assert b"functionCall" not in begun
    ended = objects(encoder.feed([ToolArgs(0, "1}"), ToolEnd(0)]), "sse")
    assert parts(ended) == [{"functionCall": {"id": "call_0", "name": "f", "args": {"a": 1}}}]
    assert "finishReason" not in ended[0]["candidates"][0]


def test_the_first_call_carries_the_reasoning_before_it() -> None:
    events = [Reasoning("be"), Reasoning("cause"), *call("{}"), Reasoning("more"), *call("{}", 1)]
    for found in (
        parts(stream([events, [finish("tool_calls")]])),
        whole([*events, finish()])["candidates"][0]["content"]["parts"],
    ):
        first, second = [part for part in found if "functionCall" in part]
        assert base64.b64decode(first["thoughtSignature"]) == b"sealed:because"
        assert "thoughtSignature" not in second
    assert "thoughtSignature" not in parts(stream([call("{}"), [finish()]]))[0]


@pytest.mark.parametrize(
    ("written_arguments", "args"),
    [
        ("", "{}"),
        ("  ", "{}"),
        ('{"a": 1}', '{"a": 1}'),
        ('{\n  "a": "b\\nc"\r\n}', '{   "a": "b\\nc"  }'),
        ('{"big":123456789012345678901234567890,"a":1,"a":2}', '{"big":123456789012345678901234567890,"a":1,"a":2}'),
    ],
)
def test_arguments_are_the_models_own_json_on_one_line(written_arguments: str, args: str) -> None:
    data = written([call(written_arguments), [finish()]], asked()).decode()
    assert f'"args":{args}' in data
    assert f'"args":{args}' in render(fold([*call(written_arguments), finish()]), asked()).decode()


@pytest.mark.parametrize("arguments", ['{"a":', "[1]", "null", "not json", '"{}"'])
def test_a_call_whose_arguments_are_no_object_is_not_shown(arguments: str) -> None:
    events = call(arguments)
    for body in (stream([events, [finish("tool_calls")]])[-1], whole([*events, finish("tool_calls")])):
        assert body["candidates"][0]["finishReason"] == "MALFORMED_FUNCTION_CALL"
        assert not [part for part in body["candidates"][0]["content"]["parts"] if "functionCall" in part]
    assert stream([events, [finish("length")]])[-1]["candidates"][0]["finishReason"] == "MAX_TOKENS"
    assert whole([*events, finish("length")])["candidates"][0]["finishReason"] == "MAX_TOKENS"


def test_a_call_marked_broken_is_not_shown_even_if_it_parses() -> None:
    events = call("{}", broken=True)
    assert stream([events, [finish()]])[-1]["candidates"][0]["finishReason"] == "MALFORMED_FUNCTION_CALL"
    assert whole([*events, finish()])["candidates"][0]["finishReason"] == "MALFORMED_FUNCTION_CALL"


def test_a_call_that_never_ended_is_not_shown() -> None:
    events: list[Event] = [Text("a"), ToolStart(0, "call_0", "f"), ToolArgs(0, "{}")]
    assert stream([events, [finish()]])[-1]["candidates"][0]["finishReason"] == "MALFORMED_FUNCTION_CALL"
    assert whole([*events, finish()])["candidates"][0]["finishReason"] == "MALFORMED_FUNCTION_CALL"
    assert stream([events, [finish("length")]])[-1]["candidates"][0]["finishReason"] == "MAX_TOKENS"


def test_an_error_that_is_a_finish_reason_ends_every_candidate_and_usage_stands_on_the_last() -> None:
    error = GatewayError(ErrorKind.MALFORMED_CALL, "x")
    frames = stream([[Text("a", 1), Text("b", 0)], [Failure(error, USAGE)]])[2:]
    assert [frame["candidates"][0]["index"] for frame in frames] == [0, 1]
    assert ["usageMetadata" in frame for frame in frames] == [False, True]


@pytest.mark.parametrize(
    ("reason", "word"), [("stop", "STOP"), ("tool_calls", "STOP"), ("length", "MAX_TOKENS"), ("content_filter", "SAFETY")]
)
def test_finish_reasons(reason: Any, word: str) -> None:
    assert stream([[Text("a")], [finish(reason)]])[-1]["candidates"][0]["finishReason"] == word
    assert whole([Text("a"), finish(reason)])["candidates"][0]["finishReason"] == word


def test_a_rejected_call_is_a_finish_reason_unless_another_was_shown() -> None:
    last = finish("stop", notes=(UNDECLARED,))
    for events, word in (([Text("a")], "UNEXPECTED_TOOL_CALL"), (call("{}"), "STOP")):
        assert stream([[*events], [last]])[-1]["candidates"][0]["finishReason"] == word
        assert whole([*events, last])["candidates"][0]["finishReason"] == word


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (GatewayError(ErrorKind.MALFORMED_CALL, "x"), "MALFORMED_FUNCTION_CALL"),
        (GatewayError(ErrorKind.EMPTY_ANSWER, "x", details={"cause": "undeclared"}), "UNEXPECTED_TOOL_CALL"),
        (GatewayError(ErrorKind.EMPTY_ANSWER, "x", details={"cause": "malformed"}), "MALFORMED_FUNCTION_CALL"),
        (GatewayError(ErrorKind.EMPTY_ANSWER, "x", details={"cause": "reasoning"}), None),
        (GatewayError(ErrorKind.EMPTY_ANSWER, "x"), None),
        (GatewayError(ErrorKind.UPSTREAM_ERROR, "x", details={"cause": "undeclared"}), None),
    ],
)
def test_some_errors_are_finish_reasons_here(error: GatewayError, word: str | None) -> None:
    assert finish_word(error) == word
    for form in ("sse", "array"):
        last = stream([[Text("a")], [Failure(error, USAGE)]], asked(form=form))[-1]
        if word is None:
            assert "error" in last
        else:
            assert (last["candidates"][0]["finishReason"], last["usageMetadata"]) == (word, COUNTED)
    if word is None:
        with pytest.raises(GatewayError):
            whole([Failure(error)])
    else:
        assert whole([Failure(error, USAGE)])["candidates"][0]["finishReason"] == word


@pytest.mark.parametrize("form", ["sse", "array"])
@pytest.mark.parametrize("began", [True, False])
def test_a_failure_is_a_parseable_error_object(form: Form, began: bool) -> None:
    error = GatewayError(ErrorKind.UPSTREAM_DISCONNECTED, "The upstream went away.")
    before: list[Event] = [Text("a")] if began else []
    *text, last = stream([before, [Failure(error)]], asked(form=form))
    assert len(text) == began
    assert (last["error"]["code"], last["error"]["status"]) == (503, "UNAVAILABLE")
    assert last["error"]["message"] == "The upstream went away."


def test_several_candidates_finish_one_by_one_and_usage_comes_last() -> None:
    frames = stream([[Text("a", 1), Text("b", 0)], [Finish((Ending("stop"), Ending("length")), USAGE)]])
    found = [(frame["candidates"][0]["index"], frame["candidates"][0].get("finishReason")) for frame in frames]
    assert found == [(1, None), (0, None), (0, "STOP"), (1, "MAX_TOKENS")]
    assert ["usageMetadata" in frame for frame in frames] == [False, False, False, True]


def test_the_word_of_an_enum_is_unquoted() -> None:
    env = asked(unquote=True)
    for said, word in (('"yes"', "yes"), ("yes", "yes"), ("5", "5"), ('"y', '"y')):
        events: list[Event] = [Text(said[:2]), Text(said[2:])] if said[2:] else [Text(said)]
        (frame,) = stream([events, [finish()]], env)
        assert parts([frame]) == [{"text": word}]
        assert whole([*events, finish()], env)["candidates"][0]["content"]["parts"] == [{"text": word}]


def test_log_probabilities_in_geminis_shape() -> None:
    content = [
        {"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": [{"token": "a", "logprob": -0.5}]},
        {"token": "b", "logprob": -1.5, "top_logprobs": None},
    ]
    result = {
        "chosenCandidates": [{"token": "a", "logProbability": -0.5}, {"token": "b", "logProbability": -1.5}],
        "topCandidates": [{"candidates": [{"token": "a", "logProbability": -0.5}]}, {"candidates": []}],
    }
    events: list[Event] = [Text("ab", extra={"logprobs": {"content": content}, "token_ids": [1]})]
    frames = stream([events, [finish()]])
    assert frames[0]["candidates"][0]["logprobsResult"] == result
    body = whole([*events, finish()])
    assert (body["candidates"][0]["logprobsResult"], body["candidates"][0]["avgLogprobs"]) == (result, -1.0)
    for answer in (*frames, body):
        types.GenerateContentResponse.model_validate(answer)


# Whole answers, usage, counts, errors --------------------------------------------------------------------------------


def test_a_whole_answer_has_every_field() -> None:
    events: list[Event] = [Reasoning("hm"), Text("a"), *call('{"b":1}'), finish("tool_calls")]
    assert whole(events, asked(thoughts=True)) == {
        "candidates": [
            {
                "index": 0,
                "content": {
                    "role": "model",
                    "parts": [
                        {"text": "hm", "thought": True},
                        {"text": "a"},
                        {
                            "functionCall": {"id": "call_0", "name": "f", "args": {"b": 1}},
                            "thoughtSignature": base64.b64encode(b"sealed:hm").decode(),
                        },
                    ],
                },
                "finishReason": "STOP",
            }
        ],
        "usageMetadata": COUNTED,
        "modelVersion": "the-model",
        "responseId": "000000000000000000000001",
    }


@pytest.mark.parametrize(
    ("usage", "thinking", "expected"),
    [
        (Usage(1, 2), False, {"promptTokenCount": 1, "candidatesTokenCount": 2, "totalTokenCount": 3}),
        (Usage(1, 2), True, {"promptTokenCount": 1, "candidatesTokenCount": 2, "totalTokenCount": 3, "thoughtsTokenCount": 0}),
        (Usage(1, 2, 0, 0), False, {"promptTokenCount": 1, "candidatesTokenCount": 2, "totalTokenCount": 3}),
        (USAGE, False, COUNTED),
    ],
)
def test_usage(usage: Usage, thinking: bool, expected: dict[str, int]) -> None:
    env = asked(thinking=thinking)
    assert stream([[Text("a")], [finish(usage=usage)]], env)[-1]["usageMetadata"] == expected
    assert whole([Text("a"), finish(usage=usage)], env)["usageMetadata"] == expected


def test_usage_that_nobody_counted_is_estimated() -> None:
    env = asked()
    env.prompt_tokens = lambda: 7
    assert stream([[finish(usage=None)]], env)[-1]["usageMetadata"]["promptTokenCount"] == 7
    assert whole([finish(usage=None)], env)["usageMetadata"]["totalTokenCount"] == 7


def test_an_empty_answer_has_one_empty_part() -> None:
    assert whole([finish()])["candidates"][0]["content"] == {"role": "model", "parts": [{"text": ""}]}


def test_a_count() -> None:
    body = orjson.loads(render_count(31))
    assert body == {"totalTokens": 31, "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 31}]}


def refused(kind: ErrorKind, message: str = "No.", **fields: Any) -> Any:
    return orjson.loads(render_error(GatewayError(kind, message, **fields), "req_1"))["error"]


def test_an_error_has_its_code_message_and_status() -> None:
    assert refused(ErrorKind.MODEL_NOT_FOUND) == {"code": 404, "message": "No.", "status": "NOT_FOUND"}
    assert refused(ErrorKind.TOOL_CHOICE_VIOLATION)["status"] == "FAILED_PRECONDITION"
    assert refused(ErrorKind.UPSTREAM_TIMEOUT, status=504)["status"] == "DEADLINE_EXCEEDED"
    assert refused(ErrorKind.INVALID_JSON, "invalid json: the body must be an object")["message"] == "invalid json"


def test_details_of_errors() -> None:
    prefix = "type.googleapis.com/google.rpc."
    assert refused(ErrorKind.INVALID_KEY)["details"] == [
        {"@type": prefix + "ErrorInfo", "reason": "API_KEY_INVALID", "domain": "googleapis.com"}
    ]
    assert refused(ErrorKind.INVALID_REQUEST, "x: bad.", param="x")["details"] == [
        {"@type": prefix + "BadRequest", "fieldViolations": [{"field": "x", "description": "x: bad."}]}
    ]
    assert refused(ErrorKind.QUEUE_FULL, retry_after=11.2)["details"] == [{"@type": prefix + "RetryInfo", "retryDelay": "12s"}]
    assert refused(ErrorKind.MODEL_UNAVAILABLE)["details"][0]["retryDelay"] == "1s"
    assert "details" not in refused(ErrorKind.QUOTA_EXHAUSTED)
    assert "details" not in refused(ErrorKind.INTERNAL)
