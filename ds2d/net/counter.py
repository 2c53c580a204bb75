"""Counting tokens exactly, in a process of its own.

Rule: every count has an answer in bounded time: exact once the other process has the vocabulary, and until then, or when it has
been killed or hangs, an estimate. It is started again by itself.
Surprise: a thread would not do. tiktoken builds its tables in one piece of a fifth of a second and more, and holds the
interpreter meanwhile, and so the event loop, which is never to be held for more than 20 ms (reliability.md).
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import subprocess
import sys
import time
from itertools import count
from pathlib import Path

from ds2d.core.sizes import Size, Sizes
from ds2d.core.tokens import rough
from ds2d.net.counter_child import LAST, MORE, NUMBER, READY, UNKNOWN
from ds2d.net.last_words import LastWords
from ds2d.net.link import Link, attach

logger = logging.getLogger("ds2d.tokens")

PIECE = 128 * 1024
"""Characters that are sent at once: a text of 64 MB is not copied while everybody waits."""

PATIENCE = 10.0
"""Seconds that a count may take, and one more for every MILLION characters; some 0.1 are needed. Who takes longer hangs."""
MILLION = 1_000_000

PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds before a process that has ended is started again: doubled each time, from the start once one has lived longer than
the longest."""

MAX_ASKED = 100_000
"""More counts than turns and requests can be waiting for at once."""

HANDED_ON = ("PYTHONHOME", "LD_LIBRARY_PATH")
"""All that the other process is told of this one's environment, in which there are secrets."""


class TokenCounter:
    """Counts tokens for the daemon. `run` keeps the other process alive."""

    def __init__(self) -> None:
        self.loaded = False
        self.tried = asyncio.Event()
        """Set once the first process has the vocabulary or has ended without; `problem` says why."""
        self.problem = ""
        self._told = ""
        self._link = Link()
        self._process: subprocess.Popen[bytes] | None = None
        self._asked: dict[int, asyncio.Future[int | None]] = {}
        self._numbers = count(1)

    async def run(self, delay: float = 0.0) -> None:
        """Start the other process after `delay` seconds, and again whenever it ends."""
        await asyncio.sleep(delay)
        pause = PAUSE
        while True:
            began = time.monotonic()
            try:
                await self._one_life()
            except OSError as error:
                self.problem = str(error)
            self.tried.set()
            self._tell()
            if time.monotonic() - began > LONGEST_PAUSE:
                pause = PAUSE
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def count(self, text: str) -> int:
        """Tokens of `text`: exact, or an estimate where exact ones cannot be had."""
        if not self.loaded:
            return rough(text)
        number = 1 + next(self._numbers) % 0xFFFFFFFF
        asked = self._asked[number] = asyncio.get_running_loop().create_future()
        sent = False
        try:
            async with asyncio.timeout(PATIENCE + len(text) / MILLION):
                await self._send(number, text)
                sent = True
                counted = await asked
        except TimeoutError:
            self.problem = "a count took too long"
            self._kill()
            counted = None
        finally:
            del self._asked[number]
            if not sent:
                self._link.send(_message(number, LAST, ""))  # what it has of the text is let go of
        return rough(text) if counted is None else counted

    def sizes(self) -> Sizes:
        """Counts that are waited for."""
        return {"asked": Size(len(self._asked), MAX_ASKED)}

    def _tell(self) -> None:
        """Once for each reason: where nothing can be started it is tried again and again."""
        if self.problem != self._told:
            logger.warning("token counts are estimates for now: %s", self.problem)
        self._told = self.problem

    async def _send(self, number: int, text: str) -> None:
        last = max(len(text) - 1, 0) // PIECE * PIECE
        for at in range(0, last, PIECE):
            self._link.send(_message(number, MORE, text[at : at + PIECE]))
            await self._link.drained()
        self._link.send(_message(number, LAST, text[last:]))

    async def _one_life(self) -> None:
        """Start the process; return when it has ended. Raises OSError."""
        words = LastWords()
        try:
            status, was_asked = await self._live(words)
        finally:
            said = words.close()
        # once it is asked, what it says may be about a text that somebody sent
        why = f": {said}" if said and not was_asked else ""
        self.problem = self.problem or f"the process that counts has ended (status {status}){why}"

    async def _live(self, words: LastWords) -> tuple[int, bool]:
        """One life: the status that it ended with, and whether it was ever ready to be asked. Raises OSError."""
        ended = asyncio.Event()
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self._process = process = _started(theirs, words.theirs)
            except BaseException:
                ours.close()
                raise
        words.started()
        try:
            ours.setblocking(False)
            self.problem = ""
            self._link = Link(self._answered, ended.set)
            await attach(self._link, ours)
            await ended.wait()
        finally:
            was_asked, self.loaded = self.loaded, False
            self._kill()
            for asked in self._asked.values():
                if not asked.done():
                    asked.set_result(None)
            self._link.close()
            status = await asyncio.get_running_loop().run_in_executor(None, process.wait)
        return status, was_asked

    def _answered(self, message: bytes) -> None:
        number, words = int.from_bytes(message[:NUMBER], "big"), message[NUMBER:]
        asked = self._asked.get(number)
        if number == 0 and words == READY:
            self.loaded = True
            self._told = ""
            self.tried.set()
        elif number == 0:
            self.problem = words.decode()
        elif asked is not None and not asked.done():
            asked.set_result(None if words == UNKNOWN else int(words))

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()


def _message(number: int, mark: bytes, text: str) -> bytes:
    return number.to_bytes(NUMBER, "big") + mark + text.encode("utf-8", "replace")


def _started(connection: socket.socket, errors: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
    """The other process, with this one's modules, and nothing of site-packages' own start-up code. Raises OSError.

    That code is also what finds an editable install, so where this package lies is said too.
    """
    environ = {name: os.environ[name] for name in HANDED_ON if name in os.environ}
    environ["PYTHONPATH"] = os.pathsep.join([*(path or str(Path.cwd()) for path in sys.path), str(Path(__file__).parents[2])])
    return subprocess.Popen(
        [sys.executable, "-S", "-P", "-B", "-m", "ds2d.net.counter_child"],
        env=environ,
        stdin=connection.fileno(),
        stdout=subprocess.DEVNULL,
        stderr=errors,
        start_new_session=True,
    )
