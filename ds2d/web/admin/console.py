"""What the console needs besides: keys with their use, and what a client must be told to come here.

Rule: a key is only read from here by those who hold it already: the setup of a client is made of the key that was posted.
"""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from ds2d.core.connect import CLIENTS, connect
from ds2d.state.quotas import Meter, Quotas
from ds2d.web.admin import keys
from ds2d.web.admin.desk import Desk, flag
from ds2d.web.admin.keys import bad


class Console:
    """Handlers."""

    def __init__(self, desk: Desk, quotas: Quotas) -> None:
        self._desk = desk
        self._quotas = quotas

    async def keys(self, request: web.Request) -> web.StreamResponse:
        """Every key with its limits and what it has used of them."""
        listed = keys.listed(self._desk.config, deleted=flag(request, "deleted"))
        found = [{**keys.describe(spec, text), **self._use(spec)} for text, spec in listed]
        return self._desk.reply({"keys": found, "generation": self._desk.config.generation}, headers=self._desk.etag())

    async def connect(self, request: web.Request) -> web.StreamResponse:
        """Variables and files of every client, for this address, key and model."""
        body = await self._desk.body(request)
        given = [body.get(name) for name in ("base_url", "key", "model")]
        if not all(isinstance(text, str) and text for text in given):
            raise bad("base_url, key, model: must be strings that are not empty")
        base_url, key, model = map(str, given)
        setups = [connect(client, base_url, key, model) for client in CLIENTS]
        return self._desk.reply({"clients": [{**msgspec.to_builtins(setup), "exports": setup.exports} for setup in setups]})

    def _use(self, spec: Any) -> dict[str, Any]:
        meter = self._quotas.meter(spec.digest) if spec.digest else Meter()
        used = {name: dict(zip(("prompt_tokens", "completion_tokens"), meter.used(name), strict=True)) for name in WINDOWS}
        return {
            "used": used,
            "quotas": [quota._asdict() for quota in meter.quotas(spec)],
            "running": meter.inflight,
            "last_used_at": meter.last_used.isoformat(timespec="seconds") if meter.last_used else None,
        }


WINDOWS = ("day", "month", "total")
