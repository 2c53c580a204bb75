"""Three real servers behind one daemon: a vLLM that answers, a vLLM that embeds, and llama.cpp. All call their model the same."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from google import genai
from google.genai.types import EmbedContentConfig, HttpOptions
from openai import AsyncOpenAI

from ds2d.cli import main
from scripts.real_upstream import texts
from tests.functional.harness import KEY, Running, running
from tests.functional.real_upstream import RealServer

pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning")

THREE = pytest.mark.parametrize("real_servers", [("v31", "embed", "llama")], indirect=True)
CLASSIFIER = pytest.mark.parametrize("real_vllm", ["classify"], indirect=True)
WORDS = "Hello, 你好 🎈!"


@asynccontextmanager
async def before(folder: Path, *servers: RealServer, poll: int = 1) -> AsyncIterator[Running]:
    """A daemon; each server is an upstream named by its flavour, and an entry of `models` of the same name."""
    upstreams = [{"name": one.flavour, "kind": "openai", "base_url": one.base_url, "poll_seconds": poll} for one in servers]
    models = {f"on-{one.flavour}": {"upstream": one.flavour, "model": one.model} for one in servers}
    async with running(folder, {"keys": [KEY], "upstreams": upstreams, "models": models}) as ds2d:
        yield ds2d


@THREE
async def test_one_list_with_the_state_of_each(tmp_path: Path, real_servers: list[RealServer]) -> None:
    async with before(tmp_path, *real_servers) as ds2d:
        _, ready, _ = await ds2d.ask("/readyz?verbose")
        found = {name: (one["state"], one["flavour"]) for name, one in ready["upstreams"].items()}
        assert found == {"v31": ("ready", "vllm"), "embed": ("ready", "vllm"), "llama": ("ready", "llamacpp_python")}
        _, listed, _ = await ds2d.ask("/v1/models")
        ids = {one["id"] for one in listed["data"]}
        assert {"deepseek-chat", real_servers[0].model, "on-v31", "on-embed", "on-llama"} <= ids


@THREE
async def test_questions_go_to_those_who_answer(tmp_path: Path, real_servers: list[RealServer]) -> None:
    async with before(tmp_path, *real_servers) as ds2d:
        ask = {"temperature": 0, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 100}
        for name in ("deepseek-chat", "on-v31", "on-llama", *[real_servers[0].model] * 4):
            status, got, _ = await ds2d.ask("/v1/chat/completions", {"model": name, **ask})
            assert (status, got["choices"][0]["message"]["content"]) == (200, texts.PLAIN), name
        status, got, _ = await ds2d.ask("/v1/chat/completions", {"model": "on-embed", **ask})
        assert (status, got["error"]["param"]) == (400, "model")


@THREE
async def test_the_openai_sdk_gets_vectors(tmp_path: Path, real_servers: list[RealServer]) -> None:
    async with before(tmp_path, *real_servers) as ds2d, AsyncOpenAI(base_url=ds2d.url + "/v1", api_key=KEY) as client:
        for name in ("text-embedding-3-small", "deepseek-chat", "on-embed", real_servers[0].model):
            made = await client.embeddings.create(model=name, input=[WORDS, "other", WORDS])
            assert [len(row.embedding) for row in made.data] == [128, 128, 128]
            assert made.data[0].embedding == pytest.approx(made.data[2].embedding, abs=1e-2)
            assert made.model == name
            assert made.usage.prompt_tokens > 3
        recorded = [turn["tokens"] for turn in ds2d.daemon.books.recent]
        assert {one["source"] for one in recorded} == {"upstream"}
        assert {one["prompt"] for one in recorded} == {made.usage.prompt_tokens}
        floats = await client.embeddings.create(model="on-embed", input=WORDS, encoding_format="float")
        _, raw, _ = await ds2d.ask("/v1/embeddings", {"model": "on-embed", "input": WORDS, "encoding_format": "base64"})
        decoded = struct.unpack("<128f", base64.b64decode(raw["data"][0]["embedding"]))
        assert list(decoded) == pytest.approx(floats.data[0].embedding, abs=1e-2)
        _, tokens, _ = await ds2d.ask("/tokenize", {"model": "on-embed", "prompt": WORDS})
        of_tokens = await client.embeddings.create(model="on-embed", input=tokens["tokens"])
        assert of_tokens.data[0].embedding == pytest.approx(floats.data[0].embedding, abs=1e-2)
        status, got, _ = await ds2d.ask("/v1/embeddings", {"model": "on-embed", "input": WORDS, "dimensions": 64})
        assert (status, got["error"]["type"]) == (400, "invalid_request_error")


@THREE
async def test_the_google_sdk_gets_the_same_vectors(tmp_path: Path, real_servers: list[RealServer]) -> None:
    async with before(tmp_path, *real_servers) as ds2d:
        client = genai.Client(api_key=KEY, http_options=HttpOptions(base_url=ds2d.url))
        made = await client.aio.models.embed_content(
            model="gemini-embedding-001", contents=[WORDS, "other"], config=EmbedContentConfig(task_type="RETRIEVAL_QUERY")
        )
        assert made.embeddings is not None
        _, raw, _ = await ds2d.ask("/v1/embeddings", {"model": "on-embed", "input": [WORDS, "other"]})
        for mine, plain in zip(made.embeddings, raw["data"], strict=True):
            assert mine.values == pytest.approx(plain["embedding"], abs=1e-2)


@THREE
async def test_vectors_of_single_tokens_are_no_vectors_of_a_text(tmp_path: Path, real_servers: list[RealServer]) -> None:
    async with before(tmp_path, *real_servers) as ds2d:
        asked = {"model": "on-llama", "input": "Hello"}
        for form in ("float", "base64"):
            status, got, _ = await ds2d.ask("/v1/embeddings", {**asked, "encoding_format": form})
            assert (status, got["error"]["code"]) == (501, "not_implemented")
            assert "for each token" in got["error"]["message"]


@THREE
async def test_three_servers_tell_tokens_in_one_shape(tmp_path: Path, real_servers: list[RealServer]) -> None:
    async with before(tmp_path, *real_servers) as ds2d:
        told = []
        for one in real_servers:
            asked = {"model": f"on-{one.flavour}", "prompt": WORDS, "add_special_tokens": False}
            status, got, _ = await ds2d.ask("/tokenize", asked)
            assert (status, got["count"]) == (200, len(got["tokens"])), got
            assert set(got) >= {"count", "max_model_len", "tokens", "token_strs"}
            status, back, _ = await ds2d.ask("/v1/detokenize", {"model": f"on-{one.flavour}", "tokens": got["tokens"]})
            assert (status, back) == (200, {"prompt": WORDS})
            told.append(got["tokens"])
        assert told[0] == told[1] == told[2]
        messages = [{"role": "user", "content": "Hello"}]
        assert (await ds2d.ask("/tokenize", {"messages": messages}))[1]["count"] > 2
        status, got, _ = await ds2d.ask("/tokenize", {"model": "on-llama", "messages": messages})
        assert (status, got["error"]["param"]) == (400, "messages")


@THREE
async def test_pairs_are_scored_and_documents_put_in_order(tmp_path: Path, real_servers: list[RealServer]) -> None:
    async with before(tmp_path, *real_servers) as ds2d:
        documents = ["apples and pears", WORDS, "a third"]
        for path in ("/score", "/v1/score"):
            status, got, _ = await ds2d.ask(path, {"model": "on-embed", "text_1": WORDS, "text_2": documents})
            assert (status, got["model"], [row["index"] for row in got["data"]]) == (200, "on-embed", [0, 1, 2])
            assert max(got["data"], key=lambda row: row["score"])["index"] == 1
        for path in ("/rerank", "/v1/rerank", "/v2/rerank"):
            status, got, _ = await ds2d.ask(path, {"query": WORDS, "documents": documents, "top_n": 2})
            assert (status, len(got["results"]), got["results"][0]["index"]) == (200, 2, 1), got
            assert got["usage"]["total_tokens"] > 0
        assert ds2d.daemon.books.recent[0]["tokens"]["prompt"] == got["usage"]["total_tokens"]


@THREE
async def test_pooling_in_every_form_and_what_nobody_offers(tmp_path: Path, real_servers: list[RealServer]) -> None:
    async with before(tmp_path, *real_servers) as ds2d:
        status, got, _ = await ds2d.ask("/pooling", {"model": "on-embed", "input": "Hello", "task": "embed"})
        assert (status, got["model"]) == (200, "on-embed"), got
        body = {"model": "on-embed", "input": "Hello", "task": "embed", "encoding_format": "bytes"}
        async with ds2d.http.post(ds2d.url + "/pooling", json=body, headers={"Authorization": f"Bearer {KEY}"}) as reply:
            assert reply.headers["Content-Type"] == "application/octet-stream"
            assert json.loads(reply.headers["metadata"])["model"] == "on-embed"
            assert len(await reply.read()) in (256, 512)
        for path, asked, status in (
            ("/classify", {"input": "x"}, 501),
            ("/v1/embeddings", {"model": "on-v31", "input": "x"}, 501),
            ("/tokenizer_info", None, 404),
            ("/sleep", {}, 404),
        ):
            assert (await ds2d.ask(path, asked))[0] == status, path


@THREE
async def test_the_doctor_finds_nothing_wrong_with_the_gateway(tmp_path: Path, real_servers: list[RealServer]) -> None:
    # llama-cpp-python answers one at a time: a look at it while the doctor asks it directly is late, and it counts as down
    async with before(tmp_path, *real_servers, poll=600) as ds2d:
        config = tmp_path / "doctor.json"
        config.write_text(json.dumps({**ds2d.config(), "server": {"port": ds2d.port}}))
        line = ["doctor", "--config", str(config), "--key", KEY, "--report", str(tmp_path / "report.json")]
        await asyncio.get_running_loop().run_in_executor(None, main, line)
        report: dict[str, Any] = json.loads((tmp_path / "report.json").read_text())
        lines = [line for one in report["upstreams"] for line in one["checks"]] + report["endpoints"]
        assert [line for line in lines if line["culprit"] == "ds2d"] == []
        passed = {line["check"] for line in report["endpoints"] if line["state"] == "ok"}
        assert {
            "POST /v1/chat/completions",
            "POST /v1/messages",
            "POST /v1/embeddings",
            "POST /tokenize",
            "POST /rerank",
        } <= passed
        by_name = {one["name"]: {line["check"]: line["state"] for line in one["checks"]} for one in report["upstreams"]}
        assert by_name["embed"] == {}
        for check in ("stream", "UTF-8", "early close", "cancel", "parallel tools", "big body", "usage of cut streams"):
            assert by_name["v31"][check] in ("ok", "note", "mended"), (check, report)


@CLASSIFIER
async def test_a_classifier_names_labels(tmp_path: Path, real_vllm: RealServer) -> None:
    async with before(tmp_path, real_vllm) as ds2d:
        for path, asked in (
            ("/classify", {"input": ["Hello", "Bye"]}),
            ("/v1/classify", {"model": "on-classify", "input": ["a", "b"]}),
        ):
            status, got, _ = await ds2d.ask(path, asked)
            assert status == 200, got
            assert {row["label"] for row in got["data"]} <= {"good", "bad", "ugly"}
            assert got["model"] == asked.get("model", real_vllm.model)
            assert ds2d.daemon.books.recent[0]["tokens"]["prompt"] == got["usage"]["prompt_tokens"] > 0
        status, got, _ = await ds2d.ask("/v1/embeddings", {"model": "on-classify", "input": "x"})
        assert (status, got["error"]["code"]) == (501, "not_implemented")
        status, got, _ = await ds2d.ask(
            "/v1/chat/completions", {"model": "on-classify", "messages": [{"role": "user", "content": "x"}]}
        )
        assert (status, got["error"]["param"]) == (400, "model")
