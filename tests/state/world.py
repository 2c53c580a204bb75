"""A world for the account queue whose time moves only when a test says so."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from itertools import count
from typing import Any, Literal

import msgspec

from ds2d.config.schema import Affinity
from ds2d.core.settings import AccountSpec, BreakerSpec, Secret, UpstreamSpec
from ds2d.state.accounts import AccountQueue, Lease, Want


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    account_max_inflight: int = 2
    account_max_queue: int = 0
    global_max_inflight: int = 0
    min_request_gap_ms: int = 0
    breaker: BreakerSpec = BreakerSpec()
    routing: Literal["least_loaded", "weighted"] = "least_loaded"
    affinity: Affinity = Affinity()


class Alarm:
    def __init__(self, action: Callable[[], None]) -> None:
        self.action = action
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Time:
    """A clock and its timers."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._timers: list[tuple[float, int, Alarm]] = []
        self._numbers = count()

    def __call__(self) -> float:
        return self.now

    def call_later(self, delay: float, action: Callable[[], None]) -> Alarm:
        alarm = Alarm(action)
        heapq.heappush(self._timers, (self.now + delay, next(self._numbers), alarm))
        return alarm

    @property
    def pending(self) -> int:
        return sum(not alarm.cancelled for _, _, alarm in self._timers)

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while self._timers and self._timers[0][0] <= end:
            when, _, alarm = heapq.heappop(self._timers)
            self.now = max(self.now, when)
            if not alarm.cancelled:
                alarm.action()
        self.now = end


def upstream(name: str = "gpu", **fields: Any) -> UpstreamSpec:
    return UpstreamSpec(name=name, base_url="http://127.0.0.1:8000/v1", **fields)


def account(name: str, on: str = "gpu", **fields: Any) -> AccountSpec:
    return AccountSpec(name=name, upstream=on, token=Secret(f"token of {name}"), **fields)


class World:
    """A queue and its time; accounts `a`, `b`, ... on the upstream `gpu` unless said otherwise."""

    def __init__(
        self,
        accounts: str | list[AccountSpec] = "a",
        upstreams: list[UpstreamSpec] | None = None,
        **limits: Any,
    ) -> None:
        self.time = Time()
        self.limits = Limits(**limits)
        self.queue = AccountQueue(self.limits, clock=self.time, wall=self.time, call_later=self.time.call_later)
        self.upstreams = upstreams or [upstream()]
        self.accounts = [account(name) for name in accounts] if isinstance(accounts, str) else accounts
        self.apply()

    def apply(self, **limits: Any) -> None:
        self.limits = msgspec.structs.replace(self.limits, **limits)
        self.queue.apply(self.upstreams, self.accounts, self.limits)

    def want(self, **fields: Any) -> Want:
        fields.setdefault("upstreams", tuple(server.name for server in self.upstreams))
        fields.setdefault("model", "m")
        return Want(**fields)

    async def run(self, patience: float = 60, **fields: Any) -> Lease:
        """A lease that must be there at once."""
        ask = self.ask(patience, **fields)
        await settle()
        assert ask.done(), "it waits"
        return ask.result()

    def ask(self, patience: float = 60, **fields: Any) -> asyncio.Task[Lease]:
        """A task that asks for a lease and keeps it."""
        return asyncio.create_task(self.queue.acquire(self.want(**fields), patience))

    def in_use(self) -> dict[str, int]:
        return {slot.account.label: slot.inflight for slot in self.queue.slots}


async def settle() -> None:
    """Let every task run as far as it can."""
    for _ in range(5):
        await asyncio.sleep(0)
