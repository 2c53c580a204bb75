"""gemini.md 8 and 9: texts to embed, and model lists."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from ds2d.core.errors import GatewayError
from ds2d.core.models import ModelInfo
from ds2d.dialects.gemini import parse_embed, render_embed, render_model, render_models
from tests.dialects.gemini_questions import inbound


def test_one_text_to_embed() -> None:
    body = {"content": {"parts": [{"text": "a"}, {"text": "b"}]}, "taskType": "X", "output_dimensionality": 3}
    asked = parse_embed(inbound(body, "embedContent"))
    assert (asked.model, asked.inputs, asked.dimensions, asked.batch) == ("m", ("a\nb",), 3, False)
    assert orjson.loads(render_embed([[0.5, 1.0]], asked, 4)) == {
        "embedding": {"values": [0.5, 1.0]},
        "usageMetadata": {"promptTokenCount": 4, "totalTokenCount": 4},
    }


def test_a_batch_to_embed() -> None:
    requests = [{"model": "models/m", "content": {"parts": [{"text": word}]}} for word in ("a", "b")]
    asked = parse_embed(inbound({"requests": requests}, "batchEmbedContents"))
    assert (asked.inputs, asked.batch) == (("a", "b"), True)
    assert orjson.loads(render_embed([[1.0], [2.0]], asked, 2))["embeddings"] == [{"values": [1.0]}, {"values": [2.0]}]
    assert len(parse_embed(inbound({"requests": requests[:1] * 100}, "batchEmbedContents")).inputs) == 100


@pytest.mark.parametrize(
    ("method", "body", "param"),
    [
        ("embedContent", {}, "content"),
        ("embedContent", {"content": {"parts": []}}, "content"),
        ("embedContent", {"content": {"parts": [{"inlineData": {}}]}}, "content.parts[0].text"),
        ("embedContent", {"content": "a", "outputDimensionality": 0}, "outputDimensionality"),
        ("batchEmbedContents", {}, "requests"),
        ("batchEmbedContents", {"requests": []}, "requests"),
        ("batchEmbedContents", {"requests": [{"content": "a"}] * 101}, "requests"),
        ("batchEmbedContents", {"requests": [{"content": "a"}, {}]}, "requests[1].content"),
        ("batchEmbedContents", {"requests": [{"content": "a"}, {"content": "a", "outputDimensionality": 2}]}, "requests"),
    ],
)
def test_a_wrong_text_to_embed(method: str, body: dict[str, Any], param: str) -> None:
    with pytest.raises(GatewayError) as caught:
        parse_embed(inbound(body, method))
    assert caught.value.param == param


MODELS = [
    ModelInfo(f"m{i}", 1, "me", "ready", max_model_len=4096, max_output=100 if i else None, thinking=True) for i in range(120)
]


def test_a_model_in_geminis_shape() -> None:
    assert orjson.loads(render_model(MODELS[1], inbound({}))) == {
        "name": "models/m1",
        "baseModelId": "m1",
        "version": "1",
        "displayName": "m1",
        "description": "m1, served by me",
        "inputTokenLimit": 4096,
        "outputTokenLimit": 100,
        "supportedGenerationMethods": ["generateContent", "streamGenerateContent", "countTokens", "embedContent"],
        "thinking": True,
    }
    assert orjson.loads(render_model(MODELS[0], inbound({})))["outputTokenLimit"] == 4096


@pytest.mark.parametrize(
    ("query", "sizes"),
    [({}, [50, 50, 20]), ({"pageSize": "119"}, [119, 1]), ({"page_size": "120"}, [120]), ({"pageSize": "1000"}, [120])],
)
def test_the_list_comes_in_pages_until_no_token_is_left(query: dict[str, str], sizes: list[int]) -> None:
    seen: list[str] = []
    found = []
    token: dict[str, str] = {}
    while True:
        page = orjson.loads(render_models(MODELS, inbound({}, **query, **token)))
        found.append(len(page["models"]))
        seen += [model["name"] for model in page["models"]]
        if "nextPageToken" not in page:
            break
        token = {"pageToken": page["nextPageToken"]}
    assert (found, seen) == (sizes, [f"models/m{i}" for i in range(120)])


@pytest.mark.parametrize(
    "query", [{"pageSize": "0"}, {"pageSize": "1001"}, {"pageSize": "-1"}, {"pageSize": "x"}, {"pageToken": "gone"}]
)
def test_a_page_that_cannot_be(query: dict[str, str]) -> None:
    with pytest.raises(GatewayError) as caught:
        render_models(MODELS, inbound({}, **query))
    assert caught.value.param == next(iter(query))
