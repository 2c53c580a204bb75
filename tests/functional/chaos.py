"""Servers that do anything, and clients that come, wait, join and leave: what each of them got is held against what was said.

Every attempt of a server writes marks (`<a12.3/5>`: attempt 12, piece 3 of 5), so an answer tells whose it is and whether it is
whole. The short form is a test (test_chaos.py), the long one `scripts/chaos`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import re
import sqlite3
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import aiohttp

from tests.functional import processes
from tests.functional.harness import KEY, running
from tests.functional.scripted import END, RESET, Scene, Seen, Wait, refuse, say, scripted_upstream, sse, whole
from tests.functional.test_every_dialect import ENDS, QUESTIONS, texts
from tests.functional.test_queue import until
from tests.functional.test_tool_choice import CHAT_TOOL, CLAUDE_TOOL, FLAT_TOOL, GEMINI_TOOL
from tests.toolcalls.written import write

TOOLS: dict[str, Any] = {"chat": CHAT_TOOL, "responses": FLAT_TOOL, "claude": CLAUDE_TOOL, "gemini": GEMINI_TOOL}
FORMATS = ("deepseek_v3", "deepseek_v31", "deepseek_v32", "deepseek_v4", "hermes")
MARK = re.compile(r"<a(\d+)\.(\d+)/(\d+)>")
ASKED = re.compile(r"question-(\d+)-")
MARKER = len("<｜DSML｜function_calls")
KEEPALIVE = 1
"""Seconds of silence until a life sign: the least that config takes."""
SILENCE = 1.15
GAP = 2.5
"""Seconds after which a silent server is given up."""
KINDS = {"whole": 50, "cut": 16, "no end": 6, "refusal": 12, "no answer": 6, "empty": 4, "hangs": 3, "error in it": 3}
"""What an attempt may do, and how often in a hundred."""

_SECTIONS: dict[str, Any] = {
    "runtime": {
        "account_max_inflight": 200,
        "retry_budget_percent": 100,
        "breaker": {"failures": 100, "open_seconds": 1},
        "affinity": {"mode": "off"},
    },
    "server": {"keepalive_seconds": KEEPALIVE},
}
_TIMEOUTS = {"headers": GAP * 1.5, "first_payload": GAP * 1.5, "payload_gap": GAP, "answer": GAP * 1.5}


SECONDS_AN_UPGRADE = 4.0


class Stage(Protocol):
    """A daemon as clients and operators see it."""

    @property
    def url(self) -> str: ...
    @property
    def http(self) -> aiohttp.ClientSession: ...
    def config(self) -> dict[str, Any]: ...
    def change(self, **sections: Any) -> None: ...


class Decider(Protocol):
    """Who says what servers do."""

    def scene(self, seen: Seen) -> Scene | None: ...


@dataclass
class Attempt:
    """One server's answer to one question."""

    number: int
    question: int
    kind: str
    pieces: int
    calls: bool

    @property
    def arguments(self) -> list[dict[str, Any]]:
        """Of the call that it makes, if it makes one."""
        return [{"city": f"Paris {self.number}"}] if self.calls else []

    def texts(self, dice: random.Random) -> list[str]:
        """What it says, as it says it: its marks, then its call, in pieces as they happen to come."""
        if self.kind == "empty":
            return []
        marks = [f"<a{self.number}.{piece}/{self.pieces}>" for piece in range(self.pieces)]
        markup = write(dice.choice(FORMATS), [("weather", one) for one in self.arguments], dice) if self.calls else ""
        while markup:
            size = dice.randint(1, 40)
            marks.append(markup[:size])
            markup = markup[size:]
        return marks


@dataclass
class Client:
    """One client: what it asks and, in the end, what it got."""

    question: int
    dialect: str
    stream: bool
    leaves: float | None
    repeat: str = ""
    status: int = 0
    raw: str = ""
    text: str = ""
    calls: str = ""
    left: bool = False
    broken: str = ""
    request_id: str = ""


