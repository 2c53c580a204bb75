"""One question put to one account: it is asked, its answer goes through the stages, and out to the client.

Rule: what the server sends decides how it is read, not what it was asked for; the row of an answer is on disk before its last
frame goes out.
Surprise: an upstream's fault in mid-stream raises nothing. The pipeline turns it into its ending, and that ending is an
exception again only while nothing has been sent (errors.md 3).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import msgspec

from ds2d import toolcalls
from ds2d.core.calls import Passed
from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.events import Failure, Finish, Folder, Overhearing, Usage, own_usage, with_reasoning
from ds2d.core.models import Target
from ds2d.core.pipeline import MAX_ANSWER, Encoding, Pipeline, Splitting, Stage
from ds2d.core.request import ChatRequest, Envelope
from ds2d.core.sse import Splitter, Tapped, WholeBody
from ds2d.dialects import TELLS, tasks
from ds2d.net.client import MAX_ERROR_BODY, Client
from ds2d.net.exchange import Exchange
from ds2d.service.heartbeat import Heartbeat
from ds2d.service.question import as_it_thinks, prepared, think_tags
from ds2d.service.tasks import is_streamed, passed_on
from ds2d.service.turn import Beat, Sink, Tools, Turn
from ds2d.service.unsaid import Unsaid
from ds2d.state.accounts import Lease
from ds2d.state.books import Books
from ds2d.state.catalog import Catalog
from ds2d.state.logins import Logins
from ds2d.state.observed import Observed
from ds2d.toolcalls.unsure import Unsure, is_plain_stop
from ds2d.upstreams import REGISTRY as UPSTREAMS
from ds2d.upstreams.openai import output_limit

CUT = "max_tokens="
"""Begins the note of a turn whose limit was cut; what was sent follows."""

Result = bytes | Passed | None
"""What a turn comes to: a body, an answer that is passed on, or nothing where it was written as it came."""


class Asking:
    """Puts questions to accounts. `may_retry(error, turn)` says whether another attempt may mend a failure."""

    def __init__(
        self,
        catalog: Catalog,
        logins: Logins,
        client: Client,
        tools: Tools,
        books: Books,
        observed: Observed,
        may_retry: Callable[[GatewayError, Turn], bool],
    ) -> None:
        self._catalog = catalog
        self._logins = logins
        self._client = client
        self._tools = tools
        self._books = books
        self._observed = observed
        self._may_retry = may_retry
        self._unsaid = Unsaid()

    async def exchange(self, turn: Turn, lease: Lease, sink: Sink | None) -> Result:
        """Ask the leased account, and hand on what it answers. Raises GatewayError while nothing of an answer was sent."""
        if sink is None:
            return await self._exchange(turn, lease, None, None)
        beat, sign = turn.beat, partial(self._early_sign, turn, sink)
        if beat is None:
            turn.beat = beat = Heartbeat(sink, turn.config.server.keepalive_seconds, self._tools.spawn, sign)
        else:
            beat.go_on(sign)
        try:
            return await self._exchange(turn, lease, sink, beat)
        finally:  # where another attempt waits in the queue the status is still open, or there is nothing to lose
            beat.sign = lambda: sign() if sink.started else b""

    def _early_sign(self, turn: Turn, sink: Sink) -> bytes:
        """A life sign while the upstream has not even said a status, in the form of an answer that is yet to begin."""
        if turn.ask.request.task:  # what the server will send decides the form
            return b""
        encoder = turn.ask.dialect.Encoder(self.envelope(turn, None))
        sink.content_type = encoder.content_type
        return encoder.keep_alive()

    def failure(self, turn: Turn, error: GatewayError) -> bytes:
        """What ends a stream of which nothing but life signs was sent."""
        ask = turn.ask
        encoder = tasks.Encoder() if ask.request.task else ask.dialect.Encoder(self.envelope(turn, None))
        return encoder.feed([Failure(error)])

    async def _exchange(self, turn: Turn, lease: Lease, sink: Sink | None, beat: Beat | None) -> Result:
        target = next(target for target in turn.route.targets if target.upstream.name == lease.account.upstream)
        upstream = UPSTREAMS[target.upstream.kind]
        request = turn.ask.request
        token = turn.ask.caller.token or await self._logins.token(lease.account)
        call = await self._client.drive(prepared(await self._limited(turn, target), target, token))
        recording = turn.ask.recording
        own = (token, turn.ask.caller.token)
        if recording is not None:
            recording.knows(own)
            recording.asked(call, lease.account.label, target.facts.flavour, target.model)
        opening = self._client.open(call, turn.note_sent)
        del call  # with its body, which may be large, while the answer may last long
        async with opening as exchange:
            if recording is not None:
                recording.answered(exchange.status, exchange.headers.get("content-type", ""))
            if exchange.status != 200:
                refusal = await exchange.read(MAX_ERROR_BODY)
                if recording is not None:
                    recording.upstream(refusal.body)
                error = upstream.classify(self._unsaid.reply(refusal, turn.config, own), request)
                self._unsaid.error(error, turn.config, own)
                if error.kind is ErrorKind.UPSTREAM_AUTH:
                    turn.same_account = self._logins.refused(lease.account, token)
                raise _for_direct_caller(error) if turn.ask.caller.token else error
            self._observed.told(lease.account.label, turn.route.public, exchange.headers)
            if request.task and (sink is None or not is_streamed(exchange)):
                return await passed_on(turn, target, exchange, self._tools, self._books)
            pipeline, encoder = self._pipeline(turn, target, exchange, sink)
            turn.pipeline = pipeline
            turn.sent_with = own
            if sink is None or beat is None:
                return await self._whole(turn, exchange, pipeline, encoder)
            sink.content_type = encoder.content_type
            beat.sign = pipeline.keep_alive
            await self._stream(turn, exchange, pipeline, sink)
        return None

    async def _limited(self, turn: Turn, target: Target) -> ChatRequest:
        """The question with a `max_tokens` for which this server has room, noted where it was cut (mapping.md 5)."""
        request = turn.ask.request
        turn.notes = [note for note in turn.notes if not note.startswith(CUT)]  # an earlier attempt's, on another server
        limit = output_limit(request, target, await self._prompt_tokens(turn, target))
        if limit == request.max_tokens:
            return request
        turn.notes.append(f"{CUT}{limit}")
        return msgspec.structs.replace(request, max_tokens=limit)

    async def _prompt_tokens(self, turn: Turn, target: Target) -> int | None:
        """The prompt, counted, where it decides whether `max_tokens` fits the window; None where it does not or cannot be had.

        An estimate says whether counting is worth its time. Several prompts in one question have a window each.
        """
        request, entry = turn.ask.request, turn.entry
        if request.max_tokens is None or target.context is None or entry is None or request.prompts > 1:
            return None
        if not entry.counted:
            if request.max_tokens + entry.prompt <= target.context:
                return None
            entry.prompt, entry.counted = await self._tools.count_request(request), self._tools.exact
        return entry.prompt if entry.counted and self._tools.exact else None

    def _is_told(self, error: GatewayError, turn: Turn, sink: Sink | None) -> bool:
        """Whether the dialect's answer tells this failure by itself, and no further attempt can mend it."""
        tells = TELLS.get(turn.ask.dialect_name)
        return tells is not None and tells(error, sink is not None) and not self._may_retry(error, turn)

    async def _stream(self, turn: Turn, exchange: Exchange, pipeline: Pipeline, sink: Sink) -> None:
        async def write(data: bytes) -> None:
            if turn.first is None:
                turn.first = self._tools.monotonic()
            await sink.write(data)

        try:
            await exchange.pump(pipeline, write, sink.outlet)
        except BaseException:
            turn.usage = pipeline.usage
            if turn.stopped is None or not sink.started:
                raise
            turn.uncancel()
            if held := pipeline.unwritten + pipeline.fail(turn.stopped):
                await write(held)
        ending = self._ending(turn, pipeline)
        self._learn(turn, ending)
        if type(ending) is Failure and turn.first is None and not self._is_told(ending.error, turn, sink):
            raise ending.error
        turn.settled = True
        last = pipeline.close(await self._counted(turn, pipeline))
        turn.ask.on_ending()
        await self._books.commit(turn)
        await sink.write(last)

    def _ending(self, turn: Turn, pipeline: Pipeline) -> Finish | Failure | None:
        """How the answer ended, without secrets in what the upstream said of a failure."""
        ending = pipeline.ending
        if type(ending) is Failure:
            self._unsaid.error(ending.error, turn.config, turn.sent_with)
        return ending

    async def _whole(self, turn: Turn, exchange: Exchange, pipeline: Pipeline, encoder: Encoding) -> bytes:
        async def write(data: bytes) -> None:
            raise AssertionError("a folder writes nothing")

        await exchange.pump(pipeline, write)
        ending = self._ending(turn, pipeline)
        self._learn(turn, ending)
        if type(ending) is Failure and not self._is_told(ending.error, turn, None):
            raise ending.error
        turn.settled = True
        pipeline.close(await self._counted(turn, pipeline))
        assert isinstance(encoder, Folder)
        body = turn.ask.dialect.render(encoder.completion, self.envelope(turn, pipeline))
        turn.ask.on_ending()
        await self._books.commit(turn)
        return body

    def _pipeline(self, turn: Turn, target: Target, exchange: Exchange, sink: Sink | None) -> tuple[Pipeline, Encoding]:
        """The stages for this answer. What the server sends decides how it is split, not what it was asked for."""
        request = turn.ask.request
        plain = Splitter() if is_streamed(exchange) else WholeBody(MAX_ANSWER)
        splitter: Splitting = Tapped(plain, turn.ask.recording.upstream) if turn.ask.recording is not None else plain
        decoder = UPSTREAMS[target.upstream.kind].Decoder(request, target)
        if sink is None:
            encoder: Encoding = Folder()
        elif request.task:
            encoder = tasks.Encoder()
        else:
            encoder = turn.ask.dialect.Encoder(self.envelope(turn, None, lambda: decoder.usage))
            turn.ask.on_encoder(encoder)
        pipeline = Pipeline(splitter, decoder, self._stages(turn, target, whole=sink is None), encoder)
        return pipeline, encoder

    def _stages(self, turn: Turn, target: Target, *, whole: bool) -> list[Stage]:
        """What stands between decoder and encoder for this question on this server."""
        settings, request = turn.config.toolcall, turn.ask.request
        if request.task:
            return []
        request = as_it_thinks(request, target)
        place = (target.upstream.name, target.model)
        stages = toolcalls.build(
            request,
            self._tools.new_id,
            mode=settings.mode,
            confidence=settings.early_emit_confidence,
            think=think_tags(target, request),
            told=self._catalog.begins_inside.get(place),
            whole=whole,
        )
        turn.learning = [(place, stage) for stage in stages if isinstance(stage, Unsure)]
        if request.tools:
            turn.overheard = Overhearing()
            stages.append(turn.overheard)
        return stages

    def _learn(self, turn: Turn, ending: Finish | Failure | None) -> None:
        """How this server's answers begin, as far as this one proves it. One without a sign does so only if it is whole and
        holds no call: thinking may have been cut, and a call may begin in it."""
        for place, stage in turn.learning:
            lesson = stage.lesson
            if lesson is None and stage.plain and isinstance(ending, Finish) and is_plain_stop(ending):
                lesson = False
            if lesson is not None:
                self._catalog.learn(place, begins_inside=lesson)

    def envelope(self, turn: Turn, pipeline: Pipeline | None, usage: Callable[[], Usage | None] | None = None) -> Envelope:
        """What the dialect needs to write the answer; `usage` gives what is known of it so far, else the pipeline does."""
        ask, config = turn.ask, turn.config

        def running() -> Usage | None:
            return pipeline.usage if pipeline else None

        now = usage or running

        def prompt_tokens() -> int:
            known = now()
            return known.prompt if known and known.prompt else self._tools.rough_request(ask.request)

        return Envelope(
            request=ask.request,
            model=ask.request.model,
            request_id=ask.request_id,
            created=turn.created,
            new_id=self._tools.new_id,
            now=self._tools.now,
            seal=self._tools.seal,
            usage=now,
            prompt_tokens=prompt_tokens,
            reasoning_field=config.reasoning.field,
            settings={
                "responses.reasoning_events": config.responses.reasoning_events,
                "gemini.stream_default": config.gemini.stream_default,
            },
        )

    async def _counted(self, turn: Turn, pipeline: Pipeline) -> Finish | Failure:
        """The ending with usage: the upstream's if it gave one, else counted here (tokens.md, last line)."""
        ending = pipeline.ending
        assert ending is not None
        usage = ending.usage or pipeline.usage
        if usage is None:
            prompt = await self._tools.count_request(turn.ask.request)
            before, said = pipeline.counted, "".join(pipeline.said)
            said_tokens = await self._tools.count_text(said)
            usage = own_usage(prompt, before + said_tokens, exact=self._tools.exact)
        if not usage.reasoning and (pipeline.thoughts or pipeline.thought_tokens):
            thought = pipeline.thought_tokens + await self._tools.count_text("".join(pipeline.thoughts))
            usage = with_reasoning(usage, thought)
        turn.usage, turn.answer_id = usage, pipeline.answer_id
        if isinstance(ending, Finish) and turn.overheard is not None:
            self._tools.reasoning.remember(turn.ask.caller.id, turn.overheard.completion)
        if isinstance(ending, Finish):
            turn.outcome, turn.cause = "completed", ending.reason
            turn.notes += ending.notes
        else:
            turn.outcome, turn.cause = "failed", ending.error.kind
            turn.failure = ending.error
        turn.tries[-1]["end"] = turn.failure.kind if turn.failure else "answered"  # the record is written before the last frame
        return msgspec.structs.replace(ending, usage=usage)


def _for_direct_caller(error: GatewayError) -> GatewayError:
    """What a refused credential means to the caller who brought it (errors.md 2)."""
    if error.kind is ErrorKind.UPSTREAM_AUTH:
        return GatewayError(ErrorKind.INVALID_KEY, "The upstream does not know this token.")
    if error.kind is ErrorKind.UPSTREAM_BILLING:
        return GatewayError(ErrorKind.QUOTA_EXHAUSTED, "The balance behind this token is used up.")
    return error
