"""Whole exchanges kept for looking at faults: what a client sent, what the upstream answered, what the client got, and when.

Rule: bounded in entries and bytes, off by default, and redacted before anything is kept: known secrets are masked wherever
they stand, headers are not kept at all (reliability.md, captures).
Surprise: bodies are cut at the limit, but go on being counted, so that a reader knows how much is missing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import urlsplit

import msgspec
import orjson

from ds2d.core.calls import Call
from ds2d.core.redact import redact
from ds2d.core.sizes import Size, Sizes


class Capture(msgspec.Struct, frozen=True):
    """One exchange, redacted. Times of pieces are milliseconds from its beginning; `cuts` are the sizes of the upstream's
    reads, in characters of `response_body`."""

    id: str
    created_at: int
    label: str
    dialect: str
    path: str
    url: str
    account_id: str
    status_code: int
    request_body: str
    upstream_request: str
    response_body: str
    request_truncated: bool
    response_truncated: bool
    client_body: str
    timing: list[int]
    cuts: list[int]
    content_type: str = ""
    flavour: str = ""
    model: str = ""
    error: str | None = None
    request_id: str = ""

    def shown(self) -> dict[str, Any]:
        """As the admin API lists it."""
        return msgspec.structs.asdict(self)


class _Side:
    """The bytes of one direction, cut at a limit."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._pieces: list[bytes] = []
        self._size = 0
        self.sizes: list[int] = []
        self.truncated = False

    def add(self, data: bytes | memoryview) -> None:
        room = self._limit - self._size
        self._size += len(data)
        if room <= 0:
            self.truncated = self.truncated or bool(data)
            return
        self.truncated = self.truncated or len(data) > room
        self._pieces.append(bytes(data[:room]))
        self.sizes.append(min(len(data), room))

    @property
    def text(self) -> str:
        return b"".join(self._pieces).decode("utf-8", "replace")


class Recording:
    """An exchange while it runs. `clock` is monotonic seconds."""

    def __init__(
        self,
        capture_id: str,
        dialect: str,
        path: str,
        body: bytes,
        limit: int,
        created: int,
        clock: Callable[[], float],
        request_id: str = "",
    ) -> None:
        self._request_id = request_id
        self.id, self.dialect, self.path, self.created = capture_id, dialect, path, created
        self._clock, self._began = clock, clock()
        self._asked, self._upstream, self._client = _Side(limit), _Side(limit), _Side(limit)
        self._asked.add(body)
        self._limit = limit
        self._call = _Side(limit)
        self._url, self._account, self._status = "", "", 0
        self._timing: list[int] = []
        self._error: str | None = None
        self._flavour, self._model, self._content_type = "", "", ""
        self._own: set[str] = set()

    def knows(self, secrets: Iterable[str | None]) -> None:
        """Secrets of this exchange alone: a token that the caller brought, one that a login gave."""
        self._own.update(secret for secret in secrets if secret)

    def asked(self, call: object, account: str, flavour: str = "", model: str = "") -> None:
        """An attempt begins; what the one before it brought is forgotten. `flavour` and `model` are the server's."""
        self._flavour, self._model, self._status, self._content_type = flavour, model, 0, ""
        self._upstream, self._timing, self._call, self._account = _Side(self._limit), [], _Side(self._limit), account
        if isinstance(call, Call):
            self._call.add(call.body or b"")
            self._url = _without_query(call)

    def answered(self, status: int, content_type: str = "") -> None:
        """The upstream's status is known."""
        self._status, self._content_type = status, content_type

    def upstream(self, data: bytes) -> None:
        """A read from the upstream."""
        self._upstream.add(data)
        if len(self._timing) < len(self._upstream.sizes):
            self._timing.append(round((self._clock() - self._began) * 1000))

    def client(self, data: bytes) -> None:
        """A write to the client."""
        self._client.add(data)

    def failed(self, kind: str) -> None:
        """The turn ended in an error."""
        self._error = kind

    def close(self, secrets: Iterable[str]) -> Capture:
        """What is kept of it."""
        known = [*secrets, *self._own]
        return Capture(
            id=self.id,
            created_at=self.created,
            label=f"{self.dialect} {_bare(self.path)}"[:200],
            dialect=self.dialect,
            path=str(redact(self.path, known)),
            url=str(redact(self._url, known)),
            account_id=str(redact(self._account, known)),
            status_code=self._status,
            request_body=_redacted(self._asked.text, known),
            upstream_request=_redacted(self._call.text, known),
            response_body=str(redact(self._upstream.text, known)),
            request_truncated=self._asked.truncated or self._call.truncated,
            response_truncated=self._upstream.truncated,
            client_body=str(redact(self._client.text, known)),
            timing=self._timing,
            cuts=self._upstream.sizes,
            error=self._error,
            content_type=self._content_type,
            flavour=self._flavour,
            model=self._model,
            request_id=self._request_id,
        )


class Captures:
    """The ring. `limits` gives how many entries, and the bytes of each body; `secrets` what must not be kept."""

    def __init__(
        self,
        settings: Callable[[], tuple[bool, int, int]],
        secrets: Callable[[], Iterable[str]],
        new_id: Callable[[str], str],
        now: Callable[[], int],
        clock: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._secrets = secrets
        self._new_id = new_id
        self._now = now
        self._clock = clock
        self._kept: deque[Capture] = deque()

    def begin(self, dialect: str, path: str, body: Callable[[], bytes], request_id: str = "") -> Recording | None:
        """A recording of the exchange that begins; None where captures are off, which costs a look at the settings."""
        enabled, _, limit = self._settings()
        if not enabled:
            return None
        return Recording(self._new_id("cap_"), dialect, path, body(), limit, self._now(), self._clock, request_id)

    def keep(self, recording: Recording) -> None:
        """The exchange is over."""
        self._kept.append(recording.close(self._secrets()))
        self.trim()

    def trim(self) -> None:
        """Forget what is more than `capture.limit`, which may have become smaller."""
        _, entries, _ = self._settings()
        while len(self._kept) > entries:
            self._kept.popleft()

    def sizes(self) -> Sizes:
        """Exchanges that are kept, each with five bodies of `capture.max_body_bytes` at most."""
        return {"kept": Size(len(self._kept), self._settings()[1])}

    def newest(self) -> list[Capture]:
        """What is kept, newest first."""
        return list(reversed(self._kept))

    def clear(self) -> None:
        """Forget all."""
        self._kept.clear()


def _bare(path: str) -> str:
    return path.partition("?")[0]


def _redacted(text: str, known: list[str]) -> str:
    """A JSON body redacted by its fields as well; what is no JSON as text."""
    try:
        value = orjson.loads(text)
    except ValueError:
        return str(redact(text, known))
    return orjson.dumps(redact(value, known)).decode()


def _without_query(call: Call) -> str:
    base = call.upstream.base_url if call.upstream is not None else ""
    parts = urlsplit(call.path if call.path.startswith("http") else f"{base.rstrip('/')}/{call.path.lstrip('/')}")
    return f"{parts.scheme}://{parts.netloc}{parts.path}"