@dataclass
class Chaos:
    """Whoever asks, is asked and may go wrong, by the same dice each time."""

    dice: random.Random
    attempts: list[Attempt] = field(default_factory=list)
    hung: Wait = field(default_factory=Wait)
    """Until it is over."""

    # The servers' side

    def scene(self, seen: Seen) -> Scene | None:
        """What a server does with this request."""
        asked = ASKED.search(json.dumps(seen.body))
        if asked is None or seen.path.endswith("/tokenize"):
            return None
        (kind,) = self.dice.choices(list(KINDS), list(KINDS.values()))
        attempt = Attempt(len(self.attempts), int(asked[1]), kind, self.dice.randint(1, 5), self.dice.random() < 0.4)
        self.attempts.append(attempt)
        if kind == "refusal":
            return refuse(self.dice.choice((500, 502, 503, 429)), {"error": {"message": "not now"}}, Retry_After="0")
        scene = self._streamed(attempt) if seen.body.get("stream") else self._whole(attempt)
        if self.dice.random() < 0.15:
            scene = self._late(scene)
        return scene

    def _streamed(self, attempt: Attempt) -> Scene:
        if attempt.kind == "no answer":
            return Scene([self.dice.choice((RESET, END))], raw=True)
        role, *parts, stop, counts, done = say(*attempt.texts(self.dice))
        cut = self.dice.randint(0, len(parts))
        frames: list[Any] = [role, *parts, stop, counts, done]
        match attempt.kind:
            case "cut":
                frames = [role, *parts[:cut], self.dice.choice((RESET, END))]
            case "no end":
                frames = [role, *parts[:cut], *([done] if self.dice.random() < 0.5 else [])]
            case "hangs":
                frames = [role, *parts[:cut], self.hung]
            case "error in it":
                frames = [role, *parts[:cut], *sse({"error": {"message": "CUDA error", "code": 500}})]
        return Scene(list(self._with_pauses(self._glued(frames))))

    def _whole(self, attempt: Attempt) -> Scene:
        scene = whole({"content": "".join(attempt.texts(self.dice))})
        (body,) = scene.pieces
        match attempt.kind:
            case "cut":
                scene.pieces = [body[: self.dice.randint(0, len(body) - 1)], self.dice.choice((RESET, END))]
            case "no end":
                scene.pieces = [body[: self.dice.randint(0, len(body) - 1)]]
            case "no answer":
                return Scene([self.dice.choice((RESET, END))], raw=True)
            case "hangs":
                scene.pieces = [body[:20], self.hung]
            case "error in it":
                scene.pieces = [json.dumps({"error": {"message": "CUDA error", "code": 500}}).encode()]
        return scene

    def _glued(self, frames: list[Any]) -> Iterator[Any]:
        """Some frames come together, as the network has it."""
        held = b""
        for frame in frames:
            if not isinstance(frame, bytes):
                yield from (part for part in (held, frame) if part)
                held = b""
                continue
            held += frame
            if self.dice.random() < 0.7:
                yield held
                held = b""
        if held:
            yield held

    def _with_pauses(self, frames: Iterator[Any]) -> Iterator[Any]:
        for frame in frames:
            yield self.dice.choices((0.0, 0.01, SILENCE), (70, 25, 5))[0]
            yield frame

    def _late(self, scene: Scene) -> Scene:
        """The same; even its status comes when the client has had a life sign."""
        if scene.raw:
            return Scene([SILENCE, *scene.pieces], raw=True)
        head = f"HTTP/1.1 {scene.status} X\r\nContent-Type: {scene.content_type}\r\nConnection: close\r\n\r\n"
        return Scene([SILENCE, head.encode(), *scene.pieces], raw=True)

    # The clients' side

    async def run(self, ds2d: Stage, count: int, seconds: float = 1.0) -> list[Client]:
        """So many questions in so many seconds; some are asked by two clients."""
        clients: list[Client] = []
        for number in range(count):
            leaves = self.dice.uniform(0, 2) if self.dice.random() < 0.15 else None
            client = Client(number, self.dice.choice(list(TOOLS)), self.dice.random() < 0.7, leaves)
            clients.append(client)
            if self.dice.random() < 0.15:
                client.repeat = f"the same {number}"
                leaves = self.dice.uniform(0, 2) if self.dice.random() < 0.3 else None
                clients.append(Client(number, client.dialect, client.stream, leaves, client.repeat))
        async with asyncio.TaskGroup() as group:
            operator = group.create_task(self._operate(ds2d))
            comes: dict[int, float] = {}  # by question: whoever asks the same comes about then
            for client in clients:
                first = comes.setdefault(client.question, self.dice.uniform(0, seconds))
                group.create_task(self._ask(ds2d, client, first + self.dice.uniform(0, 1)))
            await asyncio.sleep(seconds + 1.5)
            operator.cancel()
        self.hung.until.set()
        return clients

    async def _operate(self, ds2d: Stage) -> None:
        """Somebody changes the config all the time: servers come, go and move, slots become few and many."""
        upstreams, runtime = ds2d.config()["upstreams"], ds2d.config()["runtime"]
        while True:
            await asyncio.sleep(self.dice.uniform(0.02, 0.2))
            few = self.dice.sample(upstreams, self.dice.randint(1, len(upstreams)))
            slots = self.dice.choice((3, 20, 200))
            ds2d.change(upstreams=few, runtime={**runtime, "account_max_inflight": slots, "account_max_queue": 1000})

    async def _ask(self, ds2d: Stage, client: Client, comes: float) -> None:
        path, body, stream_path, more = QUESTIONS[client.dialect]
        where, what = (stream_path, {**body, **more}) if client.stream else (path, body)
        what = {**what, "tools": [TOOLS[client.dialect]]}
        raw = json.dumps(what).replace("Hello", f"question-{client.question}-")
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
        if client.repeat:
            headers |= {"Idempotency-Key": client.repeat}
        data = bytearray()
        await asyncio.sleep(comes)
        try:
            async with asyncio.timeout(client.leaves):
                async with ds2d.http.post(ds2d.url + where, data=raw.encode(), headers=headers) as reply:
                    client.status, client.request_id = reply.status, reply.headers["X-Request-Id"]
                    async for piece in reply.content.iter_any():
                        data += piece
        except TimeoutError:
            client.left = True
        except aiohttp.ClientError as error:
            client.broken = repr(error)
        client.raw = bytes(data).decode()
        answer = list(said(client))
        client.text, client.calls = "".join(map(texts_of, answer)), "".join(map(calls_of, answer))

    # What must hold

    def faults(self, clients: list[Client], recent: list[dict[str, Any]]) -> list[str]:
        """What was done wrong, in words; empty if nothing was. `recent` are the books' last turns."""
        books = {turn["request_id"]: turn["state"] for turn in recent}
        found = ((client, self._fault(client) or _booked(client, books.get(client.request_id))) for client in clients)
        return [f"{client} {fault} {self.of(client.question)}" for client, fault in found if fault]

    def of(self, question: int) -> list[Attempt]:
        """The attempts that were made for it."""
        return [attempt for attempt in self.attempts if attempt.question == question]

    def _fault(self, client: Client) -> str:
        marks = [tuple(map(int, found)) for found in MARK.findall(client.text)]
        if client.broken:
            return "was cut off without a word"
        more = MARK.sub("", client.text)
        if more and (is_whole(client) or len(more) > MARKER):  # half a marker is text where the rest did not come
            return "was shown markup"
        if len({number for number, _, _ in marks}) > 1:
            return "got two answers in one"
        if [piece for _, piece, _ in marks] != list(range(len(marks))):
            return "got pieces twice, or not all, or not in order"
        says_so = is_whole(client)
        if marks:
            attempt = self.attempts[marks[0][0]]
            if attempt.question != client.question:
                return "got somebody else's answer"
            if attempt is not self.of(client.question)[-1] and not client.repeat:
                return "got an answer, and another was asked for"
            if says_so and (attempt.kind != "whole" or len(marks) != attempt.pieces):
                return "got a cut answer that looks whole"
            if says_so and calls(client) != attempt.arguments:
                return "was not told the call, or one that nobody made"
        elif says_so and all(attempt.kind != "empty" for attempt in self.of(client.question)):
            return "got nothing, and it looks whole"
        if not client.left and not says_so and not is_failure(client):
            return "got an end that says nothing"
        return ""


