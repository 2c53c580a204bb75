"""Every turn, from its admission to its record: what a key may use, what was used, and why it went as it did.

Rule: a turn that was admitted is closed exactly once; that settles its reservation and gives its row the last word.
Surprise: a refused turn has a row too, closed in the moment in which it is opened, so that its key's holder can see it.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

import orjson

from ds2d.core.caller import Caller
from ds2d.core.errors import GatewayError
from ds2d.core.events import Usage, own_usage, with_reasoning
from ds2d.core.models import Route
from ds2d.core.pipeline import Pipeline
from ds2d.core.request import ChatRequest
from ds2d.core.sizes import Size, Sizes
from ds2d.state.ledger import Ledger, Ticket
from ds2d.state.ledger_schema import COMPLETED, INTERRUPTED, REJECTED, Row
from ds2d.state.quotas import Permit, Quotas, counts_tokens

logger = logging.getLogger("ds2d.books")

REMEMBERED = 1000
"""Turns whose decisions are kept in memory."""

MAX_COUNTING = 200
"""Interrupted turns whose tokens are being counted; those of more are estimated, for clients can leave faster than we count."""


MAX_SAID = 64 * 1024
"""Characters of an answer that are kept once they are counted, so that the end counts them in one piece: of more only the count
is kept, which may be a token more for each cut. A client that does not read must not make us hold what it was sent."""

CHARACTERS_A_TOKEN = 4
"""Of English text; Chinese has fewer, so an estimate errs in the caller's favour."""


class Tools(Protocol):
    """What is needed of the world: token counts, exact or rough, and work that nobody waits for. `exact`: counts are so now."""

    @property
    def exact(self) -> bool: ...
    async def count_text(self, text: str) -> int: ...
    async def count_request(self, request: ChatRequest) -> int: ...
    def rough_request(self, request: ChatRequest) -> int: ...
    def spawn(self, work: Coroutine[Any, Any, None]) -> None: ...


class Entry:
    """One admitted turn in the books."""

    __slots__ = ("asked_at", "closed", "counted", "permit", "prompt", "request", "seen", "ticket", "tokens")

    def __init__(self, ticket: Ticket, permit: Permit, request: ChatRequest, prompt: int, counted: bool) -> None:
        self.ticket = ticket
        self.permit = permit
        self.request = request
        self.prompt = prompt
        self.counted = counted
        """Whether `prompt` was counted, not estimated."""
        self.closed = False
        self.asked_at: float | None = None
        """When its question went to an upstream first, on the books' clock."""
        self.seen = 0
        """Characters of the answer that are counted in `tokens` already."""
        self.tokens = 0

    @property
    def row(self) -> Row:
        """What the ledger says of it."""
        return self.ticket.row


class Answering(Protocol):
    """A turn, as the books see it. Times are seconds of one monotonic clock; `first` is that of the first byte sent."""

    @property
    def entry(self) -> Entry | None: ...
    @property
    def pipeline(self) -> Pipeline | None: ...
    @property
    def outcome(self) -> str: ...
    @property
    def cause(self) -> str: ...
    @property
    def usage(self) -> Usage | None: ...
    @property
    def answer_id(self) -> str | None: ...
    @property
    def began(self) -> float: ...
    @property
    def waited(self) -> float: ...
    @property
    def first(self) -> float | None: ...
    @property
    def notes(self) -> list[str]: ...
    @property
    def tries(self) -> list[dict[str, Any]]: ...
    @property
    def sent(self) -> bool: ...
    @property
    def arrived(self) -> float: ...
    @property
    def calls(self) -> int: ...
    @property
    def route(self) -> Route: ...
    def why(self) -> dict[str, Any]: ...


