"""count_tokens in every dialect that has it: the server's own count first, ours where it has none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.functional.harness import KEY, config_for, running
from tests.functional.scripted import refuse, scripted_upstream
from tests.state.ledger_world import until

ASK = [{"role": "user", "content": "Hello"}]
TOOL = {"name": "f", "input_schema": {"type": "object", "properties": {}}}
ROUTES: dict[str, tuple[str, dict[str, Any], str]] = {
    "claude": ("/v1/messages/count_tokens", {"model": "claude-sonnet-4-5", "messages": ASK, "tools": [TOOL]}, "input_tokens"),
    "gemini": ("/v1beta/models/gemini-2.5-flash:countTokens", {"contents": [{"parts": [{"text": "Hello"}]}]}, "totalTokens"),
    "responses": ("/v1/responses/input_tokens", {"model": "deepseek-chat", "input": "Hello"}, "input_tokens"),
}


@pytest.mark.parametrize("dialect", ROUTES)
async def test_the_server_counts_with_its_own_template(tmp_path: Path, dialect: str) -> None:
    path, body, field = ROUTES[dialect]
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        status, answer, _ = await ds2d.ask(path, body)
        (seen,) = upstream.seen
        assert (status, answer[field]) == (200, len(seen.raw) // 4)
        assert seen.path == "/tokenize"
        assert seen.body["model"] == "deepseek-tiny"
        assert seen.body["messages"] == ASK
        assert ("tools" in seen.body) == (dialect == "claude")
        assert "max_tokens" not in seen.body


@pytest.mark.parametrize("dialect", ROUTES)
async def test_without_it_the_count_is_ours(tmp_path: Path, dialect: str) -> None:
    path, body, field = ROUTES[dialect]
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        upstream.scenes.append(refuse(404, {"detail": "Not Found"}))
        status, answer, _ = await ds2d.ask(path, body)
        assert status == 200
        assert 0 < answer[field] != len(upstream.seen[0].raw) // 4


async def test_a_bad_question_is_refused_as_the_messages_route_would(tmp_path: Path) -> None:
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        status, answer, _ = await ds2d.ask("/v1/messages/count_tokens", {"model": "claude-sonnet-4-5", "messages": []})
        assert (status, answer["error"]["type"]) == (400, "invalid_request_error")
        assert upstream.seen == []


async def test_the_count_of_a_chain_has_all_that_it_refers_to(tmp_path: Path) -> None:
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        _, made, _ = await ds2d.ask("/v1/responses", {"model": "deepseek-chat", "input": "Hello"})
        said = {"type": "item_reference", "id": made["output"][0]["id"]}
        for more in ({"previous_response_id": made["id"], "input": "more"}, {"input": [*ASK, said, *ASK]}):
            status, answer, _ = await ds2d.ask("/v1/responses/input_tokens", {"model": "deepseek-chat"} | more)
            assert (status, answer.get("object")) == (200, "response.input_tokens"), answer
            told = upstream.seen[-1].body["messages"]
            assert [message["role"] for message in told] == ["user", "assistant", "user"]
            assert told[1]["content"] == "Hello from upstream."


async def test_the_count_of_another_keys_chain_is_refused_as_its_answer_would_be(tmp_path: Path) -> None:
    keys = [KEY, "sk-other-0123456789"]
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url, keys=keys)) as ds2d:
        _, made, _ = await ds2d.ask("/v1/responses", {"model": "deepseek-chat", "input": "Hello"})
        ask = {"model": "deepseek-chat", "input": "more", "previous_response_id": made["id"]}
        status, answer, _ = await ds2d.ask("/v1/responses/input_tokens", ask, key=keys[1])
        assert (status, answer["error"]["code"]) == (400, "previous_response_not_found")


CHAT = "/v1/chat/completions"
WORDS = " ".join(["word"] * 80)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("entry", "prompt", "wanted", "sent"),
    [
        ({}, "Hello", 5000, range(4060, 4095)),  # the window that the server tells, less the prompt
        ({"context": 100}, WORDS, 40, range(10, 19)),
        ({"context": 200}, WORDS, 40, range(40, 41)),
        ({"max_output": 50}, "Hello", 80, range(50, 51)),
        ({"context": 50}, WORDS, 40, range(40, 41)),  # the prompt alone is too long: that is for the server to say
    ],
)
async def test_max_tokens_is_cut_to_what_there_is_room_for_and_the_route_says_so(
    tmp_path: Path, entry: dict[str, Any], prompt: str, wanted: int, sent: range, stream: bool
) -> None:
    async with scripted_upstream() as upstream:
        models = {"tiny": {"upstream": "gpu", "model": "deepseek-tiny", **entry}}
        async with running(tmp_path, config_for(upstream.base_url, models=models)) as ds2d:
            await until(lambda: ds2d.daemon.counter.loaded)
            body = {"model": "tiny", "messages": [{"role": "user", "content": prompt}], "max_tokens": wanted, "stream": stream}
            status, _, headers = await ds2d.ask(CHAT, body)
            assert status == 200
            limit = upstream.seen[-1].body["max_tokens"]
            assert limit in sent
            note = f"max_tokens={limit}"
            assert (note in headers["x-ds2d-route"].split("; ")) == (limit != wanted)
            assert (note in ds2d.daemon.books.recent[0]["notes"]) == (limit != wanted)


async def test_an_estimate_cuts_nothing_that_may_have_room(tmp_path: Path) -> None:
    async with scripted_upstream() as upstream:
        models = {"tiny": {"upstream": "gpu", "model": "deepseek-tiny", "context": 100}}
        async with running(tmp_path, config_for(upstream.base_url, models=models)) as ds2d:
            await until(lambda: ds2d.daemon.counter.loaded)
            ds2d.daemon.counter.loaded = False
            ask = {"model": "tiny", "messages": [{"role": "user", "content": WORDS}]}
            await ds2d.ask(CHAT, {**ask, "max_tokens": 40})
            await ds2d.ask(CHAT, {**ask, "max_tokens": 400})
            assert [seen.body["max_tokens"] for seen in upstream.seen] == [40, 100]


async def test_an_attempt_on_another_server_has_its_own_limit(tmp_path: Path) -> None:
    async with scripted_upstream(("big",)) as first, scripted_upstream(("small",)) as second:
        config = config_for(first.base_url, models={"tiny": {"upstream": ["one", "two"], "model": "m", "max_output": 50}})
        config["upstreams"] = [
            {"name": name, "kind": "openai", "base_url": server.base_url, "poll_seconds": 3600}
            for name, server in (("one", first), ("two", second))
        ]
        async with running(tmp_path, config) as ds2d:
            first.decide = second.decide = lambda seen: refuse(500, {}) if len(first.seen) + len(second.seen) == 1 else None
            _, _, headers = await ds2d.ask(CHAT, {"model": "tiny", "messages": ASK, "max_tokens": 80})
            assert headers["x-ds2d-route"].split("; ") == ["model=tiny", "retries=1", "max_tokens=50"]
