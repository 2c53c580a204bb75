"""One turn, from a parsed question to its record: who may answer it, and what happens when one does not.

Rule: resolve, permit, and only then queue, so that a bad request never costs a slot or a login; retry here and nowhere
else, only before the first byte; whatever happens, the lease goes back and the turn is recorded once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Generator
from typing import Any, TypeVar

from ds2d.config.schema import Config
from ds2d.core.calls import Passed
from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.models import Route, Target
from ds2d.core.request import ChatRequest, Envelope
from ds2d.core.settings import UpstreamSpec
from ds2d.core.sizes import Size, Sizes
from ds2d.core.validate import check_image_sizes
from ds2d.net.client import Client
from ds2d.service.asking import Asking, Result
from ds2d.service.question import (
    answering,
    with_able_servers,
    with_images_checked,
    with_rights,
    with_thinking,
)
from ds2d.service.repeats import Repeats
from ds2d.service.tasks import made_here, task_route
from ds2d.service.turn import Ask, Sink, Tools, Turn
from ds2d.state.accounts import AccountQueue, Lease, Want
from ds2d.state.affinity import Affinity
from ds2d.state.books import Books
from ds2d.state.catalog import Catalog
from ds2d.state.explain import skipped
from ds2d.state.logins import Logins
from ds2d.state.observed import Observed
from ds2d.upstreams import REGISTRY as UPSTREAMS

logger = logging.getLogger("ds2d.turn")

T = TypeVar("T")

FIRST_SECONDS = 3.0
"""How long a question waits for the first look at upstreams that are new. Those that run answer it within milliseconds."""

REROUTES = 5
"""How often a turn that waits follows a config which changes its servers."""


class Service:
    """Answers questions. Owns no state but the turns that run now and the count of running retries."""

    def __init__(
        self,
        config: Callable[[], Config],
        catalog: Catalog,
        queue: AccountQueue,
        affinity: Affinity,
        logins: Logins,
        client: Client,
        tools: Tools,
        books: Books,
        observed: Observed,
    ) -> None:
        self._config = config
        self._catalog = catalog
        self._queue = queue
        self._affinity = affinity
        self._logins = logins
        self._client = client
        self._tools = tools
        self._books = books
        self._observed = observed
        self.turns: dict[str, Turn] = {}
        """The turns that run or wait now, by request id."""
        self.retrying = 0
        self.repeats = Repeats(config, books, tools, self._turn, self.route)
        self._asking = Asking(catalog, logins, client, tools, books, observed, self._may_retry)

    async def answer(self, ask: Ask) -> bytes:
        """The whole answer as the body of a 200. Raises GatewayError with the status it should have."""
        body = await self.repeats.run(ask, None)
        assert isinstance(body, bytes)
        return body

    async def perform(self, ask: Ask, sink: Sink | None = None) -> Passed | None:
        """A task that is no answer (`request.task`), done; None where its answer streams and was written to the sink. Raises
        GatewayError with the status it should have."""
        passed = await self._turn(ask, sink)
        assert not isinstance(passed, bytes)
        return passed

    async def stream(self, ask: Ask, sink: Sink) -> None:
        """Write the answer to the sink. Raises GatewayError only while nothing was sent, or when the client has gone."""
        await self.repeats.run(ask, sink)

    def failure(self, ask: Ask, error: GatewayError) -> bytes:
        """What ends a stream of which nothing but life signs was sent."""
        turn = ask.turn
        assert turn is not None, "only turns have life signs"
        return self._asking.failure(turn, error)

    @property
    def has_new(self) -> bool:
        """Whether `meet` would wait."""
        return self._catalog.has_new

    async def meet(self, ask: Ask) -> None:
        """Return when the upstream is known that this question is for, or all are, and after FIRST_SECONDS at the latest."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FIRST_SECONDS):
                while self._catalog.has_new and not self._is_known(ask):
                    await self._catalog.meet()

    def _is_known(self, ask: Ask) -> bool:
        try:
            self.route(ask)
        except GatewayError as error:
            return error.kind not in (ErrorKind.MODEL_NOT_FOUND, ErrorKind.MODEL_UNAVAILABLE)
        return True

    def route(self, ask: Ask) -> Route:
        """What the model name became, if this caller may have it. Raises MODEL_NOT_FOUND, MODEL_UNAVAILABLE or _NOT_ALLOWED."""
        request = ask.request
        if request.task:
            route = task_route(self._catalog, request, self._config().embeddings)
        else:
            route = answering(self._catalog.route(request.model, claude_route=ask.dialect_name == "claude"))
        if not (ask.caller.may_use(route.public) or ask.caller.may_use(route.asked)):
            message = f"This API key may not use the model '{ask.request.model}'."
            raise GatewayError(ErrorKind.MODEL_NOT_ALLOWED, message, param="model")
        return route

    async def count(self, ask: Ask) -> int:
        """Prompt tokens of a question: the server's own count where it has one, else ours. Raises what `route` raises."""
        route = self.route(ask)
        request = with_thinking(ask.request, route)
        return await self._counted_upstream(request, route.targets[0]) or await self._tools.count_request(request)

    async def _counted_upstream(self, request: ChatRequest, target: Target) -> int | None:
        upstream = UPSTREAMS[target.upstream.kind]
        account = self._queue.account_of(target.upstream.name)
        try:
            call = upstream.count_call(request, target, await self._logins.token(account) if account else None)
            return None if call is None else upstream.read_count(await self._client.fetch(call))
        except GatewayError as error:
            logger.info("token count not to be had upstream=%s cause=%s", target.upstream.name, error.kind)
            return None

    def envelope(self, ask: Ask) -> Envelope:
        """What a dialect needs to write about a question outside of a turn."""
        turn = Turn(ask, self._config(), self.route(ask), self._tools.monotonic(), self._tools.now())
        return self._asking.envelope(turn, None)

    def public_name(self, name: str, *, claude_route: bool) -> str:
        """The public model that a name stands for. Raises MODEL_NOT_FOUND."""
        return self._catalog.route(name, claude_route=claude_route).public

    async def _turn(self, ask: Ask, sink: Sink | None) -> Result:
        tools = self._tools
        row = self._books.row(ask.request_id, ask.caller, ask.dialect_name, ask.request)
        try:
            turn = Turn(ask, self._config(), self.route(ask), tools.monotonic(), tools.now())
            ask.turn = turn
            ask.request = await self._completed(turn)
            turn.enter(asyncio.current_task())
            if ask.pin is None and not ask.request.task:
                turn.thread = self._affinity.thread(ask.request, ask.caller.id, turn.route)
        except GatewayError as error:
            self._books.refuse(row, error)
            raise
        key = ask.request_id if ask.request_id not in self.turns else tools.new_id(ask.request_id)  # clients choose ids
        self.turns[key] = turn
        try:
            reserve = turn.config.ledger.default_reserve_tokens
            turn.entry = await self._books.admit(row, ask.caller, ask.request, turn.route, reserve)
            ask.on_admitted()
            return await (self._attempts(turn, sink) if turn.route.targets else made_here(turn, self._tools, self._books))
        except GatewayError as error:
            refused = "failed" if turn.tries else "rejected"
            turn.outcome = "interrupted" if error.kind is ErrorKind.CLIENT_CLOSED else refused
            turn.cause = error.kind
            raise
        except asyncio.CancelledError:
            turn.outcome, turn.cause = "interrupted", ErrorKind.CLIENT_CLOSED
            if turn.stopped is None:
                raise
            turn.uncancel()
            turn.outcome, turn.cause = "failed", turn.stopped.kind
            raise turn.stopped from None
        except Exception:  # a bug, told like any other failure: where a stream has begun, no handler above could tell it any more
            logger.exception("bug in a turn")
            turn.outcome, turn.cause = "failed", ErrorKind.INTERNAL
            raise GatewayError(ErrorKind.INTERNAL, "Internal error.") from None
        finally:
            if turn.beat is not None:
                turn.beat.stop()
                turn.beat = None  # it knows the turn
            del self.turns[key]
            self.retrying -= turn.retrying
            turn.ended = tools.monotonic()
            self._books.end(turn)

    def sizes(self) -> Sizes:
        """Turns that run or wait: those of clients, and those without one."""
        config = self._config()
        bound = config.server.max_connections + config.responses.background_max
        return {"turns": Size(len(self.turns), bound), "retrying": Size(self.retrying, bound)}

    async def keep_books(self) -> None:
        """Note now and then what running turns have used so far (`ledger.checkpoint_seconds`), until cancelled."""
        while True:
            await asyncio.sleep(self._config().ledger.checkpoint_seconds)
            for key in list(self.turns):
                if key in self.turns:  # no name of ours holds one: its question would wait here for the next time
                    await self._books.checkpoint(self.turns[key])

    async def _completed(self, turn: Turn) -> ChatRequest:
        """The question with what the route, the settings and earlier turns add to it. Raises the 400 class for what no
        server of the route can do."""
        if turn.ask.request.notes:
            logger.warning("left out of a question: %s", ", ".join(turn.ask.request.notes))
        request = with_images_checked(turn.ask.request, turn.route, turn.config.images.on_text_model)
        check_image_sizes(request, turn.config.images.max_bytes)
        request = with_rights(request, turn.ask.caller)
        request = with_thinking(request, turn.route)
        turn.route = with_able_servers(request, turn.route, self._pinned(turn.ask))
        if request.large:
            steps = self._tools.reasoning.restoring(turn.ask.caller.id, request)
            request, restored, lost = await by_and_by(steps)
        else:
            request, restored, lost = self._tools.reasoning.restore(turn.ask.caller.id, request)
        turn.notes += request.notes
        turn.notes += [f"reasoning_restored={restored}"] * bool(restored) + [f"reasoning_lost={lost}"] * bool(lost)
        return request

    def _pinned(self, ask: Ask) -> frozenset[str]:
        """The servers that the question must go to one of; empty where it may go to any."""
        return frozenset() if ask.pin is None else self._queue.upstreams_of(ask.pin)

    async def _attempts(self, turn: Turn, sink: Sink | None) -> Result:
        """Ask one account after the other until one answers or no further one may be asked."""
        tried: set[str] = set()
        cause: GatewayError | None = None
        last = ""
        while True:
            lease, others = await self._leased(turn, tried, cause)
            if cause is not None:
                logger.info("retry attempt=%d cause=%s", turn.attempts + 1, last)
            try:
                return await self._attempt(turn, lease, sink, others)
            except GatewayError as error:
                failure = error
            finally:
                self._queue.release(lease)
            cause, last = _clearer(cause, failure), failure.kind
            if not self._may_retry(failure, turn):
                cause.status = _status(cause, turn.config)
                raise cause from failure
            self._begin_retry(turn)
            if not turn.same_account:
                tried.add(lease.account.id)
                if turn.thread is not None:
                    self._affinity.failed(turn.thread)
            await self._route_again(turn, cause)

    async def _leased(self, turn: Turn, tried: set[str], cause: GatewayError | None) -> tuple[Lease, list[dict[str, Any]]]:
        """The right to use an account, and who was skipped for it. Raises what the queue says, or `cause`, which says more.

        The account is of the config in force now. Where that has another server under the name than the route, or another
        name, the route is made anew: a new credential must not go to an old address, and a wait is not lost by an edit.
        """
        patience, waited = turn.config.runtime.queue_timeout_seconds, 0.0
        began = self._tools.monotonic()
        for _ in range(REROUTES):
            want = _want(turn, tried)
            others = skipped(self._queue, want)
            try:
                lease = await self._queue.acquire(want, max(0.0, patience - waited))
            except GatewayError as error:
                moved = error.kind is ErrorKind.MODEL_UNAVAILABLE and not self._is_in_force(turn.route)
                if not moved:
                    raise cause or error from None
                await self._route_again(turn, cause or error)
            else:
                if _leads_to(turn.route, lease.account.server) or await self._fits(turn, lease, cause):
                    lease.waited += waited
                    return lease, others
            waited = self._tools.monotonic() - began
        raise cause or GatewayError(ErrorKind.MODEL_UNAVAILABLE, "The servers of this model have changed: try again.")

    def _is_in_force(self, route: Route) -> bool:
        """Whether config still has every server that the route leads to."""
        return all(self._catalog.watches(target.upstream) for target in route.targets)

    async def _fits(self, turn: Turn, lease: Lease, cause: GatewayError | None) -> bool:
        """Whether the route leads to the server that the leased account is of, once it is made anew; else the lease goes back."""
        fits = False
        try:
            await self._route_again(turn, cause)
            fits = _leads_to(turn.route, lease.account.server)
        finally:
            if not fits:
                self._queue.release(lease)
        return fits

    def _note_try(self, turn: Turn, lease: Lease, others: list[dict[str, Any]], began: float) -> dict[str, Any]:
        """An attempt begins: in the turn's record, whose part of it is returned, in the books and where servers are watched."""
        account = lease.account
        note: dict[str, Any] = {
            "account": account.label,
            "upstream": account.upstream,
            "skipped": others,
            "waited_ms": round(lease.waited * 1000, 1),
            "end": "",
            "at_ms": round((began - turn.began) * 1000, 1),
        }
        turn.tries.append(note)
        if turn.thread is not None:
            if turn.thread.prefer is not None:
                note["preferred"] = turn.thread.prefer
            self._affinity.sent(turn.thread, account.upstream)
        if turn.entry is not None:
            self._books.asked(turn.entry, account.upstream, account.label)
        request = turn.ask.request
        self._catalog.sent(account.upstream, turn, request.choices, request.stream)
        return note

    async def _route_again(self, turn: Turn, cause: GatewayError | None) -> None:
        """Take the route as the catalog sees it now; where none is left, a failure before says more than its lack."""
        if self._catalog.has_new:
            await self.meet(turn.ask)
        try:
            turn.route = with_able_servers(turn.ask.request, self.route(turn.ask), self._pinned(turn.ask))
        except GatewayError as error:
            raise cause or error from None

    def _may_retry(self, error: GatewayError, turn: Turn) -> bool:
        """Whether another attempt may be made: nothing but life signs sent, a cause that it can mend, and budget left. Whoever
        stopped the turn meant all of it, whatever the cause is called."""
        upload = turn.ask.request.upload
        if turn.first is not None or turn.stopped is not None or (upload is not None and upload.begun):
            return False
        if not (error.row.retry or turn.same_account):
            return False
        if turn.attempts >= (2 if error.kind is ErrorKind.EMPTY_ANSWER else turn.config.runtime.max_attempts):
            return False
        budget = max(1.0, len(self.turns) * turn.config.runtime.retry_budget_percent / 100)
        return turn.retrying or self.retrying < budget

    def _begin_retry(self, turn: Turn) -> None:
        """From here on the turn counts as one that is retried, also while it waits for an account."""
        self.retrying += not turn.retrying
        turn.retrying = True

    async def _attempt(self, turn: Turn, lease: Lease, sink: Sink | None, others: list[dict[str, Any]]) -> Result:
        """One account's try: ask, read, write. `others` were skipped. Raises GatewayError while nothing was sent."""
        account, began = lease.account, self._tools.monotonic()
        turn.account, turn.upstream = account.label, account.upstream
        turn.waited, turn.position = turn.waited + lease.waited, lease.position
        turn.same_account = turn.sent = False
        note = self._note_try(turn, lease, others, began)
        passing = self._observed.begin(account.label, lease.want.model)
        try:
            result = await self._asking.exchange(turn, lease, sink)
            self._note_answer(turn, lease)
            note["end"] = note["end"] or "answered"
            passing.ended(turn.usage.total if turn.usage else 0, turn.failure)
        except asyncio.CancelledError:
            lease.charge(self._books.so_far(turn) if turn.sent else 0)  # who leaves has used it all the same
            raise
        except GatewayError as error:
            turn.settled = False
            if turn.first is not None:
                lease.charge(self._books.so_far(turn))
            turn.same_account = turn.same_account or (error.details or {}).get("native_tools") is False
            if not turn.same_account:
                lease.report(error)
            self._note_server(turn, account.server, error)
            note["end"] = error.kind
            passing.ended(0, error)
            raise
        finally:
            self._observed.leave(passing)
            self._catalog.ended(account.upstream, turn)
            note["ms"] = round((self._tools.monotonic() - began) * 1000, 1)
        return result

    def _note_answer(self, turn: Turn, lease: Lease) -> None:
        """An attempt that was answered is over, well or badly: what that says of its account and its server."""
        failed = turn.failure
        lease.report(failed)
        self._note_server(turn, lease.account.server, failed)
        if turn.usage is not None:
            lease.charge(turn.usage.total)
            if turn.thread is not None:
                self._affinity.answered(turn.thread, turn.usage.prompt, turn.usage.cached)

    def _note_server(self, turn: Turn, server: UpstreamSpec, failed: GatewayError | None) -> None:
        """What an attempt's end says of its server; nothing where the config has another one of that name by now."""
        if not self._catalog.watches(server):
            return
        if failed is None:
            self._catalog.note_success(turn.upstream, turn.model_there)
        else:
            self._catalog.note_failure(turn.upstream, failed, turn.model_there)


