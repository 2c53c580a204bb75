"""The tables of the ledger, and the row of a turn.

Rule: `daily` and `keys` hold the sums of closed rows, kept in the rows' own transactions (`ledger_sums`); `turns` is bounded by
retention, they stay.
Surprise: the two views carry the columns of the reference's old tables word for word (mission.md S0-13 to S0-31). What they
call a key's model is an allow list here, so `inference_model_id` is the number of a list in `allow_lists`.
Version 1 kept the sums by triggers, which cost a quarter of a turn; whoever writes to such a file leaves the counting to them.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import msgspec

VERSION = 2

OPEN, COMPLETED, INTERRUPTED, FAILED, REJECTED = "open", "completed", "interrupted", "failed", "rejected"


class Row(msgspec.Struct):
    """One turn. `key` is the caller's id (a hash). Times are Unix seconds; `*_ms` are milliseconds since the turn began.

    `prompt_tokens` and `completion_tokens` are what counts; `usage_source` says whose numbers they are: `upstream`, `counted`
    here, or `estimated`. `delivered_tokens` went out to the client. `why` is the record of decisions as JSON.
    """

    request_id: str
    key: str
    key_name: str
    dialect: str
    asked: str
    began_at: float
    streamed: bool = False
    used: str = ""
    upstream: str = ""
    account: str = ""
    state: str = OPEN
    cause: str = ""
    reserved_tokens: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    usage_source: str = ""
    reported_prompt: int | None = None
    reported_completion: int | None = None
    counted_prompt: int | None = None
    counted_completion: int | None = None
    delivered_tokens: int = 0
    delivered_source: str = ""
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    queue_ms: float | None = None
    first_ms: float | None = None
    total_ms: float | None = None
    attempts: int = 0
    checkpoint_at: float | None = None
    ended_at: float | None = None
    completion_id: str | None = None
    why: str | None = None


FIELDS = Row.__struct_fields__
_FIRST = ("request_id", "key", "key_name", "dialect", "asked", "began_at", "streamed")
"""Fields that never change; they come first."""

PROCESS_BITS = 40
"""A row's id is the number of its process and, in the lower bits, its number there."""

INSERT = f"INSERT INTO turns (id, {', '.join(FIELDS)}) VALUES ({', '.join('?' * (len(FIELDS) + 1))})"  # noqa: S608
"""Write a turn that is not in the file."""

_BEGUN = (*_FIRST, "used", "upstream", "account", "reserved_tokens", "attempts")
"""Fields that are set before a turn has said anything."""

_DEFAULTS = dict(zip(FIELDS[-len(Row.__struct_defaults__) :], Row.__struct_defaults__, strict=True))
_QUIET = tuple(name for name in FIELDS if name not in _BEGUN)

QUIET = tuple(_DEFAULTS[name] for name in _QUIET)
"""What the others are until then."""

begun: Callable[[tuple[Any, ...]], tuple[Any, ...]] = operator.itemgetter(*map(FIELDS.index, _BEGUN))
quiet: Callable[[tuple[Any, ...]], tuple[Any, ...]] = operator.itemgetter(*map(FIELDS.index, _QUIET))
"""The one and the other of a row's fields."""


def _constant(value: str | float | None) -> str:
    return "NULL" if value is None else repr(value)


INSERT_BEGUN = (
    f"INSERT INTO turns (id, {', '.join(_BEGUN)}, {', '.join(_QUIET)}) "  # noqa: S608 - names and defaults of our own
    f"VALUES ({', '.join('?' * (len(_BEGUN) + 1))}, {', '.join(map(_constant, QUIET))})"
)
"""Write a turn that is not in the file and has said nothing: most are such, and what is not bound costs nothing."""

LATER = len(_FIRST)
"""Where the fields begin that change."""

UPDATE = f"UPDATE turns SET {', '.join(f'{name} = ?' for name in FIELDS[LATER:])} WHERE id = ? AND state = 'open'"  # noqa: S608
"""Write a turn that is open in the file: what may have changed of it, and its id."""

_OVER = f"{INSERT} ON CONFLICT (id) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in FIELDS[LATER:])}"

SAVE = f"{_OVER} WHERE turns.state = 'open' OR excluded.state <> 'open'"
"""Write a turn as it stands, whatever the file holds of it. What is closed is not opened again."""

CUT_OFF = "process_ended"
"""Cause of a turn whose process ended without closing it."""

TAKE_OVER = f"{_OVER} WHERE turns.state = 'open' OR turns.cause = '{CUT_OFF}'"
"""Write the end of a turn that was noted: unless it stands there already, perhaps as it came to be later."""

_COLUMNS = """
    id INTEGER PRIMARY KEY,
    request_id TEXT NOT NULL,
    key TEXT NOT NULL,
    key_name TEXT NOT NULL,
    dialect TEXT NOT NULL,
    asked TEXT NOT NULL,
    began_at REAL NOT NULL,
    streamed INTEGER NOT NULL,
    used TEXT NOT NULL,
    upstream TEXT NOT NULL,
    account TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('open', 'completed', 'interrupted', 'failed', 'rejected')),
    cause TEXT NOT NULL,
    reserved_tokens INTEGER NOT NULL,
    prompt_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    usage_source TEXT NOT NULL,
    reported_prompt INTEGER,
    reported_completion INTEGER,
    counted_prompt INTEGER,
    counted_completion INTEGER,
    delivered_tokens INTEGER NOT NULL,
    delivered_source TEXT NOT NULL,
    cached_tokens INTEGER,
    reasoning_tokens INTEGER,
    queue_ms REAL,
    first_ms REAL,
    total_ms REAL,
    attempts INTEGER NOT NULL,
    checkpoint_at REAL,
    ended_at REAL,
    completion_id TEXT,
    why TEXT
"""


