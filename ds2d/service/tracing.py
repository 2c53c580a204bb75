"""OpenTelemetry: a span a turn, with spans for its waits, its attempts and its first token, sent to a collector.

Rule: off unless the standard variables name a collector (OTEL_EXPORTER_OTLP_ENDPOINT or _TRACES_ENDPOINT), and then never in
the way: spans are made when the turn is over, sent by a thread of the SDK's, dropped where nobody takes them. Names, clocks
and counts only; nothing of a conversation. Attributes are those of the GenAI conventions where there is one, else `ds2d.*`.
Surprise: the SDK is an extra (`pip install ds2d[otel]`) and takes 0.3 s to import, so it is imported here and only when on.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any, NamedTuple

from ds2d import __version__
from ds2d.core.logs import client_text, request_id
from ds2d.core.trace import outgoing
from ds2d.state.books import Answering
from ds2d.state.ledger_schema import COMPLETED, Row

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

logger = logging.getLogger("ds2d.trace")

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
INCOMING = ("traceparent", "tracestate")
FAREWELL_SECONDS = 3.0
"""How long the last spans may take to be sent when the daemon stops."""

OPERATIONS = {"openai_completions": "text_completion", "gemini": "generate_content"}
"""GenAI names of what a dialect's turns are; the others are `chat`."""

_current: ContextVar[Span | None] = ContextVar("span", default=None)


class Entered(NamedTuple):
    """What `enter` changed, for `leave`."""

    span: Token[Span | None]
    headers: Token[Mapping[str, str]]


def is_wanted(environ: Mapping[str, str]) -> bool:
    """Whether the standard variables ask for traces."""
    off = environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    exporter = environ.get("OTEL_TRACES_EXPORTER", "").strip() or "otlp"
    return not off and exporter == "otlp" and any(environ.get(name, "").strip() for name in ENDPOINTS)


def tracing(environ: Mapping[str, str], clock: Callable[[], float], wall: Callable[[], float]) -> Tracing | None:
    """The tracing that the variables ask for; None, and a word about it, where it cannot be had.

    `clock` is the monotonic seconds of turns, `wall` Unix seconds.
    """
    if not is_wanted(environ):
        return None
    protocol = next((environ[name] for name in PROTOCOLS if environ.get(name)), "http/protobuf")
    if protocol != "http/protobuf":
        logger.warning("no traces: OTEL_EXPORTER_OTLP_PROTOCOL must be http/protobuf, not %s", client_text(protocol))
        return None
    try:
        provider = _provider(environ)
    except ImportError:
        logger.warning("no traces: OTEL_* asks for them, and their packages are missing (pip install ds2d[otel])")
        return None
    logger.info("traces are on")
    return Tracing(provider, clock, wall)


