"""Clients that make, follow, chain, cancel and delete responses at once: what each of them is told is held against what was said.

A `Made` is a response as its clients know it. What one of them was told holds for all: an event number is one event, an ended
response never changes, a deleted one is gone. Servers are those of chaos.py. The short form is test_responses_chaos.py.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp

from tests.functional import processes
from tests.functional.chaos import SECONDS_AN_UPGRADE, Chaos, Folder, Stage, is_open, recorded, servers
from tests.functional.harness import KEY, running
from tests.functional.responses_told import ENDED, Got, Made, Said, leaks, marked, misbooked, outputs, put, said, told, wrongs
from tests.functional.scripted import Scene, Seen
from tests.functional.test_queue import until
from tests.functional.test_tool_choice import FLAT_TOOL

OTHER = "sk-other-0123456789"
PATH = "/v1/responses"
LIMITS = {"background_max": 12, "background_seconds": 2}
CLIENTS = 24
STEPS: dict[str, int] = {"make": 34, "get": 16, "follow": 20, "items": 6, "count": 6, "cancel": 8, "delete": 6, "again": 4}
"""What a client does next, and how often in a hundred."""

NAME = re.compile(r'"id":"(resp_\w+)"')

Heard = Callable[[Got], None]


class World:
    """Clients of two keys, and what they found wrong."""

    def __init__(self, seed: int, forgets: bool = False) -> None:
        self.dice = random.Random(seed)
        self.forgets = forgets
        """Whether the store has room for some only: what has ended may be gone, and then for good."""
        self.servers = Chaos(self.dice)
        self.short: set[int] = set()
        """Attempts that end at a limit."""
        self.made: list[Made] = []
        self.asked: list[tuple[Made, list[Said]]] = []
        """What the servers got."""
        self.known: dict[str, Made] = {}
        self.faults: list[str] = []
        self.told: Counter[str] = Counter()
        self.hurries = True
        """Clients leave at any moment."""

    # The servers' side

    def scene(self, seen: Seen) -> Scene | None:
        """What a server does with this request: as in chaos.py, with a usage of its own, and now and then cut at a limit."""
        body, attempts = seen.body or {}, self.servers.attempts
        messages, count = body.get("messages", []), len(attempts)
        scene = self.servers.scene(replace(seen, body={**body, "messages": messages[-1:]}))
        if scene is None or len(attempts) == count:
            return scene
        attempt = attempts[-1]
        self.asked.append((self.made[attempt.question], [put(message) for message in messages]))
        if attempt.kind == "whole" and self.dice.random() < 0.1:
            self.short.add(attempt.number)
        reason = b'"length"' if attempt.number in self.short else b'"stop"'
        scene.pieces = [marked(piece, attempt.number, reason) if isinstance(piece, bytes) else piece for piece in scene.pieces]
        return scene

    # The clients' side

    async def run(self, ds2d: Stage, clients: int, seconds: float) -> None:
        """So many clients, one step after the other for so long; then whatever waits is let go."""
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            for _ in range(clients):
                group.create_task(self._client(ds2d, loop.time() + seconds))
            await asyncio.sleep(seconds)
            self.servers.hung.until.set()

    async def _client(self, ds2d: Stage, end: float) -> None:
        steps = {name: getattr(self, f"_{name}") for name in STEPS}
        while asyncio.get_running_loop().time() < end:
            await asyncio.sleep(self.dice.choice((0, 0, 0.01, 0.1)))
            (step,) = self.dice.choices(list(STEPS), list(STEPS.values()))
            made = self._some()
            if made is None or step == "make":
                await self._make(ds2d, made)
            else:
                await steps[step](ds2d, made, self.dice.choice((made.key, made.key, made.key, KEY, OTHER)))

    def _some(self) -> Made | None:
        """One of those whose name is known, a new one rather than an old one."""
        there = list(self.known.values())[-20:]
        return self.dice.choice(there) if there else None

    async def _send(
        self, ds2d: Stage, method: str, path: str, key: str, body: Any = None, repeat: str = "", heard: Heard = lambda _got: None
    ) -> Got:
        """One request; `heard` is told of what has come of its answer, as it comes."""
        got = Got(f"{method} {path}")
        headers = {"Authorization": f"Bearer {key}"} | ({"Idempotency-Key": repeat} if repeat else {})
        stays = self.dice.uniform(0, 1) ** 2 * 2 if self.hurries and self.dice.random() < 0.15 else None
        try:
            async with asyncio.timeout(stays), ds2d.http.request(method, ds2d.url + path, json=body, headers=headers) as reply:
                got.status, got.request_id = reply.status, reply.headers["X-Request-Id"]
                async for piece in reply.content.iter_any():
                    got.text += piece.decode()
                    heard(got)
        except TimeoutError:
            got.left = True
        if got.status == 500:
            self.faults.append(f"{method} {path} {body} was told of a fault of ours: {got.text}")
        return got

    async def _make(self, ds2d: Stage, earlier: Made | None) -> None:
        """A new question, a new conversation or one that continues `earlier`, whether or not that can be."""
        number, dice = len(self.made), self.dice
        background = dice.random() < 0.5
        body: dict[str, Any] = {
            "model": "deepseek-chat",
            "tools": [FLAT_TOOL],
            "stream": dice.random() < 0.5,
            "store": background or dice.random() < 0.8,
            "background": background,
        }
        key, own = dice.choice((KEY, KEY, OTHER)), []
        chained, known = None, False
        if earlier is not None and dice.random() < 0.6:
            chained, body["previous_response_id"] = earlier, earlier.id
            key = earlier.key if dice.random() < 0.9 else key
            known = earlier.is_chained_on
            if earlier.final is not None:
                own = outputs(earlier.final["output"])
        asked = [f"part-{number}-{part}" for part in range(dice.randint(0, 3))] + [f"question-{number}-"]
        body["input"] = own + [{"role": "user", "content": text} for text in asked]
        made = Made(number, key, body, chained, f"again {number}" if dice.random() < 0.2 else "")
        self.made.append(made)
        gone = chained is not None and (chained.deleted or chained.key != key or not chained.body["store"])
        ends = chained is not None and chained.final is not None and chained.final["status"] in ("failed", "cancelled")
        got, *_ = await asyncio.gather(*(self._post(ds2d, made) for _ in range(dice.randint(1, 2) if made.repeat else 1)))
        if chained is None or got.left or got.status == 0:
            return
        if (gone or ends) and got.status != 400:
            self.fault(made, f"continued {chained}: {got.status}")
        if gone and got.status == 400 and got.json["error"]["code"] != "previous_response_not_found":
            self.fault(made, f"was told more than that there is none: {got.text}")
        if known and not gone and chained.is_chained_on and got.status == 400:
            self._missing(chained, got)

    async def _again(self, ds2d: Stage, made: Made, _: str) -> None:
        """The same question once more, perhaps while it is answered."""
        if made.repeat:
            await self._post(ds2d, made)

    async def _post(self, ds2d: Stage, made: Made) -> Got:
        named: list[Made] = []

        def heard(got: Got) -> None:
            if not named and got.status == 200 and (name := NAME.search(got.text)):
                named.append(self._named(made, name[1], got))

        got = await self._send(ds2d, "POST", PATH, made.key, made.body, made.repeat, heard)
        self.told[f"POST {got.status}"] += 1
        if got.status == 200 and named:
            if made.body["stream"]:
                self._events(named[0], got, -1)
            elif not got.left:
                self._see(named[0], got.json)
        elif got.status == 200 and not got.left and '"type":"error"' not in got.text:
            self.fault(made, f"got an end that says nothing: {got}")
        return got

    def _named(self, made: Made, name: str, got: Got) -> Made:
        """The response of that name, which is this one or another answer to the same question, if that was asked twice."""
        if name not in self.known and made.id:
            made = Made(made.question, made.key, made.body, made.earlier, made.repeat)
        known = self.known.setdefault(name, made)
        if known.question != made.question:
            self.fault(made, f"got the response of {known}")
        if not known.id:
            known.id, known.request_id = name, got.request_id
        return known

    async def _ask(self, ds2d: Stage, made: Made, key: str, tail: str = "", method: str = "GET", background: bool = False) -> Got:
        """A request about one. It must be found if it has to be there, and nobody deletes it, and must not be if it is gone;
        `background`: no other has what is asked for."""
        gone, kept = made.deleted or key != made.key or not made.body["store"], made.is_kept
        refused = background and not made.body["background"]
        got = await self._send(ds2d, method, f"{PATH}/{made.id}{tail}", key)
        if (gone and got.status not in (0, 404)) or (refused and got.status not in (0, 400, 404)):
            self.fault(made, f"should not be had: {got}")
        elif kept and made.is_kept and not gone and not refused and got.status not in (0, 200):
            self._missing(made, got)
        return got

    async def _get(self, ds2d: Stage, made: Made, key: str) -> None:
        known = made.final
        if (got := await self._ask(ds2d, made, key)).is_whole:
            self._see(made, got.json, known)

    async def _follow(self, ds2d: Stage, made: Made, key: str, after: int | None = None) -> None:
        after = self.dice.choice((-1, -1, 0, self.dice.randint(0, 30), 10**7)) if after is None else after
        got = await self._ask(ds2d, made, key, f"?stream=true&starting_after={after}", background=True)
        if got.status == 200:
            self._events(made, got, after)

    async def _items(self, ds2d: Stage, made: Made, key: str) -> None:
        order, tail, found = self.dice.choice(("asc", "desc")), f"/input_items?limit={self.dice.randint(1, 3)}", []
        after = ""
        while (got := await self._ask(ds2d, made, key, f"{tail}&order={order}{after}")).is_whole:
            found += got.json["data"]
            after = f"&after={got.json['last_id']}"
            if not got.json["has_more"]:
                asked = list(map(said, made.body["input"]))
                if list(map(said, found)) != (asked if order == "asc" else asked[::-1]):
                    self.fault(made, f"has the items {found}")
                break

    async def _count(self, ds2d: Stage, made: Made, key: str) -> None:
        gone, known = made.deleted or key != made.key or not made.body["store"], made.is_chained_on
        own = outputs(made.final["output"]) if made.final else []
        body = {"model": "deepseek-chat", "previous_response_id": made.id, "input": [*own, {"role": "user", "content": "more"}]}
        got = await self._send(ds2d, "POST", f"{PATH}/input_tokens", key, body)
        if gone and got.status not in (0, 400):
            self.fault(made, f"is gone and was counted: {got}")
        if not gone and known and made.is_chained_on and got.status not in (0, 200):
            self._missing(made, got)

    async def _cancel(self, ds2d: Stage, made: Made, key: str) -> None:
        known, made.cancelling = made.final, made.cancelling or key == made.key
        if (got := await self._ask(ds2d, made, key, "/cancel", "POST", background=True)).is_whole:
            self._see(made, got.json, known)
            if got.json["status"] not in ENDED:
                self.fault(made, f"was cancelled and is {got.json['status']}")

    async def _delete(self, ds2d: Stage, made: Made, key: str) -> None:
        made.deleting |= key == made.key
        got = await self._ask(ds2d, made, key, method="DELETE")
        made.deleted |= got.status == 200

    # What must hold at once

    def fault(self, made: Made, words: str) -> None:
        attempts = [attempt for attempt in self.servers.attempts if attempt.question == made.question]
        shown = {name: value for name, value in made.body.items() if name not in ("model", "tools")}
        self.faults.append(f"{made} {shown}\n    {words}\n    {attempts}")

    def _missing(self, made: Made, got: Got) -> None:
        """It should be there."""
        if self.forgets and "not_found" in got.text:
            made.deleting = made.deleted = True
        else:
            self.fault(made, f"should be found: {got}")

    def _see(self, made: Made, now: dict[str, Any], known: dict[str, Any] | None = None) -> None:
        """A response object that somebody got; `known` is how it ended, if that was known before it was asked for."""
        if now["status"] in ENDED:
            made.final = known = made.final or now
            self.told[now["status"]] += now is made.final
        else:
            made.partly.append(told(now["output"])[1])
        if now["id"] != made.id or (known is not None and now != known):
            self.fault(made, f"has changed from {known} to {now}")

    def _events(self, made: Made, got: Got, after: int) -> None:
        """Events that somebody got who asked for those after this number."""
        events = got.events()
        numbers = [event["sequence_number"] for event in events]
        if numbers != list(range(after + 1, after + 1 + len(numbers))):
            self.fault(made, f"was told in the events {numbers} after {after}")
        for event in events:
            if made.events.setdefault(event["sequence_number"], event) != event:
                self.fault(made, f"was told {event}, before that {made.events[event['sequence_number']]}")
            if "response" in event:
                self._see(made, event["response"])
        ends = not events or events[-1].get("response", {}).get("status") in ENDED
        if not got.left and not (ends and got.text.endswith("data: [DONE]\n\n")):
            self.fault(made, f"ended without an end: {got.text[-300:]}")

    # What must hold in the end

    async def look(self, ds2d: Stage) -> None:
        """Look at all of them once more, to the end, and judge."""
        self.hurries = False
        for made in self.known.values():
            for key in (made.key, OTHER if made.key == KEY else KEY):
                await self._get(ds2d, made, key)
                await self._items(ds2d, made, key)
                await self._follow(ds2d, made, key, -1)
            for words in wrongs(made, self.servers.attempts, self.short):
                self.fault(made, words)
        for made, got in self.asked:
            if made.asked not in (None, got):
                self.fault(made, f"asked the server {got} instead of {made.asked}")

    def look_up(self, recent: list[dict[str, Any]]) -> None:
        """Hold them against the books' last turns."""
        books = {turn["request_id"]: turn for turn in recent}
        for made in self.known.values():
            if words := misbooked(made, books.get(made.request_id)):
                self.fault(made, words)


