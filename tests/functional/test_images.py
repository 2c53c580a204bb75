"""Images: to a model that sees they go as they came, to one that does not they are refused by their place, in every dialect."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.functional.harness import config_for, running
from tests.functional.scripted import scripted_upstream

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 40).decode()
URL = f"data:image/png;base64,{PNG}"
WORDS = "What does it say? 你好 \u2028 <image>"

PARTS: list[dict[str, Any]] = [
    {"type": "text", "text": WORDS},
    {"type": "image_url", "image_url": {"url": URL, "detail": "high"}, "uuid": "img-1"},
    {"type": "image_url", "image_url": {"url": "https://pictures.example/a.png?b=c&d=%20"}},
]
MODEL = "deepseek-ai/DeepSeek-OCR"
WORD = {"type": "text", "text": "and?"}

QUESTIONS: dict[str, tuple[str, dict[str, Any], str]] = {
    "chat": ("/v1/chat/completions", {"messages": [{"role": "user", "content": PARTS}]}, "messages[0].content[1]"),
    "responses": (
        "/v1/responses",
        {
            "input": [
                {"role": "user", "content": [{"type": "input_text", "text": WORDS}, {"type": "input_image", "image_url": URL}]}
            ]
        },
        "input[0].content[1]",
    ),
    "claude": (
        "/v1/messages",
        {
            "max_tokens": 9,
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": WORDS},
                        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
                    ],
                }
            ],
        },
        "messages.0.content.1",
    ),
    "claude tool result": (
        "/v1/messages",
        {
            "max_tokens": 9,
            "messages": [
                {"role": "user", "content": "look"},
                {"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_1", "name": "look", "input": {}}]},
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "tool_result",
                            "tool_use_id": "toolu_1",
                            "content": [{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}],
                        }
                    ],
                },
            ],
        },
        "messages.2.content.0.content.0",
    ),
    "gemini": (
        "/v1beta/models/MODEL:generateContent",
        {"contents": [{"role": "user", "parts": [{"text": WORDS}, {"inlineData": {"mimeType": "image/png", "data": PNG}}]}]},
        "contents[0].parts[1]",
    ),
}


def asked(name: str, model: str) -> tuple[str, dict[str, Any]]:
    path, body, _ = QUESTIONS[name]
    return path.replace("MODEL", model), body if name == "gemini" else {**body, "model": model}


async def test_the_parts_of_a_chat_arrive_byte_for_byte(tmp_path: Path) -> None:
    async with scripted_upstream(MODEL) as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        path, body = asked("chat", MODEL)
        for text in (orjson.dumps(body), orjson.dumps({**body, "stream": True})):
            status, answer, _ = await ds2d.ask(path, data=text)
            assert status == 200, answer
            assert orjson.dumps(PARTS) in text
            assert orjson.dumps(PARTS) in upstream.seen[-1].raw


@pytest.mark.parametrize("name", QUESTIONS)
async def test_an_image_reaches_a_model_that_sees_it(tmp_path: Path, name: str) -> None:
    async with scripted_upstream(MODEL) as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        status, answer, _ = await ds2d.ask(*asked(name, MODEL))
        assert status == 200, answer
        assert upstream.seen[0].raw.count(URL.encode()) == 1


@pytest.mark.parametrize("name", [name for name in QUESTIONS if name != "claude tool result"])
async def test_a_text_model_refuses_by_the_images_place_and_nobody_is_asked(tmp_path: Path, name: str) -> None:
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        path, body = asked(name, "deepseek-chat")
        for more in ({}, {"stream": True}) if name != "gemini" else ({},):
            status, answer, _ = await ds2d.ask(path, {**body, **more})
            error = answer["error"]
            assert status == 400, answer
            where = QUESTIONS[name][2]
            assert f"'deepseek-chat' does not accept images ({where})" in error["message"]
            if name == "gemini":
                assert error["status"] == "INVALID_ARGUMENT"
            else:
                assert error["param"] == where
                assert error["code"] == "image_not_supported"
        assert upstream.seen == []


async def test_what_the_config_says_of_a_model_beats_its_name(tmp_path: Path) -> None:
    models = {"plain": {"model": MODEL, "images": False}, "seeing": {"model": "deepseek-tiny", "images": True}}
    two = scripted_upstream(MODEL, "deepseek-tiny")
    async with two as upstream, running(tmp_path, config_for(upstream.base_url, models=models)) as ds2d:
        assert (await ds2d.ask(*asked("chat", "plain")))[0] == 400
        assert (await ds2d.ask(*asked("chat", "seeing")))[0] == 200
        ds2d.change(images={"on_text_model": "drop"})
        assert (await ds2d.ask(*asked("chat", "plain")))[0] == 200
        said = json.loads(upstream.seen[-1].raw)["messages"][0]["content"]
        assert said.count("[image omitted]") == 2
        assert WORDS in said


@pytest.mark.parametrize("policy", ["error", "drop"])
async def test_a_tools_image_becomes_a_note_in_its_result_for_a_model_that_sees_none(tmp_path: Path, policy: str) -> None:
    """A client cannot take a result back: refused, its conversation would be over (anthropic-messages.md 3)."""
    config = {"images": {"on_text_model": policy, "max_bytes": 1024}}  # it is not shown, so its size does not matter
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url, **config)) as ds2d:
        path, body = asked("claude tool result", "deepseek-chat")
        status, answer, _ = await ds2d.ask(path, body)
        assert status == 200, answer
        last = json.loads(upstream.seen[-1].raw)["messages"][-1]
        assert last == {"role": "tool", "tool_call_id": "toolu_1", "content": "[image omitted]"}


async def test_beside_a_tools_image_words_stay_and_the_users_own_image_is_refused(tmp_path: Path) -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}
    calls = [{"type": "tool_use", "id": f"toolu_{name}", "name": "look", "input": {}} for name in "abc"]
    results = {"a": [{"type": "text", "text": "seen"}, image, image], "b": "plain", "c": [image]}
    blocks: list[dict[str, Any]] = [
        {"type": "tool_result", "tool_use_id": f"toolu_{name}", "content": content, "is_error": name == "c"}
        for name, content in results.items()
    ]
    history: list[dict[str, Any]] = [{"role": "user", "content": "look"}, {"role": "assistant", "content": calls}]

    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        body = {"model": "deepseek-chat", "max_tokens": 9, "messages": [*history, {"role": "user", "content": [*blocks, WORD]}]}
        status, answer, _ = await ds2d.ask("/v1/messages", body)
        assert status == 200, answer
        *_, first, second, third, words = json.loads(upstream.seen[-1].raw)["messages"]
        assert first["content"] == "seen\n\n[image omitted]\n\n[image omitted]"
        assert (second["content"], third["content"]) == ("plain", "Error: [image omitted]")
        assert words == {"role": "user", "content": "and?"}

        body["messages"] = [*history, {"role": "user", "content": [*blocks, WORD, image]}]
        status, answer, _ = await ds2d.ask("/v1/messages", body)
        assert (status, answer["error"]["param"]) == (400, "messages.2.content.4")
