"""Messages between processes arrive whole and in order, however their bytes are cut, at a path of any length."""

from __future__ import annotations

import asyncio
import stat
from itertools import pairwise
from pathlib import Path
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds2d.net.link import MAX_MESSAGE, Link, attach, connected, listening

MESSAGES = [b"", b"one", b"x" * 300, "zwölf".encode(), b"{}"]
SENT = b"".join(len(one).to_bytes(4, "big") + one for one in MESSAGES)


@given(st.lists(st.integers(0, len(SENT))))
def test_messages_are_the_same_however_the_bytes_are_cut(cuts: list[int]) -> None:
    got: list[bytes] = []
    link = Link(got.append)
    for start, end in pairwise([0, *sorted(cuts), len(SENT)]):
        link.data_received(SENT[start:end])
    assert got == MESSAGES


def test_what_no_process_of_ours_would_send_ends_the_connection() -> None:
    link, transport = Link(), Mock()
    link.connection_made(transport)
    link.data_received((MAX_MESSAGE + 1).to_bytes(4, "big") + b"x")
    transport.close.assert_called_once()


async def test_a_socket_may_lie_deeper_than_an_address_is_long(tmp_path: Path) -> None:
    folder = tmp_path / ("a" * 100) / ("b" * 100)
    folder.mkdir(parents=True)
    path = folder / "control.sock"
    got: list[bytes] = []
    arrived, ended = asyncio.Event(), asyncio.Event()

    def received(message: bytes) -> None:
        got.append(message)
        if len(got) == len(MESSAGES):
            arrived.set()

    path.write_text("what was there before")
    server = await asyncio.get_running_loop().create_unix_server(lambda: Link(received, ended.set), sock=listening(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    link = Link()
    await attach(link, connected(path))
    for message in MESSAGES:
        link.send(message)
    await link.drained()
    async with asyncio.timeout(20):
        await arrived.wait()
        assert got == MESSAGES
        link.close()
        await ended.wait()
    server.close()
    link.send(b"into the void")
    with pytest.raises(ConnectionRefusedError):
        connected(path)
