"""One question to every endpoint of the gateway, in the words of its clients.

Rule: an endpoint passes if it answers 200 with what its clients look for; what no served model offers (404, 501) is no fault.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ds2d.cli.doctor.checks import Found
from ds2d.cli.doctor.hearing import Ear, Hop

HELLO = [{"role": "user", "content": "Hello"}]


class Endpoint(msgspec.Struct, frozen=True):
    """`path` as of `Hop.place`, with `{model}` in it where it stands there; `body` None for a GET; `has` is a key of the answer,
    or what its stream must hold."""

    path: str
    body: dict[str, Any] | None
    has: str
    optional: bool = False


ENDPOINTS = {
    "GET /v1/models": Endpoint("/models", None, "data"),
    "POST /v1/chat/completions": Endpoint("/chat/completions", {"messages": HELLO, "max_tokens": 16}, "choices"),
    "POST /v1/completions": Endpoint("/completions", {"prompt": "Hello", "max_tokens": 16}, "choices"),
    "POST /v1/responses": Endpoint("/responses", {"input": "Hello", "max_output_tokens": 64}, "output"),
    "POST /v1/messages": Endpoint("/messages", {"messages": HELLO, "max_tokens": 64}, "content"),
    "POST /v1/messages/count_tokens": Endpoint("/messages/count_tokens", {"messages": HELLO}, "input_tokens"),
    "POST :generateContent": Endpoint(
        "//v1beta/models/{model}:generateContent", {"contents": [{"parts": [{"text": "Hello"}]}]}, "candidates"
    ),
    "POST :countTokens": Endpoint(
        "//v1beta/models/{model}:countTokens", {"contents": [{"parts": [{"text": "Hello"}]}]}, "totalTokens"
    ),
    "POST /v1/embeddings": Endpoint("/embeddings", {"input": "Hello"}, "data", optional=True),
    "POST /tokenize": Endpoint("//tokenize", {"prompt": "Hello"}, "tokens", optional=True),
    "POST /rerank": Endpoint("//rerank", {"query": "Hello", "documents": ["Hi", "No"]}, "results", optional=True),
    "POST /classify": Endpoint("//classify", {"input": "Hello"}, "data", optional=True),
    "GET /readyz": Endpoint("//readyz", None, "status"),
    "GET /load": Endpoint("//load", None, "server_load"),
    "GET /v1/usage": Endpoint("/usage", None, "used"),
}
"""By what the report calls them."""


async def ask_endpoint(ear: Ear, hop: Hop, endpoint: Endpoint) -> Found:
    """Ask it. Tasks besides answers are asked without a model's name: the gateway finds who does them."""
    body = endpoint.body
    if body is not None and not endpoint.optional and "{model}" not in endpoint.path:
        body = {"model": hop.model, **body}
    heard = await ear.ask(hop, endpoint.path.replace("{model}", hop.model), body)
    if heard.status in (404, 501) and endpoint.optional:
        return Found("skip", "no served model offers it")
    if heard.status != 200:
        return Found("fail", f"{heard.status or heard.why}: {heard.told}" if heard.status else heard.why)
    return Found("ok") if endpoint.has in heard.json else Found("fail", f"no {endpoint.has} in the answer")
