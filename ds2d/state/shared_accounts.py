"""Accounts that several generations of the daemon use at once.

Rule: one process decides, the newest; here its queue counts what the others hold as its own leases, and theirs sends every
wish to it. Each keeps its own count as well, so that it can decide again when the leader dies.
Surprise: requests that waited here when another process took over wait there from then on; their clients notice nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import msgspec

from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.settings import AccountSpec, UpstreamSpec
from ds2d.state.accounts import AccountQueue
from ds2d.state.breakers import Cause
from ds2d.state.leader import Leader, LeaderLost
from ds2d.state.leases import CallLater, Lease, Limits, Waiter, Want
from ds2d.state.refusals import unavailable
from ds2d.state.slots import BUSY, Slot

AGREE = 2.0
"""Seconds in which two processes that read one file have taken up the same config."""


class BreakerState(msgspec.Struct):
    """A breaker as it stands; `model` is empty for the one of the whole account. Times are the system's monotonic clock, which
    all processes of a boot share."""

    model: str
    faults: dict[Cause, int]
    cool_until: float
    open_until: float
    cause: Cause | None
    window: str | None


class AccountState(msgspec.Struct):
    """What is known of an account, or of a group's budget (`kind` group), beside the leases that are out."""

    kind: str
    name: str
    breakers: list[BreakerState]
    failures: int = 0
    last_error: Cause | None = None
    last_used: float | None = None


class Held(msgspec.Struct):
    """A lease that another process holds, under its own number; `probe`: it is the one request of a half-open breaker."""

    number: int
    account: str
    want: Want
    probe: bool = False


