"""Everything that lives as long as the process: built, started, handed over to a newer process, drained and stopped.

Rule: every background task is started here and awaited here. Clock, ids and randomness are handed down as functions.
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
from collections.abc import Sequence
from pathlib import Path

from ds2d.app.listener import Listener
from ds2d.app.routes import application
from ds2d.app.toolbox import Toolbox, new_id, utc_now
from ds2d.config.schema import Config
from ds2d.config.show import secrets_of
from ds2d.config.store import ConfigStore
from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.load import Load
from ds2d.core.metrics import Family
from ds2d.core.seal import Sealer
from ds2d.core.settings import AccountSpec, UpstreamSpec
from ds2d.core.sizes import Sizes
from ds2d.generations import Generations, Predecessor, Shared, UpgradeError
from ds2d.net.client import Client
from ds2d.net.counter import TokenCounter
from ds2d.service import Service
from ds2d.service.gauges import LoopLag, Owner, gather
from ds2d.service.metrics import Metrics
from ds2d.service.readings import Owners, readings
from ds2d.service.tracing import tracing
from ds2d.state.affinity import Affinity
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
from ds2d.web.pages import console_files

logger = logging.getLogger("ds2d")

FAREWELL_SECONDS = 2.0
"""How long clients that read slowly, or not at all, may take for the last words of a turn that is ended."""

QUIET_SECONDS = 0.2
"""How long no turn may have run before a drain is over: an accepted connection may hold a request not yet read."""


CHECK_SECONDS = 8.0
"""Longest wait for the upstreams' first answers before a new process takes over."""

LEDGER_TRIES = 5
"""How often it looks whether the ledger can be written, where that failed at first."""

HOUSE_SECONDS = 30.0
RESPONSES_FILE = "responses.jsonl"


