"""What models are asked for besides answers: each task goes to the server that has it, in its shape, under the rules of chat."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from ds2d.core.errors import ErrorKind, GatewayError
from tests.functional.harness import KEY, Running, config_for, running
from tests.functional.scripted import END, RESET, Scene, ScriptedUpstream, Wait, answer, refuse, scripted_upstream, sse

USAGE = {"prompt_tokens": 9, "total_tokens": 9, "completion_tokens": 0}
VECTORS = {
    "id": "embd-1",
    "object": "list",
    "created": 1763640000,
    "model": "up",
    "data": [{"index": 0, "object": "embedding", "embedding": [0.25, -0.5]}],
    "usage": USAGE,
}
POOLING = ("/v1/embeddings", "/pooling", "/classify", "/v1/score", "/v1/rerank", "/tokenize", "/detokenize", "/tokenizer_info")
CHATTING = ("/v1/chat/completions", "/tokenize", "/detokenize")

TASKS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "/v1/embeddings": ("/v1/embeddings", {"input": "Hello"}, VECTORS),
    "/embeddings": ("/v1/embeddings", {"input": [1, 2, 3]}, VECTORS),
    "/pooling": ("/pooling", {"input": ["a", "b"], "task": "embed"}, {"id": "pool-1", "model": "up", "data": [], "usage": USAGE}),
    "/v1/pooling": ("/pooling", {"data": {"x": 1}}, {"request_id": "1", "created_at": 1, "data": 7}),
    "/classify": ("/classify", {"input": "x"}, {"id": "classify-1", "model": "up", "data": [{"label": "good"}], "usage": USAGE}),
    "/v1/classify": ("/classify", {"input": "x", "truncate_prompt_tokens": -1}, {"model": "up", "data": [], "usage": USAGE}),
    "/score": ("/v1/score", {"text_1": "a", "text_2": ["b", "c"]}, {"model": "up", "data": [{"score": 0.5}], "usage": USAGE}),
    "/v1/score": ("/v1/score", {"queries": "a", "documents": "b"}, {"model": "up", "data": [], "usage": USAGE}),
    "/rerank": ("/v1/rerank", {"query": "a", "documents": ["b"], "top_n": 1}, {"model": "up", "results": [], "usage": USAGE}),
    "/v1/rerank": ("/v1/rerank", {"query": "a", "documents": ["b"]}, {"model": "up", "results": [], "usage": USAGE}),
    "/v2/rerank": ("/v1/rerank", {"query": "a", "documents": ["b"]}, {"model": "up", "results": [], "usage": USAGE}),
    "/tokenize": ("/tokenize", {"prompt": "a", "return_token_strs": True}, {"count": 1, "max_model_len": 9, "tokens": [5]}),
    "/v1/tokenize": ("/tokenize", {"messages": [{"role": "user", "content": "a"}]}, {"count": 1, "tokens": [5]}),
    "/detokenize": ("/detokenize", {"tokens": [5]}, {"prompt": "a"}),
    "/v1/detokenize": ("/detokenize", {"tokens": [5]}, {"prompt": "a"}),
}


SOUND = bytes(range(256)) * 4096
"""A megabyte."""


def recording(model: str, *, file_first: bool = False) -> aiohttp.FormData:
    """The form of a transcription."""
    form = aiohttp.FormData()
    fields: list[tuple[str, Any, dict[str, Any]]] = [
        ("model", model, {}),
        ("file", SOUND, {"filename": "a.wav", "content_type": "audio/wav"}),
        ("language", "en", {}),
    ]
    for name, value, more in sorted(fields, key=lambda one: one[0] != "file") if file_first else fields:
        form.add_field(name, value, **more)
    return form


@asynccontextmanager
async def two_servers(folder: Path, **sections: Any) -> AsyncIterator[tuple[Running, ScriptedUpstream, ScriptedUpstream]]:
    """A server that chats and one that pools."""
    async with scripted_upstream() as chat, scripted_upstream() as pool:
        chat.models, pool.models = ("deepseek-tiny",), ("team/vectors",)
        chat.tell_routes(*CHATTING)
        pool.tell_routes(*POOLING)
        config = config_for(chat.base_url, **sections)
        config["upstreams"].append({"name": "pool", "kind": "openai", "base_url": pool.base_url, "poll_seconds": 1})
        async with running(folder, config) as ds2d:
            yield ds2d, chat, pool


@pytest.mark.parametrize("path", TASKS)
async def test_a_task_goes_through_as_it_came_and_back_under_the_asked_name(tmp_path: Path, path: str) -> None:
    upstream_path, body, said = TASKS[path]
    async with two_servers(tmp_path, model_aliases={"mine": "team/vectors"}) as (ds2d, _, pool):
        pool.scenes.append(answer(said))
        status, got, headers = await ds2d.ask(path, {"model": "mine", "cache_salt": "s", "request_id": "no", **body})
        assert status == 200, got
        assert headers["content-type"] == "application/json"
        assert got == ({**said, "model": "mine"} if "model" in said else said)
        [seen] = pool.seen
        assert seen.path == upstream_path
        assert seen.body == {"model": "team/vectors", "cache_salt": "s", **body}
        [turn] = ds2d.daemon.books.recent
        assert turn["state"] == "completed"
        if "usage" in said:
            assert turn["tokens"]["prompt"] == 9
            assert turn["tokens"]["source"] == "upstream"


@pytest.mark.parametrize("path", [*TASKS, "/tokenizer_info", "/load", "/v1/audio/transcriptions", "/v1/audio/translations"])
async def test_each_needs_a_key_and_the_right_to_the_model(tmp_path: Path, path: str) -> None:
    keys = [{"key": KEY, "name": "narrow", "models": ["deepseek-*"]}]
    async with two_servers(tmp_path, keys=keys) as (ds2d, chat, pool):
        method = "GET" if path in ("/tokenizer_info", "/load") else "POST"
        status, got, _ = await ds2d.ask(path, data=b"{", method=method, key="sk-wrong")
        assert (status, got["error"]["code"]) == (401, "invalid_api_key")
        if path in TASKS:
            status, got, _ = await ds2d.ask(path, {"model": "team/vectors", **TASKS[path][1]})
            assert (status, got["error"]["code"]) == (403, "model_not_allowed")
        assert chat.seen == pool.seen == []


async def test_a_quota_holds_for_tasks_as_for_chat(tmp_path: Path) -> None:
    keys = [{"key": KEY, "name": "small", "max_tokens": 18}]
    async with two_servers(tmp_path, keys=keys) as (ds2d, _, pool):
        pool.scenes += [answer(VECTORS), answer({"prompt": "a"}), answer(VECTORS)]
        asked = {"model": "team/vectors", "input": "one two three four five six"}
        assert (await ds2d.ask("/v1/embeddings", asked))[0] == 200
        assert (await ds2d.ask("/detokenize", {"model": "team/vectors", "tokens": [1]}))[0] == 200  # uses nothing
        assert (await ds2d.ask("/v1/embeddings", asked))[0] == 200
        status, got, _ = await ds2d.ask("/v1/embeddings", asked)
        assert (status, got["error"]["code"]) == (429, "insufficient_quota")
        assert len(pool.seen) == 3


async def test_a_rate_holds_too_and_what_was_used_is_on_the_keys_record(tmp_path: Path) -> None:
    keys = [{"key": KEY, "name": "slow", "rpm": 2}]
    async with two_servers(tmp_path, keys=keys) as (ds2d, _, pool):
        pool.scenes += [answer(VECTORS), answer({"results": [], "usage": USAGE})]
        assert (await ds2d.ask("/v1/embeddings", {"model": "team/vectors", "input": "x"}))[0] == 200
        assert (await ds2d.ask("/rerank", {"model": "team/vectors", "query": "a", "documents": ["b"]}))[0] == 200
        status, got, headers = await ds2d.ask("/tokenize", {"model": "team/vectors", "prompt": "a"})
        assert (status, got["error"]["code"]) == (429, "rate_limit_exceeded")
        assert int(headers["retry-after"]) > 0
        _, usage, _ = await ds2d.ask("/v1/usage")
        assert usage["used"]["total"] == {"prompt_tokens": 18, "completion_tokens": 0, "total_tokens": 18}


async def test_who_leaves_frees_the_server(tmp_path: Path) -> None:
    async with two_servers(tmp_path) as (ds2d, _, pool):
        hold = Wait()
        pool.decide = lambda seen: Scene([hold], content_type="application/json")
        for path, body in (("/v1/embeddings", {"input": "x"}), ("/v1/audio/transcriptions", None)):
            pool.seen.clear()
            hold.reached.clear()
            more = {} if body else {"data": recording("team/vectors")}
            asked = asyncio.create_task(ds2d.ask(path, body and {"model": "team/vectors", **body}, **more))
            await asyncio.wait_for(hold.reached.wait(), 20)
            asked.cancel()
            await asyncio.wait_for(pool.seen[0].closed.wait(), 20)
            if body:
                pool.tell_routes("/v1/audio/transcriptions")
                await look_anew(ds2d)
        await asyncio.wait_for(all_done(ds2d), 20)
        assert {turn["state"] for turn in ds2d.daemon.books.recent} == {"interrupted"}


async def all_done(ds2d: Running) -> None:
    """Until no turn runs."""
    while ds2d.daemon.service.turns:  # noqa: ASYNC110 - there is no event for it
        await asyncio.sleep(0)


async def test_a_task_waits_in_the_same_queue(tmp_path: Path) -> None:
    runtime = {"account_max_queue": 1, "account_max_inflight": 1}
    async with two_servers(tmp_path, runtime=runtime) as (ds2d, _, pool):
        ds2d.change(upstreams=[{**one, "max_inflight": 1} for one in ds2d.config()["upstreams"]])
        hold = Wait()
        pool.decide = lambda seen: Scene([hold, json.dumps(VECTORS).encode()], content_type="application/json")
        asked = {"model": "team/vectors", "input": "x"}
        first = asyncio.create_task(ds2d.ask("/v1/embeddings", asked))
        await asyncio.wait_for(hold.reached.wait(), 20)
        second = asyncio.create_task(ds2d.ask("/rerank", {"model": "team/vectors", "query": "a", "documents": ["b"]}))
        while ds2d.daemon.queue.waiting == 0:  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0)
        assert (await ds2d.ask("/load"))[1] == {"server_load": 2}
        status, got, headers = await ds2d.ask("/tokenize", {"model": "team/vectors", "prompt": "a"})
        assert (status, got["error"]["code"]) == (429, "queue_full")
        assert "retry-after" in headers
        hold.until.set()
        assert [(await first)[0], (await second)[0]] == [200, 200]
        assert (await ds2d.ask("/load"))[1] == {"server_load": 0}


async def test_a_failure_before_the_answer_is_tried_again_elsewhere(tmp_path: Path) -> None:
    async with scripted_upstream() as first, scripted_upstream() as second:
        for one in (first, second):
            one.models = ("team/vectors",)
            one.tell_routes(*POOLING)
        config = config_for(first.base_url)
        config["upstreams"].append({"name": "two", "kind": "openai", "base_url": second.base_url})
        async with running(tmp_path, config) as ds2d:
            first.decide = lambda seen: Scene([b'{"data"', RESET], content_type="application/json")
            second.decide = lambda seen: answer(VECTORS)
            for _ in range(2):
                status, got, _ = await ds2d.ask("/v1/embeddings", {"model": "team/vectors", "input": "x"})
                assert status == 200, got
            assert second.seen


@pytest.mark.parametrize(
    ("scene", "status", "code"),
    [
        (refuse(404, {"detail": "Not Found"}), 501, "not_implemented"),
        (refuse(500, {"error": {"message": "Llama model must be created with embedding=True"}}), 501, "not_implemented"),
        (answer({"data": [{"index": 0, "embedding": [[0.5, 0.5], [0.1, 0.2]]}]}), 501, "not_implemented"),
        (answer({"data": [{"index": 0, "embedding": None}]}), 503, "upstream_error"),
        (answer({"data": [{"index": 0, "embedding": ["a"]}]}), 503, "upstream_error"),
        (refuse(400, {"error": {"message": "bad dimensions", "type": "BadRequestError", "code": 400}}), 400, "invalid_request"),
        (refuse(400, {"error": {"message": "maximum context length is 8 tokens"}}), 400, "context_length_exceeded"),
        (refuse(500, {"error": {"message": "boom"}}), 503, "upstream_error"),
        (Scene([b"<html>"], content_type="text/html"), 503, "upstream_error"),
        (Scene([b'{"data": ['], content_type="application/json"), 503, "upstream_error"),
        (Scene([b'{"data": [', END], content_type="application/json"), 503, "upstream_disconnected"),
    ],
)
async def test_refusals_and_broken_answers_have_the_shape_of_the_gateway(
    tmp_path: Path, scene: Scene, status: int, code: str
) -> None:
    async with two_servers(tmp_path) as (ds2d, _, pool):
        pool.decide = lambda seen: scene
        asked = {"model": "team/vectors", "input": "x", "encoding_format": "base64"}
        got = await ds2d.ask("/v1/embeddings", asked)
        assert (got[0], got[1]["error"]["code"]) == (status, code)
        assert set(got[1]["error"]) == {"message", "type", "code", "param"}


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/embeddings", {}, "input"),
        ("/v1/embeddings", {"input": ""}, "input"),
        ("/v1/embeddings", {"input": []}, "input"),
        ("/v1/embeddings", {"input": ["a", 1]}, "input"),
        ("/v1/embeddings", {"input": ["a"] * 2049}, "input"),
        ("/v1/embeddings", {"input": "a", "dimensions": 0}, "dimensions"),
        ("/v1/embeddings", {"input": "a", "encoding_format": "bytes"}, "encoding_format"),
        ("/tokenize", {}, "prompt"),
        ("/tokenize", {"prompt": "a", "messages": []}, "messages"),
        ("/tokenize", {"messages": [], "continue_final_message": True}, "continue_final_message"),
        ("/detokenize", {"tokens": [-1]}, "tokens[0]"),
        ("/detokenize", {}, "tokens"),
        ("/score", {"text_1": "a"}, "text_1"),
        ("/rerank", {"query": "a", "documents": []}, "documents"),
        ("/rerank", {"query": "a", "documents": ["b"], "top_n": -1}, "top_n"),
        ("/classify", {}, "input"),
        ("/pooling", {"input": "a", "messages": []}, "messages"),
    ],
)
async def test_a_bad_body_is_refused_by_its_field_and_asks_nobody(
    tmp_path: Path, path: str, body: dict[str, Any], param: str
) -> None:
    async with two_servers(tmp_path) as (ds2d, _, pool):
        status, got, _ = await ds2d.ask(path, {"model": "team/vectors", **body})
        assert (status, got["error"]["param"]) == (400, param), got
        assert pool.seen == []


@pytest.mark.parametrize("name", ["", "deepseek-chat", "gpt-4o", "text-embedding-3-small"])
async def test_names_that_only_stand_for_a_model_reach_the_one_that_embeds(tmp_path: Path, name: str) -> None:
    async with two_servers(tmp_path) as (ds2d, chat, pool):
        pool.scenes.append(answer(VECTORS))
        status, got, _ = await ds2d.ask("/v1/embeddings", {"model": name, "input": "x"})
        assert (status, got["model"]) == (200, name or "team/vectors")
        assert (len(chat.seen), len(pool.seen)) == (0, 1)


async def test_a_model_of_its_own_name_is_never_another(tmp_path: Path) -> None:
    async with two_servers(tmp_path) as (ds2d, chat, pool):
        status, got, _ = await ds2d.ask("/v1/embeddings", {"model": "deepseek-tiny", "input": "x"})
        assert (status, got["error"]["code"]) == (501, "not_implemented")
        status, got, _ = await ds2d.ask("/v1/embeddings", {"model": "nobody-knows-it", "input": "x"})
        assert (status, got["error"]["code"]) == (404, "model_not_found")
        status, got, _ = await ds2d.ask(
            "/v1/chat/completions", {"model": "team/vectors", "messages": [{"role": "user", "content": "x"}]}
        )
        assert (status, got["error"]["param"]) == (400, "model")
        assert chat.seen == pool.seen == []


async def test_two_servers_that_call_their_model_the_same_are_told_apart_by_what_they_do(tmp_path: Path) -> None:
    async with two_servers(tmp_path) as (ds2d, chat, pool):
        pool.models = ("deepseek-tiny",)
        await ds2d.daemon.first_look()
        pool.scenes.append(answer(VECTORS))
        assert (await ds2d.ask("/v1/embeddings", {"model": "deepseek-tiny", "input": "x"}))[0] == 200
        for _ in range(2):
            status, _, _ = await ds2d.ask(
                "/v1/chat/completions", {"model": "deepseek-tiny", "messages": [{"role": "user", "content": "x"}]}
            )
            assert status == 200
        assert (len(chat.seen), len(pool.seen)) == (2, 1)


async def test_an_old_vllm_with_every_route_is_told_by_its_name(tmp_path: Path) -> None:
    """It lists all routes whatever its model is for, and refuses in words."""
    async with two_servers(tmp_path) as (ds2d, chat, pool):
        for one in (chat, pool):
            one.tell_routes(*CHATTING, *POOLING)
        pool.models = ("team/bge-m3",)
        await look_anew(ds2d)
        pool.decide = lambda seen: answer(VECTORS)
        chat.decide = lambda seen: refuse(400, {"message": "The model does not support Embeddings API", "code": 400})
        for name in ("text-embedding-3-small", "deepseek-chat", "team/bge-m3"):
            assert (await ds2d.ask("/v1/embeddings", {"model": name, "input": "x"}))[0] == 200
        status, got, _ = await ds2d.ask("/v1/embeddings", {"model": "deepseek-tiny", "input": "x"})
        assert (status, got["error"]["code"]) == (501, "not_implemented")


async def test_native_names_are_tokenized_where_they_are_answered(tmp_path: Path) -> None:
    async with two_servers(tmp_path) as (ds2d, chat, _):
        chat.scenes.append(answer({"count": 1, "tokens": [5]}))
        assert (await ds2d.ask("/tokenize", {"prompt": "x"}))[0] == 200
        assert chat.seen[0].body == {"model": "deepseek-tiny", "prompt": "x"}


@pytest.mark.parametrize("none", [{}, {"model": None}, {"model": ""}])
async def test_a_model_may_be_left_out_in_every_way(tmp_path: Path, none: dict[str, Any]) -> None:
    """vllm-extras.md 2; null was refused."""
    async with two_servers(tmp_path) as (ds2d, chat, _):
        for path, body in (("/tokenize", {"prompt": "x"}), ("/detokenize", {"tokens": [5]})):
            chat.scenes.append(answer({"count": 1, "tokens": [5], "prompt": "x"}))
            assert (await ds2d.ask(path, body | none))[0] == 200
            assert chat.seen[-1].body == {"model": "deepseek-tiny"} | body


async def test_extras_that_are_not_served_say_so(tmp_path: Path) -> None:
    async with two_servers(tmp_path) as (ds2d, _, pool):
        pool.pages["/tokenizer_info"] = answer({"tokenizer_class": "X"})
        assert (await ds2d.ask("/tokenizer_info?model=team/vectors"))[:2] == (200, {"tokenizer_class": "X"})
        status, got, _ = await ds2d.ask("/tokenizer_info?model=deepseek-tiny")
        assert (status, got["error"]["code"]) == (404, "not_found")
        status, got, _ = await ds2d.ask("/v1/audio/transcriptions", data=recording("whisper-1"))
        assert (status, got["error"]["code"]) == (404, "not_found")


async def test_without_a_server_that_embeds_it_is_501_and_nobody_is_asked(tmp_path: Path) -> None:
    async with scripted_upstream() as upstream:
        upstream.tell_routes(*CHATTING)
        async with running(tmp_path, config_for(upstream.base_url)) as ds2d:
            for path, body in (
                ("/v1/embeddings", {"model": "deepseek-chat", "input": "x"}),
                ("/v1/embeddings", {"model": "text-embedding-3-small", "input": "x"}),
                ("/v1beta/models/gemini-embedding-001:embedContent", {"content": {"parts": [{"text": "x"}]}}),
                ("/rerank", {"query": "a", "documents": ["b"]}),
            ):
                assert (await ds2d.ask(path, body))[0] == 501
            assert upstream.seen == []


FLAVOURS = {
    "sglang": ({"tokens": [5, 6], "count": 2, "max_model_len": 99}, "/tokenize", {"prompt": "hi"}, {"text": "hi"}, "/detokenize"),
    "llamacpp": (
        {"tokens": [{"id": 5, "piece": "h"}, {"id": 6, "piece": [195]}]},
        "/tokenize",
        {"content": "hi", "add_special": True, "parse_special": True, "with_pieces": True},
        {"content": "hi"},
        "/detokenize",
    ),
    "llamacpp_python": ({"tokens": [5, 6]}, "/extras/tokenize", {"input": "hi"}, {"text": "hi"}, "/extras/detokenize"),
}


@pytest.mark.parametrize("flavour", FLAVOURS)
async def test_other_servers_tokens_are_told_in_one_shape(tmp_path: Path, flavour: str) -> None:
    tokens, path, body, text, back = FLAVOURS[flavour]
    async with scripted_upstream() as upstream:
        config = config_for(upstream.base_url)
        config["upstreams"][0]["flavour"] = flavour
        async with running(tmp_path, config) as ds2d:
            upstream.scenes += [answer(tokens), answer(text)]
            asked = {"prompt": "hi", "return_token_strs": True} if flavour == "llamacpp" else {"prompt": "hi"}
            status, got, _ = await ds2d.ask("/tokenize", asked)
            assert status == 200, got
            strs = ["h", "\ufffd"] if flavour == "llamacpp" else None
            window = 99 if flavour == "sglang" else 4096
            assert got == {"count": 2, "max_model_len": window, "tokens": [5, 6], "token_strs": strs}
            assert (await ds2d.ask("/detokenize", {"tokens": [5, 6]}))[1] == {"prompt": "hi"}
            assert [seen.path for seen in upstream.seen] == [path, back]
            assert upstream.seen[0].body == {**body, "model": "deepseek-tiny"}


async def test_llama_servers_silence_about_a_text_is_no_count(tmp_path: Path) -> None:
    async with scripted_upstream() as upstream:
        config = config_for(upstream.base_url)
        config["upstreams"][0]["flavour"] = "llamacpp"
        async with running(tmp_path, config) as ds2d:
            upstream.decide = lambda seen: answer({"tokens": []})
            assert (await ds2d.ask("/tokenize", {"prompt": "hi"}))[0] == 503
            upstream.decide = lambda seen: answer({"prompt": "<hi>"} if seen.path == "/apply-template" else {"tokens": [5]})
            upstream.seen.clear()
            messages = [{"role": "user", "content": "hi"}]
            assert (await ds2d.ask("/tokenize", {"messages": messages}))[1]["tokens"] == [5]
            assert [seen.path for seen in upstream.seen] == ["/apply-template", "/tokenize"]
            assert (upstream.seen[1].body["content"], upstream.seen[1].body["add_special"]) == ("<hi>", False)


async def test_vectors_come_in_the_form_that_was_asked_for(tmp_path: Path) -> None:
    as_base64 = base64.b64encode(struct.pack("<2f", 0.25, -0.5)).decode()
    in_base64 = {**VECTORS, "data": [{"index": 0, "object": "embedding", "embedding": as_base64}]}
    async with two_servers(tmp_path) as (ds2d, _, pool):
        asked = {"model": "team/vectors", "input": "x"}
        for said in (VECTORS, in_base64):
            pool.decide = lambda seen, said=said: answer(said)  # type: ignore[misc]
            for form, expected in (("float", [0.25, -0.5]), ("base64", as_base64)):
                _, got, _ = await ds2d.ask("/v1/embeddings", {**asked, "encoding_format": form})
                assert got["data"][0]["embedding"] == expected
            assert (await ds2d.ask("/v1/embeddings", {**asked, "dimensions": 2}))[0] == 200
            status, got, _ = await ds2d.ask("/v1/embeddings", {**asked, "dimensions": 3})
            assert (status, got["error"]["param"]) == (400, "dimensions")


async def test_gemini_gets_the_same_vectors_in_its_own_shape(tmp_path: Path) -> None:
    rows = [{"index": number, "object": "embedding", "embedding": [0.5, number]} for number in range(2)]
    async with two_servers(tmp_path) as (ds2d, _, pool):
        pool.scenes += [answer(VECTORS), answer({**VECTORS, "data": rows}), refuse(500, {})]
        content = {"content": {"parts": [{"text": "x"}]}}
        path = "/v1beta/models/gemini-embedding-001:"
        status, got, _ = await ds2d.ask(path + "embedContent", {**content, "outputDimensionality": 2})
        assert (status, got["embedding"]) == (200, {"values": [0.25, -0.5]})
        assert got["usageMetadata"] == {"promptTokenCount": 9, "totalTokenCount": 9}
        assert pool.seen[0].body == {"model": "team/vectors", "input": ["x"], "encoding_format": "float", "dimensions": 2}
        status, got, _ = await ds2d.ask(path + "batchEmbedContents", {"requests": [content, content]})
        assert (status, got["embeddings"]) == (200, [{"values": [0.5, 0]}, {"values": [0.5, 1]}])
        ds2d.change(runtime={"max_attempts": 1})
        status, got, _ = await ds2d.ask(path + "embedContent", content)
        assert (status, got["error"]["status"]) == (503, "UNAVAILABLE")


@pytest.mark.parametrize("provider", ["deterministic", "mock", "builtin"])
async def test_made_up_vectors_depend_on_the_text_alone(tmp_path: Path, provider: str) -> None:
    config = {"keys": [KEY], "upstreams": [], "embeddings": {"provider": provider}}
    async with running(tmp_path, config) as ds2d:
        asked = {"model": "deepseek-chat", "input": ["one", "two", "one"]}
        status, got, _ = await ds2d.ask("/v1/embeddings", asked)
        assert status == 200, got
        one, two, again = (row["embedding"] for row in got["data"])
        assert one == again != two
        assert len(one) == 768
        assert abs(sum(value * value for value in one) - 1) < 1e-9
        assert got["usage"]["prompt_tokens"] == got["usage"]["total_tokens"] > 0
        assert ds2d.daemon.books.recent[0]["tokens"]["prompt"] == got["usage"]["prompt_tokens"]
        ds2d.change(embeddings={"provider": provider, "dimensions": 16})
        asked = {"model": "text-embedding-3-small", "input": [[1, 2], [1, 2], [2, 1]], "encoding_format": "base64"}
        _, got, _ = await ds2d.ask("/v1/embeddings", asked)
        one, same, other = (base64.b64decode(row["embedding"]) for row in got["data"])
        assert one == same != other
        assert len(one) == 64
        _, got, _ = await ds2d.ask("/v1/embeddings", {"model": "deepseek-chat", "input": "x", "dimensions": 3})
        assert len(got["data"][0]["embedding"]) == 3
        assert (await ds2d.ask("/v1/embeddings", {"model": "nobody-knows-it", "input": "x"}))[0] == 404
        ds2d.change(embeddings={"provider": "upstream"})
        assert (await ds2d.ask("/v1/embeddings", {"model": "deepseek-chat", "input": "x"}))[0] == 501


async def test_bytes_of_a_pooling_model_pass_with_what_describes_them(tmp_path: Path) -> None:
    async with two_servers(tmp_path) as (ds2d, _, pool):
        told = json.dumps({"id": "pool-1", "model": "team/vectors", "usage": USAGE})
        pool.scenes.append(Scene([b"\x00\xff\x01"], headers={"metadata": told}, content_type="application/octet-stream"))
        headers = {"Authorization": f"Bearer {KEY}"}
        body = {"model": "deepseek-chat", "input": "x", "encoding_format": "bytes"}
        async with ds2d.http.post(ds2d.url + "/pooling", json=body, headers=headers) as reply:
            assert await reply.read() == b"\x00\xff\x01"
            assert reply.headers["Content-Type"] == "application/octet-stream"
            assert json.loads(reply.headers["metadata"])["model"] == "deepseek-chat"
        assert ds2d.daemon.books.recent[0]["tokens"]["prompt"] == 9


@pytest.mark.parametrize("file_first", [False, True])
async def test_a_recording_goes_through_as_it_is_with_the_models_own_name(tmp_path: Path, file_first: bool) -> None:
    async with two_servers(tmp_path) as (ds2d, _, pool):
        pool.tell_routes("/v1/audio/transcriptions", "/v1/audio/translations")
        pool.models = ("openai/whisper-small",)
        await look_anew(ds2d)
        pool.scenes += [
            answer({"text": "hi", "usage": {"type": "duration", "seconds": 3}}),
            Scene([b"hi"], content_type="text/plain"),
        ]
        form = recording("whisper-1", file_first=file_first)
        status, got, _ = await ds2d.ask("/v1/audio/transcriptions", data=form)
        assert (status, got["text"]) == (200, "hi")
        [seen] = pool.seen
        sent = await written(recording("whisper-1", file_first=file_first), seen.headers["content-type"])
        assert seen.raw == sent.replace(b"whisper-1", b"openai/whisper-small")
        status, got, headers = await ds2d.ask("/audio/translations", data=recording("whisper-1"))
        assert (status, got, headers["content-type"]) == (200, "hi", "text/plain")
        assert [turn["dialect"] for turn in ds2d.daemon.books.recent] == ["translations", "transcriptions"]


async def test_counts_by_other_names_are_on_record_too(tmp_path: Path) -> None:
    tokens = {"type": "tokens", "input_tokens": 14, "output_tokens": 45, "total_tokens": 59}
    async with two_servers(tmp_path) as (ds2d, _, pool):
        pool.scenes.append(answer({"model": "up", "results": [], "usage": {"total_tokens": 9}}))
        _, got, _ = await ds2d.ask("/rerank", {"model": "team/vectors", "query": "a", "documents": ["b"]})
        assert got["usage"] == {"total_tokens": 9}
        pool.tell_routes("/v1/audio/transcriptions")
        pool.models = ("openai/whisper-small",)
        await look_anew(ds2d)
        done = sse({"type": "transcript.text.done", "text": "hi", "usage": tokens}, done=False)
        pool.scenes += [answer({"text": "hi", "usage": tokens}), Scene(done)]
        for _ in range(2):
            assert (await ds2d.ask("/v1/audio/transcriptions", data=recording("whisper-1")))[0] == 200
        counts = [(turn["tokens"]["prompt"], turn["tokens"]["completion"]) for turn in ds2d.daemon.books.recent]
        assert counts == [(14, 45), (14, 45), (9, 0)]
        _, usage, _ = await ds2d.ask("/v1/usage")
        assert usage["used"]["total"]["total_tokens"] == 9 + 59 + 59


WORDS_SO_FAR = [
    {"object": "transcription.chunk", "model": "up", "choices": [{"delta": {"content": word}}]} for word in ("hel", "lo")
]


async def test_a_transcript_comes_as_it_is_made_and_ends_truthfully(tmp_path: Path) -> None:
    async with two_servers(tmp_path) as (ds2d, _, pool):
        pool.tell_routes("/v1/audio/transcriptions")
        pool.models = ("openai/whisper-small",)
        await look_anew(ds2d)
        hold = Wait()
        first, second, done = sse(*WORDS_SO_FAR)
        done_by_type = sse({"type": "transcript.text.done", "text": "hello", "usage": {"input_tokens": 1}}, done=False)
        pool.scenes += [Scene([first, hold, second, done]), Scene([first, *done_by_type]), Scene([first, END])]
        path, headers = ds2d.url + "/v1/audio/transcriptions", {"Authorization": f"Bearer {KEY}"}
        async with ds2d.http.post(path, data=recording("whisper-1"), headers=headers) as reply:
            assert json.loads((await reply.content.readuntil(b"\n\n"))[6:])["model"] == "whisper-1"
            hold.until.set()
            rest = await reply.read()
        assert rest.startswith(b"data: {")
        assert rest.endswith(b"data: [DONE]\n\n")
        _, text, _ = await ds2d.ask("/v1/audio/transcriptions", data=recording("whisper-1"))
        assert text.endswith("data: [DONE]\n\n")
        _, text, _ = await ds2d.ask("/v1/audio/transcriptions", data=recording("whisper-1"))
        assert json.loads(text.split("\n\n")[-2][6:])["error"]["code"] == "upstream_disconnected"
        assert "[DONE]" not in text
        assert [turn["state"] for turn in ds2d.daemon.books.recent] == ["failed", "completed", "completed"]


@pytest.mark.parametrize("cut", [True, False])
async def test_a_compressed_transcript_that_is_cut_is_none(tmp_path: Path, cut: bool) -> None:
    """Its framing is whole, and a text says nowhere that it is."""
    packer = zlib.compressobj(wbits=31)
    data = packer.compress(b"the words of a recording") + packer.flush(zlib.Z_SYNC_FLUSH if cut else zlib.Z_FINISH)
    async with two_servers(tmp_path) as (ds2d, _, pool):
        pool.tell_routes("/v1/audio/transcriptions")
        pool.models = ("openai/whisper-small",)
        await look_anew(ds2d)
        pool.scenes.append(Scene([data], headers={"Content-Encoding": "gzip"}, content_type="text/plain"))
        status, got, _ = await ds2d.ask("/v1/audio/transcriptions", data=recording("whisper-1"))
        if cut:
            assert (status, got["error"]["code"]) == (503, "upstream_disconnected")
        else:
            assert (status, got) == (200, "the words of a recording")


async def test_a_transcript_that_breaks_behind_life_signs_says_so_in_its_stream(tmp_path: Path) -> None:
    """Its status is out: a second one in the middle of the stream was waited on for ever."""
    async with two_servers(tmp_path, server={"keepalive_seconds": 1}) as (ds2d, _, pool):
        pool.tell_routes("/v1/audio/transcriptions")
        pool.models = ("openai/whisper-small",)
        await look_anew(ds2d)
        hold = Wait()
        pool.scenes.append(Scene([hold, END]))
        path, headers = ds2d.url + "/v1/audio/transcriptions", {"Authorization": f"Bearer {KEY}"}
        async with asyncio.timeout(20), ds2d.http.post(path, data=recording("whisper-1"), headers=headers) as reply:
            assert await reply.content.readuntil(b"\n\n") == b": keep-alive\n\n"
            hold.until.set()
            rest = await reply.read()
        assert json.loads(rest.removeprefix(b"data: "))["error"]["code"] == "upstream_disconnected"
        assert [turn["state"] for turn in ds2d.daemon.books.recent] == ["failed"]


async def test_a_form_without_a_model_and_what_is_no_form_are_refused(tmp_path: Path) -> None:
    async with two_servers(tmp_path) as (ds2d, _, pool):
        form = aiohttp.FormData()
        form.add_field("file", SOUND, filename="a.wav")
        status, got, _ = await ds2d.ask("/v1/audio/transcriptions", data=form)
        assert (status, got["error"]["param"]) == (400, "model")
        assert (await ds2d.ask("/v1/audio/transcriptions", {"model": "x"}))[0] == 400
        ds2d.change(server={"body_limit_bytes": 1024 * 1024})
        assert (await ds2d.ask("/v1/audio/transcriptions", data=recording("whisper-1")))[0] == 413
        assert pool.seen == []


async def test_a_recording_is_not_sent_twice(tmp_path: Path) -> None:
    """What went through is gone: after a failure in mid-answer nobody else is asked, and the caller is told."""
    async with two_servers(tmp_path) as (ds2d, chat, pool):
        for one in (chat, pool):
            one.tell_routes("/v1/audio/transcriptions")
            one.models = ("openai/whisper-small",)
            one.decide = lambda seen: refuse(503, {})
        await look_anew(ds2d)
        status, got, _ = await ds2d.ask("/v1/audio/transcriptions", data=recording("openai/whisper-small"))
        assert (status, got["error"]["code"]) == (503, "upstream_error")
        assert len(chat.seen) + len(pool.seen) == 1


async def look_anew(ds2d: Running) -> None:
    """As if the servers had been away and came back as others."""
    for name in ds2d.daemon.catalog.states():
        ds2d.daemon.catalog.note_failure(name, GatewayError(ErrorKind.UPSTREAM_UNREACHABLE, "gone"))
    await ds2d.daemon.first_look()


async def written(form: aiohttp.FormData, content_type: str) -> bytes:
    """The form as a client sends it, with the boundary of one that was sent."""
    held = bytearray()

    class Writer:
        async def write(self, data: bytes) -> None:
            held.extend(data)

    payload: Any = form()
    await payload.write(Writer())
    boundary = content_type.partition("boundary=")[2].strip('"')
    return bytes(held).replace(payload.boundary.encode(), boundary.encode())


async def test_a_client_that_stops_sending_is_nobodys_fault_but_its_own(tmp_path: Path) -> None:
    async with two_servers(tmp_path) as (ds2d, _, pool):
        pool.tell_routes("/v1/audio/transcriptions")
        await look_anew(ds2d)
        whole = await written(recording("team/vectors"), "boundary=b-1")
        stopped = asyncio.Event()

        async def half() -> AsyncIterator[bytes]:
            yield whole[: len(whole) // 2]
            stopped.set()
            await asyncio.Event().wait()

        headers = {
            "Authorization": f"Bearer {KEY}",
            "Content-Type": "multipart/form-data; boundary=b-1",
            "Content-Length": str(len(whole)),
        }
        url = ds2d.url + "/v1/audio/transcriptions"
        async with aiohttp.ClientSession() as client:
            asking = asyncio.create_task(client.post(url, data=half(), headers=headers))
            await asyncio.wait_for(stopped.wait(), 20)
            await asyncio.wait_for(one_runs(ds2d), 20)
            asking.cancel()
        await asyncio.wait_for(all_done(ds2d), 20)
        [turn] = ds2d.daemon.books.recent
        assert (turn["state"], turn["cause"]) == ("interrupted", "client_closed")
        assert ds2d.daemon.catalog.states() == {"gpu": "ready", "pool": "ready"}
        assert ds2d.daemon.queue.running == 0
        assert pool.seen == []


async def one_runs(ds2d: Running) -> None:
    """Until a turn has been given its place."""
    while not ds2d.daemon.queue.running:  # noqa: ASYNC110 - there is no event for it
        await asyncio.sleep(0)
