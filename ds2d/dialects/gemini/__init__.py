"""Gemini: how Google's clients ask and are answered (gemini.md).

Rule: every key may come in camelCase or snake_case at every level, and goes out in camelCase; objects that hold a user's own
names are never looked into.
Surprise: the path's last word, not the body, says what is wanted, so unknown words are this dialect's to refuse.
"""

from ds2d.core.endpoint import MODEL, Endpoint
from ds2d.dialects.gemini.embed import Embedding, parse_embed, render_embed
from ds2d.dialects.gemini.encode import Encoder
from ds2d.dialects.gemini.models import render_model, render_models
from ds2d.dialects.gemini.parse import parse
from ds2d.dialects.gemini.render import finish_word, render, render_count, render_error

_UNSERVED = "predict|predictLongRunning|asyncBatchEmbedContent|computeTokens|batchGenerateContent"
_METHODS = (
    ("generateContent|streamGenerateContent", "generate"),
    ("countTokens", "count"),
    ("embedContent", "embed"),
    ("batchEmbedContents", "batch_embed"),
    (_UNSERVED, "unserved"),
    ("[^:/]*", "generate"),  # an unknown method: `parse` says so
)

ROUTES = (
    *(
        Endpoint("POST", f"/{version}/models/{{model:.+}}:{{method:{methods}}}", action)
        for version in ("v1beta", "v1")
        for methods, action in _METHODS
    ),
    Endpoint("GET", "/v1beta/models", "models"),
    Endpoint("GET", f"/v1beta/models/{MODEL}", "model"),
)

__all__ = [
    "ROUTES",
    "Embedding",
    "Encoder",
    "finish_word",
    "parse",
    "parse_embed",
    "render",
    "render_count",
    "render_embed",
    "render_error",
    "render_model",
    "render_models",
]