class Daemon:
    """Everything that lives as long as the process. `draining`: no new work should come here.

    `own_connections`: see `Client`. `late`: seconds after which `_load_rest` begins.
    """

    def __init__(self, store: ConfigStore, own_connections: bool = True, late: float = 0.0) -> None:
        self.store = store
        self._own_connections = own_connections
        self._late = late
        self.draining = False
        self.counter = TokenCounter()
        self.state_dir = Path(store.current.state_dir)
        self.sealer = Sealer(load_key(self.state_dir, "seal.key"))
        self.quotas = SharedQuotas(time.monotonic, utc_now)
        self.callers = Callers(secrets.token_bytes(32), utc_now, self.quotas.first_used)
        self.ledger = Ledger(self.state_dir, store.current.ledger, loaded=self.quotas.load, recovered=self.quotas.recovered)
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
        self._accounts: dict[str, list[AccountSpec]] = {}
        self._background: list[asyncio.Task[None]] = []
        self._counting: list[asyncio.Task[None]] = []
        """What turns may need to their very end: it ends after them."""
        self.listener = Listener(self.config)

    def config(self) -> Config:
        """The snapshot that new requests start with."""
        return self.store.current

    async def start(
        self, port: int | None = None, sockets: Sequence[socket.socket] = (), predecessor: Predecessor | None = None
    ) -> int:
        """Build what needs a running loop and take connections, as the first process or after `predecessor`. Returns the port
        (0 with inherited sockets). Raises OSError; UpgradeError and PredecessorGoneError where there is a predecessor."""
        self.client = Client(self._own_connections)
        self.toolbox = Toolbox(self.counter, self.sealer, ReasoningMemory(time.monotonic, lambda: self.config().reasoning))
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
        self.lag = LoopLag(asyncio.get_running_loop().time, lambda: bool(self.service.turns))
        self.owners |= {
            "upstreams": self.client,
            "after": self.toolbox,
            "counter": self.counter,
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
            self._look_anew,
            self.metrics.apply,
            self._apply_captures,
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
        opening = asyncio.create_task(self.ledger.start())
        await asyncio.sleep(0)  # its thread reads while the routes are made
        try:
            routes = application(self)
        finally:
            await opening
        jobs = (
            self.service.keep_books(),
            self.catalog.run(),
            self.store.watch(self._late),
            self._load_rest(self._late),
            self._recall(time.time()),
            self._keep_house(),
            self.lag.run(),
        )
        for work in jobs:
            self._background.append(asyncio.create_task(work))
        self._counting.append(asyncio.create_task(self.counter.run(0.0 if predecessor else self._late)))
        if predecessor is not None:
            await self._check_itself()
        self.owners["connections"] = await self.listener.prepare(routes)
        if predecessor is None:
            port = await self.listener.open(self.config().server.port if port is None else port, sockets)
            await self.generations.lead()
            return port
        await self.generations.succeed(predecessor)
        await self.listener.open(0, predecessor.sockets)
        predecessor.serving()
        return 0

    async def _check_itself(self) -> None:
        """What must be in order before this process takes over from a running one. Raises UpgradeError."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CHECK_SECONDS):  # a server that does not answer is no fault of this version
                await self.first_look()
        await self._load_rest()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CHECK_SECONDS):  # nor is a machine that has no time
                await self.counter.tried.wait()
        if self.counter.problem:
            raise UpgradeError(f"tokens cannot be counted: {self.counter.problem}")
        for _ in range(LEDGER_TRIES):  # the running process writes to it as well
            if self.ledger.problem is not None:
                await asyncio.sleep(RETRY)
        if self.ledger.problem is not None:
            raise UpgradeError(f"the ledger cannot be used: {self.ledger.problem}")

    def _ended_elsewhere(self, row: Row) -> None:
        """An older process has finished a turn, which nobody can ask it about any more."""
        self.metrics.ended_elsewhere(row)
        self.series.note(row)

    @property
    def bound(self) -> tuple[str, int]:
        """Host and port of the config with which the listening sockets were made."""
        return self.store.bound

    def took_over(self, host: str, port: int) -> None:
        """The listening sockets are an older process's: another address counts at the next start."""
        self.store.took_over(host, port)

    def listeners(self) -> list[socket.socket]:
        """The sockets it listens on, once more, to be handed on."""
        return self.listener.twins()

    async def pause(self) -> None:
        """Take no new connections; those that are there are served once more."""
        self.draining = True
        await self.listener.pause()

    async def resume(self, listeners: list[socket.socket]) -> None:
        """Take connections again, on these sockets."""
        await self.listener.resume(listeners)
        self.draining = False

    async def stop(self) -> None:
        """End everything at once: connections, turns, background work."""
        await self.listener.close()
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        await self._end_background_runs()
        await self.service.repeats.close()
        await self.logins.close()
        self.books.finish()
        await self.toolbox.close()
        for task in self._counting:
            task.cancel()
        await asyncio.gather(*self._counting, return_exceptions=True)
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
        idle = 0.0
        while self.listener.connections and idle < self.config().server.idle_seconds:
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
            if late:
                self.listener.cut_unread()

    def sizes(self) -> Sizes:
        """How much of everything that may grow is held now, and at most, by `owner.what`."""
        return gather(self.owners)

    def readiness(self) -> tuple[str, dict[str, object]]:
        """What /readyz says, and its details."""
        if self.draining:
            return "draining", {}
        states = self.catalog.states()
        ready = any(states.get(one.name) in ("ready", "degraded") and self._may_ask(one) for one in self.config().upstreams)
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
            "tokenizer": "exact" if self.counter.loaded else "loading",
            "ledger": self.ledger.problem or "ok",
            "older_processes": self.generations.older,
        }
        return "ready" if ready else "not_ready", details

    def _may_ask(self, upstream: UpstreamSpec) -> bool:
        """Whether there is a credential to ask it with: an account that is in use, or a caller's own."""
        return upstream.direct_token or self.queue.account_of(upstream.name) is not None

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

    def _look_anew(self, config: Config) -> None:
        """Servers whose accounts are others now: a server that refused the look before is not looked at again so soon."""
        before, self._accounts = self._accounts, {}
        for spec in config.accounts:
            self._accounts.setdefault(spec.upstream or "", []).append(spec)
        names = before.keys() | self._accounts.keys()
        self.catalog.hurry(name for name in names if before.get(name) != self._accounts.get(name))

    def _apply_captures(self, _: Config) -> None:
        self.captures.trim()

    def _apply_certificate(self, config: Config) -> None:
        self.listener.renew_certificate(config.server.tls.digest)

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

    async def _load_rest(self, delay: float = 0.0) -> None:
        """What the first answers do not need, but may not be read later: an upgrade puts other files in the same place."""
        await asyncio.sleep(delay)
        await asyncio.get_running_loop().run_in_executor(None, console_files)

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
        working = self.service.turns or self.responses.mirrored_for_somebody or self.generations.older
        return bool(working) or self.listener.owes_answers()

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
