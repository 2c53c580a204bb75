"""The Responses dialect of OpenAI, over plain chat upstreams (openai-responses.md).

Rule: this package translates; what is kept between requests lives in state/responses.py, which meets it at `Reply`
(what a question left for its answer), `Answer` (what a store keeps) and `Recalled` (what a later question gets).
"""

from __future__ import annotations

from ds2d.core.endpoint import Endpoint
from ds2d.dialects.openai_responses.content import own_part, own_text
from ds2d.dialects.openai_responses.encode import Encoder, abandoned, answer, fail, opening, queued, render, render_count
from ds2d.dialects.openai_responses.failures import render_error
from ds2d.dialects.openai_responses.frames import DONE, KEEP_ALIVE
from ds2d.dialects.openai_responses.objects import Answer, Recalled, Reply, join_body
from ds2d.dialects.openai_responses.parse import parse

__all__ = [
    "DONE",
    "KEEP_ALIVE",
    "ROUTES",
    "Answer",
    "Encoder",
    "Recalled",
    "Reply",
    "abandoned",
    "answer",
    "fail",
    "join_body",
    "opening",
    "own_part",
    "own_text",
    "parse",
    "queued",
    "render",
    "render_count",
    "render_error",
]


def _routes(base: str) -> tuple[Endpoint, ...]:
    """The routes below /v1, or without it. Fixed words stand before `{id}`, which would match them."""
    return (
        Endpoint("POST", base),
        Endpoint("GET", base, "responses_socket"),
        Endpoint("POST", f"{base}/input_tokens", "count"),
        Endpoint("POST", f"{base}/compact", "responses_compact"),
        Endpoint("GET", f"{base}/{{id}}", "responses_get"),
        Endpoint("DELETE", f"{base}/{{id}}", "responses_delete"),
        Endpoint("POST", f"{base}/{{id}}/cancel", "responses_cancel"),
        Endpoint("GET", f"{base}/{{id}}/input_items", "responses_items"),
    )


ROUTES = _routes("/v1/responses") + _routes("/responses")
