"""Stored responses: what `previous_response_id`, GET, DELETE, cancel and input_items find.

Rule: found only by (caller, id); unknown, foreign and expired look the same. Bounded by bytes and count, oldest out first;
`store_ttl_seconds` counts from the end of the work and holds for entries already stored.
Surprise: a chain shares its pieces. Every response holds all items before it, so that it outlives its predecessors, but
equal pieces are one object and are counted once.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import orjson

from ds2d.core import json_pieces
from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.gather import as_bytes
from ds2d.core.letting_go import AT_ONCE
from ds2d.core.sizes import Size, Sizes
from ds2d.core.validate import invalid
from ds2d.dialects.openai_responses import Answer, Reply, join_body, own_part, own_text
from ds2d.state.background import FRAME_OVERHEAD, BackgroundResponse

MAX_COUNT = 100_000
ENTRY_OVERHEAD = 700
"""Bytes of an entry beside its texts: the objects themselves and their places in the tables (measured)."""
ITEM_OVERHEAD = 240
"""Bytes of one item id and its place in the index."""
MANY_ITEMS = 1000
"""Items of one response from which on they are looked for in a set of its own: in an index of all they would be entered and
cleared one by one, which holds the event loop. There is room for so few such responses that to ask each of them costs nothing."""
SEGMENT_OVERHEAD = 100
WASTE = 1 / 16
"""Share of the texts that the allocator leaves in holes once old entries have made way for new ones (measured: 4 %)."""
FULL_RETRY_SECONDS = 10.0

Item = dict[str, Any]


class Limits(msgspec.Struct, frozen=True):
    """Config's `responses.*` as far as they bound this store."""

    ttl_seconds: float = 900
    max_bytes: int = 256 * 1024 * 1024
    background_max: int = 32
    background_seconds: float = 3600


class Segment(msgspec.Struct):
    """Items that belong together, as a JSON array; shared by all responses of a chain."""

    data: bytes
    holders: int = 0

    @property
    def weight(self) -> int:
        """Bytes it costs."""
        return int(len(self.data) * (1 + WASTE)) + SEGMENT_OVERHEAD


class Entry(msgspec.Struct):
    """One stored response. `head` is the object without `output`; `before` are the segments of the conversation before it.

    `memory` is the output as the next turn must see it. `events` are the frames of an ended background response. `ended` is
    on the monotonic clock. `run` is set while it is worked on.
    """

    id: str
    caller: str
    status: str
    background: bool
    head: bytes
    own: Segment
    output: Segment
    memory: Segment
    before: tuple[Segment, ...] = ()
    item_ids: tuple[str, ...] = ()
    events: bytes = b""
    ended: float = 0.0
    run: BackgroundResponse | None = None

    @property
    def chain(self) -> tuple[Segment, ...]:
        """The conversation up to and including this response."""
        return (*self.before, self.own, self.memory)

    def items(self) -> list[Item]:
        """Every item of the conversation up to and including this response."""
        return [item for segment in self.chain for item in orjson.loads(segment.data)]

    def body(self) -> bytes:
        """The response object as JSON."""
        return self.run.snapshot().body() if self.run is not None else join_body(self.head, self.output.data)

    @property
    def weight(self) -> int:
        """Bytes it costs beside its segments."""
        texts = int((len(self.head) + len(self.events)) * (1 + WASTE))
        return texts + ENTRY_OVERHEAD + ITEM_OVERHEAD * len(self.item_ids) + 8 * len(self.before)