class SharedQueue(AccountQueue):
    """An account queue that can lead and follow. `leader` is None while it decides itself."""

    def __init__(self, limits: Limits, *, call_later: CallLater | None = None, **kwargs: Any) -> None:
        super().__init__(limits, call_later=call_later, **kwargs)
        self._later = call_later
        self._disagreeing: set[asyncio.Future[None]] = set()
        self.leader: Leader | None = None
        self._own: dict[int, Lease] = {}
        self._moving: set[asyncio.Task[None]] = set()

    # Following

    def follow(self, leader: Leader | None) -> None:
        """Let another process decide from now on, or again this one (None). Who waits here waits there, in the same order."""
        self.leader = leader
        if leader is None:
            self._grant(self.clock())
            return
        lanes = [lane.waiters.values() for lane in self._lanes.values()]
        for waiter in sorted((waiter for lane in lanes for waiter in lane), key=lambda waiter: waiter.place):
            self._leave(waiter)
            if not waiter.future.done():
                self._move(waiter)

    def held(self) -> list[Held]:
        """What turns of this process hold now."""
        return [Held(number, lease.account.id, lease.want, bool(lease.probes)) for number, lease in self._own.items()]

    async def acquire(self, want: Want, patience: float) -> Lease:
        if self.leader is None:
            return await super().acquire(want, patience)
        return await self._acquire_there(self.leader, want, patience)

    def release(self, lease: Lease) -> None:
        super().release(lease)
        if self._own.pop(lease.number, None) is not None and self.leader is not None:
            self.leader.released(lease.number)

    def reported(self, lease: Lease, outcome: GatewayError | None) -> None:
        super().reported(lease, outcome)
        if self.leader is not None and lease.number in self._own:
            self.leader.reported(lease.number, outcome)

    def charged(self, lease: Lease, tokens: int) -> None:
        super().charged(lease, tokens)
        if self.leader is not None and lease.number in self._own:
            self.leader.charged(lease.number, tokens)

    async def _acquire_there(self, leader: Leader, want: Want, patience: float) -> Lease:
        began, number = self.clock(), next(self._numbers)
        try:
            account = await leader.acquire(number, want, patience)
            await self._agreed(lambda: self._slot(account) is not None)
        except LeaderLost:
            return await self.acquire(want, max(0.0, began + patience - self.clock()))
        except asyncio.CancelledError:
            leader.released(number)
            raise
        slot = self._slot(account)
        if slot is None:  # the leader's config names an account that this one's does not
            leader.released(number)
            raise unavailable(want, BUSY, self.clock())
        lease = self._give(want, slot, 0.0, self.clock(), number)
        lease.waited = self.clock() - began
        return lease

    def _move(self, waiter: Waiter) -> None:
        """Wait elsewhere for what this waiter waits for."""

        async def wait() -> None:
            try:
                lease = await self.acquire(waiter.want, max(0.0, waiter.deadline - self.clock()))
            except GatewayError as error:
                if not waiter.future.done():
                    waiter.future.set_exception(error)
                return
            if waiter.future.done():
                self.release(lease)
                return
            lease.waited, lease.position = self.clock() - waiter.arrived, waiter.position
            waiter.future.set_result(lease)

        task = asyncio.get_running_loop().create_task(wait())
        self._moving.add(task)
        task.add_done_callback(self._moving.discard)
        waiter.future.add_done_callback(lambda future: task.cancel() if future.cancelled() else None)

    def apply(self, upstreams: Sequence[UpstreamSpec], accounts: Iterable[AccountSpec], limits: Limits) -> None:
        super().apply(upstreams, accounts, limits)
        for future in self._disagreeing:
            _look_again(future)

    async def _agreed(self, known: Callable[[], bool]) -> bool:
        """Whether this process's config knows of something, at the latest once it is the one that the other process has. Both
        read the same file, but not in the same moment, and no request fails because of a reload."""
        end = self.clock() + AGREE
        later = self._later or asyncio.get_running_loop().call_later
        while not known() and self.clock() < end:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            timer = later(end - self.clock(), partial(_look_again, future))
            self._disagreeing.add(future)
            try:
                await future
            finally:
                timer.cancel()
                self._disagreeing.discard(future)
        return known()

    # Leading

    async def acquire_for(self, want: Want, patience: float) -> Lease:
        """A lease for another process, which counts here like an own one. Raises like `acquire`."""
        want = _as_guest(want)
        try:
            return await self.acquire(want, patience)
        except GatewayError as error:
            if (
                error.kind is not ErrorKind.MODEL_UNAVAILABLE
                or self._knows(want)
                or not await self._agreed(lambda: self._knows(want))
            ):
                raise
        return await self.acquire(want, patience)

    def _knows(self, want: Want) -> bool:
        """Whether there are accounts here for all that is wanted."""
        return set(want.upstreams) <= {slot.account.upstream for slot in self.roster.slots.values()}

    def adopt(self, held: Held) -> Lease | None:
        """Count a lease that another process holds already, whatever the limits say; None: there is no such account here."""
        slot = self._slot(held.account)
        if slot is None:
            return None
        probed = {breaker for breaker in slot.breakers(held.want.model) if breaker.probing}
        lease = self._give(_as_guest(held.want), slot, 0.0, self.clock())
        if not held.probe:  # it began before the breaker opened: no verdict on it
            for breaker in lease.probes:
                breaker.probing = breaker in probed
            lease.probes = ()
        return lease

    def save(self) -> list[AccountState]:
        """What is known of accounts and groups, for the process that takes over."""
        found = []
        for slot in self.roster.slots.values():
            breakers = _breakers(slot.gate.whole, slot.gate.models)
            known = slot.failures, slot.last_error, slot.last_used
            if breakers or any(known):
                found.append(AccountState("account", slot.account.id, breakers, *known))
        for (kind, name), budget in self.roster.budgets.items():
            if breakers := _breakers(budget.gate.whole, budget.gate.models):
                found.append(AccountState(kind or "budget", name, breakers))
        return found

    def load(self, states: list[AccountState]) -> None:
        """Take over what an older process knew. What only it knows of is left out."""
        now = self.clock()
        for state in states:
            slot = self.roster.slots.get(state.name) if state.kind == "account" else None
            budget = self.roster.budgets.get(("group" if state.kind == "group" else "", state.name))
            if slot is not None:
                slot.failures, slot.last_error, slot.last_used = state.failures, state.last_error, state.last_used
            gate = slot.gate if slot is not None else budget.gate if budget is not None and state.kind != "account" else None
            if gate is None:
                continue
            for one in state.breakers:
                breaker = gate.of(one.model)
                breaker.faults, breaker.cool_until, breaker.open_until = dict(one.faults), one.cool_until, one.open_until
                breaker.cause, breaker.window = one.cause, one.window
                self._changes.expect(max(one.open_until, one.cool_until), now, self.waiting > 0)

    def _slot(self, account: str) -> Slot | None:
        return self.roster.slots.get(account) or self.roster.leaving.get(account)

    def _give(self, want: Want, slot: Slot, tag: float, now: float, number: int = 0) -> Lease:
        lease = super()._give(want, slot, tag, now)
        if not want.guest:
            lease.number = number or next(self._numbers)
            self._own[lease.number] = lease
        return lease


def _as_guest(want: Want) -> Want:
    """The same wish, asked by another process: that one counts it as its own."""
    return msgspec.structs.replace(want, guest=True)


def _look_again(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _breakers(whole: Any, models: dict[str, Any]) -> list[BreakerState]:
    return [
        BreakerState(model, dict(one.faults), one.cool_until, one.open_until, one.cause, one.window)
        for model, one in [("", whole), *models.items()]
        if not one.idle
    ]
