"""The newest generation: it decides for the older ones, which are its guests.

Rule: what a guest holds is counted here under its number and comes back when it says so, or with all the rest when its link
ends, as it does when its process dies. Nothing is decided for guests before all older processes are counted (`opened`).
Surprise: a guest that has moved on to a newer process may still say something here that lasts; it is passed on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

import msgspec

from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.generations import messages as m
from ds2d.generations.follow import Following, shut_down
from ds2d.generations.shared import Asking, Shared
from ds2d.net.link import Link
from ds2d.state import response_routes as routes
from ds2d.state.leader import LeaderLost
from ds2d.state.leases import Lease
from ds2d.state.quotas import Permit
from ds2d.state.shared_accounts import Held
from ds2d.state.shared_quotas import Reserved
from ds2d.state.shared_responses import AnswerState

SYNC_SECONDS = 2.0
"""How long a request waits for what older processes may have stored; they answer within milliseconds."""


class Guest:
    """An older process that follows this one. `relay` is where this one follows itself by now; what is held stays counted here
    until there is no way back."""

    def __init__(self, link: Link, shared: Shared, opened: asyncio.Event, left: Callable[[Guest], None]) -> None:
        self._link = link
        self._shared = shared
        self._opened = opened
        self._left = left
        self._asking = Asking()
        self._leases: dict[int, Lease] = {}
        self._permits: dict[int, Permit] = {}
        self._waiting: dict[int, asyncio.Task[None]] = {}
        self._admitting: dict[int, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._runs: set[str] = set()
        self.relay: Following | None = None
        self.pid = 0
        link.received = self.received
        link.lost = self.lost

    def adopt(self, pid: int, held: Iterable[Held], reserved: Iterable[Reserved]) -> None:
        """Count what its turns hold already."""
        self.pid = pid
        for one in held:
            if one.number not in self._leases and (lease := self._shared.queue.adopt(one)) is not None:
                self._leases[one.number] = lease
        for each in reserved:
            self._permits[each.number] = self._shared.quotas.adopt(each)

    def tell(self, message: m.Message) -> None:
        """Send it something."""
        self._link.send(m.encode(message))

    async def sync(self) -> None:
        """Return when everything that it has said so far is taken up."""
        await self._ask(m.Sync())

    async def look(self, name: str) -> None:
        """Renew the mirror of a background response of its."""
        answer = await self._ask(m.Look(name=name))
        mirror = self._shared.responses.mirrors.get(name)
        if answer is not None and answer.body != m.NOTHING and mirror is not None:
            mirror.last = msgspec.json.decode(answer.body, type=AnswerState).answer()

    def works_on(self, name: str) -> bool:
        """Whether this background response is its own."""
        return name in self._runs

    def close(self) -> None:
        """End the link: this process ends."""
        self._link.lost = lambda: None
        self._link.close()

    def refuse(self) -> None:
        """Decide nothing for it any more: what it waits for it will ask for elsewhere."""
        for task in (*self._waiting.values(), *self._tasks):
            task.cancel()
        self._waiting.clear()

    def give_back(self) -> None:
        """Count nothing for it any more."""
        leases, self._leases = self._leases, {}
        for lease in leases.values():
            self._shared.queue.release(lease)
        permits, self._permits = self._permits, {}
        for permit in permits.values():
            permit.settle(0, 0)

    async def _ask(self, message: m.Message) -> m.Answered | None:
        try:
            async with asyncio.timeout(SYNC_SECONDS):
                return await self._asking.ask(self._link, message)
        except (TimeoutError, LeaderLost):
            return None

    def lost(self) -> None:
        """Its link has ended, as it does when it dies: nothing is held for it any more."""
        self.refuse()
        self.give_back()
        self._asking.fail()
        for name in self._runs:
            self._shared.responses.abandon(name, shut_down())
        self._left(self)

    def received(self, data: bytes) -> None:
        """It said something."""
        message = m.decode(data)
        if message is not None:
            self._take(message)

    def _take(self, message: m.Message) -> None:
        """Do what it says; what decides is left undone once this process leads no more."""
        responses = self._shared.responses
        match message:
            case m.Acquire() | m.Admit() | m.RunBegan():
                if self.relay is None:
                    self._decide(message)
            case m.Release() | m.Report() | m.Charge():
                self._lease(message)
            case m.Kept() | m.Forget() | m.Remember() | m.Closed():
                self._keep(message)
            case m.Settle():
                self._settle(message)
            case m.RunWrote():
                responses.wrote(message.name, message.frames.encode())
            case m.RunEnded():
                self._runs.discard(message.name)
                responses.ended(message.name, message.last.answer() if message.last else None)
            case m.Fetch() | m.Do():
                self._spawn(self._route(message))
            case m.Answered():
                self._asking.answered(message)

    def _decide(self, message: m.Acquire | m.Admit | m.RunBegan) -> None:
        if isinstance(message, m.RunBegan):
            self._mirror(message)
        elif isinstance(message, m.Admit):
            permit = message.permit
            self._admitting[permit] = admitting = self._spawn(self._admit(message))
            admitting.add_done_callback(lambda _: self._admitting.pop(permit, None))
        else:
            number = message.lease
            self._waiting[number] = task = asyncio.get_running_loop().create_task(self._acquire(message))
            task.add_done_callback(lambda _: self._waiting.pop(number, None))

    def _lease(self, message: m.Release | m.Report | m.Charge) -> None:
        if isinstance(message, m.Release):
            self._release(message.lease)
        elif (lease := self._leases.get(message.lease)) is None:
            return
        elif isinstance(message, m.Report):
            lease.report(message.fault.error() if message.fault else None)
        else:
            lease.charge(message.tokens)

    def _keep(self, message: m.Kept | m.Forget | m.Remember | m.Closed) -> None:
        responses = self._shared.responses
        if isinstance(message, m.Closed):
            if self.relay is not None:
                self.relay.closed(message.row)
            else:
                self._shared.ended(message.row)
        elif isinstance(message, m.Forget):
            responses.delete(message.caller, message.name)
        elif isinstance(message, m.Remember):
            self._shared.reasoning.adopt(message.thought)
            if self.relay is not None:
                self.relay.remember(message.thought)
        else:
            entry = responses.unpack(message.piece, {})
            responses.restore(entry, message.piece.row.age)
            if self.relay is not None:
                self.relay.stored(entry)

    async def _acquire(self, message: m.Acquire) -> None:
        await self._opened.wait()
        try:
            lease = await self._shared.queue.acquire_for(message.want, message.patience)
        except GatewayError as error:
            self.tell(m.Answered(number=message.number, fault=m.Fault.of(error)))
            return
        self._leases[message.lease] = lease
        self.tell(m.Answered(number=message.number, account=lease.account.id))

    def _release(self, number: int) -> None:
        if (lease := self._leases.pop(number, None)) is not None:
            self._shared.queue.release(lease)
        elif (task := self._waiting.get(number)) is not None:
            task.cancel()

    async def _admit(self, message: m.Admit) -> None:
        await self._opened.wait()
        caller = self._shared.callers.known(message.caller)
        try:
            self._permits[message.permit] = self._shared.quotas.admit(caller, message.prompt, message.completion)
        except GatewayError as error:
            self.tell(m.Answered(number=message.number, fault=m.Fault.of(error)))
        else:
            self.tell(m.Answered(number=message.number))

    def _settle(self, message: m.Settle) -> None:
        permit = self._permits.pop(message.permit, None)
        if permit is not None:
            permit.settle(message.prompt, message.completion)
        else:
            if (task := self._admitting.get(message.permit)) is not None:
                task.cancel()  # its client left before it was decided: nobody would give it back
            self._shared.quotas.used(message.caller, message.prompt, message.completion)
        if self.relay is not None:
            self.relay.settled(0, message.caller, message.prompt, message.completion)

    def _mirror(self, message: m.RunBegan) -> None:
        name = message.run.piece.row.id
        self._runs.add(name)
        stop = lambda error: self.tell(m.Stop(name=name, fault=m.Fault.of(error)))  # noqa: E731 - as short as it is
        self._shared.responses.mirror(message.run, stop)

    async def _route(self, message: m.Fetch | m.Do) -> None:
        """What a route of the older process wants to know of a stored response."""
        store, answer = self._shared.responses, m.Answered(number=message.number)
        try:
            if isinstance(message, m.Do):
                answer.body = msgspec.Raw(await self._treat(message))
            elif (entry := store.find(message.caller, message.name)) is not None and entry.run is None:
                answer.body = msgspec.Raw(msgspec.json.encode(store.pack(entry, {})))
        except GatewayError as error:
            answer.fault = m.Fault.of(error)
        self.tell(answer)

    async def _treat(self, message: m.Do) -> bytes:
        store, caller, name = self._shared.responses, message.caller, message.name
        if message.verb == "cancel":
            return await routes.cancel(store, caller, name)
        if message.verb == "delete":
            return routes.delete(store, caller, name)
        if message.verb == "items":
            return routes.input_items(store, caller, name, message.query)
        if message.verb == "events":
            return await routes.some_events(store, caller, name, message.query)
        if message.verb == "get":
            return routes.retrieve(store, caller, name)
        raise GatewayError(ErrorKind.NOT_IMPLEMENTED, "This operation is not offered here.")

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
