"""The daemon in front of a real vLLM: real tokens, real timing, real markup of DeepSeek's (scripts/real-upstream).

The same questions go to servers with their own parsers and to one without any; what the client sees must not differ.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from scripts.real_upstream import texts
from tests.functional.harness import KEY, Running, config_for, running
from tests.functional.real_upstream import RealServer

PARSERS = ["v31", "r1", "v32", "v4"]
every_server = pytest.mark.parametrize("real_vllm", [*PARSERS, "none"], indirect=True)
bare_server = pytest.mark.parametrize("real_vllm", ["none"], indirect=True)
streamed = pytest.mark.parametrize("stream", [False, True])

WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": texts.WEATHER_NAME,
        "description": "The weather of the coming days",
        "parameters": {
            "type": "object",
            "properties": {"location": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["location", "days"],
        },
    },
}
TIME: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": texts.TIME_NAME,
        "parameters": {"type": "object", "properties": {"zone": {"type": "string"}}, "required": ["zone"]},
    },
}


@asynccontextmanager
async def before(server: RealServer, folder: Path, **sections: Any) -> AsyncIterator[tuple[openai.AsyncOpenAI, Running]]:
    """The daemon before this server, and the SDK before the daemon."""
    async with (
        running(folder, config_for(server.base_url, **sections)) as ds2d,
        openai.AsyncOpenAI(base_url=ds2d.url + "/v1", api_key=KEY, max_retries=0) as client,
    ):
        yield client, ds2d


class Answer:
    """One answer, whole or put together from its stream."""

    def __init__(self) -> None:
        self.reasoning = self.text = ""
        self.calls: dict[int, list[str]] = {}
        self.finish: str | None = None
        self.usage: Any = None

    @property
    def parsed(self) -> list[tuple[str, Any]]:
        return [(name, json.loads(arguments)) for name, arguments in self.calls.values()]


async def ask(client: openai.AsyncOpenAI, text: str, *, stream: bool, model: str = "deepseek-chat", **more: Any) -> Answer:
    """One question. The random parts of decoding are off."""
    question: Any = {"model": model, "messages": [{"role": "user", "content": text}], "temperature": 0, **more}
    answer = Answer()
    if not stream:
        whole = await client.chat.completions.create(**question)
        message: Any = whole.choices[0].message
        answer.text, answer.reasoning = message.content or "", getattr(message, "reasoning_content", "")
        answer.calls = {n: [call.function.name, call.function.arguments] for n, call in enumerate(message.tool_calls or [])}
        answer.finish, answer.usage = whole.choices[0].finish_reason, whole.usage
        return answer
    async for chunk in await client.chat.completions.create(**question, stream=True):
        delta: Any = chunk.choices[0].delta
        answer.text += delta.content or ""
        answer.reasoning += getattr(delta, "reasoning_content", None) or ""
        for call in delta.tool_calls or []:
            made = answer.calls.setdefault(call.index, [call.function.name, ""])
            made[1] += call.function.arguments or ""
        answer.finish, answer.usage = chunk.choices[0].finish_reason or answer.finish, chunk.usage or answer.usage
    return answer


@every_server
@streamed
async def test_a_plain_answer_arrives_word_for_word(real_vllm: RealServer, stream: bool, tmp_path: Path) -> None:
    async with before(real_vllm, tmp_path) as (client, _):
        answer = await ask(client, "Hello", stream=stream)
        assert (answer.text, answer.reasoning, answer.finish) == (texts.PLAIN, "", "stop")
        assert answer.usage.completion_tokens > 10
        assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


@every_server
@streamed
async def test_thinking_arrives_apart_with_or_without_the_servers_parser(
    real_vllm: RealServer, stream: bool, tmp_path: Path
) -> None:
    async with before(real_vllm, tmp_path) as (client, _):
        answer = await ask(client, "Hello", stream=stream, model="deepseek-reasoner")
        assert (answer.reasoning.strip(), answer.text) == (texts.THOUGHT, texts.PLAIN)


@every_server
@streamed
async def test_a_call_is_a_call_with_or_without_the_servers_parser(real_vllm: RealServer, stream: bool, tmp_path: Path) -> None:
    """Where no parser runs the tools are described in the prompt, and the text that the model writes becomes the call."""
    written = {"v31": "tool_v31", "r1": "tool_v3", "v32": "tool_v32", "v4": "tool_v4"}
    formats = [written[real_vllm.flavour]] if real_vllm.flavour != "none" else [*written.values(), "tool_json"]
    async with before(real_vllm, tmp_path) as (client, _):
        for script in formats:
            answer = await ask(client, f"Weather in Paris? #script:{script}", stream=stream, tools=[WEATHER])
            assert answer.parsed == [(texts.WEATHER_NAME, json.loads(texts.WEATHER_ARGUMENTS))], script
            assert answer.finish == "tool_calls"
            assert answer.text.strip() in (texts.LEAD, "")


@pytest.mark.parametrize("real_vllm", ["v31", "none"], indirect=True)
@streamed
async def test_two_calls_in_one_answer(real_vllm: RealServer, stream: bool, tmp_path: Path) -> None:
    """Without a parser the tools are kept out of the prompt too: a model this small loses its text behind a long one."""
    config = config_for(real_vllm.base_url)
    config["upstreams"][0]["tools"] = "auto" if real_vllm.flavour == "v31" else "off"
    async with before(real_vllm, tmp_path, upstreams=config["upstreams"]) as (client, _):
        answer = await ask(client, "Both, please #script:two_tools_v31", stream=stream, tools=[WEATHER, TIME])
        weather, time = answer.parsed
        assert weather == (texts.WEATHER_NAME, json.loads(texts.WEATHER_ARGUMENTS))
        assert time == (texts.TIME_NAME, json.loads(texts.TIME_ARGUMENTS))


@bare_server
@streamed
async def test_a_call_that_is_only_quoted_stays_text(real_vllm: RealServer, stream: bool, tmp_path: Path) -> None:
    async with before(real_vllm, tmp_path) as (client, _):
        answer = await ask(client, "How do calls look? #script:fenced_v31", stream=stream, tools=[WEATHER])
        assert answer.calls == {}
        assert "Nothing was called." in answer.text


@every_server
async def test_a_tools_result_goes_back(real_vllm: RealServer, tmp_path: Path) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": texts.WEATHER_NAME, "arguments": texts.WEATHER_ARGUMENTS}}
    history: Any = [
        {"role": "user", "content": "Weather in Paris?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "21 degrees"},
    ]
    async with before(real_vllm, tmp_path) as (client, _):
        if real_vllm.flavour == "none":  # the result is part of a user's message there: say which text is wanted
            history.append({"role": "user", "content": "And? #script:after_tool"})
        whole = await client.chat.completions.create(model="deepseek-chat", messages=history, tools=[WEATHER], temperature=0)
        assert whole.choices[0].message.content == texts.AFTER_TOOL


@bare_server
async def test_legacy_completions_take_text_lists_and_tokens(real_vllm: RealServer, tmp_path: Path) -> None:
    async with before(real_vllm, tmp_path) as (client, _):
        prompts: list[Any] = ["Hello", ["Hello", "Bye"], [19923, 14], [[19923], [14, 223]]]
        for prompt, count in zip(prompts, (1, 2, 1, 2), strict=True):
            answer = await client.completions.create(model="deepseek-chat", prompt=prompt, max_tokens=3, temperature=0)
            assert [choice.index for choice in answer.choices] == list(range(count))
            assert answer.usage is not None
        echoed = await client.completions.create(model="deepseek-chat", prompt="Hello", max_tokens=1, echo=True, logprobs=1)
        assert echoed.choices[0].text.startswith("Hello")
        assert echoed.choices[0].logprobs is not None


@bare_server
async def test_a_client_that_leaves_frees_the_gpu(real_vllm: RealServer, tmp_path: Path) -> None:
    async with before(real_vllm, tmp_path) as (client, ds2d):
        stream = await client.chat.completions.create(
            model="deepseek-chat",
            messages=[{"role": "user", "content": "Hello"}],
            stream=True,
            max_tokens=3000,
            extra_body={"ignore_eos": True},
        )
        async for _ in stream:
            break
        await stream.close()
        async with asyncio.timeout(5):
            while await running_requests(ds2d, real_vllm):  # noqa: ASYNC110 - another program, polled
                await asyncio.sleep(0.05)
        assert ds2d.daemon.queue.running == 0


async def running_requests(ds2d: Running, server: RealServer) -> float:
    async with ds2d.http.get(server.url + "/metrics") as reply:
        lines = (await reply.text()).splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("vllm:num_requests_running{"))


@pytest.mark.parametrize("real_vllm", ["v31"], indirect=True)
async def test_counts_are_what_the_server_then_reports(real_vllm: RealServer, tmp_path: Path) -> None:
    """Forty questions with tools, thinking and Chinese: `count_tokens` against the `prompt_tokens` of the same question."""
    tool: Any = {"name": "search", "description": "查找文件", "input_schema": WEATHER["function"]["parameters"]}
    async with (
        running(tmp_path, config_for(real_vllm.base_url)) as ds2d,
        anthropic.AsyncAnthropic(base_url=ds2d.url, api_key=KEY, max_retries=0) as claude,
    ):
        for number in range(40):
            text = f"Tell me about number {number}, please. " * (number + 1) + "请用中文回答。" * (number % 7)
            question: Any = {"model": "claude-sonnet-4-5", "messages": [{"role": "user", "content": text}]}
            question |= {"system": "You are brief."} if number % 2 else {}
            question |= {"thinking": {"type": "enabled", "budget_tokens": 1024}} if number % 3 == 0 else {}
            question |= {"tools": [tool]} if number % 4 == 0 else {}
            counted = (await claude.messages.count_tokens(**question)).input_tokens
            body = question | {"max_tokens": 1200, "temperature": 0}
            _, answer, _ = await ds2d.ask("/v1/messages", body)
            told = answer["usage"]["input_tokens"] + answer["usage"]["cache_read_input_tokens"]
            assert abs(counted - told) <= 0.02 * told, (number, counted, told)
