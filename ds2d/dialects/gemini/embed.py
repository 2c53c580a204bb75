"""embedContent and batchEmbedContents: bodies in and out (gemini.md 8).

Rule: one vector for each request, in order. What Google's models do with task types and titles has no counterpart here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import orjson

from ds2d.core.request import Inbound
from ds2d.core.validate import invalid
from ds2d.dialects.gemini.fields import level, model_of, several, text
from ds2d.dialects.gemini.parts import read_part

MAX_BATCH = 100


class Embedding(msgspec.Struct, frozen=True):
    """A question for vectors. `dimensions`: None is the model's own. `batch`: the answer is a list."""

    model: str
    inputs: tuple[str, ...]
    dimensions: int | None = None
    batch: bool = False


def parse_embed(inbound: Inbound) -> Embedding:
    """The question of either body, told apart by the path. Raises INVALID_REQUEST with the path of what is wrong."""
    model = model_of(inbound)
    body = level(inbound.body, "body")
    if inbound.path.get("method") != "batchEmbedContents":
        words, dimensions = _one(body, "")
        return Embedding(model, (words,), dimensions)
    requests = body.get("requests")
    if not isinstance(requests, list) or not 1 <= len(requests) <= MAX_BATCH:
        raise invalid("requests", f"must be an array of 1 to {MAX_BATCH} requests.")
    asked = [_one(level(request, f"requests[{i}]"), f"requests[{i}].") for i, request in enumerate(requests)]
    if any(dimensions != asked[0][1] for _, dimensions in asked):
        raise invalid("requests", "outputDimensionality must be the same in all requests.")
    return Embedding(model, tuple(words for words, _ in asked), asked[0][1], batch=True)


def render_embed(vectors: Sequence[Sequence[float]], asked: Embedding, prompt_tokens: int) -> bytes:
    """The body of the answer; `vectors` are in the order of `asked.inputs`."""
    values = [{"values": vector} for vector in vectors]
    body: dict[str, Any] = {"embeddings": values} if asked.batch else {"embedding": values[0]}
    body["usageMetadata"] = {"promptTokenCount": prompt_tokens, "totalTokenCount": prompt_tokens}
    return orjson.dumps(body)


def _one(request: dict[str, Any], at: str) -> tuple[str, int | None]:
    """The text of one request and the vector's length."""
    path = f"{at}content"
    content = request.get("content")
    if content is None:
        raise invalid(path, "required field is missing.")
    parts = [content] if isinstance(content, str) else several(level(content, path).get("parts", []), f"{path}.parts")
    pieces = [text(read_part(part, f"{path}.parts[{i}]").get("text"), f"{path}.parts[{i}].text") for i, part in enumerate(parts)]
    words = "\n".join(pieces)
    if not words:
        raise invalid(path, "must hold text.")
    dimensions = request.get("outputDimensionality")
    if dimensions is not None and (type(dimensions) is not int or dimensions < 1):
        raise invalid(f"{at}outputDimensionality", "must be a positive integer.")
    return words, dimensions
