"""Accounts and their queue through the admin API: listing, editing, trying out, resetting.

Rule: only accounts that the config holds can be tried, and one that is out of use is told why; a try costs what a look at the
model list costs, unless a message is given, which is asked as any caller would ask, pinned to the account.
Surprise: trying all of them in order would take minutes with one dead server, so five go at a time, and whoever asks for a
stream sees each result as it comes.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import msgspec
import orjson
from aiohttp import web

from ds2d.core.account import Account
from ds2d.core.caller import Caller
from ds2d.core.calls import Call
from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.request import ChatRequest
from ds2d.core.settings import AccountSpec, Timeouts
from ds2d.dialects import REGISTRY
from ds2d.net.client import Client
from ds2d.service import Ask, Service
from ds2d.state.accounts import AccountQueue
from ds2d.state.logins import Logins
from ds2d.state.reports import Instant, account_status, queue_status
from ds2d.upstreams.openai import prefixes
from ds2d.web.admin import account_edits, keys
from ds2d.web.admin.desk import Desk, conflict
from ds2d.web.admin.keys import bad
from ds2d.web.keys import REQUEST_ID
from ds2d.web.replies import SERVER

AT_ONCE = 5
DEFAULT_MODEL = "deepseek-chat"
TEST_TIMEOUTS = Timeouts(connect=5, headers=15, first_payload=15, payload_gap=15, answer=15, total=30)
SESSION_ONLY = "API test successful (session creation only)"

Body = dict[str, Any]


class Accounts:
    """Handlers. `new_id(prefix)` makes ids."""

    def __init__(
        self, desk: Desk, queue: AccountQueue, logins: Logins, client: Client, service: Service, new_id: Callable[[str], str]
    ) -> None:
        self._desk = desk
        self._queue = queue
        self._logins = logins
        self._client = client
        self._service = service
        self._new_id = new_id
        self._tested: dict[str, str] = {}

    async def page(self, request: web.Request) -> web.StreamResponse:
        """A page of accounts; `q` looks for a part of a name."""
        page, size = _number(request, "page", 1, 2**31), _number(request, "page_size", 10, 100)
        wanted = request.query.get("q", "").strip().lower()
        specs = [spec for spec in self._desk.config.accounts if any(wanted in name.lower() for name in spec.identifiers)]
        instant = Instant(self._queue)
        states = {slot.account.id: account_status(slot, instant) for slot in self._queue.slots}
        items = [self._item(spec, states) for spec in specs[(page - 1) * size : page * size]]
        pages = max(1, math.ceil(len(specs) / size))
        return self._desk.reply({"items": items, "total": len(specs), "page": page, "page_size": size, "total_pages": pages})

    async def add(self, request: web.Request) -> web.StreamResponse:
        """Add an account."""
        body = await self._desk.body(request)
        self._desk.write(request, "account added", lambda document: account_edits.add(document, self._desk.config, body))
        return self._written()

    async def edit(self, request: web.Request) -> web.StreamResponse:
        """Set fields of an account."""
        body, wanted = await self._desk.body(request), request.match_info["identifier"]

        def change(document: Body) -> None:
            account_edits.edit(*account_edits.find(document, self._desk.config, wanted), body)

        self._desk.write(request, "account edited", change)
        return self._written()

    async def delete(self, request: web.Request) -> web.StreamResponse:
        """Take an account out; its running turns end by themselves."""
        wanted = request.match_info["identifier"]

        def change(document: Body) -> None:
            entries, at = account_edits.find(document, self._desk.config, wanted)
            del entries[at]

        self._desk.write(request, "account deleted", change)
        return self._written()

    async def reset(self, request: web.Request) -> web.StreamResponse:
        """Close what put an account aside, and set its counters to zero."""
        spec = self._spec(request.match_info["identifier"])
        account = self._account(spec)
        if account is None:
            raise conflict(account_edits.why_unusable(spec, self._desk.config))
        self._queue.reset(account.id)
        self._desk.note(request, "account reset", account=spec.identifier)
        return self._desk.reply({"success": True, "identifier": spec.identifier})

    async def queue(self, request: web.Request) -> web.StreamResponse:
        """Who works and who waits; waiting requests by the name of their key."""
        status = queue_status(self._queue)
        names = {spec.digest: spec.name or keys.key_id(spec.digest or "") for spec in self._desk.config.keys}
        waiting = status.pop("waiting_by_caller")
        status["waiting_by_key"] = {names.get(caller, caller[:16]): count for caller, count in waiting.items()}
        return self._desk.reply(status)

    async def test(self, request: web.Request) -> web.StreamResponse:
        """Try one account."""
        body = await self._desk.body(request)
        identifier = body.get("identifier")
        if not isinstance(identifier, str) or not identifier:
            raise bad("identifier: must be a string that is not empty")
        spec = self._spec(identifier)
        return self._desk.reply(await self._try(spec, _model(body), _message(body), request[REQUEST_ID]))

    async def test_all(self, request: web.Request) -> web.StreamResponse:
        """Try every account; as a stream of results where that is asked for."""
        body = await self._desk.body(request)
        model, message = _model(body), _message(body)
        specs = self._desk.config.accounts
        results = self._results(specs, model, message, request[REQUEST_ID])
        if "text/event-stream" in request.headers.get("Accept", ""):
            return await self._streamed(request, results)
        found = [result async for result in results]
        order = {spec.identifier: place for place, spec in enumerate(specs)}
        return self._desk.reply(_summary(sorted(found, key=lambda result: order[result["account"]])))

    async def try_login(self, account: Account) -> str:
        """Log in and look at the model list; what went wrong, empty if nothing did."""
        try:
            await self._models(account)
        except GatewayError as error:
            return error.message
        return ""

    def _item(self, spec: AccountSpec, states: dict[str, Body]) -> Body:
        state = states.get(f"account:{spec.identifier}", {"state": spec.problem or "no_upstream", "inflight": 0})
        own = {name: state.get(name) for name in ("state", "inflight", "put_aside_until", "reason", "last_error", "models_aside")}
        return {**account_edits.describe(spec), **own, "test_status": self._tested.get(spec.identifier, "")}

    def _spec(self, identifier: str) -> AccountSpec:
        """The account of that name in the config, usable or not. Raises 404."""
        wanted = identifier.strip().lower()
        for spec in self._desk.config.accounts:
            if any(wanted == name.lower() for name in spec.identifiers):
                return spec
        raise GatewayError(ErrorKind.ROUTE_NOT_FOUND, "There is no such account.")

    def _account(self, spec: AccountSpec) -> Account | None:
        """The account in the queue; None for one that no upstream of the config takes."""
        wanted = f"account:{spec.identifier}"
        return next((slot.account for slot in self._queue.slots if slot.account.id == wanted), None)

    async def _results(self, specs: Sequence[AccountSpec], model: str, message: str, request_id: str) -> AsyncIterator[Body]:
        """Results in the order in which they come, a few tries at a time."""
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(spec: AccountSpec, number: int) -> Body:
            async with gate:
                return await self._try(spec, model, message, f"{request_id}-{number}")

        tasks = [asyncio.ensure_future(one(spec, number)) for number, spec in enumerate(specs)]
        try:
            for task in asyncio.as_completed(tasks):
                yield await task
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _streamed(self, request: web.Request, results: AsyncIterator[Body]) -> web.StreamResponse:
        response = web.StreamResponse(
            headers={
                "Server": SERVER,
                "Content-Type": "text/event-stream",
                "Cache-Control": "no-store",
                "X-Accel-Buffering": "no",
            }
        )
        response.headers["x-request-id"] = request[REQUEST_ID]
        await response.prepare(request)
        found: list[Body] = []
        async for result in results:
            found.append(result)
            await response.write(b"event: result\ndata: " + orjson.dumps(result) + b"\n\n")
        await response.write(b"event: done\ndata: " + orjson.dumps(_summary(found)) + b"\n\n")
        await response.write_eof()
        return response

    async def _try(self, spec: AccountSpec, model: str, message: str, request_id: str) -> Body:
        """Try one: the answer of POST /admin/accounts/test."""
        began = time.monotonic()
        models: list[str] = []
        try:
            account, why = self._account(spec), account_edits.why_unusable(spec, self._desk.config)
            if account is None or why:
                raise _out_of_use(why)
            if message:
                text = await self._asked(account, model, message, request_id)
            else:
                models = await self._models(account)
                text = SESSION_ONLY
            success = True
        except GatewayError as error:
            success, text = False, error.message
        name = spec.identifier
        self._tested[name] = "ok" if success else "failed"
        spent = round((time.monotonic() - began) * 1000)
        return {"account": name, "success": success, "response_time": spent, "message": text, "model": model, "models": models}

    async def _models(self, account: Account) -> list[str]:
        """The ids that the account's server lists for it. Raises GatewayError."""
        server = account.server
        if server.kind == "demo":
            return []
        if account.spec is not None and (why := account_edits.why_unusable(account.spec, self._desk.config)):
            raise _out_of_use(why)
        token = await self._logins.token(account)
        headers = {name: secret.reveal() or "" for name, secret in server.headers.items()}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        upstream = msgspec.structs.replace(server, timeouts=TEST_TIMEOUTS)
        status = 404
        for prefix in prefixes(server.base_url):
            reply = await self._client.fetch(Call("GET", f"{prefix}/models", headers, upstream=upstream))
            status = reply.status
            if status == 200:
                return _ids(reply.body)
            if status in (401, 403):
                self._logins.refused(account, token)
                break
        raise GatewayError(ErrorKind.UPSTREAM_AUTH, f"The upstream answered {status} to the model list.")

    async def _asked(self, account: Account, model: str, message: str, request_id: str) -> str:
        """What the account says to a message. Raises GatewayError."""
        question = ChatRequest(model=model, messages=[{"role": "user", "content": message}])
        ask = Ask(REGISTRY["openai_chat"], "openai_chat", question, Caller("admin", "admin"), request_id, account.identifiers[0])
        answer = orjson.loads(await self._service.answer(ask))
        return str(answer["choices"][0]["message"].get("content") or "")

    def _written(self) -> web.Response:
        total = len(self._desk.config.accounts)
        return self._desk.reply({"success": True, "total_accounts": total, **self._desk.saved()}, headers=self._desk.etag())


