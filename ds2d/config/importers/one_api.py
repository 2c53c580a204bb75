"""one-api and new-api: their SQLite file (one-api.db), or channels and tokens as JSON.

Rule: a channel becomes an upstream with an account a key, its models names; a token becomes an API key, with the `sk-` that
clients put before it. As JSON: `{"channels": [...], "tokens": [...]}`, either list alone, or an answer of their API as it came.
Surprise: their quotas count money (500,000 a dollar), not tokens, so none is carried over; their lists leave the channels' keys
out, the database has them. Channel types have other numbers in the two systems, so the address decides where there is one.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from ds2d.config.importers.taken import DEEPSEEK, Gathering, ImportProblem, Taken, is_url, read

SQLITE = b"SQLite format 3\0"
OPENAI = 1
OTHERS = {
    3: "Azure",
    11: "PaLM",
    14: "Anthropic",
    15: "Baidu",
    16: "Zhipu",
    17: "Ali",
    18: "Xunfei",
    23: "Tencent",
    24: "Gemini",
    33: "AWS",
}
"""Channel types, the same in both systems, that speak a protocol of their own."""

ENABLED = 1
NEVER = -1


class Channel(msgspec.Struct):
    """A channel as far as it matters here."""

    id: int = 0
    name: str | None = None
    type: int = 0
    key: str | None = None
    status: int = ENABLED
    base_url: str | None = None
    models: str | None = None
    model_mapping: str | dict[str, str] | None = None
    weight: int | None = None
    priority: int | None = None

    @property
    def title(self) -> str:
        """What people call it."""
        return self.name or f"channel-{self.id}"


class Token(msgspec.Struct):
    """A token, likewise; `models` is one-api's limit, `model_limits` new-api's."""

    id: int = 0
    name: str | None = None
    key: str = ""
    status: int = ENABLED
    expired_time: Annotated[int, Meta(ge=NEVER, le=253402300799)] | None = NEVER
    unlimited_quota: bool = False
    models: str | None = None
    model_limits_enabled: bool = False
    model_limits: str | None = None
    subnet: str | None = None
    allow_ips: str | None = None
    deleted_at: Any = None


def take(raw: bytes) -> Taken:
    """The config that means the same. Raises ImportProblem."""
    channels, tokens = _database(raw) if raw.startswith(SQLITE) else _exported(raw)
    found = Gathering()
    for at, row in enumerate(channels):
        _channel(found, read(_without_nulls(row), Channel, f"channels[{at}]"))
    own = [read(_without_nulls(row), Token, f"tokens[{at}]") for at, row in enumerate(tokens)]
    for token in own:
        _token(found, token)
    if any(not token.unlimited_quota for token in own):
        found.left.append("tokens: remaining quotas count money there and tokens here: set max_tokens of the keys that need one")
    found.left.append("users, groups, redemption codes, prices and logs have no counterpart")
    return Taken(found.document(), found.left)


def _channel(found: Gathering, channel: Channel) -> None:
    where = f"channel {channel.title!r}"
    base_url = _address(channel)
    if base_url is None:
        kind = OTHERS.get(channel.type, channel.type)
        found.left.append(f"{where}: type {kind} is not spoken here, or it has no address")
        return
    if channel.status != ENABLED:
        found.left.append(f"{where}: is disabled there and was left out")
        return
    upstream = found.upstream(base_url, channel.title)
    keys = [line.strip() for line in (channel.key or "").splitlines() if line.strip()]
    weight = {"weight": min(channel.weight, 100)} if channel.weight and channel.weight > 0 else {}
    for key in keys:
        found.account(upstream, key, channel.title, **weight)
    if not keys:
        found.left.append(f"{where}: has no key in this file (lists leave it out, the database has it)")
    mapping = _mapping(channel.model_mapping, found, where)
    for model in _words(channel.models):
        found.model(model, upstream, mapping.get(model, model), where)
    if channel.priority:
        found.left.append(f"{where}: priority {channel.priority}: servers of one model are equal here, by load")


def _token(found: Gathering, token: Token) -> None:
    name = token.name or f"token-{token.id}"
    if not token.key or "*" in token.key:
        found.left.append(f"token {name!r}: its key is not in this file (lists mask it, the database has it)")
        return
    if token.deleted_at:
        return
    entry: dict[str, Any] = {"key": token.key if token.key.startswith("sk-") else f"sk-{token.key}", "name": _unused(found, name)}
    if token.status != ENABLED:
        entry["disabled"] = True
    if token.expired_time is not None and token.expired_time > 0:
        entry["expires_at"] = datetime.fromtimestamp(token.expired_time, UTC).isoformat().replace("+00:00", "Z")
    if limits := _words(token.model_limits if token.model_limits_enabled else token.models):
        entry["models"] = limits
    for field, value in (("subnet", token.subnet), ("allow_ips", token.allow_ips)):
        if value:
            found.left.append(f"token {name!r}: {field}: keys are not bound to addresses here")
    found.keys.append(entry)


def _without_nulls(row: dict[str, Any]) -> dict[str, Any]:
    """A column without a value says nothing."""
    return {name: value for name, value in row.items() if value is not None}


def _words(text: str | None) -> list[str]:
    return [word.strip() for word in (text or "").split(",") if word.strip()]


def _unused(found: Gathering, name: str) -> str:
    taken = {key["name"] for key in found.keys}
    return name if name not in taken else next(free for at in range(2, len(taken) + 3) if (free := f"{name}-{at}") not in taken)


def _address(channel: Channel) -> str | None:
    if channel.type in OTHERS:
        return None
    if is_url(channel.base_url):
        return channel.base_url
    if channel.type == OPENAI:
        return "https://api.openai.com"
    return DEEPSEEK if (channel.models or "").startswith("deepseek-") else None


def _mapping(value: str | dict[str, str] | None, found: Gathering, where: str) -> dict[str, str]:
    try:
        return msgspec.json.decode(value, type=dict[str, str]) if isinstance(value, str) and value else dict(value or {})
    except msgspec.MsgspecError:
        found.left.append(f"{where}: its model_mapping cannot be read")
        return {}


def _exported(raw: bytes) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    try:
        document = json.loads(raw)
    except ValueError as error:
        raise ImportProblem(f"is neither a SQLite file nor JSON: {error}") from None
    if isinstance(document, dict) and ("channels" in document or "tokens" in document):
        return list(_rows(document.get("channels"))), list(_rows(document.get("tokens")))
    rows = list(_rows(document))
    if not rows:
        raise ImportProblem("there are neither channels nor tokens in it")
    channels = [row for row in rows if "type" in row]
    return channels, [row for row in rows if "type" not in row]


def _rows(value: Any) -> Iterator[dict[str, Any]]:
    """The entries of a list, also inside of an API's answer (`data`, `items`)."""
    while isinstance(value, dict):
        value = value.get("data", value.get("items"))
    for row in value if isinstance(value, list) else ():
        if isinstance(row, dict):
            yield row


def _database(raw: bytes) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    with closing(sqlite3.connect(":memory:")) as database:
        database.row_factory = sqlite3.Row
        try:
            database.deserialize(raw[:18] + b"\1\1" + raw[20:])  # a journal mode (WAL) that memory has not
            return _table(database, "channels"), _table(database, "tokens")
        except sqlite3.Error as error:
            raise ImportProblem(f"the database cannot be read: {error}") from None


def _table(database: sqlite3.Connection, name: str) -> list[dict[str, Any]]:
    return [dict(row) for row in database.execute(f"SELECT * FROM {name} ORDER BY id")]  # noqa: S608 - a name of ours
