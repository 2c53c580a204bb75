"""The official `openai` SDK's Responses helpers against the daemon (openai-responses.md). The store has its own tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import openai
import pydantic
import pytest

from tests.functional.harness import KEY, Running, config_for, running
from tests.functional.scenes import breaking, calling, calling_whole, dsml, saying, v31, written_as_text
from tests.functional.scripted import Scene, ScriptedUpstream, Wait, chunk, refuse, scripted_upstream, sse, usage, whole

ASK: dict[str, Any] = {"model": "deepseek-chat", "input": "Hello"}
WEATHER: Any = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    "strict": False,
}
KEPT: Any = ["reasoning.encrypted_content"]


@asynccontextmanager
async def setup(
    folder: Path, key: str = KEY, **sections: Any
) -> AsyncIterator[tuple[openai.AsyncOpenAI, ScriptedUpstream, Running]]:
    """The SDK, the upstream behind, and the daemon between."""
    async with (
        scripted_upstream() as upstream,
        running(folder, config_for(upstream.base_url, **sections)) as ds2d,
        openai.AsyncOpenAI(base_url=ds2d.url + "/v1", api_key=key, max_retries=0) as client,
    ):
        yield client, upstream, ds2d


def plain(message: dict[str, Any]) -> tuple[Any, Any]:
    return message["role"], message.get("content")


async def test_create_gives_the_text_and_the_numbers(tmp_path: Path) -> None:
    async with setup(tmp_path) as (client, upstream, _):
        made = await client.responses.create(
            **ASK, instructions="Be.", max_output_tokens=99, temperature=0.3, metadata={"a": "b"}
        )
        assert (made.output_text, made.status, made.model) == ("Hello from upstream.", "completed", "deepseek-chat")
        assert made.usage
        assert (made.usage.input_tokens, made.usage.output_tokens, made.usage.total_tokens) == (7, 5, 12)
        assert (made.instructions, made.metadata) == ("Be.", {"a": "b"})
        body = upstream.seen[0].body
        assert [plain(m) for m in body["messages"]] == [("system", "Be."), ("user", "Hello")]
        assert (body["max_tokens"], body["temperature"]) == (99, 0.3)


async def test_the_synchronous_client_gets_the_same(tmp_path: Path) -> None:
    def ask(url: str) -> tuple[str, str]:
        with openai.OpenAI(base_url=url + "/v1", api_key=KEY, max_retries=0) as client:
            with client.responses.stream(**ASK) as stream:
                pieces = [event.delta for event in stream if event.type == "response.output_text.delta"]
            return client.responses.create(**ASK).output_text, "".join(pieces)

    async with setup(tmp_path) as (_, _, ds2d):
        assert await asyncio.to_thread(ask, ds2d.url) == ("Hello from upstream.",) * 2


async def test_the_stream_helper_folds_reasoning_text_and_two_calls(tmp_path: Path) -> None:
    async with setup(tmp_path) as (client, upstream, _):
        calls = ("get_weather", {"city": "Köln"}), ("get_weather", {"city": "Bonn"})
        upstream.scenes.append(calling(*calls, text="I look.", reasoning="Hm."))
        async with client.responses.stream(**ASK, tools=[WEATHER]) as stream:
            events = [event async for event in stream]
            final = await stream.get_final_response()
        assert [event.sequence_number for event in events] == list(range(len(events)))
        assert [item.type for item in final.output] == ["reasoning", "message", "function_call", "function_call"]
        thought, _, *made = final.output
        assert thought.to_dict()["summary"] == [{"type": "summary_text", "text": "Hm."}]
        assert [call.to_dict()["arguments"] for call in made] == ['{"city": "Köln"}', '{"city": "Bonn"}']
        assert events[-1].type == "response.completed"


async def test_parse_sends_the_schema_and_gives_the_object(tmp_path: Path) -> None:
    class Person(pydantic.BaseModel):
        name: str
        age: int

    async with setup(tmp_path) as (client, upstream, _):
        upstream.scenes += [whole({"content": '{"name":"Ann","age":40}'}), saying('{"name":"Ann",', '"age":40}')]
        made = await client.responses.parse(**ASK, text_format=Person)
        async with client.responses.stream(**ASK, text_format=Person) as stream:
            streamed = await stream.get_final_response()
        assert made.output_parsed == streamed.output_parsed == Person(name="Ann", age=40)
        for seen in upstream.seen:
            assert seen.body["response_format"]["json_schema"]["name"] == "Person"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("stored", [False, True])
async def test_a_tools_loop_keeps_its_reasoning(tmp_path: Path, stream: bool, stored: bool) -> None:
    """Stored by the id of the response, stateless by the encrypted item that the client sends back."""
    async with setup(tmp_path) as (client, upstream, _):
        make = calling if stream else calling_whole
        upstream.scenes.append(make(("get_weather", {"city": "Köln"}), reasoning="It wants weather."))

        async def ask(items: Any, **more: Any) -> Any:
            asked: dict[str, Any] = {"model": "deepseek-chat", "tools": [WEATHER], "store": stored, "include": KEPT, **more}
            if not stream:
                return await client.responses.create(input=items, **asked)
            async with client.responses.stream(input=items, **asked) as helper:
                return await helper.get_final_response()

        start: list[Any] = [{"role": "user", "content": "weather?"}]
        first = await ask(start)
        thought, call = first.output
        assert (thought.type, call.type, call.name) == ("reasoning", "function_call", "get_weather")
        assert thought.encrypted_content
        result = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
        if stored:
            final = await ask([result], previous_response_id=first.id)
        else:
            final = await ask([*start, *(item.model_dump(exclude_none=True) for item in first.output), result])
        assert final.output_text == "Hello from upstream."
        user, turn, tool = upstream.seen[1].body["messages"]
        assert (plain(user), plain(tool)) == (("user", "weather?"), ("tool", "sunny"))
        assert tool["tool_call_id"] == turn["tool_calls"][0]["id"]
        assert "It wants weather." in (turn.get("reasoning"), turn.get("reasoning_content"))


@pytest.mark.parametrize("write", [dsml, v31])
async def test_a_call_written_as_text_is_a_function_call(tmp_path: Path, write: Any) -> None:
    async with setup(tmp_path) as (client, upstream, _):
        upstream.scenes.append(written_as_text("I look.\n\n" + write("get_weather", city="Köln")))
        async with client.responses.stream(**ASK, tools=[WEATHER]) as stream:
            text = "".join([event.delta async for event in stream if event.type == "response.output_text.delta"])
            final = await stream.get_final_response()
        assert text.strip() == "I look."
        call = final.output[-1]
        assert call.type == "function_call"
        assert call.name == "get_weather"
        assert call.arguments.replace(" ", "") == '{"city":"Köln"}'


async def test_background_work_is_polled_and_its_stream_resumed_anywhere(tmp_path: Path) -> None:
    wait = Wait()
    async with setup(tmp_path) as (client, upstream, _):
        first, *rest = sse(chunk({"role": "assistant", "content": "one "}), chunk({"content": "two"}), chunk({}, "stop"), usage())
        upstream.scenes.append(Scene([first, wait, *rest]))
        started = await client.responses.create(**ASK, background=True, stream=True)
        seen: list[Any] = []
        async for event in started:
            seen.append(event)
            if event.type == "response.output_text.delta":
                break
        await started.close()  # the client goes away in the middle
        run_id = seen[0].response.id
        assert (await client.responses.retrieve(run_id)).status == "in_progress"
        wait.until.set()
        resumed = await client.responses.retrieve(run_id, stream=True, starting_after=seen[-1].sequence_number)
        tail = [event async for event in resumed]
        assert [event.sequence_number for event in [*seen, *tail]] == list(range(len(seen) + len(tail)))
        assert tail[-1].type == "response.completed"
        assert tail[-1].response.output_text == "one two"
        again = [event async for event in await client.responses.retrieve(run_id, stream=True, starting_after=2)]
        assert again == [*seen, *tail][3:]
        done = await client.responses.retrieve(run_id)
        assert (done.status, done.background, done.output_text) == ("completed", True, "one two")


async def test_background_work_is_cancelled(tmp_path: Path) -> None:
    wait = Wait()
    async with setup(tmp_path) as (client, upstream, _):
        upstream.scenes.append(Scene([wait]))
        made = await client.responses.create(**ASK, background=True)
        await wait.reached.wait()
        assert (await client.responses.cancel(made.id)).status == "cancelled"
        async with asyncio.timeout(20):
            await upstream.seen[0].closed.wait()
        wait.until.set()


async def test_input_tokens_are_counted(tmp_path: Path) -> None:
    async with setup(tmp_path) as (client, _, _):
        short = await client.responses.input_tokens.count(**ASK)
        more = await client.responses.input_tokens.count(**ASK, instructions="Be brief and kind.")
        assert 0 < short.input_tokens < more.input_tokens


async def test_refusals_are_the_sdks_own_classes(tmp_path: Path) -> None:
    async with setup(tmp_path) as (client, upstream, _):
        with pytest.raises(openai.AuthenticationError):
            await client.with_options(api_key="sk-wrong").responses.create(**ASK)
        with pytest.raises(openai.NotFoundError) as unknown:
            await client.responses.create(model="deepseek-nope", input="Hello")
        assert unknown.value.code == "model_not_found"
        with pytest.raises(openai.BadRequestError) as bad:
            await client.responses.create(**ASK, max_output_tokens=1)
        assert bad.value.param == "max_output_tokens"
        assert upstream.seen == []
        upstream.scenes.append(refuse(429, {"error": {"message": "slow down"}}, Retry_After="7"))
        with pytest.raises(openai.RateLimitError) as limited:
            await client.responses.create(**ASK)
        assert limited.value.response.headers["retry-after"] == "7"
        with pytest.raises(openai.UnprocessableEntityError) as unmet:
            await client.responses.create(**ASK, tools=[WEATHER], tool_choice="required")
        assert unmet.value.code == "tool_choice_violation"


@pytest.mark.parametrize("mode", ["feature_match", "off"])
async def test_bare_text_for_a_custom_tool_is_its_input_and_completed(tmp_path: Path, mode: str) -> None:
    async with setup(tmp_path, toolcall={"mode": mode}) as (client, upstream, _):
        patch: Any = {"type": "custom", "name": "apply_patch"}
        for text in ("*** Begin Patch\n+x", "{a: 1}", "  x ", ""):
            call = {"index": 0, "id": "c", "type": "function", "function": {"name": "apply_patch", "arguments": text}}
            scene = sse(chunk({"role": "assistant", "tool_calls": [call]}), chunk({}, "tool_calls"), usage())
            upstream.scenes += [Scene(scene), whole({"content": None, "tool_calls": [call]}, finish="tool_calls")]
            streamed = [event async for event in await client.responses.create(**ASK, tools=[patch], stream=True)][-1]
            assert streamed.type == "response.completed"
            for made in (streamed.response, await client.responses.create(**ASK, tools=[patch])):
                (item,) = made.output
                assert (item.type, item.to_dict()["status"], item.to_dict()["input"]) == ("custom_tool_call", "completed", text)


async def test_a_stream_that_breaks_off_ends_as_failed_with_what_came(tmp_path: Path) -> None:
    async with setup(tmp_path) as (client, upstream, _):
        upstream.scenes.append(breaking("one ", "two"))
        events = [event async for event in await client.responses.create(**ASK, stream=True)]
        assert events[-1].type == "response.failed"
        failed = events[-1].response
        assert (failed.status, failed.output_text) == ("failed", "one two")
        assert failed.error
        assert failed.error.code == "server_error"


async def test_a_cut_answer_is_incomplete(tmp_path: Path) -> None:
    async with setup(tmp_path) as (client, upstream, _):
        upstream.scenes += [whole({"content": "one"}, finish="length")]
        made = await client.responses.create(**ASK)
        assert made.status == "incomplete"
        assert made.incomplete_details
        assert made.incomplete_details.reason == "max_output_tokens"
