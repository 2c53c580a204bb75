"""The config through the admin API: listings, settings, keys, imports and exports, generations.

Rule: every write is one edit of the document, made by `Desk.write`; every listing is masked; only the two exports are not,
and they are noted in the audit.
"""

from __future__ import annotations

import base64
import secrets
from typing import Any

import msgspec
from aiohttp import web

from ds2d.config.describe import json_schema
from ds2d.config.diff import changes, masked
from ds2d.config.notices import ConfigErrors
from ds2d.config.show import shown
from ds2d.config.strict_json import dump, edited, load
from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.secrets import hash_key
from ds2d.web.admin import account_edits, imports, keys, settings
from ds2d.web.admin.desk import Desk, flag
from ds2d.web.admin.keys import bad

Body = dict[str, Any]


class ConfigRoutes:
    """Handlers."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def show(self, request: web.Request) -> web.StreamResponse:
        """The config without its secrets."""
        config = self._desk.config
        listed = keys.listed(config, deleted=flag(request, "deleted"))
        answer = {
            "keys": [text for text, _ in listed],
            "key_entries": [keys.describe(spec, text) for text, spec in listed],
            "accounts": [account_edits.describe(spec) for spec in config.accounts],
            "claude_mapping": {"fast": config.claude_mapping.fast, "slow": config.claude_mapping.slow},
            "upstreams": shown(config.upstreams, defaults=False),
            "models": shown(config.models, defaults=False),
            "warnings": [str(warning) for warning in config.warnings],
            "problem": [str(error) for error in self._desk.store.problem.errors] if self._desk.store.problem else [],
            **self._desk.saved(),
        }
        return self._desk.reply(answer, headers=self._desk.etag())

    async def update(self, request: web.Request) -> web.StreamResponse:
        """Set keys, accounts and claude_mapping; what is not posted stays."""
        body = await self._desk.body(request)
        mapping = body.get("claude_mapping")
        if mapping is not None and not isinstance(mapping, dict):
            raise bad("claude_mapping: must be an object")

        def edit(document: Body) -> None:
            if body.get("keys") is not None:
                keys.replace_all(document, self._desk.config, body["keys"], self._desk.now())
            if body.get("accounts") is not None:
                account_edits.replace_all(document, self._desk.config, body["accounts"])
            if mapping is not None:
                settings.change(document, self._desk.config, {"claude_mapping": mapping})

        self._desk.write(request, "config", edit)
        return self._written(message="Config updated")

    async def settings(self, request: web.Request) -> web.StreamResponse:
        """The settings in force."""
        return self._desk.reply({**settings.read(self._desk.config), **self._desk.saved()}, headers=self._desk.etag())

    async def set(self, request: web.Request) -> web.StreamResponse:
        """Change settings."""
        body = await self._desk.body(request)
        self._desk.write(request, "settings", lambda document: settings.change(document, self._desk.config, body))
        return self._written(message="Settings updated", settings=settings.read(self._desk.config))

    async def take_in(self, request: web.Request) -> web.StreamResponse:
        """Import a whole config; `dry_run` only tells what would change."""
        newcomer, mode = imports.unwrapped(await self._desk.body(request), request.query.get("mode"))

        def edit(document: Body) -> None:
            if mode == "replace":
                imports.replace(document, newcomer)
            else:
                imports.merge(document, newcomer, self._desk.config)

        if flag(request, "dry_run"):
            return self._desk.reply({"success": True, "dry_run": True, "mode": mode, "changes": self._tried(edit)})
        before = self._counts()
        if mode == "replace":  # also what cannot be read: this is how the console saves
            self._desk.restore(request, "import replace", lambda: self._desk.store.made(edit))
        else:
            self._desk.write(request, "import merge", edit)
        added = [after - (0 if mode == "replace" else old) for old, after in zip(before, self._counts(), strict=True)]
        return self._written(mode=mode, imported_keys=added[0], imported_accounts=added[1], message="Config imported")

    async def export(self, request: web.Request) -> web.StreamResponse:
        """The whole config, secrets included, in three forms."""
        return self._desk.reply({"success": True, "config": self._desk.store.document, **self._exported(request)})

    async def export_short(self, request: web.Request) -> web.StreamResponse:
        """The same in two forms."""
        return self._desk.reply(self._exported(request))

    async def batch(self, request: web.Request) -> web.StreamResponse:
        """Add keys and accounts; those that are known already are passed over."""
        body = await self._desk.body(request)
        posted = {name: body.get(name) or [] for name in ("keys", "accounts")}
        for name, value in posted.items():
            if not isinstance(value, list):
                raise bad(f"{name}: must be a list")
        done = {"keys": 0, "accounts": 0}

        def edit(document: Body) -> None:
            config, now = self._desk.config, self._desk.now()
            done["keys"] = sum(_added(keys.add, document, config, *keys.split(item, "keys"), now) for item in posted["keys"])
            done["accounts"] = sum(_added(account_edits.add, document, config, item) for item in posted["accounts"])

        self._desk.write(request, "import", edit)
        return self._written(imported_keys=done["keys"], imported_accounts=done["accounts"])

    async def generations(self, request: web.Request) -> web.StreamResponse:
        """The configs that were in force, newest first."""
        config = self._desk.config
        found = [
            {
                "generation": kept.number,
                "digest": kept.digest,
                "since": int(kept.since),
                "current": kept.number == config.generation,
            }
            for kept in self._desk.store.generations()
        ]
        return self._desk.reply({"generations": found, "current": config.generation}, headers=self._desk.etag())

    async def generation(self, request: web.Request) -> web.StreamResponse:
        """One of them, secrets masked: what it held, and what would change if it came back."""
        text = request.match_info["number"]
        number = int(text) if text.isascii() and text.isdigit() and len(text) < 16 else None
        old = load(self._kept(number))
        found = [msgspec.to_builtins(change) for change in changes(self._desk.store.document, old)]
        return self._desk.reply({"generation": number, "config": masked(old), "changes": found})

    async def check(self, request: web.Request) -> web.StreamResponse:
        """Whether a text could be the config: every error with its place, or what it would change."""
        text = (await self._desk.body(request)).get("text")
        if not isinstance(text, str):
            raise bad("text: must be a string")
        try:
            document = load(text.encode())
            self._desk.store.check(document)
        except ConfigErrors as error:
            errors = [msgspec.to_builtins(notice) for notice in error.errors]
            return self._desk.reply({"valid": False, "errors": errors, "changes": []})
        found = [msgspec.to_builtins(change) for change in changes(self._desk.store.document, document)]
        return self._desk.reply({"valid": True, "errors": [], "changes": found})

    async def schema(self, request: web.Request) -> web.StreamResponse:
        """The JSON Schema of the config."""
        return self._desk.reply(json_schema())

    async def rollback(self, request: web.Request) -> web.StreamResponse:
        """Put a kept config in force again, as a new generation."""
        number = (await self._desk.body(request)).get("generation")
        self._desk.restore(request, f"rollback to {number}", lambda: self._kept(number))
        return self._written(restored=number)

    async def add_key(self, request: web.Request) -> web.StreamResponse:
        """Add a key; without one in the body a key is made, and shown in this answer only."""
        body = await self._desk.body(request)
        given = body.get("key")
        if given is not None and (not isinstance(given, str) or not given):
            raise bad("key: must be a string that is not empty")
        key = given or f"sk-{secrets.token_hex(24)}"
        fields = _fields(body)
        self._desk.write(
            request, "key added", lambda document: keys.add(document, self._desk.config, key, fields, self._desk.now())
        )
        shown_once = {} if given else {"key": key}
        return self._written(id=keys.key_id(hash_key(key).removeprefix("sha256:")), **shown_once)

    async def edit_key(self, request: web.Request) -> web.StreamResponse:
        """Set fields of a key; one that was deleted is back."""
        body = await self._desk.body(request)
        wanted, fields = request.match_info["key"], _fields(body)

        def edit(document: Body) -> None:
            entries, at = keys.find(document, self._desk.config, wanted)
            keys.check_kept(entries[at], self._desk.config, body)
            keys.change(entries, at, fields)

        self._desk.write(request, "key edited", edit)
        return self._written()

    async def delete_key(self, request: web.Request) -> web.StreamResponse:
        """Refuse a key from now on; its usage stays."""
        wanted, now = request.match_info["key"], self._desk.now()
        self._desk.write(
            request, "key deleted", lambda document: keys.delete(*keys.find(document, self._desk.config, wanted), now)
        )
        return self._written()

    def _kept(self, number: Any) -> bytes:
        """A kept generation. Raises 404."""
        kept = next((kept for kept in self._desk.store.generations() if kept.number == number), None)
        if kept is None:
            raise GatewayError(ErrorKind.ROUTE_NOT_FOUND, "generation: is not one of those that are kept.")
        try:
            raw = kept.path.read_bytes()
            load(raw)
        except (OSError, ConfigErrors):
            raise GatewayError(ErrorKind.ROUTE_NOT_FOUND, "generation: can no longer be read.") from None
        return raw

    def _written(self, **more: Any) -> web.Response:
        """The answer to a write."""
        total = len(keys.listed(self._desk.config))
        answer = {"success": True, "total_keys": total, "total_accounts": len(self._desk.config.accounts), **more}
        return self._desk.reply({**answer, **self._desk.saved()}, headers=self._desk.etag())

    def _counts(self) -> tuple[int, int]:
        return len(keys.listed(self._desk.config)), len(self._desk.config.accounts)

    def _tried(self, edit: Any) -> list[Any]:
        """What an edit would change, once it is known to be valid. Raises 400."""
        before = self._desk.store.document
        after = edited(self._desk.store.document, edit)
        try:
            self._desk.store.check(after)
        except ConfigErrors as errors:
            raise bad("; ".join(map(str, errors.errors[:20]))) from None
        return [msgspec.to_builtins(change) for change in changes(before, after)]

    def _exported(self, request: web.Request) -> Body:
        raw = dump(self._desk.store.document)
        self._desk.note(request, "export", generation=self._desk.config.generation)
        return {"json": raw.decode(), "base64": base64.b64encode(raw).decode()}


def _fields(body: Body) -> Body:
    """The fields of a key's entry in a body. Raises 400 for an unknown one."""
    for name in body:
        if name not in keys.FIELDS and name not in ("key", "id", "created_at", "deleted_at", "problem"):
            raise bad(f"{name[:80]}: unknown field")
    return {name: value for name, value in body.items() if name in keys.FIELDS}


def _added(add: Any, *arguments: Any) -> bool:
    """Whether something was added; False where it is there already."""
    try:
        add(*arguments)
    except GatewayError as error:
        if error.status != 409:
            raise
        return False
    return True
