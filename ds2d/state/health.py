"""What an upstream is and whether it serves, from evidence: its model list, its own gauges, and what became of requests.

Rule: looking happens in the background, never on the request path, and one server's silence delays nobody else's look.
Surprise: a look that times out is no proof of death, a busy server answers late; a refused connection is. And "kill it, start
it again" must show within seconds, so the back-off is short.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from ds2d.core.calls import Call, Reply
from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.load import Load
from ds2d.core.models import TABLES, Facts, Listed, Seen, State, seen
from ds2d.core.settings import Timeouts, UpstreamSpec
from ds2d.state.evidence import Evidence, Scales
from ds2d.state.listing import entries_of, parsed, read_list
from ds2d.upstreams.openai import SOURCES, detect_flavour, prefixes, routes_in, server_root

logger = logging.getLogger("ds2d.health")

LOOK_TIMEOUTS = Timeouts(connect=2, headers=5, first_payload=5, payload_gap=5, answer=5, total=5)
"""Seconds; a look that takes longer tells nothing about the models."""

RETURN_SECONDS = 900.0
"""How long a server that takes no connection is looked for twice as often as one that serves: it is being started again, and
to be refused costs nothing. After that it is backed off from."""

BACK_OFF = 1.5
"""How much longer than `poll_seconds` the next look at a server without an answer may wait: back within 5 s by default."""

REFUSED_SECONDS = 60.0
"""Between two looks that a server refuses for their credential: trying a bad one often gets accounts locked."""

DEEPSEEK_SECONDS = 30.0
"""`poll_seconds` of the DeepSeek API, where config leaves the default (config.md 2)."""

PATIENCE = 3
"""Looks without an answer in time, or turns that failed, in a row, until the server counts as down or degraded."""

GAUGE_SECONDS = 60.0
"""Until a server that showed no gauges is asked for them again."""

PRESSED_SECONDS = 0.5
"""Between two looks at the gauges of a server for which requests are held back."""

INTERRUPTED = frozenset(("llamacpp_python",))
"""Flavours that break off the running answer when another request comes, be it a look (upstreams.md 6)."""

TELL_ROUTES = frozenset(("vllm",))
"""Flavours whose document of routes says what their model is for. SGLang leaves some out, llama.cpp has all of them always."""

_SAME_SERVER = ("kind", "base_url", "flavour", "headers", "ca_file", "proxy", "login", "problem")
"""Fields of an upstream's entry that decide what a look sees."""

Fetch = Callable[[Call], Awaitable[Reply]]
TokenFor = Callable[[UpstreamSpec], Awaitable[str | None]]
Changed = Callable[[State, State], None]
Gauged = Callable[[str, Load | None, int], bool]
"""Hears what an upstream says of its load, and how many requests were ours meanwhile; True: look again soon."""
Ours = Callable[[str], int]
"""How many requests we have on an upstream."""


class Health(msgspec.Struct, frozen=True):
    """How an upstream is, and why: what console, metrics and readiness show."""

    seen: Seen
    why: str
    evidence: Evidence
    inflight: int


