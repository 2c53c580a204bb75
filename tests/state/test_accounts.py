"""The account queue: who runs, who waits, who is refused, and that nothing is ever lost."""

from __future__ import annotations

import asyncio

import pytest

from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.settings import AccountSpec
from tests.state.world import World, account, settle, upstream


async def refused(ask: asyncio.Task[object]) -> GatewayError:
    await settle()
    assert ask.done(), "it waits"
    error = ask.exception()
    assert isinstance(error, GatewayError)
    return error


async def test_accounts_take_turns() -> None:
    world = World("abc")
    order = []
    for _ in range(7):
        lease = await world.run()
        order.append(lease.account.label)
        world.queue.release(lease)
    assert order == list("abcabca")
