"""Why an account was not the one: what kept the others from serving a request when it came.

Rule: for operators only: it names accounts. It looks and changes nothing.
"""

from __future__ import annotations

from typing import Any

from ds2d.state.accounts import AccountQueue, Want
from ds2d.state.slots import Slot, Standing

MAX_LISTED = 16
"""Accounts that are named; a record is for reading."""

MAX_LOOKED = 32
"""Accounts that are looked at where there are many: those whose turn is next. A thousand accounts must not cost each request."""

_WORDS = {Standing.BUSY: "busy", Standing.COOLING: "cooling down", Standing.OPEN: "breaker open"}


def skipped(queue: AccountQueue, want: Want) -> list[dict[str, Any]]:
    """The accounts of the wanted upstreams that could not serve at this moment, each with the reason. Of many only those whose
    turn would have come before one that can."""
    now = queue.clock()
    found: list[dict[str, Any]] = []
    are_many = len(queue.roster.slots) > MAX_LOOKED
    able: set[str] = set()
    for slot in queue.roster.nearest(want, MAX_LOOKED):
        account = slot.account
        if account.upstream not in want.upstreams or account.direct != want.direct or (are_many and account.upstream in able):
            continue
        reason = _reason(slot, want, now)
        if reason is None:
            able.add(account.upstream)
        else:
            found.append({"account": account.label, **reason})
            if len(found) == MAX_LISTED:
                break
    return found


def _reason(slot: Slot, want: Want, now: float) -> dict[str, Any] | None:
    if not slot.account.usable:
        return {"reason": "out of use"}
    if want.pin is not None and not slot.account.answers_to(want.pin):
        return {"reason": "another one is pinned"}
    if slot.account.id in want.avoid:
        return {"reason": "tried before"}
    outlook = slot.outlook(want.model, now)
    if outlook.standing is Standing.READY:
        return {"reason": "its server makes requests wait"} if slot.pool.server.full else None
    reason: dict[str, Any] = {"reason": _WORDS[outlook.standing]}
    if outlook.breaker is not None and outlook.breaker.cause is not None:
        reason["cause"] = outlook.breaker.cause
    if outlook.until:
        reason["back_in_seconds"] = round(outlook.until - now, 1)
    return reason
