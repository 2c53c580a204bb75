"""Who asks.

Rule: a caller is known by the hash of its key; the key itself is nowhere in here. A direct token is the exception: it is
the caller's own credential for an upstream and lives as long as the request.
"""

from __future__ import annotations

from fnmatch import fnmatchcase

import msgspec

from ds2d.core.settings import KeySpec

DIRECT = "direct:"
"""What the ids of those begin with who bring an upstream's own token; anybody can make up any number of them."""


class Caller(msgspec.Struct, frozen=True):
    """One caller of a request.

    `id` is the hex SHA-256 of the key ("anonymous" without one); `name` is for people (logs, usage); `spec` is the key's
    entry in config, None for a direct token. `token` is sent on to the upstreams that take direct tokens.
    """

    id: str
    name: str
    spec: KeySpec | None = None
    token: str | None = None

    @property
    def weight(self) -> float:
        """Share of the queue between keys."""
        return self.spec.weight if self.spec else 1.0

    @property
    def may_prioritise(self) -> bool:
        """Whether `priority` of a request is sent on."""
        return bool(self.spec and self.spec.priority)

    @property
    def reads_statistics(self) -> bool:
        """Whether the token statistics open to this key (token-rotation.md)."""
        return bool(self.spec and self.spec.admin)

    def may_use(self, model: str) -> bool:
        """Whether the key's allow list holds this public model name (globs, without case)."""
        if self.spec is None or self.spec.models is None:
            return True
        return any(fnmatchcase(model.lower(), pattern.lower()) for pattern in self.spec.models)
