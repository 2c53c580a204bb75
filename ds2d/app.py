"""The daemon put together: owners built, routes wired, started and stopped in one place.

Rule: this module and the command line are the only ones that know everything; every background task is started here and
awaited here. Clock, ids and randomness are handed down as functions.
Surprise: the config's subscribers run in the order in which they are listed here, and all of them before the next request.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import socket
import sqlite3
import time
from collections.abc import Coroutine, Sequence
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from aiohttp import web

from ds2d.config.schema import Config
from ds2d.config.show import secrets_of
from ds2d.config.store import ConfigStore
from ds2d.core.caller import Caller
from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.load import Load
from ds2d.core.metrics import Family, render
from ds2d.core.request import ChatRequest
from ds2d.core.seal import Sealer
from ds2d.core.settings import Timeouts, UpstreamSpec
from ds2d.core.sizes import Size, Sizes
from ds2d.core.tokens import Tokenizer
from ds2d.generations import Generations, Predecessor, Shared, UpgradeError
from ds2d.net.client import Client
from ds2d.net.descriptors import connections_at_most
from ds2d.net.listening import Certificate, Place, unix_listener
from ds2d.service import Service
from ds2d.service.gauges import LoopLag, Owner, gather
from ds2d.service.metrics import Metrics
from ds2d.service.readings import Owners, readings
from ds2d.service.tracing import tracing
from ds2d.state.admin_file import AdminFile
from ds2d.state.affinity import Affinity
from ds2d.state.audit import Audit
from ds2d.state.books import Books
from ds2d.state.callers import Callers, key_records
from ds2d.state.captures import Captures
from ds2d.state.catalog import Catalog
from ds2d.state.keyfile import load_key
from ds2d.state.ledger import RETRY, Ledger
from ds2d.state.ledger_schema import Row
from ds2d.state.logins import Logins
from ds2d.state.observed import Observed
from ds2d.state.reasoning import ReasoningMemory
from ds2d.state.response_file import load, save
from ds2d.state.responses import Limits
from ds2d.state.series import Series, recalled
from ds2d.state.shared_accounts import SharedQueue
from ds2d.state.shared_quotas import SharedQuotas
from ds2d.state.shared_responses import SharedResponses
from ds2d.web.admin.accounts import Accounts
from ds2d.web.admin.api import add_admin_routes
from ds2d.web.admin.config import ConfigRoutes
from ds2d.web.admin.console import Console
from ds2d.web.admin.desk import Desk
from ds2d.web.admin.live import Live
from ds2d.web.admin.logins import Logins as AdminLogins
from ds2d.web.admin.ops import Ops
from ds2d.web.admin.session import Guard, Sessions
from ds2d.web.admin.usage import UsageRoutes
from ds2d.web.admin.vercel import Vercel
from ds2d.web.admin_key import AdminKey
from ds2d.web.docs import Docs
from ds2d.web.handlers import Business, Probes
from ds2d.web.metrics import MetricsRoute
from ds2d.web.middleware import around
from ds2d.web.pages import Pages
from ds2d.web.responses import NAME as RESPONSES
from ds2d.web.responses import Responses
from ds2d.web.routes import add_dialect_routes
from ds2d.web.server import BoundedServer, Runner, Site
from ds2d.web.tasks import Tasks
from ds2d.web.token_stats import TokenStats
from ds2d.web.turn_headers import QUOTAS
from ds2d.web.usage import OwnUsage

logger = logging.getLogger("ds2d")

BIG_TEXT = 32 * 1024
"""Characters above which tokens are counted in a thread (tokens.md)."""

FAREWELL_SECONDS = 2.0
"""How long clients that read slowly, or not at all, may take for the last words of a turn that is ended."""

QUIET_SECONDS = 0.2
"""How long no turn may have run before a drain is over: an accepted connection may hold a request not yet read."""


def _utc_now() -> datetime:
    return datetime.now(UTC)


class _Randomness:
    """Random bytes, asked of the system by the thousand: a system call an id costs more than the id."""

    def __init__(self) -> None:
        self._bytes = b""
        self._at = 0

    def hex(self, count: int) -> str:
        """So many bytes as hex digits; each byte is given out once."""
        if self._at + count > len(self._bytes):
            self._bytes, self._at = secrets.token_bytes(4096), 0
        start, self._at = self._at, self._at + count
        return self._bytes[start : self._at].hex()


_randomness = _Randomness()


def new_id(prefix: str) -> str:
    """An opaque id: the prefix and 24 hex digits; 32 for stored responses, whose id is half of what opens them."""
    return prefix + _randomness.hex(16 if prefix == "resp_" else 12)


MAX_TASKS = 100_000
"""More than all who may `spawn` can have running at once: connections, background responses, counts after the end."""

CHECK_SECONDS = 8.0
"""Longest wait for the upstreams' first answers before a new process takes over."""

