"""How families of clients ask and are answered: one module a dialect, one line here.

Rule: a dialect is pure and knows no other dialect and no upstream; it meets them at `ChatRequest` and the seven events.
A module here has `ROUTES`, `parse`, `Encoder`, `render`, `render_error`, and optionally the model lists and counts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from ds2d.core.endpoint import Endpoint
from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.events import Completion
from ds2d.core.models import ModelInfo
from ds2d.core.pipeline import Encoding
from ds2d.core.request import ChatRequest, Envelope, Inbound
from ds2d.dialects import claude, gemini, openai_chat, openai_completions, openai_responses, tasks


class Dialect(Protocol):
    """What a dialect module offers."""

    @property
    def ROUTES(self) -> tuple[Endpoint, ...]:  # noqa: N802 - a constant in the modules
        """Its routes."""

    def parse(self, inbound: Inbound) -> ChatRequest:
        """The question in it. Raises GatewayError of the 400 class with the field's path."""

    def Encoder(self, envelope: Envelope) -> Encoding:  # noqa: N802 - a class in the modules
        """A new encoder for one streamed answer."""

    def render(self, completion: Completion, envelope: Envelope) -> bytes:
        """The body of a non-streamed answer. Raises GatewayError where the dialect cannot express it."""

    def render_error(self, error: GatewayError, request_id: str) -> bytes:
        """The body of an error."""


class ModelLists(Protocol):
    """What a dialect that lists models offers besides."""

    def render_models(self, models: Sequence[ModelInfo], inbound: Inbound) -> bytes:
        """The body of the list, cut to the page that the query asks for. Raises INVALID_REQUEST for a bad page."""

    def render_model(self, model: ModelInfo, inbound: Inbound) -> bytes:
        """The body of one model."""


REGISTRY: dict[str, Dialect] = {
    "claude": claude,
    "gemini": gemini,
    "openai_chat": openai_chat,
    "openai_completions": openai_completions,
    "openai_responses": openai_responses,
}

ENDPOINTS: tuple[tuple[str, Endpoint], ...] = (
    *((name, endpoint) for name, dialect in REGISTRY.items() for endpoint in dialect.ROUTES),
    *(("openai_chat", endpoint) for endpoint in tasks.ROUTES),
)
"""Every business route and the dialect of its errors, in the order in which the router tries them."""

MODEL_LISTS: dict[str, ModelLists] = {
    "claude": claude,
    "gemini": gemini,
    "openai_chat": openai_chat,
}

COUNTS: dict[str, Callable[[int], bytes]] = {
    "claude": claude.render_count,
    "gemini": gemini.render_count,
    "openai_responses": openai_responses.render_count,
}
"""Bodies that answer a count of tokens."""


def _gemini_tells(error: GatewayError, streamed: bool) -> bool:
    return gemini.finish_word(error) is not None


def _responses_tell(error: GatewayError, streamed: bool) -> bool:
    return streamed and error.kind is ErrorKind.TOOL_CHOICE_VIOLATION


TELLS: dict[str, Callable[[GatewayError, bool], bool]] = {
    "gemini": _gemini_tells,
    "openai_responses": _responses_tell,
}
"""Failures that a dialect's answer tells by itself, with status 200, even when nothing was sent (errors.md 2, 3)."""
