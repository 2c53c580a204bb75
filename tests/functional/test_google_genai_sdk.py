"""The official `google-genai` SDK against the daemon: what its users would notice (gemini.md)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pydantic
import pytest
from google import genai
from google.genai import errors, types

from tests.functional.harness import KEY, Running, config_for, running
from tests.functional.scenes import breaking, calling, calling_whole, dsml, saying, v31, written_as_text
from tests.functional.scripted import ScriptedUpstream, refuse, scripted_upstream, whole

# The SDK subclasses aiohttp's session, which aiohttp does not like.
pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning")

MODEL = "gemini-2.5-flash"
VERSIONS = ["v1", "v1beta"]
THINK = types.ThinkingConfig(include_thoughts=True, thinking_budget=1024)


def client_for(url: str, key: str = KEY, version: str = "v1beta") -> genai.Client:
    return genai.Client(api_key=key, http_options=types.HttpOptions(base_url=url, api_version=version))


@asynccontextmanager
async def setup(
    folder: Path, key: str = KEY, version: str = "v1beta", **sections: Any
) -> AsyncIterator[tuple[genai.client.AsyncClient, ScriptedUpstream, Running]]:
    """The SDK, the upstream behind, and the daemon between."""
    async with scripted_upstream() as upstream, running(folder, config_for(upstream.base_url, **sections)) as ds2d:
        client = client_for(ds2d.url, key, version)
        async with client.aio as sdk:
            yield sdk, upstream, ds2d
        client.close()


def get_weather(city: str) -> dict[str, str]:
    """The weather of a city.

    Args:
        city: Its name.
    """
    return {"result": f"sunny in {city}"}


def declared() -> types.Tool:
    schema = types.Schema(type=types.Type.OBJECT, properties={"city": types.Schema(type=types.Type.STRING)})
    return types.Tool(function_declarations=[types.FunctionDeclaration(name="get_weather", parameters=schema)])


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_whole_answer(tmp_path: Path, version: str) -> None:
    async with setup(tmp_path, version=version) as (sdk, upstream, _):
        config = types.GenerateContentConfig(
            system_instruction="Be.", temperature=0.3, max_output_tokens=99, stop_sequences=["END"]
        )
        answer = await sdk.models.generate_content(model=MODEL, contents="Hello", config=config)
        assert answer.text == "Hello from upstream."
        assert answer.candidates
        assert answer.candidates[0].finish_reason is types.FinishReason.STOP
        assert answer.usage_metadata
        assert answer.usage_metadata.total_token_count == 12
        assert answer.model_version == MODEL
        body = upstream.seen[0].body
        assert [(m["role"], m["content"]) for m in body["messages"]] == [("system", "Be."), ("user", "Hello")]
        assert (body["temperature"], body["max_tokens"], body["stop"]) == (0.3, 99, ["END"])


async def test_the_synchronous_client_gets_the_same(tmp_path: Path) -> None:
    def ask(url: str) -> tuple[str | None, list[str | None], int | None, list[str | None]]:
        with client_for(url) as client:
            answer = client.models.generate_content(model=MODEL, contents="Hello")
            pieces = [chunk.text for chunk in client.models.generate_content_stream(model=MODEL, contents="Hello")]
            counted = client.models.count_tokens(model=MODEL, contents="Hello")
            return answer.text, pieces, counted.total_tokens, [model.name for model in client.models.list()]

    async with setup(tmp_path) as (_, _, ds2d):
        text, pieces, tokens, models = await asyncio.to_thread(ask, ds2d.url)
        assert text == "".join(piece or "" for piece in pieces) == "Hello from upstream."
        assert tokens
        assert "models/deepseek-chat" in models


async def test_a_stream_brings_thoughts_then_text_then_one_end(tmp_path: Path) -> None:
    async with setup(tmp_path) as (sdk, upstream, _):
        upstream.scenes.append(saying("Yes, ", "it is.\u2028", reasoning=("Hm", "m.")))
        config = types.GenerateContentConfig(thinking_config=THINK)
        chunks = [c async for c in await sdk.models.generate_content_stream(model=MODEL, contents="Hello", config=config)]
        parts = [part for c in chunks for part in c.candidates[0].content.parts or []]  # type: ignore[index, union-attr]
        assert "".join(part.text or "" for part in parts if part.thought) == "Hmm."
        assert "".join(part.text or "" for part in parts if not part.thought) == "Yes, it is.\u2028"
        assert [c.candidates[0].finish_reason for c in chunks[:-1]] == [None] * (len(chunks) - 1)  # type: ignore[index]
        assert chunks[-1].candidates[0].finish_reason is types.FinishReason.STOP  # type: ignore[index]
        assert chunks[-1].usage_metadata
        assert chunks[-1].usage_metadata.prompt_token_count == 7
        assert len({c.response_id for c in chunks}) == 1


async def test_thoughts_stay_hidden_unless_asked_for(tmp_path: Path) -> None:
    async with setup(tmp_path) as (sdk, upstream, _):
        upstream.scenes.append(saying("Yes.", reasoning=("Hm.",)))
        chunks = [c async for c in await sdk.models.generate_content_stream(model=MODEL, contents="Hello")]
        assert "Hm." not in "".join(c.model_dump_json() for c in chunks)


async def test_a_chat_remembers(tmp_path: Path) -> None:
    async with setup(tmp_path) as (sdk, upstream, _):
        chat = sdk.chats.create(model=MODEL)
        assert (await chat.send_message("one")).text == "Hello from upstream."
        text = "".join([c.text or "" async for c in await chat.send_message_stream("two")])
        assert text == "Hello from upstream."
        await chat.send_message("three")  # its history now holds one model content per chunk
        told = [[(m["role"], m["content"]) for m in seen.body["messages"]] for seen in upstream.seen]
        answer = ("assistant", "Hello from upstream.")
        assert told[1] == [("user", "one"), answer, ("user", "two")]
        assert told[2] == [*told[1], answer, ("user", "three")]


@pytest.mark.parametrize("streamed", [False, True])
async def test_functions_are_called_automatically(tmp_path: Path, streamed: bool) -> None:
    async with setup(tmp_path) as (sdk, upstream, _):
        make = calling if streamed else calling_whole
        upstream.scenes.append(make(("get_weather", {"city": "Köln"}), ("get_weather", {"city": "Bonn"}), reasoning="Hm."))
        config = types.GenerateContentConfig(tools=[get_weather], thinking_config=THINK)
        chat = sdk.chats.create(model=MODEL, config=config)
        if streamed:
            text = "".join([c.text or "" async for c in await chat.send_message_stream("weather?")])
        else:
            text = (await chat.send_message("weather?")).text or ""
        assert text.endswith("Hello from upstream.")
        _, turn, first, second = upstream.seen[1].body["messages"]
        assert [call["function"]["name"] for call in turn["tool_calls"]] == ["get_weather"] * 2
        assert [first["tool_call_id"], second["tool_call_id"]] == [call["id"] for call in turn["tool_calls"]]
        assert ["Köln" in first["content"], "Bonn" in second["content"]] == [True, True]
        assert "Hm." in (turn.get("reasoning"), turn.get("reasoning_content"))


async def test_the_synchronous_client_calls_functions_automatically(tmp_path: Path) -> None:
    def talk(url: str) -> str | None:
        with client_for(url) as client:
            config = types.GenerateContentConfig(tools=[get_weather])
            return client.chats.create(model=MODEL, config=config).send_message("weather?").text

    async with setup(tmp_path) as (_, upstream, ds2d):
        upstream.scenes.append(calling_whole(("get_weather", {"city": "Köln"})))
        assert await asyncio.to_thread(talk, ds2d.url) == "Hello from upstream."
        assert "sunny in Köln" in upstream.seen[1].body["messages"][-1]["content"]


@pytest.mark.parametrize("with_ids", [True, False])
async def test_calls_answered_by_hand_are_paired_with_and_without_ids(tmp_path: Path, with_ids: bool) -> None:
    async with setup(tmp_path) as (sdk, upstream, _):
        upstream.scenes.append(calling_whole(("get_weather", {"city": "Köln"}), ("get_weather", {"city": "Bonn"})))
        off = types.AutomaticFunctionCallingConfig(disable=True)
        config = types.GenerateContentConfig(tools=[declared()], automatic_function_calling=off)
        asked = types.Content(role="user", parts=[types.Part(text="weather?")])
        answer = await sdk.models.generate_content(model=MODEL, contents=[asked], config=config)
        calls = answer.function_calls or []
        assert [(call.name, call.args) for call in calls] == [
            ("get_weather", {"city": "Köln"}),
            ("get_weather", {"city": "Bonn"}),
        ]
        assert len({call.id for call in calls}) == 2
        said = answer.candidates[0].content  # type: ignore[index]
        assert said
        assert said.parts
        if not with_ids:
            for part in said.parts:
                assert part.function_call
                part.function_call.id = None
        results = [
            types.Part(
                function_response=types.FunctionResponse(id=call.id if with_ids else None, name=call.name, response={"sky": sky})
            )
            for call, sky in zip(calls, ("blue", "grey"), strict=True)
        ]
        again = [asked, said, types.Content(role="user", parts=results)]
        await sdk.models.generate_content(model=MODEL, contents=again, config=config)  # type: ignore[arg-type]
        _, turn, first, second = upstream.seen[1].body["messages"]
        assert [first["tool_call_id"], second["tool_call_id"]] == [call["id"] for call in turn["tool_calls"]]
        assert "blue" in first["content"]
        assert "grey" in second["content"]


@pytest.mark.parametrize("write", [dsml, v31])
async def test_a_call_written_as_text_is_a_function_call(tmp_path: Path, write: Any) -> None:
    async with setup(tmp_path) as (sdk, upstream, _):
        upstream.scenes.append(written_as_text("I look.\n\n" + write("get_weather", city="Köln")))
        config = types.GenerateContentConfig(tools=[declared()])
        chunks = [c async for c in await sdk.models.generate_content_stream(model=MODEL, contents="?", config=config)]
        parts = [part for c in chunks for part in c.candidates[0].content.parts or []]  # type: ignore[index, union-attr]
        assert "".join(part.text or "" for part in parts).strip() == "I look."
        assert [part.function_call.args for part in parts if part.function_call] == [{"city": "Köln"}]


class Person(pydantic.BaseModel):
    name: str
    age: int


@pytest.mark.parametrize("field", ["response_schema", "response_json_schema"])
async def test_a_schema_gives_the_object(tmp_path: Path, field: str) -> None:
    async with setup(tmp_path) as (sdk, upstream, _):
        upstream.scenes.append(whole({"content": '{"name":"Ann","age":40}'}))
        wanted: Any = Person if field == "response_schema" else Person.model_json_schema()
        config = types.GenerateContentConfig(response_mime_type="application/json", **{field: wanted})
        answer = await sdk.models.generate_content(model=MODEL, contents="who?", config=config)
        person = Person(name="Ann", age=40)
        assert answer.parsed == (person if field == "response_schema" else person.model_dump())
        schema = upstream.seen[0].body["response_format"]["json_schema"]["schema"]
        assert {name: field["type"] for name, field in schema["properties"].items()} == {"name": "string", "age": "integer"}


async def test_a_tools_schema_reaches_the_upstream_as_json_schema(tmp_path: Path) -> None:
    async with setup(tmp_path) as (sdk, upstream, _):
        mode = types.FunctionCallingConfig(mode=types.FunctionCallingConfigMode.NONE)
        config = types.GenerateContentConfig(tools=[declared()], tool_config=types.ToolConfig(function_calling_config=mode))
        await sdk.models.generate_content(model=MODEL, contents="Hello", config=config)
        await sdk.models.generate_content(model=MODEL, contents="Hello", config=types.GenerateContentConfig(tools=[get_weather]))
        none, auto = (seen.body for seen in upstream.seen)
        assert "tools" not in none or none["tool_choice"] == "none"
        (tool,) = auto["tools"]
        assert tool["function"]["parameters"]["properties"]["city"]["type"] == "string"
        assert tool["function"]["description"].startswith("The weather of a city.")


async def test_tokens_are_counted(tmp_path: Path) -> None:
    async with setup(tmp_path) as (sdk, _, _):
        short = (await sdk.models.count_tokens(model=MODEL, contents="Hello")).total_tokens
        more = (await sdk.models.count_tokens(model=MODEL, contents=["Hello", "and some more words"])).total_tokens
        assert short
        assert more
        assert 0 < short < more


@pytest.mark.parametrize("version", VERSIONS)
async def test_models_are_listed_in_pages_and_found(tmp_path: Path, version: str) -> None:
    async with setup(tmp_path, version=version) as (sdk, _, _):
        page = await sdk.models.list(config={"page_size": 2})
        assert len(page.page) == 2
        names = [model.name async for model in page]
        assert len(names) == len(set(names)) > 2
        assert (await sdk.models.get(model=MODEL)).name in names, "an alias is shown as what it stands for"
        found = await sdk.models.get(model="deepseek-chat")
        assert found.name == "models/deepseek-chat"
        assert "generateContent" in (found.supported_actions or [])
        with pytest.raises(errors.ClientError) as caught:
            await sdk.models.get(model="deepseek-nope")
        assert (caught.value.code, caught.value.status) == (404, "NOT_FOUND")


async def test_refusals_are_the_sdks_own_classes(tmp_path: Path) -> None:
    async with setup(tmp_path) as (sdk, upstream, ds2d):
        async with client_for(ds2d.url, "sk-wrong").aio as stranger:
            with pytest.raises(errors.ClientError) as wrong:
                await stranger.models.generate_content(model=MODEL, contents="Hello")
        assert (wrong.value.code, wrong.value.status) == (401, "UNAUTHENTICATED")
        with pytest.raises(errors.ClientError) as unknown:
            await sdk.models.generate_content(model="deepseek-nope", contents="Hello")
        assert (unknown.value.code, unknown.value.status) == (404, "NOT_FOUND")
        with pytest.raises(errors.ClientError) as bad:
            await sdk.models.generate_content(model=MODEL, contents="Hello", config=types.GenerateContentConfig(temperature=9))
        assert (bad.value.code, bad.value.status) == (400, "INVALID_ARGUMENT")
        assert upstream.seen == []
        upstream.scenes.append(refuse(429, {"error": {"message": "slow down"}}, Retry_After="7"))
        with pytest.raises(errors.ClientError) as limited:
            await sdk.models.generate_content(model=MODEL, contents="Hello")
        assert (limited.value.code, limited.value.status) == (429, "RESOURCE_EXHAUSTED")
        upstream.scenes += [refuse(500, {"error": {"message": "oops"}})] * 5
        with pytest.raises(errors.ServerError) as failed:
            await sdk.models.generate_content(model=MODEL, contents="Hello")
        assert (failed.value.code, failed.value.status) == (503, "UNAVAILABLE")


async def test_an_upstream_that_breaks_off_raises_after_what_it_said(tmp_path: Path) -> None:
    async with setup(tmp_path) as (sdk, upstream, _):
        upstream.scenes.append(breaking("one ", "two"))
        said: list[str] = []

        async def listen() -> None:
            async for chunk in await sdk.models.generate_content_stream(model=MODEL, contents="Hello"):
                said.append(chunk.text or "")  # noqa: PERF401 - what came before the exception counts

        with pytest.raises(errors.ServerError) as caught:
            await listen()
        assert "".join(said) == "one two"
        assert (caught.value.code, caught.value.status) == (503, "UNAVAILABLE")


async def test_embeddings_are_said_to_be_missing(tmp_path: Path) -> None:
    async with setup(tmp_path) as (sdk, _, _):
        with pytest.raises(errors.ServerError) as caught:
            await sdk.models.embed_content(model="gemini-embedding-001", contents="Hello")
        assert (caught.value.code, caught.value.status) == (501, "UNIMPLEMENTED")