LEDGER_TRIES = 5
"""How often it looks whether the ledger can be written, where that failed at first."""

HOUSE_SECONDS = 30.0
RESPONSES_FILE = "responses.jsonl"


class Toolbox:
    """What the service needs of the world: clocks, ids, token counts, tracked background work."""

    def __init__(self, tokenizer: Tokenizer, sealer: Sealer, reasoning: ReasoningMemory) -> None:
        self._tokenizer = tokenizer
        self._sealer = sealer
        self.reasoning = reasoning
        self._tasks: set[asyncio.Task[None]] = set()

    monotonic = staticmethod(time.monotonic)
    new_id = staticmethod(new_id)

    def now(self) -> int:
        return int(time.time())

    def seal(self, text: str) -> str:
        return self._sealer.seal(text)

    async def count_text(self, text: str) -> int:
        if len(text) < BIG_TEXT:
            return self._tokenizer.count(text)
        return await asyncio.get_running_loop().run_in_executor(None, self._tokenizer.count, text)

    async def count_request(self, request: ChatRequest) -> int:
        return await asyncio.get_running_loop().run_in_executor(None, self._tokenizer.count_request, request)

    def rough_request(self, request: ChatRequest) -> int:
        return self._tokenizer.rough_request(request)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run after-work that nobody waits for until the daemon stops."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def sizes(self) -> Sizes:
        """Work that nobody waits for: counts after the end, a life sign a stream, background responses. Its bound is theirs."""
        return {"tasks": Size(len(self._tasks), MAX_TASKS)}

    async def close(self) -> None:
        """End what still runs."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class Daemon:
    """Everything that lives as long as the process. `draining`: no new work should come here.

    `own_connections`: see `Client`. `tokenizer_delay`: seconds after which the tokenizer is loaded.
    """

    def __init__(self, store: ConfigStore, own_connections: bool = True, tokenizer_delay: float = 0.0) -> None:
        self.store = store
        self._own_connections = own_connections
        self._tokenizer_delay = tokenizer_delay
        self.draining = False
        self.tokenizer = Tokenizer()
        self.state_dir = Path(store.current.state_dir)
        self.sealer = Sealer(load_key(self.state_dir, "seal.key"))
        self.quotas = SharedQuotas(time.monotonic, _utc_now)
        self.callers = Callers(secrets.token_bytes(32), _utc_now, self.quotas.first_used)
        self.ledger = Ledger(self.state_dir, store.current.ledger, loaded=self.quotas.load)
        self.observed = Observed(time.monotonic, time.time)
        self.metrics = Metrics(self._is_listed)
        self.tracing = tracing(os.environ, time.monotonic, time.time)
        self.affinity = Affinity(time.monotonic)
        self.queue = SharedQueue(store.current.runtime)
        self.responses = SharedResponses(time.monotonic, new_id)
        self.captures = Captures(self._capture_settings, self._secrets, new_id, lambda: int(time.time()), time.monotonic)
        self.series = Series(time.time)
        self.owners: dict[str, Owner] = {
            "queue": self.queue,
            "affinity": self.affinity,
            "callers": self.callers,
            "quotas": self.quotas,
            "ledger": self.ledger,
            "observed": self.observed,
            "responses": self.responses,
            "captures": self.captures,
            "metrics": self.metrics,
            "series": self.series,
        }
        """Whoever holds something that may grow, by name: the one list of them. `start` adds its own."""
        self._background: list[asyncio.Task[None]] = []
        self._runner: Runner | None = None
        self._sites: list[Site] = []
        self.certificate: Certificate | None = None

    def config(self) -> Config:
        """The snapshot that new requests start with."""
        return self.store.current

    async def start(
        self, port: int | None = None, sockets: Sequence[socket.socket] = (), predecessor: Predecessor | None = None
    ) -> int:
        """Build what needs a running loop and take connections, as the first process or after `predecessor`. Returns the port
        (0 with inherited sockets). Raises OSError; UpgradeError and PredecessorGoneError where there is a predecessor."""
        self.client = Client(self._own_connections)
        self.toolbox = Toolbox(self.tokenizer, self.sealer, ReasoningMemory(time.monotonic, lambda: self.config().reasoning))
        self.logins = Logins(self.client.drive)
        self.catalog = Catalog(
            self.client.fetch,
            token_for=self._token_for,
            recovered=self.queue.recovered,
            lost=self.affinity.lost,
            gauged=self._gauged,
            ours=self.queue.inflight,
        )
        self.books = Books(self.ledger, self.quotas, self.toolbox, time.monotonic, time.time)
        self.books.listeners += [self.metrics.ended, self.series.note]
        if self.tracing is not None:
            self.books.listeners.append(self.tracing.ended)
        self.service = Service(
            self.config,
            self.catalog,
            self.queue,
            self.affinity,
            self.logins,
            self.client,
            self.toolbox,
            self.books,
            self.observed,
        )
        self.lag = LoopLag(asyncio.get_running_loop().time)
        self.owners |= {
            "upstreams": self.client,
            "after": self.toolbox,
            "reasoning": self.toolbox.reasoning,
            "logins": self.logins,
            "catalog": self.catalog,
            "books": self.books,
            "service": self.service,
            "repeats": self.service.repeats,
            "loop": self.lag,
        }
        for subscriber in (
            self._apply_keys,
            self._apply_accounts,
            self._apply_responses,
            self._apply_certificate,
            self.catalog.apply,
            self.metrics.apply,
        ):
            self.store.subscribe(subscriber)
            subscriber(self.config())
        reasoning = self.toolbox.reasoning
        inside = self.catalog.begins_inside
        shared = Shared(self.queue, self.quotas, self.callers, self.responses, reasoning, inside, self._ended_elsewhere)
        self.generations = self.owners["generations"] = Generations(shared, self.state_dir, self)
        self.books.listeners.append(self.generations.turn_ended)
        if predecessor is None:
            self._restore_responses()
        await self.ledger.start()
        jobs = (
            self.service.keep_books(),
            self.catalog.run(),
            self.store.watch(),
            self._load_tokenizer(self._tokenizer_delay),
            self._recall(time.time()),
            self._keep_house(),
            self.lag.run(),
        )
        for work in jobs:
            self._background.append(asyncio.create_task(work))
        if predecessor is None:
            runner = await self._prepare()
            port = await self._listen(runner, self.config().server.port if port is None else port, sockets)
            await self.generations.lead()
            return port
        await self._check_itself()
        runner = await self._prepare()
        await self.generations.succeed(predecessor)
        await self._listen(runner, 0, predecessor.sockets)
        predecessor.serving()
        return 0

    async def _check_itself(self) -> None:
        """What must be in order before this process takes over from a running one. Raises UpgradeError."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CHECK_SECONDS):  # a server that does not answer is no fault of this version
                await self.first_look()
        await self._load_tokenizer()
        for _ in range(LEDGER_TRIES):  # the running process writes to it as well
            if self.ledger.problem is not None:
                await asyncio.sleep(RETRY)
        if self.ledger.problem is not None:
            raise UpgradeError(f"the ledger cannot be used: {self.ledger.problem}")

    def _ended_elsewhere(self, row: Row) -> None:
        """An older process has finished a turn, which nobody can ask it about any more."""
        self.metrics.ended_elsewhere(row)
        self.series.note(row)

    def listeners(self) -> list[socket.socket]:
        """The sockets it listens on, once more, to be handed on."""
        return [twin for site in self._sites for twin in site.twins()]

    async def pause(self) -> None:
        """Take no new connections; those that are there are served once more."""
        self.draining = True
        for site in self._sites:
            await site.stop()
        self._sites = []

    async def resume(self, listeners: list[socket.socket]) -> None:
        """Take connections again, on these sockets."""
        assert self._runner is not None
        self._sites = [Site(self._runner, one, self.certificate) for one in listeners]
        for site in self._sites:
            await site.start()
        self.draining = False

    async def stop(self) -> None:
        """End everything at once: connections, turns, background work."""
        if self._runner is not None:
            await self._runner.cleanup()
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        await self._end_background_runs()
        await self.service.repeats.close()
        await self.logins.close()
        self.books.finish()
        await self.toolbox.close()
        await self.generations.close()
        await self.ledger.close_file()
        await self.client.close()
        if self.tracing is not None:
            await self.tracing.close()

    async def drain(self, at_once: asyncio.Event) -> None:
        """Take no new connections, let live turns finish (at most `server.drain_seconds`, or until `at_once`), end the rest
        in their own dialect's words (reliability.md, promise 8)."""
        await self.pause()
        try:
            async with asyncio.timeout(self.config().server.drain_seconds):
                await self._quiet(at_once)
        except TimeoutError:
            logger.warning("drain time is up: ending %d turns", len(self.service.turns))
        await self._end_turns()

    async def retire(self, hurry: asyncio.Event, at_once: asyncio.Event, seconds: float | None) -> None:
        """A newer process has taken over: let live turns finish, for `seconds` (None: for as long as they last), and idle
        connections be used once more. `hurry` turns it into a drain."""
        try:
            async with asyncio.timeout(seconds):
                await self._quiet(hurry)
                await self._deserted(hurry)
        except TimeoutError:
            logger.warning("drain time is up: ending %d turns", len(self.service.turns))
            await self._end_turns()
        if hurry.is_set():
            await self.drain(at_once)

    async def _deserted(self, hurry: asyncio.Event) -> None:
        """Return when nobody is connected any more, or nothing has happened for as long as an idle connection is kept."""
        server = self._runner.server if self._runner is not None else None
        idle = 0.0
        while isinstance(server, BoundedServer) and server.open_connections and idle < self.config().server.idle_seconds:
            idle = 0.0 if self.service.turns else idle + QUIET_SECONDS
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(QUIET_SECONDS):
                    await hurry.wait()
                    return
        await self._quiet(hurry)

    async def _end_turns(self) -> None:
        """End what still runs in its own dialect's words."""
        error = GatewayError(ErrorKind.SHUTTING_DOWN, "The gateway is shutting down.")
        turns = list(self.service.turns.values())
        for turn in turns:
            turn.stop(error)
        if tasks := {turn.task for turn in turns if turn.task is not None}:
            _, late = await asyncio.wait(tasks, timeout=FAREWELL_SECONDS)
            if late and self._runner is not None:
                self._runner.cut_unread()

    def addresses(self) -> list[str]:
        """Where it listens, for people."""
        found = self._runner.addresses if self._runner else []
        return [f"{address[0]}:{address[1]}" if isinstance(address, tuple) else str(address) for address in found]

    def sizes(self) -> Sizes:
        """How much of everything that may grow is held now, and at most, by `owner.what`."""
        return gather(self.owners)

    def readiness(self) -> tuple[str, dict[str, object]]:
        """What /readyz says, and its details."""
        if self.draining:
            return "draining", {}
        ready = any(state in ("ready", "degraded") for state in self.catalog.states().values())
        problem = self.store.problem
        details: dict[str, object] = {
            "upstreams": self.catalog.details(),
            "affinity": self.affinity.report(),
            "config": {
                "generation": self.config().generation,
                "problem": [str(error) for error in problem.errors] if problem else [],
                "warnings": [str(warning) for warning in self.config().warnings],
                "pending_restart": self.store.pending_restart,
            },
            "tokenizer": "exact" if self.tokenizer.loaded else "loading",
            "ledger": self.ledger.problem or "ok",
            "older_processes": self.generations.older,
        }
        return "ready" if ready else "not_ready", details

    async def _prepare(self) -> Runner:
        """Everything of the listener but the sockets. Raises OSError for a certificate that cannot be used."""
        server = self.config().server
        connections = connections_at_most(server.max_connections)
        if connections < server.max_connections:
            logger.warning("open connections: %d at most, descriptors are not enough for server.max_connections", connections)
        bounds = {"new_id": new_id, "limits": lambda: self.config().server, "max_connections": connections}
        self._runner = Runner(
            self._application(),
            bounds,
            access_log=None,
            keepalive_timeout=server.idle_seconds,
            lingering_time=2,
            shutdown_timeout=1,
        )
        await self._runner.setup()
        if isinstance(self._runner.server, BoundedServer):
            self.owners["connections"] = self._runner.server
        files = server.tls
        if files.cert_file and files.key_file:
            self.certificate = Certificate(files.cert_file, files.key_file, files.digest)
        return self._runner

    async def _listen(self, runner: Runner, port: int, sockets: Sequence[socket.socket]) -> int:
        server = self.config().server
        places: Sequence[Place] = sockets or [(server.host, port)]
        self._sites = [Site(runner, place, self.certificate) for place in places]
        for site in self._sites:
            await site.start()
        path = server.unix_socket
        if path and path not in runner.addresses:  # the port first: whoever has it already serves this path, too
            self._sites.append(Site(runner, unix_listener(path)))
            await self._sites[-1].start()
        return int(runner.addresses[0][1]) if not sockets else 0

    def _application(self) -> web.Application:
        layer = around(new_id, lambda: self.draining, self.metrics.answered)
        app = web.Application(middlewares=[layer], handler_args={"auto_decompress": False})
        business = Business(
            self.config,
            self.service,
            self.callers,
            self.catalog,
            self.sealer.unseal,
            lambda: self.draining,
            self.captures,
            self.tracing,
        )
        probes = Probes(self.readiness)
        responses = Responses(business, self.service, self.responses, self.toolbox.spawn, self.generations)
        business.add_actions(responses.actions() | Tasks(business, self.service).actions(), {RESPONSES: responses.generate})
        add_dialect_routes(app.router, business.handler)
        pages = Pages(lambda: self.config().server.root_path, probes.root)
        for path, handler in [*probes.routes(), *pages.routes()]:
            app.router.add_route("GET", path, handler)
            app.router.add_route("HEAD", path, handler)
        app.router.add_route("POST", "/ping", probes.ping)
        for path, handler in Docs().routes():
            app.router.add_route("GET", path, handler)
        guard = self._add_admin(app.router)
        app[QUOTAS] = self.quotas
        own = OwnUsage(business.identify, self._models_of, self.quotas, self.ledger, lambda: pages.page("me"))
        for path, handler in own.routes():
            app.router.add_route("GET", path, handler)
        stats = TokenStats(self.config, self.callers, self.queue, self.observed, lambda request: guard.admit(request, "admin"))
        page = MetricsRoute(
            self.config,
            lambda: render(self.families()),
            self._is_exposed,
            lambda request: business.identify(request, "openai_chat"),
            lambda request: guard.admit(request, "admin"),
        )
        for method, path, handler in (*stats.routes(), *page.routes()):
            app.router.add_route(method, path, handler)
        return app

    def _add_admin(self, router: web.UrlDispatcher) -> Guard:
        """The admin API: its owners live as long as the listener. Returns its check."""
        file = AdminFile(self.state_dir)
        key = AdminKey(self.config, secrets.token_bytes(32), time.monotonic, self._is_exposed)
        self.owners["admin_key"] = key
        sessions = Sessions(self.config, key, load_key(self.state_dir, "jwt.key"), file, time.time)
        audit = Audit(self.state_dir, lambda: _utc_now().isoformat(timespec="seconds"))
        desk = Desk(self.store, sessions, file, audit, time.time)
        accounts = Accounts(desk, self.queue, self.logins, self.client, self.service, new_id)
        guard = Guard(self.config, sessions)
        ops = Ops(
            desk,
            callers=self.callers,
            client=self.client,
            captures=self.captures,
            turns=self.service.turns,
            history=self.books,
            monotonic=time.monotonic,
            itself=self._itself,
        )

        async def admit(request: web.Request, auth: str) -> object:
            if self.draining:  # whoever follows a live view finds the newer process
                raise GatewayError(ErrorKind.SHUTTING_DOWN, "The gateway is shutting down.")
            return await guard.admit(request, auth)

        live = self.owners["live"] = Live(
            desk,
            queue=self.queue,
            catalog=self.catalog,
            series=self.series,
            turns=self.service.turns,
            monotonic=time.monotonic,
            admit=admit,
            name=secrets.token_hex(4),
        )
        areas = {
            "logins": AdminLogins(desk),
            "config": ConfigRoutes(desk),
            "accounts": accounts,
            "ops": ops,
            "live": live,
            "console": Console(desk, self.quotas),
            "usage": UsageRoutes(desk, self.state_dir),
            "vercel": Vercel(desk, self.client, accounts, self.queue),
        }
        add_admin_routes(router, guard, areas)
        return guard

    def _is_listed(self, model: str) -> bool:
        return any(model.lower() in upstream.ids for upstream in self.catalog.seen())

    def families(self) -> tuple[Family, ...]:
        """What /metrics tells, now."""
        owners = Owners(
            self.store,
            self.queue,
            self.catalog,
            self.ledger,
            self.toolbox.reasoning,
            self.lag,
            self.service.turns,
            self.service.repeats,
            self.sizes,
        )
        return (*self.metrics.families(), *readings(owners))

    def _models_of(self, caller: Caller) -> list[str]:
        return [model.id for model in self.catalog.models(caller.may_use)]

    def _is_exposed(self) -> bool:
        """Whether others than this host can reach the listener."""
        found = self._runner.addresses if self._runner else []
        return any(isinstance(address, tuple) and not ip_address(address[0]).is_loopback for address in found)

    def _itself(self) -> UpstreamSpec:
        """This daemon, as somebody reaches it who asks through its listener."""
        found = self._runner.addresses if self._runner else []
        host, port = next((address[0], address[1]) for address in found if isinstance(address, tuple))
        if ip_address(host).is_unspecified:
            host = "::1" if ":" in host else "127.0.0.1"
        certificate = self.certificate
        return UpstreamSpec(
            name="self",
            base_url=f"{'https' if certificate else 'http'}://{f'[{host}]' if ':' in host else host}:{port}",
            proxy="direct",
            pin=certificate.digest.hex() if certificate else "",
            timeouts=Timeouts(answer=120, total=120),
        )

    def _capture_settings(self) -> tuple[bool, int, int]:
        capture = self.config().capture
        return capture.enabled, capture.limit, capture.max_body_bytes

    def _secrets(self) -> list[str]:
        """Every secret of the config, for taking it out of what is kept."""
        return secrets_of(self.config())

    def _apply_keys(self, config: Config) -> None:
        direct = any(upstream.direct_token for upstream in config.upstreams)
        self.callers.apply(config.keys, config.server.open_networks, direct)
        self.ledger.apply(config.ledger, key_records(config.keys))

    def _apply_accounts(self, config: Config) -> None:
        self.queue.apply(config.upstreams, config.accounts, config.runtime)
        self.affinity.apply(config.runtime.affinity, {upstream.name for upstream in config.upstreams})
        self.logins.retain(slot.account.id for slot in self.queue.slots)

    def _apply_certificate(self, config: Config) -> None:
        if self.certificate is not None:
            self.certificate.renew(config.server.tls.digest)

    def _gauged(self, upstream: str, load: Load | None, ours: int) -> bool:
        """A server told its load: the queue chooses by it, and what its cache was good for is counted."""
        self.affinity.gauged(upstream, load)
        return self.queue.gauged(upstream, load, ours)

    def _apply_responses(self, config: Config) -> None:
        kept = config.responses
        limits = Limits(kept.store_ttl_seconds, kept.store_bytes, kept.background_max, kept.background_seconds)
        self.responses.apply(limits)

    async def _token_for(self, upstream: UpstreamSpec) -> str | None:
        """A credential to look at an upstream with."""
        account = self.queue.account_of(upstream.name)
        return await self.logins.token(account) if account else None

    async def first_look(self) -> None:
        """Look at every upstream now; returns when all have answered or run out of time."""
        await self.catalog.look()

    async def _load_tokenizer(self, delay: float = 0.0) -> None:
        await asyncio.sleep(delay)
        await asyncio.get_running_loop().run_in_executor(None, self.tokenizer.load)

    async def _recall(self, now: float) -> None:
        """The day before this start, for the console's charts."""
        try:
            self.series.absorb(await asyncio.get_running_loop().run_in_executor(None, recalled, self.state_dir, now))
        except sqlite3.Error as error:
            logger.warning("the last day's figures could not be read: %s", error)

    async def _keep_house(self) -> None:
        """What must happen now and then though nobody asks."""
        while True:
            await asyncio.sleep(HOUSE_SECONDS)
            self.responses.expire()
            self.service.repeats.expire()

    def _restore_responses(self) -> None:
        if not self.config().responses.persist:
            return
        try:
            count = load(self.responses, self.state_dir / RESPONSES_FILE, time.time())
        except OSError as error:
            logger.warning("stored responses were not read: %s", error)
        else:
            logger.info("stored responses taken over: %d", count)

    async def _end_background_runs(self) -> None:
        """Background responses end failed, as the contract has it, and everything stored is kept for the next start."""
        error = GatewayError(ErrorKind.SHUTTING_DOWN, "The gateway is shutting down.")
        for run in self.responses.runs:
            if run.id in self.responses.mirrors and not self.generations.leads:
                continue  # another process works on it, and answers to the one that leads
            run.stop(error)
            with contextlib.suppress(TimeoutError):  # another process may work on it, and hang
                async with asyncio.timeout(FAREWELL_SECONDS):
                    await run.wait_ended()
        if not (self.config().responses.persist and self.generations.leads):
            return
        try:
            save(self.responses, self.state_dir / RESPONSES_FILE, time.monotonic(), time.time())
        except OSError as problem:
            logger.warning("stored responses were not kept: %s", problem)

    def _busy(self) -> bool:
        """Whether somebody still gets an answer, from here, through here or from an older process, or has asked for one."""
        asking = self._runner is not None and self._runner.owes_answers()
        return bool(self.service.turns or self.responses.mirrored_for_somebody or self.generations.older) or asking

    async def _quiet(self, at_once: asyncio.Event) -> None:
        """Return when no turn has run for a moment, or at once when told."""
        while not at_once.is_set():
            if not self._busy():
                await asyncio.sleep(QUIET_SECONDS)
                if not self._busy():
                    return
            try:
                async with asyncio.timeout(QUIET_SECONDS):
                    await at_once.wait()
            except TimeoutError:
                continue
