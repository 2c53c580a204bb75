"""A credential on an upstream, as everybody but the config sees it.

Rule: `id` is the same before and after any edit of an account's limits or credentials, so what is remembered of it (running
leases, breakers) survives the edit. `label` is for people: logs, statistics, queue status; never a secret.
Surprise: an upstream without accounts has one implicit account, and one that takes direct tokens has another, unlisted one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from ds2d.core.settings import AccountSpec, UpstreamSpec


class Account(msgspec.Struct, frozen=True):
    """One account of one upstream. `spec` is None where config names none: an implicit account, or `direct`.

    `direct`: the pool of callers who bring their own token; what their tokens do says nothing about ours.
    """

    id: str
    label: str
    server: UpstreamSpec
    spec: AccountSpec | None = None
    direct: bool = False

    @property
    def upstream(self) -> str:
        """The name of its upstream."""
        return self.server.name

    @property
    def identifiers(self) -> tuple[str, ...]:
        """The names a caller or an operator may use for it."""
        return self.spec.identifiers if self.spec else (self.server.name,)

    @property
    def usable(self) -> bool:
        """Whether config lets it be used at all: neither disabled nor with a secret that cannot be read."""
        return self.server.usable and (self.spec is None or (self.spec.usable and not self.spec.disabled))

    def answers_to(self, name: str) -> bool:
        """Whether `name` (X-Ds2-Target-Account) means this account; email addresses are compared without case."""
        wanted = name.strip().lower()
        return any(wanted == known.lower() for known in self.identifiers)


def accounts_of(upstreams: Sequence[UpstreamSpec], specs: Iterable[AccountSpec]) -> list[Account]:
    """Every account there is, in config order, implicit and direct ones last.

    An account without an upstream of that name is left out (config keeps it with the state `no_upstream`). An upstream of
    which config knows no account at all, not even a disabled one, gets its implicit one.
    """
    servers = {server.name: server for server in upstreams}
    found: dict[str, Account] = {}
    for spec in specs:
        server = servers.get(spec.upstream or "")
        if server is not None and spec.identifier not in found:
            found[spec.identifier] = Account(f"account:{spec.identifier}", spec.name or spec.identifier, server, spec)
    owned = {account.upstream for account in found.values()}
    implicit = [Account(f"upstream:{server.name}", server.name, server) for server in upstreams if server.name not in owned]
    takers = (server for server in upstreams if server.direct_token)
    direct = [Account(f"direct:{server.name}", f"{server.name} (direct)", server, direct=True) for server in takers]
    return [*found.values(), *implicit, *direct]
