"""The two sides of the account queue: what a request wants and gets, and the lines in which it waits.

Rule: requests that accept the same accounts for the same model stand in one lane, so a freed slot is offered once a lane, not
once a waiter; within a lane the order is a sorted list of places.
Surprise: a waiter whose task was cancelled stands in its lane until that task runs again; its future says that it has gone.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left, insort
from collections.abc import Callable, Hashable, Iterator
from typing import Literal, Protocol

import msgspec

from ds2d.core.account import Account
from ds2d.core.errors import GatewayError
from ds2d.core.settings import BreakerSpec
from ds2d.state.breakers import Breaker
from ds2d.state.slots import Pool, Slot

Place = tuple[float, int]
"""Where a waiter stands: its tag on the fair-share clock, then its number of arrival. The smallest goes first."""


class Timer(Protocol):
    """What `call_later` returns."""

    def cancel(self) -> None: ...


CallLater = Callable[[float, Callable[[], None]], Timer]
"""Run a function after so many seconds, as the event loop's method of that name does."""


class Ceiling(Protocol):
    """The part of config's `runtime.affinity` that is about load."""

    @property
    def load_ceiling(self) -> float: ...


class Limits(Protocol):
    """The part of config's `runtime` that is about accounts and queue; meaning and bounds are config.md 2's."""

    @property
    def account_max_inflight(self) -> int: ...
    @property
    def account_max_queue(self) -> int: ...
    @property
    def global_max_inflight(self) -> int: ...
    @property
    def min_request_gap_ms(self) -> int: ...
    @property
    def breaker(self) -> BreakerSpec: ...
    @property
    def routing(self) -> Literal["least_loaded", "weighted"]: ...
    @property
    def affinity(self) -> Ceiling: ...


class Want(msgspec.Struct, frozen=True):
    """What a request needs: any account of these upstreams, for this public model.

    `pin` is X-Ds2-Target-Account. `caller` and `weight` share the queue between keys. `avoid` are ids of accounts that this
    turn tried already: they come into question only where no other is left. `direct`: the caller brings its own token.
    `prefer` is the upstream that has the conversation in its cache. `guest`: another generation of the
    daemon asks, for a turn of its own (shared_accounts.py).
    """

    upstreams: tuple[str, ...]
    model: str
    pin: str | None = None
    caller: str = ""
    weight: float = 1.0
    avoid: frozenset[str] = frozenset()
    direct: bool = False
    prefer: str | None = None
    guest: bool = False

    @property
    def lane(self) -> Hashable:
        """Equal for wants that the same accounts can serve."""
        return self.upstreams, self.model, self.pin, self.avoid, self.direct


class Owner(Protocol):
    """Who hears of a lease's fate."""

    def reported(self, lease: Lease, outcome: GatewayError | None) -> None: ...
    def charged(self, lease: Lease, tokens: int) -> None: ...


class Lease:
    """The right to use `account` now. `waited` is seconds; `position` the place in the queue on arrival, 0 if none waited.
    `number` tells it from others of this process (0: another process counts it)."""

    __slots__ = ("account", "began", "number", "owner", "position", "probes", "slot", "waited", "want")

    def __init__(self, owner: Owner, want: Want, slot: Slot, began: float, probes: tuple[Breaker, ...]) -> None:
        self.owner = owner
        self.want = want
        self.slot = slot
        self.account: Account = slot.account
        self.began = began
        self.probes = probes
        self.number = 0
        self.waited = 0.0
        self.position = 0

    def report(self, outcome: GatewayError | None) -> None:
        """What came of it: None for an answer, else the error. Causes that are the caller's own are ignored; a lease that
        goes back without a report (the client left) says nothing about its account."""
        self.owner.reported(self, outcome)

    def charge(self, tokens: int) -> None:
        """How many tokens the turn used in the end, for the fairness between keys."""
        self.owner.charged(self, tokens)


class Waiter:
    """A request in the queue. `future` gets its lease, or the error that ends its wait. Times are the queue's clock."""

    __slots__ = ("arrived", "deadline", "future", "lane", "place", "position", "timer", "want")

    def __init__(self, want: Want, lane: Lane, place: Place, arrived: float, timeout: float) -> None:
        self.want = want
        self.lane = lane
        self.place = place
        self.arrived = arrived
        self.deadline = arrived + timeout
        self.future: asyncio.Future[Lease] = asyncio.get_running_loop().create_future()
        self.position = 0
        self.timer: Timer | None = None


class Lane:
    """Those who wait for the same accounts and model. `only` narrows the pools' accounts (pin, avoid)."""

    __slots__ = ("only", "places", "pools", "waiters", "want")

    def __init__(self, want: Want, pools: tuple[Pool, ...], only: frozenset[str] | None) -> None:
        self.want = want
        self.pools = pools
        self.only = only
        self.places: list[Place] = []  # sorted, the first goes first
        self.waiters: dict[Place, Waiter] = {}

    def slots(self) -> Iterator[Slot]:
        """Its accounts, each pool in rotation."""
        for pool in self.pools:
            for _, _, slot in pool.order:
                if self.only is None or slot.account.id in self.only:
                    yield slot

    def holds(self, slot: Slot) -> bool:
        """Whether the account is one of its own."""
        return slot.account.usable and slot.pool in self.pools and (self.only is None or slot.account.id in self.only)

    def first(self) -> Waiter:
        """Who goes next. There is somebody: lanes without waiters are not kept."""
        return self.waiters[self.places[0]]

    def ahead(self, place: Place) -> int:
        """How many stand before this place."""
        return bisect_left(self.places, place)

    def add(self, waiter: Waiter) -> None:
        """Let it stand in its place."""
        insort(self.places, waiter.place)
        self.waiters[waiter.place] = waiter

    def remove(self, waiter: Waiter) -> bool:
        """Take it out; whether it still stood here."""
        if self.waiters.pop(waiter.place, None) is None:
            return False
        del self.places[bisect_left(self.places, waiter.place)]
        return True
