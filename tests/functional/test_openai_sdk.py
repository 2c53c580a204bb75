"""The official `openai` SDK against the daemon: what its users would notice (openai-chat.md)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.functional.harness import KEY, Running, config_for, running
from tests.functional.scripted import ScriptedUpstream, scripted_upstream

HELLO: list[Any] = [{"role": "user", "content": "Hello"}]


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


async def test_a_streamed_answer_goes_through_every_layer(tmp_path: Path) -> None:
    async with setup(tmp_path) as (client, upstream, _):
        stream = await client.chat.completions.create(model="deepseek-chat", messages=HELLO, stream=True)
        chunks = [chunk async for chunk in stream]
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Hello from upstream."
        assert chunks[0].choices[0].delta.role == "assistant"
        assert chunks[-1].choices[0].finish_reason == "stop"
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.total_tokens == 12
        assert {chunk.model for chunk in chunks} == {"deepseek-chat"}
        assert upstream.seen[0].body["model"] == "deepseek-tiny"
        assert upstream.seen[0].body["stream_options"]["include_usage"] is True


async def test_a_whole_answer_is_the_same_answer(tmp_path: Path) -> None:
    async with setup(tmp_path) as (client, _, _):
        answer = await client.chat.completions.create(model="deepseek-chat", messages=HELLO)
        assert answer.choices[0].message.content == "Hello from upstream."
        assert answer.choices[0].finish_reason == "stop"
        assert answer.usage is not None
        assert answer.usage.prompt_tokens == 7


async def test_a_wrong_key_is_401_before_anything_is_asked(tmp_path: Path) -> None:
    async with setup(tmp_path, key="sk-wrong") as (client, upstream, _):
        with pytest.raises(openai.AuthenticationError) as caught:
            await client.chat.completions.create(model="deepseek-chat", messages=HELLO)
        assert caught.value.code == "invalid_api_key"
        assert caught.value.response.headers["www-authenticate"].startswith("Bearer")
        assert upstream.seen == []
