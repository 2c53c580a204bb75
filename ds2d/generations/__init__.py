"""Old and new versions of the daemon side by side, for as long as old streams last (docs/upgrade.md).

Rule: one process leads, the newest that serves: it alone takes connections and decides about accounts and keys. A process that
cannot serve changes nothing; one that dies gives back what it held.
Surprise: the way back ends in one place. Until the new process says `Serving`, the old one takes back everything if it is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Protocol

import orjson

from ds2d import __version__
from ds2d.core.sizes import Size, Sizes
from ds2d.dialects.openai_responses import DONE
from ds2d.generations import messages as m
from ds2d.generations.child import Child
from ds2d.generations.follow import Following
from ds2d.generations.lead import Guest
from ds2d.generations.predecessor import Predecessor, PredecessorGoneError, install
from ds2d.generations.shared import Shared
from ds2d.generations.talk import Talk, UpgradeError
from ds2d.net.link import Link, connected, listening
from ds2d.state import response_routes as routes
from ds2d.state.ledger_schema import Row
from ds2d.state.responses import Entry

__all__ = ["CONTROL", "Generations", "Predecessor", "PredecessorGoneError", "Shared", "UpgradeError"]

CONTROL = "control.sock"
"""In the state folder: where `ds2d upgrade` and older generations find the one that leads."""

READY_SECONDS = 40.0
"""How long a new process may take to check itself; systemd waits for 60."""

SWITCH_SECONDS = 8.0
"""How long it may take from there to its first connection. Nobody is answered in that time."""

JOIN_SECONDS = 2.0
"""How long it waits for older processes to be counted."""

MAX_OLDER = 8
"""Older processes beside this one: each holds as much memory as a daemon does."""

MAX_LINKS = 64
"""Of those who ask for an upgrade, or have not said yet what they want."""

SLICE = 64
"""Stored responses that go over in one step of the loop."""


class Host(Protocol):
    """The daemon, as far as its listener goes."""

    @property
    def draining(self) -> bool:
        """Whether it takes no more connections."""

    @property
    def bound(self) -> tuple[str, int]:
        """Host and port of the config with which they were made."""

    def took_over(self, host: str, port: int) -> None:
        """They were made with another config than this process's, perhaps."""

    def listeners(self) -> list[socket.socket]:
        """The sockets it listens on."""

    async def pause(self) -> None:
        """Take no more connections; what is accepted is served once."""

    async def resume(self, listeners: list[socket.socket]) -> None:
        """Take connections again, on these."""


