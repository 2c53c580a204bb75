"""openai-chat.md as a user with curl would check it: fields, messages, tools, answers, streams, completions, lists, probes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from yarl import URL

from tests.functional.harness import KEY, Running, config_for, running
from tests.functional.scripted import Scene, ScriptedUpstream, Wait, chunk, refuse, say, scripted_upstream, sse, usage, whole

pytestmark = pytest.mark.asyncio(loop_scope="module")

HELLO: list[Any] = [{"role": "user", "content": "Hello"}]
CHAT = "/v1/chat/completions"
SLASHED = "/mnt/models/DeepSeek V3"
TOOL: dict[str, Any] = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
WALK: dict[str, Any] = {"type": "function", "function": {"name": "walk"}}
OTHER: dict[str, Any] = {"type": "function", "function": {"name": "walk", "parameters": {"type": "object", "properties": {}}}}
CALL: dict[str, Any] = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
IMAGE: dict[str, Any] = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}


@dataclass
class World:
    """One daemon in front of one scripted server, which it knows as a vLLM, as the DeepSeek API and as a plain server."""

    ds2d: Running
    upstream: ScriptedUpstream

    async def ask(self, **body: Any) -> tuple[int, Any, dict[str, str]]:
        return await self.ds2d.ask(CHAT, {"model": "vl", "messages": HELLO, **body})

    async def sent(self, **body: Any) -> dict[str, Any]:
        """What the server was asked, for a chat request with these fields."""
        status, answer, _ = await self.ask(**body)
        assert status == 200, answer
        return self.upstream.seen[-1].body

    async def refusal(self, path: str = CHAT, **body: Any) -> dict[str, Any]:
        """The error of a request that must be refused before anything is asked."""
        before = len(self.upstream.seen)
        status, answer, _ = await self.ds2d.ask(path, {"model": "vl", **body})
        assert status == 400, answer
        assert answer["error"]["type"] == "invalid_request_error"
        assert len(self.upstream.seen) == before
        error: dict[str, Any] = answer["error"]
        return error

    async def stream(self, scene: list[bytes] | None = None, path: str = CHAT, **body: Any) -> list[Any]:
        """The events of a streamed answer; "[DONE]" as it stands."""
        if scene is not None:
            self.upstream.scenes.append(Scene(scene))
        question = {"messages": HELLO} if path == CHAT else {"prompt": "Hello"}
        status, text, headers = await self.ds2d.ask(path, {"model": "vl", **question, "stream": True, **body})
        assert status == 200, text
        assert headers["content-type"] == "text/event-stream; charset=utf-8"
        assert (headers["cache-control"], headers["x-accel-buffering"]) == ("no-cache", "no")
        return events(text)

    async def message(self, scene: list[bytes] | Scene, **body: Any) -> tuple[dict[str, Any], str]:
        """The first choice's message and finish reason of a whole answer."""
        self.upstream.scenes.append(scene if isinstance(scene, Scene) else Scene(scene))
        status, answer, _ = await self.ask(**body)
        assert status == 200, answer
        return answer["choices"][0]["message"], answer["choices"][0]["finish_reason"]


def events(text: str) -> list[Any]:
    """The data of each frame. Nothing else may stand in a chat stream but comments."""
    found: list[Any] = []
    for frame in text.split("\n\n"):
        if frame and not frame.startswith(":"):
            assert frame.startswith("data: ")
            assert "\n" not in frame
            found.append("[DONE]" if frame == "data: [DONE]" else json.loads(frame[6:]))
    return found


def said(frames: list[Any], field: str = "content", index: int = 0) -> str:
    """The joined deltas of one choice."""
    choices = [choice for frame in frames if frame != "[DONE]" for choice in frame["choices"] if choice["index"] == index]
    return "".join(choice["delta"].get(field) or "" for choice in choices)


def finishes(frames: list[Any]) -> list[tuple[int, str]]:
    """Index and reason of each finish, in order."""
    choices = [choice for frame in frames if frame != "[DONE]" for choice in frame["choices"]]
    return [(choice["index"], choice["finish_reason"]) for choice in choices if choice["finish_reason"]]


def calls(frames: list[Any]) -> list[dict[str, Any]]:
    """The tool calls of a stream put together as SDKs do, each delta checked against the contract's two forms."""
    made: dict[int, dict[str, Any]] = {}
    for frame in frames:
        for choice in frame["choices"] if frame != "[DONE]" else []:
            for delta in choice["delta"].get("tool_calls", []):
                if delta["index"] not in made:
                    assert delta["type"] == "function"
                    assert delta["id"]
                    made[delta["index"]] = {"id": delta["id"], "name": delta["function"]["name"], "arguments": ""}
                else:
                    assert set(delta) == {"index", "function"}
                    assert set(delta["function"]) == {"arguments"}
                made[delta["index"]]["arguments"] += delta["function"].get("arguments", "")
    assert list(made) == list(range(len(made)))
    return list(made.values())


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="shared")
async def _shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async with scripted_upstream("deepseek-tiny", SLASHED) as upstream:
        base = upstream.base_url
        kinds = {"gpu": "vllm", "api": "deepseek", "plain": "generic"}
        config = config_for(
            base,
            upstreams=[{"name": name, "kind": "openai", "base_url": base, "flavour": kind} for name, kind in kinds.items()],
            models={
                "vl": {"upstream": "gpu", "model": "deepseek-tiny", "images": True},
                "vl-text": {"upstream": "gpu", "model": "deepseek-tiny"},
                "vl-search": {"upstream": "gpu", "model": "deepseek-tiny", "extra_body": {"web_search_options": {}, "top_k": 9}},
                "ds": {"upstream": "api", "model": "deepseek-flash"},
                "pl": {"upstream": "plain", "model": "deepseek-tiny"},
            },
            model_aliases={"my-alias": "vl"},
        )
        async with running(tmp_path_factory.mktemp("contract"), config) as ds2d:
            yield World(ds2d, upstream)


@pytest.fixture(name="world")
def _world(shared: World) -> World:
    """The shared daemon with nothing left over from the test before."""
    assert shared.ds2d.daemon.queue.running == 0
    shared.upstream.scenes.clear()
    shared.ds2d.daemon.queue.reset()
    return shared


# 2. Request fields

FORWARDED: dict[str, Any] = {
    "temperature": 0.5,
    "top_p": 0.9,
    "presence_penalty": -1.5,
    "frequency_penalty": 1.5,
    "stop": ["a", "b"],
    "logit_bias": {"7": -100},
    "seed": -(2**63),
    "user": "me",
    "top_k": 5,
    "min_p": 0.1,
    "repetition_penalty": 1.1,
    "stop_token_ids": [1],
    "ignore_eos": True,
    "guided_regex": "a+",
    "structured_outputs": {"regex": "a+"},
    "documents": [{"title": "t"}],
    "cache_salt": "s",
    "mm_processor_kwargs": {"a": 1},
    "vllm_xargs": {"a": 1},
    "some_future_field": {"deep": [1]},
    "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}},
}


