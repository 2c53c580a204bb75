"""Anthropic Messages: how Claude clients ask and are answered (anthropic-messages.md).

Rule: one block is open at a time, its index is that of every delta, and `input` of a call is always an object.
Surprise: Claude Code and the SDKs each die of something else that is missing, so every event is always sent (clients.md).
"""

from ds2d.core.endpoint import Endpoint
from ds2d.dialects.claude.encode import Encoder
from ds2d.dialects.claude.models import render_model, render_models
from ds2d.dialects.claude.parse import parse
from ds2d.dialects.claude.render import render, render_count, render_error

_BASES = ("/anthropic/v1/messages", "/v1/messages", "/messages")

ROUTES = (
    *(Endpoint("POST", base) for base in _BASES),
    *(Endpoint("POST", f"{base}/count_tokens", "count") for base in _BASES),
    Endpoint("GET", "/anthropic/v1/models", "models"),
    Endpoint("GET", "/anthropic/v1/models/{id:.+}", "model"),
)

__all__ = ["ROUTES", "Encoder", "parse", "render", "render_count", "render_error", "render_model", "render_models"]