async def by_and_by(steps: Generator[None, None, T]) -> T:
    """What the steps come to; after each of them the others have their turn."""
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            result: T = stop.value
            return result
        await asyncio.sleep(0)


def _leads_to(route: Route, server: UpstreamSpec) -> bool:
    """Whether this very server, as config has it now, is one of the route's."""
    return any(target.upstream is server or target.upstream == server for target in route.targets)


def _want(turn: Turn, tried: set[str]) -> Want:
    ask = turn.ask
    return Want(
        upstreams=tuple(target.upstream.name for target in turn.route.targets),
        model=turn.route.public,
        pin=ask.pin,
        caller=ask.caller.id,
        weight=ask.caller.weight,
        avoid=frozenset(tried),
        direct=ask.caller.token is not None,
        prefer=turn.thread.prefer if turn.thread is not None else None,
    )


def _clearer(first: GatewayError | None, second: GatewayError) -> GatewayError:
    """Of two causes the one that tells the caller more: a refusal of the question before a fault of a server."""
    if first is None or second.row.status < first.row.status:
        return second
    if first.kind is second.kind and first.retry_after and second.retry_after:
        first.retry_after = min(first.retry_after, second.retry_after)  # one account that is free again is enough
    return first


def _status(error: GatewayError, config: Config) -> int:
    return config.runtime.timeout_status if error.kind is ErrorKind.UPSTREAM_TIMEOUT else error.status
