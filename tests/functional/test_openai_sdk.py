"""The official `openai` SDK against the daemon: what its users would notice (openai-chat.md)."""

from __future__ import annotations

from pathlib import Path

import openai
import pytest

from tests.functional.harness import KEY, config_for, running
from tests.functional.scripted import chunk, say, scripted_upstream, sse, usage, whole, Scene


async def test_a_streamed_answer_goes_through_every_layer(tmp_path: Path) -> None:
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        client = openai.AsyncOpenAI(base_url=ds2d.url + "/v1", api_key=KEY)
        stream = await client.chat.completions.create(
            model="deepseek-chat", messages=[{"role": "user", "content": "Hello"}], stream=True
        )
        chunks = [chunk async for chunk in stream]
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Hello from upstream."
        assert chunks[0].choices[0].delta.role == "assistant"
        assert chunks[-1].choices[0].finish_reason == "stop"
        assert chunks[-1].usage is not None and chunks[-1].usage.total_tokens == 12
        assert {chunk.model for chunk in chunks} == {"deepseek-chat"}
        assert upstream.seen[0].body["model"] == "deepseek-tiny"
        assert upstream.seen[0].body["stream_options"]["include_usage"] is True


async def test_a_whole_answer_is_the_same_answer(tmp_path: Path) -> None:
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        client = openai.AsyncOpenAI(base_url=ds2d.url + "/v1", api_key=KEY)
        answer = await client.chat.completions.create(model="deepseek-chat", messages=[{"role": "user", "content": "Hello"}])
        assert answer.choices[0].message.content == "Hello from upstream."
        assert answer.choices[0].finish_reason == "stop"
        assert answer.usage is not None and answer.usage.prompt_tokens == 7


async def test_a_wrong_key_is_401_before_anything_is_asked(tmp_path: Path) -> None:
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        client = openai.AsyncOpenAI(base_url=ds2d.url + "/v1", api_key="sk-wrong", max_retries=0)
        with pytest.raises(openai.AuthenticationError) as caught:
            await client.chat.completions.create(model="deepseek-chat", messages=[{"role": "user", "content": "Hello"}])
        assert caught.value.code == "invalid_api_key"
        assert caught.value.response.headers["www-authenticate"].startswith("Bearer")
        assert upstream.seen == []