def _booked(client: Client, state: str | None) -> str:
    """What is wrong with the state in which its turn is on record. One who joined another's turn has no record."""
    if client.left or client.repeat or state == ("completed" if is_whole(client) else "failed"):
        return ""
    return f"is on record as {state}"


def said(client: Client) -> Iterator[Any]:
    """What an answer adds, event by event, or the whole of it; no errors, and nothing that is told twice."""
    if not client.stream or client.status != 200:
        with contextlib.suppress(ValueError):
            yield json.loads(client.raw)
        return
    for line in client.raw.splitlines():
        if line.startswith("data: {") and line.endswith("}"):
            event = json.loads(line[6:])
            if "response." not in event.get("type", "") or event["type"].endswith(".delta"):
                yield event


def texts_of(event: Any) -> str:
    """The text that a client would show."""
    if not isinstance(event, dict) or event.get("error"):
        return ""
    if event.get("type") == "response.output_text.delta":
        return str(event["delta"])
    return texts(event)


def calls_of(event: Any) -> str:
    """The arguments that a client would run its tool with, as JSON."""
    if isinstance(event, list):
        return "".join(map(calls_of, event))
    if not isinstance(event, dict):
        return ""
    if event.get("type") == "response.function_call_arguments.delta":
        return str(event["delta"])
    own = (event[name] for name in ("arguments", "partial_json", "args", "input") if event.get(name))
    found = "".join(value if isinstance(value, str) else json.dumps(value) for value in own)
    return found + "".join(calls_of(value) for name, value in event.items() if name not in ("tools", "args", "input"))


