"""What an upstream asks the outside world for: HTTP calls and slow computations, as values.

Rule: upstreams describe, net/ does. `prepare` is a generator that yields `Call` or `Compute`, receives the `Reply` or the
result, and returns the streaming `Call` (architecture.md, "Multi-step upstreams stay pure").
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Generator, Iterable, Mapping
from typing import Any

import msgspec

from ds2d.core.events import Usage
from ds2d.core.settings import UpstreamSpec


class Call(msgspec.Struct, frozen=True):
    """An HTTP request to an upstream. `headers` hold the credential. `stream`: events are expected, else one body.

    `path` is joined to the upstream's base URL unless it is absolute (logins). `body` is JSON bytes, or None for GET; `form`
    stands in its place where one is sent on, and can be read once.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes | memoryview | None = None
    stream: bool = False
    upstream: UpstreamSpec | None = None
    form: AsyncIterator[bytes] | None = None


class Script(msgspec.Struct, frozen=True):
    """An answer made here instead of over the network: pairs of seconds to wait before, and bytes. For embedded upstreams."""

    pieces: Iterable[tuple[float, bytes]]
    content_type: str = "text/event-stream"


class Compute(msgspec.Struct, frozen=True):
    """A function to run off the event loop; its result comes back."""

    function: Callable[[], Any]


class Reply(msgspec.Struct, frozen=True):
    """A whole HTTP answer. `headers` have lower-case names."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Passed(msgspec.Struct, frozen=True):
    """An answer that is passed on, as its client gets it. `usage` is None where the server told none."""

    body: bytes
    content_type: str = "application/json"
    headers: Mapping[str, str] = {}
    usage: Usage | None = None


Step = Call | Compute
Preparation = Generator[Step, Any, Call | Script]
