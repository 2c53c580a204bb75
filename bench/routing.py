"""Routing simulated: the real queue, choice and affinity under a clock of their own, servers and clients made up.

    python -m bench.routing [--sizes 2x150,8x600,64x5000] [--turns 8]

A server reads prompts at a rate, decodes slower the more it runs, makes requests wait beyond its slots, and forgets the prefixes
used longest ago. A client is an agent: it asks, thinks, and asks again with a longer prompt. Wait is what passes from asking
until the prompt begins to be read, in our queue and in the server's; first token adds the reading of what was not cached.
"""

from __future__ import annotations

import argparse
import asyncio
import heapq
import random
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from itertools import count
from typing import Any

import msgspec

from ds2d.config.schema import Affinity as AffinitySettings
from ds2d.config.schema import Runtime
from ds2d.core.load import Load
from ds2d.core.models import Route, Target
from ds2d.core.request import ChatRequest
from ds2d.core.settings import ModelSpec, UpstreamSpec
from ds2d.state.accounts import AccountQueue, Want
from ds2d.state.affinity import Affinity

SLOTS = 32
CACHE_TOKENS = 1_500_000
READ_A_SECOND = 8000.0
DECODE_SECONDS = 0.02
POLL_SECONDS = 2.0
FIRST_PROMPT, GROWTH, ANSWER = (4000, 9000), (500, 3000), (60, 300)
THINK_SECONDS = 20.0
PATIENCE = 1e6

STRATEGIES: dict[str, Runtime] = {
    "round robin": Runtime(routing="weighted", affinity=AffinitySettings(mode="off"), account_max_queue=200_000),
    "least loaded": Runtime(affinity=AffinitySettings(mode="off"), account_max_queue=200_000),
    "affinity": Runtime(affinity=AffinitySettings(mode="on"), account_max_queue=200_000),
    "affinity, auto": Runtime(affinity=AffinitySettings(mode="auto"), account_max_queue=200_000),
}


class Alarm:
    """A timer of the simulated clock."""

    def __init__(self, action: Callable[[], None]) -> None:
        self.action: Callable[[], None] | None = action

    def cancel(self) -> None:
        """It does not ring."""
        self.action = None


class Clock:
    """Simulated seconds: time passes only from one event to the next."""

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Alarm]] = []
        self._numbers = count()

    def __call__(self) -> float:
        return self.now

    def call_later(self, delay: float, action: Callable[[], None]) -> Alarm:
        """As the event loop's."""
        alarm = Alarm(action)
        heapq.heappush(self._events, (self.now + delay, next(self._numbers), alarm))
        return alarm

    async def sleep(self, seconds: float) -> None:
        """Wait in simulated time."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.call_later(seconds, lambda: future.set_result(None))
        await future

    async def run(self, done: Callable[[], bool]) -> None:
        """Let time pass until it is done."""
        while not done():
            for _ in range(4):  # whoever was woken runs, and whom that woke
                await asyncio.sleep(0)
            if done():
                return
            self.now, _, alarm = heapq.heappop(self._events)
            if alarm.action is not None:
                alarm.action()


class Server:
    """A model server."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.running = 0
        self.waiting: deque[asyncio.Future[None]] = deque()
        self.cache: OrderedDict[int, int] = OrderedDict()
        self.cached = self.queries = self.hits = self.generated = 0

    async def answer(self, session: int, prompt: int, tokens: int) -> float:
        """Answer a question; when its prompt began to be read, and when it was."""
        if self.running >= SLOTS:
            gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self.waiting.append(gate)
            await gate
        else:
            self.running += 1
        began = self.clock.now
        known = min(prompt, self.cache.get(session, 0))
        self.queries += prompt
        self.hits += known
        await self.clock.sleep((prompt - known) / READ_A_SECOND)
        self._keep(session, prompt + tokens)
        await self.clock.sleep(tokens * DECODE_SECONDS * (1 + self.running / SLOTS))
        self.generated += tokens
        if self.waiting:
            self.waiting.popleft().set_result(None)
        else:
            self.running -= 1
        return began

    def load(self) -> Load:
        """Its gauges."""
        return Load(
            self.running,
            len(self.waiting),
            generated=self.generated,
            prompted=self.queries,
            queries=self.queries,
            hits=self.hits,
        )

    def _keep(self, session: int, tokens: int) -> None:
        self.cached += tokens - self.cache.pop(session, 0)
        self.cache[session] = tokens
        while self.cached > CACHE_TOKENS:
            self.cached -= self.cache.popitem(last=False)[1]