class Tracing:
    """Makes spans of turns. `enter` and `leave` stand around a request, `ended` hears of its turn from the books."""

    def __init__(self, provider: TracerProvider, clock: Callable[[], float], wall: Callable[[], float]) -> None:
        from opentelemetry import trace  # noqa: PLC0415 - an extra, and slow
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

        self._api = trace
        self._provider = provider
        self._tracer = provider.get_tracer("ds2d", __version__)
        self._propagator = TraceContextTextMapPropagator()
        self._clock = clock
        self._wall = wall

    def enter(self, headers: Mapping[str, str]) -> Entered:
        """A request begins: its span joins the trace that its headers name, and calls made for it will name the span."""
        carrier = {name: headers[name] for name in INCOMING if name in headers}
        span = self._tracer.start_span("turn", self._propagator.extract(carrier), self._api.SpanKind.SERVER)
        onward: dict[str, str] = {}
        self._propagator.inject(onward, self._api.set_span_in_context(span))
        return Entered(_current.set(span), outgoing.set(onward))

    def leave(self, entered: Entered) -> None:
        """The request is over. A span whose request was no turn is never sent."""
        _current.reset(entered.span)
        outgoing.reset(entered.headers)

    def ended(self, row: Row, turn: Answering | None) -> None:
        """The turn of the current request is over; without `turn` it was refused before it began."""
        span = _current.get()
        if span is None or not span.is_recording():
            return
        over, now = self._clock(), self._wall()
        operation = OPERATIONS.get(row.dialect, "chat")
        span.update_name(f"{operation} {row.used or 'unknown'}")
        span.set_attributes(_attributes(row, operation))
        if row.state != COMPLETED:
            span.set_status(self._api.StatusCode.ERROR, row.cause)
        if turn is not None:
            self._parts(self._api.set_span_in_context(span), turn, over, _ns(now) - _ns(over))
        span.end(_ns(now))

    async def close(self) -> None:
        """Send what is left, within `FAREWELL_SECONDS`; a collector that does not answer holds nobody up."""
        done = asyncio.Event()
        loop = asyncio.get_running_loop()

        def shut_down() -> None:
            self._provider.shutdown()
            loop.call_soon_threadsafe(done.set)

        threading.Thread(target=shut_down, name="traces", daemon=True).start()
        try:
            async with asyncio.timeout(FAREWELL_SECONDS):
                await done.wait()
        except TimeoutError:
            logger.warning("the last traces could not be sent")

    def _parts(self, parent: Context, turn: Answering, over: float, offset: int) -> None:
        """Spans of what the turn was made of until now, `over`. `offset` makes Unix nanoseconds of the turn's clock."""
        for attempt in turn.tries:
            at = turn.began + attempt["at_ms"] / 1000
            until = at + attempt["ms"] / 1000 if "ms" in attempt else over
            if waited := attempt["waited_ms"] / 1000:
                self._part(parent, "queue", at - waited, at, offset)
            names = {"ds2d.upstream": attempt["upstream"], "ds2d.account": attempt["account"]}
            failed = attempt["end"] not in ("", "answered")
            self._part(parent, "upstream", at, until, offset, names | ({"error.type": str(attempt["end"])} if failed else {}))
            if turn.first is not None and at <= turn.first <= until:
                self._part(parent, "first token", at, turn.first, offset)

    def _part(
        self, parent: Context, name: str, begin: float, end: float, offset: int, attributes: Mapping[str, Any] | None = None
    ) -> None:
        kind = self._api.SpanKind.CLIENT if name == "upstream" else self._api.SpanKind.INTERNAL
        span = self._tracer.start_span(name, parent, kind, attributes, start_time=_ns(begin) + offset)
        if attributes and "error.type" in attributes:
            span.set_status(self._api.StatusCode.ERROR)
        span.end(_ns(end) + offset)


def _provider(environ: Mapping[str, str]) -> TracerProvider:
    """The SDK set up by its own variables. Raises ImportError where it is not installed."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - an extra, and slow
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    named = "OTEL_SERVICE_NAME" in environ or "service.name=" in environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    resource = Resource.create({"service.version": __version__, **({} if named else {"service.name": "ds2d"})})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


def _attributes(row: Row, operation: str) -> dict[str, Any]:
    """What is known of the turn, empty things left out."""
    found = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": row.upstream,
        "gen_ai.request.model": client_text(row.asked),
        "gen_ai.request.stream": row.streamed,
        "gen_ai.response.model": row.used,
        "gen_ai.response.id": row.completion_id,
        "gen_ai.response.time_to_first_chunk": None if row.first_ms is None else row.first_ms / 1000,
        "gen_ai.usage.input_tokens": row.prompt_tokens,
        "gen_ai.usage.output_tokens": row.completion_tokens,
        "gen_ai.usage.cache_read.input_tokens": row.cached_tokens,
        "gen_ai.usage.reasoning.output_tokens": row.reasoning_tokens,
        "ds2d.dialect": row.dialect,
        "ds2d.account": row.account,
        "ds2d.attempts": row.attempts,
        "ds2d.outcome": row.state,
        "ds2d.request_id": row.request_id or request_id.get(),
    }
    if row.state == COMPLETED:
        found["gen_ai.response.finish_reasons"] = [row.cause]
    else:
        found["error.type"] = row.cause
    return {name: value for name, value in found.items() if value not in (None, "")}


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)
