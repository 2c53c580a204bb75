"""The model list in OpenAI's shape (openai-chat.md 1).

Rule: the four keys that SDKs read, `permission` and the live `state` are ours; what an upstream said besides rides along.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from ds2d.core.models import ModelInfo
from ds2d.core.request import Inbound


def render_models(models: Sequence[ModelInfo], inbound: Inbound) -> bytes:
    """The body of the list."""
    return orjson.dumps({"object": "list", "data": [_model(model) for model in models]})


def render_model(model: ModelInfo, inbound: Inbound) -> bytes:
    """The body of one model."""
    return orjson.dumps(_model(model))


def _model(model: ModelInfo) -> dict[str, Any]:
    own = {"id": model.id, "object": "model", "created": model.created, "owned_by": model.owned_by, "state": model.state}
    body: dict[str, Any] = {"permission": [], **model.extra, **own}
    if model.max_model_len is not None:
        body["max_model_len"] = model.max_model_len
    return body
