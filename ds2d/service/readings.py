"""What is read off its owners when somebody asks for /metrics: queue, accounts, upstreams, config, memory, the process.

Rule: reading changes nothing and waits for nobody. A state is a label, and 1 where it holds.
"""

from __future__ import annotations

import os
import platform
import resource
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple, get_args

from ds2d import __version__
from ds2d.config.store import ConfigStore
from ds2d.core.metrics import Kind, Labels, Reading
from ds2d.core.models import State
from ds2d.core.sizes import Sizes
from ds2d.service.gauges import LoopLag
from ds2d.service.repeats import Repeats
from ds2d.service.turn import Turn
from ds2d.state.accounts import AccountQueue
from ds2d.state.catalog import Catalog
from ds2d.state.health import Health
from ds2d.state.ledger import Ledger
from ds2d.state.reasoning import ReasoningMemory
from ds2d.state.reports import Instant, account_status

STARTED = time.time()
PAGE = os.sysconf("SC_PAGE_SIZE")
BREAKERS = ("open", "cooling", "half_open")


class Owners(NamedTuple):
    """Whom the readings are taken from."""

    store: ConfigStore
    queue: AccountQueue
    catalog: Catalog
    ledger: Ledger
    reasoning: ReasoningMemory
    lag: LoopLag
    turns: Mapping[str, Turn]
    repeats: Repeats
    sizes: Callable[[], Sizes]


def readings(owners: Owners) -> Iterator[Reading]:
    """All of them."""
    yield from _queue(owners.queue)
    yield from _turns(owners.turns)
    yield from _accounts(owners.queue)
    yield from _upstreams(owners.catalog)
    yield _counter("ds2d_turns_orphaned_total", "Turns that went on after their client had left", owners.repeats.alone)
    yield _counter("ds2d_retries_joined_total", "Requests that got the answer of the turn they repeat", owners.repeats.joined)
    yield from _reasoning(owners.reasoning)
    yield from _config(owners.store)
    yield from _ledger(owners.ledger)
    yield _gauge("ds2d_event_loop_lag_seconds", "How late the event loop came at the last look", owners.lag.last)
    yield _gauge("ds2d_event_loop_lag_max_seconds", "How late it came at worst within a minute", owners.lag.worst)
    yield from _held(owners.sizes())
    yield from _process()


def _queue(queue: AccountQueue) -> Iterator[Reading]:
    yield _gauge("ds2d_queue_waiting", "Requests that wait for an account", queue.waiting)
    yield _gauge("ds2d_queue_limit", "Requests that may wait", queue.bound)
    yield _gauge("ds2d_inflight", "Leases that are out", queue.running)
    yield _gauge("ds2d_inflight_limit", "Leases that may be out", queue.capacity)


def _turns(turns: Mapping[str, Turn]) -> Iterator[Reading]:
    answering = [turn for turn in turns.values() if turn.first is not None]
    yield _gauge("ds2d_turns_running", "Turns that run or wait now", len(turns))
    yield _gauge("ds2d_turns_streaming", "Those whose answers are being written", len(answering))
    pieces = sum(turn.pipeline.records for turn in answering if turn.pipeline is not None)
    yield _gauge("ds2d_answer_pieces", "Pieces that these answers have so far, about as many as tokens", pieces)


def _accounts(queue: AccountQueue) -> Iterator[Reading]:
    now = Instant(queue)
    slots = [slot for slot in queue.slots if not slot.account.direct]
    names = ("account", "upstream")
    labels = [(slot.account.label, slot.account.upstream) for slot in slots]
    running, limits = ([(label, getattr(slot, what)) for label, slot in zip(labels, slots, strict=True)] for what in _COUNTS)
    yield Reading("ds2d_account_inflight", "gauge", "Requests that run on an account", names, running)
    yield Reading("ds2d_account_inflight_limit", "gauge", "Requests that may run on it", names, limits)
    states = [((*label, account_status(slot, now)["state"]), 1.0) for label, slot in zip(labels, slots, strict=True)]
    yield Reading("ds2d_account_state", "gauge", "1 for the state that an account is in", (*names, "state"), states)
    aside: dict[Labels, float] = {(*label, state): 0.0 for label in labels for state in BREAKERS}
    for label, slot in zip(labels, slots, strict=True):
        for gate in (slot.gate, slot.budget.gate):
            for breaker in (gate.whole, *gate.models.values()):
                if (state := breaker.state(now.now)) in BREAKERS:
                    aside[(*label, state)] += 1
    text = "Breakers of an account, and of its models, that are not closed"
    yield Reading("ds2d_breakers", "gauge", text, (*names, "state"), aside.items())


