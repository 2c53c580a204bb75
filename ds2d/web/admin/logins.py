"""Logging in, looking at a login, changing the password.

Rule: a wrong key gets the same 401 whatever was wrong; a change of the password ends every login made before it, those of the
same second too, and the answer carries a fresh one.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import Any

from aiohttp import web

from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.secrets import hash_password
from ds2d.web.admin.desk import ADMIN, Desk
from ds2d.web.admin.keys import bad

SHORTEST = 12
"""Characters of a new password."""


class Logins:
    """Handlers."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def login(self, request: web.Request) -> web.StreamResponse:
        """A token for the admin key."""
        body = await self._desk.body(request)
        key, hours = body.get("admin_key"), body.get("expire_hours")
        if not isinstance(key, str) or not key:
            raise bad("admin_key: must be a string that is not empty")
        if hours is not None and (type(hours) is not int or not 1 <= hours <= 720):
            raise bad("expire_hours: must be 1 to 720")
        await self._desk.sessions.key.check(key, request[ADMIN].address)
        token, seconds = self._desk.sessions.issue(hours)
        self._desk.note(request, "login", seconds=seconds)
        return self._desk.reply({"success": True, "token": token, "expires_in": seconds})

    async def verify(self, request: web.Request) -> web.StreamResponse:
        """What is known of this login."""
        claims: dict[str, Any] = request[ADMIN].claims or {}
        left = max(0, claims["exp"] - int(self._desk.wall()))
        answer = {"valid": True, "expires_at": claims["exp"], "remaining_seconds": left}
        return self._desk.reply({**answer, "issued_at": claims["iat"], "generation": claims["gen"]})

    async def password(self, request: web.Request) -> web.StreamResponse:
        """Set another password."""
        body = await self._desk.body(request)
        password = body.get("new_password")
        if not isinstance(password, str) or not SHORTEST <= len(password) <= 1024:
            raise bad(f"new_password: must have {SHORTEST} to 1024 characters")
        self._refuse_held()
        loop = asyncio.get_running_loop()
        stored = await loop.run_in_executor(None, hash_password, password, secrets.token_bytes(16))

        def edit(document: dict[str, Any]) -> None:
            document["admin"] = {**(document.get("admin") or {}), "password_hash": stored}

        self._desk.write(request, "password", edit)
        self._desk.sessions.end_all()
        token, seconds = self._desk.sessions.issue()
        return self._desk.reply({"success": True, "token": token, "expires_in": seconds, **self._desk.saved()})

    def _refuse_held(self) -> None:
        origin = self._desk.config.origin("admin.password_hash")
        if origin.startswith("$") or origin == "flag":
            raise GatewayError(ErrorKind.INVALID_REQUEST, "admin.password_hash: is set outside of the config file.")
