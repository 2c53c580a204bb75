"""Stored responses that several generations of the daemon add to.

Rule: the newest process has them all; an older one tells it of every answer before its last frame goes out. A background
response that an older one still works on has a mirror in the newest: its events as they come, and a way to stop it.
Surprise: a mirror whose process dies is ended here, failed, so that nobody follows it for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol, cast

import msgspec

from ds2d.core.errors import GatewayError
from ds2d.dialects.openai_responses import Answer, Reply, abandoned
from ds2d.state.background import BackgroundResponse
from ds2d.state.response_file import Row, from_row, to_row
from ds2d.state.responses import Entry, ResponseStore, Segment


class Piece(msgspec.Struct):
    """An entry and those of its segments that were not sent before; `first` is the number of the first of them."""

    row: Row
    first: int
    segments: list[msgspec.Raw]


class AnswerState(msgspec.Struct):
    """An `Answer` on its way."""

    id: str
    status: str
    head: msgspec.Raw
    items: list[msgspec.Raw]
    item_ids: list[str]
    memory: list[msgspec.Raw]

    @classmethod
    def of(cls, answer: Answer) -> AnswerState:
        """The answer, ready to be sent."""
        items, memory = map(msgspec.Raw, answer.items), map(msgspec.Raw, answer.memory)
        return cls(answer.id, answer.status, msgspec.Raw(answer.head), [*items], [*answer.item_ids], [*memory])

    def answer(self) -> Answer:
        """The answer again."""
        items, memory = tuple(map(bytes, self.items)), tuple(map(bytes, self.memory))
        status: Any = self.status
        return Answer(self.id, status, bytes(self.head), items, tuple(self.item_ids), memory)


class RunState(msgspec.Struct):
    """A background response that is worked on; `deadline` on the system's monotonic clock, `frames` what it wrote so far."""

    piece: Piece
    deadline: float
    frames: str
    last: AnswerState


class Listener(Protocol):
    """Who is told by a process that follows."""

    def stored(self, entry: Entry) -> None: ...
    def forgot(self, caller: str, name: str) -> None: ...
    def run_began(self, entry: Entry) -> None: ...
    def run_wrote(self, name: str, data: bytes) -> None: ...
    def run_ended(self, run: BackgroundResponse, answer: Answer | None) -> None: ...


class SharedResponses(ResponseStore):
    """A store that can lead and follow. `leader` is None while it is the newest."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.leader: Listener | None = None
        self.forgotten: Callable[[str, str], None] = lambda _caller, _name: None
        """Told of what this process deletes while it leads: older ones have copies."""
        self.mirrors: dict[str, Mirror] = {}

    # Following

    def put(self, caller: str, reply: Reply) -> None:
        super().put(caller, reply)
        entry = self._ended.get((caller, reply.id)) if reply.store else None
        if self.leader is not None and entry is not None:
            self.leader.stored(entry)

    def begin(self, caller: str, reply: Reply, snapshot: Callable[[], Answer], opening: bytes = b"") -> BackgroundResponse:
        run = super().begin(caller, reply, snapshot, opening)
        if self.leader is not None:
            self._tell(self.leader, self._running[caller, reply.id])
        return run

    def finish(self, run: BackgroundResponse, answer: Answer | None) -> Entry | None:
        entry = super().finish(run, answer)
        if self.leader is not None and run.id not in self.mirrors:
            self.leader.run_ended(run, answer)
        return entry

    def delete(self, caller: str, name: str) -> bool:
        found = super().delete(caller, name)
        if found:
            (self.leader.forgot if self.leader is not None else self.forgotten)(caller, name)
        return found

    def forget(self, caller: str, name: str) -> None:
        """The process that leads has deleted it."""
        super().delete(caller, name)

    def follow(self, leader: Listener | None) -> None:
        """Tell this process of everything from now on, first of what is worked on here; None: nobody."""
        self.leader = leader
        for entry in list(self._running.values()):
            if leader is not None and entry.run is not None and entry.id not in self.mirrors:
                self._tell(leader, entry)

    def _tell(self, leader: Listener, entry: Entry) -> None:
        run = entry.run
        assert run is not None
        run.told = lambda data: leader.run_wrote(run.id, data)
        leader.run_began(entry)

    # Leading

    def mirror(self, state: RunState, stop: Callable[[GatewayError], None]) -> None:
        """Show what another process works on; `stop` asks it to end."""
        entry = self.unpack(state.piece, {})
        if (entry.caller, entry.id) in self._running:
            return
        self.mirrors[entry.id] = mirror = Mirror(state.last.answer())
        run = self._begin(entry, state.deadline, lambda: mirror.last)
        mirror.run = run
        self.wrote(entry.id, state.frames.encode())
        run.on_stop(stop)

    def wrote(self, name: str, data: bytes) -> None:
        """The other process has kept more of that response."""
        if data and (mirror := self.mirrors.get(name)) is not None:
            try:
                mirror.run.append(data)
            except GatewayError as error:  # no room here: it must end there
                mirror.run.stop(error)

    def ended(self, name: str, answer: Answer | None) -> None:
        """The other process has finished that response."""
        if (mirror := self.mirrors.get(name)) is not None:
            self.finish(mirror.run, answer)
            del self.mirrors[name]

    def abandon(self, name: str, error: GatewayError) -> None:
        """The process that worked on it is no more."""
        mirror = self.mirrors.get(name)
        if mirror is None:
            return
        answer, frames = abandoned(mirror.last, len(mirror.run.frames), error)
        self.wrote(name, frames)
        self.ended(name, answer)

    @property
    def mirrored_for_somebody(self) -> bool:
        """Whether a client follows through this process what another one works on."""
        return any(mirror.run.is_followed for mirror in self.mirrors.values())

    # What goes from process to process

    def running(self, name: str) -> BackgroundResponse | None:
        """The response of that id that this process works on itself."""
        return None if name in self.mirrors else self._runs.get(name)

    def run_state(self, entry: Entry) -> RunState:
        """A running response for another process."""
        run = entry.run
        assert run is not None
        frames = b"".join(run.frames).decode()
        return RunState(self.pack(entry, {}), run.deadline, frames, AnswerState.of(run.snapshot()))

    def pack(self, entry: Entry, sent: dict[int, int]) -> Piece:
        """An entry for another process. `sent` numbers the segments that went before, and is added to."""
        first, segments = len(sent), []
        for segment in (*entry.chain, entry.output):
            if id(segment) not in sent:
                sent[id(segment)] = len(sent)
                segments.append(msgspec.Raw(segment.data))
        return Piece(to_row(entry, sent, self._clock()), first, segments)

    def unpack(self, piece: Piece, got: dict[int, Segment]) -> Entry:
        """The entry of a piece. `got` are the segments that came before, and is added to. Raises KeyError if one is missing."""
        for number, data in enumerate(piece.segments, piece.first):
            got[number] = Segment(bytes(data))
        return from_row(piece.row, cast(Any, got))

    def kept(self) -> Iterator[Entry]:
        """The ended responses as they stand now, oldest first."""
        self.expire()
        return iter(list(self._ended.values()))


class Mirror:
    """A background response of another process. `last` is the state that was seen of it last."""

    run: BackgroundResponse

    def __init__(self, last: Answer) -> None:
        self.last = last
