"""A generateContent, streamGenerateContent or countTokens request as a question (gemini.md 3, 7).

Rule: the path says what is asked for and of which model; the body's own `model` counts for nothing.
"""

from __future__ import annotations

from typing import Any

from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.request import ChatRequest, Inbound
from ds2d.core.session import session_of
from ds2d.core.validate import invalid
from ds2d.dialects.gemini.config import read_config
from ds2d.dialects.gemini.contents import read_contents
from ds2d.dialects.gemini.fields import level, model_of
from ds2d.dialects.gemini.reply import Form, Reply
from ds2d.dialects.gemini.tools import read_tooling

_METHODS = frozenset(("generateContent", "streamGenerateContent", "countTokens"))
_FORMS: dict[str, Form] = {"sse": "sse", "json": "array"}


def parse(inbound: Inbound) -> ChatRequest:
    """The question in a request. Raises GatewayError of the 400 class with the field's path, ROUTE_NOT_FOUND for a method
    that does not exist."""
    method = inbound.path.get("method", "generateContent")
    if method not in _METHODS:
        raise GatewayError(ErrorKind.ROUTE_NOT_FOUND, "There is no such method.")
    at, body = "", level(inbound.body, "body")
    if method == "countTokens" and "generateContentRequest" in body:
        at = "generateContentRequest"
        body = level(body[at], at)
    if body.get("cachedContent"):
        raise invalid("cachedContent", "cached contents are not kept here.", ErrorKind.UNSUPPORTED_PARAMETER)
    messages, images, media = read_contents(body, at, inbound.unseal)
    tooling = read_tooling(body, at)
    config = read_config(body, at)
    return ChatRequest(
        model_of(inbound),
        messages,
        stream=method == "streamGenerateContent",
        tools=tooling.tools,
        tool_choice=tooling.choice,
        max_tokens=config.max_tokens,
        params=config.params,
        response_format=config.response_format,
        reasoning=config.wish,
        session=session_of(inbound.headers),
        images=images,
        media=media,
        reply=Reply(
            form=_form(inbound),
            thoughts=config.thoughts,
            thinking=config.wish.mode == "on",
            unquote=config.unquote,
        ),
        notes=tuple(f"tool_dropped:{kind}" for kind in tooling.ignored),
    )


def _form(inbound: Inbound) -> Form | None:
    """How the stream is framed, if the query says so; Google's own name of the parameter has a dollar in front, too."""
    alt: Any = inbound.query.get("alt") or inbound.query.get("$alt") or ""
    return _FORMS.get(alt.lower())
