"""What an upstream is and whether it serves, from evidence: its own model list, and what became of requests.

Rule: looking happens in the background, never on the request path, and one server's silence delays nobody else's look.
Surprise: a look that times out is no proof of death, a busy server answers late; a refused connection is. And "kill it, start
it again" must show within seconds, so the back-off is short.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
import orjson

from ds2d.core.calls import Call, Reply
from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.models import TABLES, Facts, Listed, Seen, State, seen
from ds2d.core.settings import Timeouts, UpstreamSpec
from ds2d.upstreams.openai import detect_flavour, prefixes, server_root

logger = logging.getLogger("ds2d.health")

LOOK_TIMEOUTS = Timeouts(connect=2, headers=5, first_payload=5, payload_gap=5, answer=5, total=5)
"""Seconds; a look that takes longer tells nothing about the models."""

BACK_OFF = 2.0
"""How much longer than `poll_seconds` the next look at a server without an answer may wait: back within 5 s by default."""

REFUSED_SECONDS = 60.0
"""Between two looks that a server refuses for their credential: trying a bad one often gets accounts locked."""

DEEPSEEK_SECONDS = 30.0
"""`poll_seconds` of the DeepSeek API, where config leaves the default (config.md 2)."""

PATIENCE = 3
"""Looks without an answer in time, or turns that failed, in a row, until the server counts as down or degraded."""

MAX_MODELS = 10_000
"""Of one upstream's list."""

_SAME_SERVER = ("kind", "base_url", "flavour", "headers", "ca_file", "proxy", "login", "problem")
"""Fields of an upstream's entry that decide what a look sees."""

Fetch = Callable[[Call], Awaitable[Reply]]
TokenFor = Callable[[UpstreamSpec], Awaitable[str | None]]
Changed = Callable[[State, State], None]

_COUNTS = frozenset(
    {
        ErrorKind.UPSTREAM_UNREACHABLE,
        ErrorKind.UPSTREAM_DISCONNECTED,
        ErrorKind.UPSTREAM_TIMEOUT,
        ErrorKind.UPSTREAM_ERROR,
        ErrorKind.UPSTREAM_OVERLOADED,
        ErrorKind.UPSTREAM_GARBLED,
    }
)
"""Faults of turns that speak against the server rather than against an account or a question."""


