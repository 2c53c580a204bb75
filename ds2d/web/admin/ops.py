"""Looking at the daemon at work, and asking it something as a client would.

Rule: a test goes through the listener, so it proves what a client would see; where only the hash of a key is known, a
credential that is good for one request has its rights.
Surprise: a client may choose the id of its request, so two turns can have the same; the one that began last is meant.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import orjson
from aiohttp import web

from ds2d.core.calls import Call
from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.settings import KeySpec, UpstreamSpec
from ds2d.net.client import Client
from ds2d.service import Turn
from ds2d.state.callers import Callers
from ds2d.state.captures import Captures
from ds2d.web.admin import keys
from ds2d.web.admin.desk import Desk
from ds2d.web.admin.keys import bad
from ds2d.web.keys import REQUEST_ID

HELLO = "你好"

Body = dict[str, Any]


class History(Protocol):
    """Turns that ended lately, newest first."""

    @property
    def recent(self) -> list[dict[str, Any]]: ...


class Ops:
    """Handlers. `itself` is this daemon as an upstream; `turns` are those that run, by request id."""

    def __init__(
        self,
        desk: Desk,
        *,
        callers: Callers,
        client: Client,
        captures: Captures,
        turns: Mapping[str, Turn],
        history: History,
        monotonic: Callable[[], float],
        itself: Callable[[], UpstreamSpec],
    ) -> None:
        self._desk = desk
        self._callers = callers
        self._client = client
        self._captures = captures
        self._turns = turns
        self._history = history
        self._monotonic = monotonic
        self._itself = itself

    async def test(self, request: web.Request) -> web.StreamResponse:
        """Ask a question through the listener."""
        body = await self._desk.body(request)
        model, message = body.get("model") or "deepseek-chat", body.get("message") or HELLO
        given = body.get("api_key") or None
        if not all(isinstance(text, str) for text in (model, message, given or "")):
            raise bad("model, message, api_key: must be strings")
        question = {"model": model, "messages": [{"role": "user", "content": message}], "stream": False}
        headers = {
            "Authorization": f"Bearer {given or self._credential()}",
            "Content-Type": "application/json",
            "x-request-id": f"{request[REQUEST_ID]}-test"[:128],
        }
        call = Call("POST", "/v1/chat/completions", headers, orjson.dumps(question), upstream=self._itself())
        reply = await self._client.fetch(call)
        try:
            answer: Any = orjson.loads(reply.body)
        except ValueError:
            answer = {"text": reply.body[:4096].decode("utf-8", "replace")}
        return self._desk.reply({"success": reply.status == 200, "status_code": reply.status, "response": answer})

    async def requests(self, request: web.Request) -> web.StreamResponse:
        """Turns that run or wait now, and those that ended lately."""
        return self._desk.reply({"running": self._running(), "ended": self._history.recent[:100]})

    async def request(self, request: web.Request) -> web.StreamResponse:
        """One turn."""
        wanted = request.match_info["id"]
        if turn := self._turns.get(wanted):
            return self._desk.reply({"id": wanted, "state": "running", **described(wanted, turn, self._monotonic())})
        for ended in self._history.recent:
            if ended.get("request_id") == wanted:
                return self._desk.reply({"id": wanted, "state": "ended", **ended})
        raise _unknown_request()

    async def cancel(self, request: web.Request) -> web.StreamResponse:
        """End a running turn; its client gets an error in its own dialect."""
        turn = self._turns.get(request.match_info["id"])
        if turn is None:
            raise _unknown_request()
        turn.stop(GatewayError(ErrorKind.CANCELLED, "The request was cancelled by the administrator."))
        self._desk.note(request, "request cancelled", id=request.match_info["id"])
        return self._desk.reply({"success": True, "id": request.match_info["id"]})

    async def captures(self, request: web.Request) -> web.StreamResponse:
        """Captured exchanges, newest first."""
        settings = self._desk.config.capture
        head = {"enabled": settings.enabled, "limit": settings.limit, "max_body_bytes": settings.max_body_bytes}
        return self._desk.reply({**head, "items": [capture.shown() for capture in self._captures.newest()]})

    async def clear_captures(self, request: web.Request) -> web.StreamResponse:
        """Forget all captured exchanges."""
        self._captures.clear()
        self._desk.note(request, "captures cleared")
        return self._desk.reply({"success": True, "detail": "capture logs cleared"})

    def _credential(self) -> str:
        """What has the rights of the first key. Raises 400 where there is none."""
        first: KeySpec | None = next((spec for _, spec in keys.listed(self._desk.config) if spec.usable and spec.digest), None)
        if first is None:
            raise bad("api_key: is needed, for the config has no key")
        return self._callers.lend(first.digest or "")

    def _running(self) -> list[Body]:
        return [described(name, turn, self._monotonic()) for name, turn in self._turns.items()]


def described(name: str, turn: Turn, now: float) -> Body:
    """A running turn, as listings have it; `now` is of its own clock."""
    return {
        "request_id": name,
        "key": turn.ask.caller.name,
        "dialect": turn.ask.dialect_name,
        "model": turn.ask.request.model[:256],
        "used": turn.route.public,
        "stream": turn.ask.request.stream,
        "account": turn.account or None,
        "upstream": turn.upstream or None,
        "attempts": turn.attempts,
        "created": turn.created,
        "waited_ms": round(turn.waited * 1000),
        "age_ms": round((now - turn.began) * 1000),
        "answering": turn.first is not None,
    }


def _unknown_request() -> GatewayError:
    return GatewayError(ErrorKind.ROUTE_NOT_FOUND, "There is no such request.")
