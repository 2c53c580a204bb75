"""Handlers of the Responses routes: turns whose answers stay, and what can be done with those that stayed.

Rule: an answer is stored before its last frame goes out, so that a client which chains at once finds it; background work
belongs to the daemon, not to the request that began it.
Surprise: Codex asks for a WebSocket first and only 426 turns it to HTTP without delay (clients.md, fact 4).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial
from typing import Any, Protocol

from aiohttp import web

from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.pipeline import Encoding
from ds2d.core.request import Envelope
from ds2d.dialects import openai_responses as dialect
from ds2d.service import Ask, Service
from ds2d.service.heartbeat import Heartbeat
from ds2d.state import response_routes as routes
from ds2d.state.background import BackgroundResponse
from ds2d.state.responses import ResponseStore, prepare
from ds2d.web.handlers import Action, Business
from ds2d.web.keys import REQUEST_ID
from ds2d.web.replies import common_headers, json_reply
from ds2d.web.streaming import ClientStream

NAME = "openai_responses"
Spawn = Callable[[Coroutine[Any, Any, None]], None]


def _settle(admitted: asyncio.Future[None], error: GatewayError | None = None) -> bool:
    """Say whether a turn was admitted, unless that is known, or nobody waits for it any more. True if it was news."""
    if admitted.done():
        return False
    if error is None:
        admitted.set_result(None)
    else:
        admitted.set_exception(error)
    return True


def _end_with(run: BackgroundResponse, frames: bytes) -> None:
    """Its last frames, which are kept whether or not the store has room."""
    with contextlib.suppress(GatewayError):
        run.append(frames)


class RunSink:
    """Where a background turn writes: its frames are kept, whoever listens."""

    outlet = None

    def __init__(self, run: BackgroundResponse) -> None:
        self._run = run
        self.started = True  # the response was announced: what its encoder has made by then must be told
        self.content_type = dialect.Encoder.content_type
        self.last_write = 0.0

    async def write(self, data: bytes) -> None:
        self.last_write = asyncio.get_running_loop().time()
        self._run.append(data)


class Others(Protocol):
    """Other generations of this daemon, which may have what this one does not (docs/upgrade.md)."""

    async def seek(self, caller: str, name: str) -> None: ...
    async def elsewhere(self, verb: str, caller: str, name: str, query: dict[str, str]) -> bytes | None: ...
    async def events(self, caller: str, name: str, query: dict[str, str]) -> AsyncIterator[bytes] | None: ...


class Responses:
    """What the Responses routes share. `spawn` runs background work that is awaited when the daemon stops."""

    def __init__(self, business: Business, service: Service, store: ResponseStore, spawn: Spawn, others: Others) -> None:
        self._others = others
        self._business = business
        self._service = service
        self._store = store
        self._spawn = spawn

    def actions(self) -> dict[str, Action]:
        """Handlers by the actions of the dialect's routes."""
        return {
            "responses_get": self.retrieve,
            "responses_delete": self.delete,
            "responses_cancel": self.cancel,
            "responses_items": self.items,
            "responses_socket": self.socket,
            "responses_compact": self.compact,
        }

    def own(self) -> dict[tuple[str, str], Action]:
        """Handlers of actions that other dialects have too: here a question may refer to what is stored."""
        return {(NAME, "generate"): self.generate, (NAME, "count"): self.count}

    async def count(self, request: web.Request, name: str) -> web.StreamResponse:
        """How many tokens a question has, with all that it refers to."""
        ask = await self._ask(request, name)
        return json_reply(dialect.render_count(await self._service.count(ask)))

    async def generate(self, request: web.Request, name: str) -> web.StreamResponse:
        """One turn; its answer stays unless the question said no."""
        ask = await self._ask(request, name)
        reply: dialect.Reply = ask.request.reply
        if ask.request.large and (reply.store or reply.background):
            await asyncio.get_running_loop().run_in_executor(None, prepare, reply)
        if reply.background:
            ask.again = None  # the response that is begun at once is its own
            return await self._begin(request, ask, reply)
        caller = ask.caller.id  # the question does not hold itself
        ask.on_ending = lambda: self._store.put(caller, reply)
        if ask.request.stream:
            return await self._business.stream(request, ask)
        return json_reply(await self._service.answer(ask))

    async def _ask(self, request: web.Request, name: str) -> Ask:
        return await self._business.ask(request, name, self._store.recall, self._before_asking)

    async def _before_asking(self, caller: str, body: dict[str, Any]) -> None:
        """Have here what the question refers to."""
        if isinstance(name := body.get("previous_response_id"), str):
            await self._others.seek(caller, name)

    async def _begin(self, request: web.Request, ask: Ask, reply: dialect.Reply) -> web.StreamResponse:
        """Start a background turn and answer once it is admitted, with the object or with its events as they come.

        Raises what refuses it before it waits for an account (errors.md 2, mapping.md 9); then nothing is kept of it.
        """
        envelope = self._service.envelope(ask)
        first = dialect.opening(envelope)
        waiting = dialect.queued(envelope)
        run = self._store.begin(ask.caller.id, reply, lambda: waiting, first)
        run.append(first)
        admitted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        ask.on_admitted = partial(_settle, admitted)
        streams = ask.request.stream  # the work itself always does
        self._spawn(self._work(ask, envelope, run, admitted))
        await admitted
        if streams:
            return await self._follow(request, run.follow(-1))
        return json_reply(waiting.body())

    async def _work(self, ask: Ask, envelope: Envelope, run: BackgroundResponse, admitted: asyncio.Future[None]) -> None:
        """The turn itself. Whatever becomes of it once it is admitted, the response ends in one of its final states."""

        task = asyncio.current_task()
        assert task is not None
        asked: list[GatewayError] = []

        def stop(error: GatewayError) -> None:
            asked.append(error)
            if ask.turn is not None:
                ask.turn.stop(error)
            else:
                task.cancel()

        def watch(encoder: Encoding) -> None:
            assert isinstance(encoder, dialect.Encoder)
            run.snapshot = encoder.snapshot

        ask.on_encoder = watch
        ask.request.stream = True
        late = GatewayError(ErrorKind.UPSTREAM_TIMEOUT, "The response took too long.")
        timer = asyncio.get_running_loop().call_at(run.deadline, run.stop, late)
        try:
            run.on_stop(stop)
            await self._service.stream(ask, RunSink(run))
        except GatewayError as error:
            if not _settle(admitted, error):
                _end_with(run, dialect.fail(envelope, error))
        except asyncio.CancelledError:
            down = GatewayError(ErrorKind.SHUTTING_DOWN, "The gateway is shutting down.")
            cause = asked[0] if asked else down
            if not _settle(admitted, cause):
                _end_with(run, dialect.fail(envelope, cause))
        finally:
            timer.cancel()
            _settle(admitted, GatewayError(ErrorKind.INTERNAL, "The response could not be begun."))
            self._store.end(run, ask.request.reply)

    async def _follow(self, request: web.Request, frames: Any) -> web.StreamResponse:
        sink = ClientStream(request, common_headers(request[REQUEST_ID], NAME), self._business.draining())
        sink.content_type = dialect.Encoder.content_type
        # Those of its turn are not kept: they are no part of the answer.
        beat = Heartbeat(sink, self._business.silence, self._spawn, lambda: dialect.KEEP_ALIVE)
        try:
            async for piece in frames:
                await sink.write(piece)
        finally:
            beat.stop()
        await sink.end()
        return sink.response

    async def retrieve(self, request: web.Request, name: str) -> web.StreamResponse:
        """The object, or with `stream=true` its events again."""
        caller, response_id = self._whose(request, name)
        await self._others.seek(caller, response_id)
        if routes.wants_stream(request.query):
            frames = await self._others.events(caller, response_id, dict(request.query))
            return await self._follow(request, frames or routes.events(self._store, caller, response_id, request.query))
        body = await self._elsewhere("get", request, caller, response_id)
        return json_reply(body or routes.retrieve(self._store, caller, response_id))

    async def delete(self, request: web.Request, name: str) -> web.StreamResponse:
        """Forget one."""
        caller, response_id = self._whose(request, name)
        await self._others.seek(caller, response_id)
        body = await self._elsewhere("delete", request, caller, response_id)
        return json_reply(body or routes.delete(self._store, caller, response_id))

    async def cancel(self, request: web.Request, name: str) -> web.StreamResponse:
        """Stop a background response."""
        caller, response_id = self._whose(request, name)
        await self._others.seek(caller, response_id)
        body = await self._elsewhere("cancel", request, caller, response_id)
        return json_reply(body or await routes.cancel(self._store, caller, response_id))

    async def items(self, request: web.Request, name: str) -> web.StreamResponse:
        """A page of what its question held."""
        caller, response_id = self._whose(request, name)
        await self._others.seek(caller, response_id)
        body = await self._elsewhere("items", request, caller, response_id)
        return json_reply(body or routes.input_items(self._store, caller, response_id, request.query))

    async def _elsewhere(self, verb: str, request: web.Request, caller: str, response_id: str) -> bytes | None:
        return await self._others.elsewhere(verb, caller, response_id, dict(request.query))

    async def socket(self, request: web.Request, name: str) -> web.StreamResponse:
        """A WebSocket is not to be had; anything else has no GET."""
        if "websocket" in request.headers.get("Upgrade", "").lower():
            raise GatewayError(ErrorKind.UPGRADE_REQUIRED, "Responses come over HTTP here, not over a WebSocket.")
        raise web.HTTPMethodNotAllowed("GET", ["POST"])

    async def compact(self, request: web.Request, name: str) -> web.StreamResponse:
        """Not offered."""
        self._business.identify(request, name)
        raise GatewayError(ErrorKind.NOT_IMPLEMENTED, "Compaction is not offered here.")

    def _whose(self, request: web.Request, name: str) -> tuple[str, str]:
        caller = self._business.identify(request, name)
        return caller.id, request.match_info["id"]
