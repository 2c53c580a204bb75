"""Tokens of accounts that log in: fetched when first needed, kept in memory, renewed before they end and once when refused.

Rule: one login at a time per account; everybody who needs its token shares the outcome, a refusal too, so a wrong password is
tried once and not once a request. Tokens are nowhere but here.
Surprise: a login belongs to nobody in particular, so it goes on when the request that began it has gone.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Generator, Iterable
from math import inf
from typing import Any

import msgspec

from ds2d.core.account import Account
from ds2d.core.sizes import Size, Sizes
from ds2d.upstreams.openai import Token, login

logger = logging.getLogger("ds2d.logins")

Drive = Callable[[Generator[Any, Any, Any]], Awaitable[Any]]
"""Runs an upstream's steps and returns their result, as `net.client.Client.drive` does."""

MARGIN_SECONDS = 60.0
"""How long before its end a token is renewed; at most a fifth of its life."""


REFUSED_AGAIN_SECONDS = 30.0
"""Two tokens of an account refused within this time mean that it is not the token's age."""


class _Kept(msgspec.Struct):
    """A token, what it was fetched with, and its times on the monotonic clock (None: the server did not say)."""

    value: str
    credential: tuple[object, ...]
    renew_at: float | None
    ends_at: float | None


class Logins:
    """Owner of the tokens. `clock` is monotonic seconds; `wall` Unix seconds, for servers that name a point in time."""

    def __init__(
        self, drive: Drive, *, clock: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time
    ) -> None:
        self._drive = drive
        self._clock = clock
        self._wall = wall
        self._kept: dict[str, _Kept] = {}
        self._accounts = 0
        self._refusals: dict[str, tuple[float, bool]] = {}  # by account: when a token was refused last, and what was said to it
        self._running: dict[tuple[object, ...], asyncio.Task[_Kept]] = {}

    async def token(self, account: Account) -> str | None:
        """The credential to send for this account now; None where it has none.

        Raises GatewayError as the login does: UPSTREAM_AUTH, UPSTREAM_UNREACHABLE and other faults of the upstream.
        """
        spec = account.spec
        if spec is not None and spec.token is not None:
            return spec.token.reveal()
        if account.server.login is None or account.direct:
            return None
        now = self._clock()
        kept = self._kept.get(account.id)
        if kept is None or kept.credential != _credential(account) or (kept.ends_at is not None and kept.ends_at <= now):
            return (await asyncio.shield(self._begin(account))).value
        if kept.renew_at is not None and kept.renew_at <= now:
            self._begin(account)  # the old one still holds: nobody needs to wait
        return kept.value

    def refused(self, account: Account, token: str | None) -> bool:
        """The upstream answered 401 to `token`. Whether one more try on the same account makes sense: the token came from a
        login and is forgotten now, or was replaced meanwhile. Where the one fetched for that reason is refused too, it does
        not: the account is at fault."""
        spec = account.spec
        if account.server.login is None or account.direct or (spec is not None and spec.token is not None):
            return False
        kept, now = self._kept.get(account.id), self._clock()
        before, verdict = self._refusals.get(account.id, (-inf, True))
        if kept is None or kept.value != token:
            return kept is not None or verdict
        del self._kept[account.id]
        verdict = now - before >= REFUSED_AGAIN_SECONDS
        self._refusals[account.id] = now, verdict
        return verdict

    def retain(self, accounts: Iterable[str]) -> None:
        """Forget the tokens of all accounts but those with these ids."""
        wanted = set(accounts)
        self._accounts = len(wanted)
        self._kept = {account: kept for account, kept in self._kept.items() if account in wanted}
        self._refusals = {account: refusal for account, refusal in self._refusals.items() if account in wanted}

    def sizes(self) -> Sizes:
        """Tokens, and accounts whose token was refused; `retain` holds both to the accounts of config."""
        return {"tokens": Size(len(self._kept), self._accounts), "refusals": Size(len(self._refusals), self._accounts)}

    async def close(self) -> None:
        """End the logins that still run."""
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _begin(self, account: Account) -> asyncio.Task[_Kept]:
        """The login of this account that runs, or a new one."""
        credential = _credential(account)
        key = (account.id, *credential)
        task = self._running.get(key)
        if task is None:
            task = self._running[key] = asyncio.get_running_loop().create_task(self._log_in(account, credential))
            task.add_done_callback(lambda done: self._ended(account, key, done))
        return task

    async def _log_in(self, account: Account, credential: tuple[object, ...]) -> _Kept:
        got: Token = await self._drive(login(account.server, account.spec, self._wall()))
        now, life = self._clock(), got.expires_in
        if life is None:
            return _Kept(got.value, credential, None, None)
        return _Kept(got.value, credential, now + life - min(MARGIN_SECONDS, life / 5), now + life)

    def _ended(self, account: Account, key: tuple[object, ...], task: asyncio.Task[_Kept]) -> None:
        self._running.pop(key, None)
        if task.cancelled():
            return
        if (error := task.exception()) is not None:
            logger.warning("login of account %s failed: %s", account.label, error)
        else:
            self._kept[account.id] = task.result()


def _credential(account: Account) -> tuple[object, ...]:
    """What a token depends on: another one needs another login."""
    spec, server = account.spec, account.server
    return (spec.email, spec.mobile, spec.password) if spec else (), server.base_url, server.login
