"""The process that decides for this one: after an upgrade the newest generation holds what the older ones still use.

Rule: what is asked has an answer or raises; what is told needs none. Everything that is held has a number of its holder's, so
that it is given back by that number, or with all the rest of it when the holder dies.
"""

from __future__ import annotations

from typing import Protocol

from ds2d.core.errors import GatewayError
from ds2d.state.leases import Want


class LeaderLost(Exception):  # noqa: N818 - it is no error of anybody's
    """The leader has gone and nobody has taken its place: decide here."""


class Leader(Protocol):
    """Who decides for this process about accounts and keys. Every method that waits raises LeaderLost."""

    async def acquire(self, number: int, want: Want, patience: float) -> str:
        """The id of the account that may be called now. Raises what `AccountQueue.acquire` raises."""

    def released(self, number: int) -> None:
        """That lease is given back, or is not wanted any more."""

    def reported(self, number: int, outcome: GatewayError | None) -> None:
        """See `Lease.report`."""

    def charged(self, number: int, tokens: int) -> None:
        """See `Lease.charge`."""

    async def admit(self, number: int, caller: str, prompt: int, completion: int) -> None:
        """May this key run a turn of so many tokens? Raises what `Quotas.admit` raises."""

    def settled(self, number: int, caller: str, prompt: int, completion: int) -> None:
        """See `Permit.settle`."""
