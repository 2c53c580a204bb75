"""Whether a text is the admin key, without letting anybody try it often.

Rule: one answer for everything that is wrong; scrypt runs off the loop, one at a time; what was tried is counted before it
is checked, so that many tries at once are no way round the limits (admin.md, `POST /admin/login`).
Surprise: a right key is remembered as a keyed hash. It spares scrypt, and the daemon's owner gets past the limit in all
that strangers ran into, but never past the limit of an address: that would be a way to guess for nothing.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import math
from collections import deque
from collections.abc import Callable

import msgspec

from ds2d.config.schema import Config
from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.secrets import verify_password
from ds2d.core.sizes import Size, Sizes

PER_ADDRESS, ADDRESS_SECONDS = 5, 60.0
IN_ALL, ALL_SECONDS = 10, 10.0
LONGEST_WAIT = 60.0
CALM_SECONDS = 600.0
"""Without a failure for so long, an address starts from the shortest wait again."""

MAX_ADDRESSES = 4096
STRONG_LENGTH, STRONG_VARIETY = 16, 6
"""Characters, and different ones, of a key that may guard a listener which others can reach."""

OFF = "The admin API is off: there is no admin key. Set DS2API_ADMIN_KEY or admin.password_hash (`ds2d init` makes one)."
WRONG = "The admin key or token is not valid."


class _Record(msgspec.Struct):
    """What an address did: times of failures, when it may try again, and how long it had to wait last."""

    failures: deque[float]
    until: float = 0.0
    wait: float = 0.0


class Throttle:
    """Counts failures by address and in all. `clock` is monotonic seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._records: dict[str, _Record] = {}
        self._all: deque[float] = deque()

    def admit(self, address: str, *, known: bool) -> None:
        """Count a try as a failure until `forgive` says otherwise. Raises RATE_LIMITED with the seconds to wait.

        `known` tries are held to the limit of their address only.
        """
        now = self._clock()
        record = self._record(address, now)
        if now < record.until:
            raise _too_often(record.until - now)
        while self._all and self._all[0] <= now - ALL_SECONDS:
            self._all.popleft()
        if len(self._all) >= IN_ALL and not known:
            raise _too_often(self._all[0] + ALL_SECONDS - now)
        self._all.append(now)
        record.failures.append(now)
        if len(record.failures) >= PER_ADDRESS or record.wait:  # whoever had to wait once has no new five
            record.wait = min(LONGEST_WAIT, record.wait * 2 or 1.0)
            record.until = now + record.wait

    def forgive(self, address: str) -> None:
        """The last try was right: nothing of this address is held against it."""
        self._records.pop(_network(address), None)
        if self._all:
            self._all.pop()

    def sizes(self) -> Sizes:
        """Addresses that tried; each has at most five tries on record."""
        return {"addresses": Size(len(self._records), MAX_ADDRESSES)}

    def _record(self, address: str, now: float) -> _Record:
        name = _network(address)
        record = self._records.pop(name, None)
        if record is None or (record.failures and record.failures[-1] <= now - CALM_SECONDS):
            record = _Record(deque(maxlen=PER_ADDRESS))
        while record.failures and record.failures[0] <= now - ADDRESS_SECONDS:
            record.failures.popleft()
        self._records[name] = record  # to the end: the one unheard of for longest goes first
        while len(self._records) > MAX_ADDRESSES:
            del self._records[next(iter(self._records))]
        return record


class AdminKey:
    """The admin key of the config in force. `secret` is random per process; `exposed` tells whether others than this host
    can reach the listener."""

    def __init__(
        self, config: Callable[[], Config], secret: bytes, clock: Callable[[], float], exposed: Callable[[], bool] = lambda: False
    ) -> None:
        self._config = config
        self._secret = secret
        self._exposed = exposed
        self._throttle = Throttle(clock)
        self._right: tuple[str, bytes] | None = None
        self._one_at_a_time = asyncio.Lock()

    @property
    def credential(self) -> str:
        """What a key is compared with: the hash in config, or the key in the environment; empty where there is none."""
        config = self._config()
        if config.admin.password_hash:
            return config.admin.password_hash
        return (config.admin_key.reveal() or "") if config.admin_key else ""

    def check_on(self) -> None:
        """Raises FORBIDDEN where there is no key, or one too weak for where the daemon listens."""
        if not self.credential:
            raise GatewayError(ErrorKind.FORBIDDEN, OFF)
        if self._config().admin_key is not None and self._exposed() and not is_strong(self.credential):
            raise _too_weak()

    async def check(self, given: str, address: str) -> None:
        """Return if `given` is the key. Raises FORBIDDEN, RATE_LIMITED or INVALID_KEY; an error says nothing else."""
        self.check_on()
        credential, known = self.credential, self._is_known(given)
        self._throttle.admit(address, known=known)
        if not known and not await self._verify(credential, given):
            raise GatewayError(ErrorKind.INVALID_KEY, WRONG)
        self._throttle.forgive(address)
        if self._exposed() and not is_strong(given):
            raise _too_weak()
        self._right = credential, self._blind(given)

    def sizes(self) -> Sizes:
        """See `Throttle.sizes`."""
        return self._throttle.sizes()

    async def _verify(self, credential: str, given: str) -> bool:
        if self._config().admin_key is not None:
            return hmac.compare_digest(self._blind(credential), self._blind(given))
        async with self._one_at_a_time:
            return await asyncio.get_running_loop().run_in_executor(None, verify_password, credential, given)

    def _is_known(self, given: str) -> bool:
        blind = self._blind(given)
        return self._right is not None and self._right[0] == self.credential and hmac.compare_digest(self._right[1], blind)

    def _blind(self, text: str) -> bytes:
        return hmac.digest(self._secret, text.encode("utf-8", "surrogatepass"), "sha256")


def is_strong(key: str) -> bool:
    """Whether a key may guard a listener that others can reach."""
    return len(key) >= STRONG_LENGTH and len(set(key)) >= STRONG_VARIETY


def _too_often(seconds: float) -> GatewayError:
    message = f"Too many failed attempts: try again in {math.ceil(seconds)} s."
    return GatewayError(ErrorKind.RATE_LIMITED, message, retry_after=seconds)


def _too_weak() -> GatewayError:
    what = f"an admin key of at least {STRONG_LENGTH} varied characters"
    return GatewayError(ErrorKind.FORBIDDEN, f"The admin API is off: a listener that others can reach needs {what}.")


def _network(address: str) -> str:
    """The address, of IPv6 the network that one household has."""
    try:
        value = ipaddress.ip_address(address)
    except ValueError:
        return address[:64]
    if isinstance(value, ipaddress.IPv6Address):
        if value.ipv4_mapped:
            return str(value.ipv4_mapped)
        return str(ipaddress.ip_network((value, 64), strict=False))
    return str(value)
