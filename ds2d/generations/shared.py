"""The state that generations share, in one place, and the asking over a link."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import count
from typing import NamedTuple

from ds2d.generations.messages import Answered, Message, encode
from ds2d.net.link import Link
from ds2d.state.callers import Callers
from ds2d.state.leader import LeaderLost
from ds2d.state.ledger_schema import Row
from ds2d.state.reasoning import ReasoningMemory
from ds2d.state.shared_accounts import SharedQueue
from ds2d.state.shared_quotas import SharedQuotas
from ds2d.state.shared_responses import SharedResponses


class Shared(NamedTuple):
    """Its owners. `inside` says of (upstream, model) whether its answers begin inside the thinking; `ended` is told of turns that
    ended in an older process."""

    queue: SharedQueue
    quotas: SharedQuotas
    callers: Callers
    responses: SharedResponses
    reasoning: ReasoningMemory
    inside: dict[tuple[str, str], bool]
    ended: Callable[[Row], None]


class Asking:
    """Questions that are out, by number. They may be asked anew over another link."""

    def __init__(self) -> None:
        self._numbers = count(1)
        self._out: dict[int, tuple[Message, asyncio.Future[Answered]]] = {}

    async def ask(self, link: Link | None, message: Message) -> Answered:
        """Send it, now or with `again`, and wait. Raises the fault that comes back, and LeaderLost."""
        message.number = number = next(self._numbers)
        future: asyncio.Future[Answered] = asyncio.get_running_loop().create_future()
        self._out[number] = message, future
        if link is not None:
            link.send(encode(message))
        try:
            answer = await future
        finally:
            self._out.pop(number, None)
        if answer.fault is not None:
            raise answer.fault.error()
        return answer

    def again(self, link: Link) -> None:
        """Ask everything that has no answer over this link."""
        for message, _ in self._out.values():
            link.send(encode(message))

    def answered(self, message: Answered) -> None:
        """An answer has come."""
        _, future = self._out.get(message.number, (None, None))
        if future is not None and not future.done():
            future.set_result(message)

    def fail(self) -> None:
        """Nobody will answer."""
        for _, future in self._out.values():
            if not future.done():
                future.set_exception(LeaderLost())
