"""Which models there are, what a name becomes, and how each upstream is.

Rule: answers come from what was seen last; nothing here waits for an upstream but `look` and `run`.
Surprise: a route is remembered per name until anything changes, so that resolving costs a look-up; only names that resolve are.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.logs import client_text
from ds2d.core.models import TABLES, ModelInfo, Names, Route, Seen, State, names_of, resolve
from ds2d.core.settings import ModelSpec, UpstreamSpec
from ds2d.core.sizes import Size, Sizes
from ds2d.state.evidence import Asked
from ds2d.state.health import Fetch, Gauged, Health, Ours, TokenFor, Watch, World
from ds2d.state.listing import MAX_MODELS
from ds2d.state.task_routes import task_route

logger = logging.getLogger("ds2d.catalog")

MAX_ROUTES = 4096
"""Names remembered at most: clients choose them."""

MAX_NAME = 256
"""Characters of a name that is remembered."""

Allowed = Callable[[str], bool]


class ClaudeNames(Protocol):
    """Config's `claude_mapping`."""

    @property
    def fast(self) -> str: ...
    @property
    def slow(self) -> str: ...


class Settings(Protocol):
    """The part of a config that is about models."""

    @property
    def upstreams(self) -> Sequence[UpstreamSpec]: ...
    @property
    def models(self) -> Mapping[str, ModelSpec]: ...
    @property
    def model_aliases(self) -> Mapping[str, str]: ...
    @property
    def claude_mapping(self) -> ClaudeNames: ...


async def _no_token(_upstream: UpstreamSpec) -> str | None:
    return None


