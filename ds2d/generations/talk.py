"""What the new process says to the old one on its way up, awaited in order."""

from __future__ import annotations

import asyncio
from typing import TypeVar

from ds2d.generations import messages as m
from ds2d.net.link import Link

T = TypeVar("T", bound=m.Message)


class UpgradeError(Exception):
    """The running process goes on as if nothing had been asked. The text says why, for people."""


class Talk:
    """A conversation over a link, until somebody else listens on it: then `said` and `lost` are told."""

    def __init__(self, link: Link) -> None:
        self._said: asyncio.Queue[m.Message | None] = asyncio.Queue()
        self._serves = False
        link.received = lambda data: self.said(m.decode(data))
        link.lost = lambda: self._said.put_nowait(None)

    def said(self, message: m.Message | None) -> None:
        """It said something."""
        self._serves = self._serves or isinstance(message, m.Serving)
        if message is not None:
            self._said.put_nowait(message)

    def lost(self) -> bool:
        """It has gone; whether that was before it served."""
        self._said.put_nowait(None)
        return not self._serves

    async def expect(self, kind: type[T], seconds: float) -> T:
        """The next message of that kind. Raises UpgradeError: the other side is gone, or too slow."""
        try:
            async with asyncio.timeout(seconds):
                while (message := await self._said.get()) is not None:
                    if isinstance(message, kind):
                        return message
        except TimeoutError:
            raise UpgradeError(f"the new version took more than {seconds:g} s") from None
        raise UpgradeError("the new version ended before it served")
