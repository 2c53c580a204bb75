"""What every admin handler needs: who asks, the body, the one way to change the config, and the form of an answer.

Rule: a write is validated whole by the store, noted in the audit, and says whether it is on disk; without `If-Match` it is
applied to the file as it is at that moment, with it only to the generation that the editor saw (409 otherwise).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
import orjson
from aiohttp import web

from ds2d.config.diff import changes
from ds2d.config.files import ConflictError
from ds2d.config.notices import ConfigErrors
from ds2d.config.schema import Config
from ds2d.config.source import SourceError
from ds2d.config.store import ConfigStore
from ds2d.config.strict_json import load
from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.state.admin_file import AdminFile
from ds2d.state.audit import Audit
from ds2d.web.admin.session import Admin, Sessions
from ds2d.web.body import is_large, parse_object, read_body
from ds2d.web.keys import REQUEST_ID

ADMIN: web.RequestKey[Admin] = web.RequestKey("admin", Admin)
TRIES = 5
"""How often a change is applied anew to a file that an editor saved in the same moment."""

YES = frozenset({"", "1", "true", "yes", "on", "y"})
NO = frozenset({"0", "false", "no", "off", "n"})

Edit = Callable[[dict[str, Any]], None]


class Desk:
    """Shared by the areas of the admin API. `wall` is Unix seconds."""

    def __init__(self, store: ConfigStore, sessions: Sessions, file: AdminFile, audit: Audit, wall: Callable[[], float]) -> None:
        self.store = store
        self.sessions = sessions
        self.file = file
        self.audit = audit
        self.wall = wall

    @property
    def config(self) -> Config:
        """The config in force."""
        return self.store.current

    def now(self) -> str:
        """The time as config.json has it."""
        return datetime.fromtimestamp(self.wall(), UTC).isoformat(timespec="seconds").replace("+00:00", "Z")

    async def body(self, request: web.Request) -> dict[str, Any]:
        """The JSON object of a request; {} where there is no body. Raises 400, also for a key that stands there twice, as in
        config.json."""
        server = self.config.server
        raw = bytes(await read_body(request, server.body_limit_bytes, server.body_seconds))
        if not raw.strip():
            return {}
        found = await parse_object(raw)  # with numbers that can be written again; what follows only looks
        try:
            await asyncio.to_thread(load, raw) if is_large(raw) else load(raw)
        except ConfigErrors as errors:
            raise self._refused(errors) from None
        return found

    def write(self, request: web.Request, action: str, edit: Edit) -> Config:
        """Change the config through its one door. Raises 400 with the paths of what is wrong, 409, 503."""
        return self._put(request, action, lambda based_on: self.store.write(edit, based_on))

    def restore(self, request: web.Request, action: str, make: Callable[[], bytes]) -> Config:
        """Put a whole config in the place of the file, also of one that cannot be read. Raises as `write` does."""
        return self._put(request, action, lambda based_on: self.store.restore(make(), based_on))

    def _put(self, request: web.Request, action: str, put: Callable[[str | None], Config]) -> Config:
        self.store.catch_up()
        before = self.store.document
        based_on = self._based_on(request)
        try:
            self._tried(put, based_on)
        except ConflictError:
            raise conflict(self._why_other()) from None
        except ConfigErrors as errors:
            raise self._refused(errors) from None
        except (SourceError, OSError) as error:
            raise GatewayError(ErrorKind.INTERNAL, f"The config file cannot be used: {_reason(error)}.", status=503) from error
        found = changes(before, self.store.document)
        self.note(request, action, changes=[msgspec.to_builtins(change) for change in found], generation=self.config.generation)
        return self.config

    def note(self, request: web.Request, action: str, **what: Any) -> None:
        """A line in the audit."""
        admin = request[ADMIN]
        self.audit.add(action, admin.who, admin.address, request[REQUEST_ID], **what)

    def saved(self) -> dict[str, Any]:
        """What every answer to a write says about where it went."""
        config = self.config
        found: dict[str, Any] = {
            "generation": config.generation,
            "env_backed": config.env_backed,
            "persisted": not self.store.unsynced,
            "needs_vercel_sync": self.needs_sync,
        }
        if self.store.unsynced:
            found["notice"] = "The config comes from a variable: this change is in memory only and ends with the process."
        return found

    @property
    def needs_sync(self) -> bool:
        """Whether what is in force is not what was copied elsewhere, or cannot be kept here."""
        kept = self.file.kept
        return self.store.unsynced or bool(kept.synced_at and kept.synced_digest != self.config.digest)

    def etag(self) -> dict[str, str]:
        """The header that names the generation."""
        return {"ETag": f'"{self.config.generation}"'}

    def reply(self, value: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
        """A JSON answer."""
        return web.Response(
            body=orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS),
            status=status,
            headers=headers,
            content_type="application/json",
        )

    def _tried(self, put: Callable[[str | None], Config], based_on: str | None) -> None:
        for attempt in range(TRIES):
            try:
                put(based_on)
            except ConflictError:
                if based_on is not None or attempt == TRIES - 1:
                    raise
            else:
                return

    def _based_on(self, request: web.Request) -> str | None:
        """The digest that a write insists on; None without `If-Match`."""
        given = request.headers.get("If-Match")
        if given is None or given.strip() == "*":
            return None
        tags = {tag.strip().removeprefix("W/").strip('"') for tag in given.split(",")}
        if str(self.config.generation) not in tags:
            raise conflict("The config has changed since: read it again.")
        return self.config.digest

    def _why_other(self) -> str:
        """Why the file is not what the editor saw: to read it again does not help where what stands there is not in force."""
        if (problem := self.store.problem) is None:
            return "The config file has changed since: read it again."
        return f"The config file on disk is not in force: {'; '.join(map(str, problem.errors[:20]))}"

    def _refused(self, errors: ConfigErrors) -> GatewayError:
        message = "; ".join(map(str, errors.errors[:20]))
        if errors.incomplete:
            return conflict(f"The config file on disk cannot be read: {message}")
        return GatewayError(ErrorKind.INVALID_REQUEST, message)


def flag(request: web.Request, name: str) -> bool:
    """Whether a query asks for something: by being there, unless it says no. Raises 400 for what says neither, lest somebody
    who asked to try something does it."""
    given = [text.lower() for text in request.query.getall(name, ["no"])]
    if len(given) > 1 or given[0] not in YES | NO:
        raise GatewayError(ErrorKind.INVALID_REQUEST, f"{name}: must be true or false")
    return given[0] in YES


def conflict(message: str) -> GatewayError:
    """A 409 of the admin API."""
    return GatewayError(ErrorKind.INVALID_REQUEST, message, status=409)


def _reason(error: SourceError | OSError) -> str:
    return error.notice.message if isinstance(error, SourceError) else (error.strerror or "I/O error").lower()