@pytest.mark.parametrize("field", FORWARDED)
async def test_a_field_reaches_a_vllm_as_it_was_written(world: World, field: str) -> None:
    assert (await world.sent(**{field: FORWARDED[field]}))[field] == FORWARDED[field]


@pytest.mark.parametrize("field", ["top_k", "logit_bias", "seed", "guided_regex", "cache_salt", "some_future_field"])
async def test_the_deepseek_api_gets_only_what_it_knows(world: World, field: str) -> None:
    assert field not in await world.sent(model="ds", **{field: FORWARDED[field]})


TRANSLATED: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("vl", {"max_tokens": 5}, {"max_tokens": 5}),
    ("vl", {"max_tokens": 5, "max_completion_tokens": 6}, {"max_tokens": 6}),
    ("ds", {"max_completion_tokens": 6}, {"max_tokens": 6}),
    ("ds", {"user": "me"}, {"user_id": "me"}),
    ("vl", {"safety_identifier": "me"}, {"user": "me"}),
    ("ds", {"thinking": {"type": "disabled"}}, {"thinking": {"type": "disabled"}}),
    ("ds", {"reasoning_effort": "medium"}, {"thinking": {"type": "enabled"}, "reasoning_effort": "high"}),
    ("vl", {"reasoning_effort": "none"}, {"chat_template_kwargs": {"thinking": False, "enable_thinking": False}}),
    ("ds", {"response_format": {"type": "json_object"}}, {"response_format": {"type": "json_object"}}),
    ("vl-search", {"top_k": 1}, {"web_search_options": {}, "top_k": 9}),
    ("vl", {"functions": [TOOL["function"]], "function_call": "auto"}, {"tools": [TOOL], "tool_choice": "auto"}),
    ("vl", {"tools": [TOOL, OTHER], "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [WALK]}}},
     {"tools": [OTHER], "tool_choice": "auto"}),
    ("vl", {"tools": [{"type": "function", "function": {"name": "look"}}]}, {"tools": [TOOL]}),
    ("vl", {"n": None, "stop": None, "temperature": None, "tools": None, "max_tokens": None}, {}),
]  # fmt: skip


@pytest.mark.parametrize(("model", "asked", "expected"), TRANSLATED)
async def test_a_field_is_translated(world: World, model: str, asked: dict[str, Any], expected: dict[str, Any]) -> None:
    sent = await world.sent(model=model, **asked)
    assert {name: sent.get(name) for name in expected} == expected
    assert not [name for name, value in sent.items() if value is None]


@pytest.mark.parametrize("choice", [{"type": "function", "name": "look"}, {"type": "function", "function": {"name": "look"}}])
async def test_a_forced_call_is_asked_for_in_the_nested_form(world: World, choice: dict[str, Any]) -> None:
    world.upstream.scenes.append(whole({"content": None, "tool_calls": [CALL]}, "stop"))
    assert (await world.sent(tools=[TOOL], tool_choice=choice))["tool_choice"] == {
        "type": "function",
        "function": {"name": "look"},
    }


IGNORED: dict[str, Any] = {
    "metadata": {"a": "b"},
    "store": True,
    "service_tier": "auto",
    "prompt_cache_key": "k",
    "verbosity": "low",
    "prediction": {"type": "content", "content": "x"},
    "modalities": ["text"],
    "request_id": "x",
    "kv_transfer_params": {},
    "prompt_embeds": "x",
    "chat_template": "{{ x }}",
    "web_search_options": {},
}


async def test_what_is_accepted_and_ignored_reaches_nobody(world: World) -> None:
    assert not set(await world.sent(**IGNORED)) & set(IGNORED)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"messages": []}, "messages"),
    ({"messages": None}, "messages"),
    ({"messages": [{"role": "wizard", "content": "x"}]}, "messages[0].role"),
    ({"messages": [{"role": "user"}]}, "messages[0].content"),
    ({"messages": [{"role": "assistant", "content": None}]}, "messages[0].content"),
    ({"messages": [*HELLO, {"role": "tool", "tool_call_id": "call_9", "content": "x"}]}, "messages"),
    ({"messages": [*HELLO, {"role": "assistant", "tool_calls": [CALL]}, *HELLO]}, "messages"),
    ({"temperature": 2.1}, "temperature"),
    ({"temperature": "1"}, "temperature"),
    ({"temperature": True}, "temperature"),
    ({"top_p": 1.1}, "top_p"),
    ({"n": 0}, "n"),
    ({"n": 129}, "n"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_completion_tokens": 0}, "max_completion_tokens"),
    ({"stop": ["x"] * 17}, "stop"),
    ({"stop": ""}, "stop"),
    ({"presence_penalty": 2.1}, "presence_penalty"),
    ({"logit_bias": {"1": 101}}, "logit_bias"),
    ({"top_logprobs": 2}, "top_logprobs"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ({"seed": 2**63}, "seed"),
    ({"stream_options": {"include_usage": True}}, "stream_options"),
    ({"response_format": {"type": "yaml"}}, "response_format.type"),
    ({"response_format": {"type": "json_schema", "json_schema": {"name": "a"}}}, "response_format.json_schema.schema"),
    ({"tools": [TOOL, TOOL]}, "tools[1].function.name"),
    ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "nope"}}}, "tool_choice"),
    ({"reasoning_effort": "huge"}, "reasoning_effort"),
    ({"thinking": {"type": "maybe"}}, "thinking.type"),
    ({"modalities": ["text", "audio"]}, "modalities"),
    ({"audio": {"voice": "alloy"}}, "audio"),
    ({"safety_identifier": "x" * 65}, "safety_identifier"),
    ({"model": "ds", "n": 2}, "n"),
    ({"model": "ds", "response_format": {"type": "structural_tag"}}, "response_format.type"),
    (
        {"model": "vl-text", "messages": [{"role": "user", "content": [{"type": "text", "text": "x"}, IMAGE]}]},
        "messages[0].content[1]",
    ),
    (
        {"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}]}]},
        "messages[0].content[0].file.file_id",
    ),
]


@pytest.mark.parametrize(("body", "param"), REFUSED)
async def test_a_bad_value_is_refused_by_the_fields_path(world: World, body: dict[str, Any], param: str) -> None:
    error = await world.refusal(**{"messages": HELLO, **body})
    assert error["param"] == param
    assert error["message"]


