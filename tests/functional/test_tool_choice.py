"""What the client asked of calls, held against what came, in every dialect and both modes (toolcalls.md 4, errors.md 2)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.functional.harness import config_for, running
from tests.functional.scripted import Scene, chunk, say, scripted_upstream, sse, usage, whole

PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
ASK = [{"role": "user", "content": "Weather?"}]
CHAT_TOOL = {"type": "function", "function": {"name": "weather", "parameters": PARAMETERS}}
FLAT_TOOL = {"type": "function", "name": "weather", "parameters": PARAMETERS}
CLAUDE_TOOL = {"name": "weather", "input_schema": PARAMETERS}
GEMINI_TOOL = {"functionDeclarations": [{"name": "weather", "parametersJsonSchema": PARAMETERS}]}
GEMINI = "/v1beta/models/gemini-2.5-flash:"

Question = tuple[str, dict[str, Any]]


def question(dialect: str, *, stream: bool, forced: bool) -> Question:
    """A question with one tool, which must be called if `forced`."""
    match dialect:
        case "chat":
            body: dict[str, Any] = {"model": "deepseek-chat", "messages": ASK, "tools": [CHAT_TOOL], "stream": stream}
            return "/v1/chat/completions", body | ({"tool_choice": "required"} if forced else {})
        case "responses":
            body = {"model": "deepseek-chat", "input": "Weather?", "tools": [FLAT_TOOL], "stream": stream}
            return "/v1/responses", body | ({"tool_choice": "required"} if forced else {})
        case "claude":
            body = {"model": "claude-sonnet-4-5", "messages": ASK, "tools": [CLAUDE_TOOL], "stream": stream}
            return "/v1/messages", body | ({"tool_choice": {"type": "any"}} if forced else {})
    body = {"contents": [{"parts": [{"text": "Weather?"}]}], "tools": [GEMINI_TOOL]}
    config = {"toolConfig": {"functionCallingConfig": {"mode": "ANY"}}} if forced else {}
    return GEMINI + ("streamGenerateContent?alt=sse" if stream else "generateContent"), body | config


DIALECTS = ["chat", "responses", "claude", "gemini"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_forced_call_that_did_not_come_is_a_violation(tmp_path: Path, dialect: str, stream: bool) -> None:
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        upstream.scenes.append(Scene(say("It rains.")) if stream else whole({"content": "It rains."}))
        status, answer, headers = await ds2d.ask(*question(dialect, stream=stream, forced=True))
        if not stream:
            assert (status, headers["x-should-retry"]) == (422, "false"), answer
            return
        assert "tool_choice" in answer
        ends = {"chat": "[DONE]", "responses": "response.completed", "claude": "message_stop", "gemini": '"STOP"'}
        assert ends[dialect] not in answer
        if dialect == "responses":
            assert '"type":"response.failed"' in answer
            assert answer.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_call_written_as_text_is_a_call(tmp_path: Path, dialect: str, stream: bool) -> None:
    written = (
        '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>weather<｜tool▁sep｜>{"city": "Kyiv"}<｜tool▁call▁end｜><｜tool▁calls▁end｜>'
    )
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        upstream.scenes.append(Scene(say("Let me look.", *written)) if stream else whole({"content": "Let me look." + written}))
        status, answer, _ = await ds2d.ask(*question(dialect, stream=stream, forced=True))
        assert status == 200, answer
        text = str(answer)
        pieces = "".join(re.findall(r'"(?:arguments|partial_json)":"((?:[^"\\]|\\.)*)"', text))
        assert "weather" in text
        assert "Kyiv" in text + pieces
        assert "｜" not in text
        assert "tool▁" not in text


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_turn_that_calls_only_an_undeclared_tool_is_asked_once_more_and_then_said(
    tmp_path: Path, dialect: str, stream: bool
) -> None:
    call = [{"index": 0, "id": "call_1", "type": "function", "function": {"name": "hack", "arguments": "{}"}}]
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        scene = Scene(sse(chunk({"role": "assistant", "tool_calls": call}), chunk({}, "tool_calls"), usage()))
        upstream.scenes += [scene, scene] if stream else [whole({"content": None, "tool_calls": call}, "tool_calls")] * 2
        status, answer, _ = await ds2d.ask(*question(dialect, stream=stream, forced=False))
        assert len(upstream.seen) == 2
        assert "hack" not in str(answer)
        if dialect == "gemini":
            assert status == 200
            assert "UNEXPECTED_TOOL_CALL" in str(answer)
        else:
            assert status == 503
            assert answer["error"].get("code", "empty_answer") == "empty_answer"
        assert ds2d.daemon.queue.running == 0


async def test_without_parallel_calls_the_upstream_is_closed_after_the_first(tmp_path: Path) -> None:
    def call(index: int) -> dict[str, Any]:
        function = {"name": "weather", "arguments": '{"city": "Kyiv"}'}
        return chunk({"tool_calls": [{"index": index, "id": f"call_{index}", "type": "function", "function": function}]})

    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        path, body = question("chat", stream=True, forced=False)
        upstream.scenes.append(Scene(sse(call(0), call(1), chunk({}, "tool_calls"), usage())))
        status, answer, _ = await ds2d.ask(path, body | {"parallel_tool_calls": False})
        assert status == 200
        assert answer.count('"name":"weather"') == 1
        assert '"finish_reason":"tool_calls"' in answer
        assert "[DONE]" in answer


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("dialect", "model"), [("chat", "deepseek-reasoner"), ("claude", "claude-opus-4-6")])
async def test_a_name_that_thinks_gives_way_to_a_forced_call_where_a_server_has_not_both(
    tmp_path: Path, dialect: str, model: str, stream: bool
) -> None:
    """The DeepSeek API: only a request that asks for thinking itself keeps it, and does without the choice (mapping.md 4)."""
    asking: dict[str, Any] = {"thinking": {"type": "enabled"} | ({"budget_tokens": 1024} if dialect == "claude" else {})}
    async with scripted_upstream() as upstream:
        config = config_for(upstream.base_url)
        config["upstreams"][0]["flavour"] = "deepseek"
        async with running(tmp_path, config) as ds2d:
            path, body = question(dialect, stream=stream, forced=True)
            for more, thinks, choice in (({}, "disabled", "required"), (asking, "enabled", None)):
                await ds2d.ask(path, body | {"model": model} | more)
                sent = upstream.seen[-1].body
                assert (sent["thinking"], sent.get("tool_choice")) == ({"type": thinks}, choice)
