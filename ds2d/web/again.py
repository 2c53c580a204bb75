"""Whether a request may be one that its client sends again, and which one it then is.

Rule: same caller, same route, same body, same `Idempotency-Key`; nothing of the body is kept but a hash of it.
Surprise: SDKs say on a first attempt already that it is one (`x-stainless-retry-count: 0`), which is how it is known that a
retry may follow.
"""

from __future__ import annotations

import asyncio
from hashlib import sha256

from aiohttp import web

from ds2d.service import Again
from ds2d.web.body import Bytes, is_large

COUNT, TOKEN, PIN = "x-stainless-retry-count", "Idempotency-Key", "X-Ds2-Target-Account"


async def again_of(request: web.Request, body: Bytes, caller: str) -> Again | None:
    """How this request and its retries are known; None for a client that does not say so."""
    count, token = request.headers.get(COUNT), request.headers.get(TOKEN)
    if count is None and token is None:
        return None
    where = (caller, request.path, request.query.get("alt", ""), token or "", request.headers.get(PIN, ""))
    state = sha256("\0".join(where).encode("utf-8", "surrogateescape") + b"\0")  # processors have instructions for this one
    if is_large(body):
        await asyncio.get_running_loop().run_in_executor(None, state.update, body)
    else:
        state.update(body)
    return Again(state.digest(), token is not None or _is_retry(count))


def _is_retry(count: str | None) -> bool:
    return count is not None and count.isascii() and count.isdigit() and len(count) < 8 and int(count) > 0
