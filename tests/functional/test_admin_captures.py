"""Captures through the whole daemon: off by default, bounded, redacted; exported, played again, scrubbed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ds2d.cli import main
from ds2d.cli.capture import FORMAT
from ds2d.cli.replay import comparable, replay
from ds2d.cli.scrub import scrubbed
from tests.functional.admin import ADMIN, administered
from tests.functional.harness import ADMIN_KEY, KEY
from tests.functional.scripted import RESET, Scene, refuse

QUESTIONS = {
    "chat": ("/v1/chat/completions", {"model": "gpt-4o", "stream": True, "messages": [{"role": "user", "content": "Hi"}]}),
    "whole": ("/v1/chat/completions", {"model": "deepseek-chat", "messages": [{"role": "user", "content": "Hi"}]}),
    "claude": (
        "/v1/messages",
        {"model": "claude-sonnet-4-5", "stream": True, "max_tokens": 50, "messages": [{"role": "user", "content": "Hi"}]},
    ),
    "gemini": ("/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse", {"contents": [{"parts": [{"text": "Hi"}]}]}),
    "responses": ("/v1/responses", {"model": "deepseek-chat", "stream": True, "input": "Hi"}),
    "tokens": ("/tokenize", {"model": "deepseek-chat", "prompt": "Hi"}),
}
FIELDS = {"id", "created_at", "label", "url", "account_id", "status_code", "request_body", "response_body", "response_truncated"}


@pytest.mark.parametrize("name", QUESTIONS)
async def test_a_capture_played_again_gives_the_answer_that_the_client_got(tmp_path: Path, name: str) -> None:
    path, body = QUESTIONS[name]
    async with administered(tmp_path, capture={"enabled": True}) as (ds2d, _):
        _, answer, _ = await ds2d.ask(path, body)
        [item] = (await ds2d.ask("/admin/dev/captures", key=ADMIN_KEY))[1]["items"]
    assert set(item) >= FIELDS
    assert item["id"].startswith("cap_")
    assert "?" not in item["url"]
    told = answer if isinstance(answer, str) else json.dumps(answer)
    assert comparable(item["client_body"]) == comparable(told)
    again = await replay({"format": FORMAT, **item})
    assert comparable(again) == comparable(item["client_body"])
    changed = item["response_body"].replace("upstream", "elsewhere").replace('"count"', '"counted"')
    other = {**item, "response_body": changed, "cuts": []}
    assert comparable(await replay(other)) != comparable(item["client_body"])


async def test_nothing_is_kept_until_it_is_asked_for_and_never_more_than_that(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, body = QUESTIONS["whole"]
    async with administered(tmp_path) as (ds2d, _):
        await ds2d.ask(path, body)
        _, answer, _ = await ds2d.ask("/admin/dev/captures", **ADMIN)
        assert answer == {"enabled": False, "limit": 20, "max_body_bytes": 2097152, "items": []}
        ds2d.change(capture={"enabled": True, "limit": 2, "max_body_bytes": 1024})
        for text in ("one", "two", "x" * 3000):
            await ds2d.ask(path, {**body, "messages": [{"role": "user", "content": text}]})
        _, answer, _ = await ds2d.ask("/admin/dev/captures", **ADMIN)
        assert [item["request_body"].count("two") for item in answer["items"]] == [0, 1]
        assert len(answer["items"][0]["request_body"]) <= 1024
        assert [item["request_truncated"] for item in answer["items"]] == [True, False]
        cut = tmp_path / "cut.json"
        cut.write_text(json.dumps({"format": FORMAT, **answer["items"][0]}))
        assert main(["replay", str(cut)]) == 1
        assert "the captured question was cut" in capsys.readouterr().err
        ds2d.change(capture={"enabled": True, "limit": 1, "max_body_bytes": 1024})
        _, answer, _ = await ds2d.ask("/admin/dev/captures", **ADMIN)
        assert [item["request_truncated"] for item in answer["items"]] == [True]
        assert ds2d.daemon.captures.sizes()["kept"].now == 1
        _, answer, _ = await ds2d.ask("/admin/dev/captures", method="DELETE", **ADMIN)
        assert answer == {"success": True, "detail": "capture logs cleared"}
        assert (await ds2d.ask("/admin/dev/captures", **ADMIN))[1]["items"] == []


async def test_what_no_upstream_answered_cannot_be_played(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made_here = {"provider": "deterministic", "dimensions": 3}
    async with administered(tmp_path, capture={"enabled": True}, embeddings=made_here) as (ds2d, _):
        await ds2d.ask("/v1/embeddings", {"model": "deepseek-chat", "input": "Hi"})
        [item] = (await ds2d.ask("/admin/dev/captures", **ADMIN))[1]["items"]
    file = tmp_path / "capture.json"
    file.write_text(json.dumps({"format": FORMAT, **item}))
    assert main(["replay", str(file)]) == 1
    assert "nothing to play" in capsys.readouterr().err


async def test_a_refusal_of_the_upstream_is_captured_as_it_came(tmp_path: Path) -> None:
    path, body = QUESTIONS["whole"]
    async with administered(tmp_path, capture={"enabled": True}) as (ds2d, upstream):
        upstream.scenes.append(refuse(400, {"error": {"message": "temperature is odd", "code": 400}}))
        await ds2d.ask(path, body)
        [item] = (await ds2d.ask("/admin/dev/captures", **ADMIN))[1]["items"]
    assert item["status_code"] == 400
    assert "temperature is odd" in item["response_body"]
    assert item["error"]


async def test_of_several_attempts_the_last_is_captured_and_nothing_of_those_before(tmp_path: Path) -> None:
    path, body = QUESTIONS["whole"]
    async with administered(tmp_path, capture={"enabled": True}) as (ds2d, upstream):
        upstream.scenes += [refuse(500, {"error": {"message": "boom"}}), *[Scene([RESET], raw=True) for _ in range(4)]]
        assert (await ds2d.ask(path, body))[0] == 503
        [item] = (await ds2d.ask("/admin/dev/captures", key=ADMIN_KEY))[1]["items"]
    assert (item["status_code"], item["content_type"], item["response_body"]) == (0, "", "")
    assert item["error"] == "upstream_error"


async def test_known_secrets_are_not_kept_wherever_they_stand(tmp_path: Path) -> None:
    path, body = QUESTIONS["chat"]
    async with administered(tmp_path, capture={"enabled": True}) as (ds2d, upstream):
        upstream.answer_text = f"You said {KEY} to me"
        await ds2d.ask(path, {**body, "messages": [{"role": "user", "content": f"my key is {KEY}"}]})
        _, answer, _ = await ds2d.ask("/admin/dev/captures", **ADMIN)
    assert answer["items"]
    assert KEY not in json.dumps(answer)


def test_scrubbing_keeps_lengths_and_structure_and_no_words() -> None:
    stream = '{"choices":[{"delta":{"content":"<think>Plan nine</think>"},"finish_reason":"stop"}]}'
    item = {
        "request_body": '{"model":"m","messages":[{"role":"user","content":"My secret plan 9"}]}',
        "upstream_request": "{}",
        "response_body": f"data: {stream}\n\ndata: [DONE]\n\n",
        "client_body": "not json at all",
    }
    done = scrubbed(item)
    assert done["request_body"] == '{"model":"m","messages":[{"role":"user","content":"xx xxxxxx xxxx x"}]}'
    assert '"content":"<think>xxxx xxxx</think>"' in done["response_body"]
    assert '"finish_reason":"stop"' in done["response_body"]
    assert done["response_body"].endswith("data: [DONE]\n\n")
    assert done["client_body"] == "xxx xxxx xx xxx"
