"""Handlers of the business routes: take the credential, read, parse, call one thing, render.

Rule: the order of checks is errors.md's (route, size, key, JSON, fields, model, permission, queue), so a bad key with a
bad body is 401; the body is not read before the key is known.
Surprise: one path serves the model lists of three SDKs; headers decide the shape (openai-chat.md 1).
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Protocol

import orjson
from aiohttp import web

from ds2d import __version__
from ds2d.config.schema import Config
from ds2d.core.caller import Caller
from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.models import ModelInfo
from ds2d.core.request import ChatRequest, Inbound
from ds2d.dialects import COUNTS, MODEL_LISTS, REGISTRY
from ds2d.dialects.tasks import Task
from ds2d.service import Ask, Service
from ds2d.service.tracing import Tracing
from ds2d.state.callers import Callers
from ds2d.state.captures import Captures
from ds2d.web.again import again_of
from ds2d.web.auth import credentials, peer_of
from ds2d.web.body import is_large, parse_object, read_body
from ds2d.web.keys import AGAIN, ARRIVED, ASK, CALLER, DIALECT, REQUEST_ID, Handler
from ds2d.web.letting_go import let_go
from ds2d.web.replies import common_headers, json_reply, value_reply
from ds2d.web.streaming import ClientStream
from ds2d.web.understanding import understood
from ds2d.web.uploads import FormUpload

Action = Callable[[web.Request, str], Awaitable[web.StreamResponse]]
Recall = Callable[[str, str], Any]
"""Caller and id to what is stored."""
Before = Callable[[str, dict[str, Any]], Awaitable[None]]
"""Told of caller and body, before the question is understood."""


class Lists(Protocol):
    """Where model lists come from."""

    def models(self, allowed: Callable[[str], bool] | None = None, *, claude: bool = False) -> list[ModelInfo]: ...


class Business:
    """What the handlers of the business routes share."""

    def __init__(
        self,
        config: Callable[[], Config],
        service: Service,
        callers: Callers,
        lists: Lists,
        unseal: Callable[[str], str | None],
        draining: Callable[[], bool],
        captures: Captures | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        self._config = config
        self._service = service
        self._callers = callers
        self._lists = lists
        self._unseal = unseal
        self.draining = draining
        self._captures = captures
        self._tracing = tracing
        self._own: dict[tuple[str, str], Action] = {}
        self._actions: dict[str, Action] = {
            "generate": self.generate,
            "count": self.count,
            "models": self.models,
            "model": self.model,
        }

    def add_actions(self, actions: Mapping[str, Action], own: Mapping[tuple[str, str], Action]) -> None:
        """Handlers that live elsewhere: further actions, and, by dialect and action, those that need more than ours."""
        self._actions |= actions
        self._own = dict(own)

    def handler(self, dialect: str, action: str) -> Handler:
        """The handler of one route of a dialect."""
        act = self._own.get((dialect, action)) or self._actions.get(action, self.unserved)

        async def handle(request: web.Request) -> web.StreamResponse:
            request[DIALECT] = dialect
            traced = self._tracing.enter(request.headers) if self._tracing is not None else None
            try:
                reply = await act(request, dialect)
            except BaseException as error:
                self._keep_capture(request, None, error)
                raise
            finally:
                if self._tracing is not None and traced is not None:
                    self._tracing.leave(traced)
            self._keep_capture(request, reply, None)
            return reply

        return handle

    def _keep_capture(self, request: web.Request, reply: web.StreamResponse | None, error: BaseException | None) -> None:
        """The exchange is over: keep what was recorded of it, where captures are on."""
        ask = request.get(ASK)
        if ask is None or ask.recording is None or self._captures is None:
            return
        if isinstance(reply, web.Response) and isinstance(reply.body, bytes):
            ask.recording.client(reply.body)
        if error is not None:
            ask.recording.failed(error.kind if isinstance(error, GatewayError) else type(error).__name__)
        self._captures.keep(ask.recording)

    def identify(self, request: web.Request, dialect: str) -> Caller:
        """Who asks. Raises INVALID_KEY or KEY_EXPIRED."""
        peer = peer_of(request, self._config().server.trusted_proxies)
        caller = self._callers.identify(credentials(request, query_key=dialect == "gemini"), peer)
        request[CALLER] = caller
        return caller

    async def inbound(self, request: web.Request) -> Inbound:
        """The request as a dialect sees it."""
        if request.method == "GET":
            return self._inbound(request, {})
        server = self._config().server
        raw = await read_body(request, server.body_limit_bytes, server.body_seconds)
        request[ARRIVED] = time.monotonic()
        request[AGAIN] = await again_of(request, raw, request[CALLER].id)
        return self._inbound(request, await parse_object(raw), large=is_large(raw))

    def _inbound(self, request: web.Request, body: dict[str, Any], *, large: bool = False) -> Inbound:
        headers = {name.lower(): value for name, value in request.headers.items()}
        return Inbound(body, headers, request.query, request.match_info, unseal=self._unseal, large=large)

    async def ask(
        self,
        request: web.Request,
        dialect: str,
        recall: Recall | None = None,
        before: Before | None = None,
        *,
        task: tuple[str, Callable[[Inbound], ChatRequest]] | None = None,
    ) -> Ask:
        """The question of a request, once its key is known. `recall` finds what the caller has stored, after `before`. `task`:
        what else is asked for than an answer, as the records call it, and how it is read."""
        caller = self.identify(request, dialect)
        inbound = await self.inbound(request)
        if before is not None:
            await before(caller.id, inbound.body)
        if recall is not None:
            inbound.recall = partial(recall, caller.id)
        name, parse = task or (dialect, REGISTRY[dialect].parse)
        recording = None
        if self._captures is not None:
            recording = self._captures.begin(name, request.path_qs, lambda: orjson.dumps(inbound.body), request[REQUEST_ID])
            if recording is not None:
                recording.knows([caller.token])
        parsed = await understood(parse, inbound)
        if inbound.large:
            for value in inbound.body.values():
                if isinstance(value, list):
                    let_go(value)
        return await self._asked(request, Ask(REGISTRY[dialect], name, parsed, caller, request[REQUEST_ID], recording=recording))

    async def ask_with_form(self, request: web.Request, dialect: str, task: Task) -> Ask:
        """The same for a body that is a form with a file, which is read as the upstream takes it."""
        caller = self.identify(request, dialect)
        server = self._config().server
        upload = FormUpload(request, server.body_limit_bytes, server.body_seconds)
        parsed = task.parse_form(await upload.find_model(), upload)
        return await self._asked(request, Ask(REGISTRY[dialect], task.name, parsed, caller, request[REQUEST_ID]))

    async def _asked(self, request: web.Request, ask: Ask) -> Ask:
        ask.pin = request.headers.get("X-Ds2-Target-Account")
        ask.again = request.get(AGAIN)
        ask.arrived = request.get(ARRIVED)
        request[ASK] = ask
        if self._service.has_new:
            await self._service.meet(ask)
        return ask

    async def generate(self, request: web.Request, dialect: str) -> web.StreamResponse:
        """One turn, streamed or whole."""
        ask = await self.ask(request, dialect)
        if ask.request.stream:
            return await self.stream(request, ask)
        return json_reply(await self._service.answer(ask))

    async def stream(self, request: web.Request, ask: Ask) -> web.StreamResponse:
        """A turn written as it comes."""
        sink = self.sink(request, ask)
        if ask.recording is not None:
            sink.listener = ask.recording.client
        try:
            await self._service.stream(ask, sink)
        except GatewayError as error:
            await self.tell_in_stream(ask, sink, error)
        await sink.end()
        return sink.response

    async def tell_in_stream(self, ask: Ask, sink: ClientStream, error: GatewayError) -> None:
        """A turn failed of which life signs at most were sent, which take the status. Raises the error where it is still open."""
        if not sink.started or error.kind is ErrorKind.CLIENT_CLOSED:
            raise error
        await sink.write(self._service.failure(ask, error))

    def sink(self, request: web.Request, ask: Ask) -> ClientStream:
        """Where a streamed answer goes."""
        return ClientStream(request, common_headers(ask.request_id, ask.dialect_name), self.draining())

    @property
    def silence(self) -> float:
        """Seconds of it after which a stream gets a life sign."""
        return self._config().server.keepalive_seconds

    async def count(self, request: web.Request, dialect: str) -> web.StreamResponse:
        """How many tokens a question has."""
        ask = await self.ask(request, dialect)
        return json_reply(COUNTS[dialect](await self._service.count(ask)))

    async def models(self, request: web.Request, dialect: str) -> web.StreamResponse:
        """The model list in the shape that the headers ask for."""
        shape = self._shape(request, dialect)
        models = self._lists.models(self._visible(request, dialect), claude=shape == "claude")
        return json_reply(MODEL_LISTS[shape].render_models(models, self._inbound(request, {})))

    async def model(self, request: web.Request, dialect: str) -> web.StreamResponse:
        """One model: the id, or what an alias stands for. 404 for an unknown one."""
        shape = self._shape(request, dialect)
        (name,) = request.match_info.values()
        name = name.removeprefix("models/").strip()
        models = self._lists.models(self._visible(request, dialect), claude=shape == "claude")
        found = {info.id.lower(): info for info in models}
        info = found.get(name.lower()) or found.get("/" + name.lower())
        if info is None:
            public = self._service.public_name(name, claude_route=shape == "claude")
            info = found.get(public.lower())
        if info is None:
            raise GatewayError(ErrorKind.MODEL_NOT_FOUND, f"The model '{name}' does not exist.", param="model")
        return json_reply(MODEL_LISTS[shape].render_model(info, self._inbound(request, {})))

    async def unserved(self, request: web.Request, dialect: str) -> web.StreamResponse:
        """A route that the contract names and this gateway does not offer; who asks is known before it is said."""
        self.identify(request, dialect)
        raise GatewayError(ErrorKind.NOT_IMPLEMENTED, "This operation is not offered here.")

    def _visible(self, request: web.Request, dialect: str) -> Callable[[str], bool] | None:
        """Which models the list shows: those of a known key; all where lists are public and no known key came."""
        for key in credentials(request, query_key=True):
            if caller := self._callers.find(key):
                return caller.may_use
        if not self._config().server.public_models:
            return self.identify(request, dialect).may_use
        return None

    def _shape(self, request: web.Request, dialect: str) -> str:
        """The dialect of a list that several share a path for; errors and headers of the answer follow it."""
        headers = request.headers
        if dialect != "openai_chat":
            shape = dialect
        elif "x-goog-api-key" in headers or "x-goog-api-client" in headers or "key" in request.query:
            shape = "gemini"
        else:
            shape = "claude" if "anthropic-version" in headers else dialect
        request[DIALECT] = shape
        return shape


class Probes:
    """What load balancers, people and clients look at before they ask anything. No key, no upstream call."""

    def __init__(self, readiness: Callable[[], tuple[str, dict[str, object]]]) -> None:
        self._readiness = readiness

    def routes(self) -> list[tuple[str, Handler]]:
        """Paths that answer to GET and HEAD."""
        return [
            ("/healthz", self.healthz),
            ("/readyz", self.readyz),
            ("/ping", self.ping),
            ("/health", self.health),
            ("/version", self.version),
            ("/anthropic", self.root),
            ("/v1", self.root),
        ]

    async def healthz(self, request: web.Request) -> web.StreamResponse:
        """The process is up."""
        return value_reply({"status": "ok"})

    async def readyz(self, request: web.Request) -> web.StreamResponse:
        """Whether requests should come here; details only on demand."""
        status, details = self._readiness()
        body: dict[str, object] = {"status": status}
        if "verbose" in request.query:
            body |= details
        return value_reply(body, 200 if status == "ready" else 503)

    async def ping(self, request: web.Request) -> web.StreamResponse:
        """Alive, without a body (vllm-extras.md 1)."""
        return web.Response()

    async def health(self, request: web.Request) -> web.StreamResponse:
        """200 without a body while something can be served."""
        status, _ = self._readiness()
        return web.Response(status=200 if status == "ready" else 503)

    async def version(self, request: web.Request) -> web.StreamResponse:
        """The gateway's version."""
        return value_reply({"version": __version__})

    async def root(self, request: web.Request) -> web.StreamResponse:
        """A short text for people with curl; clients probe it with HEAD."""
        return web.Response(text=ROOT_TEXT)


ROOT_TEXT = f"""ds2d {__version__}: a gateway between AI clients and DeepSeek models.

  GET  /healthz  /readyz?verbose        is it up, can it serve
  GET  /v1/models                       what it serves
  POST /v1/chat/completions             OpenAI chat; also /v1/completions, /v1/responses
  POST /v1/messages                     Claude; also /anthropic/v1/messages
  POST /v1beta/models/NAME:generateContent   Gemini
"""