async def test_a_custom_tool_is_refused_by_its_own_code(world: World) -> None:
    error = await world.refusal(messages=HELLO, tools=[{"type": "custom", "custom": {"name": "x"}}])
    assert error["code"] == "unsupported_tool"


@pytest.mark.parametrize("body", [{"messages": HELLO}, {"messages": HELLO, "model": ""}])
async def test_a_model_must_be_named(world: World, body: dict[str, Any]) -> None:
    status, answer, _ = await world.ds2d.ask(CHAT, body)
    assert (status, answer["error"]["param"]) == (400, "model")


async def test_an_unknown_model_is_404_whatever_else_is_wrong_with_the_queue(world: World) -> None:
    status, answer, _ = await world.ask(model="deepseek-nope")
    assert status == 404
    assert answer["error"] | {"message": ""} == {
        "message": "", "type": "invalid_request_error", "code": "model_not_found", "param": "model"}  # fmt: skip


# 3. Messages


async def test_parts_of_text_are_joined_for_a_server_of_text(world: World) -> None:
    parts = [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}, {"type": "text", "text": "b"}]
    sent = await world.sent(model="vl-text", messages=[{"role": "user", "content": parts}])
    assert sent["messages"] == [{"role": "user", "content": "a\nb"}]


async def test_images_go_on_to_a_model_that_sees(world: World) -> None:
    sent = await world.sent(messages=[{"role": "user", "content": [{"type": "text", "text": "a"}, IMAGE]}])
    assert sent["messages"][0]["content"][1] == IMAGE


async def test_a_history_with_calls_goes_on_whole(world: World) -> None:
    history = [
        {"role": "developer", "content": "be brief"},
        *HELLO,
        {"role": "assistant", "content": None, "reasoning_content": "hm", "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "seen"}]},
    ]
    sent = (await world.sent(messages=history, tools=[TOOL]))["messages"]
    assert [message["role"] for message in sent] == ["system", "user", "assistant", "tool"]
    assert sent[2]["tool_calls"] == [CALL]
    assert sent[2]["reasoning"] == "hm"
    assert sent[3] == {"role": "tool", "tool_call_id": "call_1", "content": "seen"}
    sent = (await world.sent(model="ds", messages=history, tools=[TOOL], thinking={"type": "enabled"}))["messages"]
    assert sent[2]["reasoning_content"] == "hm"


async def test_legacy_functions_are_answered_in_the_legacy_way(world: World) -> None:
    scene = whole({"content": None, "tool_calls": [CALL]}, "tool_calls")
    message, finish = await world.message(scene, functions=[TOOL["function"]])
    assert (message["function_call"], finish) == ({"name": "look", "arguments": "{}"}, "function_call")
    assert "tool_calls" not in message


# 5. Whole answers


async def test_a_whole_answer_has_every_key(world: World) -> None:
    status, answer, headers = await world.ask()
    assert status == 200
    assert headers["content-type"].startswith("application/json")
    assert headers["x-request-id"].startswith("req_")
    assert answer["id"].startswith("chatcmpl-")
    assert (answer["object"], answer["model"]) == ("chat.completion", "vl")
    assert isinstance(answer["created"], int)
    assert answer["usage"] == {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
    (choice,) = answer["choices"]
    assert choice["message"] == {"role": "assistant", "content": "Hello from upstream.", "refusal": None}
    assert (choice["index"], choice["finish_reason"], choice["logprobs"]) == (0, "stop", None)


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
async def test_reasoning_has_one_name_unless_both_are_asked_for(world: World, name: str) -> None:
    message, _ = await world.message(whole({"content": "42", name: "hm"}))
    assert message["reasoning_content"] == "hm"
    assert "reasoning" not in message
    message, _ = await world.message(whole({"content": "42", name: "hm"}), include_reasoning=True)
    assert (message["reasoning_content"], message["reasoning"]) == ("hm", "hm")
    frames = await world.stream(
        sse(chunk({name: "h"}), chunk({name: "m", "content": ""}), chunk({"content": "42"}), chunk({}, "stop"), usage())
    )
    assert (said(frames, "reasoning_content"), said(frames), said(frames, "reasoning")) == ("hm", "42", "")


async def test_what_a_server_adds_is_kept(world: World) -> None:
    scene = whole({"content": "x"}, system_fingerprint="fp", prompt_logprobs=[None])
    body = json.loads(scene.pieces[0])
    body["choices"][0] |= {"stop_reason": 7, "token_ids": [1, 2]}
    body["usage"] |= {"prompt_tokens_details": {"cached_tokens": 3}}
    world.upstream.scenes.append(Scene([json.dumps(body).encode()], content_type="application/json"))
    _, answer, _ = await world.ask()
    assert answer["system_fingerprint"] == "fp"
    assert (answer["choices"][0]["stop_reason"], answer["choices"][0]["token_ids"]) == (7, [1, 2])
    assert answer["usage"]["prompt_tokens_details"] == {"cached_tokens": 3}


async def test_parts_of_usage_that_only_chat_has_names_for_pass(world: World) -> None:
    counts = {
        **usage()["usage"],
        "prompt_tokens_details": {"cached_tokens": 3, "audio_tokens": 2, "x_bad": -1},
        "completion_tokens_details": {"accepted_prediction_tokens": 1, "rejected_prediction_tokens": 0},
    }
    expected = {**counts, "prompt_tokens_details": {"cached_tokens": 3, "audio_tokens": 2}}
    world.upstream.scenes.append(whole({"content": "Hi"}, usage=counts))
    _, answer, _ = await world.ask()
    assert answer["usage"] == expected
    frames = await world.stream(sse(chunk({"content": "Hi"}), chunk({}, "stop"), {**usage(), "usage": counts}))
    assert [frame["usage"] for frame in frames if frame != "[DONE]" and frame.get("usage")] == [expected]


JSON_MODE = {"type": "json_object"}


async def test_blanks_in_json_mode_are_an_empty_answer(world: World) -> None:
    message, reason = await world.message(whole({"content": "   \n\n  "}), response_format=JSON_MODE)
    assert (message["content"], reason) == ("", "stop")
    frames = await world.stream(say("  ", "\n", " "), response_format=JSON_MODE)
    deltas = [frame["choices"][0]["delta"] for frame in frames if frame != "[DONE]"]
    assert "".join(delta.get("content", "") for delta in deltas) == ""
    assert frames[-2]["choices"][0]["finish_reason"] == "stop"


async def test_blanks_before_json_or_without_json_mode_stay(world: World) -> None:
    message, _ = await world.message(whole({"content": " \n{}"}), response_format=JSON_MODE)
    assert message["content"] == " \n{}"
    frames = await world.stream(say(" ", "\n", "{", "} "), response_format=JSON_MODE)
    deltas = [frame["choices"][0]["delta"] for frame in frames if frame != "[DONE]"]
    assert "".join(delta.get("content", "") for delta in deltas) == " \n{} "
    message, _ = await world.message(whole({"content": "  "}, finish="length"))
    assert message["content"] == "  "


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (r"a\ud83d b", "a\ufffd b"),
        (r"a\uDE00", "a\ufffd"),
        (r"\ud83d\ud83d\ude00", "\ufffd\U0001f600"),
        (r"\ud83d \\ud83d \u00e9", "\ufffd \\ud83d \u00e9"),
    ],
)
async def test_half_a_character_in_an_answer_is_replaced(world: World, written: str, read: str) -> None:
    body = whole({"content": "TEXT"}).pieces[0].replace(b"TEXT", written.encode())
    message, _ = await world.message(Scene([body], content_type="application/json"))
    assert message["content"] == read
    frames = [piece.replace(b"TEXT", written.encode()) for piece in say("TEXT")]
    choices = [event["choices"][0] for event in await world.stream(frames) if event != "[DONE]"]
    assert "".join(choice["delta"].get("content", "") for choice in choices) == read