class ResponseStore:
    """All stored responses. `clock` is monotonic seconds; `new_id(prefix)` makes ids for items that came without one."""

    def __init__(self, clock: Callable[[], float], new_id: Callable[[str], str], limits: Limits | None = None) -> None:
        self._clock = clock
        self._new_id = new_id
        self._limits = limits or Limits()
        self._ended: OrderedDict[tuple[str, str], Entry] = OrderedDict()  # in the order in which they ended
        self._running: dict[tuple[str, str], Entry] = {}
        self._runs: dict[str, BackgroundResponse] = {}  # also those whose entry was deleted meanwhile
        self._by_item: dict[tuple[str, str], str] = {}
        self._large: dict[tuple[str, str], frozenset[str]] = {}
        """The item ids of each response that has `MANY_ITEMS`."""
        self.bytes = 0
        """What is held now, in bytes: a gauge, and what `max_bytes` bounds."""

    def __len__(self) -> int:
        return len(self._ended) + len(self._running)

    @property
    def entries(self) -> Iterable[Entry]:
        """The ended responses, oldest first."""
        return self._ended.values()

    @property
    def runs(self) -> tuple[BackgroundResponse, ...]:
        """The background responses that are worked on."""
        return tuple(self._runs.values())

    def sizes(self) -> Sizes:
        """Stored responses, and those that are worked on."""
        return {
            "stored": Size(len(self._ended), MAX_COUNT),
            "stored_bytes": Size(self.bytes, self._limits.max_bytes),
            "background": Size(len(self._runs), self._limits.background_max),
        }

    def apply(self, limits: Limits) -> None:
        """Take new limits, for what is stored as well."""
        self._limits = limits
        self.expire()
        self._make_room()

    def put(self, caller: str, reply: Reply) -> None:
        """Keep the answer that the dialect left in `reply`, if its question allows that."""
        if reply.store and reply.answer is not None:
            self.expire()
            entry = self._entry(caller, reply)
            _fill(entry, reply.answer)
            self._keep(entry, self._clock())

    def begin(self, caller: str, reply: Reply, snapshot: Callable[[], Answer], opening: bytes = b"") -> BackgroundResponse:
        """A place for a background response that begins with these frames. What is refused costs nobody's place.

        Raises QUEUE_FULL when too many run already or leave no room, BODY_TOO_LARGE where there would never be room, and
        UNSUPPORTED_PARAMETER where none may ever run.
        """
        limits = self._limits
        if not limits.background_max:
            raise invalid("background", "background responses are turned off here.", ErrorKind.UNSUPPORTED_PARAMETER)
        if len(self._runs) >= limits.background_max:
            message = f"{len(self._runs)} background responses are running already."
            raise GatewayError(ErrorKind.QUEUE_FULL, message, retry_after=FULL_RETRY_SECONDS)
        entry = self._entry(caller, reply)
        size = entry.weight + entry.own.weight + len(opening) + FRAME_OVERHEAD * opening.count(b"\n\n")
        if size > limits.max_bytes:
            message = f"The question needs {size} bytes, and the store has {limits.max_bytes}."
            raise GatewayError(ErrorKind.BODY_TOO_LARGE, message)
        if size + sum(run.size for run in self._runs.values()) > limits.max_bytes:
            message = "The background responses that are running leave no room for this one."
            raise GatewayError(ErrorKind.QUEUE_FULL, message, retry_after=FULL_RETRY_SECONDS)
        return self._begin(entry, self._clock() + limits.background_seconds, snapshot)

    def _begin(self, entry: Entry, deadline: float, snapshot: Callable[[], Answer]) -> BackgroundResponse:
        entry.run = run = BackgroundResponse(entry.id, entry.caller, deadline, snapshot, self._grew)
        run.size = entry.weight + entry.own.weight
        self._grew(run.size)
        self._running[entry.caller, entry.id] = entry
        self._runs[run.id] = run
        return run

    def end(self, run: BackgroundResponse, reply: Reply) -> None:
        """The work is over and `reply.answer` is its last state; the events become a replay."""
        self.finish(run, reply.answer)

    def finish(self, run: BackgroundResponse, answer: Answer | None) -> Entry | None:
        """`end` with that state; the entry, if it is kept."""
        events = run.end()
        self._runs.pop(run.id, None)
        self.bytes -= run.size
        entry = self._running.pop((run.caller, run.id), None)
        if entry is None or answer is None:
            return None
        entry.run, entry.events = None, events
        if entry.status != answer.status:  # else it was recalled so, and what continues it shares its pieces
            _fill(entry, answer)
        self._keep(entry, self._clock())
        return entry

    def find(self, caller: str, name: str) -> Entry | None:
        """The caller's response of that id, running or ended."""
        self.expire()
        key = (caller, name)
        return self._running.get(key) or self._ended.get(key)

    def recall(self, caller: str, name: str) -> Entry | Item | None:
        """What a new question may refer to: a response, or an item by its own id. One whose last event went out a moment ago can
        be continued, though the work on it is not quite over."""
        if entry := self.find(caller, name):
            if entry.run is not None and (now := entry.run.snapshot()).status != entry.status:
                _fill(entry, now)
            return entry
        entry = self._holder(caller, name)
        if entry is None:
            return None
        held = (item for segment in (entry.own, entry.memory) for item in orjson.loads(segment.data))
        return next((item for item in held if item.get("id") == name), None)

    def _holder(self, caller: str, item_id: str) -> Entry | None:
        """The latest of the caller's responses that has this item."""
        large = [self._ended[key] for key, ids in self._large.items() if key[0] == caller and item_id in ids]
        usual = self._ended.get((caller, self._by_item.get((caller, item_id), "")))
        return max([*large, usual] if usual else large, key=lambda entry: entry.ended, default=None)

    def delete(self, caller: str, name: str) -> bool:
        """Forget a response; False if there is none. Work on it is stopped."""
        entry = self.find(caller, name)
        if entry is None:
            return False
        if entry.run is not None:
            del self._running[caller, name]
            entry.run.stop(GatewayError(ErrorKind.CANCELLED, "The response was deleted."))
        else:
            self._drop(entry)
        return True

    def expire(self) -> None:
        """Drop what is too old."""
        oldest = self._clock() - self._limits.ttl_seconds
        while self._ended:
            entry = next(iter(self._ended.values()))
            if entry.ended > oldest:
                return
            self._drop(entry)

    def restore(self, entry: Entry, age: float) -> None:
        """Keep an entry of an earlier process that ended `age` seconds ago; to be called oldest first."""
        self._keep(entry, self._clock() - age)

    def _entry(self, caller: str, reply: Reply) -> Entry:
        data, ids = reply.written or _written(reply.items, self._new_id)
        own = Segment(data)
        nothing = Segment(b"[]")
        return Entry(reply.id, caller, "queued", reply.background, b"{}", own, nothing, nothing, reply.chain, ids)

    def _keep(self, entry: Entry, ended: float) -> None:
        """Add an ended entry. One that is larger than the whole bound is not kept, and costs nobody else's place."""
        entry.ended = ended
        new = {id(segment): segment.weight for segment in (*entry.chain, entry.output) if not segment.holders}
        if entry.weight + sum(new.values()) > self._limits.max_bytes:
            return
        if known := self._ended.get((entry.caller, entry.id)):  # two requests sought it in another process
            self._drop(known)
        self._ended[entry.caller, entry.id] = entry
        self.bytes += entry.weight
        for segment in (*entry.chain, entry.output):
            if not segment.holders:
                self.bytes += segment.weight
            segment.holders += 1
        if len(entry.item_ids) >= MANY_ITEMS:
            self._large[entry.caller, entry.id] = frozenset(entry.item_ids)
        else:
            for item_id in entry.item_ids:
                self._by_item[entry.caller, item_id] = entry.id
        self._make_room()

    def _drop(self, entry: Entry) -> None:
        del self._ended[entry.caller, entry.id]
        self.bytes -= entry.weight
        for segment in (*entry.chain, entry.output):
            segment.holders -= 1
            if not segment.holders:
                self.bytes -= segment.weight
        if self._large.pop((entry.caller, entry.id), None) is not None:
            return
        for item_id in entry.item_ids:
            if self._by_item.get((entry.caller, item_id)) == entry.id:
                del self._by_item[entry.caller, item_id]

    def _grew(self, size: int) -> bool:
        self.bytes += size
        self._make_room()
        return self.bytes <= self._limits.max_bytes

    def _make_room(self) -> None:
        while self._ended and (self.bytes > self._limits.max_bytes or len(self._ended) > MAX_COUNT):
            self._drop(next(iter(self._ended.values())))


