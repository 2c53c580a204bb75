"""The parts of a turn that are different where no answer is written: embeddings, scores, labels, tokens, transcripts.

Rule: admission, queue, retries and books are those of every turn (answer.py); here is only who does it, what becomes of the
answer, and the vectors that are made without a server.
Surprise: a server that tells no usage used something all the same: what its model read is counted here.
"""

from __future__ import annotations

import asyncio

import msgspec

from ds2d.config.schema import Embeddings
from ds2d.core.calls import Passed, Reply
from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.events import Usage, own_usage
from ds2d.core.models import TABLES, Route, Target, matches
from ds2d.core.pipeline import MAX_ANSWER
from ds2d.core.request import ChatRequest
from ds2d.core.validate import invalid
from ds2d.core.vectors import made_up
from ds2d.net.exchange import Exchange
from ds2d.service.turn import Tools, Turn
from ds2d.state.books import Books
from ds2d.state.catalog import Catalog
from ds2d.upstreams import REGISTRY as UPSTREAMS
from ds2d.upstreams.openai import embeddings_body

MAX_NUMBERS = 4 * 1024 * 1024
"""In all vectors that are made here for one request."""

OFF_LOOP = 1024 * 1024
"""Bytes of an answer above which it is read in a thread, and numbers above which vectors are made in one."""


def task_route(catalog: Catalog, request: ChatRequest, settings: Embeddings) -> Route:
    """Who does the task; no targets where it is done here (`embeddings.provider`). Raises what Catalog.task_route does."""
    if request.task != "embeddings" or settings.provider in (None, "upstream"):
        return catalog.task_route(request.task, request.model)
    asked = request.model or "deterministic"
    public = asked
    try:
        public = catalog.route(asked).public if request.model else asked
    except GatewayError as error:
        if error.kind is ErrorKind.MODEL_NOT_FOUND and not matches(asked, TABLES.stands_in["embeddings"]):
            raise
    return Route(asked, public, (), "embeddings.provider")


def is_streamed(exchange: Exchange) -> bool:
    """Whether the upstream answers with a stream of events, whatever it was asked for."""
    return "event-stream" in exchange.headers.get("content-type", "")


async def passed_on(turn: Turn, target: Target, exchange: Exchange, tools: Tools, books: Books) -> Passed:
    """The upstream's answer as the client gets it, on record. Raises GatewayError where it cannot be understood."""
    request = turn.ask.request
    reply = await exchange.whole(MAX_ANSWER)
    if turn.ask.recording is not None:
        turn.ask.recording.upstream(reply.body)
    passed = await _read(request, target, reply)
    usage = passed.usage
    if usage is None and request.prompt:
        usage = own_usage(await tools.count_request(request), 0, exact=tools.exact)
    return await _done(turn, passed, usage, books)


async def _read(request: ChatRequest, target: Target, reply: Reply) -> Passed:
    read = UPSTREAMS[target.upstream.kind].pass_back
    if len(reply.body) > OFF_LOOP:
        return await asyncio.get_running_loop().run_in_executor(None, read, request, target, reply)
    return read(request, target, reply)


async def made_here(turn: Turn, tools: Tools, books: Books) -> Passed:
    """Vectors that depend on nothing but the text: for trying programs out, without meaning."""
    request, config = turn.ask.request, turn.config.embeddings
    if "input" not in request.extra:
        raise invalid("messages", "no model is behind these vectors: send input.", ErrorKind.UNSUPPORTED_PARAMETER)
    dimensions = request.extra.get("dimensions") or config.dimensions
    texts = request.prompt if isinstance(request.prompt, list) else []
    if len(texts) * dimensions > MAX_NUMBERS:
        raise invalid("dimensions", f"at most {MAX_NUMBERS} numbers in all vectors of a request.")
    tokens = await tools.count_request(request)

    def make() -> bytes:
        return embeddings_body([made_up(text, dimensions) for text in texts], _named(request, turn), tokens)

    big = len(texts) * dimensions > OFF_LOOP // 16
    body = await asyncio.get_running_loop().run_in_executor(None, make) if big else make()
    return await _done(turn, Passed(body), own_usage(tokens, 0, exact=tools.exact), books)


def _named(request: ChatRequest, turn: Turn) -> ChatRequest:
    return request if request.model else msgspec.structs.replace(request, model=turn.route.public)


async def _done(turn: Turn, passed: Passed, usage: Usage | None, books: Books) -> Passed:
    """The turn is whole and on record; what is left is to send it."""
    turn.usage, turn.settled = usage, True
    turn.outcome, turn.cause = "completed", "stop"
    turn.ask.on_ending()
    await books.commit(turn)
    return msgspec.structs.replace(passed, usage=usage)
