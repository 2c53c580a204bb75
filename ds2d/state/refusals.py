"""What the account queue says to those it does not serve.

Rule: short English without the name of an account, and always how long to stay away (errors.md 2).
Surprise: the text for an open breaker is fixed (token-rotation.md); clients look for it.
"""

from __future__ import annotations

from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.state.breakers import Cause
from ds2d.state.leases import Want
from ds2d.state.slots import Outlook, Standing

RETRY_UNKNOWN = 30.0
"""Retry-After in seconds where nothing says when an account will be usable."""


def queue_full(waiting: int, wait: float) -> GatewayError:
    """`waiting` requests are as many as may; `wait` is the expected wait of one more, in seconds."""
    message = f"The queue is full ({waiting} waiting). Expected wait: about {wait:.0f} s."
    return GatewayError(ErrorKind.QUEUE_FULL, message, retry_after=wait)


def queue_timeout(waited: float, wait: float) -> GatewayError:
    """A request waited `waited` seconds in vain; `wait` is what a new one has to expect."""
    message = f"No account was free within {waited:g} s. Expected wait: about {wait:.0f} s."
    return GatewayError(ErrorKind.QUEUE_TIMEOUT, message, retry_after=wait)


def unavailable(want: Want, back: Outlook, now: float) -> GatewayError:
    """No account can serve; `back` is the one that returns first."""
    after = max(1.0, back.until - now) if back.until else RETRY_UNKNOWN
    return GatewayError(ErrorKind.MODEL_UNAVAILABLE, _why(want, back, after), retry_after=after)


def _why(want: Want, back: Outlook, after: float) -> str:
    breaker = back.breaker
    if breaker is None or breaker.cause is None:
        if want.pin is not None:
            return "The account that X-Ds2-Target-Account names cannot serve this model."
        return f"No account can serve the model '{want.model}' now."
    if breaker.cause is Cause.AUTH:
        return f"The upstream of the model '{want.model}' refuses its credentials."
    if breaker.cause is Cause.BALANCE:
        return f"The balance for the model '{want.model}' is used up."
    if back.standing is Standing.OPEN:
        return f"Circuit breaker open for model: {want.model}"
    window = f" ({breaker.window})" if breaker.window else ""
    return f"Upstream rate limit reached{window} for model: {want.model}. Retry after ~{after:.0f}s."
