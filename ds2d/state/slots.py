"""What is counted of each account: its running leases, its place in the rotation, what keeps it from serving now.

Rule: nothing here waits or calls anybody; `AccountQueue` asks and changes, in one synchronous step.
Surprise: accounts of one `group` are one budget: slots (as many as the largest of them has), request gap, and cool-downs for
rate, concurrency and balance are theirs together. An account without a group is a budget of its own.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from enum import IntEnum
from typing import NamedTuple

from ds2d.core.account import Account
from ds2d.core.load import Load
from ds2d.core.settings import BreakerSpec
from ds2d.state.breakers import SHARED, Breaker, Cause, Gate, Verdict


class Standing(IntEnum):
    """Whether an account can take a request now; the order is from best to worst."""

    READY = 0
    BUSY = 1  # every slot taken, the request gap not over, or a probe under way: worth waiting for
    COOLING = 2  # aside until an announced time
    OPEN = 3  # aside until a guessed time


class Outlook(NamedTuple):
    """A standing, until when (0 where that is not known), and what made it so."""

    standing: Standing
    until: float = 0.0
    breaker: Breaker | None = None


READY = Outlook(Standing.READY)
BUSY = Outlook(Standing.BUSY)


class Budget:
    """What accounts of a group share; `members` are those that config names now."""

    __slots__ = ("free_at", "gate", "inflight", "limit", "members")

    def __init__(self) -> None:
        self.members: list[Slot] = []
        self.limit = 0
        self.inflight = 0
        self.free_at = 0.0  # when the request gap is over
        self.gate = Gate()


class Slot:
    """One account: `inflight` leases of at most `limit` are out. `turn` is its place in the rotation, smallest next."""

    __slots__ = (
        "account", "budget", "failures", "gate", "inflight", "last_error", "last_used", "limit", "pool", "seq", "turn", "weight"
    )  # fmt: skip

    def __init__(self, account: Account) -> None:
        self.account = account
        self.pool = Pool(account.upstream)
        self.budget = Budget()
        self.gate = Gate()
        self.limit = 0
        self.inflight = 0
        self.weight = 1.0
        self.turn = 0.0
        self.seq = 0
        self.failures = 0
        self.last_used: float | None = None  # wall time, for people
        self.last_error: Cause | None = None

    def breakers(self, model: str) -> list[Breaker]:
        """All that a request for `model` on this account has to pass."""
        return self.gate.breakers(model) + self.budget.gate.breakers(model)

    def outlook(self, model: str, now: float) -> Outlook:
        """Whether a request for `model` can run here now, and if not, how long that will be so."""
        budget = self.budget
        busy = self.inflight >= self.limit or budget.inflight >= budget.limit or now < budget.free_at
        worst = BUSY if busy else READY
        for breaker in self.breakers(model):
            seen = _outlook(breaker, now)
            if (seen.standing, seen.until) > (worst.standing, worst.until):
                worst = seen
        return worst

    def takes(self, model: str, now: float) -> bool:
        """Whether a request for `model` may be sent here now: the account is ready, and its server makes nobody wait."""
        return not self.pool.server.full and self.outlook(model, now).standing is Standing.READY

    def join(self, budget: Budget, pool: Pool) -> None:
        """Become a member of both; what cannot be used stands in no rotation. The budget's inflight is the caller's to count."""
        self.budget, self.pool = budget, pool
        budget.members.append(self)
        budget.limit = max(budget.limit, self.limit)
        pool.limit += self.limit
        if self.account.usable:
            pool.add(self)

    def probe(self, model: str, now: float) -> tuple[Breaker, ...]:
        """A request starts here: the half-open breakers whose probe it is."""
        probed = tuple(breaker for breaker in self.breakers(model) if breaker.state(now) == "half_open")
        for breaker in probed:
            breaker.probing = True
        return probed

    def fault(self, verdict: Verdict, model: str, now: float, rule: BreakerSpec) -> None:
        """Count a fault against the account, or against its budget where the others of the group feel it too."""
        self.failures += 1
        self.last_error = verdict.cause
        gate = self.budget.gate if verdict.cause in SHARED else self.gate
        gate.fault(verdict, model, now, rule)


def _outlook(breaker: Breaker, now: float) -> Outlook:
    state = breaker.state(now)
    if state == "open":
        return Outlook(Standing.OPEN, breaker.open_until, breaker)
    if state == "cooling":
        return Outlook(Standing.COOLING, breaker.cool_until, breaker)
    return Outlook(Standing.BUSY, 0.0, breaker) if state == "half_open" and breaker.probing else READY


class Server:
    """One upstream's whole work: our leases (`inflight`), and what its gauges said at the last look.

    While it makes requests wait, it is held at as many as it runs; when it no longer does, it may have a little more at each
    look, so that nobody waits there for a slot that another server has, or that we know better whom to give.
    """

    __slots__ = ("ceiling", "inflight", "others")

    def __init__(self) -> None:
        self.inflight = 0
        self.others = 0  # requests that it has beyond ours
        self.ceiling: int | None = None

    @property
    def load(self) -> int:
        """Requests that it has now, as well as can be told between two looks."""
        return max(0, self.inflight + self.others)

    @property
    def full(self) -> bool:
        """Whether one more would wait there. One of ours may always be there, whoever else fills the server."""
        return self.ceiling is not None and self.inflight > 0 and self.load >= self.ceiling

    def gauged(self, load: Load | None, ours: int) -> None:
        """Take over what it says of itself; None: it does not say any more. `ours` are our leases while it was asked, the most
        of them: it sees a request later than we do, so that fewer are no sign that it has room."""
        if load is None:
            self.others, self.ceiling = 0, None
            return
        self.others = max(0, load.requests - ours)
        if load.waiting:
            self.ceiling = max(1, load.running)
        elif self.ceiling is not None and load.running >= self.ceiling:
            self.ceiling = load.running + max(1, load.running // 8)


class Pool:
    """The accounts of one upstream, in rotation: the one whose turn came longest ago stands first."""

    __slots__ = ("limit", "name", "order", "server")

    def __init__(self, name: str, server: Server | None = None) -> None:
        self.name = name
        self.server = server or Server()
        self.order: list[tuple[float, int, Slot]] = []
        self.limit = 0

    def add(self, slot: Slot) -> None:
        """Put it where its turn has it."""
        insort(self.order, (slot.turn, slot.seq, slot))

    def move(self, slot: Slot, turn: float, seq: int) -> None:
        """Give it a new turn. `seq` tells equal turns apart, and no two slots have the same."""
        del self.order[bisect_left(self.order, (slot.turn, slot.seq))]
        slot.turn, slot.seq = turn, seq
        self.add(slot)
