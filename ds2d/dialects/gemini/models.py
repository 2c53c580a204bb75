"""The model list in Gemini's shape (gemini.md 9).

Rule: the list stands under `models`, or the SDK sees none; a page's token is the last id before it, so a list that changes
between two pages neither repeats nor loses a model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from ds2d.core.models import ModelInfo
from ds2d.core.request import Inbound
from ds2d.core.validate import invalid

DEFAULT_PAGE, MAX_PAGE = 50, 1000
METHODS = ["generateContent", "streamGenerateContent", "countTokens", "embedContent"]


def render_models(models: Sequence[ModelInfo], inbound: Inbound) -> bytes:
    """The page that the query asks for. Raises INVALID_REQUEST for a page that cannot be."""
    size = _page_size(inbound)
    start = _start(models, inbound)
    page = models[start : start + size]
    body: dict[str, Any] = {"models": [_model(model) for model in page]}
    if start + size < len(models):
        body["nextPageToken"] = page[-1].id
    return orjson.dumps(body)


def render_model(model: ModelInfo, inbound: Inbound) -> bytes:
    """The body of one model."""
    return orjson.dumps(_model(model))


def _page_size(inbound: Inbound) -> int:
    raw = inbound.query.get("pageSize") or inbound.query.get("page_size") or str(DEFAULT_PAGE)
    if not (raw.isascii() and raw.isdigit()) or not 1 <= int(raw[:9]) <= MAX_PAGE:
        raise invalid("pageSize", f"must be from 1 to {MAX_PAGE}.")
    return int(raw)


def _start(models: Sequence[ModelInfo], inbound: Inbound) -> int:
    token = inbound.query.get("pageToken") or inbound.query.get("page_token")
    if not token:
        return 0
    after = next((i + 1 for i, model in enumerate(models) if model.id == token), None)
    if after is None:
        raise invalid("pageToken", "is not one of this list.")
    return after


def _model(model: ModelInfo) -> dict[str, Any]:
    body: dict[str, Any] = {
        "name": f"models/{model.id}",
        "baseModelId": model.id,
        "version": "1",
        "displayName": model.id,
        "description": f"{model.id}, served by {model.owned_by}",
        "supportedGenerationMethods": METHODS,
        "thinking": model.thinking,
    }
    if model.max_model_len is not None:
        body["inputTokenLimit"] = model.max_model_len
    output = model.max_output if model.max_output is not None else model.max_model_len
    if output is not None:
        body["outputTokenLimit"] = output
    return body
