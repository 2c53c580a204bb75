"""Prompt-cache safety through the whole daemon: what the upstream was asked on one turn stands unchanged at the head of what it
is asked on the next, or its prefix cache is lost (recorded Claude Code sessions, and live ones of every dialect).
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.functional.harness import Running, config_for, running
from tests.functional.scenes import calling_whole
from tests.functional.scripted import ScriptedUpstream, scripted_upstream, whole

SESSIONS = sorted((Path(__file__).parent.parent / "golden" / "requests" / "claude" / "sessions").glob("*.json"))
RECORDED = {path.stem: json.loads(path.read_text())["turns"] for path in SESSIONS}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
CITIES = ("Köln", "Bonn", "Aachen")


def prompt(body: dict[str, Any]) -> str:
    """What the model is told, up to the end of the last message."""
    return json.dumps([body.get("tools"), body["messages"]], ensure_ascii=False).removesuffix("]]")


def assert_grows(upstream: ScriptedUpstream) -> None:
    prompts = [prompt(seen.body) for seen in upstream.seen]
    assert len(prompts) > 2
    for earlier, later in pairwise(prompts):
        assert later.startswith(earlier)
        assert len(later) > len(earlier)


@pytest.mark.parametrize("name", RECORDED)
async def test_a_recorded_claude_code_session_only_grows(tmp_path: Path, name: str) -> None:
    turns = RECORDED[name]
    config = {"images": {"on_text_model": "drop"}}
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url, **config)) as ds2d:
        for turn in turns:
            status, answer, _ = await ds2d.ask("/v1/messages?beta=true", turn)
            assert status == 200, answer
        assert len(upstream.seen) == len(turns)
        assert_grows(upstream)
        assert "x-anthropic-billing-header" in json.dumps(turns)
        assert "x-anthropic-billing-header" not in "".join(seen.raw.decode() for seen in upstream.seen)


async def chat(ds2d: Running) -> None:
    """Forgets the reasoning, as most chat clients do."""
    history: list[Any] = [{"role": "user", "content": "weather?"}]
    tools = [{"type": "function", "function": {"name": "get_weather", "parameters": SCHEMA}}]
    for _ in range(len(CITIES) + 1):
        _, answer, _ = await ds2d.ask("/v1/chat/completions", {"model": "deepseek-reasoner", "messages": history, "tools": tools})
        message = answer["choices"][0]["message"]
        message.pop("reasoning_content", None)
        calls = message.get("tool_calls") or ()
        history += [message, *({"role": "tool", "tool_call_id": call["id"], "content": "sunny"} for call in calls)]


async def claude(ds2d: Running) -> None:
    """Sends its thinking back; its billing line changes on every turn."""
    history: list[Any] = [{"role": "user", "content": "weather?"}]
    tools = [{"name": "get_weather", "input_schema": SCHEMA}]
    for number in range(len(CITIES) + 1):
        system = [
            {"type": "text", "text": f"x-anthropic-billing-header: cc_version=2.{number};"},
            {"type": "text", "text": "Be."},
        ]
        asked = {"model": "claude-opus-4-6", "max_tokens": 4000, "system": system, "messages": history, "tools": tools}
        _, answer, _ = await ds2d.ask("/v1/messages", asked)
        results = [
            {"type": "tool_result", "tool_use_id": block["id"], "content": "sunny"}
            for block in answer["content"]
            if block["type"] == "tool_use"
        ]
        history += [{"role": "assistant", "content": answer["content"]}, {"role": "user", "content": results}]


async def gemini(ds2d: Running) -> None:
    """Answers without the calls' ids, as automatic function calling does."""
    history: list[Any] = [{"role": "user", "parts": [{"text": "weather?"}]}]
    tools = [{"functionDeclarations": [{"name": "get_weather", "parametersJsonSchema": SCHEMA}]}]
    for _ in range(len(CITIES) + 1):
        asked = {"contents": history, "tools": tools, "generationConfig": {"thinkingConfig": {"includeThoughts": True}}}
        _, answer, _ = await ds2d.ask("/v1beta/models/gemini-2.5-pro:generateContent", asked)
        said = answer["candidates"][0]["content"]
        results = [
            {"functionResponse": {"name": part["functionCall"]["name"], "response": {"result": "sunny"}}}
            for part in said["parts"]
            if part.get("functionCall", {}).pop("id", None)
        ]
        history += [said, {"role": "user", "parts": results}]


async def stateless_responses(ds2d: Running) -> None:
    """Carries its own history, the reasoning in encrypted items, as Codex does."""
    history: list[Any] = [{"role": "user", "content": "weather?"}]
    await _responses(ds2d, history, {"store": False, "include": ["reasoning.encrypted_content"]})


async def chained_responses(ds2d: Running) -> None:
    """Sends only what is new."""
    await _responses(ds2d, None, {})


async def _responses(ds2d: Running, history: list[Any] | None, more: dict[str, Any]) -> None:
    tools = [{"type": "function", "name": "get_weather", "parameters": SCHEMA}]
    new: list[Any] = history or [{"role": "user", "content": "weather?"}]
    for _ in range(len(CITIES) + 1):
        asked = {"model": "deepseek-reasoner", "tools": tools, "input": history or new, **more}
        _, answer, _ = await ds2d.ask("/v1/responses", asked)
        calls = [item for item in answer["output"] if item["type"] == "function_call"]
        new = [{"type": "function_call_output", "call_id": call["call_id"], "output": "sunny"} for call in calls]
        if history is None:
            more = {"previous_response_id": answer["id"]}
        else:
            history += [*answer["output"], *new]


@pytest.mark.parametrize("session", [chat, claude, gemini, stateless_responses, chained_responses])
async def test_a_live_session_with_tools_and_thinking_only_grows(tmp_path: Path, session: Any) -> None:
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        for city in CITIES:
            scene = calling_whole(("get_weather", {"city": city}), text="I look.", reasoning=f"Is it nice in {city}?")
            scene.pieces = [scene.pieces[0].replace(b'"call_1"', f'"call_{city}"'.encode())]
            upstream.scenes.append(scene)
        upstream.scenes.append(whole({"content": "It is sunny."}))
        await session(ds2d)
        assert len(upstream.seen) == len(CITIES) + 1
        assert_grows(upstream)
        last = upstream.seen[-1].body["messages"]
        kept = [turn.get("reasoning") or turn.get("reasoning_content") for turn in last if turn["role"] == "assistant"]
        assert kept == [f"Is it nice in {city}?" for city in CITIES]
