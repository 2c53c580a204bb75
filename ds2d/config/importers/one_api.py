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
from typing import Any

from ds2d.config.importers.taken import DEEPSEEK, Gathering, ImportProblem, Taken, is_url

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


def take(raw: bytes) -> Taken:
    """The config that means the same. Raises ImportProblem."""
    channels, tokens = _database(raw) if raw.startswith(SQLITE) else _exported(raw)
    found = Gathering()
    for channel in channels:
        _channel(found, channel)
    for token in tokens:
        _token(found, token)
    if any(not token.get("unlimited_quota") for token in tokens):
        found.left.append("tokens: remaining quotas count money there and tokens here: set max_tokens of the keys that need one")
    found.left.append("users, groups, redemption codes, prices and logs have no counterpart")
    return Taken(found.document(), found.left)


def _channel(found: Gathering, channel: dict[str, Any]) -> None:
    name = str(channel.get("name") or f"channel-{channel.get('id', '')}")
    where = f"channel {name!r}"
    base_url = _address(channel)
    if base_url is None:
        kind = OTHERS.get(channel.get("type", 0), channel.get("type"))
        found.left.append(f"{where}: type {kind} is not spoken here, or it has no address")
        return
    if channel.get("status", ENABLED) != ENABLED:
        found.left.append(f"{where}: is disabled there and was left out")
        return
    upstream = found.upstream(base_url, name)
    keys = [line.strip() for line in str(channel.get("key") or "").splitlines() if line.strip()]
    for key in keys:
        found.account(upstream, key, name, **_weight(channel))
    if not keys:
        found.left.append(f"{where}: has no key in this file (lists leave it out, the database has it)")
    mapping = _mapping(channel.get("model_mapping"), found, where)
    for model in (text.strip() for text in str(channel.get("models") or "").split(",")):
        if model:
            found.model(model, upstream, mapping.get(model, model), where)
    if channel.get("priority"):
        found.left.append(f"{where}: priority {channel['priority']}: servers of one model are equal here, by load")


def _token(found: Gathering, token: dict[str, Any]) -> None:
    text = str(token.get("key") or "")
    name = str(token.get("name") or f"token-{token.get('id', '')}")
    if not text or "*" in text:
        found.left.append(f"token {name!r}: its key is not in this file (lists mask it, the database has it)")
        return
    if token.get("deleted_at") or token.get("DeletedAt"):
        return
    entry: dict[str, Any] = {"key": text if text.startswith("sk-") else f"sk-{text}", "name": _unused(found, name)}
    if token.get("status", ENABLED) != ENABLED:
        entry["disabled"] = True
    if (expires := token.get("expired_time", NEVER)) not in (NEVER, 0, None):
        entry["expires_at"] = datetime.fromtimestamp(int(expires), UTC).isoformat().replace("+00:00", "Z")
    limits = token.get("model_limits") if token.get("model_limits_enabled") else token.get("models")
    if limits:
        entry["models"] = [text.strip() for text in str(limits).split(",") if text.strip()]
    for field in ("subnet", "allow_ips"):
        if token.get(field):
            found.left.append(f"token {name!r}: {field}: keys are not bound to addresses here")
    found.keys.append(entry)


def _weight(channel: dict[str, Any]) -> dict[str, Any]:
    weight = channel.get("weight")
    return {"weight": min(weight, 100)} if isinstance(weight, int) and weight > 0 else {}


def _unused(found: Gathering, name: str) -> str:
    taken = {key["name"] for key in found.keys}
    return name if name not in taken else next(free for at in range(2, len(taken) + 3) if (free := f"{name}-{at}") not in taken)


def _address(channel: dict[str, Any]) -> str | None:
    base = channel.get("base_url")
    if channel.get("type") in OTHERS:
        return None
    if is_url(base):
        return str(base)
    if channel.get("type") == OPENAI:
        return "https://api.openai.com"
    models = str(channel.get("models") or "").split(",")
    return DEEPSEEK if models[0].strip().startswith("deepseek-") else None


def _mapping(value: Any, found: Gathering, where: str) -> dict[str, str]:
    if not value:
        return {}
    try:
        mapping = json.loads(value) if isinstance(value, str) else value
        return {str(name): str(to) for name, to in mapping.items()}
    except (ValueError, AttributeError):
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