def _out_of_use(why: str) -> GatewayError:
    return GatewayError(ErrorKind.UPSTREAM_AUTH, why or "The account is out of use.")


def _summary(results: list[Body]) -> Body:
    good = sum(result["success"] for result in results)
    return {"total": len(results), "success": good, "failed": len(results) - good, "results": results}


def _ids(body: bytes) -> list[str]:
    try:
        data = orjson.loads(body)["data"]
        return [str(entry["id"]) for entry in data or []][:1000]
    except (ValueError, KeyError, TypeError):
        raise GatewayError(ErrorKind.UPSTREAM_GARBLED, "The upstream's model list cannot be read.") from None


def _model(body: Body) -> str:
    model = body.get("model") or DEFAULT_MODEL
    if not isinstance(model, str):
        raise bad("model: must be a string")
    return model


def _message(body: Body) -> str:
    message = body.get("message") or ""
    if not isinstance(message, str):
        raise bad("message: must be a string")
    return message


def _number(request: web.Request, name: str, default: int, most: int) -> int:
    text = request.query.get(name, str(default))
    if not text.isascii() or not text.isdigit() or not 1 <= len(text) <= 10 or not 1 <= int(text) <= most:
        raise bad(f"{name}: must be 1 to {most}" if most <= 100 else f"{name}: must be 1 or more")
    return int(text)