class Generations:
    """This process's place among its kind. `handed_over` is set once a newer one serves."""

    def __init__(self, shared: Shared, folder: Path, host: Host) -> None:
        self._shared = shared
        shared.responses.forgotten = self._forgotten
        self._host = host
        self._path = folder / CONTROL
        self._server: asyncio.Server | None = None
        self._guests: list[Guest] = []
        self._links: set[Link] = set()
        self._opened = asyncio.Event()
        self._following: Following | None = None
        self._upgrade: asyncio.Task[m.Upgraded] | None = None
        self._answering: set[asyncio.Task[None]] = set()
        self._joined = asyncio.Event()
        self._draft: Path | None = None
        self.handed_over = asyncio.Event()
        self.hurried: Callable[[], None] = lambda: None
        """Called when the process that leads was told to end."""
        self.drain_seconds: float | None = None
        """How long this process may finish its streams, once it has handed over; None: as long as they last."""

    # Life

    async def lead(self) -> None:
        """Be found. Where another daemon leads in this folder already, it is said and left alone."""
        self._opened.set()
        try:
            with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
                connected(self._path).close()
                raise OSError("another daemon uses this state folder")
            await self._listen()
        except OSError as error:
            m.logger.warning("`ds2d upgrade` will not find this process: %s", error)

    async def succeed(self, predecessor: Predecessor) -> None:
        """Take over from a running process, all but its connections. Raises PredecessorGoneError, OSError."""
        self._draft = self._path.with_name(f"{CONTROL}.{os.getpid()}")
        server = await self._serve(self._draft)
        try:
            switch = await predecessor.take_over(self._shared, __version__, self._path.parent)
        except BaseException:
            server.close()
            self._clean()
            raise
        install(switch, self._shared)
        if switch.host:  # a version that says so
            self._host.took_over(switch.host, switch.port)
        guest = self._welcome(predecessor.link)
        guest.adopt(switch.pid, switch.held, switch.reserved)
        predecessor.listen(guest.received, guest.lost)
        self._server = server
        self._draft.replace(self._path)
        guest.tell(m.Leading())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(JOIN_SECONDS):
                while self._processes() <= switch.joiners:
                    self._joined.clear()
                    await self._joined.wait()
        self._opened.set()

    async def abort(self) -> None:
        """Give up an upgrade that is under way: this process is told to stop."""
        if self._upgrade is not None:
            self._upgrade.cancel()
            await asyncio.gather(self._upgrade, return_exceptions=True)
            await asyncio.sleep(0)  # whoever asked hears of it

    async def close(self) -> None:
        """Let go of everything; what others hold here they take elsewhere."""
        await self.abort()
        if self._server is not None:
            self._server.close()
            self._path.unlink(missing_ok=True)
        if self._following is not None:
            self._following.stop()
        for guest in list(self._guests):
            guest.close()
        for link in list(self._links):
            link.close()

    def turn_ended(self, row: Row, _turn: object = None) -> None:
        """A turn of this process is over: the one that is asked about turns must know, where that is another one."""
        if self._following is not None:
            self._following.closed(row)

    def _forgotten(self, caller: str, name: str) -> None:
        """A stored response was deleted: no older process may find its copy, which connections that stayed open would get."""
        for guest in self._guests:
            guest.tell(m.Forget(caller=caller, name=name))

    def _hurried(self) -> None:
        self.hurried()

    def hurry(self) -> None:
        """This process was told to end, and so are the older ones."""
        for guest in self._guests if self.leads else ():
            guest.tell(m.Hurry())

    @property
    def older(self) -> int:
        """How many older processes still finish their streams, and follow this one."""
        return self._processes() if self.leads else 0

    def _processes(self) -> int:
        """How many processes the guests are; one that went and came back has two links for a while."""
        return len({guest.pid for guest in self._guests})

    @property
    def leads(self) -> bool:
        """Whether this process takes connections and decides."""
        return self._following is None

    def sizes(self) -> Sizes:
        """Older processes, and others who are connected."""
        return {"older": Size(len(self._guests), 2 * MAX_OLDER + 1), "links": Size(len(self._links), MAX_LINKS + 1)}

    # What routes ask

    async def seek(self, caller: str, name: str) -> None:
        """Have here what other processes know of a stored response, as it is now."""
        store = self._shared.responses
        if self._following is not None:
            if store.find(caller, name) is None:
                await self._following.fetch(caller, name)
            return
        entry = store.find(caller, name)
        if entry is None and self._guests:
            await asyncio.gather(*(guest.sync() for guest in self._guests))
        elif entry is not None and entry.run is not None:
            await asyncio.gather(*(guest.look(name) for guest in self._guests if guest.works_on(name)))

    async def elsewhere(self, verb: str, caller: str, name: str, query: dict[str, str]) -> bytes | None:
        """The answer of the process that leads about a response that this one does not have; None if this one leads."""
        if self._following is None or self._shared.responses.find(caller, name) is not None:
            return None
        return await self._following.do(verb, caller, name, query)

    async def events(self, caller: str, name: str, query: dict[str, str]) -> AsyncIterator[bytes] | None:
        """The events of a response that another process works on, from `starting_after` on; None if they are here."""
        first = await self.elsewhere("events", caller, name, query)
        return None if first is None else self._events(first, caller, name, max(int(query.get("starting_after", -1)), -1))

    async def _events(self, some: bytes | None, caller: str, name: str, after: int) -> AsyncIterator[bytes]:
        """These, and what follows them. Raises RESPONSE_NOT_FOUND in between where the process that leads is lost."""
        query = {"starting_after": str(after)}
        while some is not None:
            if frames := orjson.loads(some).encode():
                yield frames
                if frames.endswith(DONE):
                    return
                after += frames.count(b"\n\n")
                query = {"starting_after": str(after)}
            some = await self.elsewhere("events", caller, name, query)
        async for piece in routes.events(self._shared.responses, caller, name, query):  # it has come here meanwhile
            yield piece

    # Handing over

    async def upgrade(self, drain_seconds: float | None = None) -> m.Upgraded:
        """Have the version on disk take over; returns once it serves. Raises UpgradeError."""
        if self._upgrade is not None or self._following is not None:
            raise UpgradeError("an upgrade is under way already")
        if self._host.draining:
            raise UpgradeError("the running daemon is about to end")
        if self._processes() >= MAX_OLDER:
            raise UpgradeError(f"{MAX_OLDER} older versions still finish their streams: try again when one of them has ended")
        self._upgrade = work = asyncio.get_running_loop().create_task(self._hand_over())
        try:
            done = await asyncio.shield(work)
        except asyncio.CancelledError:
            if work.cancelled():
                raise UpgradeError("the running daemon was told to end") from None
            raise
        finally:
            self._upgrade = None
        self.drain_seconds = drain_seconds
        self.handed_over.set()
        return done

    async def _hand_over(self) -> m.Upgraded:
        listeners = self._host.listeners()
        try:
            child = await Child.start(listeners)
        except OSError as error:
            _close(listeners)
            raise UpgradeError(f"the new version cannot be started: {error}") from None
        try:
            return await self._hand_over_to(child, listeners)
        except UpgradeError as error:
            words = await child.words()
            m.logger.error("upgrade given up: %s", error)
            raise UpgradeError(f"{error}\n{words}".strip()) from None

    async def _hand_over_to(self, child: Child, listeners: list[socket.socket]) -> m.Upgraded:
        talk = Talk(child.link)
        try:
            ready = await talk.expect(m.Ready, READY_SECONDS)
            self._check(ready)
            m.logger.info("version %s (process %d) has checked itself and takes over", ready.version, ready.pid)
            sent = await self._send_stored(child.link)
        except BaseException:
            child.kill()
            self._clean()
            self._shared.reasoning.told = lambda _thought: None
            _close(listeners)
            raise
        try:
            await self._let_go(child.link, sent, talk)
            await talk.expect(m.Leading, SWITCH_SECONDS)
            for guest in self._guests:
                guest.tell(m.Moved())
            await talk.expect(m.Serving, SWITCH_SECONDS)
        except BaseException:
            child.kill()
            await self._take_back(listeners)
            raise
        _close(listeners)
        for guest in self._guests:
            guest.give_back()  # counted by the new process now
        return m.Upgraded(pid=ready.pid, version=ready.version)

    def _check(self, ready: m.Ready) -> None:
        if ready.protocol != m.PROTOCOL:
            raise UpgradeError(f"version {ready.version} hands over differently: it needs a restart")
        if Path(ready.folder) != self._path.parent:
            raise UpgradeError("the config names another state folder now: that needs a restart")

    async def _send_stored(self, link: Link) -> dict[tuple[str, str], Entry]:
        """Everything that is stored, while this process still serves. Returns what was sent."""
        reasoning, store = self._shared.reasoning, self._shared.responses
        reasoning.told = lambda thought: link.send(m.encode(m.Remember(thought=thought)))
        for number, thought in enumerate(reasoning.kept(), 1):
            link.send(m.encode(m.Remember(thought=thought)))
            await link.drained()
            if not number % SLICE:
                await asyncio.sleep(0)
        sent: dict[tuple[str, str], Entry] = {}
        self._numbers: dict[int, int] = {}
        for number, entry in enumerate(store.kept(), 1):
            link.send(m.encode(m.Kept(piece=store.pack(entry, self._numbers))))
            sent[entry.caller, entry.id] = entry
            await link.drained()
            if not number % SLICE:
                await asyncio.sleep(0)
        return sent

    async def _let_go(self, link: Link, sent: dict[tuple[str, str], Entry], talk: Talk) -> None:
        """Stop taking connections, say how things stand, and follow: one step, in which nothing else happens."""
        await self._host.pause()
        host, port = self._host.bound
        shared, now = self._shared, {}
        for entry in shared.responses.kept():
            now[entry.caller, entry.id] = entry
            if (entry.caller, entry.id) not in sent:
                link.send(m.encode(m.Kept(piece=shared.responses.pack(entry, self._numbers))))
        for caller, name in sent.keys() - now.keys():
            link.send(m.encode(m.Forget(caller=caller, name=name)))
        switch = m.Switch(
            accounts=shared.queue.save(),
            meters=shared.quotas.save(),
            held=shared.queue.held(),
            reserved=shared.quotas.held(),
            inside=[(*place, inside) for place, inside in shared.inside.items()],
            joiners=self._processes(),
            pid=os.getpid(),
            host=host,
            port=port,
        )
        link.send(m.encode(switch))
        for guest in self._guests:
            guest.refuse()
        self._following = following = Following(shared, self._path)
        following.failed, following.other, following.hurried = talk.lost, talk.said, self._hurried
        following.begin(link)
        for guest in self._guests:
            guest.relay = following
        self._opened.clear()
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _take_back(self, listeners: list[socket.socket]) -> None:
        """The new process is gone and had not begun to serve: lead again."""
        if self._following is not None:
            self._following.stop()
            self._following = None
        for guest in self._guests:
            guest.relay = None
            guest.tell(m.Moved())  # and come back: what it asked was refused
        self._opened.set()
        try:
            await self._listen()  # whatever still answers at that path is about to die
        except OSError as error:
            m.logger.warning("`ds2d upgrade` will not find this process: %s", error)
        await self._host.resume(listeners)

    # Those who come

    async def _listen(self) -> None:
        self._clean()
        draft = self._path.with_name(f"{CONTROL}.{os.getpid()}")
        server = await self._serve(draft)
        draft.replace(self._path)
        self._server = server

    def _clean(self) -> None:
        """Take away what a process left that was killed before it led."""
        for left in self._path.parent.glob(f"{CONTROL}.*"):
            left.unlink(missing_ok=True)

    async def _serve(self, path: Path) -> asyncio.Server:
        return await asyncio.get_running_loop().create_unix_server(self._meet, sock=listening(path))

    def _meet(self) -> Link:
        link = Link()
        if len(self._links) >= MAX_LINKS:
            next(iter(self._links)).close()
        self._links.add(link)
        link.received = lambda data: self._first(link, data)
        link.lost = lambda: self._links.discard(link)
        return link

    def _first(self, link: Link, data: bytes) -> None:
        """The first message of somebody new says what it is."""
        match m.decode(data):
            case m.Upgrade() as wish:
                task = asyncio.get_running_loop().create_task(self._do_upgrade(link, wish))
                self._answering.add(task)
                task.add_done_callback(self._answering.discard)
            case m.Join() as join:
                self._links.discard(link)
                former = [guest for guest in self._guests if guest.pid == join.pid]
                self._welcome(link).adopt(join.pid, join.held, join.reserved)
                self._joined.set()
                for guest in former:  # never counted less than once
                    guest.give_back()
            case _:
                link.close()

    async def _do_upgrade(self, link: Link, wish: m.Upgrade) -> None:
        try:
            done = await self.upgrade(wish.drain_seconds)
        except UpgradeError as error:
            done = m.Upgraded(problem=str(error))
        link.send(m.encode(done))
        link.close()

    def _welcome(self, link: Link) -> Guest:
        guest = Guest(link, self._shared, self._opened, self._guests.remove)
        self._guests.append(guest)
        return guest


def _close(listeners: list[socket.socket]) -> None:
    for one in listeners:
        one.close()