class World:
    """Servers behind one queue, and the clients."""

    def __init__(self, servers: int, clients: int, turns: int, runtime: Runtime) -> None:
        self.clock = Clock()
        self.servers = {f"s{number}": Server(self.clock) for number in range(servers)}
        specs = [UpstreamSpec(name=name, base_url="http://127.0.0.1:1/v1", max_inflight=64) for name in self.servers]
        self.route = Route("m", "m", tuple(Target(spec, "m", ModelSpec()) for spec in specs), "listed")
        self.queue = AccountQueue(runtime, clock=self.clock, wall=self.clock, call_later=self.clock.call_later)
        self.queue.apply(specs, (), runtime)
        self.affinity = Affinity(self.clock)
        self.affinity.apply(runtime.affinity, set(self.servers))
        self.clients, self.turns, self.left = clients, turns, clients
        self.waits: list[float] = []
        self.firsts: list[float] = []

    async def run(self) -> None:
        """All clients to their end."""
        for at, name in enumerate(self.servers):
            self.clock.call_later(POLL_SECONDS * at / len(self.servers), _bound(self.look, name))
        tasks = [asyncio.create_task(self.client(number)) for number in range(self.clients)]
        await self.clock.run(lambda: self.left == 0)
        await asyncio.gather(*tasks)

    def look(self, name: str) -> None:
        """One look at a server's gauges, and the next one planned."""
        load = self.servers[name].load()
        self.affinity.gauged(name, load)
        soon = self.queue.gauged(name, load)
        self.clock.call_later(0.5 if soon else POLL_SECONDS, _bound(self.look, name))

    async def client(self, number: int) -> None:
        """One agent session."""
        chance = random.Random(number)
        prompt = chance.randint(*FIRST_PROMPT)
        await self.clock.sleep(chance.uniform(0, THINK_SECONDS))
        for _ in range(self.turns):
            tokens = chance.randint(*ANSWER)
            await self.turn(number, prompt, tokens)
            prompt += tokens + chance.randint(*GROWTH)
            await self.clock.sleep(chance.expovariate(1 / THINK_SECONDS))
        self.left -= 1

    async def turn(self, number: int, prompt: int, tokens: int) -> None:
        """Ask and be answered."""
        asked = self.clock.now
        thread = self.affinity.thread(ChatRequest("m", [], session=str(number)), "k", self.route)
        names = tuple(self.servers)
        lease = await self.queue.acquire(Want(names, "m", prefer=thread.prefer if thread else None), PATIENCE)
        if thread is not None:
            self.affinity.sent(thread, lease.account.upstream)
        server = self.servers[lease.account.upstream]
        known = min(prompt, server.cache.get(number, 0))
        began = await server.answer(number, prompt, tokens)
        self.queue.release(lease)
        self.waits.append(began - asked)
        self.firsts.append(began - asked + (prompt - known) / READ_A_SECOND)
        if thread is not None:
            self.affinity.answered(thread, prompt, known)


def _bound(function: Callable[[str], None], name: str) -> Callable[[], None]:
    return lambda: function(name)


class Row(msgspec.Struct):
    """What one strategy came to."""

    size: str
    strategy: str
    wait: tuple[float, float]
    first: tuple[float, float]
    hits: float
    most: float
    took: float


def measure(servers: int, clients: int, turns: int, strategy: str) -> Row:
    """One strategy on one world."""
    world, began = World(servers, clients, turns, STRATEGIES[strategy]), time.perf_counter()
    asyncio.run(world.run())
    queries = sum(server.queries for server in world.servers.values())
    hits = sum(server.hits for server in world.servers.values())
    most = max(server.queries for server in world.servers.values()) / queries * servers
    took = time.perf_counter() - began
    return Row(f"{servers} x {clients}", strategy, _points(world.waits), _points(world.firsts), hits / queries, most, took)


def _points(values: list[float]) -> tuple[float, float]:
    """Median and p99."""
    values.sort()
    return values[len(values) // 2], values[int(len(values) * 0.99)]


def main() -> None:
    """Print the table."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--sizes", default="2x150,8x600,64x5000", help="servers x clients, several with commas")
    arguments.add_argument("--turns", type=int, default=8)
    options: Any = arguments.parse_args()
    print("| servers x clients | strategy | wait p50, p99 (s) | first token p50, p99 (s) | cache hits | busiest | computed in |")
    print("|---|---|---|---|---|---|---|")
    for size in options.sizes.split(","):
        servers, clients = map(int, size.split("x"))
        for strategy in STRATEGIES:
            row = measure(servers, clients, options.turns, strategy)
            print(
                f"| {row.size} | {row.strategy} | {row.wait[0]:.2f}, {row.wait[1]:.2f} | {row.first[0]:.2f}, {row.first[1]:.2f} |"
                f" {row.hits:.3f} | {row.most:.2f} x the mean | {row.took:.1f} s |",
                flush=True,
            )


if __name__ == "__main__":
    main()
