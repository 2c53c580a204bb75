"""What a key may use, and what it has used: token quotas, requests and tokens a minute, requests at once.

Rule: reserve at admission, settle at the end, exactly once. A request is admitted while less than the quota is used and
reserved, so of those that run at the same time one answer at most goes over it.
Surprise: quota windows follow the UTC calendar, rate windows slide on the monotonic clock: a step of the wall clock frees no
rate limit. Keys without limits cost one look-up a request, and so does one of ten thousand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from ds2d.core.caller import DIRECT, Caller
from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.settings import KeySpec
from ds2d.core.sizes import Size, Sizes
from ds2d.state.ledger_file import Sums
from ds2d.state.windows import Entry, Headroom, Window

MAX_STRANGERS = 4096
"""Callers with a token of their own whose use is remembered; nothing is limited by it."""

Tokens = tuple[int, int]
"""Prompt and completion tokens."""


class Quota(NamedTuple):
    """One quota of a key: `kind` is tokens, prompt_tokens or completion_tokens."""

    kind: str
    limit: int
    used: int
    reserved: int


class Meter:
    """One key: what it has used in each calendar window, what is reserved, what happened lately."""

    __slots__ = (
        "day", "days", "first_used", "inflight", "last_used", "month", "months", "requests", "reserved", "tokens", "total"
    )  # fmt: skip

    def __init__(self) -> None:
        self.total = [0, 0]
        self.month = [0, 0]
        self.day = [0, 0]
        self.months = self.days = ""  # which ones those are
        self.reserved = [0, 0]
        self.first_used: datetime | None = None
        self.last_used: datetime | None = None
        self.inflight = 0
        self.requests = Window()
        self.tokens = Window()

    def turn_to(self, now: datetime) -> None:
        """Begin new calendar windows where old ones are over; a clock that was set back revives none.

        One that was ahead by days, and is right again, must not keep them from renewing until it gets there: what was counted
        then is of the window that is now.
        """
        day = now.date().isoformat()
        if day == self.days:
            return
        month = day[:7]
        if self.days > (now + timedelta(days=1)).date().isoformat():
            self.days, self.months = day, month
        if day > self.days:
            self.days, self.day = day, [0, 0]
        if month > self.months:
            self.months, self.month = month, [0, 0]

    def used(self, window: str) -> list[int]:
        """Tokens used in the quota window of that name."""
        return self.day if window == "day" else self.month if window == "month" else self.total

    def quotas(self, spec: KeySpec) -> list[Quota]:
        """The quotas of this key as they stand."""
        prompt, completion = self.used(spec.quota_window)
        reserved_prompt, reserved_completion = self.reserved
        all_ = (
            ("tokens", spec.max_tokens, prompt + completion, reserved_prompt + reserved_completion),
            ("prompt_tokens", spec.max_prompt_tokens, prompt, reserved_prompt),
            ("completion_tokens", spec.max_completion_tokens, completion, reserved_completion),
        )
        return [Quota(kind, limit, used, reserved) for kind, limit, used, reserved in all_ if limit is not None]


class Permit:
    """An admitted request. `settle` it once, whatever became of it."""

    __slots__ = ("_meter", "_owner", "_rate", "_runs", "number", "reserved")

    def __init__(self, owner: Quotas, meter: Meter, reserved: Tokens, rate: Entry | None) -> None:
        self._owner: Quotas | None = owner
        self._meter = meter
        self._rate = rate
        self._runs = True
        self.reserved = reserved
        self.number = 0
        """What tells it from others of this process (0: another process counts it)."""

    @property
    def rate(self) -> Entry | None:
        """Its place in the tokens of the last minute, where the key has a limit on them."""
        return self._rate

    def ended(self) -> None:
        """It runs no more, so that another may; what it used is being counted still."""
        if self._runs:
            self._runs = False
            self._meter.inflight -= 1

    def settle(self, prompt: int, completion: int) -> None:
        """Count what was used in place of what was reserved. The second time does nothing."""
        self.ended()
        if self._owner is not None:
            owner, self._owner = self._owner, None
            owner.settled(self._meter, self.reserved, (prompt, completion), self._rate)
            owner.over(self, prompt, completion)


class Quotas:
    """All keys that were ever used. `clock` is monotonic seconds, `now` aware UTC time."""

    def __init__(self, clock: Callable[[], float], now: Callable[[], datetime]) -> None:
        self._clock = clock
        self._now = now
        self._meters: dict[str, Meter] = {}
        self._strangers: dict[str, None] = {}  # those of the meters whose callers no config names, oldest first

    def load(self, sums: Iterable[Sums]) -> None:
        """Add what was used before this process began; called once."""
        now = self._now()
        for one in sums:
            meter = self._meter(one.key, now)
            for mine, before in ((meter.total, one.total), (meter.month, one.month), (meter.day, one.day)):
                mine[0] += before[0]
                mine[1] += before[1]
            if one.first_used_at is not None:
                meter.first_used = datetime.fromtimestamp(one.first_used_at, UTC)
            if one.last_used_at is not None:
                meter.last_used = max(filter(None, (meter.last_used, datetime.fromtimestamp(one.last_used_at, UTC))))

    def first_used(self, caller: str) -> datetime | None:
        """When a key was used for the first time, None if never."""
        meter = self._meters.get(caller)
        return meter.first_used if meter else None

    def meter(self, caller: str) -> Meter:
        """A key as it stands now; for reports."""
        return self._meter(caller, self._now())

    def admit(self, caller: Caller, prompt: int, completion: int) -> Permit:
        """Reserve these tokens and count one request.

        Raises QUOTA_EXHAUSTED, with `retry_after` if the quota renews, and RATE_LIMITED, with `retry_after`.
        """
        now, clock = self._now(), self._clock()
        meter = self._meter(caller.id, now)
        if caller.spec is not None:
            _check_quota(meter, caller.spec, now)
            _check_rate(meter, caller.spec, clock)
        return self._count(meter, caller.spec, (prompt, completion), now, clock)

    async def enter(self, caller: Caller, prompt: int, completion: int) -> Permit:
        """`admit` for a turn of this process."""
        return self.admit(caller, prompt, completion)

    def take(self, caller: Caller, prompt: int, completion: int) -> Permit:
        """`admit` without asking whether the limits allow it."""
        now = self._now()
        return self._count(self._meter(caller.id, now), caller.spec, (prompt, completion), now, self._clock())

    def _count(self, meter: Meter, spec: KeySpec | None, tokens: Tokens, now: datetime, clock: float) -> Permit:
        prompt, completion = tokens
        rate: Entry | None = None
        if spec is not None and spec.rpm is not None:
            meter.requests.add(clock, 1)
        if spec is not None and spec.tpm is not None:
            rate = meter.tokens.add(clock, prompt + completion)
        meter.reserved[0] += prompt
        meter.reserved[1] += completion
        meter.inflight += 1
        meter.last_used = now
        meter.first_used = meter.first_used or now
        return Permit(self, meter, tokens, rate)

    def settled(self, meter: Meter, reserved: Tokens, used: Tokens, rate: Entry | None) -> None:
        """See `Permit.settle`."""
        meter.turn_to(self._now())
        for index in (0, 1):
            meter.reserved[index] -= reserved[index]
            for window in (meter.total, meter.month, meter.day):
                window[index] += used[index]
        if rate is not None:
            meter.tokens.correct(rate, sum(used), self._clock())

    def over(self, permit: Permit, prompt: int, completion: int) -> None:
        """A permit was settled with what was used."""

    def headroom(self, caller: Caller) -> dict[str, Headroom]:
        """The rate limits of a key that has any: `requests` and `tokens`."""
        spec = caller.spec
        if spec is None or (spec.rpm is None and spec.tpm is None):
            return {}
        meter, clock = self._meter(caller.id, self._now()), self._clock()
        found = {}
        if spec.rpm is not None:
            found["requests"] = meter.requests.headroom(spec.rpm, clock)
        if spec.tpm is not None:
            found["tokens"] = meter.tokens.headroom(spec.tpm, clock)
        return found

    def sizes(self) -> Sizes:
        """Meters of callers that config does not name; each other belongs to a key that is or was in config."""
        return {"strangers": Size(len(self._strangers), MAX_STRANGERS)}

    def _forget_strangers(self) -> None:
        """Those who came first go first, whatever still runs: its permit knows its meter."""
        while len(self._strangers) > MAX_STRANGERS:
            oldest = next(iter(self._strangers))
            del self._strangers[oldest], self._meters[oldest]

    def _meter(self, caller: str, now: datetime) -> Meter:
        meter = self._meters.get(caller)
        if meter is None:
            meter = self._meters[caller] = Meter()
            if caller.startswith(DIRECT):
                self._strangers[caller] = None
                self._forget_strangers()
        meter.turn_to(now)
        return meter


def counts_tokens(spec: KeySpec | None) -> bool:
    """Whether this key has a limit for which the prompt must be counted before it is sent."""
    limits = (spec.max_tokens, spec.max_prompt_tokens, spec.max_completion_tokens, spec.tpm) if spec else ()
    return any(limit is not None for limit in limits)


def renews_at(window: str, now: datetime) -> datetime | None:
    """When a quota window ends: midnight or the first of the next month, UTC; None for `total`."""
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    if window == "day":
        return midnight + timedelta(days=1)
    if window == "month":
        return (midnight.replace(day=1) + timedelta(days=32)).replace(day=1)
    return None


def _check_quota(meter: Meter, spec: KeySpec, now: datetime) -> None:
    for quota in meter.quotas(spec):
        if quota.used + quota.reserved >= quota.limit:
            renews = renews_at(spec.quota_window, now)
            left = (renews - now).total_seconds() if renews else None
            window = {"day": " of this day", "month": " of this month", "total": ""}[spec.quota_window]
            held = f"; running requests hold {quota.reserved}" if quota.used < quota.limit else ""
            again = f" It renews at {renews.isoformat().replace('+00:00', 'Z')}." if renews else ""
            name = "max_" + quota.kind
            message = f"The quota{window} of this API key is used up ({name}: {quota.limit} tokens{held}).{again}"
            raise GatewayError(ErrorKind.QUOTA_EXHAUSTED, message, retry_after=left)


def _check_rate(meter: Meter, spec: KeySpec, clock: float) -> None:
    if spec.max_inflight is not None and meter.inflight >= spec.max_inflight:
        message = f"This API key may have {spec.max_inflight} requests at once (max_inflight)."
        raise GatewayError(ErrorKind.RATE_LIMITED, message, retry_after=1)
    for name, limit, window in (("rpm", spec.rpm, meter.requests), ("tpm", spec.tpm, meter.tokens)):
        if limit is None:
            continue
        window.forget(clock)
        if window.sum >= limit:
            wait = max(1.0, window.wait(limit, clock))
            what = "requests" if name == "rpm" else "tokens"
            message = f"This API key may use {limit} {what} a minute ({name}). Try again in {wait:.0f} s."
            raise GatewayError(ErrorKind.RATE_LIMITED, message, retry_after=wait)
