"""The account queue as operators see it: queue status (S2-66, admin.md) and token statistics (S3-5, token-rotation.md).

Rule: accounts appear under their labels and identifiers, never with a secret; times are RFC 3339, for people only.
Surprise: the reference's sample counts an account as available or in use, not both, so an account with a running request is
in use even where it has free slots; those stand in `accounts`.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from ds2d.state.accounts import AccountQueue
from ds2d.state.breakers import Breaker
from ds2d.state.slots import Slot


class Instant:
    """Now on both clocks, to show monotonic times as wall times."""

    def __init__(self, queue: AccountQueue) -> None:
        self.now = queue.clock()
        self._offset = queue.wall() - self.now

    def show(self, monotonic: float) -> str:
        """A time of the queue's clock."""
        return shown(monotonic + self._offset)


def shown(unix: float) -> str:
    """Unix seconds as RFC 3339 in UTC."""
    return datetime.fromtimestamp(unix, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def queue_status(queue: AccountQueue) -> dict[str, Any]:
    """The body of GET /admin/queue/status. `waiting_by_caller` is by caller id."""
    instant = Instant(queue)
    slots = [slot for slot in queue.slots if not slot.account.direct]
    accounts = [account_status(slot, instant) for slot in slots]
    used = [account["identifier"] for account in accounts if account["inflight"]]
    idle = [account["identifier"] for account in accounts if account["state"] == "ready" and not account["inflight"]]
    return {
        "available": len(idle),
        "in_use": len(used),
        "total": len(slots),
        "available_accounts": idle,
        "in_use_accounts": used,
        "max_inflight_per_account": queue.limits.account_max_inflight,
        "recommended_concurrency": queue.roster.capacity,
        "running": queue.running,
        "waiting": queue.waiting,
        "max_queue_size": queue.bound,
        "global_max_inflight": queue.capacity,
        "accounts": accounts,
        "waiting_by_caller": queue.waiting_by_caller,
    }


def token_stats(queue: AccountQueue) -> dict[str, Any]:
    """The body of GET /v1/tokens/stats."""
    instant = Instant(queue)
    current = queue.current()
    slots = [slot for slot in queue.slots if not slot.account.direct]
    return {
        "current_token": current.account.label if current else None,
        "total_tokens": len(slots),
        "tokens": [_token(slot, instant) for slot in slots],
    }


def account_status(slot: Slot, instant: Instant) -> dict[str, Any]:
    """One account: what GET /admin/accounts adds about its work."""
    aside = [breaker for breaker in _wholes(slot) if breaker.state(instant.now) in ("open", "cooling")]
    until = max((_until(breaker) for breaker in aside), default=None)
    return {
        "identifier": slot.account.identifiers[0],
        "name": slot.account.label,
        "upstream": slot.account.upstream,
        "state": _state(slot, instant.now),
        "inflight": slot.inflight,
        "max_inflight": slot.limit,
        "put_aside_until": None if until is None else instant.show(until),
        "reason": aside[0].cause if aside else None,
        "last_error": slot.last_error,
        "models_aside": _models_aside(slot, instant),
    }


def _models_aside(slot: Slot, instant: Instant) -> dict[str, Any]:
    """The models that the account does not serve now, or serves on trial, each with the reason."""
    return {
        model: {
            "state": breaker.state(instant.now),
            "until": instant.show(_until(breaker)),
            "reason": breaker.cause,
            "window": breaker.window,
        }
        for model, breaker in _models(slot)
        if breaker.state(instant.now) != "closed"
    }


def _token(slot: Slot, instant: Instant) -> dict[str, Any]:
    breakers = [*_wholes(slot), *(breaker for _, breaker in _models(slot))]
    blocked = [breaker for breaker in breakers if breaker.state(instant.now) in ("open", "cooling")]
    until = max((_until(breaker) for breaker in blocked), default=None)
    return {
        "key": slot.account.label,
        "blocked": bool(blocked),
        "failures": slot.failures,
        "lastUsed": None if slot.last_used is None else shown(slot.last_used),
        "state": _state(slot, instant.now),
        "blocked_until": None if until is None else instant.show(until),
        "reason": blocked[0].cause if blocked else None,
        "inflight": slot.inflight,
        "upstream": slot.account.upstream,
        "models": _models_aside(slot, instant),
    }


def _state(slot: Slot, now: float) -> str:
    """disabled, what is wrong with its entry, open, cooling, half_open, busy or ready."""
    account = slot.account
    if account.spec is not None and account.spec.disabled:
        return "disabled"
    if not account.usable:
        return (account.spec.problem if account.spec else None) or account.server.problem or "disabled"
    states = [breaker.state(now) for breaker in _wholes(slot)]
    worst = next((state for state in ("open", "cooling", "half_open") if state in states), None)
    return worst or ("busy" if slot.inflight >= slot.limit else "ready")


def _wholes(slot: Slot) -> tuple[Breaker, Breaker]:
    return slot.gate.whole, slot.budget.gate.whole


def _models(slot: Slot) -> Iterable[tuple[str, Breaker]]:
    yield from slot.gate.models.items()
    yield from slot.budget.gate.models.items()


def _until(breaker: Breaker) -> float:
    return max(breaker.open_until, breaker.cool_until)