NOTE = {"type": "url_citation", "url_citation": {"url": "https://example.com"}}


async def test_what_a_server_adds_inside_a_message_stays_inside(world: World) -> None:
    scene = whole({"content": "Hi", "annotations": [NOTE], "x_inside": 1})
    world.upstream.scenes.append(scene)
    _, answer, _ = await world.ask()
    (choice,) = answer["choices"]
    assert (choice["message"]["annotations"], choice["message"]["x_inside"], choice["message"]["content"]) == ([NOTE], 1, "Hi")
    assert not {"annotations", "x_inside"} & choice.keys()


async def test_what_a_server_adds_inside_a_delta_stays_inside(world: World) -> None:
    first, second = {"type": "reasoning.text", "text": "a"}, {"type": "reasoning.text", "text": "b"}
    scene = sse(
        chunk({"role": "assistant", "content": ""}),
        chunk({"reasoning": "a", "reasoning_details": [first]}),
        chunk({"reasoning": "b", "reasoning_details": [second]}),
        chunk({"content": "Hi"}),
        chunk({"annotations": [NOTE]}, "stop"),
        usage(),
    )
    choices = [event["choices"][0] for event in await world.stream(scene) if event != "[DONE]"]
    assert [choice["delta"]["reasoning_details"] for choice in choices if "reasoning_details" in choice["delta"]] == [
        [first],
        [second],
    ]
    assert [choice["delta"] for choice in choices if choice["finish_reason"]] == [{"annotations": [NOTE]}]
    assert not any({"reasoning_details", "annotations"} & choice.keys() for choice in choices)
    message, _ = await world.message(scene)
    assert (message["reasoning_details"], message["annotations"]) == ([first, second], [NOTE])


@pytest.mark.parametrize(
    ("word", "expected"), [("stop", "stop"), ("length", "length"), ("content_filter", "content_filter"), ("repetition", "stop")]
)
async def test_finish_reasons_are_the_contracts_words(world: World, word: str, expected: str) -> None:
    assert (await world.message(whole({"content": "x"}, word)))[1] == expected
    assert finishes(await world.stream(say("x", finish=word))) == [(0, expected)]


@pytest.mark.parametrize("word", ["insufficient_system_resource", "abort", "error"])
async def test_a_cut_answer_is_an_error_not_an_answer(world: World, word: str) -> None:
    world.upstream.scenes += [whole({"content": "x"}, word)] * 3
    status, answer, _ = await world.ask()
    assert (status, answer["error"]["code"]) == (503, "upstream_error")
    world.upstream.scenes.clear()
    frames = await world.stream(say("x", finish=word))
    assert frames[-1]["error"]["code"] == "upstream_error"
    assert "[DONE]" not in frames
    assert finishes(frames[:-1]) == []


# 6. Streams


async def test_a_stream_has_one_head_and_one_order(world: World) -> None:
    frames = await world.stream(say("Hel", "lo", reasoning=("hm", "?")))
    assert frames.pop() == "[DONE]"
    for name in ("id", "object", "created", "model"):
        assert len({frame[name] for frame in frames}) == 1
    assert (frames[0]["object"], frames[0]["model"]) == ("chat.completion.chunk", "vl")
    deltas = [frame["choices"][0]["delta"] for frame in frames]
    assert deltas[0]["role"] == "assistant"
    assert not any("role" in delta for delta in deltas[1:])
    kinds = [next((name for name in ("reasoning_content", "content") if delta.get(name)), "") for delta in deltas]
    assert [kind for kind in kinds if kind] == ["reasoning_content"] * 2 + ["content"] * 2
    assert (deltas[-1], frames[-1]["choices"][0]["finish_reason"]) == ({}, "stop")
    assert [frame["choices"][0]["finish_reason"] for frame in frames[:-1]] == [None] * (len(frames) - 1)


TWICE = sse(chunk({"content": "x"}), chunk({}, "stop", usage=usage()["usage"]), usage())
ON_FINISH = sse(chunk({"content": "x"}), chunk({}, "stop", usage=usage()["usage"]), done=False)
NONE_AT_ALL = sse(chunk({"content": "x"}), chunk({}, "stop"))


@pytest.mark.parametrize("scene", [say("x"), TWICE, ON_FINISH, NONE_AT_ALL])
async def test_usage_stands_where_the_client_wants_it(world: World, scene: list[bytes]) -> None:
    plain = await world.stream(scene)
    assert plain.pop() == "[DONE]"
    assert [frame["choices"] == [] for frame in plain] == [False] * len(plain)
    assert [bool(frame.get("usage")) for frame in plain] == [False] * (len(plain) - 1) + [True]
    asked = await world.stream(scene, stream_options={"include_usage": True})
    assert asked.pop() == "[DONE]"
    assert [frame["usage"] for frame in asked[:-1]] == [None] * (len(asked) - 1)
    last = asked[-1]
    assert last["choices"] == []
    assert last["usage"]["total_tokens"] == last["usage"]["prompt_tokens"] + last["usage"]["completion_tokens"] > 0


async def test_running_usage_is_shown_to_those_who_ask_and_the_server_is_always_asked(world: World) -> None:
    running_usage = [chunk({"content": text}, usage={"prompt_tokens": 7, "completion_tokens": n, "total_tokens": 7 + n})
                     for n, text in enumerate("abc", 1)]  # fmt: skip
    scene = sse(*running_usage, chunk({}, "stop"), usage(7, 3))
    frames = await world.stream(scene, stream_options={"include_usage": True, "continuous_usage_stats": True})
    counts = [frame["usage"]["completion_tokens"] for frame in frames[:-1]]
    assert counts == sorted(counts)  # what comes in one read may show the read's last count
    assert len(counts) >= 4
    assert frames[-2]["choices"] == []
    assert frames[-2]["usage"]["total_tokens"] == 10
    hidden = await world.stream(scene)
    assert [bool(frame.get("usage")) for frame in hidden[:-1]] == [False] * (len(hidden) - 2) + [True]
    assert world.upstream.seen[-1].body["stream_options"] == {"include_usage": True, "continuous_usage_stats": True}