_COUNTS = ("inflight", "limit")


def _upstreams(catalog: Catalog) -> Iterator[Reading]:
    states = catalog.states()
    every = [((name, state), float(state == now)) for name, now in states.items() for state in get_args(State)]
    yield Reading("ds2d_upstream_state", "gauge", "1 for the state that an upstream is in", ("upstream", "state"), every)
    for name, kind, text, read in _SEEN:
        values = [((health.seen.upstream.name,), read(health)) for health in catalog.health()]
        yield Reading(name, kind, text, ("upstream",), [(labels, float(value)) for labels, value in values if value is not None])


def _own_word(what: str) -> Callable[[Health], float | None]:
    """What the upstream says of itself, where it says so."""
    return lambda health: getattr(health.evidence.load, what, None)


_SEEN: tuple[tuple[str, Kind, str, Callable[[Health], float | None]], ...] = (
    ("ds2d_upstream_inflight", "gauge", "Our requests on an upstream", lambda health: health.inflight),
    ("ds2d_upstream_orphans", "gauge", "Requests on it that are not ours", lambda health: health.evidence.orphans),
    ("ds2d_upstream_running", "gauge", "Requests that it says it runs", _own_word("running")),
    ("ds2d_upstream_waiting", "gauge", "Requests that it says wait in it", _own_word("waiting")),
    ("ds2d_upstream_cache_use_ratio", "gauge", "Its key-value cache in use, by its own word", _own_word("cache_use")),
    ("ds2d_upstream_prefix_queries_total", "counter", "Tokens it looked for in its prefix cache", _own_word("queries")),
    ("ds2d_upstream_prefix_hits_total", "counter", "Tokens it found there", _own_word("hits")),
)


def _reasoning(memory: ReasoningMemory) -> Iterator[Reading]:
    yield _counter("ds2d_reasoning_restored_total", "Turns of questions that got their reasoning back", memory.restored)
    yield _counter("ds2d_reasoning_lost_total", "Turns of questions whose reasoning nobody had", memory.lost)


def _config(store: ConfigStore) -> Iterator[Reading]:
    yield _gauge("ds2d_config_generation", "Number of the config in force", store.current.generation)
    yield _gauge("ds2d_config_last_reload_ok", "0 while what stands on disk is not in force", store.problem is None)
    yield _gauge("ds2d_config_pending_restart", "Changed keys that count only after a restart", len(store.pending_restart))


def _ledger(ledger: Ledger) -> Iterator[Reading]:
    yield _gauge("ds2d_ledger_ok", "0 while rows cannot be written", ledger.problem is None)
    yield _counter("ds2d_ledger_rows_lost_total", "Rows that were never written", ledger.lost)


def _held(sizes: Sizes) -> Iterator[Reading]:
    """What may grow: entries and bytes apart, since their units differ."""
    for unit, chosen in (("entries", False), ("bytes", True)):
        found = {name.removesuffix("_bytes"): size for name, size in sizes.items() if name.endswith("_bytes") is chosen}
        now = [((name,), float(size.now)) for name, size in found.items()]
        most = [((name,), float(size.bound)) for name, size in found.items()]
        yield Reading(f"ds2d_held_{unit}", "gauge", f"What is held in memory now, {unit}", ("what",), now)
        yield Reading(f"ds2d_held_{unit}_limit", "gauge", "And at most", ("what",), most)


def _process() -> Iterator[Reading]:
    used = resource.getrusage(resource.RUSAGE_SELF)
    yield _counter("ds2d_process_cpu_seconds_total", "CPU time of the process", used.ru_utime + used.ru_stime)
    yield _gauge("ds2d_process_resident_memory_bytes", "Resident memory", _resident())
    yield _gauge("ds2d_process_open_fds", "Open descriptors", len(os.listdir("/proc/self/fd")))
    yield _gauge("ds2d_process_max_fds", "Descriptors that may be open", resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    yield _gauge("ds2d_process_start_time_seconds", "Unix time at which it started", STARTED)
    build = {"version": __version__, "python": platform.python_version()}
    yield _labelled("ds2d_build_info", "gauge", "What runs", build)


def _resident() -> int:
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * PAGE


def _gauge(name: str, text: str, value: float) -> Reading:
    return Reading(name, "gauge", text, (), [((), float(value))])


def _counter(name: str, text: str, value: float) -> Reading:
    return Reading(name, "counter", text, (), [((), float(value))])


def _labelled(name: str, kind: Kind, text: str, labels: Mapping[str, str]) -> Reading:
    values: Iterable[tuple[Labels, float]] = [(tuple(labels.values()), 1.0)]
    return Reading(name, kind, text, tuple(labels), values)
