"""Connections that are given up while they are made: they are gone, and closing the pool waits for none of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import uvloop

from ds2d.net.links import Link, Place
from ds2d.net.pool import Pool

LOOPS = {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize("loop", LOOPS)
def test_whoever_gives_up_as_the_connection_is_made_leaves_nothing_behind(
    loop: str, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """uvloop then says that it was made, and never that it was lost."""
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(_give_up(host, monkeypatch))


async def _give_up(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    listener = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1")
    place = Place(host, listener.sockets[0].getsockname()[1], host != "localhost", b"")
    pool = Pool()
    made: list[Link] = []
    connecting = asyncio.create_task(pool.connect(place))
    give_up = _then(Link.connection_made, lambda link: (made.append(link), connecting.cancel()))
    monkeypatch.setattr(Link, "connection_made", give_up)
    try:
        with pytest.raises(asyncio.CancelledError):
            await connecting
        async with asyncio.timeout(5):
            await pool.close()
        assert len(made) == 1
        assert not pool.links
    finally:
        listener.close()  # or uvloop's own end would wait for it


def _then(connection_made: Callable[[Link, asyncio.BaseTransport], None], after: Callable[[Link], object]) -> Callable[..., None]:
    def both(link: Link, transport: asyncio.BaseTransport) -> None:
        connection_made(link, transport)
        after(link)

    return both
