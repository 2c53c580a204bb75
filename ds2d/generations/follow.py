"""An older generation: what its turns need is decided by the newest, which it tells everything that lasts.

Rule: what was used and what was stored reaches the leader, whoever that is by then; what is held is declared anew to each.
Surprise: while the leader changes, questions wait for the next one. Where none comes within `SEEK_SECONDS` this process decides
for itself, by its own count, and goes on looking.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec

from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.dialects.openai_responses import Answer
from ds2d.generations import messages as m
from ds2d.generations.shared import Asking, Shared
from ds2d.net.link import Link, attach, connected
from ds2d.state.background import BackgroundResponse
from ds2d.state.leader import LeaderLost
from ds2d.state.leases import Want
from ds2d.state.ledger_schema import Row
from ds2d.state.reasoning import Thought
from ds2d.state.responses import Entry
from ds2d.state.shared_responses import AnswerState, Piece

SEEK_SECONDS = 3.0
"""How long questions wait for a new leader."""

SEEK_EVERY = 0.05
SEEK_LATER = 1.0
"""Seconds between two looks for a leader, at first and once this process decides for itself."""

MAX_HELD = 10_000
"""Messages kept while there is no leader; what a client may still ask for counts, the oldest goes first."""

ANSWER_SECONDS = 5.0


class Following:
    """The leader as this process sees it: a `Leader` and a `Listener`. `path` is where the leader is found."""

    def __init__(self, shared: Shared, path: Path, pid: int | None = None) -> None:
        self._shared = shared
        self._path = path
        self._pid = pid or os.getpid()
        self._link: Link | None = None
        self._former: list[Link] = []
        self._asking = Asking()
        self._held: list[bytes] = []
        self._seeking: asyncio.Task[None] | None = None
        self.hurried: Callable[[], None] = lambda: None
        """Called when the leader was told to end."""
        self.other: Callable[[m.Message], None] = lambda _message: None
        """Told of what is not for followers in general."""
        self.failed: Callable[[], bool] = lambda: False
        """Asked when the leader is lost: True if this process takes back the lead."""

    def begin(self, link: Link) -> None:
        """Follow over this link, whose other end knows what this process holds."""
        self._take(link)
        self._obey()

    def stop(self) -> None:
        """Follow nobody any more: this process leads, or ends."""
        if self._seeking is not None:
            self._seeking.cancel()
        for link in (self._link, *self._former):
            if link is not None:
                link.lost = lambda: None
                link.close()
        self._link, self._former = None, []
        self._alone()

    # Leader

    async def acquire(self, number: int, want: Want, patience: float) -> str:
        answer = await self._asking.ask(self._link, m.Acquire(lease=number, want=want, patience=patience))
        return answer.account

    def released(self, number: int) -> None:
        self._tell(m.Release(lease=number))

    def reported(self, number: int, outcome: GatewayError | None) -> None:
        self._tell(m.Report(lease=number, fault=m.Fault.of(outcome) if outcome else None))

    def charged(self, number: int, tokens: int) -> None:
        self._tell(m.Charge(lease=number, tokens=tokens))

    async def admit(self, number: int, caller: str, prompt: int, completion: int) -> None:
        await self._asking.ask(self._link, m.Admit(permit=number, caller=caller, prompt=prompt, completion=completion))

    def settled(self, number: int, caller: str, prompt: int, completion: int) -> None:
        self._tell(m.Settle(permit=number, caller=caller, prompt=prompt, completion=completion), lasting=True)

    # Listener

    def stored(self, entry: Entry) -> None:
        self._tell(m.Kept(piece=self._shared.responses.pack(entry, {})), lasting=True)

    def forgot(self, caller: str, name: str) -> None:
        self._tell(m.Forget(caller=caller, name=name), lasting=True)

    def run_began(self, entry: Entry) -> None:
        self._tell(m.RunBegan(run=self._shared.responses.run_state(entry)))

    def run_wrote(self, name: str, data: bytes) -> None:
        self._tell(m.RunWrote(name=name, frames=data.decode()), former=True)

    def run_ended(self, run: BackgroundResponse, answer: Answer | None) -> None:
        last = AnswerState.of(answer) if answer is not None else None
        self._tell(m.RunEnded(name=run.id, last=last), former=True)

    def closed(self, row: Row) -> None:
        """A turn is over, for those who count them."""
        self._tell(m.Closed(row=row), lasting=True)

    def remember(self, thought: Thought) -> None:
        """Reasoning that clients lose, for their next turn."""
        self._tell(m.Remember(thought=thought), lasting=True)

    # Questions of the routes

    async def fetch(self, caller: str, name: str) -> None:
        """Have that stored response here, if the leader has it."""
        answer = await self._ask_soon(m.Fetch(caller=caller, name=name))
        if answer is not None and answer.body != m.NOTHING:
            piece = msgspec.json.decode(answer.body, type=Piece)
            self._shared.responses.restore(self._shared.responses.unpack(piece, {}), piece.row.age)

    async def do(self, verb: str, caller: str, name: str, query: dict[str, str]) -> bytes | None:
        """Have the leader treat that stored response. Raises what its route raises; None: nobody answers."""
        answer = await self._ask_soon(m.Do(verb=verb, caller=caller, name=name, query=query))
        return bytes(answer.body) if answer is not None and answer.body != m.NOTHING else None

    async def _ask_soon(self, message: m.Message) -> m.Answered | None:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await self._asking.ask(self._link, message)
        except (TimeoutError, LeaderLost):
            return None

    # The link

    def _take(self, link: Link) -> None:
        self._link = link
        link.received = partial(self._received, link)
        link.lost = partial(self._lost, link)

    def _obey(self) -> None:
        shared = self._shared
        shared.quotas.leader = self
        shared.responses.follow(self)
        shared.queue.follow(self)
        shared.reasoning.told = self.remember

    def _alone(self) -> None:
        """Decide here, as long as nobody else does."""
        shared = self._shared
        shared.quotas.leader = None
        shared.responses.follow(None)
        shared.reasoning.told = lambda _thought: None
        self._asking.fail()
        shared.queue.follow(None)

    def _tell(self, message: m.Message, *, lasting: bool = False, former: bool = False) -> None:
        data = m.encode(message)
        if self._link is not None:
            self._link.send(data)
        elif lasting:
            self._held.append(data)
            del self._held[:-MAX_HELD]
        for link in self._former if former else ():
            link.send(data)

    def _received(self, link: Link, data: bytes) -> None:
        message = m.decode(data)
        responses = self._shared.responses
        if isinstance(message, m.Answered):
            self._asking.answered(message)
        elif isinstance(message, m.Sync):
            link.send(m.encode(m.Answered(number=message.number)))
        elif isinstance(message, m.Look):
            run = responses.running(message.name)
            body = msgspec.Raw(msgspec.json.encode(AnswerState.of(run.snapshot()))) if run is not None else m.NOTHING
            link.send(m.encode(m.Answered(number=message.number, body=body)))
        elif isinstance(message, m.Stop):
            if (run := responses.running(message.name)) is not None:
                run.stop(message.fault.error())
        elif isinstance(message, m.Forget):
            responses.forget(message.caller, message.name)
        elif isinstance(message, m.Hurry):
            if link is self._link:
                self.hurried()
        elif isinstance(message, m.Moved):
            if link is self._link:
                self._former.append(link)
                self._link = None
                self._seek()
        elif message is not None:
            self.other(message)

    def _lost(self, link: Link) -> None:
        if link in self._former:
            self._former.remove(link)
        elif link is self._link:
            self._link = None
            if not self.failed():
                self._seek()

    def _seek(self) -> None:
        if self._seeking is None or self._seeking.done():
            self._seeking = asyncio.get_running_loop().create_task(self._look_for_leader())

    async def _look_for_leader(self) -> None:
        loop = asyncio.get_running_loop()
        deadline, every = loop.time() + SEEK_SECONDS, SEEK_EVERY
        while not await self._join():
            if every == SEEK_EVERY and loop.time() >= deadline:
                m.logger.warning("no newer generation is to be found: deciding for ourselves")
                every = SEEK_LATER
                self._alone()
            await asyncio.sleep(every)

    async def _join(self) -> bool:
        link = Link()
        try:
            await attach(link, connected(self._path))
        except OSError:
            return False
        self._take(link)
        shared = self._shared
        link.send(m.encode(m.Join(pid=self._pid, held=shared.queue.held(), reserved=shared.quotas.held())))
        held, self._held = self._held, []
        for data in held:
            link.send(data)
        self._asking.again(link)
        self._obey()
        return True


def shut_down() -> GatewayError:
    """What is said of work whose process has gone."""
    return GatewayError(ErrorKind.SHUTTING_DOWN, "The process that worked on this has ended.")
