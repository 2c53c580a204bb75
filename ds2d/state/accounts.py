"""Who may call which account now.

Rule: every decision is one synchronous method, so nothing can change in the middle of it; only waiting is async. While anybody
waits, no account could serve one of them; a slot that was granted is given back exactly once, whatever became of its request.
Surprise: a waiter can be cancelled in the very tick in which it is granted a slot. The slot is then its to return. And accounts
become free by time alone (request gap, cool-down, breaker), so a timer makes decisions too (changes.py). Who there is: roster.py.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from itertools import count
from math import inf

from ds2d.core.account import Account
from ds2d.core.errors import GatewayError
from ds2d.core.load import Load
from ds2d.core.settings import AccountSpec, UpstreamSpec
from ds2d.core.sizes import Size, Sizes
from ds2d.state.breakers import AT_ONCE, Cause, judge
from ds2d.state.changes import MAX_CHANGES, Changes
from ds2d.state.choice import in_order
from ds2d.state.fairness import MAX_REMEMBERED, DrainRate, FairShare
from ds2d.state.leases import CallLater, Lane, Lease, Limits, Place, Waiter, Want
from ds2d.state.refusals import queue_full, queue_timeout, unavailable
from ds2d.state.roster import Roster, is_another
from ds2d.state.slots import Outlook, Slot, Standing

__all__ = ["AccountQueue", "Lease", "Limits", "Want"]

NOBODY = Outlook(Standing.OPEN)


class AccountQueue:
    """Accounts in rotation, and the requests that wait for one.

    `clock` is monotonic seconds, `wall` Unix seconds that are only shown. `call_later` is the running loop's unless a test
    brings its own.
    """

    def __init__(
        self,
        limits: Limits,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        call_later: CallLater | None = None,
    ) -> None:
        self.limits = limits
        self.clock = clock
        self.running = 0
        self.waiting = 0
        self.wall = wall
        self.roster = Roster()
        self._lanes: dict[Hashable, Lane] = {}  # those where somebody waits
        self._queued: dict[str, int] = {}  # waiting requests by caller
        self._turn = 0.0
        self._numbers = count(1)
        self._share = FairShare()
        self._drain = DrainRate()
        self._changes = Changes(lambda: self._grant(self.clock()), call_later)

    @property
    def capacity(self) -> int:
        """How many leases may be out: `global_max_inflight`, else the sum over accounts, a group counted once."""
        return self.limits.global_max_inflight or self.roster.capacity

    @property
    def bound(self) -> int:
        """How many requests may wait."""
        return self.limits.account_max_queue or self.capacity

    @property
    def slots(self) -> Sequence[Slot]:
        """Every account in config order, as it stands; for reports, not to be changed."""
        return list(self.roster.slots.values())

    @property
    def waiting_by_caller(self) -> dict[str, int]:
        """How many requests of each caller (by id) wait."""
        return dict(self._queued)

    def sizes(self) -> Sizes:
        """What is held for leases, for those who wait, and for the time after."""
        return {
            "running": Size(self.running, max(self.capacity, self.running)),
            "waiting": Size(self.waiting, self.bound),
            "accounts_leaving": Size(len(self.roster.leaving), self.running),
            "lanes": Size(len(self._lanes), self.waiting),
            "callers_waiting": Size(len(self._queued), self.waiting),
            "callers_remembered": Size(len(self._share), MAX_REMEMBERED),
            "changes_expected": Size(len(self._changes), MAX_CHANGES),
        }

    def account_of(self, upstream: str) -> Account | None:
        """Any usable account of this upstream, for calls that are no turn, such as looking at its model list."""
        return self.roster.account_of(upstream)

    def upstreams_of(self, pin: str) -> frozenset[str]:
        """The upstreams of the accounts that this name means (X-Ds2-Target-Account)."""
        return frozenset(slot.account.upstream for slot in self.roster.slots.values() if slot.account.answers_to(pin))

    def expected_wait(self) -> float:
        """Seconds that a request would wait which came now, by the measured rate; 1 at least, as in a Retry-After."""
        return max(1.0, self._drain.wait(self.waiting + 1, self.capacity))

    # Leases

    async def acquire(self, want: Want, patience: float) -> Lease:
        """A slot, waited for up to `patience` seconds (0: never): whoever gets a lease from here owes one `release`.

        Raises GatewayError, each with `retry_after`: MODEL_UNAVAILABLE at once where waiting cannot help (no such account,
        or all put aside for longer), QUEUE_FULL at once when too many wait already, QUEUE_TIMEOUT when the time is up.
        """
        got = self._arrive(want, patience)
        if isinstance(got, Lease):
            return got
        try:
            return await got.future
        except asyncio.CancelledError:
            self._abandon(got)
            raise

    def release(self, lease: Lease) -> None:
        """Give a lease back, once. A request that waits for such a slot has it when this returns."""
        now = self.clock()
        slot = lease.slot
        was_full = self.running >= (self.limits.global_max_inflight or inf) or slot.pool.server.full
        self._count(slot, -1)
        for breaker in lease.probes:
            breaker.probing = False  # without a verdict the next request is the probe
        if not slot.inflight:
            self.roster.leaving.pop(slot.account.id, None)
        self._drain.answered(now - lease.began)
        self._grant(now, None if was_full or lease.probes else slot.budget.members)

    def reported(self, lease: Lease, outcome: GatewayError | None) -> None:
        """See `Lease.report`."""
        slot, model, now = lease.slot, lease.want.model, self.clock()
        if is_another(lease.account, slot.account):
            return  # the config has another token or server by now: this is no news about that one
        verdict = judge(outcome) if outcome else None
        if outcome is None:
            slot.gate.success(model, lease.probes, now)
            slot.budget.gate.success(model, lease.probes, now)
        elif verdict is None or (slot.account.direct and verdict.cause is not Cause.SERVER):
            return  # the caller's own fault; a direct caller's token is its own affair too
        elif verdict.cause in AT_ONCE and slot.account.spec is None:
            slot.failures += 1  # an implicit account has no credential that could be put aside
        else:
            slot.fault(verdict, model, now, self.limits.breaker)
            for breaker in slot.breakers(model):
                self._changes.expect(max(breaker.open_until, breaker.cool_until), now, self.waiting > 0)
            self._refuse_hopeless(now)
        if lease.probes:
            lease.probes = tuple(breaker for breaker in lease.probes if breaker.probing)
            self._grant(now)

    def charged(self, lease: Lease, tokens: int) -> None:
        """See `Lease.charge`."""
        self._share.settle(lease.want.caller, lease.want.weight, tokens)

    # Changes from outside

    def apply(self, upstreams: Sequence[UpstreamSpec], accounts: Iterable[AccountSpec], limits: Limits) -> None:
        """Take over a config. Running leases are kept and counted; waiters that fit a new limit have a lease when this returns.

        Accounts that went run their leases out, and count again if they come back meanwhile.
        """
        self.limits = limits
        self.roster.apply(upstreams, accounts, limits, self._newcomer)
        now = self.clock()
        gap_ends = now + limits.min_request_gap_ms / 1000
        for budget in self.roster.budgets.values():
            if budget.free_at > gap_ends:  # a gap that was longer, by mistake perhaps
                budget.free_at = gap_ends
                self._changes.expect(gap_ends, now, self.waiting > 0)
        for lane in self._lanes.values():
            lane.pools, lane.only = self.roster.reach(lane.want, now)
        self._refuse_hopeless(now)
        self._grant(now)

    def rotate(self) -> Slot | None:
        """Let the next request start at the following account; returns that one (None: there are no accounts)."""
        first = self.current()
        if first is not None:
            first.pool.move(first, max(slot.turn for slot in self.roster.slots.values()), next(self._numbers))
        return self.current()

    def current(self) -> Slot | None:
        """The account that the next request starts at, if it can serve its model."""
        now = self.clock()
        listed = [slot for slot in self.roster.slots.values() if slot.account.usable and not slot.account.direct]
        ready = [slot for slot in listed if slot.outlook("", now).standing < Standing.COOLING]
        return min(ready or listed, key=lambda slot: (slot.turn, slot.seq), default=None)

    def reset(self, account_id: str | None = None) -> None:
        """Counters to zero, breakers closed, nothing aside: for one account or all. Running leases are not touched."""
        for slot in self.roster.slots.values():
            if account_id in (None, slot.account.id):
                slot.gate.close()
                slot.budget.gate.close()
                slot.failures, slot.last_error = 0, None
        self._grant(self.clock())

    def recovered(self, upstream: str) -> None:
        """This upstream was seen to serve again: what was put aside because its server failed is back at once."""
        for slot in self.roster.slots.values():
            if slot.account.upstream == upstream:
                slot.gate.close(Cause.SERVER)
                slot.budget.gate.close(Cause.CONCURRENCY)
        self._grant(self.clock())

    def gauged(self, upstream: str, load: Load | None, ours: int | None = None) -> bool:
        """What this upstream says of its own work (None: nothing), and our leases while it was asked. True where it is full, so
        that requests are held here and the next look should be soon."""
        server = self.roster.servers.get(upstream)
        if server is None:
            return False
        server.gauged(load, max(server.inflight, ours or 0))
        self._grant(self.clock())
        return server.full

    def inflight(self, upstream: str) -> int:
        """Our leases on this upstream."""
        server = self.roster.servers.get(upstream)
        return 0 if server is None else server.inflight

    # Decisions

    def _arrive(self, want: Want, timeout: float) -> Lease | Waiter:
        """A lease if an account is free now, else a place in the queue."""
        now = self.clock()
        if self.waiting and self._changes.overdue(now):
            self._grant(now)  # the timer is late: those who wait go first
        lane = self._lanes.get(want.lane) or Lane(want, *self.roster.reach(want, now))
        if not lane.places and (slot := self._pick(lane, now, None, want.prefer)):
            tag = self._share.tag(want.caller, want.weight, want.caller not in self._queued)
            return self._give(want, slot, tag, now)
        prospect = self._prospect(lane, now)
        if prospect is not None and (want.avoid or now + timeout < prospect[0]):  # a second attempt waits out no cool-down
            raise unavailable(want, prospect[1], now)
        if self.waiting >= self.bound:
            raise queue_full(self.waiting, self.expected_wait())
        if timeout <= 0:
            raise queue_timeout(0, self.expected_wait())
        return self._enqueue(lane, now, timeout, want)

    def _enqueue(self, lane: Lane, now: float, timeout: float, want: Want) -> Waiter:
        tag = self._share.tag(want.caller, want.weight, want.caller not in self._queued)
        waiter = Waiter(want, lane, (tag, next(self._numbers)), now, timeout)
        waiter.position = 1 + sum(other.ahead(waiter.place) for other in self._lanes.values())
        waiter.timer = self._changes.later(timeout, lambda: self._expire(waiter))
        lane.add(waiter)
        self._lanes[want.lane] = lane
        self._queued[want.caller] = self._queued.get(want.caller, 0) + 1
        self.waiting += 1
        self._changes.set_alarm(now, self.waiting > 0)
        return waiter

    def _grant(self, now: float, freed: Iterable[Slot] | None = None) -> None:
        """Serve as many waiters as there are accounts for. `freed`: only these can have become free since the last time."""
        while self.waiting and (best := self._next(now, freed)):
            lane, slot = best
            waiter = lane.first()
            self._leave(waiter)
            if waiter.future.done():  # its task is cancelled and has not run since
                self._forgo(waiter)
                continue
            lease = self._give(waiter.want, slot, waiter.place[0], now)
            lease.waited, lease.position = now - waiter.arrived, waiter.position
            self._drain.granted(now)
            waiter.future.set_result(lease)
        self._changes.set_alarm(now, self.waiting > 0)

    def _next(self, now: float, freed: Iterable[Slot] | None) -> tuple[Lane, Slot] | None:
        """The lane whose first waiter goes next, and its account: the smallest place of those that can be served."""
        best: tuple[Lane, Slot] | None = None
        place: Place | None = None
        for lane in self._lanes.values():
            if place is None or lane.places[0] < place:
                slot = self._pick(lane, now, freed, lane.first().want.prefer)
                if slot is not None:
                    best, place = (lane, slot), lane.places[0]
        return best

    def _pick(self, lane: Lane, now: float, freed: Iterable[Slot] | None = None, prefer: str | None = None) -> Slot | None:
        """A ready account for this lane: of the first upstream that has one, the one whose turn it is."""
        if self.running >= (self.limits.global_max_inflight or inf):
            return None
        model = lane.want.model
        if freed is not None:
            ready = [slot for slot in freed if lane.holds(slot) and slot.takes(model, now)]
            return min(ready, key=lambda slot: (slot.turn, slot.seq), default=None)
        for pool in in_order(lane.pools, self.limits.routing, prefer, self.limits.affinity.load_ceiling):
            if pool.server.full:
                continue
            for _, _, slot in pool.order:
                if (lane.only is None or slot.account.id in lane.only) and slot.outlook(model, now).standing is Standing.READY:
                    return slot
        return None

    def _give(self, want: Want, slot: Slot, tag: float, now: float) -> Lease:
        """Count a lease on this account and move it to the end of the rotation."""
        self._count(slot, 1)
        slot.last_used = self.wall()
        self._turn = max(self._turn, slot.turn)
        step = 1 / slot.weight if self.limits.routing == "weighted" else 1.0
        slot.pool.move(slot, self._turn + step, next(self._numbers))
        if gap := self.limits.min_request_gap_ms / 1000:
            slot.budget.free_at = now + gap
            self._changes.expect(now + gap, now, self.waiting > 0)
        self._share.granted(tag)
        return Lease(self, want, slot, now, slot.probe(want.model, now))

    def _count(self, slot: Slot, step: int) -> None:
        """A lease more or less."""
        self.running += step
        slot.inflight += step
        slot.budget.inflight += step
        slot.pool.server.inflight += step

    # Those for whom waiting ends

    def _prospect(self, lane: Lane, now: float) -> tuple[float, Outlook] | None:
        """For a lane that nobody can serve now or soon: when the first announced cool-down ends (inf: none is announced), and
        the account that is back first. None where somebody serves, at the latest when a running lease ends."""
        announced, back = inf, NOBODY
        for slot in lane.slots():
            outlook = slot.outlook(lane.want.model, now)
            if outlook.standing <= Standing.BUSY:
                return None
            if outlook.standing is Standing.COOLING:
                announced = min(announced, outlook.until)
            if back is NOBODY or outlook.until < back.until:
                back = outlook
        return announced, back

    def _refuse_hopeless(self, now: float) -> None:
        """Accounts were put aside or taken away: send off those whom no wait can help any more."""
        for lane in list(self._lanes.values()):
            prospect = self._prospect(lane, now)
            if prospect is not None:
                announced, back = prospect
                for waiter in [waiter for waiter in lane.waiters.values() if waiter.deadline < announced]:
                    self._end(waiter, unavailable(waiter.want, back, now))

    def _expire(self, waiter: Waiter) -> None:
        """The waiter's time is up."""
        self._end(waiter, queue_timeout(waiter.deadline - waiter.arrived, self.expected_wait()))

    def _end(self, waiter: Waiter, error: GatewayError) -> None:
        if self._leave(waiter):
            self._forgo(waiter)
            if not waiter.future.done():
                waiter.future.set_exception(error)

    def _abandon(self, waiter: Waiter) -> None:
        """The one who waited was cancelled: it leaves its place, or returns what it was granted in the same tick."""
        if self._leave(waiter):
            self._forgo(waiter)
        elif not waiter.future.cancelled() and waiter.future.exception() is None:
            self._forgo(waiter)
            self.release(waiter.future.result())

    def _forgo(self, waiter: Waiter) -> None:
        """It left unserved: its caller has used nothing of what it was taken to use."""
        self._share.settle(waiter.want.caller, waiter.want.weight, 0)

    def _leave(self, waiter: Waiter) -> bool:
        """Take it out of the queue; whether it was in it."""
        if not waiter.lane.remove(waiter):
            return False
        if not waiter.lane.places:
            self._lanes.pop(waiter.want.lane)
        caller = waiter.want.caller
        self._queued[caller] -= 1
        if not self._queued[caller]:
            del self._queued[caller]
        if waiter.timer is not None:
            waiter.timer.cancel()
        self.waiting -= 1
        if not self.waiting:
            self._drain.emptied()
            self._changes.set_alarm(self.clock(), somebody_waits=False)
        return True

    def _newcomer(self, account: Account) -> Slot:
        slot = Slot(account)
        slot.turn, slot.seq = self._turn, next(self._numbers)
        return slot