async def test_log_probabilities_pass_in_both_forms(world: World) -> None:
    entry = {"token": "x", "logprob": -0.1, "bytes": [120], "top_logprobs": [{"token": "y", "logprob": -2.0, "bytes": None}]}
    streamed = chunk({"content": "x"})
    streamed["choices"][0]["logprobs"] = {"content": [entry]}
    frames = await world.stream(sse(streamed, chunk({}, "stop"), usage()), logprobs=True, top_logprobs=1)
    found = [frame["choices"][0]["logprobs"] for frame in frames if frame != "[DONE]" and frame["choices"][0]["logprobs"]]
    assert found == [{"content": [entry], "refusal": None}]
    assert world.upstream.seen[-1].body["top_logprobs"] == 1
    body = json.loads(whole({"content": "x"}).pieces[0])
    body["choices"][0]["logprobs"] = {"content": [entry]}
    world.upstream.scenes.append(Scene([json.dumps(body).encode()], content_type="application/json"))
    _, answer, _ = await world.ask(logprobs=True)
    assert answer["choices"][0]["logprobs"] == {"content": [entry], "refusal": None}


async def test_log_probabilities_that_nobody_asked_for_are_null(world: World) -> None:
    entry = {"token": "x", "logprob": -0.1, "bytes": [120], "top_logprobs": []}
    streamed = chunk({"content": "x"})
    streamed["choices"][0]["logprobs"] = {"content": [entry]}
    frames = await world.stream(sse(streamed, chunk({}, "stop"), usage()))
    assert {str(frame["choices"][0]["logprobs"]) for frame in frames if frame != "[DONE]"} == {"None"}
    body = json.loads(whole({"content": "x"}).pieces[0])
    body["choices"][0]["logprobs"] = {"content": [entry]}
    world.upstream.scenes.append(Scene([json.dumps(body).encode()], content_type="application/json"))
    _, answer, _ = await world.ask(logprobs=False)
    assert answer["choices"][0]["logprobs"] is None


async def test_several_choices_interleave_each_with_its_own_ends(world: World) -> None:
    scene = sse(
        chunk({"role": "assistant"}, index=0),
        chunk({"role": "assistant"}, index=1),
        chunk({"content": "a"}, index=0),
        chunk({"content": "b"}, index=1),
        chunk({}, "stop", index=1),
        chunk({"content": "a"}, index=0),
        chunk({}, "length", index=0),
        usage(),
    )
    frames = await world.stream(scene, n=2)
    assert (said(frames, index=0), said(frames, index=1)) == ("aa", "b")
    assert sorted(finishes(frames)) == [(0, "length"), (1, "stop")]
    roles = [choice["index"] for frame in frames[:-1] for choice in frame["choices"] if choice["delta"].get("role")]
    assert sorted(roles) == [0, 1]
    body = json.loads(whole({"content": "a"}).pieces[0])
    body["choices"].append({"index": 1, "message": {"role": "assistant", "content": "b"}, "finish_reason": "length"})
    world.upstream.scenes.append(Scene([json.dumps(body).encode()], content_type="application/json"))
    _, answer, _ = await world.ask(n=2)
    shown = [(choice["index"], choice["message"]["content"], choice["finish_reason"]) for choice in answer["choices"]]
    assert shown == [(0, "a", "stop"), (1, "b", "length")]


# 4. Tools


def part(index: int | None, arguments: Any, name: str | None = None, call_id: str | None = None) -> dict[str, Any]:
    """One delta of one call, as some server writes it."""
    delta: dict[str, Any] = {"function": {"arguments": arguments}}
    if index is not None:
        delta["index"] = index
    if call_id is not None:
        delta |= {"id": call_id, "type": "function"}
    if name is not None:
        delta["function"]["name"] = name
    return chunk({"tool_calls": [delta]})


TWO = [{"id": "call_1", "name": "look", "arguments": '{"a":"é\\n"}'}, {"id": "call_2", "name": "walk", "arguments": "{}"}]
SPLIT = [part(0, '{"a":"é\\', None), part(0, 'n"}')]
CALL_STREAMS: dict[str, list[dict[str, Any]]] = {
    "plain": [part(0, "", "look", "call_1"), *SPLIT, part(1, "", "walk", "call_2"), part(1, "{}"), chunk({}, "tool_calls")],
    "finish stop": [part(0, "", "look", "call_1"), *SPLIT, part(1, "{}", "walk", "call_2"), chunk({}, "stop")],
    "names repeated": [part(0, "", "look", "call_1"), part(0, '{"a":"é\\', "look", "call_1"), part(0, 'n"}', "", ""),
                       part(1, "{}", "walk", "call_2"), chunk({}, "tool_calls")],
    "no index": [part(None, '{"a":"é\\n"}', "look", "call_1"), part(None, "{}", "walk", "call_2"), chunk({}, "tool_calls")],
    "empty finish": [part(0, '{"a":"é\\n"}', "look", "call_1"), chunk({}, ""), part(1, "{}", "walk", "call_2"),
                     chunk({}, "tool_calls")],
    "empty choices": [{**chunk(), "choices": []}, part(0, '{"a":"é\\n"}', "look", "call_1"), part(1, "{}", "walk", "call_2"),
                      chunk({}, "tool_calls")],
}  # fmt: skip


@pytest.mark.parametrize("quirk", CALL_STREAMS)
async def test_parallel_calls_of_any_server_become_the_contracts_deltas(world: World, quirk: str) -> None:
    frames = await world.stream(sse(*CALL_STREAMS[quirk], usage()), tools=[TOOL, OTHER])
    assert calls(frames) == TWO
    assert finishes(frames) == [(0, "tool_calls")]
    assert said(frames) == ""


async def test_arguments_given_as_an_object_become_text(world: World) -> None:
    frames = await world.stream(sse(part(0, {"a": 1}, "look", "call_1"), chunk({}, "tool_calls"), usage()), tools=[TOOL])
    assert json.loads(calls(frames)[0]["arguments"]) == {"a": 1}


async def test_calls_of_a_whole_answer(world: World) -> None:
    second = {**CALL, "id": "call_2", "function": {"name": "walk", "arguments": '{"b": 1}'}}
    message, finish = await world.message(whole({"content": None, "tool_calls": [CALL, second]}, "stop"), tools=[TOOL, OTHER])
    assert (message["content"], message["tool_calls"], finish) == (None, [CALL, second], "tool_calls")


