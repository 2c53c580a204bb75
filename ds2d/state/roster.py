"""Who there is: the accounts of the config, the budgets that groups share, and the servers they are on.

Rule: a new config changes who there is and how much may run, never what does run: leases that are out are kept and counted.
Surprise: an account that went is kept for as long as its leases are out, and counts again if it comes back meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from ds2d.core.account import Account, accounts_of
from ds2d.core.settings import AccountSpec, UpstreamSpec
from ds2d.state.breakers import Cause
from ds2d.state.leases import Limits, Want
from ds2d.state.slots import Budget, Pool, Server, Slot, Standing


class Roster:
    """Every account in config order (`slots`), those that run their leases out (`leaving`), and what they share."""

    def __init__(self) -> None:
        self.slots: dict[str, Slot] = {}
        self.leaving: dict[str, Slot] = {}
        self.budgets: dict[tuple[str, str], Budget] = {}
        self.servers: dict[str, Server] = {}
        self.capacity = 0
        """How many leases all accounts may have out, a group counted once."""
        self._pools: dict[tuple[str, bool], Pool] = {}

    def apply(
        self,
        upstreams: Sequence[UpstreamSpec],
        accounts: Iterable[AccountSpec],
        limits: Limits,
        newcomer: Callable[[Account], Slot],
    ) -> None:
        """Take over a config; `newcomer` makes the slot of an account that was not there."""
        known = {**self.leaving, **self.slots}
        budgets, self.budgets = self.budgets, {}
        self.slots, self._pools = {}, {}
        self.servers = {one.name: self.servers.get(one.name) or Server() for one in upstreams}
        for account in accounts_of(upstreams, accounts):
            slot = known.pop(account.id, None) or newcomer(account)
            key = ("group", account.spec.group) if account.spec and account.spec.group else ("", account.id)
            self._install(slot, account, self.budgets.setdefault(key, _emptied(budgets.pop(key, None))), limits)
        self.leaving = {name: slot for name, slot in known.items() if slot.inflight}
        for server in self.servers.values():
            server.inflight = 0
        for slot in [*self.slots.values(), *self.leaving.values()]:
            slot.budget.inflight += slot.inflight
            slot.pool.server.inflight += slot.inflight
        self.capacity = sum(budget.limit for budget in self.budgets.values() if not budget.members[0].account.direct)

    def nearest(self, want: Want, count: int) -> list[Slot]:
        """Every account, or where there are more than `count`, so many of each wanted upstream whose turn is next."""
        if len(self.slots) <= count:
            return list(self.slots.values())
        pools = (self._pools.get((name, want.direct)) for name in want.upstreams)
        return [slot for pool in pools if pool is not None for _, _, slot in pool.order[:count]]

    def account_of(self, upstream: str) -> Account | None:
        """Any usable account of this upstream."""
        pool = self._pools.get((upstream, False))
        return pool.order[0][2].account if pool is not None and pool.order else None

    def reach(self, want: Want, now: float) -> tuple[tuple[Pool, ...], frozenset[str] | None]:
        """The upstreams' pools that have accounts, and the ids to narrow them to (None: all)."""
        found = (self._pools.get((name, want.direct)) for name in dict.fromkeys(want.upstreams))
        pools = tuple(pool for pool in found if pool is not None and pool.order)
        if want.pin is None and not want.avoid:
            return pools, None
        slots = [slot for pool in pools for _, _, slot in pool.order]
        if want.pin is not None:
            return pools, frozenset(slot.account.id for slot in slots if slot.account.answers_to(want.pin))
        others = [slot for slot in slots if slot.account.id not in want.avoid]
        serving = [slot for slot in others if slot.outlook(want.model, now).standing <= Standing.BUSY]
        return pools, frozenset(slot.account.id for slot in serving) or None

    def _install(self, slot: Slot, account: Account, budget: Budget, limits: Limits) -> None:
        """Give a slot its place in a new config. Inflight counts of budgets are added up afterwards."""
        if is_another(slot.account, account):
            slot.gate.close()  # what was wrong with the old one is no news about the new one
            budget.gate.close(Cause.BALANCE)
        slot.account = account
        server = self.servers.setdefault(account.upstream, Server())
        pool = self._pools.setdefault((account.upstream, account.direct), Pool(account.upstream, server))
        default = limits.account_max_inflight if account.spec else account.server.max_inflight
        slot.limit = 0 if not account.usable else (account.spec and account.spec.max_inflight) or default
        slot.weight = account.spec.weight if account.spec else 1.0
        slot.join(budget, pool)
        self.slots[account.id] = slot


def _emptied(budget: Budget | None) -> Budget:
    """The budget to fill with the accounts of a new config: the old one with its history, or a new one."""
    if budget is None:
        return Budget()
    budget.members, budget.limit, budget.inflight = [], 0, 0
    return budget


def is_another(one: Account, other: Account) -> bool:
    """Whether two states of an account's entry differ in what a fault of it is about."""
    return one is not other and _credential(one) != _credential(other)


def _credential(account: Account) -> tuple[object, ...]:
    """What a fault of an account is about: who it is, and where."""
    spec, server = account.spec, account.server
    who = (spec.token, spec.password, spec.disabled) if spec else ()
    return who, server.name, server.base_url, server.login, server.headers
