"""The upstreams of a config as they are now, looked at from here: for the verbs that need no running daemon."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ds2d.config.schema import Config
from ds2d.core.account import Account, accounts_of
from ds2d.core.settings import UpstreamSpec
from ds2d.net.client import Client
from ds2d.state.catalog import Catalog
from ds2d.state.logins import Logins


class Looked:
    """What was seen, and how to ask: with the first account of each upstream that may be used."""

    def __init__(self, config: Config, client: Client, logins: Logins) -> None:
        self.catalog = Catalog(client.fetch, token_for=self.token_for)
        self.accounts = accounts_of(config.upstreams, config.accounts)
        self.logins = logins

    def account_of(self, upstream: str) -> Account | None:
        """That account."""
        mine = (one for one in self.accounts if one.upstream == upstream and one.usable and not one.direct)
        return next(mine, None)

    async def token_for(self, upstream: UpstreamSpec) -> str | None:
        """Its token. Raises GatewayError where a login fails."""
        account = self.account_of(upstream.name)
        return await self.logins.token(account) if account else None


@asynccontextmanager
async def look(config: Config) -> AsyncIterator[Looked]:
    """Look at every upstream once."""
    client = Client()
    logins = Logins(client.drive)
    looked = Looked(config, client, logins)
    looked.catalog.apply(config)
    try:
        await looked.catalog.look()
        yield looked
    finally:
        await logins.close()
        await client.close()
