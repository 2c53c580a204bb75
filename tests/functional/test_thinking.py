"""Thinking of every kind of server reaches the client under one name, split off once (upstreams.md 1, 4)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.functional.harness import Running, config_for, running
from tests.functional.scripted import Scene, Seen, chunk, say, scripted_upstream, sse, whole

RAW = "I think.\nHard.</think>\n\nHello."


async def ask(ds2d: Running, *, stream: bool, model: str = "deepseek-reasoner", begun: str = "", **more: Any) -> tuple[str, str]:
    """Reasoning and text of one answer, of which the client may have written the beginning."""
    body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": "Hello"}], "stream": stream, **more}
    body["messages"] += [{"role": "assistant", "content": begun, "prefix": True}] * bool(begun)
    status, answer, _ = await ds2d.ask("/v1/chat/completions", body)
    assert status == 200, answer
    if not stream:
        message = answer["choices"][0]["message"]
        return message.get("reasoning_content", ""), message["content"]
    deltas = [json.loads(line[6:])["choices"][0]["delta"] for line in answer.splitlines() if line.startswith("data: {")]
    return tuple("".join(delta.get(name) or "" for delta in deltas) for name in ("reasoning_content", "content"))  # type: ignore[return-value]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("setting", ["auto", "yes"])
async def test_raw_thinking_of_a_server_without_a_parser_is_split_off(tmp_path: Path, stream: bool, setting: str) -> None:
    async with scripted_upstream() as upstream:
        config = config_for(upstream.base_url)
        config["upstreams"][0]["think_tags"] = setting
        async with running(tmp_path, config) as ds2d:
            for _ in range(2):  # the second time it is known how such answers begin
                upstream.scenes.append(Scene(say(*RAW)) if stream else whole({"content": RAW}))
                assert await ask(ds2d, stream=stream) == ("I think.\nHard.", "Hello.")


@pytest.mark.parametrize("stream", [False, True])
async def test_a_parser_of_the_servers_own_is_believed(tmp_path: Path, stream: bool) -> None:
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        for text in ("Hello.", "Tags like </think> are text."):
            upstream.scenes.append(
                Scene(say(text, reasoning=("hm", "m"))) if stream else whole({"reasoning": "hmm", "content": text})
            )
            assert await ask(ds2d, stream=stream) == ("hmm", text)


async def test_a_model_that_thinks_off_streams_at_once(tmp_path: Path) -> None:
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        upstream.scenes.append(Scene(say("Hello", ".")))
        assert await ask(ds2d, stream=True, model="deepseek-chat") == ("", "Hello.")
        assert upstream.seen[0].body["chat_template_kwargs"]["thinking"] is False


CALL = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "now", "arguments": "{}"}}
NOW = [{"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties": {}}}}]
UNLUCKY = {
    "cut by the length": Scene(say("H", finish="length")),
    "a call": Scene(sse(chunk({"content": "Hm"}), chunk({"tool_calls": [CALL]}), chunk({}, "tool_calls"))),
    "a call written as text": Scene(say('Hm <tool_call>{"name": "now", "arguments": {}}</tool_call>')),
    "broken off": Scene(sse(chunk({"content": "Hm"}), {"error": {"message": "x", "code": 500}}, done=False)),
    "text about tags": Scene(say("In R1 output, ", "</think> ends the thinking part.")),
}


@pytest.mark.parametrize("unlucky", UNLUCKY)
async def test_an_answer_that_proves_nothing_teaches_nothing(tmp_path: Path, unlucky: str) -> None:
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        upstream.scenes.append(UNLUCKY[unlucky])
        body = {"model": "deepseek-reasoner", "messages": [{"role": "user", "content": "?"}], "stream": True, "tools": NOW}
        await ds2d.ask("/v1/chat/completions", body)
        for stream in (True, False):
            upstream.scenes.append(Scene(say(*RAW)) if stream else whole({"content": RAW}))
            assert await ask(ds2d, stream=stream) == ("I think.\nHard.", "Hello.")


async def test_what_was_learnt_wrongly_is_forgotten_with_the_next_answer(tmp_path: Path) -> None:
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:

        async def answer(text: str, *, stream: bool = True) -> tuple[str, str]:
            upstream.scenes.append(Scene(say(*text)) if stream else whole({"content": text}))
            return await ask(ds2d, stream=stream)

        assert await answer("Plain.") == ("", "Plain.")  # learnt: answers begin outside
        assert await answer(RAW) == ("", RAW)  # what streams is out; nothing is known then
        assert await answer("Plain.") == ("", "Plain.")
        assert await answer(RAW, stream=False) == ("I think.\nHard.", "Hello.")  # a whole one is judged by itself
        assert await answer(RAW) == ("I think.\nHard.", "Hello.")
        assert await answer("Plain.", stream=False) == ("", "Plain.")  # learnt by now: inside; a whole one is not lost
        assert await answer(RAW) == ("I think.\nHard.", "Hello.")
        assert await answer("Plain.") == ("Plain.", "Plain.")  # a stream that was taken for thoughts is not, either
        assert await answer("Plain.") == ("", "Plain.")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("setting", ["auto", "yes"])
async def test_an_answer_that_the_client_began_goes_on_where_that_stops(tmp_path: Path, stream: bool, setting: str) -> None:
    """Nobody opens a thought for the model there: its answer was taken for one, and shown as none, or twice."""
    async with scripted_upstream() as upstream:
        config = config_for(upstream.base_url)
        config["upstreams"][0]["think_tags"] = setting
        async with running(tmp_path, config) as ds2d:
            upstream.scenes.append(whole({"content": RAW}))
            assert await ask(ds2d, stream=False) == ("I think.\nHard.", "Hello.")  # learnt: answers begin inside
            for begun, text, found in (
                ("Ber", "lin is it.", ("", "lin is it.")),
                ("<think>I", " think.</think>Hello.", (" think.", "Hello.")),
                ("<think>I think.</think>Hel", "lo.", ("", "lo.")),
            ):
                upstream.scenes.append(Scene(say(*text)) if stream else whole({"content": text}))
                assert await ask(ds2d, stream=stream, begun=begun) == found
            vllms = {"continue_final_message": True, "add_generation_prompt": False}
            history = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "Ber"}]
            upstream.scenes.append(Scene(say("lin.")) if stream else whole({"content": "lin."}))
            assert await ask(ds2d, stream=stream, messages=history, **vllms) == ("", "lin.")
            upstream.scenes.append(Scene(say(*RAW)))
            assert await ask(ds2d, stream=True) == ("I think.\nHard.", "Hello.")  # and that still holds


WISHES: dict[str, dict[str, Any]] = {
    "nothing": {},
    "a wish for it": {"thinking": {"type": "enabled"}},
    "a wish against it": {"reasoning_effort": "none"},
    "a template's argument for it": {"chat_template_kwargs": {"thinking": True}},
    "another against it": {"chat_template_kwargs": {"enable_thinking": False}},
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("setting", ["auto", "yes"])
@pytest.mark.parametrize("wish", WISHES)
async def test_an_answer_is_read_as_the_server_was_told_to_think(tmp_path: Path, wish: str, setting: str, stream: bool) -> None:
    """Whatever said so: the model's name, its entry, the client's wish, or template arguments of the client's own."""

    def think(seen: Seen) -> Scene:
        told = [told for told in seen.body.get("chat_template_kwargs", {}).values() if isinstance(told, bool)]
        text = RAW if told and told[0] else "Hello."
        return Scene(say(*text)) if seen.body.get("stream") else whole({"content": text})

    async with scripted_upstream() as upstream:
        upstream.decide = think
        models: dict[str, Any] = {name: {"upstream": "gpu", "model": "deepseek-tiny", "thinking": name} for name in ("off", "on")}
        constant = {"chat_template_kwargs": dict.fromkeys(("thinking", "enable_thinking"), True)}
        models["constant"] = {"upstream": "gpu", "model": "deepseek-tiny", "extra_body": constant}
        config = config_for(upstream.base_url, models=models)
        config["upstreams"][0]["think_tags"] = setting
        async with running(tmp_path, config) as ds2d:
            for model in ("deepseek-chat", "deepseek-reasoner", *models):
                found = await ask(ds2d, stream=stream, model=model, **WISHES[wish])
                told = [told for told in upstream.seen[-1].body["chat_template_kwargs"].values() if isinstance(told, bool)]
                assert found == (("I think.\nHard.", "Hello.") if told[0] else ("", "Hello.")), model