async def test_one_call_where_only_one_is_wanted(world: World) -> None:
    frames = await world.stream(sse(*CALL_STREAMS["plain"], usage()), tools=[TOOL, OTHER], parallel_tool_calls=False)
    assert [call["id"] for call in calls(frames)] == ["call_1"]
    assert world.upstream.seen[-1].body["parallel_tool_calls"] is False


async def test_a_call_of_an_undeclared_tool_is_not_passed_on(world: World) -> None:
    scene = sse(chunk({"content": "I look."}), part(0, "{}", "nope", "call_1"), chunk({}, "tool_calls"), usage())
    frames = await world.stream(scene, tools=[TOOL])
    assert calls(frames) == []
    assert finishes(frames) == [(0, "stop")]


@pytest.mark.parametrize("nothing", [[], None])
async def test_empty_calls_beside_text_are_no_calls(world: World, nothing: object) -> None:
    frames = await world.stream(sse(chunk({"content": "x", "tool_calls": nothing}), chunk({}, "stop"), usage()), tools=[TOOL])
    assert (said(frames), finishes(frames)) == ("x", [(0, "stop")])
    assert not any("tool_calls" in frame["choices"][0]["delta"] for frame in frames[:-1])


async def test_roles_repeated_and_null_contents_are_tidied_away(world: World) -> None:
    role = {"role": "assistant"}
    scene = sse(
        chunk({**role, "content": None, "reasoning": "h"}), chunk({**role, "content": "x"}), chunk({**role}, "stop"), usage()
    )
    frames = await world.stream([b": keep-alive\n\n", b"\n\n", *scene])
    assert [bool(frame["choices"][0]["delta"].get("role")) for frame in frames[:-1]].count(True) == 1
    assert (said(frames, "reasoning_content"), said(frames)) == ("h", "x")


async def test_blank_lines_before_a_whole_answer_are_life_signs(world: World) -> None:
    scene = whole({"content": "x"})
    scene.pieces.insert(0, b"\n\n\n")
    assert (await world.message(scene))[0]["content"] == "x"


# 8. Legacy completions

COMPLETIONS = "/v1/completions"


@pytest.mark.parametrize("prompt", ["Hello", ["a", "b"], [1, 2, 3], [[1], [2, 3]]])
async def test_a_prompt_goes_on_as_it_came(world: World, prompt: Any) -> None:
    world.upstream.answer_as_completion()
    status, answer, _ = await world.ds2d.ask(COMPLETIONS, {"model": "vl", "prompt": prompt, "echo": True, "logprobs": 1})
    assert status == 200, answer
    sent = world.upstream.seen[-1]
    assert sent.path == COMPLETIONS
    assert (sent.body["prompt"], sent.body["echo"], sent.body["max_tokens"], sent.body["logprobs"]) == (prompt, True, 16, 1)
    assert answer["id"].startswith("cmpl-")
    assert answer["object"] == "text_completion"
    assert answer["choices"] == [{"index": 0, "text": "Hello from upstream.", "logprobs": None, "finish_reason": "stop"}]
    assert answer["usage"]["total_tokens"] == 12


async def test_a_streamed_completion(world: World) -> None:
    world.upstream.answer_as_completion()
    world.upstream.scenes.pop(0)
    frames = await world.stream(path=COMPLETIONS)
    assert frames.pop() == "[DONE]"
    assert {frame["object"] for frame in frames} == {"text_completion"}
    assert "".join(frame["choices"][0]["text"] for frame in frames) == "Hello from upstream."
    assert [frame["choices"][0]["finish_reason"] for frame in frames] == [None] * (len(frames) - 1) + ["stop"]
    assert frames[-1]["usage"]["total_tokens"] == 12


async def test_a_server_without_completions_is_asked_a_question(world: World) -> None:
    status, answer, _ = await world.ds2d.ask(COMPLETIONS, {"model": "ds", "prompt": "Once", "echo": True})
    assert status == 200, answer
    assert world.upstream.seen[-1].path.endswith("/chat/completions")
    assert world.upstream.seen[-1].body["messages"] == [{"role": "user", "content": "Once"}]
    assert answer["choices"][0]["text"] == "OnceHello from upstream."
    error = await world.refusal(COMPLETIONS, model="ds", prompt=[1, 2])
    assert error["param"] == "prompt"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"prompt": None}, "prompt"),
        ({}, "prompt"),
        ({"prompt": "x", "max_tokens": -1}, "max_tokens"),
        ({"prompt": "x", "logprobs": 6}, "logprobs"),
        ({"prompt": "x", "best_of": 21}, "best_of"),
        ({"prompt": "x", "best_of": 2}, "best_of"),
        ({"prompt": "x", "suffix": "y"}, "suffix"),
        ({"prompt": "x", "n": 0}, "n"),
    ],
)
async def test_a_bad_completion_is_refused_by_name(world: World, body: dict[str, Any], param: str) -> None:
    assert (await world.refusal(COMPLETIONS, **body))["param"] == param


# 1. Models


async def test_the_list_is_open_and_has_the_servers_own_words(world: World) -> None:
    status, answer, _ = await world.ds2d.ask("/v1/models", key=None)
    assert (status, answer["object"]) == (200, "list")
    listed = {model["id"]: model for model in answer["data"]}
    assert {"vl", "ds", "deepseek-chat", "deepseek-reasoner", "deepseek-chat-search", "deepseek-tiny", SLASHED} <= set(listed)
    tiny = listed["deepseek-tiny"]
    assert (tiny["object"], tiny["state"], tiny["max_model_len"]) == ("model", "ready", 4096)
    assert tiny["permission"][0]["id"] == "modelperm-1"
    for model in listed.values():
        assert isinstance(model["created"], int)
        assert model["owned_by"]
        assert isinstance(model["permission"], list)


@pytest.mark.parametrize(
    ("headers", "query", "key"),
    [
        ({}, "", "data"),
        ({"anthropic-version": "2026-10-21"}, "", "has_more"),
        ({"x-goog-api-key": "x"}, "", "models"),
        ({"x-goog-api-client": "x", "anthropic-version": "x"}, "", "models"),
        ({}, "?key=x", "models"),
    ],
)
async def test_the_list_has_the_shape_of_the_sdk_that_asks(world: World, headers: dict[str, str], query: str, key: str) -> None:
    for path in ("/v1/models", "/models"):
        status, answer, _ = await world.ds2d.ask(path + query, key=None, headers=headers)
        assert status == 200
        assert key in answer


