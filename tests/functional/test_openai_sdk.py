"""The official `openai` SDK, its async and its sync client, against the daemon: what its users would notice (openai-chat.md)."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from tests.functional.harness import KEY, Running, config_for, running
from tests.functional.scripted import (
    END,
    RESET,
    Scene,
    ScriptedUpstream,
    Wait,
    chunk,
    refuse,
    say,
    scripted_upstream,
    sse,
    usage,
    whole,
)

HELLO: list[Any] = [{"role": "user", "content": "Hello"}]
TOOLS: list[Any] = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}]
CALL = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": '{"a": 1}'}}
STREAMED_CALL = [
    chunk({"tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": {"name": "look", "arguments": ""}}]}),
    chunk({"tool_calls": [{"index": 0, "function": {"arguments": '{"a": '}}]}),
    chunk({"tool_calls": [{"index": 0, "function": {"arguments": "1}"}}]}),
    chunk({}, "tool_calls"),
]


@dataclass
class Setup:
    """One of the two clients, the upstream behind, and the daemon between."""

    client: Any
    upstream: ScriptedUpstream
    ds2d: Running

    async def call(self, method: Callable[..., Any], **arguments: Any) -> Any:
        """The same call on either client; a streamed answer comes as the list of its chunks."""

        def plain() -> Any:
            answer = method(**arguments)
            return list(answer) if arguments.get("stream") else answer

        if not inspect.iscoroutinefunction(inspect.unwrap(method)):
            return await asyncio.to_thread(plain)
        answer = await method(**arguments)
        return [piece async for piece in answer] if arguments.get("stream") else answer

    async def chat(self, *scenes: Scene, **arguments: Any) -> Any:
        self.upstream.scenes += scenes
        return await self.call(self.client.chat.completions.create, **{"model": "deepseek-chat", "messages": HELLO, **arguments})


@asynccontextmanager
async def setup(folder: Path, kind: str = "async", *, key: str = KEY, retries: int = 0, **sections: Any) -> AsyncIterator[Setup]:
    """The SDK against a daemon with these sections of config."""
    async with scripted_upstream() as upstream, running(folder, config_for(upstream.base_url, **sections)) as ds2d:
        made = openai.AsyncOpenAI if kind == "async" else openai.OpenAI
        client: Any = made(base_url=ds2d.url + "/v1", api_key=key, max_retries=retries)
        try:
            yield Setup(client, upstream, ds2d)
        finally:
            closed = client.close()
            if closed is not None:
                await closed


both = pytest.mark.parametrize("kind", ["async", "sync"])


@both
async def test_a_streamed_answer_goes_through_every_layer(tmp_path: Path, kind: str) -> None:
    async with setup(tmp_path, kind) as sdk:
        chunks = await sdk.chat(stream=True)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Hello from upstream."
        assert chunks[0].choices[0].delta.role == "assistant"
        assert chunks[-1].choices[0].finish_reason == "stop"
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.total_tokens == 12
        assert {chunk.model for chunk in chunks} == {"deepseek-chat"}
        assert sdk.upstream.seen[0].body["model"] == "deepseek-tiny"
        assert sdk.upstream.seen[0].body["stream_options"]["include_usage"] is True


@both
async def test_a_whole_answer_is_the_same_answer(tmp_path: Path, kind: str) -> None:
    async with setup(tmp_path, kind) as sdk:
        answer = await sdk.chat()
        assert answer.choices[0].message.content == "Hello from upstream."
        assert answer.choices[0].finish_reason == "stop"
        assert answer.usage.prompt_tokens == 7


@both
async def test_a_wrong_key_is_401_before_anything_is_asked(tmp_path: Path, kind: str) -> None:
    async with setup(tmp_path, kind, key="sk-wrong") as sdk:
        with pytest.raises(openai.AuthenticationError) as caught:
            await sdk.chat()
        assert caught.value.code == "invalid_api_key"
        assert caught.value.response.headers["www-authenticate"].startswith("Bearer")
        assert sdk.upstream.seen == []


@both
async def test_usage_comes_as_the_sdk_asked_for_it(tmp_path: Path, kind: str) -> None:
    async with setup(tmp_path, kind) as sdk:
        chunks = await sdk.chat(stream=True, stream_options={"include_usage": True})
        assert (chunks[-1].choices, chunks[-1].usage.total_tokens) == ([], 12)
        assert [chunk.usage for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)


@both
async def test_calls_and_reasoning_streamed_and_whole(tmp_path: Path, kind: str) -> None:
    async with setup(tmp_path, kind) as sdk:
        answer = await sdk.chat(whole({"content": None, "reasoning": "hm", "tool_calls": [CALL]}, "tool_calls"), tools=TOOLS)
        message = answer.choices[0].message
        assert (message.content, message.reasoning_content, answer.choices[0].finish_reason) == (None, "hm", "tool_calls")
        assert message.tool_calls[0].model_dump() == CALL
        scene = Scene(sse(chunk({"reasoning": "hm"}), *STREAMED_CALL, usage()))
        chunks = await sdk.chat(scene, tools=TOOLS, stream=True)
        deltas = [chunk.choices[0].delta for chunk in chunks]
        assert "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas) == "hm"
        parts = [delta.tool_calls[0] for delta in deltas if delta.tool_calls]
        assert (parts[0].id, parts[0].function.name) == ("call_1", "look")
        assert "".join(part.function.arguments for part in parts) == '{"a": 1}'
        history = [*HELLO, message.model_dump(exclude_none=True), {"role": "tool", "tool_call_id": "call_1", "content": "seen"}]
        assert (await sdk.chat(messages=history, tools=TOOLS)).choices[0].message.content == "Hello from upstream."


async def test_the_stream_helper_follows_every_event(tmp_path: Path) -> None:
    async with setup(tmp_path) as sdk:
        sdk.upstream.scenes.append(Scene(sse(chunk({"content": "I look."}), *STREAMED_CALL, usage())))
        async with sdk.client.chat.completions.stream(model="deepseek-chat", messages=HELLO, tools=TOOLS) as stream:
            kinds = [event.type async for event in stream]
            final = await stream.get_final_completion()
        assert "content.done" in kinds
        assert "tool_calls.function.arguments.done" in kinds
        assert final.choices[0].message.content == "I look."
        assert final.choices[0].message.tool_calls[0].function.arguments == '{"a": 1}'


@both
async def test_a_parsed_answer(tmp_path: Path, kind: str) -> None:
    class Place(BaseModel):
        name: str

    async with setup(tmp_path, kind) as sdk:
        sdk.upstream.scenes.append(whole({"content": '{"name": "Rome"}'}))
        parse = sdk.client.chat.completions.parse
        answer = await sdk.call(parse, model="deepseek-chat", messages=HELLO, response_format=Place)
        assert answer.choices[0].message.parsed == Place(name="Rome")
        assert sdk.upstream.seen[-1].body["response_format"]["json_schema"]["schema"]["properties"]["name"]["type"] == "string"


@both
async def test_legacy_completions(tmp_path: Path, kind: str) -> None:
    async with setup(tmp_path, kind) as sdk:
        sdk.upstream.answer_as_completion()
        create = sdk.client.completions.create
        answer = await sdk.call(create, model="deepseek-chat", prompt=[[1, 2]], echo=True)
        assert (answer.object, answer.choices[0].text, answer.usage.total_tokens) == (
            "text_completion",
            "Hello from upstream.",
            12,
        )
        chunks = await sdk.call(create, model="deepseek-chat", prompt="Hello", stream=True)
        assert "".join(chunk.choices[0].text for chunk in chunks) == "Hello from upstream."
        assert chunks[-1].choices[0].finish_reason == "stop"


@both
async def test_models_as_the_sdk_reads_them(tmp_path: Path, kind: str) -> None:
    async with setup(tmp_path, kind) as sdk:
        page = await (asyncio.to_thread(sdk.client.models.list) if kind == "sync" else sdk.client.models.list())
        assert {"deepseek-chat", "deepseek-tiny"} <= {model.id for model in page.data}
        assert (await sdk.call(sdk.client.models.retrieve, model="deepseek-tiny")).id == "deepseek-tiny"
        with pytest.raises(openai.NotFoundError):
            await sdk.call(sdk.client.models.retrieve, model="deepseek-nope")


ERRORS: list[tuple[dict[str, Any], list[Scene], type[openai.APIStatusError], str, str | None]] = [
    ({"temperature": 3}, [], openai.BadRequestError, "invalid_request", "temperature"),
    ({"model": "deepseek-nope"}, [], openai.NotFoundError, "model_not_found", "model"),
    (
        {},
        [refuse(400, {"error": {"message": "no", "param": "top_k"}})],
        openai.BadRequestError,
        "invalid_request",
        "top_k",
    ),
    (
        {},
        [refuse(400, {"error": {"message": "maximum context length is 10 tokens", "type": "BadRequestError", "code": 400}})],
        openai.BadRequestError,
        "context_length_exceeded",
        "messages",
    ),
    ({}, [refuse(429, {}, Retry_After="3")] * 3, openai.RateLimitError, "upstream_rate_limited", None),
    ({}, [refuse(500, {})] * 3, openai.InternalServerError, "upstream_error", None),
    ({}, [refuse(401, {})] * 3, openai.InternalServerError, "upstream_auth", None),
    ({}, [refuse(402, {})] * 3, openai.InternalServerError, "upstream_billing", None),
]


@both
async def test_errors_have_the_class_that_the_sdk_gives_their_status(tmp_path: Path, kind: str) -> None:
    async with setup(tmp_path, kind) as sdk:
        for stream in (False, True):
            for arguments, scenes, error, code, param in ERRORS:
                sdk.ds2d.daemon.queue.reset()
                with pytest.raises(error) as caught:
                    await sdk.chat(*scenes, stream=stream, **arguments)
                sdk.upstream.scenes.clear()
                assert (caught.value.code, caught.value.param) == (code, param)
                if caught.value.status_code in (429, 503):
                    assert 1 <= int(caught.value.response.headers["retry-after"]) <= 120


@both
@pytest.mark.parametrize("end", [END, RESET])
async def test_a_cut_stream_raises(tmp_path: Path, kind: str, end: object) -> None:
    async with setup(tmp_path, kind) as sdk:
        with pytest.raises(openai.APIError) as caught:
            await sdk.chat(Scene([*say("Hel", "lo")[:2], end]), stream=True)
        assert caught.value.code == "upstream_disconnected"


@both
async def test_the_sdk_retries_by_itself_and_then_has_its_answer(tmp_path: Path, kind: str) -> None:
    async with setup(tmp_path, kind, retries=2, runtime={"max_attempts": 1}) as sdk:
        answer = await sdk.chat(refuse(503, {}, Retry_After="1"))
        assert answer.choices[0].message.content == "Hello from upstream."
        assert len(sdk.upstream.seen) == 2


async def test_leaving_a_stream_early_frees_the_upstream(tmp_path: Path) -> None:
    async with setup(tmp_path) as sdk:
        sdk.upstream.scenes.append(Scene([*say("a")[:2], *[b": wait\n\n"] * 3, Wait()]))
        stream = await sdk.client.chat.completions.create(model="deepseek-chat", messages=HELLO, stream=True)
        async for _ in stream:
            break
        await stream.close()
        async with asyncio.timeout(20):
            await sdk.upstream.seen[0].closed.wait()


async def test_the_stream_helper_keeps_choices_apart_in_whatever_order_they_speak(tmp_path: Path) -> None:
    async with setup(tmp_path) as here:
        said = [chunk({"content": text}, index=index) for index, text in ((2, "c"), (1, "b"), (2, "C"), (0, "a"), (1, "B"))]
        ends = [chunk({}, "stop", index=index) for index in (2, 0, 1)]
        here.upstream.scenes.append(Scene(sse(*said, *ends, usage())))
        async with here.client.chat.completions.stream(model="deepseek-chat", messages=HELLO, n=3) as stream:
            made = await stream.get_final_completion()
        assert [(choice.index, choice.message.content) for choice in made.choices] == [(0, "a"), (1, "bB"), (2, "cC")]


async def test_a_refusal_that_was_streamed_goes_back_as_what_was_said(tmp_path: Path) -> None:
    async with setup(tmp_path) as here:
        for words in ([], [chunk({"content": "Hm. "})]):
            said = [*words, chunk({"refusal": "I will"}), chunk({"refusal": " not."}), chunk({}, "stop"), usage()]
            here.upstream.scenes.append(Scene(sse(*said)))
            async with here.client.chat.completions.stream(model="deepseek-chat", messages=HELLO) as stream:
                made = (await stream.get_final_completion()).choices[0].message
            assert made.refusal == "I will not."
            await here.chat(messages=[*HELLO, made.to_dict(), *HELLO])
            whole_text = f"{made.content or ''}I will not."
            assert here.upstream.seen[-1].body["messages"][1] == {"role": "assistant", "content": whole_text}