class Catalog:
    """Owner of the watches. `fetch` makes a call; `token_for` gives the credential to look at an upstream with.

    `recovered` hears the name of an upstream that serves again after it did not, `lost` of one that went down. `gauged` hears
    what an upstream says of its load, and says whether the next look should be soon; `ours` counts our requests there.
    """

    def __init__(
        self,
        fetch: Fetch,
        *,
        token_for: TokenFor = _no_token,
        recovered: Callable[[str], None] = lambda _name: None,
        lost: Callable[[str], None] = lambda _name: None,
        gauged: Gauged = lambda _name, _load, _ours: False,
        ours: Ours = lambda _name: 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._world = World(fetch, token_for, gauged, ours, clock)
        self._recovered = recovered
        self._lost = lost
        self._watches: dict[str, Watch] = {}
        self._new: list[Watch] = []
        self._names = Names()
        self._routes: dict[tuple[str, bool], Route] = {}
        self._reconfigured = asyncio.Event()
        self.begins_inside: dict[tuple[str, str], bool] = {}
        """By upstream and model: whether a thinking answer begins inside its thinking, as answers have shown so far."""
        self._missing: set[tuple[str, str]] = set()  # upstream and model, of which the log has been told that it is not there

    def apply(self, config: Settings) -> None:
        """Take over a config. What was seen of an upstream stays known unless it may be another server now."""
        mapping = config.claude_mapping
        self._names = names_of(config.models, config.model_aliases, mapping.fast, mapping.slow)
        watches = {}
        for upstream in config.upstreams:
            watch = self._watches.get(upstream.name)
            if watch is None or not watch.takes(upstream):
                watch = Watch(upstream, self._world, self._listener(upstream.name))
            watches[upstream.name] = watch
        self._watches = watches
        self._new = list(watches.values())
        self._routes.clear()
        self.begins_inside.clear()
        self._missing.clear()
        self._reconfigured.set()

    def learn(self, place: tuple[str, str], *, begins_inside: bool) -> None:
        """An answer has shown how it began. One that speaks against what was known leaves nothing known: the next decides."""
        if self.begins_inside.get(place, begins_inside) != begins_inside:
            del self.begins_inside[place]
        elif place in self.begins_inside or len(self.begins_inside) < MAX_ROUTES:
            self.begins_inside[place] = begins_inside

    async def run(self) -> None:
        """Keep every upstream under watch until cancelled."""
        tasks: dict[Watch, asyncio.Task[None]] = {}
        try:
            while True:
                self._reconfigured.clear()
                watches = set(self._watches.values())
                for watch in tasks.keys() - watches:
                    tasks.pop(watch).cancel()
                for watch in watches - tasks.keys():
                    tasks[watch] = asyncio.get_running_loop().create_task(watch.run(), name=f"watch {watch.upstream.name}")
                await self._reconfigured.wait()
        finally:
            for task in tasks.values():
                task.cancel()
            await asyncio.gather(*tasks.values(), return_exceptions=True)

    def hurry(self, upstreams: Iterable[str]) -> None:
        """Have these upstreams looked at at once: what spoke against them may be mended."""
        for name in upstreams:
            if watch := self._watches.get(name):
                watch.hurry()

    async def look(self) -> None:
        """Look at every upstream once, now; returns when the slowest has answered or run out of time."""
        await asyncio.gather(*(watch.look() for watch in self._watches.values()))

    # What others ask

    @property
    def has_new(self) -> bool:
        """Whether there are upstreams that were never looked at: a moment after the start, and after a change of the config."""
        if self._new:
            self._new = [watch for watch in self._new if not watch.looked.is_set()]
        return bool(self._new)

    async def meet(self) -> None:
        """Return when one more of those that are new was looked at."""
        looks = [asyncio.ensure_future(watch.looked.wait()) for watch in self._new]
        try:
            await asyncio.wait(looks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for look in looks:
                look.cancel()

    def route(self, name: str, *, claude_route: bool = False) -> Route:
        """What a model name becomes (config.md 3). Raises GatewayError: MODEL_NOT_FOUND, MODEL_UNAVAILABLE."""
        key = (name, claude_route)
        route = self._routes.get(key)
        if route is None:
            route = resolve(name, self._names, self.seen(), claude_route=claude_route)
            if len(self._routes) >= MAX_ROUTES:
                self._routes.clear()
            if len(name) <= MAX_NAME:
                self._routes[key] = route
        return route

    def task_route(self, task: str, name: str) -> Route:
        """Who does a task under this model name. Raises MODEL_NOT_FOUND, MODEL_UNAVAILABLE, NOT_IMPLEMENTED, ROUTE_NOT_FOUND."""
        return task_route(task, name, self._names, self.seen())

    def models(self, allowed: Allowed | None = None, *, claude: bool = False) -> list[ModelInfo]:
        """One list: entries of `models`, native ids, each upstream's own ids. `allowed` narrows it to a key's models.

        `claude`: the list for Claude clients, with the Claude ids that are mapped in front (anthropic-messages.md 7).
        """
        infos: dict[str, ModelInfo] = {}
        if claude:
            for name in TABLES.claude:
                infos[name] = self._info(name, TABLES.claude_created, TABLES.claude_owner)
        for name in TABLES.native:
            infos[name] = self._info(name, TABLES.native_created, TABLES.native_owner)
        for key, (name, _) in self._names.entries.items():
            if key not in infos:
                infos[key] = self._info(name, TABLES.native_created, "ds2d")
        for upstream in self.seen():
            for model in upstream.models:
                if model.id.lower() not in infos:
                    created = model.created or TABLES.native_created
                    owner = model.owned_by or upstream.upstream.name
                    infos[model.id.lower()] = self._info(model.id, created, owner, model.extra)
        found: Iterable[ModelInfo] = infos.values()
        return [info for info in found if allowed is None or self._may(allowed, info.id)]

    def seen(self) -> list[Seen]:
        """Every upstream as it was seen last, in config order."""
        return [watch.seen for watch in self._watches.values()]

    def states(self) -> dict[str, State]:
        """How each upstream is, by name."""
        return {name: watch.seen.state for name, watch in self._watches.items()}

    def health(self) -> list[Health]:
        """How each upstream is, in config order, with the evidence: for readiness, console and metrics."""
        return [watch.health() for watch in self._watches.values()]

    def details(self) -> dict[str, Any]:
        """The same for people, by name."""
        return {health.seen.upstream.name: _shown(health) for health in self.health()}

    def sizes(self) -> Sizes:
        """Names that clients asked for, and what was learnt of upstreams and their models."""
        models = sum(len(watch.seen.models) for watch in self._watches.values())
        return {
            "routes": Size(len(self._routes), MAX_ROUTES),
            "models": Size(models, MAX_MODELS * len(self._watches)),
            "begins_inside": Size(len(self.begins_inside), MAX_ROUTES),
            "missing": Size(len(self._missing), MAX_ROUTES),
        }

    # What became of requests

    def sent(self, upstream: str, turn: Asked, choices: int, streamed: bool) -> None:
        """A turn's question goes to this upstream; `ended` tells when it is over there."""
        if watch := self._watches.get(upstream):
            watch.scales.sent(turn, choices, streamed, self._world.clock())

    def ended(self, upstream: str, turn: Asked) -> None:
        """See `sent`."""
        if watch := self._watches.get(upstream):
            watch.scales.ended(turn)

    def watches(self, server: UpstreamSpec) -> bool:
        """Whether what a turn met at this server says something about the one that has its name now."""
        watch = self._watches.get(server.name)
        return watch is not None and watch.means(server)

    def note_success(self, upstream: str, model: str = "") -> None:
        """A turn on this upstream was answered, by the model of this name there."""
        self._missing.discard((upstream, model))
        if watch := self._watches.get(upstream):
            watch.note_success()

    def note_failure(self, upstream: str, error: GatewayError, model: str = "") -> None:
        """A turn on this upstream failed; what the error tells of the server is remembered. `model` is its name there."""
        if error.kind is ErrorKind.UPSTREAM_NOT_FOUND and not error.details:
            self._tell_missing(upstream, model)
        if watch := self._watches.get(upstream):
            watch.learn(error.details)
            watch.note_failure(error)

    def _tell_missing(self, upstream: str, model: str) -> None:
        """A fault of the configuration, for who can mend it (errors.md 2): once until it answers or the config changes."""
        if (upstream, model) in self._missing or len(self._missing) >= MAX_ROUTES:
            return
        self._missing.add((upstream, model))
        logger.error(
            "upstream %s answers 404 for model %s: check its base_url and the model's name there", upstream, client_text(model)
        )

    def _listener(self, name: str) -> Callable[[State, State], None]:
        def changed(before: State, after: State) -> None:
            self._routes.clear()
            if after == "ready" and before != "ready":
                self._recovered(name)
            if after == "down" != before:
                self._lost(name)

        return changed

    def _may(self, allowed: Allowed, name: str) -> bool:
        """Whether a key that may use this name, or what it stands for, sees it."""
        if allowed(name):
            return True
        try:
            return allowed(self.route(name, claude_route=name in TABLES.claude).public)
        except GatewayError:
            return False

    def _info(self, name: str, created: int, owner: str, extra: dict[str, object] | None = None) -> ModelInfo:
        try:
            route = self.route(name)
        except GatewayError:
            return ModelInfo(name, created, owner, "down", extra=extra or {})
        first = route.targets[0]
        state = self._watches[first.upstream.name].seen.state
        return ModelInfo(
            name,
            created,
            owner,
            state,
            first.context,
            first.max_output,
            thinking=route.thinking != "off",
            images=first.spec.images,
            extra=extra or {},
        )


def _shown(health: Health) -> dict[str, Any]:
    upstream, evidence = health.seen, health.evidence
    shown: dict[str, Any] = {
        "state": upstream.state,
        "why": health.why,
        "kind": upstream.upstream.kind,
        "flavour": upstream.facts.flavour,
        "models": [model.id for model in upstream.models],
        "inflight": health.inflight,
        "orphans": evidence.orphans,
    }
    if evidence.oldest is not None:
        shown["oldest_first_token_seconds"] = round(evidence.oldest, 1)
    if evidence.load is not None:
        shown["load"] = msgspec.to_builtins(evidence.load)
        shown["tokens_per_second"] = evidence.tokens_per_second and round(evidence.tokens_per_second, 1)
    return shown