def _fill(entry: Entry, answer: Answer) -> None:
    """Put the last state of the answer into its entry."""
    entry.id, entry.status, entry.head = answer.id, answer.status, answer.head
    entry.output = Segment(answer.output)
    entry.memory = entry.output if answer.memory == answer.items else Segment(b"[" + b",".join(answer.memory) + b"]")
    entry.item_ids = tuple(dict.fromkeys((*entry.item_ids, *answer.item_ids)))


_PREFIXES = {"message": "msg_", "reasoning": "rs_", "function_call": "fc_", "custom_tool_call": "ctc_"}


def prepare(reply: Reply) -> None:
    """Write the question's items as they will be stored: for a thread, where there are very many or long ones."""
    reply.written = _written(reply.items, _own_id)


def _written(questions: list[Item], new_id: Callable[[str], str]) -> tuple[bytes, tuple[str, ...]]:
    """The items as they are stored, and their ids. In steps; joined, for orjson's own bytes keep a buffer of 4 KB."""
    pieces: list[bytes | memoryview] = []
    ids: dict[str, None] = {}
    for at in range(0, len(questions), AT_ONCE):
        items = [stored_item(item, new_id) for item in questions[at : at + AT_ONCE]]
        ids.update(dict.fromkeys(item["id"] for item in items))
        pieces += (b"," if at else b"[", json_pieces.dumps(items)[1:-1])
    return as_bytes([*pieces, b"]"] if pieces else [b"[]"]), tuple(ids)


def _own_id(prefix: str) -> str:
    """Like the store's, which is the event loop's alone."""
    return prefix + secrets.token_hex(12)


_PARTS = {"message": "content", "function_call_output": "output", "custom_tool_call_output": "output"}
"""Where items have parts, in chat's spelling perhaps."""


def stored_item(item: Item, new_id: Callable[[str], str]) -> Item:
    """An input item as it is listed: with an id and a status, its text in parts, and these in the dialect's own spelling."""
    kept: Item = {"status": "completed"} | item if item["type"] != "reasoning" else dict(item)
    if not isinstance(kept.get("id"), str) or not kept["id"]:
        kept["id"] = new_id(_PREFIXES.get(item["type"], "item_"))
    said = item.get("role") == "assistant"
    if item["type"] == "message" and isinstance(item.get("content"), str):
        kept["content"] = [own_text(item["content"], said=said)]
    field = _PARTS.get(item["type"], "")
    if isinstance(parts := item.get(field), list):
        kept[field] = [own_part(part, said=said) for part in parts]
    return kept
