"""How kinds of servers are asked and how they answer: one module a kind, one line here.

Rule: an upstream is pure: `prepare` yields what it needs from the network, `Decoder` turns what came back into events,
`classify` turns a refusal into an error. It knows no dialect.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

from ds2d.core.calls import Call, Passed, Preparation, Reply
from ds2d.core.errors import GatewayError
from ds2d.core.models import Target
from ds2d.core.pipeline import Decoding
from ds2d.core.request import ChatRequest
from ds2d.upstreams import demo, openai


class Upstream(Protocol):
    """What an upstream module offers."""

    def check(self, request: ChatRequest, target: Target) -> None:
        """Refuse what this target's server cannot do, before it costs a slot. Raises GatewayError of the 400 class."""

    def prepare(self, request: ChatRequest, target: Target, token: str | None) -> Preparation:
        """How to ask: yields steps, returns the call whose answer is the model's. `token` is the account's credential."""

    def Decoder(self, request: ChatRequest, target: Target) -> Decoding:  # noqa: N802 - a class in the modules
        """A new decoder for one answer, streamed or whole (a whole body comes as one record)."""

    def classify(self, reply: Reply, request: ChatRequest) -> GatewayError:
        """What a status other than 200 means for the turn (errors.md 2, upstreams.md 5)."""

    def count_call(self, request: ChatRequest, target: Target, token: str | None) -> Call | None:
        """The call that counts a question's tokens, or None where this server cannot."""

    def read_count(self, reply: Reply) -> int | None:
        """The count in its answer, None if there is none to believe."""

    def pass_back(self, request: ChatRequest, target: Target, reply: Reply) -> Passed:
        """The answer to a task (`request.task`) as its client gets it. Raises UPSTREAM_GARBLED."""


def _passes_nothing(request: ChatRequest, _target: Target, _reply: Reply) -> Passed:
    raise openai.absent(request.task, request.model)


class Kind(msgspec.Struct, frozen=True):
    """One kind of upstream, put together: kinds that speak the same wire share its decoder without knowing each other."""

    check: Callable[[ChatRequest, Target], None]
    prepare: Callable[[ChatRequest, Target, str | None], Preparation]
    Decoder: Callable[[ChatRequest, Target], Decoding]
    classify: Callable[[Reply, ChatRequest], GatewayError]
    count_call: Callable[[ChatRequest, Target, str | None], Call | None] = lambda _request, _target, _token: None
    read_count: Callable[[Reply], int | None] = lambda _reply: None
    pass_back: Callable[[ChatRequest, Target, Reply], Passed] = _passes_nothing


REGISTRY: dict[str, Upstream] = {
    "openai": Kind(
        openai.check,
        openai.prepare,
        openai.Decoder,
        openai.classify,
        openai.count_call,
        openai.read_count,
        openai.pass_back,
    ),
    "demo": Kind(demo.check, demo.prepare, openai.Decoder, openai.classify),
}
"""By `upstreams[].kind`."""