def calls(client: Client) -> list[Any]:
    """The arguments of the calls, read as a client reads them."""
    try:
        return [json.loads(client.calls)] if client.calls else []
    except ValueError:
        return [client.calls]


def is_whole(client: Client) -> bool:
    """Whether the answer says that it is."""
    if client.status != 200 or is_failure(client):
        return False
    if client.stream:
        return ENDS[client.dialect] in client.raw
    try:
        answer = json.loads(client.raw)
    except ValueError:
        return False
    return client.dialect != "responses" or answer["status"] == "completed"


def is_failure(client: Client) -> bool:
    """Whether the answer says that it is not."""
    return client.status >= 400 or any(sign in client.raw for sign in ('"error":{', '"incomplete"', '"failed"'))


def told(clients: list[Client]) -> str:
    """How it went, in numbers."""
    ends = Counter("left" if client.left else "whole" if is_whole(client) else "failed" for client in clients)
    return ", ".join(f"{count} {end}" for end, count in sorted(ends.items()))


async def one_round(folder: Path, seed: int, count: int = 150, carrier: str | None = None) -> tuple[list[str], list[Client]]:
    """So many questions to a daemon before three servers: what was done wrong, and what the clients got."""
    chaos = Chaos(random.Random(seed))
    async with servers(chaos) as config, running(folder, config, carrier=carrier) as ds2d:
        clients = await chaos.run(ds2d, count)
        service, queue = ds2d.daemon.service, ds2d.daemon.queue
        await until(lambda: not service.turns and queue.running == queue.waiting == 0)
        return chaos.faults(clients, ds2d.daemon.books.recent), clients


async def upgraded_round(folder: Path, seed: int, count: int = 300, upgrades: int = 3) -> tuple[list[str], list[Client]]:
    """The same with processes: while clients come, a newer one takes over from the one that runs, so many times."""
    chaos = Chaos(random.Random(seed))
    async with servers(chaos) as config, aiohttp.ClientSession() as http:
        with processes.serving(folder, config=config) as process:
            await asyncio.to_thread(processes.until, lambda: process.ask("/readyz")[0] == 200)
            stage = Folder(f"http://127.0.0.1:{process.port}", http, folder)
            asking = asyncio.create_task(chaos.run(stage, count, SECONDS_AN_UPGRADE * upgrades))
            found = [await stage.upgrade() for _ in range(upgrades)]
            clients = await asking
            await http.close()  # an older process lasts as long as somebody is connected to it
            ledger = folder / "state" / "ledger.sqlite3"
            await asyncio.to_thread(processes.until, lambda: len(processes.daemons(folder)) == 1 and not is_open(ledger))
            return [*filter(None, found), *chaos.faults(clients, recorded(ledger))], clients


@dataclass
class Folder:
    """A daemon that runs there, whichever process it is by now."""

    url: str
    http: aiohttp.ClientSession
    folder: Path

    def config(self) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads((self.folder / "config.json").read_text())
        return loaded

    def change(self, **sections: Any) -> None:
        draft = self.folder / "config.draft"
        draft.write_text(json.dumps({**self.config(), **sections}))
        draft.rename(self.folder / "config.json")

    async def upgrade(self) -> str:
        """After a while; what it said if it failed."""
        await asyncio.sleep(SECONDS_AN_UPGRADE * 0.8)
        command = [sys.executable, "-m", "ds2d", "upgrade", "--state", str(self.folder / "state")]
        done = await asyncio.create_subprocess_exec(
            *command,
            cwd=self.folder,
            env=processes.environment(),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        words, _ = await done.communicate()
        return words.decode() if done.returncode else ""


def recorded(ledger: Path) -> list[dict[str, str]]:
    with contextlib.closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)) as db:
        return [{"request_id": name, "state": state} for name, state in db.execute("SELECT request_id, state FROM turns")]


def is_open(ledger: Path) -> bool:
    return any(row["state"] == "open" for row in recorded(ledger))


@contextlib.asynccontextmanager
async def servers(chaos: Decider) -> AsyncIterator[dict[str, Any]]:
    """Three servers, and a config that leads to them."""
    async with scripted_upstream() as a, scripted_upstream() as b, scripted_upstream() as c:
        upstreams = []
        for name, server in (("a", a), ("b", b), ("c", c)):
            server.decide = chaos.scene
            upstreams.append({"name": name, "base_url": server.base_url, "timeouts": _TIMEOUTS})
        yield {"keys": [KEY], "upstreams": upstreams, **_SECTIONS}
