"""A question with all that is known about it, and the record of its being answered.

Rule: names, clocks and counts only; nothing of the conversation gets into a line that is logged or a reason that is told.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

import msgspec

from ds2d.config.schema import Config
from ds2d.core.caller import Caller
from ds2d.core.errors import GatewayError
from ds2d.core.events import Overhearing, Usage
from ds2d.core.logs import client_text
from ds2d.core.models import Route
from ds2d.core.pipeline import Encoding, Pipeline
from ds2d.core.request import ChatRequest
from ds2d.dialects import Dialect
from ds2d.net.carrier import Outlet
from ds2d.state.affinity import Thread
from ds2d.state.books import Entry
from ds2d.state.captures import Recording
from ds2d.state.reasoning import ReasoningMemory
from ds2d.toolcalls.unsure import Unsure


class Sink(Protocol):
    """Where a streamed answer goes. `started`: the status line has gone out, so no other status is possible."""

    started: bool
    content_type: str
    last_write: float

    @property
    def outlet(self) -> Outlet | None:
        """Where what follows the first write may be put without waiting; None where it must be awaited."""

    async def write(self, data: bytes) -> None: ...


class Beat(Protocol):
    """Life signs for a client that waits: `sign` gives one."""

    sign: Callable[[], bytes]

    def go_on(self, sign: Callable[[], bytes]) -> None: ...
    def stop(self) -> None: ...


class Again(msgspec.Struct, frozen=True):
    """By what a request that is sent again is known: a hash of who asks what where, and whether it says that it is one."""

    key: bytes
    joins: bool


class Ask(msgspec.Struct):
    """A question with all that the web layer knows about it. `pin` is X-Ds2-Target-Account."""

    dialect: Dialect
    dialect_name: str
    request: ChatRequest
    caller: Caller
    request_id: str
    pin: str | None = None
    again: Again | None = None
    """Set where the client may send the same once more."""
    arrived: float | None = None
    """When the question was read, before anything was made of it."""
    turn: Turn | None = None
    recording: Recording | None = None
    """What is kept of this exchange, where captures are on."""
    on_admitted: Callable[[], object] = lambda: None
    """Called when nothing but an account is waited for any more."""
    on_encoder: Callable[[Encoding], None] = lambda _encoder: None
    """Told of the encoder that an attempt begins to write with."""
    on_ending: Callable[[], None] = lambda: None
    """Called when the answer is whole and its last bytes are about to go out."""

    def fields(self) -> dict[str, Any]:
        """The turn's part of the access line: names, clocks in milliseconds and counts, nothing of the conversation."""
        turn = self.turn
        if turn is None:
            return {"dialect": self.dialect_name}
        usage = turn.usage
        return {
            "dialect": self.dialect_name,
            "model": client_text(self.request.model),
            "used": turn.route.public,
            "upstream": turn.upstream or None,
            "account": turn.account or None,
            "attempts": turn.attempts,
            "end": turn.outcome,
            "cause": str(turn.cause) or None,
            "waited_ms": round(turn.waited * 1000, 1),
            "first_ms": None if turn.first is None else round((turn.first - turn.began) * 1000, 1),
            "prompt_tokens": usage.prompt if usage else None,
            "completion_tokens": usage.completion if usage else None,
        }


class Turn(msgspec.Struct):
    """One request being answered, and in the end its record. Times are seconds of the monotonic clock."""

    ask: Ask
    config: Config
    route: Route
    began: float
    created: int
    retrying: bool = False
    """Whether a further attempt was begun, if only to wait for an account."""
    account: str = ""
    upstream: str = ""
    waited: float = 0.0
    position: int = 0
    first: float | None = None
    beat: Beat | None = None
    """What gives its client life signs, from the moment in which the turn has an account first."""
    ended: float | None = None
    outcome: str = "open"
    cause: str = ""
    usage: Usage | None = None
    answer_id: str | None = None
    notes: list[str] = []
    task: asyncio.Task[Any] | None = None
    stopped: GatewayError | None = None
    settled: bool = False
    """Whether its answer has its end: what is left is to count it, to record it and to send the last of it."""
    failure: GatewayError | None = None
    """How an answer that had begun ended, if badly."""
    learning: list[tuple[tuple[str, str], Unsure]] = []
    """Stages that find out how this server's answers begin, for the catalog to remember."""
    overheard: Overhearing | None = None
    """The answer as it went out, where something of it must be remembered: turns with tools, for their reasoning."""
    same_account: bool = False
    """Whether asking the same account again, differently, may mend the last attempt: a new token, or no native tools."""
    sent: bool = False
    """Whether the last attempt got as far as its question going out: before that, it cost nothing."""
    sent_with: tuple[str | None, ...] = ()
    """Secrets that the last attempt was sent with; no error may name them."""
    thread: Thread | None = None
    """The conversation that it belongs to, where that decides between servers."""
    entry: Entry | None = None
    """Its place in the books, once it is admitted."""
    pipeline: Pipeline | None = None
    """The stages of the attempt that was answered last."""
    tries: list[dict[str, Any]] = []
    """The attempts: account, wait, who was skipped and why, and how it went."""

    @property
    def attempts(self) -> int:
        """How often an account was really asked; 0 where none was."""
        return len(self.tries)

    @property
    def model_there(self) -> str:
        """The model's name on the upstream that was asked last; empty where none was."""
        return next((target.model for target in self.route.targets if target.upstream.name == self.upstream), "")

    @property
    def arrived(self) -> float:
        """When its question was read."""
        return self.began if self.ask.arrived is None else self.ask.arrived

    @property
    def calls(self) -> int:
        """Tool calls in the answer so far."""
        return sum(len(choice.calls) for choice in self.overheard.completion.choices) if self.overheard else 0

    def why(self) -> dict[str, Any]:
        """What was decided on the way, for people (`ds2d explain`)."""
        route = self.route
        return {
            "model": {"asked": route.asked, "used": route.public, "why": route.why},
            "waited_ms": round(self.waited * 1000, 1),
            "position": self.position,
            "tries": self.tries,
            "notes": self.notes,
        }

    def note_sent(self) -> None:
        """The question goes out to the account that is asked: from here on its prompt may be read."""
        self.sent = True

    def enter(self, task: asyncio.Task[Any] | None) -> None:
        """From here on `stop` cancels this task. Raises the stop that came before, while there was none to cancel."""
        self.task = task
        if self.stopped is not None:
            raise self.stopped

    def uncancel(self) -> None:
        """The cancellation was ours, to stop the turn; its task goes on to say so."""
        if self.task is not None:
            self.task.uncancel()

    def stop(self, error: GatewayError) -> None:
        """End this turn from outside (shutdown, cancel): the client gets `error` in its dialect, the upstream is closed. Too late
        for an answer that has its end: its row would call whole what its client got with an error, and paid for."""
        if self.settled:
            return
        self.stopped = error
        if self.task is not None:
            self.task.cancel()


class Tools(Protocol):
    """Things that are not the turn's own: passed in by app/ so that tests bring theirs."""

    @property
    def reasoning(self) -> ReasoningMemory: ...
    @property
    def exact(self) -> bool: ...
    def monotonic(self) -> float: ...
    def now(self) -> int: ...
    def new_id(self, prefix: str) -> str: ...
    def seal(self, text: str) -> str: ...
    async def count_text(self, text: str) -> int: ...
    async def count_request(self, request: ChatRequest) -> int: ...
    def rough_request(self, request: ChatRequest) -> int: ...
    def spawn(self, work: Coroutine[Any, Any, None]) -> None: ...