class Books:
    """Quotas and ledger together, and the last turns' decisions. `clock` is monotonic seconds, `wall` Unix seconds."""

    def __init__(
        self, ledger: Ledger, quotas: Quotas, tools: Tools, clock: Callable[[], float], wall: Callable[[], float]
    ) -> None:
        self._ledger = ledger
        self._quotas = quotas
        self._tools = tools
        self._clock = clock
        self._wall = wall
        self._decided: deque[tuple[Row, dict[str, Any]]] = deque(maxlen=REMEMBERED)
        self.listeners: list[Callable[[Row, Answering | None], None]] = []
        """Told once of every turn that is over: its row, and the turn itself unless it was refused before it began."""
        self._counting: dict[int, tuple[Entry, Answering]] = {}

    def row(self, request_id: str, caller: Caller, dialect: str, request: ChatRequest) -> Row:
        """A turn that begins now."""
        return Row(request_id, caller.id, caller.name, dialect, request.model[:256], self._wall(), request.stream)

    async def admit(self, row: Row, caller: Caller, request: ChatRequest, route: Route, default_output: int) -> Entry:
        """Reserve what the turn may use and open its row; where it may not run, its row says so.

        `default_output` is reserved for an answer without `max_tokens`. Raises QUOTA_EXHAUSTED, RATE_LIMITED,
        LEDGER_UNAVAILABLE.
        """
        counts = counts_tokens(caller.spec)
        prompt = await self._tools.count_request(request) if counts else self._tools.rough_request(request)
        output = reserved_output(request, route, prompt, default_output)
        row.used, row.reserved_tokens = route.public, prompt + output
        try:
            permit = await self._quotas.enter(caller, prompt, output)
        except GatewayError as error:
            self.refuse(row, error)
            raise
        try:
            ticket = self._ledger.open(row)
        except GatewayError as error:
            permit.settle(0, 0)
            row.state, row.cause = REJECTED, error.kind
            self._tell(row, None)
            raise
        return Entry(ticket, permit, request, prompt, counts and self._tools.exact)

    def joined(self, row: Row, turn: Answering) -> Ticket:
        """A request that got the answer of an earlier one of its client, as far as it got it: a row that cost nothing.
        Raises LEDGER_UNAVAILABLE."""
        ticket = self._ledger.open(row)
        row.used = turn.route.public
        self._note_end(row, turn)
        self._ledger.touch(ticket)
        return ticket

    async def on_disk(self, ticket: Ticket) -> None:
        """Returns when this row is written, or known to be impossible to write now."""
        await self._ledger.close(ticket)

    def refuse(self, row: Row, error: GatewayError) -> None:
        """A turn that was not admitted."""
        row.state, row.cause = REJECTED, error.kind
        self._ledger.reject(row)
        self._tell(row, None)

    def asked(self, entry: Entry, upstream: str, account: str) -> None:
        """The question goes to this account now: from here on its prompt may have been read."""
        row = entry.row
        if entry.asked_at is None:
            entry.asked_at = self._clock()
        row.upstream, row.account = upstream, account
        row.attempts += 1
        self._ledger.touch(entry.ticket)

    async def checkpoint(self, turn: Answering) -> None:
        """Note what a running turn has used so far."""
        entry, pipeline = turn.entry, turn.pipeline
        if entry is None or pipeline is None or entry.closed:
            return
        usage = _with_thoughts(pipeline.usage or await self._count(entry, pipeline), pipeline)
        if not entry.closed:
            entry.row.checkpoint_at = self._wall()
            _note_usage(entry.row, usage, usage.completion if turn.first is not None else 0)
            self._ledger.touch(entry.ticket)

    async def commit(self, turn: Answering) -> None:
        """The answer is whole but for its last frame; returns when that may go out."""
        if turn.entry is not None and self._close(turn.entry, turn, turn.usage):
            await self._ledger.close(turn.entry.ticket)

    def end(self, turn: Answering) -> None:
        """The turn is over, however it went. What its client did not wait for, or got before a bug, is counted afterwards."""
        entry, pipeline = turn.entry, turn.pipeline
        if entry is None or entry.closed:
            return
        usage = turn.usage
        if usage is None and _is_owed(turn):
            if len(self._counting) < MAX_COUNTING:
                entry.permit.ended()
                self._counting[id(entry)] = entry, turn
                self._tools.spawn(self._count_and_close(entry, turn, pipeline))
                return
            usage = _reported(pipeline) or _estimated(entry, pipeline)
        if usage is None:
            _forget_usage(entry.row)
        self._close(entry, turn, usage)
        self._ledger.touch(entry.ticket)

    def so_far(self, turn: Answering) -> int:
        """Tokens that a turn has used by now, about."""
        return 0 if turn.entry is None else (_reported(turn.pipeline) or _estimated(turn.entry, turn.pipeline)).total

    def sizes(self) -> Sizes:
        """Turns that are over: those remembered, and those whose tokens are being counted."""
        return {
            "decisions": Size(len(self._decided), REMEMBERED),
            "counting": Size(len(self._counting), MAX_COUNTING),
        }

    def explain(self, request_id: str) -> dict[str, Any] | None:
        """Why the turn of this request went as it did; None if it is not remembered. The latest, if clients repeat ids."""
        found = ((row, why) for row, why in reversed(self._decided) if row.request_id == request_id)
        return next((_decisions(row, why) for row, why in found), None)

    @property
    def recent(self) -> list[dict[str, Any]]:
        """The last turns' decisions, newest first."""
        return [_decisions(row, why) for row, why in reversed(self._decided)]

    async def _count_and_close(self, entry: Entry, turn: Answering, pipeline: Pipeline | None) -> None:
        usage = _reported(pipeline)
        try:
            if usage is None:
                if not entry.counted:
                    entry.prompt, entry.counted = await self._tools.count_request(entry.request), self._tools.exact
                usage = await self._count(entry, pipeline) if pipeline is not None else _estimated(entry, None)
        finally:
            self._counting.pop(id(entry), None)
            if self._close(entry, turn, usage):
                self._ledger.touch(entry.ticket)

    def finish(self) -> None:
        """The daemon stops: what is being counted still is estimated, from the last checkpoint on."""
        for entry, turn in self._counting.values():
            if self._close(entry, turn, _reported(turn.pipeline) or _estimated(entry, turn.pipeline)):
                self._ledger.touch(entry.ticket)

    async def _count(self, entry: Entry, pipeline: Pipeline) -> Usage:
        """What was said so far, counted here. Only what came since the last time is counted anew.

        A checkpoint may be counting when the turn ends: each counts from where it found the entry, the second notes nothing.
        """
        said = "".join(pipeline.said)
        if len(said) < entry.seen:  # another attempt began
            entry.seen = entry.tokens = 0
        seen, before = entry.seen, pipeline.counted + entry.tokens
        fresh = await self._tools.count_text(said[seen:]) if len(said) > seen else 0
        if (entry.seen, pipeline.counted + entry.tokens) == (seen, before):
            entry.seen, entry.tokens = len(said), entry.tokens + fresh
            if entry.seen > MAX_SAID:
                pipeline.forget(entry.seen, entry.tokens)
                entry.seen = entry.tokens = 0
        return own_usage(entry.prompt, before + fresh, exact=entry.counted)

    def _close(self, entry: Entry, turn: Answering, usage: Usage | None) -> bool:
        """Give the row its last word; False if it has had it."""
        if entry.closed:
            return False
        entry.closed = True
        row = entry.row
        if usage is not None:
            usage = _with_thoughts(usage, turn.pipeline)
            whole = turn.outcome == COMPLETED or turn.first is not None
            _note_usage(row, usage, usage.completion if whole else 0)
        entry.permit.settle(row.prompt_tokens, row.completion_tokens)
        self._note_end(row, turn)
        return True

    def _note_end(self, row: Row, turn: Answering) -> None:
        row.state, row.cause, row.completion_id = turn.outcome, turn.cause, turn.answer_id
        total = max(0.0, self._clock() - turn.began)
        row.queue_ms, row.total_ms = round(turn.waited * 1000, 3), round(total * 1000, 3)
        row.first_ms = None if turn.first is None else round((turn.first - turn.began) * 1000, 3)
        row.ended_at = row.began_at + total
        why = turn.why()
        row.why = orjson.dumps(why).decode()
        self._decided.append((row, why))
        self._tell(row, turn)

    def _tell(self, row: Row, turn: Answering | None) -> None:
        for listener in self.listeners:
            try:
                listener(row, turn)
            except Exception:  # whoever watches may fail; the turn may not
                logger.exception("somebody who watches turns failed")