async def one_round(folder: Path, seed: int, seconds: float = 2.0, room: int = 0, carrier: str | None = None) -> World:
    """Clients of a daemon before three servers for so long, and what they found. `room`: bytes of the store, if not the usual."""
    world = World(seed, forgets=bool(room))
    async with servers(world) as config:
        config |= {
            "keys": [KEY, OTHER],
            "responses": LIMITS | ({"store_bytes": room} if room else {}),
        }
        async with running(folder, config, carrier=carrier) as ds2d:
            await world.run(ds2d, CLIENTS, seconds)
            service, queue = ds2d.daemon.service, ds2d.daemon.queue
            await until(lambda: not service.turns and queue.running == queue.waiting == 0)
            await world.look(ds2d)
            world.look_up(ds2d.daemon.books.recent)
            world.faults += leaks(ds2d)
    return world


async def upgraded_round(folder: Path, seed: int, upgrades: int = 2) -> World:
    """The same with processes: while clients come, a newer one takes over from the one that runs, so many times."""
    world = World(seed)
    async with servers(world) as config, aiohttp.ClientSession() as http:
        config |= {"keys": [KEY, OTHER], "responses": LIMITS}
        with processes.serving(folder, config=config) as process:
            await asyncio.to_thread(processes.until, lambda: process.ask("/readyz")[0] == 200)
            stage = Folder(f"http://127.0.0.1:{process.port}", http, folder)
            asking = asyncio.create_task(world.run(stage, CLIENTS, SECONDS_AN_UPGRADE * upgrades))
            world.faults += filter(None, [await stage.upgrade() for _ in range(upgrades)])
            await asking
            await world.look(stage)
            await http.close()  # an older process lasts as long as somebody is connected to it
            ledger = folder / "state" / "ledger.sqlite3"
            await asyncio.to_thread(processes.until, lambda: len(processes.daemons(folder)) == 1 and not is_open(ledger))
            world.look_up(recorded(ledger))
    return world
