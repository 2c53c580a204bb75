"""Whatever may grow has a bound and a gauge, and an owner that was forgotten is found here."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import msgspec

from tests.functional.harness import Running, config_for, running
from tests.functional.scripted import scripted_upstream
from tests.functional.test_every_dialect import QUESTIONS

BOUNDED = {
    "Roster.leaving": "queue.accounts_leaving",
    "SharedQueue._lanes": "queue.lanes",
    "SharedQueue._queued": "queue.callers_waiting",
    "Changes._moments": "queue.changes_expected",
    "Repeats._running": "repeats.runs",
    "Repeats._ended": "repeats.runs",
    "Run.readers": "service.turns",
    "Run._pieces": "repeats.held_bytes",
    "Affinity._bound": "affinity.keys",
    "FairShare._ends": "queue.callers_remembered",
    "Callers._lent": "callers.lent",
    "SharedQuotas._meters": "quotas.strangers",
    "SharedQuotas._strangers": "quotas.strangers",
    "Books._decided": "books.decisions",
    "Books._counting": "books.counting",
    "Ledger._dirty": "ledger.rows_unwritten",
    "Ledger._closing": "ledger.rows_unwritten",
    "Ledger._waiting": "service.turns",
    "LedgerFile._open_rows": "service.turns",
    "LedgerFile._noted": "ledger.rows_unwritten",
    "Observed._pairs": "observed.pairs",
    "Window.entries": "observed.pairs",
    "Logins._kept": "logins.tokens",
    "Logins._refusals": "logins.refusals",
    "Logins._running": "logins.tokens",
    "Catalog._routes": "catalog.routes",
    "Scales._open": "service.turns",
    "Catalog.begins_inside": "catalog.begins_inside",
    "Catalog._missing": "catalog.missing",
    "SharedResponses._ended": "responses.stored",
    "SharedResponses._running": "responses.background",
    "SharedResponses._runs": "responses.background",
    "SharedResponses._by_item": "responses.stored_bytes",
    "SharedResponses._large": "responses.stored_bytes",
    "SharedQueue._own": "service.turns",
    "SharedQueue._moving": "service.turns",
    "SharedQueue._disagreeing": "service.turns",
    "SharedQuotas._own": "service.turns",
    "SharedResponses.mirrors": "responses.background",
    "Generations._guests": "generations.older",
    "Generations._answering": "generations.links",
    "Generations._links": "generations.links",
    "Captures._kept": "captures.kept",
    "Feed._deltas": "live.deltas_bytes",
    "Ring.steps": "series.steps",
    "ReasoningMemory._kept": "reasoning.kept_bytes",
    "ReasoningMemory._index": "reasoning.kept_bytes",
    "Client._tls": "upstreams.tls_contexts",
    "Client._drains": "upstreams.drains",
    "Pool._unused": "upstreams.unused_connections",
    "Pool.links": "service.turns",
    "Toolbox._tasks": "after.tasks",
    "TokenCounter._asked": "counter.asked",
    "Service.turns": "service.turns",
    "LoopLag._late": "loop.looks",
    "BoundedServer._connections": "connections.open",
    "Metrics._listed": "metrics.models_listed",
    "Throttle._records": "admin_key.addresses",
    "Throttle._all": "admin_key.addresses",
}
"""What grows with clients or upstreams, and the gauge that tells of it."""

FIXED = {
    "Roster.slots": "one an account in config",
    "Roster.budgets": "one an account or group in config",
    "Roster._pools": "one an upstream in config",
    "Roster.servers": "one an upstream in config",
    "Affinity._epochs": "one an upstream in config",
    "Affinity._counters": "one an upstream in config",
    "Affinity._shared": "one an upstream in config",
    "Affinity._several": "one a public model that several servers have",
    "Payoff.*": "two strategies",
    "Scales._surplus": "three looks",
    "Callers._entries": "one a key in config",
    "Callers._by_id": "one a key in config",
    "Catalog._watches": "one an upstream in config",
    "Catalog._new": "of `Catalog._watches`, those that were not looked at",
    "Names.*": "what config and the tables name",
    "Pool.order": "one an account in config",
    "Budget.members": "one an account in config",
    "Breaker.faults": "one a cause",
    "Gate.models": "one a public model with faults",
    "Meter.*": "six counters",
    "Books.listeners": "made at the start",
    "Counter.*": "one a set of labels, whose values are bounded (service/metrics.py)",
    "Histogram.*": "one a set of labels, whose values are bounded (service/metrics.py)",
    "Metrics.*": "what config and the tables name",
    "ConfigStore._subscribers": "made at the start",
    "Daemon.*": "made at the start",
    "Listener._sites": "one for each address",
    "Runner.*": "made at the start",
    "Source.*": "the environment",
    "Accounts._tested": "one an account that an operator tested",
    "Business.*": "one a route",
    "Ledger._keys": "one a key in config",
    "Ledger._offsets": "sixty",
    "Ops._turns": "the service's own",
    "Live._turns": "the service's own",
    "Feed._state": "what is there now, of turns 200",
    "Series._rings": "two",
    "Step.*": "one a size of latency, or a kind of error",
    "Pages._files": "the console's files",
    "BoundedServer._kwargs": "made at the start",
    "Unsaid._known": "the secrets in config",
}
"""What does not, and why."""


def owned(root: object) -> Iterator[tuple[str, object]]:
    """Every container that an object of ours holds, as `Class.attribute`, wherever it is reached from `root`."""
    seen: set[int] = set()
    waiting: list[Any] = [root]
    while waiting:
        one = waiting.pop()
        if id(one) in seen or isinstance(one, (type, Enum, msgspec.Struct)):
            continue
        seen.add(id(one))
        if isinstance(one, (dict, list, set, tuple, deque)):
            waiting += one.values() if isinstance(one, dict) else one
            continue
        waiting += [getattr(one, "__self__", None), *[cell.cell_contents for cell in getattr(one, "__closure__", None) or ()]]
        if not type(one).__module__.startswith("ds2d."):
            continue
        names = [*getattr(one, "__dict__", {}), *(name for kind in type(one).__mro__ for name in getattr(kind, "__slots__", ()))]
        for name in names:
            value = getattr(one, name, None)
            if isinstance(value, (dict, list, set, deque, bytearray)):
                yield f"{type(one).__name__}.{name}", value
            waiting.append(value)


async def use(ds2d: Running) -> None:
    """A bit of everything, so that what holds something does hold it."""
    for path, body, stream_path, more in QUESTIONS.values():
        await ds2d.ask(path, body)
        await ds2d.ask(stream_path, {**body, **more})
    await ds2d.ask("/v1/models")
    await ds2d.ask("/admin/session", key="wrong-admin-key")


async def test_every_container_of_the_daemon_has_a_gauge_or_a_reason(tmp_path: Path) -> None:
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        await use(ds2d)
        sizes = ds2d.daemon.sizes()
        assert ds2d.daemon.listener.runner is not None
        handlers = [route.handler for route in ds2d.daemon.listener.runner.app.router.routes()]
        found = {name for name, _ in owned([ds2d.daemon, handlers])}
        known = {*BOUNDED, *FIXED}
        new = sorted(name for name in found if name not in known and f"{name.partition('.')[0]}.*" not in known)
        assert new == [], "give it a bound, a gauge (core/sizes.py) and a line in BOUNDED, or say in FIXED why it cannot grow"
        assert set(BOUNDED.values()) <= set(sizes)


async def test_every_size_is_within_its_bound(tmp_path: Path) -> None:
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        await use(ds2d)
        assert {name: size for name, size in ds2d.daemon.sizes().items() if not 0 <= size.now <= size.bound} == {}
        assert ds2d.daemon.sizes()["connections.open"].now >= 1
        assert ds2d.daemon.sizes()["books.decisions"].now >= 5