class World(msgspec.Struct, frozen=True):
    """What watches share of the world around them."""

    fetch: Fetch
    token_for: TokenFor
    gauged: Gauged = lambda _name, _load, _ours: False
    ours: Ours = lambda _name: 0
    clock: Callable[[], float] = time.monotonic


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

    def __init__(self, upstream: UpstreamSpec, world: World, changed: Changed) -> None:
        self.upstream = upstream
        self.seen = seen(upstream, "loading", Facts(flavour=_configured(upstream)), ())
        self.why = "not looked at yet"
        self.scales = Scales()
        self._state: State = "loading"  # without what the scales say
        self._world = world
        self._changed = changed
        self._pressed = False
        self._listed_at = -GAUGE_SECONDS
        self._no_gauges_until = 0.0
        self._unanswered = 0
        self._failed = 0
        self._refused = False
        self._gone_at: float | None = None  # when it was seen to take no connection
        self._known = False  # flavour and prefix were found out, and the server has not been away since
        self._routes_told = False  # the same of its routes
        self._routes: frozenset[str] | None = None
        self._hurry = asyncio.Event()
        self.looked = asyncio.Event()
        """Whether it has been looked at."""
        if upstream.kind == "demo":
            self._set("ready", "embedded", models=_demo_models())
            self.looked.set()

    def means(self, upstream: UpstreamSpec) -> bool:
        """Whether this entry is of the server that is watched here."""
        mine = self.upstream
        return upstream is mine or all(getattr(upstream, name) == getattr(mine, name) for name in _SAME_SERVER)

    def takes(self, upstream: UpstreamSpec) -> bool:
        """Go on with this entry in place of the old one, if it means the same server asked in the same way."""
        if not self.means(upstream):
            return False
        self.upstream = upstream
        self._set(self._state, self.why)
        return True

    async def run(self) -> None:
        """Look again and again, until cancelled. A look of its own bug's making must not end the looking."""
        while True:
            self._hurry.clear()
            try:
                await self.look()
            except Exception:
                logger.exception("looking at upstream %s failed", self.upstream.name)
            try:
                async with asyncio.timeout(self.pause()):
                    await self._hurry.wait()
            except TimeoutError:
                continue

    def hurry(self) -> None:
        """Look again at once, and once more after a look that is under way: it may have been with another credential."""
        self._refused = False
        self._hurry.set()

    async def look(self) -> None:
        """One look at the server."""
        try:
            await self._look()
        finally:
            self.looked.set()

    async def _look(self) -> None:
        if self.upstream.kind == "demo":
            return
        if not self.upstream.usable:
            self._set("down", f"out of use: {self.upstream.problem}")
            return
        if self.seen.facts.flavour in INTERRUPTED and self._world.ours(self.upstream.name) and self._state == "ready":
            return
        try:
            if self._pressed and self._world.clock() - self._listed_at < self.upstream.poll_seconds:
                if await self._weigh(self.seen.facts):
                    self._set(self._state, self.why)
            else:
                prefix, reply = await self._model_list()
                await self._take(prefix, reply)
        except GatewayError as error:
            self._no_answer(error)

    def health(self) -> Health:
        """How it is now, with the evidence."""
        return Health(self.seen, self.why, self.scales.summary(self._world.clock()), self._world.ours(self.upstream.name))

    def pause(self) -> float | None:
        """Seconds until the next look; None where there is nothing to look at."""
        if self.upstream.kind == "demo":
            return None
        pause = self.upstream.poll_seconds
        if self.seen.facts.flavour == "deepseek" and pause == UpstreamSpec(name="any").poll_seconds:
            pause = DEEPSEEK_SECONDS
        if self._refused:
            return max(pause, REFUSED_SECONDS)
        if self._pressed:
            return min(pause, PRESSED_SECONDS)
        if self._gone_at is not None and self._world.clock() - self._gone_at < RETURN_SECONDS and self.upstream.login is None:
            return max(min(pause, 1.0), pause / 2)
        return pause * (BACK_OFF if self._unanswered > 1 else 1.0)

    def note_success(self) -> None:
        """A turn was answered."""
        self._failed = self._unanswered = 0
        self.scales.proved(self._world.clock())
        if self.seen.state in ("loading", "degraded", "stuck", "down"):
            self._set("ready", "a turn was answered")

    def note_failure(self, error: GatewayError) -> None:
        """A turn failed. What the caller or the model did wrong says nothing about the server."""
        if error.kind not in _COUNTS or self.upstream.kind == "demo":
            return
        self._failed = min(self._failed + 1, PATIENCE)
        if error.kind is ErrorKind.UPSTREAM_UNREACHABLE:
            self._away("a turn could not reach it")
        elif self._failed == PATIENCE and self.seen.state == "ready":
            self._set("degraded", f"{PATIENCE} turns in a row failed")
        if self._failed == 1:  # the first in a row asks for a look at once, not each of a storm
            self._hurry.set()

    def learn(self, details: Mapping[str, object] | None) -> None:
        """Take over what a refusal told of the server: `native_tools`, `completions` (GatewayError.details)."""
        told = {name: value for name, value in (details or {}).items() if name in ("native_tools", "completions")}
        if told:
            self._set(self._state, self.why, facts=msgspec.structs.replace(self.seen.facts, **told))

    # What a look says

    async def _model_list(self) -> tuple[str, Reply]:
        """The answer of the model list's route, and the prefix it stood under."""
        candidates = (self.seen.facts.prefix,) if self._known else prefixes(self.upstream.base_url)
        token = await self._world.token_for(self.upstream)
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
        entries = entries_of(reply) if status == 200 else None
        if entries is not None:
            await self._take_list(prefix, reply, entries)
        elif status == 503:
            loads = not self.seen.models or self.seen.state in ("loading", "down")
            self._set("loading" if loads else "degraded", "its model list answers 503")
        elif status in (502, 504):
            self._away(f"what stands before it answers {status}")
        elif status != 429 and (status == 200 or status >= 500 or self.seen.state != "ready"):
            # it answers, but shows no list: only a turn can prove that it serves
            facts = await self._with_routes(await self._find_out(prefix, None, reply))
            if not await self._weigh(facts):
                return
            self._set("degraded", f"it shows no model list ({status})", facts=facts)

    async def _take_list(self, prefix: str, reply: Reply, entries: list[Any]) -> None:
        models = read_list(entries, self.seen)
        facts = await self._find_out(prefix, entries, reply)
        self._listed_at, self._gone_at = self._world.clock(), None
        if self._state == "down":  # back, whoever it is now: its routes and gauges may take their time
            self._failed = 0
            self._set("ready", "it lists its models", facts=facts, models=models)
        facts = await self._with_routes(facts)
        if not await self._weigh(facts):
            return
        doubtful = self._state == "degraded" and self._failed > 0
        if doubtful:  # turns failed there: good looks win back trust one by one, since nobody may be sent there meanwhile
            self._failed -= 1
        why = "turns failed there" if doubtful else "it lists its models"
        self._set("degraded" if doubtful else "ready", why, facts=facts, models=models)
        self._known = True  # not before: two looks may be under way at once

    async def _weigh(self, facts: Facts) -> bool:
        """Read its gauges, where it has any. False: behind the port nothing works any more, and it counts as down."""
        if self._failed and facts.flavour == "vllm" and await self._is_dead():
            self._away("its engine is dead")
            return False
        name, before = self.upstream.name, self._world.ours(self.upstream.name)
        orphans = self.scales.orphans
        try:
            load = await self._load(facts.flavour)
        except GatewayError as error:
            if error.kind is ErrorKind.UPSTREAM_UNREACHABLE:
                raise
            load = None
            self.scales.late(self._world.clock())
        else:
            self.scales.take(load, max(before, self._world.ours(name)), self._world.clock())
        self._pressed = self._world.gauged(name, load, max(before, self._world.ours(name)))
        if self.scales.orphans and not orphans:
            logger.warning(
                "upstream %s runs %d requests that are not ours: someone bypasses the gateway, or an abort was lost",
                name,
                self.scales.orphans,
            )
        return True

    async def _is_dead(self) -> bool:
        """vLLM answers its health route with 503 when the engine process has ended, and only then (upstreams.md 3)."""
        return (await self._get(server_root(self.upstream.base_url) + "/health", None)).status == 503

    async def _load(self, flavour: str) -> Load | None:
        now = self._world.clock()
        if now < self._no_gauges_until:
            return None
        for path, read in SOURCES.get(flavour, ()):
            reply = await self._get(server_root(self.upstream.base_url) + path, await self._world.token_for(self.upstream))
            load = read(reply.body) if reply.status == 200 else None
            if load is not None:
                return load
        self._no_gauges_until = now + GAUGE_SECONDS
        return None

    async def _find_out(self, prefix: str, entries: list[Any] | None, reply: Reply) -> Facts:
        """Flavour and prefix; once there was a list they are known as long as the server stays. Its routes are from before."""
        if self._known:
            return self.seen.facts
        flavour = _configured(self.upstream)
        if self.upstream.flavour == "auto":
            models = {"data": entries or []}
            flavour = detect_flavour(self.upstream.base_url, models, reply.headers)
            if flavour == "generic":
                flavour = detect_flavour(self.upstream.base_url, models, reply.headers, await self._version())
        before = self.seen.facts
        return Facts(flavour=flavour, prefix=prefix, routes=before.routes if flavour == before.flavour else None)

    async def _with_routes(self, facts: Facts) -> Facts:
        """With the routes that the server says it has: a vLLM has those that its model can serve, so they tell what it is for.

        It writes that document when it is first asked, which takes seconds on a busy machine: if it was late it is asked again.
        Of two looks that are under way at once, the second must not bring back the routes from before the first.
        """
        if facts.flavour not in TELL_ROUTES:
            return facts
        if self._routes_told:
            return msgspec.structs.replace(facts, routes=self._routes)
        try:
            reply = await self._get(server_root(self.upstream.base_url) + "/openapi.json", None)
        except GatewayError:
            return facts
        self._routes_told = True
        self._routes = routes_in(parsed(reply.body)) if reply.status == 200 else None
        return msgspec.structs.replace(facts, routes=self._routes)

    async def _version(self) -> Any:
        try:
            reply = await self._get(server_root(self.upstream.base_url) + "/version", None)
        except GatewayError:
            return None
        return parsed(reply.body) if reply.status == 200 else None

    async def _get(self, path: str, token: str | None) -> Reply:
        headers = {name.lower(): value for name, secret in self.upstream.headers.items() if (value := secret.reveal())}
        headers["accept"] = "application/json"
        if token:
            headers["authorization"] = f"Bearer {token}"
        quick = msgspec.structs.replace(self.upstream, timeouts=LOOK_TIMEOUTS)
        return await self._world.fetch(Call("GET", path, headers, upstream=quick))

    def _no_answer(self, error: GatewayError) -> None:
        self._unanswered += 1
        self._refused = error.kind is ErrorKind.UPSTREAM_AUTH  # the login for the look's token
        if error.kind is ErrorKind.UPSTREAM_UNREACHABLE:
            self._gone_at = self._world.clock() if self._gone_at is None else self._gone_at
            self._away("it takes no connection")
        elif self._unanswered >= PATIENCE:
            self._away(f"{self._unanswered} looks in a row got no answer")
        else:
            self._set("degraded" if self._state == "ready" else self._state, "it was late to answer a look")

    def _away(self, why: str) -> None:
        """It is not there; what comes back may be another server."""
        self._known = self._routes_told = False
        self._pressed = False
        self._no_gauges_until = 0.0
        self.scales.take(None, 0, self._world.clock())
        self._world.gauged(self.upstream.name, None, 0)
        self._set("down", why)

    def _set(self, state: State, why: str, facts: Facts | None = None, models: tuple[Listed, ...] | None = None) -> None:
        """Take over a state, or what the scales say where they know worse."""
        self._state = state
        state, self.why = self._weighed(state, why)
        before = self.seen
        after = seen(self.upstream, state, facts or before.facts, before.models if models is None else models)
        if after == before:
            return
        self.seen = after
        if before.state != state:
            logger.info("upstream %s is %s (was %s): %s", self.upstream.name, state, before.state, self.why)
        self._changed(before.state, state)

    def _weighed(self, state: State, why: str) -> tuple[State, str]:
        if state not in ("ready", "degraded"):
            return state, why
        if self.scales.load is not None and self.scales.load.asleep:
            return "asleep", "its engine was put to sleep"
        if self.upstream.kind != "demo" and self.seen.facts.flavour != "deepseek":  # that one queues for minutes, and says so
            stuck = self.scales.stuck(self._world.clock())
            return ("stuck", stuck) if stuck else (state, why)
        return state, why


def _configured(upstream: UpstreamSpec) -> str:
    return "generic" if upstream.flavour == "auto" else upstream.flavour


def _demo_models() -> tuple[Listed, ...]:
    return tuple(Listed(name, TABLES.native_created, TABLES.native_owner) for name in TABLES.native)
