"""The ledger's one thread. An executor would do, but makes a future of each piece of work and takes three locks for it: with a
batch every few milliseconds that costs as much as the rows."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

logger = logging.getLogger("ds2d.ledger")


class Worker:
    """A thread that does one thing after the other. It begins with the first and ends with `shutdown`."""

    def __init__(self, name: str) -> None:
        self._queue: SimpleQueue[tuple[Callable[..., Any], tuple[Any, ...]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._runs = False

    def submit(self, work: Callable[..., Any], *values: Any) -> None:
        """Have this done; nobody hears of it. What it raises is logged."""
        if not self._runs:
            self._runs = True
            self._thread.start()
        self._queue.put((work, values))

    async def call(self, work: Callable[[], Any]) -> Any:
        """Have this done; returns or raises what it does."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Any] = loop.create_future()

        def run() -> None:
            try:
                result = work()
            except BaseException as error:  # noqa: BLE001 - it is the caller's
                loop.call_soon_threadsafe(_settle, done, None, error)
            else:
                loop.call_soon_threadsafe(_settle, done, result, None)

        self.submit(run)
        return await done

    def shutdown(self) -> None:
        """Do what was submitted, and end."""
        if self._runs:
            self._queue.put(None)
            self._thread.join()

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            work, values = item
            try:
                work(*values)
            except Exception:
                logger.exception("the ledger's thread failed")
            del item, work, values  # what a batch holds must not stay until the next one


def _settle(done: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if done.done():  # whoever asked has left
        return
    if error is None:
        done.set_result(result)
    else:
        done.set_exception(error)