@pytest.mark.parametrize(
    "name", [SLASHED, SLASHED.lstrip("/"), SLASHED.replace("/", "%2F"), "deepseek-tiny", "gpt-4o", "my-alias"]
)
async def test_one_model_by_id_with_slashes_or_by_alias(world: World, name: str) -> None:
    path = "/v1/models/" + name.replace(" ", "%20")
    status, answer, _ = await (raw_get(world.ds2d, path) if "%2F" in path else world.ds2d.ask(path, key=None))
    assert status == 200, answer
    assert answer["object"] == "model"
    if "/" in name or "%2F" in name:
        assert answer["id"] == SLASHED


async def raw_get(ds2d: Running, path: str) -> tuple[int, Any, dict[str, str]]:
    """A GET whose path goes out as it is written."""
    async with ds2d.http.get(URL(ds2d.url + path, encoded=True)) as reply:
        return reply.status, await reply.json(), {}


async def test_a_model_with_slashes_answers(world: World) -> None:
    sent = await world.sent(model=SLASHED)
    assert sent["model"] == SLASHED


async def test_an_unknown_model_is_404_in_each_shape(world: World) -> None:
    for headers, check in (
        ({}, lambda answer: answer["error"]["code"] == "model_not_found"),
        ({"anthropic-version": "x"}, lambda answer: answer["error"]["type"] == "not_found_error"),
        ({"x-goog-api-key": "x"}, lambda answer: answer["error"]["status"] == "NOT_FOUND"),
    ):
        status, answer, _ = await world.ds2d.ask("/v1/models/deepseek-nope", key=None, headers=headers)
        assert status == 404
        assert check(answer), answer


# The rest of the surface


@pytest.mark.parametrize(
    "path",
    ["/v1/chat/completions", "/chat/completions", "/v1/v1/chat/completions", "//v1//chat/completions/", "/v1/chat/completions/"],
)
async def test_any_base_url_reaches_the_route(world: World, path: str) -> None:
    status, answer, _ = await world.ds2d.ask(path, {"model": "vl", "messages": HELLO})
    assert status == 200, answer


@pytest.mark.parametrize("name", ["Authorization", "x-api-key", "x-goog-api-key"])
async def test_the_key_may_stand_in_any_of_three_headers(world: World, name: str) -> None:
    value = f"Bearer {KEY}" if name == "Authorization" else KEY
    status, _, _ = await world.ds2d.ask(CHAT, {"model": "vl", "messages": HELLO}, key=None, headers={name: value})
    assert status == 200
    status, answer, headers = await world.ds2d.ask(
        CHAT, {"model": "vl", "messages": HELLO}, key=None, headers={name: value + "x"}
    )
    assert (status, answer["error"]["code"]) == (401, "invalid_api_key")
    assert headers["www-authenticate"].startswith('Bearer realm="ds2d"')


async def test_of_several_keys_the_first_known_one_counts(world: World) -> None:
    headers = {"Authorization": "Bearer sk-nobody", "x-api-key": KEY}
    assert (await world.ds2d.ask(CHAT, {"model": "vl", "messages": HELLO}, key=None, headers=headers))[0] == 200


async def test_a_key_in_the_query_counts_on_gemini_routes_only(world: World) -> None:
    assert (await world.ds2d.ask(f"{CHAT}?key={KEY}", {"model": "vl", "messages": HELLO}, key=None))[0] == 401
    question = {"contents": [{"parts": [{"text": "Hello"}]}]}
    assert (await world.ds2d.ask(f"/v1beta/models/vl:generateContent?key={KEY}", question, key=None))[0] == 200


async def test_browsers_are_let_in_everywhere_but_at_admin(world: World) -> None:
    asked = {"Origin": "https://x.example", "Access-Control-Request-Method": "POST",
             "Access-Control-Request-Headers": "content-type,x-stainless-os,anthropic-version"}  # fmt: skip
    status, _, headers = await world.ds2d.ask(CHAT, method="OPTIONS", key=None, headers=asked)
    assert status == 204
    assert headers["access-control-allow-origin"] == "*"
    allowed = headers["access-control-allow-headers"].lower()
    assert all(
        name in allowed for name in ("authorization", "x-api-key", "x-ds2-target-account", "x-stainless-os", "anthropic-version")
    )
    assert "access-control-allow-credentials" not in headers
    status, _, headers = await world.ds2d.ask(CHAT, {"model": "vl"}, key=None, headers={"Origin": "https://x.example"})
    assert (status, headers["access-control-allow-origin"]) == (401, "*")
    assert "retry-after" in headers["access-control-expose-headers"]
    _, _, headers = await world.ds2d.ask("/admin/x", method="OPTIONS", key=None, headers=asked)
    assert "access-control-allow-origin" not in headers


async def test_request_ids_are_made_and_harmless_ones_kept(world: World) -> None:
    _, _, headers = await world.ds2d.ask("/healthz")
    assert len(headers["x-request-id"]) == 28
    _, _, headers = await world.ds2d.ask("/healthz", headers={"x-request-id": "my.id-1"})
    assert headers["x-request-id"] == "my.id-1"
    _, _, headers = await world.ds2d.ask("/healthz", headers={"x-request-id": "a b"})
    assert headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize(
    ("path", "status"), [("/", 200), ("/anthropic", 200), ("/v1", 200), ("/v1/", 200), ("/healthz", 200), ("/readyz", 200)]
)
async def test_clients_probe_with_head(world: World, path: str, status: int) -> None:
    assert (await world.ds2d.ask(path, method="HEAD", key=None))[:2] == (status, "")


async def test_probes_have_the_exact_bodies_and_ask_nobody(world: World) -> None:
    polls = world.upstream.polls
    for path, body in (("/healthz", {"status": "ok"}), ("/readyz", {"status": "ready"})):
        for _ in range(3):
            assert (await world.ds2d.ask(path, key=None))[:2] == (200, body)
    assert world.upstream.polls <= polls + 3  # the background's own, three servers
    status, details, _ = await world.ds2d.ask("/readyz?verbose", key=None)
    assert (status, details["status"], details["config"]["problem"]) == (200, "ready", [])
    assert world.upstream.base_url not in json.dumps(details)


async def test_unknown_routes_and_methods_are_errors_in_the_dialect(world: World) -> None:
    status, answer, headers = await world.ds2d.ask("/v1/nope")
    assert (status, answer["error"]["code"]) == (404, "not_found")
    assert "x-request-id" in headers
    status, answer, headers = await world.ds2d.ask(CHAT, method="DELETE")
    assert (status, answer["error"]["code"], headers["allow"]) == (405, "method_not_allowed", "POST")


# Setups of their own


