"""Secrets that an upstream says again: callers never read them, in no dialect, streamed or not; captures mask them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.functional.admin import ADMIN, administered
from tests.functional.harness import config_for, running
from tests.functional.scripted import Scene, chunk, refuse, scripted_upstream, sse

TOKEN = "upstream-token-secret-1"
HEADER = "Team hush-hush-9931"
HI: list[Any] = [{"role": "user", "content": "Hi"}]
CHAT = "/v1/chat/completions"
ASKED = {
    "chat": (CHAT, {"model": "deepseek-chat", "messages": HI}),
    "chat streamed": (CHAT, {"model": "deepseek-chat", "messages": HI, "stream": True}),
    "claude": ("/v1/messages", {"model": "claude-sonnet-4-5", "max_tokens": 9, "messages": HI}),
    "claude streamed": ("/v1/messages", {"model": "claude-sonnet-4-5", "max_tokens": 9, "messages": HI, "stream": True}),
    "responses": ("/v1/responses", {"model": "deepseek-chat", "input": "Hi"}),
    "responses streamed": ("/v1/responses", {"model": "deepseek-chat", "input": "Hi", "stream": True}),
    "gemini": ("/v1beta/models/gemini-2.5-flash:generateContent", {"contents": [{"parts": [{"text": "Hi"}]}]}),
    "gemini streamed": (
        "/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse",
        {"contents": [{"parts": [{"text": "Hi"}]}]},
    ),
}


def secretive(base_url: str) -> dict[str, Any]:
    config = config_for(base_url, accounts=[{"upstream": "gpu", "token": TOKEN}])
    config["upstreams"][0]["headers"] = {"X-Team": HEADER}
    return config


@pytest.mark.parametrize("status", [400, 422])
@pytest.mark.parametrize("name", ASKED)
async def test_a_refusal_names_no_secret_that_the_upstream_was_sent(tmp_path: Path, name: str, status: int) -> None:
    path, body = ASKED[name]
    said = f"Incorrect key {TOKEN} of {HEADER}"
    error = {"error": {"message": said, "type": "invalid_request_error", "param": TOKEN, "code": status}}
    async with scripted_upstream() as upstream, running(tmp_path, secretive(upstream.base_url)) as ds2d:
        upstream.scenes += [refuse(status, error)] * 3
        _, answer, _ = await ds2d.ask(path, body)
    told = json.dumps(answer)
    assert "Incorrect key" in told
    assert TOKEN not in told
    assert HEADER.split()[-1] not in told


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("name", [name for name in ASKED if "streamed" in name])
async def test_an_error_in_a_stream_names_none_either(tmp_path: Path, name: str, begun: bool) -> None:
    path, body = ASKED[name]
    before = [chunk({"role": "assistant", "content": "So"})] if begun else []
    error = {"error": {"message": f"Incorrect key {TOKEN} of {HEADER}", "type": "invalid_request_error", "code": 400}}
    scene = Scene(sse(*before, error))
    async with scripted_upstream() as upstream, running(tmp_path, secretive(upstream.base_url)) as ds2d:
        upstream.scenes += [scene] * 3
        _, answer, _ = await ds2d.ask(path, body)
    told = json.dumps(answer)
    assert "Incorrect key" in told
    assert TOKEN not in told
    assert HEADER.split()[-1] not in told


@pytest.mark.parametrize("before", range(440, 500, 7))
async def test_a_key_at_which_the_text_is_cut_is_none_either(tmp_path: Path, before: int) -> None:
    path, body = ASKED["chat streamed"]
    error = {"error": {"message": "a " * (before // 2) + TOKEN + " b" * 60, "type": "invalid_request_error", "code": 400}}
    async with scripted_upstream() as upstream, running(tmp_path, secretive(upstream.base_url)) as ds2d:
        upstream.scenes += [Scene(sse(error))] * 3
        _, answer, _ = await ds2d.ask(path, body)
    assert TOKEN[:5] not in json.dumps(answer)


async def test_a_token_that_a_caller_brought_is_in_no_capture(tmp_path: Path) -> None:
    token = "their-own-token-7"
    async with administered(tmp_path, capture={"enabled": True}) as (ds2d, upstream):
        upstreams = ds2d.config()["upstreams"]
        ds2d.change(upstreams=[{**upstreams[0], "direct_token": True}])
        upstream.answer_text = f"You are {token}"
        path, body = ASKED["chat"]
        await ds2d.ask(path, {**body, "messages": [{"role": "user", "content": f"I am {token}"}]}, key=token)
        await ds2d.ask(path, {**body, "model": "no-such-model", "messages": [{"role": "user", "content": token}]}, key=token)
        upstream.scenes.append(refuse(400, {"error": {"message": f"Incorrect key {token}"}}))
        _, refused, _ = await ds2d.ask(path, body, key=token)
        _, answer, _ = await ds2d.ask("/admin/dev/captures", **ADMIN)
    assert len(answer["items"]) == 3
    assert token not in json.dumps(answer)
    assert "Incorrect key" in json.dumps(refused)
    assert token not in json.dumps(refused)
