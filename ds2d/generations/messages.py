"""What generations of the daemon say to each other, as JSON.

Rule: fields are added, never changed or taken away, while `PROTOCOL` stays the same: the two that talk are different versions.
A process does not answer what it does not know, it logs it.
Surprise: a message with a `number` wants an `Answered` with that number; all others are told and forgotten.
"""

from __future__ import annotations

import functools
import logging

import msgspec

from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.state.leases import Want
from ds2d.state.ledger_schema import Row
from ds2d.state.reasoning import Thought
from ds2d.state.shared_accounts import AccountState, Held
from ds2d.state.shared_quotas import MeterState, Reserved
from ds2d.state.shared_responses import AnswerState, Piece, RunState

logger = logging.getLogger("ds2d.upgrade")

PROTOCOL = 1


NOTHING = msgspec.Raw(b"null")


class Fault(msgspec.Struct):
    """A GatewayError on its way."""

    kind: ErrorKind
    message: str
    retry_after: float | None = None
    param: str | None = None

    @classmethod
    def of(cls, error: GatewayError) -> Fault:
        """The error, ready to be sent."""
        return cls(error.kind, error.message, error.retry_after, error.param)

    def error(self) -> GatewayError:
        """The error again."""
        return GatewayError(self.kind, self.message, retry_after=self.retry_after, param=self.param)


class Message(msgspec.Struct, kw_only=True, tag_field="do", omit_defaults=True):
    """Any of them."""

    number: int = 0


class Answered(Message, tag="answered"):
    """To the message of that number."""

    account: str = ""
    body: msgspec.Raw = NOTHING
    fault: Fault | None = None


# From whoever asks for an upgrade


class Upgrade(Message, tag="upgrade"):
    """Start the version that is on disk now. `drain_seconds` bounds how long the old one finishes its streams."""

    drain_seconds: float | None = None


class Upgraded(Message, tag="upgraded"):
    """How it went: the new process, or what is wrong."""

    pid: int = 0
    version: str = ""
    problem: str = ""


# Between the new process and its predecessor


class Ready(Message, tag="ready"):
    """The new process has checked itself and can take over."""

    pid: int
    version: str
    folder: str
    protocol: int = 0


class Switch(Message, tag="switch"):
    """The old process takes no more connections and decides nothing any more: this is how things stand. `joiners` are older
    processes that will come by themselves; `host` and `port` are of the config with which the sockets were made."""

    accounts: list[AccountState]
    meters: list[MeterState]
    held: list[Held]
    reserved: list[Reserved]
    inside: list[tuple[str, str, bool]]
    joiners: int = 0
    pid: int = 0
    host: str = ""
    port: int = 0


class Leading(Message, tag="leading"):
    """The new process decides now, and can be joined."""


class Serving(Message, tag="serving"):
    """The new process takes connections: there is no way back."""


class Hurry(Message, tag="hurry"):
    """The one that leads was told to end: so are those that follow. The second time means at once."""


class Moved(Message, tag="moved"):
    """Somebody else leads now: join there."""


# From those that follow


class Join(Message, tag="join"):
    """An older process, and what its turns hold."""

    pid: int
    held: list[Held]
    reserved: list[Reserved]


class Acquire(Message, tag="acquire"):
    """See `Leader.acquire`."""

    lease: int
    want: Want
    patience: float


class Release(Message, tag="release"):
    """See `Leader.released`."""

    lease: int


class Report(Message, tag="report"):
    """See `Leader.reported`."""

    lease: int
    fault: Fault | None = None


class Charge(Message, tag="charge"):
    """See `Leader.charged`."""

    lease: int
    tokens: int


class Admit(Message, tag="admit"):
    """See `Leader.admit`."""

    permit: int
    caller: str
    prompt: int
    completion: int


class Settle(Message, tag="settle"):
    """See `Leader.settled`. Whoever does not know the permit counts the tokens all the same."""

    permit: int
    caller: str
    prompt: int
    completion: int


class Closed(Message, tag="closed"):
    """A turn is over, for those who count them; its row is written by the process that ran it."""

    row: Row


class Kept(Message, tag="kept"):
    """A stored response."""

    piece: Piece


class Forget(Message, tag="forget"):
    """A stored response is deleted."""

    caller: str
    name: str


class Remember(Message, tag="remember"):
    """Reasoning that clients lose."""

    thought: Thought


class RunBegan(Message, tag="run_began"):
    """A background response that the sender works on."""

    run: RunState


class RunWrote(Message, tag="run_wrote"):
    """It wrote more."""

    name: str
    frames: str


class RunEnded(Message, tag="run_ended"):
    """It is over; without a last state it was deleted."""

    name: str
    last: AnswerState | None = None


class Fetch(Message, tag="fetch"):
    """Send that stored response; answered with a `Piece`, or with nothing."""

    caller: str
    name: str


class Do(Message, tag="do"):
    """Treat a stored response as its route would: get, items, delete or cancel."""

    verb: str
    caller: str
    name: str
    query: dict[str, str] = {}


# From the one that leads


class Sync(Message, tag="sync"):
    """Answer when everything before it is on its way."""


class Look(Message, tag="look"):
    """How far is that background response? Answered with an `AnswerState`."""

    name: str


class Stop(Message, tag="stop"):
    """End that background response."""

    name: str
    fault: Fault


Any = (
    Answered | Upgrade | Upgraded | Ready | Switch | Leading | Serving | Hurry | Moved | Join | Acquire | Release | Report
    | Charge | Admit | Settle | Closed | Kept | Forget | Remember | RunBegan | RunWrote | RunEnded | Fetch | Do | Sync | Look
    | Stop
)  # fmt: skip

_encoder = msgspec.json.Encoder()


@functools.cache
def _decoder() -> msgspec.json.Decoder[Message]:
    """Made for the first upgrade: it looks through the types of everything that may be said, which a start need not wait for."""
    return msgspec.json.Decoder(Any)


def encode(message: Message) -> bytes:
    """A message as it is sent."""
    return _encoder.encode(message)


def decode(data: bytes) -> Message | None:
    """A message; None for one that this version does not know."""
    try:
        message = _decoder().decode(data)
    except msgspec.DecodeError as error:
        logger.warning("another generation said something that this one does not understand: %s", error)
        return None
    return message