async def test_aliases_follow_the_config(tmp_path: Path) -> None:
    async with scripted_upstream("one", "two") as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        body = {"model": "my-gpt", "messages": HELLO}
        assert (await ds2d.ask(CHAT, body))[0] == 404
        for target in ("one", "two"):
            ds2d.change(model_aliases={"my-gpt": target})
            status, answer, _ = await ds2d.ask(CHAT, body)
            assert (status, answer["model"], upstream.seen[-1].body["model"]) == (200, "my-gpt", target)
        assert (await ds2d.ask("/v1/models/my-gpt"))[1]["id"] == "two"


async def test_a_request_may_name_its_account(tmp_path: Path) -> None:
    async with scripted_upstream() as upstream:
        accounts = [
            {"name": "a", "token": "tok-a"},
            {"name": "b", "token": "tok-b"},
            {"email": "c@d.e", "password": "x", "disabled": True},
        ]
        async with running(tmp_path, config_for(upstream.base_url, accounts=accounts)) as ds2d:
            for name in ("b", "b", "a"):
                status, answer, _ = await ds2d.ask(
                    CHAT, {"model": "deepseek-chat", "messages": HELLO}, headers={"X-Ds2-Target-Account": name}
                )
                assert status == 200, answer
                assert upstream.seen[-1].headers["authorization"] == f"Bearer tok-{name}"
            status, answer, headers = await ds2d.ask(
                CHAT, {"model": "deepseek-chat", "messages": HELLO}, headers={"X-Ds2-Target-Account": "nobody"}
            )
            assert (status, answer["error"]["code"]) == (503, "model_unavailable")
            assert "retry-after" in headers
            assert "nobody" not in json.dumps(answer)


async def test_accounts_take_turns(tmp_path: Path) -> None:
    async with scripted_upstream() as upstream:
        accounts = [{"name": name, "token": f"tok-{name}"} for name in "abc"]
        async with running(tmp_path, config_for(upstream.base_url, accounts=accounts)) as ds2d:
            for _ in range(6):
                assert (await ds2d.ask(CHAT, {"model": "deepseek-chat", "messages": HELLO}))[0] == 200
        assert [seen.headers["authorization"][-1] for seen in upstream.seen] == list("abcabc")


async def test_open_networks_let_named_networks_in_and_no_forwarded_ones(tmp_path: Path) -> None:
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        body = {"model": "deepseek-chat", "messages": HELLO}
        assert (await ds2d.ask(CHAT, body, key="EMPTY"))[0] == 401
        server = {"open_networks": ["127.0.0.0/8"]}
        ds2d.change(server=server)
        assert (await ds2d.ask(CHAT, body, key="EMPTY"))[0] == 200
        assert (await ds2d.ask(CHAT, body, key=None))[0] == 200
        assert (await ds2d.ask(CHAT, body, key=None, headers={"X-Forwarded-For": "127.0.0.1"}))[0] == 401
        ds2d.change(server={**server, "trusted_proxies": ["127.0.0.0/8"]})
        assert (await ds2d.ask(CHAT, body, key=None, headers={"X-Forwarded-For": "127.0.0.2"}))[0] == 200
        assert (await ds2d.ask(CHAT, body, key=None, headers={"X-Forwarded-For": "192.0.2.1"}))[0] == 401


async def test_direct_tokens_are_the_servers_to_judge(tmp_path: Path) -> None:
    async with scripted_upstream() as upstream:
        config = config_for(upstream.base_url)
        config["upstreams"][0]["direct_token"] = True
        async with running(tmp_path, config) as ds2d:
            body = {"model": "deepseek-chat", "messages": HELLO}
            assert (await ds2d.ask(CHAT, body, key="their-own-token"))[0] == 200
            assert upstream.seen[-1].headers["authorization"] == "Bearer their-own-token"
            assert (await ds2d.ask(CHAT, body))[0] == 200
            assert "authorization" not in upstream.seen[-1].headers
            both = {"Authorization": "Bearer x", "x-api-key": "y"}
            assert (await ds2d.ask(CHAT, body, key=None, headers=both))[0] == 401
            assert (await ds2d.ask(CHAT, body, key=None))[0] == 401
            for status, code in ((401, (401, "invalid_api_key")), (402, (429, "insufficient_quota"))):
                upstream.scenes.append(refuse(status, {"error": {"message": "no"}}))
                got, answer, _ = await ds2d.ask(CHAT, body, key="bad-token")
                assert (got, answer["error"]["code"]) == code


async def test_an_empty_config_starts_and_refuses(tmp_path: Path) -> None:
    async with running(tmp_path, {}) as ds2d:
        assert (await ds2d.ask("/healthz", key=None))[:2] == (200, {"status": "ok"})
        assert (await ds2d.ask("/readyz", key=None))[:2] == (503, {"status": "not_ready"})
        assert (await ds2d.ask("/health", key=None))[0] == 503
        assert (await ds2d.ask(CHAT, {"model": "deepseek-chat", "messages": HELLO}))[0] == 401
        assert (await ds2d.ask("/v1/models", key=None))[0] == 200
        ds2d.change(keys=[KEY])
        status, answer, headers = await ds2d.ask(CHAT, {"model": "deepseek-chat", "messages": HELLO})
        assert (status, answer["error"]["code"]) == (503, "model_unavailable")
        assert "retry-after" in headers


async def test_readiness_through_life(tmp_path: Path) -> None:
    async with scripted_upstream() as upstream:
        held = Wait()
        upstream.scenes.append(Scene([*say("a")[:2], held, *say("b")[2:]]))
        async with running(tmp_path, config_for(upstream.base_url)) as ds2d, aiohttp.ClientSession() as prober:
            async with prober.get(ds2d.url + "/readyz") as reply:
                assert (reply.status, await reply.json()) == (200, {"status": "ready"})
            turn = asyncio.create_task(ds2d.ask(CHAT, {"model": "deepseek-chat", "messages": HELLO, "stream": True}))
            await held.reached.wait()
            drain = asyncio.create_task(ds2d.daemon.drain(asyncio.Event()))
            await asyncio.sleep(0)
            async with prober.get(ds2d.url + "/readyz") as reply:  # over the connection that is open already
                assert (reply.status, await reply.json()) == (503, {"status": "draining"})
                assert reply.headers["connection"] == "close"
            with pytest.raises(aiohttp.ClientConnectorError):
                await prober.get(ds2d.url + "/readyz")
            held.until.set()
            _, text, _ = await turn
            assert events(text)[-1] == "[DONE]"
            await drain
            assert ds2d.daemon.queue.running == 0


async def test_readiness_without_a_server(tmp_path: Path) -> None:
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        await upstream.stop()
        await ds2d.daemon.first_look()
        assert (await ds2d.ask("/readyz", key=None))[:2] == (503, {"status": "not_ready"})
        status, answer, _ = await ds2d.ask(CHAT, {"model": "deepseek-chat", "messages": HELLO})
        assert status == 503, answer
