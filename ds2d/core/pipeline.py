"""Upstream bytes in, client bytes out: the stages of one turn, composed.

Rule: pure and synchronous. One network read is one `feed`, which returns what to write; the caller writes it before it
reads again, which is our back-pressure. Nothing here waits, and no clock is read.
Surprise: the last event (`Finish` or `Failure`) is kept back in `ending` instead of being encoded, because the ledger row
of an answer must be on disk before its last frame goes out; `close` encodes it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.events import Event, Failure, Finish, Reasoning, Text, ToolArgs, ToolStart, Usage
from ds2d.core.sse import Record
from ds2d.core.tokens import rough

MAX_ANSWER = 256 * 1024 * 1024
"""Bytes that an upstream may send as one answer; beyond it the turn fails, for what was said is held where it must be counted."""


_ENDINGS = (Finish, Failure)

MAX_THOUGHT = 64 * 1024
"""Characters of reasoning that are kept to be counted: of more their number is estimated. A client that does not read must not
make us hold what it was sent."""

JOIN_AT = 256
"""Pieces of an answer that are kept apart, before they become one."""


class Splitting(Protocol):
    """Bytes to records: `Splitter` for event streams, `WholeBody` for one JSON body."""

    def feed(self, chunk: bytes) -> list[Record]: ...
    def finish(self) -> list[Record]: ...


class Decoding(Protocol):
    """Records to events, for one kind of upstream. `usage` is the latest known, also while the answer runs."""

    usage: Usage | None
    answer_id: str | None

    def feed(self, records: list[Record]) -> list[Event]: ...
    def finish(self) -> list[Event]: ...


class Stage(Protocol):
    """Events to events. A batch that ends in `Finish` or `Failure` is the last: what is held back goes out before it, and
    the ending stays last (a stage may replace it). `finish` is called instead when the turn fails from outside: it gives
    back what may still be shown, without an ending."""

    def feed(self, batch: list[Event]) -> list[Event]: ...
    def finish(self) -> list[Event]: ...


class Encoding(Protocol):
    """Events to bytes, for one dialect. `keep_alive` is what may be sent while nothing happens, b"" for nothing.

    Frames that open an answer (role chunk, message_start, response.created) go out with the first event, not before: until
    then the turn may still be retried or fail with an HTTP status. The ending comes as the only event of the last batch.
    An encoder may have `settle(ending)`: the ending as its dialect can tell it, asked once all before the ending is encoded.
    A call without usable arguments is a failure where calls carry objects, and the ledger must say what the client was told.
    """

    @property
    def content_type(self) -> str: ...

    def feed(self, batch: list[Event]) -> bytes: ...
    def keep_alive(self) -> bytes: ...


class Pipeline:
    """The stages of one turn. `ending` is set when the answer has ended; from then on `feed` returns nothing."""

    def __init__(self, splitter: Splitting, decoder: Decoding, stages: list[Stage], encoder: Encoding) -> None:
        self._splitter = splitter
        self._decoder = decoder
        self._stages = stages
        self._encoder = encoder
        self._settle: Callable[[Finish | Failure], Finish | Failure] | None = getattr(encoder, "settle", None)
        self.ending: Finish | Failure | None = None
        self.unwritten = b""
        """What was made of the answer and had not gone out when its turn was stopped. The encoder counts it as told."""
        self._size = 0
        self.records = 0
        """Payloads seen so far: what the payload clocks are stopped by (comments and blank lines are none)."""
        self.spoke = False
        """True once the model produced anything a client can see."""
        self.heard_out = False
        """True once the upstream itself ended its answer: only then is its connection worth keeping."""
        self._joined = 0
        self.counted = 0
        """Tokens of what was said and is in `said` no more, because it was counted and too long to keep."""
        self.said: list[str] = []
        """Everything the model produced, kept only while the upstream reports no usage: what a local count needs."""
        self.thoughts: list[str] = []
        """The reasoning, kept only while the upstream reports no count of it: what a count of its tokens needs."""
        self.thought_tokens = 0
        """Tokens, about, of reasoning that is in `thoughts` no more, because it was too long to keep."""

    @property
    def usage(self) -> Usage | None:
        """The upstream's latest usage."""
        return self._decoder.usage

    @property
    def answer_id(self) -> str | None:
        """The upstream's id of the answer."""
        return self._decoder.answer_id

    def feed(self, chunk: bytes) -> bytes:
        """Take one network read; return what to write. Faults of the upstream end the answer instead of being raised."""
        if self.ending is not None:
            return b""
        self._size += len(chunk)
        if self._size > MAX_ANSWER:
            return self.fail(GatewayError(ErrorKind.UPSTREAM_GARBLED, f"The upstream sent more than {MAX_ANSWER} bytes."))
        try:
            records = self._splitter.feed(chunk)
            if not records:
                return b""
            self.records += len(records)
            return self._pass(self._decoder.feed(records))
        except GatewayError as error:
            return self.fail(error)

    def finish(self) -> bytes:
        """The upstream's body has ended. Without a finish the answer is broken: an end of body alone is no success."""
        if self.ending is not None:
            return b""
        try:
            records = self._splitter.finish()
            self.records += len(records)
            events = self._decoder.feed(records) if records else []
            if not (events and type(events[-1]) in (Finish, Failure)):
                events += self._decoder.finish()
            out = self._pass(events)
        except GatewayError as error:
            return self.fail(error)
        # does nothing where the last records brought the ending
        return out + self.fail(GatewayError(ErrorKind.UPSTREAM_DISCONNECTED, "The upstream ended its answer without a finish."))

    def fail(self, error: GatewayError) -> bytes:
        """The turn cannot go on: text that was held back goes out, then the failure is the ending."""
        if self.ending is not None:
            return b""
        batch: list[Event] = []
        for stage in self._stages:
            try:
                batch = (stage.feed(batch) if batch else []) + stage.finish()
            except GatewayError:
                batch = []
        visible = [event for event in batch if type(event) not in (Finish, Failure)]
        self.ending = Failure(error, self._decoder.usage)
        return self._encode(visible)

    def close(self, ending: Finish | Failure | None = None) -> bytes:
        """The last bytes of the answer; `ending` replaces the kept one (with counted usage, or a late failure)."""
        self.ending = ending or self.ending
        assert self.ending is not None, "close comes after the ending"
        return self._encoder.feed([self.ending])

    def keep_alive(self) -> bytes:
        """A life sign in the client's dialect; b"" once the answer has ended."""
        return self._encoder.keep_alive() if self.ending is None else b""

    def _pass(self, batch: list[Event]) -> bytes:
        ended = self.heard_out = bool(batch) and type(batch[-1]) in _ENDINGS
        for stage in self._stages:
            if not batch:
                return b""
            batch = stage.feed(batch)
            is_over = bool(batch) and type(batch[-1]) in _ENDINGS
            if ended and not is_over:
                raise AssertionError(f"{type(stage).__name__} swallowed the ending")
            ended = is_over
        if not ended:
            return self._encode(batch)
        ending: Finish | Failure = batch.pop()  # type: ignore[assignment]
        out = self._encode(batch)
        self.ending = self._settle(ending) if self._settle else ending
        return out

    def _encode(self, batch: list[Event]) -> bytes:
        if not batch:
            return b""
        self.spoke = True
        usage = self._decoder.usage
        if usage is None:
            self._keep(batch)
        elif self.said:
            self.said.clear()
            self._joined = 0
        if usage is None or not usage.reasoning:  # 0 beside reasoning is no count (upstreams.md 3)
            for event in batch:
                if type(event) is Reasoning:
                    self._think(event.text)
        return self._encoder.feed(batch)

    @property
    def rough_thoughts(self) -> int:
        """Tokens of the reasoning, about."""
        return self.thought_tokens + sum(map(rough, self.thoughts))

    def _think(self, text: str) -> None:
        self.thoughts.append(text)
        if len(self.thoughts) < JOIN_AT:
            return
        thought = "".join(self.thoughts)
        self.thoughts = [thought]
        if len(thought) > MAX_THOUGHT:
            self.thought_tokens += rough(thought)
            self.thoughts = []

    def forget(self, characters: int, tokens: int) -> None:
        """The first so many characters of `said` were counted, as so many tokens, and are not kept any longer."""
        self.said = ["".join(self.said)[characters:]]
        self._joined = 1
        self.counted += tokens

    def _keep(self, batch: list[Event]) -> None:
        if len(self.said) - self._joined >= JOIN_AT:  # a short text costs as much again as ten of its letters
            self.said[self._joined :] = ["".join(self.said[self._joined :])]
            self._joined += 1
        for event in batch:
            kind = type(event)
            if kind is Text or kind is Reasoning or kind is ToolArgs:
                self.said.append(event.text)  # type: ignore[union-attr]
            elif kind is ToolStart:
                self.said.append(event.name)  # type: ignore[union-attr]