def _with_thoughts(usage: Usage, pipeline: Pipeline | None) -> Usage:
    """Usage with the reasoning that nobody counted, by its length: turns that were answered to their end have it counted."""
    if pipeline is None or usage.reasoning or not (thought := pipeline.rough_thoughts):
        return usage
    return with_reasoning(usage, thought)


def _is_owed(turn: Answering) -> bool:
    """Whether a turn of which no usage is known cost something: an upstream had its question when it was cancelled (many answer
    only when they are whole), or something of an answer came. A stop may come while the end is being counted. While its
    connection was still to be made, or a login, nothing was sent."""
    was_asking = turn.sent and not turn.tries[-1]["end"]
    return was_asking or turn.first is not None or (turn.outcome == INTERRUPTED and turn.pipeline is not None)


def _reported(pipeline: Pipeline | None) -> Usage | None:
    """What the upstream said of usage so far."""
    return None if pipeline is None else pipeline.usage


def _estimated(entry: Entry, pipeline: Pipeline | None) -> Usage:
    """What an answer cost so far, by its length where it was not counted yet."""
    if pipeline is None:
        return own_usage(entry.prompt, 0, exact=entry.counted)
    uncounted = max(0, sum(map(len, pipeline.said)) - entry.seen)
    return Usage(entry.prompt, pipeline.counted + entry.tokens + -(-uncounted // CHARACTERS_A_TOKEN), source="estimated")


def reserved_output(request: ChatRequest, route: Route, prompt: int, default: int) -> int:
    """How many tokens the answers may have at most, all choices to all prompts together: what was asked for, within what any
    server of the route can do; `default` where nothing was asked for."""
    bounds = [request.max_tokens if request.max_tokens is not None else default]
    outputs = [target.max_output or target.spec.max_output for target in route.targets]
    windows = [target.context or target.spec.context for target in route.targets]
    if outputs and all(outputs):
        bounds.append(max(filter(None, outputs)))
    if windows and all(windows):
        bounds.append(max(0, max(filter(None, windows)) - prompt // request.prompts))  # each prompt has a window of its own
    return min(bounds) * max(1, request.choices) * request.prompts


def _decisions(row: Row, why: dict[str, Any]) -> dict[str, Any]:
    """A turn that is over, for people: what was decided, its clocks, its tokens, its end."""
    return {
        "request_id": row.request_id,
        "key": row.key_name,
        "dialect": row.dialect,
        "state": row.state,
        "cause": row.cause,
        "began_at": row.began_at,
        **why,
        "clocks": {"queue_ms": row.queue_ms, "first_ms": row.first_ms, "total_ms": row.total_ms},
        "tokens": {
            "prompt": row.prompt_tokens,
            "completion": row.completion_tokens,
            "delivered": row.delivered_tokens,
            "source": row.usage_source,
        },
    }


def _note_usage(row: Row, usage: Usage, delivered: int) -> None:
    row.prompt_tokens, row.completion_tokens, row.usage_source = usage.prompt, usage.completion, usage.source
    row.cached_tokens, row.reasoning_tokens = usage.cached, usage.reasoning
    if usage.source == "upstream":
        row.reported_prompt, row.reported_completion = usage.prompt, usage.completion
    else:
        row.counted_prompt, row.counted_completion = usage.prompt, usage.completion
    row.delivered_tokens = delivered
    row.delivered_source = usage.source


def _forget_usage(row: Row) -> None:
    """A turn that failed with nothing sent owes nothing, also where a checkpoint noted what it had cost by then."""
    row.prompt_tokens = row.completion_tokens = row.delivered_tokens = 0
    row.usage_source = row.delivered_source = ""
    row.reported_prompt = row.reported_completion = row.counted_prompt = row.counted_completion = None
    row.cached_tokens = row.reasoning_tokens = None
