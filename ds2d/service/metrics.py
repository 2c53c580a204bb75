"""What is counted of turns, for /metrics.

Rule: a turn is counted once, when the books close it; nothing is counted while it runs. Label values come from the config
(upstreams, keys, models), from our own tables (dialects, causes), and for models that only a server lists, from the first
`MAX_LISTED` that were used; everything else is `other`, so that no client can make series.
Surprise: keys have families of their own that exist while `metrics.key_labels` is on, because a label that comes and goes
would break every sum over it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Set
from functools import partial

from ds2d.config.schema import Config
from ds2d.core.metrics import Counter, Family, Histogram, Labels
from ds2d.core.models import TABLES
from ds2d.core.sizes import Size, Sizes
from ds2d.state.books import Answering
from ds2d.state.ledger_schema import COMPLETED, REJECTED, Row
from ds2d.toolcalls import notes

OTHER, NONE = "other", "none"
MAX_LISTED = 100
"""Models that config does not name and that have a label all the same."""

TURN_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600, 1800)
FIRST_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600)
TOKEN_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1)
QUEUE_SECONDS = (0, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
OWN_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1)


class Metrics:
    """The counts. `apply` takes every config; `ended` hears of every turn that is over; `answered` of every HTTP answer.

    `is_listed` says whether an upstream lists a model of this name.
    """

    def __init__(self, is_listed: Callable[[str], bool]) -> None:
        self._is_listed = is_listed
        where = ("model", "upstream")
        self._http = Counter("ds2d_http_requests_total", "HTTP requests that were answered", ("dialect", "code"))
        self._turns = Counter("ds2d_turns_total", "Turns that are over", ("dialect", *where, "outcome"))
        self._unfinished = Counter("ds2d_turns_unfinished_total", "Turns without a whole answer", ("outcome", "cause"))
        self._cut = Counter("ds2d_streams_cut_total", "Streams that had begun and did not end whole", ("cause",))
        self._attempts = Counter("ds2d_upstream_attempts_total", "Questions put upstream, by how it went", ("upstream", "end"))
        self._tokens = Counter("ds2d_tokens_total", "Tokens used; cached are prompt, reasoning are completion", (*where, "kind"))
        self._calls = Counter("ds2d_tool_calls_total", "Tool calls in answers that came whole")
        self._mended = Counter("ds2d_tool_calls_mended_total", "Answers with a tool call that was mended", ("how",))
        self._rejected = Counter("ds2d_tool_calls_rejected_total", "Answers with a tool call that was not passed on", ("why",))
        self._seconds = Histogram("ds2d_turn_duration_seconds", "Whole turns", TURN_SECONDS, where)
        self._first = Histogram("ds2d_time_to_first_token_seconds", "To the first byte of a stream", FIRST_SECONDS, where)
        self._each = Histogram("ds2d_time_per_output_token_seconds", "After the first, in whole streams", TOKEN_SECONDS, where)
        self._queue = Histogram("ds2d_queue_wait_seconds", "Waiting for an account", QUEUE_SECONDS)
        self._own = Histogram("ds2d_overhead_seconds", "From question read to asked: all our own work but the queue", OWN_SECONDS)
        self._key_turns = Counter("ds2d_key_turns_total", "Turns that are over, by key", ("key", "outcome"))
        self._key_tokens = Counter("ds2d_key_tokens_total", "Tokens used, by key", ("key", "kind"))
        self._named: frozenset[str] = frozenset()
        self._listed: set[str] = set()
        self._keys: frozenset[str] | None = None

    def apply(self, config: Config) -> None:
        """Take over the names that may be labels, and let go of series whose names are gone."""
        self._named = frozenset((*config.models, *config.model_aliases.values(), *TABLES.native, OTHER))
        self._listed -= self._named
        upstreams = {NONE, *(upstream.name for upstream in config.upstreams)}
        models = self._named | self._listed
        for family in (self._turns, self._tokens, self._seconds, self._first, self._each):
            family.keep(partial(_is_known, family.labels.index("model"), models, upstreams))
        self._attempts.keep(lambda labels: labels[0] in upstreams)
        shown = config.metrics.key_labels
        keys = self._keys = frozenset((OTHER, *(key.name for key in config.keys if key.name))) if shown else None
        for counter in (self._key_turns, self._key_tokens):
            counter.keep(lambda labels: keys is not None and labels[0] in keys)

    def answered(self, dialect: str, status: int) -> None:
        """An HTTP request was answered, or its client left (499)."""
        self._http.values[dialect, str(status)] += 1

    def ended(self, row: Row, turn: Answering | None) -> None:
        """A turn is over; without `turn` it was refused before it began."""
        where = self._count(row)
        if turn is not None:
            self._measure(row, where)
            self._count_tokens(row, where)
            self._count_work(row, turn)

    def ended_elsewhere(self, row: Row) -> None:
        """A turn of an older process is over (docs/upgrade.md); what it had to do for it is not known here."""
        where = self._count(row)
        if row.state != REJECTED:
            self._measure(row, where)
            self._count_tokens(row, where)

    def _count(self, row: Row) -> tuple[str, str]:
        """Count the turn; its model and upstream as labels."""
        model = row.used if row.used in self._named else self._label(row.used)
        where = model, row.upstream or NONE
        self._turns.values[row.dialect, *where, row.state] += 1
        if self._keys is not None:
            self._count_key(row, self._keys)
        if row.state != COMPLETED:
            self._unfinished.values[row.state, row.cause] += 1
            if row.streamed and row.first_ms is not None:
                self._cut.values[row.cause,] += 1
        return where

    def families(self) -> Iterator[Family]:
        """Everything, for the page."""
        yield from (self._http, self._turns, self._unfinished, self._cut, self._attempts, self._tokens)
        yield from (self._calls, self._mended, self._rejected)
        yield from (self._seconds, self._first, self._each, self._queue, self._own)
        if self._keys is not None:
            yield from (self._key_turns, self._key_tokens)

    def sizes(self) -> Sizes:
        """Labels that clients can bring about."""
        return {"models_listed": Size(len(self._listed), MAX_LISTED)}

    def _label(self, model: str) -> str:
        if model in self._listed:
            return model
        if model and len(self._listed) < MAX_LISTED and self._is_listed(model):
            self._listed.add(model)
            return model
        return OTHER

    def _measure(self, row: Row, where: tuple[str, str]) -> None:
        total, first = row.total_ms or 0.0, row.first_ms
        self._seconds.observe(where, total / 1000)
        if row.attempts:
            self._queue.observe((), (row.queue_ms or 0.0) / 1000)
        if first is not None:
            self._first.observe(where, first / 1000)
            if row.completion_tokens > 1 and row.state == COMPLETED:
                self._each.observe(where, max(0.0, total - first) / 1000 / (row.completion_tokens - 1))

    def _count_tokens(self, row: Row, where: tuple[str, str]) -> None:
        values = self._tokens.values
        values[*where, "prompt"] += row.prompt_tokens
        values[*where, "completion"] += row.completion_tokens
        if row.cached_tokens:
            values[*where, "cached"] += row.cached_tokens
        if row.reasoning_tokens:
            values[*where, "reasoning"] += row.reasoning_tokens

    def _count_work(self, row: Row, turn: Answering) -> None:
        """Attempts, of which the last has no end of its own yet, and what was done to tool calls."""
        for attempt in turn.tries:
            end = attempt["end"] or ("answered" if row.state == COMPLETED else row.cause)
            self._attempts.values[attempt["upstream"], end] += 1
        if turn.tries and turn.entry is not None and turn.entry.asked_at is not None:
            waited = turn.tries[0]["waited_ms"] / 1000
            self._own.observe((), max(0.0, turn.entry.asked_at - turn.arrived - waited))
        if turn.outcome == COMPLETED:
            self._calls.values[()] += turn.calls
        for note in turn.notes:
            if note.startswith(notes.REPAIRED):
                self._mended.values[note.removeprefix(notes.REPAIRED),] += 1
            elif note in _MENDED:
                self._mended.values[_MENDED[note],] += 1
            elif note in _REJECTED:
                self._rejected.values[_REJECTED[note],] += 1

    def _count_key(self, row: Row, keys: frozenset[str]) -> None:
        key = row.key_name if row.key_name in keys else OTHER
        self._key_turns.values[key, row.state] += 1
        if row.prompt_tokens or row.completion_tokens:
            self._key_tokens.values[key, "prompt"] += row.prompt_tokens
            self._key_tokens.values[key, "completion"] += row.completion_tokens


def _is_known(at: int, models: Set[str], upstreams: Set[str], labels: Labels) -> bool:
    """Whether a series has names that hold; model and upstream stand at `at` and behind it."""
    return labels[at] in models and labels[at + 1] in upstreams


_MENDED = {notes.RENAMED: "renamed", notes.NEW_ID: "new_id"}
_REJECTED = {
    notes.UNDECLARED: "undeclared",
    notes.DUPLICATE: "written_twice",
    notes.NOT_PARALLEL: "parallel",
    notes.BROKEN: "broken",
    notes.GAVE_UP: "scan_gave_up",
}