SCHEMA = f"""
CREATE TABLE IF NOT EXISTS processes (number INTEGER PRIMARY KEY AUTOINCREMENT, pid INTEGER NOT NULL, started TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS turns ({_COLUMNS});
CREATE INDEX IF NOT EXISTS turns_by_time ON turns (began_at, id);
CREATE INDEX IF NOT EXISTS turns_by_key ON turns (key, began_at, id);
CREATE INDEX IF NOT EXISTS turns_by_request ON turns (request_id);
CREATE INDEX IF NOT EXISTS turns_open ON turns (id) WHERE state = 'open';
CREATE TABLE IF NOT EXISTS daily (
    day TEXT NOT NULL, key TEXT NOT NULL, used TEXT NOT NULL, upstream TEXT NOT NULL, state TEXT NOT NULL,
    requests INTEGER NOT NULL, prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL,
    cached_tokens INTEGER NOT NULL, reasoning_tokens INTEGER NOT NULL,
    PRIMARY KEY (day, key, used, upstream, state)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS allow_lists (id INTEGER PRIMARY KEY, models TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS keys (
    id INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL UNIQUE, name TEXT NOT NULL, allow_list INTEGER NOT NULL DEFAULT 0,
    max_tokens INTEGER, max_prompt_tokens INTEGER, max_completion_tokens INTEGER, active_days INTEGER,
    created_at REAL, expires_at REAL, deleted_at REAL, first_used_at REAL, last_used_at REAL,
    requests INTEGER NOT NULL DEFAULT 0, prompt_tokens INTEGER NOT NULL DEFAULT 0, completion_tokens INTEGER NOT NULL DEFAULT 0);

CREATE VIEW IF NOT EXISTS inference_model_api_key AS SELECT
    id, name AS api_key_name, allow_list AS inference_model_id, key AS api_key, max_tokens AS max_token_quota,
    max_prompt_tokens AS max_prompt_tokens_quota, max_completion_tokens AS max_completion_tokens_quota, active_days,
    datetime(coalesce(created_at, first_used_at, 0), 'unixepoch') AS created_at,
    datetime(last_used_at, 'unixepoch') AS last_used_at,
    datetime(expires_at, 'unixepoch') AS expires_at, datetime(deleted_at, 'unixepoch') AS deleted_at,
    deleted_at IS NOT NULL AS is_deleted FROM keys;
CREATE VIEW IF NOT EXISTS inference_model_api_key_token_usage AS SELECT
    turns.id AS id, completion_id AS completions_chunk_id, keys.id AS api_key_id, turns.prompt_tokens AS prompt_tokens,
    turns.completion_tokens AS completion_tokens, CASE state WHEN 'completed' THEN 'completed' ELSE 'interrupted' END AS type,
    datetime(began_at, 'unixepoch') AS created_at
    FROM turns JOIN keys ON keys.key = turns.key
    WHERE state IN ('completed', 'interrupted') OR (state = 'failed' AND turns.prompt_tokens + turns.completion_tokens > 0);
"""  # noqa: S608 - names of our own

TRIGGERS = ("turn_written_whole", "turn_closed", "turn_corrected")
"""They kept the sums in version 1."""

RECOVER = f"""
UPDATE turns SET state = 'interrupted', cause = '{CUT_OFF}', ended_at = coalesce(checkpoint_at, began_at)
WHERE state = 'open' AND id >= ? AND id < ?
"""  # noqa: S608 - a word of our own

OWNERS = f"""
SELECT DISTINCT processes.number, processes.pid, processes.started FROM turns
JOIN processes ON processes.number = turns.id >> {PROCESS_BITS} WHERE turns.state = 'open'
"""  # noqa: S608 - a number of our own

PRUNE = "DELETE FROM turns WHERE id IN (SELECT id FROM turns WHERE began_at < ? AND state <> 'open' ORDER BY began_at LIMIT ?)"

SUMS = """
SELECT keys.key, first_used_at, last_used_at, requests, prompt_tokens, completion_tokens,
    coalesce(month.prompt, 0), coalesce(month.completion, 0), coalesce(today.prompt, 0), coalesce(today.completion, 0)
FROM keys
LEFT JOIN (SELECT key, sum(prompt_tokens) AS prompt, sum(completion_tokens) AS completion FROM daily WHERE day >= ? GROUP BY key)
    AS month ON month.key = keys.key
LEFT JOIN (SELECT key, sum(prompt_tokens) AS prompt, sum(completion_tokens) AS completion FROM daily WHERE day >= ? GROUP BY key)
    AS today ON today.key = keys.key
"""

SAVE_KEY = """
INSERT INTO keys (key, name, allow_list, max_tokens, max_prompt_tokens, max_completion_tokens, active_days, created_at,
    expires_at, deleted_at)
VALUES (?, ?, (SELECT id FROM allow_lists WHERE models = ?), ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (key) DO UPDATE SET name = excluded.name, allow_list = excluded.allow_list, max_tokens = excluded.max_tokens,
    max_prompt_tokens = excluded.max_prompt_tokens, max_completion_tokens = excluded.max_completion_tokens,
    active_days = excluded.active_days, created_at = excluded.created_at, expires_at = excluded.expires_at,
    deleted_at = excluded.deleted_at
"""
