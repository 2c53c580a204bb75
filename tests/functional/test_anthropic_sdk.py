"""The official `anthropic` SDK against the daemon: what its users would notice (anthropic-messages.md)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anthropic
import pydantic
import pytest
from anthropic import beta_async_tool, beta_tool

from tests.functional.harness import KEY, Running, config_for, running
from tests.functional.scenes import breaking, calling, calling_whole, dsml, saying, v31, written_as_text
from tests.functional.scripted import ScriptedUpstream, refuse, scripted_upstream, whole

HELLO: list[Any] = [{"role": "user", "content": "Hello"}]
ASK: dict[str, Any] = {"model": "claude-sonnet-4-6", "max_tokens": 4000, "messages": HELLO}
WEATHER: dict[str, Any] = {
    "name": "get_weather",
    "description": "The weather of a city.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
THINK: Any = {"type": "enabled", "budget_tokens": 1024}


@asynccontextmanager
async def setup(
    folder: Path, key: str = KEY, path: str = "", **sections: Any
) -> AsyncIterator[tuple[anthropic.AsyncAnthropic, ScriptedUpstream, Running]]:
    """The SDK, the upstream behind, and the daemon between."""
    async with (
        scripted_upstream() as upstream,
        running(folder, config_for(upstream.base_url, **sections)) as ds2d,
        anthropic.AsyncAnthropic(base_url=ds2d.url + path, api_key=key, max_retries=0) as client,
    ):
        yield client, upstream, ds2d


@pytest.mark.parametrize("path", ["", "/anthropic"])
async def test_a_whole_answer(tmp_path: Path, path: str) -> None:
    async with setup(tmp_path, path=path) as (client, upstream, _):
        message = await client.messages.create(**ASK, system=[{"type": "text", "text": "Be."}])
        assert [block.to_dict() for block in message.content] == [{"type": "text", "text": "Hello from upstream."}]
        assert (message.role, message.stop_reason, message.model) == ("assistant", "end_turn", "claude-sonnet-4-6")
        assert (message.usage.input_tokens, message.usage.output_tokens) == (7, 5)
        assert message._request_id
        assert message._request_id.startswith("req_")
        assert [m["role"] for m in upstream.seen[0].body["messages"]] == ["system", "user"]


async def test_the_synchronous_client_gets_the_same(tmp_path: Path) -> None:
    def ask(url: str) -> tuple[str, list[str]]:
        with anthropic.Anthropic(base_url=url, api_key=KEY, max_retries=0) as client:
            message = client.messages.create(**ASK)
            with client.messages.stream(**ASK) as stream:
                return message.content[0].to_dict()["text"], list(stream.text_stream)  # type: ignore[return-value]

    async with setup(tmp_path) as (_, _, ds2d):
        text, pieces = await asyncio.to_thread(ask, ds2d.url)
        assert text == "".join(pieces) == "Hello from upstream."
        assert len(pieces) == 3


async def test_raw_stream_events_come_in_the_documented_order(tmp_path: Path) -> None:
    async with setup(tmp_path) as (client, _, _):
        stream = await client.messages.create(**ASK, stream=True)
        events = [event async for event in stream]
        kinds = [event.type for event in events]
        assert kinds[:2] == ["message_start", "content_block_start"]
        assert kinds[2:-3] == ["content_block_delta"] * (len(kinds) - 5)
        assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]


async def test_the_stream_helper_folds_thinking_text_and_two_calls(tmp_path: Path) -> None:
    async with setup(tmp_path) as (client, upstream, _):
        upstream.scenes.append(
            calling(("get_weather", {"city": "Köln"}), ("get_weather", {"city": "Bonn"}), text="I look.", reasoning="Hm.")
        )
        thoughts: list[str] = []
        inputs: list[Any] = []
        async with client.messages.stream(**ASK, tools=[WEATHER], thinking=THINK) as stream:  # type: ignore[list-item]
            async for event in stream:
                if event.type == "thinking":
                    thoughts.append(event.thinking)
                if event.type == "content_block_stop" and event.content_block.type == "tool_use":
                    inputs.append(event.content_block.input)
            message = await stream.get_final_message()
        assert thoughts == ["Hm."]
        assert inputs == [{"city": "Köln"}, {"city": "Bonn"}]
        assert [block.type for block in message.content] == ["thinking", "text", "tool_use", "tool_use"]
        assert message.stop_reason == "tool_use"
        assert (message.usage.input_tokens, message.usage.output_tokens) == (7, 5)


async def test_thinking_goes_back_with_its_tool_turn(tmp_path: Path) -> None:
    async with setup(tmp_path) as (client, upstream, _):
        upstream.scenes.append(calling_whole(("get_weather", {"city": "Köln"}), reasoning="It wants weather."))
        first = await client.messages.create(**ASK, tools=[WEATHER], thinking=THINK)  # type: ignore[list-item]
        use = first.content[1]
        assert (first.content[0].type, use.type) == ("thinking", "tool_use")
        history: list[Any] = [
            *HELLO,
            {"role": "assistant", "content": first.content},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": use.id, "content": "sunny"}]},  # type: ignore[union-attr]
        ]
        await client.messages.create(**{**ASK, "messages": history}, tools=[WEATHER], thinking=THINK)  # type: ignore[list-item]
        turn, answer = upstream.seen[1].body["messages"][-2:]
        assert "It wants weather." in (turn.get("reasoning"), turn.get("reasoning_content"))
        assert (answer["role"], answer["content"]) == ("tool", "sunny")
        assert answer["tool_call_id"] == turn["tool_calls"][0]["id"]


async def test_thinking_is_hidden_where_nobody_asked_for_it(tmp_path: Path) -> None:
    async with setup(tmp_path) as (client, upstream, _):
        upstream.scenes += [saying("Yes.", reasoning=("Hm.",)), saying("Yes.", reasoning=("Hm.",))]
        async with client.messages.stream(**ASK, thinking={"type": "disabled"}) as stream:
            assert [block.type for block in (await stream.get_final_message()).content] == ["text"]
        async with client.messages.stream(**{**ASK, "model": "claude-opus-4-6"}) as stream:
            assert [block.type for block in (await stream.get_final_message()).content] == ["thinking", "text"]


@pytest.mark.parametrize("write", [dsml, v31])
async def test_a_call_written_as_text_is_a_tool_use(tmp_path: Path, write: Any) -> None:
    async with setup(tmp_path) as (client, upstream, _):
        upstream.scenes.append(written_as_text("I look.\n\n" + write("get_weather", city="Köln")))
        async with client.messages.stream(**ASK, tools=[WEATHER]) as stream:  # type: ignore[list-item]
            message = await stream.get_final_message()
        text, use = message.content
        assert text.type == "text"
        assert text.text.strip() == "I look."
        assert use.type == "tool_use"
        assert (use.name, use.input) == ("get_weather", {"city": "Köln"})
        assert message.stop_reason == "tool_use"


@beta_async_tool
async def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"sunny in {city}"


@pytest.mark.parametrize("stream", [False, True])
async def test_the_tool_runner_gives_up_its_thread_and_sends_everything_again(tmp_path: Path, stream: bool) -> None:
    async with setup(tmp_path) as (client, upstream, _):
        make = calling if stream else calling_whole
        upstream.scenes.append(make(("get_weather", {"city": "Köln"})))
        runner = client.beta.messages.tool_runner(**ASK, tools=[get_weather], stream=stream)
        final = await runner.until_done()
        assert final.content[0].to_dict()["text"] == "Hello from upstream."
        roles = [[m["role"] for m in seen.body["messages"]] for seen in upstream.seen]
        assert roles == [["user"], ["user", "assistant", "tool"]]
        assert upstream.seen[1].body["messages"][2]["content"] == "sunny in Köln"
        assert upstream.seen[1].body["tools"] == upstream.seen[0].body["tools"]


@beta_tool
def look_outside(city: str) -> str:
    """The weather of a city."""
    return f"sunny in {city}"


async def test_the_synchronous_tool_runner_does_the_same(tmp_path: Path) -> None:
    def run(url: str) -> Any:
        with anthropic.Anthropic(base_url=url, api_key=KEY, max_retries=0) as client:
            return client.beta.messages.tool_runner(**ASK, tools=[look_outside]).until_done()

    async with setup(tmp_path) as (_, upstream, ds2d):
        upstream.scenes.append(calling_whole(("look_outside", {"city": "Köln"})))
        final = await asyncio.to_thread(run, ds2d.url)
        assert final.content[0].text == "Hello from upstream."
        assert upstream.seen[1].body["messages"][-1]["content"] == "sunny in Köln"


async def test_a_thread_is_refused_in_the_words_that_the_sdk_understands(tmp_path: Path) -> None:
    async with setup(tmp_path) as (client, upstream, _):
        with pytest.raises(anthropic.BadRequestError) as refused:
            await client.messages.create(**ASK, extra_body={"thread": {"type": "create"}})
        details = refused.value.body["error"]["details"]  # type: ignore[index]
        assert details == {"error_code": "thread_unsupported_request", "unsupported": ["thread"]}
        assert upstream.seen == []


class Person(pydantic.BaseModel):
    name: str
    age: int


async def test_parse_sends_the_schema_and_gives_the_object(tmp_path: Path) -> None:
    async with setup(tmp_path) as (client, upstream, _):
        upstream.scenes.append(whole({"content": '{"name":"Ann","age":40}'}))
        parsed = await client.messages.parse(**ASK, output_format=Person)
        assert parsed.parsed_output == Person(name="Ann", age=40)
        form = upstream.seen[0].body["response_format"]
        assert form["type"] == "json_schema"
        assert set(form["json_schema"]["schema"]["properties"]) == {"name", "age"}


async def test_tokens_are_counted(tmp_path: Path) -> None:
    async with setup(tmp_path) as (client, _, _):
        ask: dict[str, Any] = {"model": ASK["model"], "messages": HELLO}
        short = await client.messages.count_tokens(**ask)
        more = await client.messages.count_tokens(**ask, system="Be brief and kind.", tools=[WEATHER])
        assert 0 < short.input_tokens < more.input_tokens


async def test_models_are_listed_in_pages_and_found(tmp_path: Path) -> None:
    async with setup(tmp_path) as (client, _, _):
        page = await client.models.list(limit=3)
        assert len(page.data) == 3
        assert page.has_more
        assert page.last_id == page.data[-1].id
        everything = [model.id async for model in client.models.list(limit=7)]
        assert len(everything) == len(set(everything)) > 7
        assert everything[:3] == [model.id for model in page.data]
        assert "claude-sonnet-4-6" in everything
        found = await client.models.retrieve("claude-sonnet-4-6")
        assert (found.id, found.type) == ("claude-sonnet-4-6", "model")
        with pytest.raises(anthropic.NotFoundError) as caught:
            await client.models.retrieve("deepseek-nope")
        assert caught.value.body["error"]["type"] == "not_found_error"  # type: ignore[index]
        assert caught.value.request_id


async def test_refusals_are_the_sdks_own_classes(tmp_path: Path) -> None:
    async with setup(tmp_path) as (client, upstream, _):
        with pytest.raises(anthropic.AuthenticationError):
            await client.with_options(api_key="sk-wrong").messages.create(**ASK)
        with pytest.raises(anthropic.NotFoundError) as unknown:
            await client.messages.create(**{**ASK, "model": "deepseek-nope"})
        assert unknown.value.body["error"]["type"] == "not_found_error"  # type: ignore[index]
        with pytest.raises(anthropic.BadRequestError, match="messages"):
            await client.messages.create(**{**ASK, "messages": []})
        assert upstream.seen == []
        too_long = "This model's maximum context length is 4096 tokens. However, your request has 5000 input tokens."
        upstream.scenes.append(refuse(400, {"error": {"message": too_long, "type": "BadRequestError", "code": 400}}))
        with pytest.raises(anthropic.BadRequestError, match="prompt is too long: 5000 tokens > 4096 maximum"):
            await client.messages.create(**ASK)
        upstream.scenes.append(refuse(429, {"error": {"message": "slow down"}}, Retry_After="7"))
        with pytest.raises(anthropic.RateLimitError) as limited:
            await client.messages.create(**ASK)
        assert limited.value.response.headers["retry-after"] == "7"
        upstream.scenes += [refuse(500, {"error": {"message": "oops"}})] * 5
        with pytest.raises(anthropic.InternalServerError) as failed:
            await client.messages.create(**ASK)
        assert failed.value.status_code == 503
        assert failed.value.request_id


async def test_an_upstream_that_breaks_off_raises_after_what_it_said(tmp_path: Path) -> None:
    async with setup(tmp_path) as (client, upstream, _):
        upstream.scenes.append(breaking("one ", "two"))
        said: list[str] = []

        async def listen() -> None:
            async with client.messages.stream(**ASK) as stream:
                async for text in stream.text_stream:
                    said.append(text)  # noqa: PERF401 - what came before the exception counts

        with pytest.raises(anthropic.APIStatusError) as caught:
            await listen()
        assert "".join(said) == "one two"
        assert caught.value.body["error"]["type"] == "api_error"  # type: ignore[index]


async def test_what_was_asked_for_reaches_the_upstream(tmp_path: Path) -> None:
    async with setup(tmp_path) as (client, upstream, _):
        await client.messages.create(
            **ASK,
            stop_sequences=["END"],
            tools=[WEATHER],  # type: ignore[list-item]
            tool_choice={"type": "auto", "disable_parallel_tool_use": True},
            extra_body={"temperature": 0.3, "top_k": 5},
        )
        body = upstream.seen[0].body
        assert (body["stop"], body["temperature"], body["top_k"], body["max_tokens"]) == (["END"], 0.3, 5, 4000)
        assert body["parallel_tool_calls"] is False
        assert body["tools"][0]["function"]["parameters"] == WEATHER["input_schema"]


@pytest.mark.parametrize(("model", "wanted"), [("claude-opus-4-6", "high"), ("claude-sonnet-4-6", "none")])
async def test_an_effort_alone_counts_where_the_models_name_thinks(tmp_path: Path, model: str, wanted: str) -> None:
    async with setup(tmp_path) as (client, upstream, _):
        await client.messages.create(**ASK | {"model": model}, output_config={"effort": "high"})
        assert upstream.seen[0].body["reasoning_effort"] == wanted
