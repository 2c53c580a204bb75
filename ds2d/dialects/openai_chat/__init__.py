"""OpenAI chat completions: how most clients ask and are answered (openai-chat.md 1 to 7).

Rule: this is the form everything else is converted through, so a client's own messages pass as they came; what is checked
here is refused by its path or goes on untouched.
Surprise: clients die of a missing `index`, `finish_reason`, `object`, `created` or `model` in a chunk (clients.md), so all
of them are always there.
"""

from ds2d.core.endpoint import MODEL, Endpoint
from ds2d.dialects.openai_chat.encode import Encoder
from ds2d.dialects.openai_chat.models import render_model, render_models
from ds2d.dialects.openai_chat.parse import parse
from ds2d.dialects.openai_chat.render import render, render_error

ROUTES = (
    Endpoint("POST", "/v1/chat/completions"),
    Endpoint("GET", "/v1/models", "models"),
    Endpoint("GET", f"/v1/models/{MODEL}", "model"),
)

__all__ = ["ROUTES", "Encoder", "parse", "render", "render_error", "render_model", "render_models"]
