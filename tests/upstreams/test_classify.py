"""What refusals of real servers mean (errors.md 2, upstreams.md 5, token-rotation.md)."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds2d.core.calls import Reply
from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.upstreams.openai import classify
from tests.upstreams.asking import ask, tool


def refused(status: int, body: Any, headers: dict[str, str] | None = None, **fields: Any) -> GatewayError:
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    return classify(Reply(status, headers or {}, raw), ask(**fields))


def vllm(message: str, code: int = 400, **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, "type": "BadRequestError", "param": None, "code": code, **more}}


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, vllm("temperature must be in [0, 2]"), ErrorKind.UPSTREAM_REJECTED),
        (422, {"error": {"message": "Invalid parameters"}}, ErrorKind.UPSTREAM_REJECTED),
        (401, {"error": "Unauthorized"}, ErrorKind.UPSTREAM_AUTH),
        (403, b"", ErrorKind.UPSTREAM_AUTH),
        (402, {"error": {"message": "Insufficient Balance", "type": "unknown_error"}}, ErrorKind.UPSTREAM_BILLING),
        (404, vllm("The model `x` does not exist.", 404), ErrorKind.UPSTREAM_NOT_FOUND),
        (400, {"error": {"message": "Model Not Exist"}}, ErrorKind.UPSTREAM_NOT_FOUND),
        (405, {"detail": "Method Not Allowed"}, ErrorKind.UPSTREAM_NOT_FOUND),
        (413, b"<html>413 Request Entity Too Large</html>", ErrorKind.UPSTREAM_TOO_LARGE),
        (429, {"error": {"message": "Rate limit reached"}}, ErrorKind.UPSTREAM_RATE_LIMITED),
        (429, {"error": {"message": "You exceeded your quota", "code": "insufficient_quota"}}, ErrorKind.UPSTREAM_BILLING),
        (500, vllm("EngineCore died", 500), ErrorKind.UPSTREAM_ERROR),
        (500, b"Internal Server Error", ErrorKind.UPSTREAM_ERROR),
        (502, b"<html><h1>502 Bad Gateway</h1></html>", ErrorKind.UPSTREAM_ERROR),
        (503, vllm("The engine is currently busy...", 503, type="Service Unavailable"), ErrorKind.UPSTREAM_OVERLOADED),
        (503, {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}, ErrorKind.UPSTREAM_OVERLOADED),
        (529, b"", ErrorKind.UPSTREAM_OVERLOADED),
        (501, {"error": {"code": 501, "message": "no embeddings", "type": "not_supported_error"}}, ErrorKind.NOT_IMPLEMENTED),
        (302, b"", ErrorKind.UPSTREAM_ERROR),
        (200, b"", ErrorKind.UPSTREAM_ERROR),
        (400, vllm("Out of range float values are not JSON compliant"), ErrorKind.UPSTREAM_ERROR),
    ],
)
def test_a_refusal_has_one_kind(status: int, body: Any, kind: ErrorKind) -> None:
    assert refused(status, body).kind is kind


@pytest.mark.parametrize(
    ("body", "message", "param"),
    [
        (vllm("top_p must be in (0, 1]", param="body.top_p"), "top_p must be in (0, 1]", "top_p"),
        ({"object": "error", "message": "bad n", "type": "BadRequestError", "param": "n", "code": 400}, "bad n", "n"),
        ({"error": {"code": 400, "message": "bad grammar", "type": "invalid_request_error"}}, "bad grammar", None),
        ({"error": "no good"}, "no good", None),
        ({"detail": "no good"}, "no good", None),
        (
            {"detail": [{"loc": ["body", "messages", 0, "role"], "msg": "Field required", "type": "missing", "input": "secret"}]},
            "messages.0.role: Field required",
            "messages.0.role",
        ),
        (
            vllm(
                "1 validation error:\n  {'type': 'int_parsing', 'loc': ('body', 'n'), 'msg': 'Input should be int', 'input': 1}"
            ),
            "n: Input should be int",
            None,
        ),
        (b"plain words", "plain words", None),
        (b"<html>words</html>", "The upstream refused the request.", None),
        ({}, "The upstream refused the request.", None),
        ({"error": {}}, "The upstream refused the request.", None),
    ],
)
def test_the_text_of_a_refused_request_is_passed_on_whatever_its_shape(body: Any, message: str, param: str | None) -> None:
    error = refused(400, body)
    assert (error.message, error.param) == (message, param)


LONG_PROMPTS = [
    (
        "You passed 4097 input tokens and requested 1 output tokens. However, the model's context length is only 4096 tokens, "
        "resulting in a maximum input length of 4095 tokens. Please reduce the length of the input prompt.",
        (4097, None, 4096),
    ),
    (
        "You passed 3073 input tokens and requested 128000 output tokens. However, the model's context length is only 131072",
        (3073, 128000, 131072),
    ),
    (
        "'max_tokens' or 'max_completion_tokens' is too large: 5000. This model's maximum context length is 4096 tokens and your "
        "request has 6 input tokens (5000 > 4096 - 6).",
        (6, 5000, 4096),
    ),
    (
        "This model's maximum context length is 65536 tokens. However, you requested 70000 tokens (60000 in the messages, "
        "10000 in the completion). Please reduce the length of the messages or completion.",
        (60000, 10000, 65536),
    ),
    ("This model's maximum context length is 4096 tokens. However, your request has 5000 input tokens.", (5000, None, 4096)),
    (
        "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens in the messages",
        (5000, None, 4096),
    ),
    ("this model's maximum context length is 4096 tokens, but the prompt contains 5000 input tokens", (5000, None, 4096)),
    ("The input (5000 tokens) is longer than the model's context length (4096 tokens).", (5000, None, 4096)),
    (
        "Requested token count exceeds the model's maximum context length of 4096 tokens. You requested a total of 5000 "
        "tokens: 4000 tokens from the input messages and 1000 tokens for the completion.",
        (4000, 1000, 4096),
    ),
    ("request (5000 tokens) exceeds the available context size (4096 tokens), try increasing it", (5000, None, 4096)),
    ("the request exceeds the available context size. try increasing the context size", None),
    ("The decoder prompt (length 5000) is longer than the maximum model length of 4096.", (5000, None, 4096)),
    ("Requested tokens (5000) exceed context window of 4096", (5000, None, 4096)),
    ("prompt is too long: 5000 tokens > 4096 maximum", (5000, None, 4096)),
]


@pytest.mark.parametrize("status", [400, 413, 422, 500])
@pytest.mark.parametrize(("text", "limits"), LONG_PROMPTS)
def test_over_long_input_is_recognised_by_its_text_with_its_numbers(text: str, limits: Any, status: int) -> None:
    error = refused(status, vllm(text))
    assert (error.kind, error.status, error.limits) == (ErrorKind.CONTEXT_LENGTH, 400, limits)


def test_over_long_input_is_recognised_by_its_code_and_fields() -> None:
    assert refused(400, {"error": {"message": "too much", "code": "context_length_exceeded"}}).kind is ErrorKind.CONTEXT_LENGTH
    fields = {"code": 400, "message": "too much", "type": "exceed_context_size_error", "n_prompt_tokens": 5000, "n_ctx": 4096}
    error = refused(400, {"error": fields})
    assert (error.kind, error.limits) == (ErrorKind.CONTEXT_LENGTH, (5000, None, 4096))


def test_a_refused_question_about_something_else_is_not_taken_for_an_over_long_one() -> None:
    for text in ("max_tokens=5000 cannot be greater than max_model_len=4096", "stop must have at most 16 items", "n must be 1"):
        assert refused(400, vllm(text)).kind is ErrorKind.UPSTREAM_REJECTED


PARSER_OFF = '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (400, PARSER_OFF),
        (400, 'tool_choice="required" requires --tool-call-parser to be set'),
        (500, "tools param requires --jinja flag"),
        (400, "registry.example/library/x does not support tools"),
    ],
)
def test_a_server_without_native_tools_says_so_in_details(status: int, text: str) -> None:
    error = refused(status, vllm(text), tools=[tool()])
    assert (error.kind, error.details) == (ErrorKind.UPSTREAM_REJECTED, {"native_tools": False})
    assert "--" not in error.message
    assert refused(status, vllm(text)).details is None, "without tools in the question it is something else"


def test_a_missing_completions_route_says_so_in_details() -> None:
    missing = {"detail": "Not Found"}
    assert refused(404, missing, prompt="x").details == {"completions": False}
    assert refused(404, missing).details is None
    assert refused(404, vllm("The model `x` does not exist.", 404), prompt="x").details is None
    llama_server = {"error": {"code": 404, "message": "File Not Found", "type": "not_found_error"}}
    assert refused(404, llama_server, prompt="x").details == {"completions": False}


def test_an_image_to_a_text_model_is_named_by_the_client_s_path() -> None:
    for status, text in ((400, "their-model is not a multimodal model"), (500, "image input is not supported - hint: mmproj")):
        error = refused(status, vllm(text), images=("messages[2].content[1]",))
        assert (error.kind, error.param) == (ErrorKind.IMAGE_NOT_SUPPORTED, "messages[2].content[1]")


CLIENT_FAULTS_AS_500 = [
    "1 validation error:\n  {'type': 'float_type', 'loc': ('body', 'top_p'), 'msg': 'Input should be less than or equal to 1', "
    "'input': 3}\n\n  File \"/srv/venv/lib/llama_cpp/server/app.py\", line 459, in create_chat_completion\n"
    "    POST /v1/chat/completions",
    "'utf-8' codec can't encode character '\\ud83d' in position 4: surrogates not allowed",
    "Conversation roles must alternate user/assistant/user/assistant/...",
]


@pytest.mark.parametrize("text", CLIENT_FAULTS_AS_500)
def test_a_client_s_mistake_that_a_server_calls_its_own_is_the_client_s(text: str) -> None:
    error = refused(500, {"error": {"message": text, "type": "internal_server_error", "param": None, "code": None}})
    assert (error.kind, error.status) == (ErrorKind.UPSTREAM_REJECTED, 400)
    assert "/srv" not in error.message
    assert "File" not in error.message


SECRETS = [
    "/mnt/models/DeepSeek-V3/config.json",
    "C:\\models\\x.gguf",
    "http://10.0.0.5:8000/v1",
    "10.0.0.5:8000",
    "gpu-7.internal.example:8000",
    "sk-abcdefgh12345678",
    "Bearer abc.def.ghi",
    "someone@example.com",
    "a1b2c3d4e5f6a7b8c9d0a1b2c3d4e5f6a7b8c9d0a1b2",
    "/opt",
]


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("frame", ["{}", "bad `{}` here", 'x "{}", y', "({})", "see {} ."])
def test_nothing_that_tells_where_or_who_is_passed_on(secret: str, frame: str) -> None:
    assert secret not in refused(400, vllm(frame.format(secret))).message


def test_a_traceback_is_cut_off_and_a_long_text_shortened() -> None:
    text = 'bad thing\nTraceback (most recent call last):\n  File "/x/y.py", line 1, in f\n    g()\nValueError: no'
    assert refused(400, vllm(text)).message == "bad thing"
    assert len(refused(400, vllm("word " * 5000)).message) == 500


def test_ordinary_words_survive_the_cleaning() -> None:
    text = "tool_choice 'x' and/or top_p=0.5 (see messages[1].content), model deepseek-ai/DeepSeek-V3: 400 tokens at 12:30"
    assert refused(400, vllm(text)).message == text


NOW = {"date": "Wed, 21 Oct 2026 07:28:00 GMT"}


@pytest.mark.parametrize(
    ("headers", "text", "delay"),
    [
        ({"retry-after": "7"}, "", 7),
        ({"retry-after": "1.5"}, "", 1.5),
        ({"retry-after-ms": "1500"}, "", 1.5),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:30 GMT", **NOW}, "", 30),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:30 GMT"}, "", None),
        ({"retry-after": "soon"}, "", None),
        ({"retry-after": "Mon, 1 Jan 99999999999999999999 0:0:0", **NOW}, "", None),
        ({"retry-after": "-3"}, "", None),
        ({"retry-after": "99999999"}, "", None),
        ({}, "Upstream rate limit reached (UserByModelByDay). Retry after ~20663s.", 20663),
        ({}, "Please try again in 1m30.5s. Visit", 90.5),
        ({}, "Please retry after 20 seconds", 20),
        ({}, "try again in 250ms", 0.25),
        ({}, "Please try again later. Error 400 s", None),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "6m0s"}, "", 360),
        ({"x-ratelimit-remaining-requests": "5", "x-ratelimit-reset-requests": "6m0s"}, "", None),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1792567710", **NOW}, "", 30),
        ({"retry-after": "3", "x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "9s"}, "try again in 20s", 3),
    ],
)
def test_the_delay_comes_from_headers_or_text(headers: dict[str, str], text: str, delay: float | None) -> None:
    assert refused(429, vllm(text, 429), headers).retry_after == delay


def test_the_message_keeps_window_delay_and_the_model_that_was_asked_for() -> None:
    text = "Upstream rate limit reached (UserByModelByDay). Retry after ~20663s."
    message = refused(429, {"error": {"message": text, "param": "model", "code": "rate_limit"}}).message
    assert message == "The upstream's rate limit for model 'asked' is reached (UserByModelByDay). Retry after ~20663s."


def test_a_busy_server_s_delay_is_kept() -> None:
    assert refused(503, b"", {"retry-after": "9"}).retry_after == 9


@given(
    st.integers(100, 599), st.binary(max_size=200) | st.text().map(str.encode), st.dictionaries(st.text(), st.text(), max_size=3)
)
def test_whatever_comes_is_an_error_with_a_message(status: int, body: bytes, headers: dict[str, str]) -> None:
    error = refused(status, body, headers)
    assert error.message.isprintable()


@pytest.mark.parametrize(
    "text", ["1" * 4000 + "!", "1ms" * 21 + "!", "/a" * 2000, "a." * 2000 + ":", "retry " + "1m1s" * 900 + "!", "a-" * 2000]
)
def test_long_odd_texts_cost_no_time(text: str) -> None:
    """No clock: an exponential pattern would not come back at all."""
    refused(429, vllm(text), {"retry-after": text})
    refused(400, vllm(text))
