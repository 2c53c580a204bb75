"""Calls that did not come whole, in every dialect and mode: half of one never looks whole (mapping.md 7, toolcalls.md 3)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.functional.harness import config_for, running
from tests.functional.scripted import Scene, answer, chunk, scripted_upstream, sse, usage
from tests.functional.test_tool_choice import DIALECTS, question


def called(*arguments: str, finish: str, stream: bool, stop_reason: str | None = None) -> Scene:
    """An answer of native calls with these arguments, cut as they may be."""
    calls = [
        {"id": f"call_{number}", "type": "function", "function": {"name": "weather", "arguments": written}}
        for number, written in enumerate(arguments)
    ]
    if stream:
        events = [chunk({"tool_calls": [{"index": index, **call}]}) for index, call in enumerate(calls)]
        last = chunk({}, finish)
        last["choices"][0]["stop_reason"] = stop_reason
        return Scene(sse(*events, last, usage()))
    message = {"role": "assistant", "content": None, "tool_calls": calls}
    choice = {"index": 0, "message": message, "finish_reason": finish, "stop_reason": stop_reason}
    return answer({"object": "chat.completion", "model": "up", "choices": [choice], "usage": usage()["usage"]})


def written_in(said: Any) -> str:
    """The arguments that the client got, from a chat or Responses answer."""
    if isinstance(said, dict):
        calls = said["choices"][0]["message"]["tool_calls"] if "choices" in said else [{"function": said["output"][0]}]
        return str(calls[0]["function"]["arguments"])
    events = [json.loads(line[6:]) for line in said.splitlines() if line.startswith("data: {")]
    if "choices" not in events[0]:
        return str(events[-1]["response"]["output"][0]["arguments"])
    deltas = [choice["delta"] for event in events for choice in event["choices"]]
    return "".join(delta["tool_calls"][0]["function"]["arguments"] for delta in deltas if "tool_calls" in delta)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_call_that_a_stop_string_cut_off_is_not_closed(tmp_path: Path, dialect: str, stream: bool) -> None:
    """What lacks may be more than closers: the model would have gone on."""
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        cut = called('{"city": "Kyiv"', finish="stop", stop_reason=",", stream=stream)
        upstream.decide = lambda _: cut  # a whole answer that cannot be told is asked for again
        path, body = question(dialect, stream=stream, forced=False)
        status, said, _ = await ds2d.ask(path, body)
        if dialect == "claude":
            assert (status, "are not a JSON object" in str(said)) == (200 if stream else 503, True)
        elif dialect == "gemini":
            assert ("MALFORMED_FUNCTION_CALL" in str(said), "functionCall" in str(said)) == (True, False)
        else:
            assert written_in(said) == '{"city": "Kyiv"'


@pytest.mark.parametrize("stream", [False, True])
async def test_a_call_that_a_filter_cut_off_is_told_as_filtered(tmp_path: Path, stream: bool) -> None:
    """Nobody malformed it, and to ask again would not mend it."""
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        upstream.scenes.append(called('{"city": "Ky', finish="content_filter", stream=stream))
        status, said, _ = await ds2d.ask(*question("gemini", stream=stream, forced=False))
        assert status == 200, said
        assert ("SAFETY" in str(said), "MALFORMED" in str(said), "functionCall" in str(said)) == (True, False, False)


@pytest.mark.parametrize("stream", [False, True])
async def test_the_end_of_what_came_behind_the_only_call_is_not_the_answers(tmp_path: Path, stream: bool) -> None:
    """Without parallel calls the answer is over with the first, whether or not the server's further words came in time."""
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        upstream.scenes.append(called('{"city": "Kyiv"}', '{"city": "Lv', finish="length", stream=stream))
        path, body = question("chat", stream=stream, forced=False)
        status, said, _ = await ds2d.ask(path, body | {"parallel_tool_calls": False})
        assert (status, written_in(said)) == (200, '{"city": "Kyiv"}')
        assert "tool_calls" in str(said)
        assert "length" not in str(said)


async def test_a_fault_behind_the_only_call_is_not_the_answers(tmp_path: Path) -> None:
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        calls = {"tool_calls": [{"index": 0, "id": "call_0", "function": {"name": "weather", "arguments": '{"city": "Kyiv"}'}}]}
        behind = {"tool_calls": [{"index": 1, "id": "call_1", "function": {"name": "weather", "arguments": "{"}}]}
        upstream.scenes.append(Scene([b"".join(sse(chunk(calls), chunk(behind), chunk({}, "abort")))]))
        path, body = question("chat", stream=True, forced=False)
        status, said, _ = await ds2d.ask(path, body | {"parallel_tool_calls": False})
        assert (status, written_in(said), "[DONE]" in said) == (200, '{"city": "Kyiv"}', True)


@pytest.mark.parametrize("chained", [False, True])
@pytest.mark.parametrize("finish", ["length", "tool_calls"])
async def test_a_response_that_ended_in_half_a_call_can_be_continued(tmp_path: Path, finish: str, chained: bool) -> None:
    """Nobody can have run it, so it has no output, and the model need not see it again."""
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        upstream.scenes.append(called('{"city": "Kyiv"}', '{"city": "Lv', finish=finish, stream=False))
        path, body = question("responses", stream=False, forced=False)
        _, first, _ = await ds2d.ask(path, body)
        assert [item["status"] for item in first["output"]] == ["completed", "incomplete"]
        output = {"type": "function_call_output", "call_id": "call_0", "output": "Rain."}
        more = [output, {"role": "user", "content": "Go on."}]
        before = {"previous_response_id": first["id"], "input": more}
        if not chained:
            before = {"input": [{"role": "user", "content": "Weather?"}, *first["output"], *more]}
        status, said, _ = await ds2d.ask(path, body | before)
        assert status == 200, said
        messages = upstream.seen[-1].body["messages"]
        assert [message["role"] for message in messages] == ["user", "assistant", "tool", "user"]
        assert [call["id"] for call in messages[1]["tool_calls"]] == ["call_0"]
        late = [{"role": "user", "content": "Go on."}, {**output, "call_id": "call_1"}]
        status, said, _ = await ds2d.ask(path, body | {"previous_response_id": first["id"], "input": [output, *late]})
        assert (status, said["error"]["param"]) == (400, "input")
