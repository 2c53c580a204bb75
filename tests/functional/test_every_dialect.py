"""One plain question in every dialect, streamed and whole: the same text, the dialect's own end, and its own errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.functional.harness import config_for, running
from tests.functional.scripted import Scene, chunk, refuse, scripted_upstream, sse, usage, whole

TEXT = "Hello from upstream."
ASK = [{"role": "user", "content": "Hello"}]
QUESTIONS: dict[str, tuple[str, dict[str, Any], str, dict[str, Any]]] = {
    "chat": ("/v1/chat/completions", {"model": "deepseek-chat", "messages": ASK}, "/v1/chat/completions", {"stream": True}),
    "completions": ("/v1/completions", {"model": "deepseek-chat", "prompt": "Hello"}, "/v1/completions", {"stream": True}),
    "responses": ("/v1/responses", {"model": "deepseek-chat", "input": "Hello"}, "/v1/responses", {"stream": True}),
    "claude": ("/v1/messages", {"model": "claude-sonnet-4-5", "messages": ASK}, "/v1/messages", {"stream": True}),
    "gemini": (
        "/v1beta/models/gemini-2.5-flash:generateContent",
        {"contents": [{"parts": [{"text": "Hello"}]}]},
        "/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse",
        {},
    ),
}
ENDS = {
    "chat": "data: [DONE]",
    "completions": "data: [DONE]",
    "responses": "response.completed",
    "claude": "message_stop",
    "gemini": '"finishReason":"STOP"',
}


def texts(answer: Any) -> str:
    """Every text that a client would show, wherever the dialect has it."""
    if isinstance(answer, dict):
        shown = [answer[name] for name in ("content", "text") if isinstance(answer.get(name), str)]
        return "".join(shown) + "".join(texts(value) for name, value in answer.items() if not isinstance(value, str))
    return "".join(texts(value) for value in answer) if isinstance(answer, list) else ""


@pytest.mark.parametrize("dialect", QUESTIONS)
async def test_a_question_is_answered(tmp_path: Path, dialect: str) -> None:
    path, body, stream_path, more = QUESTIONS[dialect]
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        if dialect == "completions":
            upstream.answer_as_completion()
        status, answer, headers = await ds2d.ask(path, body)
        assert status == 200, answer
        assert TEXT in texts(answer)
        assert headers["x-request-id"].startswith("req_")
        assert headers["server"] == "ds2d"
        status, streamed, headers = await ds2d.ask(stream_path, {**body, **more})
        assert status == 200, streamed
        assert headers["content-type"].startswith("text/event-stream")
        assert headers["server"] == "ds2d"
        assert ENDS[dialect] in streamed
        events = [json.loads(line[6:]) for line in streamed.splitlines() if line.startswith("data: {")]
        deltas = [event for event in events if "done" not in event.get("type", "") and "completed" not in event.get("type", "")]
        joined = "".join(event["delta"] if isinstance(event.get("delta"), str) else texts(event) for event in deltas)
        assert joined == TEXT


@pytest.mark.parametrize("dialect", QUESTIONS)
async def test_errors_are_in_the_callers_own_shape(tmp_path: Path, dialect: str) -> None:
    path, body, _, _ = QUESTIONS[dialect]
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        for status, answer, headers in (
            await ds2d.ask(path, body, key="sk-wrong"),
            await ds2d.ask(path, data=b"{", method="POST"),
            await ds2d.ask(path, {**body, "model": "deepseek-nope"})
            if dialect != "gemini"
            else await ds2d.ask("/v1beta/models/deepseek-nope:generateContent", body),
            await ds2d.ask(path, method="PATCH"),
        ):
            error = answer["error"]
            assert error["message"]
            assert "x-request-id" in headers
            match dialect:
                case "claude":
                    assert answer["type"] == "error"
                    assert error["type"].endswith("_error")
                    assert answer["request_id"]
                case "gemini":
                    assert error["code"] == status
                    assert error["status"].isupper()
                case _:
                    assert set(error) == {"message", "type", "code", "param"}
        assert upstream.seen == []


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/embeddings", {"model": "deepseek-chat", "input": "Hello"}),
        ("/embeddings", {"model": "deepseek-chat", "input": "Hello"}),
        ("/v1beta/models/gemini-2.5-flash:embedContent", {"content": {"parts": [{"text": "Hello"}]}}),
        ("/v1beta/models/gemini-2.5-flash:computeTokens", {}),
        ("/v1/responses/compact", {"model": "deepseek-chat", "input": "Hello"}),
    ],
)
async def test_what_is_not_offered_says_so_to_those_who_may_ask(tmp_path: Path, path: str, body: dict[str, Any]) -> None:
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        status, answer, headers = await ds2d.ask(path, body)
        assert (status, headers["x-should-retry"]) == (501, "false"), answer
        assert (await ds2d.ask(path, body, key="sk-wrong"))[0] == 401


LEFT_OUT: dict[str, tuple[str, dict[str, Any], list[str]]] = {
    "claude": (
        "/v1/messages",
        {
            "model": "claude-sonnet-4-5",
            "max_tokens": 100,
            "messages": ASK,
            "mcp_servers": [{"type": "url", "url": "https://secret.example", "name": "x"}],
            "tools": [{"type": "web_search_20250305", "name": "my_own_name"}],
        },
        ["tool_dropped:web_search", "mcp_servers_ignored"],
    ),
    "gemini": (
        "/v1beta/models/gemini-2.5-flash:generateContent",
        {"contents": [{"parts": [{"text": "Hello"}]}], "tools": [{"googleSearch": {}}, {"codeExecution": {}}]},
        ["tool_dropped:codeExecution", "tool_dropped:googleSearch"],
    ),
}


@pytest.mark.parametrize("dialect", LEFT_OUT)
async def test_what_is_left_out_of_a_question_is_told_in_header_record_and_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, dialect: str
) -> None:
    path, body, notes = LEFT_OUT[dialect]
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        status, answer, headers = await ds2d.ask(path, body, headers={"x-request-id": "req_less"})
        assert status == 200, answer
        assert headers["x-ds2d-route"].endswith("; ".join(notes))
        why = ds2d.daemon.books.explain("req_less")
        assert why is not None
        assert why["notes"] == notes
        lines = [
            record.getMessage()
            for record in caplog.records
            if record.levelname == "WARNING" and "left out" in record.getMessage()
        ]
        assert lines == [f"left out of a question: {', '.join(notes)}"]


REFUSALS = {
    "chat": ('"refusal":"I will not."', '"finish_reason":"stop"'),
    "responses": ('{"type":"refusal","refusal":"I will not."}', '"status":"completed"'),
    "claude": ("I will not.", '"stop_reason":"refusal"'),
    "gemini": ("I will not.", '"finishReason":"STOP"'),
}


@pytest.mark.parametrize("dialect", REFUSALS)
async def test_a_models_refusal_is_told_as_the_dialect_has_it(tmp_path: Path, dialect: str) -> None:
    """mapping.md 2."""
    path, body, stream_path, more = QUESTIONS[dialect]
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        upstream.scenes.append(whole({"content": None, "refusal": "I will not."}))
        status, answer, _ = await ds2d.ask(path, body)
        upstream.scenes.append(
            Scene(sse(chunk({"role": "assistant"}), chunk({"refusal": "I will not."}), chunk({}, "stop"), usage()))
        )
        _, streamed, _ = await ds2d.ask(stream_path, {**body, **more})
        assert status == 200, answer
        for said in (json.dumps(answer, separators=(",", ":")), streamed):
            for piece in REFUSALS[dialect]:
                assert piece in said


FIELDS: dict[str, tuple[dict[str, str], str]] = {
    "chat": ({"max_tokens": "max_tokens", "stop[0]": "stop[0]"}, "messages[0].content"),
    "responses": ({"max_tokens": "max_output_tokens", "response_format.type": "text.format"}, "input"),
    "claude": ({"max_tokens": "max_tokens", "stop[0]": "stop_sequences"}, "messages[0].content"),
    "gemini": (
        {
            "max_tokens": "generationConfig.maxOutputTokens",
            "stop[0]": "generationConfig.stopSequences",
            "tool_choice": "toolConfig",
        },
        "contents",
    ),
}


def field_of(error: dict[str, Any]) -> str:
    return str(error["details"][0]["fieldViolations"][0]["field"] if "details" in error else error["param"])


@pytest.mark.parametrize("dialect", FIELDS)
async def test_a_servers_name_for_a_field_becomes_the_callers_own(tmp_path: Path, dialect: str) -> None:
    path, body, _, _ = QUESTIONS[dialect]
    names, messages = FIELDS[dialect]
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        for theirs, ours in {**names, "messages[0].content": messages}.items():
            upstream.scenes.append(refuse(400, {"error": {"message": f"{theirs}: is too much", "param": theirs}}))
            status, answer, _ = await ds2d.ask(path, body)
            assert (status, field_of(answer["error"])) == (400, ours)
            assert answer["error"]["message"].startswith(f"{ours}: is too much")


async def test_what_a_server_cannot_do_is_refused_by_the_callers_own_name(tmp_path: Path) -> None:
    path, body, _, _ = QUESTIONS["gemini"]
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        ds2d.change(upstreams=[{**ds2d.config()["upstreams"][0], "flavour": "deepseek"}])
        status, answer, _ = await ds2d.ask(path, {**body, "generationConfig": {"candidateCount": 2}})
        assert (status, field_of(answer["error"])) == (400, "generationConfig.candidateCount")
        assert answer["error"]["message"] == "generationConfig.candidateCount: this model's server gives one answer."


async def test_a_base_url_without_v1_and_a_slash_behind_reach_the_same_routes(tmp_path: Path) -> None:
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        for dialect, path in (
            ("claude", "/anthropic/messages"),
            ("claude", "/anthropic/messages/count_tokens/"),
            ("gemini", "/v1beta/models/gemini-2.5-flash:generateContent/"),
        ):
            status, answer, _ = await ds2d.ask(path, QUESTIONS[dialect][1])
            assert status == 200, answer
        status, answer, _ = await ds2d.ask("/anthropic/models")
        assert (status, answer["object"]) == (200, "list")


@pytest.mark.parametrize("method", ["generateContent", "streamGenerateContent", "countTokens", "embedContent"])
async def test_what_is_asked_by_post_is_no_model_to_get(tmp_path: Path, method: str) -> None:
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        for version in ("/v1beta", "/v1", ""):
            status, answer, headers = await ds2d.ask(f"{version}/models/gemini-2.5-pro:{method}")
            assert (status, headers["allow"]) == (405, "POST"), version
            assert answer["error"]["status"] == "INVALID_ARGUMENT"
            assert (await ds2d.ask(f"{version}/models/gemini-2.5-pro"))[0] == 200


@pytest.mark.parametrize(
    ("path", "what"),
    [
        ("/v1/batches", "Batches"),
        ("/v1/messages/batches/msgbatch_1", "Batches"),
        ("/v1beta/batches", "Batches"),
        ("/v1/files", "Stored files"),
        ("/upload/v1beta/files", "Stored files"),
        ("/v1/conversations/conv_1", "Conversations"),
        ("/v1beta/cachedContents", "Cached contents"),
    ],
)
async def test_what_is_not_offered_is_refused_by_name(tmp_path: Path, path: str, what: str) -> None:
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        status, answer, _ = await ds2d.ask(path, {})
        assert (status, answer["error"]["message"]) == (404, f"{what} are not offered here.")
        status, answer, _ = await ds2d.ask("/v1/filesystem", {})
        assert (status, answer["error"]["message"]) == (404, "There is no such route.")


SCORES = {
    "chat": {"logprobs": True},
    "responses": {"include": ["message.output_text.logprobs"]},
    "gemini": {"generationConfig": {"responseLogprobs": True}},
}


@pytest.mark.parametrize("scores", [5, [5], [{"token": "a", "logprob": [], "top_logprobs": 5}], [{"top_logprobs": [[]]}]])
@pytest.mark.parametrize("dialect", SCORES)
async def test_scores_that_cannot_be_read_do_not_cost_the_answer(tmp_path: Path, dialect: str, scores: Any) -> None:
    path, body, stream_path, more = QUESTIONS[dialect]
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        said = [chunk({"content": TEXT}), chunk({}, "stop"), usage()]
        said[0]["choices"][0]["logprobs"] = {"content": scores}
        for asked, extra in ((path, {}), (stream_path, more)):
            upstream.scenes.append(Scene(sse(*said)))
            status, answer, _ = await ds2d.ask(asked, {**body, **SCORES[dialect], **extra})
            assert status == 200, answer
            assert TEXT in str(answer)
            assert "Internal" not in str(answer)
