"""Two or three generations of the daemon's state in one process, linked as real ones are, with one clock for all."""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from ds2d.core.caller import Caller
from ds2d.core.settings import KeySpec
from ds2d.generations import Shared
from ds2d.generations.follow import Following
from ds2d.generations.lead import Guest
from ds2d.net.link import Link, attach
from ds2d.state.accounts import Want
from ds2d.state.callers import Callers
from ds2d.state.leases import Lease
from ds2d.state.ledger_schema import Row
from ds2d.state.reasoning import ReasoningMemory
from ds2d.state.shared_accounts import SharedQueue
from ds2d.state.shared_quotas import SharedQuotas
from ds2d.state.shared_responses import SharedResponses
from tests.state.world import Limits, Time, account, upstream

NOON = datetime(2026, 11, 29, 12, tzinfo=UTC)
WANT = Want(("gpu",), "m", caller="k")


class Remembering(msgspec.Struct, frozen=True):
    memory_seconds: int = 1000
    memory_bytes: int = 1_000_000
    when_lost: Any = "empty"


class World:
    """A clock, and processes on it."""

    def __init__(self, folder: Path, accounts: str = "a", **limits: Any) -> None:
        self.time = Time()
        self.folder = folder
        self.limits = Limits(**{"account_max_queue": 50, **limits})
        self.accounts = [account(name) for name in accounts]
        self._numbers = itertools.count(1)
        self.bonds: list[Bond] = []
        self.ended: list[Row] = []
        """Turns that leaders were told of."""

    def process(self, keys: tuple[KeySpec, ...] = ()) -> Shared:
        """The state of one more process."""
        queue = SharedQueue(self.limits, clock=self.time, wall=self.time, call_later=self.time.call_later)
        queue.apply([upstream()], self.accounts, self.limits)
        quotas = SharedQuotas(self.time, lambda: NOON)
        callers = Callers(b"secret", lambda: NOON)
        callers.apply(keys, (), False)
        responses = SharedResponses(self.time, lambda prefix: f"{prefix}{next(self._numbers):024d}")
        return Shared(queue, quotas, callers, responses, ReasoningMemory(self.time, Remembering), {}, self.ended.append)

    async def follow(self, older: Shared, newer: Shared) -> Bond:
        """Let the older process follow the newer one, which learns first what the older one holds."""
        mine, theirs = socket.socketpair()
        links = Link(), Link()
        opened = asyncio.Event()
        opened.set()
        left: list[Guest] = []
        guest = Guest(links[1], newer, opened, left.append)
        for link, end in zip(links, (mine, theirs), strict=True):
            end.setblocking(False)
            await attach(link, end)
        newer.queue.load(older.queue.save())
        newer.quotas.restore(older.quotas.save())
        guest.adopt(1, older.queue.held(), older.quotas.held())
        following = Following(older, self.folder / "nowhere.sock", 1)
        following.begin(links[0])
        self.bonds.append(bond := Bond(guest, following, links[0], left))
        return bond

    async def close(self) -> None:
        """End every link."""
        for bond in self.bonds:
            bond.following.stop()
            bond.guest.close()
        await asyncio.sleep(0.01)


class Bond(NamedTuple):
    """The two sides of a following. `left`: the guest, once it is known to have gone."""

    guest: Guest
    following: Following
    link: Link
    left: list[Guest]

    async def kill_the_older(self) -> None:
        """Its end of the link closes, without a word."""
        self.link.lost = lambda: None
        self.link.close()
        await until(lambda: bool(self.left))


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop run until it is so; messages take a few rounds of it."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - what is waited for is no event
            await asyncio.sleep(0.001)


async def through(bond: Bond) -> None:
    """Return when everything that was said has arrived, both ways."""
    await bond.guest.sync()
    await bond.guest.sync()


def ask(process: Shared, patience: float = 60, want: Want = WANT) -> asyncio.Task[Lease]:
    """A request that waits for a lease and keeps it."""
    return asyncio.create_task(process.queue.acquire(want, patience))


def caller(spec: KeySpec | None = None) -> Caller:
    """Who asks."""
    return Caller("k", "k", spec)


def in_use(process: Shared) -> int:
    """Slots of the account that are taken."""
    return sum(slot.inflight for slot in process.queue.slots)