class Watch:
    """One upstream under watch: what was seen of it, and when to look next. `changed` is called when what was seen differs."""

    def __init__(self, upstream: UpstreamSpec, fetch: Fetch, token_for: TokenFor, changed: Changed) -> None:
        self.upstream = upstream
        self.seen = seen(upstream, "loading", Facts(flavour=_configured(upstream)), ())
        self._fetch = fetch
        self._token_for = token_for
        self._changed = changed
        self._unanswered = 0
        self._failed = 0
        self._refused = False
        self._known = False  # flavour and prefix were found out, and the server has not been away since
        self._hurry = asyncio.Event()
        if upstream.kind == "demo":
            self._set("ready", models=_demo_models())

    def takes(self, upstream: UpstreamSpec) -> bool:
        """Go on with this entry in place of the old one, if it means the same server asked in the same way."""
        if any(getattr(upstream, name) != getattr(self.upstream, name) for name in _SAME_SERVER):
            return False
        self.upstream = upstream
        self._set(self.seen.state)
        return True

    async def run(self) -> None:
        """Look again and again, until cancelled. A look of its own bug's making must not end the looking."""
        while True:
            try:
                await self.look()
            except Exception:
                logger.exception("looking at upstream %s failed", self.upstream.name)
            self._hurry.clear()
            try:
                async with asyncio.timeout(self.pause()):
                    await self._hurry.wait()
            except TimeoutError:
                continue

    async def look(self) -> None:
        """One look at the server."""
        if self.upstream.kind == "demo":
            return
        if not self.upstream.usable:
            self._set("down")
            return
        try:
            prefix, reply = await self._model_list()
            await self._take(prefix, reply)
        except GatewayError as error:
            self._no_answer(error)

    def pause(self) -> float | None:
        """Seconds until the next look; None where there is nothing to look at."""
        if self.upstream.kind == "demo":
            return None
        pause = self.upstream.poll_seconds
        if self.seen.facts.flavour == "deepseek" and pause == UpstreamSpec(name="any").poll_seconds:
            pause = DEEPSEEK_SECONDS
        if self._refused:
            return max(pause, REFUSED_SECONDS)
        return pause * (BACK_OFF if self._unanswered > 1 else 1.0)

    def note_success(self) -> None:
        """A turn was answered."""
        self._failed = self._unanswered = 0
        if self.seen.state in ("loading", "degraded", "down"):
            self._set("ready")

    def note_failure(self, error: GatewayError) -> None:
        """A turn failed. What the caller or the model did wrong says nothing about the server."""
        if error.kind not in _COUNTS or self.upstream.kind == "demo":
            return
        self._failed = min(self._failed + 1, PATIENCE)
        if error.kind is ErrorKind.UPSTREAM_UNREACHABLE:
            self._away()
        elif self._failed == PATIENCE and self.seen.state == "ready":
            self._set("degraded")
        if self._failed == 1:  # the first in a row asks for a look at once, not each of a storm
            self._hurry.set()

    def learn(self, details: Mapping[str, object] | None) -> None:
        """Take over what a refusal told of the server: `native_tools`, `completions` (GatewayError.details)."""
        told = {name: value for name, value in (details or {}).items() if name in ("native_tools", "completions")}
        if told:
            self._set(self.seen.state, facts=msgspec.structs.replace(self.seen.facts, **told))

    # What a look says

    async def _model_list(self) -> tuple[str, Reply]:
        """The answer of the model list's route, and the prefix it stood under."""
        candidates = (self.seen.facts.prefix,) if self._known else prefixes(self.upstream.base_url)
        token = await self._token_for(self.upstream)
        replies = []
        for prefix in candidates:
            reply = await self._get(f"{prefix}/models", token)
            if reply.status not in (404, 405):
                return prefix, reply
            replies.append(reply)
        return candidates[0], replies[0]

    async def _take(self, prefix: str, reply: Reply) -> None:
        """Understand what the server answered."""
        self._unanswered = 0
        self._refused = reply.status in (401, 403)
        status = reply.status
        entries = _entries(reply) if status == 200 else None
        if entries is not None:
            await self._take_list(prefix, reply, entries)
        elif status == 503:
            self._set("loading" if not self.seen.models or self.seen.state in ("loading", "down") else "degraded")
        elif status in (502, 504):
            self._away()
        elif status != 429 and (status == 200 or status >= 500 or self.seen.state != "ready"):
            # it answers, but shows no list: only a turn can prove that it serves
            self._set("degraded", facts=await self._find_out(prefix, None, reply))

    async def _take_list(self, prefix: str, reply: Reply, entries: list[Any]) -> None:
        models = _read_list(entries, self.seen)
        facts = await self._find_out(prefix, entries, reply)
        doubtful = self.seen.state == "degraded" and self._failed > 0
        if doubtful:  # turns failed there: good looks win back trust one by one, since nobody may be sent there meanwhile
            self._failed -= 1
        self._set("degraded" if doubtful else "ready", facts=facts, models=models)

    async def _find_out(self, prefix: str, entries: list[Any] | None, reply: Reply) -> Facts:
        """Flavour and prefix, found out once while the server stays."""
        if self._known:
            return self.seen.facts
        flavour = _configured(self.upstream)
        if self.upstream.flavour == "auto":
            models = {"data": entries or []}
            flavour = detect_flavour(self.upstream.base_url, models, reply.headers)
            if flavour == "generic":
                flavour = detect_flavour(self.upstream.base_url, models, reply.headers, await self._version())
        self._known = entries is not None
        return Facts(flavour=flavour, prefix=prefix)

    async def _version(self) -> Any:
        try:
            reply = await self._get(server_root(self.upstream.base_url) + "/version", None)
        except GatewayError:
            return None
        return _parsed(reply.body) if reply.status == 200 else None

    async def _get(self, path: str, token: str | None) -> Reply:
        headers = {name.lower(): value for name, secret in self.upstream.headers.items() if (value := secret.reveal())}
        headers["accept"] = "application/json"
        if token:
            headers["authorization"] = f"Bearer {token}"
        quick = msgspec.structs.replace(self.upstream, timeouts=LOOK_TIMEOUTS)
        return await self._fetch(Call("GET", path, headers, upstream=quick))

    def _no_answer(self, error: GatewayError) -> None:
        self._unanswered += 1
        self._refused = error.kind is ErrorKind.UPSTREAM_AUTH  # the login for the look's token
        if error.kind is ErrorKind.UPSTREAM_UNREACHABLE or self._unanswered >= PATIENCE:
            self._away()
        elif self.seen.state == "ready":
            self._set("degraded")

    def _away(self) -> None:
        """It is not there; what comes back may be another server."""
        self._known = False
        self._set("down")

    def _set(self, state: State, facts: Facts | None = None, models: tuple[Listed, ...] | None = None) -> None:
        before = self.seen
        after = seen(self.upstream, state, facts or before.facts, before.models if models is None else models)
        if after == before:
            return
        self.seen = after
        if before.state != state:
            logger.info("upstream %s is %s (was %s)", self.upstream.name, state, before.state)
        self._changed(before.state, state)


def _configured(upstream: UpstreamSpec) -> str:
    return "generic" if upstream.flavour == "auto" else upstream.flavour


def _demo_models() -> tuple[Listed, ...]:
    return tuple(Listed(name, TABLES.native_created, TABLES.native_owner) for name in TABLES.native)


def _parsed(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None


_OWN = frozenset(("id", "object", "created", "owned_by", "max_model_len"))


def _entries(reply: Reply) -> list[Any] | None:
    """What a model list holds; None if the answer is none."""
    parsed = _parsed(reply.body)
    entries = parsed.get("data") if isinstance(parsed, dict) else parsed
    return entries[:MAX_MODELS] if isinstance(entries, list) else None


def _read_list(entries: list[Any], before: Seen) -> tuple[Listed, ...]:
    """The models of a list; what cannot be read as one is left out. `created` stays as first seen: vLLM renews it each time."""
    found: dict[str, Listed] = {}
    for entry in entries:
        name = entry.get("id") if isinstance(entry, dict) else None
        if not isinstance(name, str) or not name or name in found:
            continue
        known = before.find(name)
        created = known.created if known is not None and known.id == name else _whole(entry.get("created"))
        owner, window = entry.get("owned_by"), _window(entry)
        extra = {key: value for key, value in entry.items() if key not in _OWN}
        found[name] = Listed(name, created or 0, owner if isinstance(owner, str) else "", window, extra)
    return tuple(found.values())


def _window(entry: dict[str, Any]) -> int | None:
    """Tokens of the context: vLLM's and SGLang's name, llama-server's, and one that proxies use."""
    meta = entry.get("meta")
    served = meta.get("n_ctx") if isinstance(meta, dict) else None
    candidates = (entry.get("max_model_len"), entry.get("context_length"), served)
    return next((value for value in map(_whole, candidates) if value), None)


def _whole(value: Any) -> int | None:
    return value if type(value) is int and 0 < value < 2**53 else None
