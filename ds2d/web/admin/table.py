"""Every route of the admin API, as data: what serves it, who may ask, and what it takes.

Rule: a route is declared here and nowhere else; the router, the check before it, the OpenAPI document and API.md are made of it.
Surprise: order matters where a path may hold slashes: the longer form stands first.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

Schema = dict[str, Any]


class Route(msgspec.Struct, frozen=True):
    """One route. `area` and `action` name the handler; `auth` is who may ask: anybody, a login, or a login or the key.

    `body` and `query` are JSON Schemas of what it takes; `answer` names the fields that its answer always has.
    """

    method: str
    path: str
    area: str
    action: str
    summary: str
    answer: tuple[str, ...] = ()
    auth: Literal["none", "jwt", "admin"] = "admin"
    body: Schema | None = None
    query: dict[str, Schema] = {}


def fields(*required: str, **properties: Schema) -> Schema:
    """An object's schema."""
    return {"type": "object", "properties": properties, **({"required": list(required)} if required else {})}


TEXT: Schema = {"type": "string", "maxLength": 1024}
MODEL: Schema = {"type": "string", "minLength": 1, "maxLength": 200}
OBJECT: Schema = {"type": "object"}
FLAG: Schema = {"type": "boolean"}
LIST: Schema = {"type": "array", "items": {}}
NUMBER: Schema = {"type": "integer"}


def number(least: float, most: float = 2**53 - 1, kind: str = "integer") -> Schema:
    """A number within bounds, or null, which takes the field out."""
    return {"type": [kind, "null"], "minimum": least, "maximum": most}


WEIGHT: Schema = {"type": "number", "minimum": 0.1, "maximum": 100}
LIMITS: dict[str, Schema] = {
    "models": {"type": ["array", "null"], "items": MODEL},
    "max_tokens": number(0),
    "max_prompt_tokens": number(0),
    "max_completion_tokens": number(0),
    "quota_window": {"enum": ["day", "month", "total"]},
    "active_days": number(1, 36500),
    "expires_at": {"type": ["string", "null"], "format": "date-time"},
    "weight": WEIGHT,
    "max_inflight": number(1, 100_000),
    "rpm": number(1),
    "tpm": number(1),
    "admin": FLAG,
    "priority": FLAG,
    "disabled": FLAG,
}
"""What a key may be limited by: the fields and bounds of its entry in config.json, which a test compares."""

ACCOUNT = fields(
    email=TEXT,
    mobile=TEXT,
    password=TEXT,
    token=TEXT,
    name=TEXT,
    upstream=TEXT,
    group=TEXT,
    max_inflight=number(1, 100_000),
    weight=WEIGHT,
    disabled=FLAG,
    remark=TEXT,
)
EDIT = fields(name=TEXT, remark=TEXT, **LIMITS)
KEY = fields(key=TEXT, name=TEXT, remark=TEXT, **LIMITS)
IMPORT = fields(config=OBJECT, mode={"enum": ["merge", "replace"]})
TEST = fields(model=MODEL, message=TEXT, api_key=TEXT)
SYNC = fields(vercel_token=TEXT, project_id=TEXT, team_id=TEXT, auto_validate=FLAG, save_credentials=FLAG)

PAGE: dict[str, Schema] = {
    "page": {"type": "integer", "minimum": 1, "default": 1},
    "page_size": {"type": "integer", "minimum": 1, "maximum": 100, "default": 10},
    "q": {"type": "string"},
}

USAGE: dict[str, Schema] = {
    "since": {"type": "string"},
    "until": {"type": "string"},
    "key": {"type": "string"},
    "state": {"enum": ["open", "completed", "interrupted", "failed", "rejected"]},
    "limit": {"type": "integer", "minimum": 1, "maximum": 500, "default": 100},
    "after": {"type": "string"},
}

LOGIN = fields("admin_key", admin_key=TEXT, expire_hours={"type": "integer", "minimum": 1, "maximum": 720})
PASSWORD = fields("new_password", new_password={"type": "string", "minLength": 12, "maxLength": 1024})
LISTING = ("keys", "accounts", "claude_mapping", "key_entries", "generation")
WRITTEN = ("success", "generation", "env_backed")
SETTINGS = ("admin", "runtime", "toolcall", "responses", "embeddings", "auto_delete", "claude_mapping", "model_aliases")
QUEUE = ("available", "in_use", "total", "available_accounts", "in_use_accounts", "max_inflight_per_account")
TESTED = ("account", "success", "response_time", "message", "model")

ROUTES = (
    Route("POST", "/admin/login", "logins", "login", "log in", ("success", "token", "expires_in"), "none", LOGIN),
    Route("GET", "/admin/verify", "logins", "verify", "look at a login", ("valid", "expires_at", "remaining_seconds"), "jwt"),
    Route(
        "POST",
        "/admin/settings/password",
        "logins",
        "password",
        "change the password; ends all logins",
        ("success", "token"),
        body=PASSWORD,
    ),
    Route("GET", "/admin/config", "config", "show", "the config, secrets masked", LISTING, query={"deleted": FLAG}),
    Route(
        "POST",
        "/admin/config",
        "config",
        "update",
        "set keys, accounts, claude_mapping",
        WRITTEN,
        body=fields(keys=LIST, accounts=LIST, claude_mapping=OBJECT),
    ),
    Route(
        "GET",
        "/admin/settings",
        "config",
        "settings",
        "settings in force, with bounds",
        (*SETTINGS, "env_backed", "needs_vercel_sync"),
    ),
    Route("PUT", "/admin/settings", "config", "set", "change settings; no restart is needed", WRITTEN, body=OBJECT),
    Route(
        "POST",
        "/admin/config/import",
        "config",
        "take_in",
        "take a config in",
        ("success",),
        body=IMPORT,
        query={"mode": TEXT, "dry_run": FLAG},
    ),
    Route("GET", "/admin/config/export", "config", "export", "the config with its secrets", ("config", "json", "base64")),
    Route("GET", "/admin/export", "config", "export_short", "the same as JSON and base64", ("json", "base64")),
    Route(
        "POST",
        "/admin/import",
        "config",
        "batch",
        "add keys and accounts",
        ("success", "imported_keys", "imported_accounts"),
        body=fields(keys=LIST, accounts=LIST),
    ),
    Route("GET", "/admin/config/generations", "config", "generations", "the configs last in force", ("generations", "current")),
    Route(
        "POST",
        "/admin/config/rollback",
        "config",
        "rollback",
        "go back to a generation",
        WRITTEN,
        body=fields("generation", generation=NUMBER),
    ),
    Route(
        "GET",
        "/admin/config/generations/{number}",
        "config",
        "generation",
        "one of them, secrets masked, and how it differs from now",
        ("generation", "config", "changes"),
    ),
    Route(
        "POST",
        "/admin/config/check",
        "config",
        "check",
        "whether a text could be the config, and what it would change",
        ("valid", "errors", "changes"),
        body=fields("text", text={"type": "string"}),
    ),
    Route("GET", "/admin/config/schema", "config", "schema", "JSON Schema of the config", ("properties",)),
    Route(
        "GET", "/admin/keys", "console", "keys", "keys with their limits and use", ("keys", "generation"), query={"deleted": FLAG}
    ),
    Route("POST", "/admin/keys", "config", "add_key", "add a key, or make one", ("success", "total_keys"), body=KEY),
    Route(
        "PUT", "/admin/keys/{key:.+}", "config", "edit_key", "edit a key, or bring it back", ("success", "total_keys"), body=EDIT
    ),
    Route("DELETE", "/admin/keys/{key:.+}", "config", "delete_key", "delete a key", ("success", "total_keys")),
    Route(
        "GET",
        "/admin/accounts",
        "accounts",
        "page",
        "accounts, a page at a time",
        ("items", "total", "page", "page_size", "total_pages"),
        query=PAGE,
    ),
    Route("POST", "/admin/accounts", "accounts", "add", "add an account", ("success", "total_accounts"), body=ACCOUNT),
    Route(
        "POST",
        "/admin/accounts/test",
        "accounts",
        "test",
        "try an account",
        TESTED,
        body=fields("identifier", identifier=TEXT, model=MODEL, message=TEXT),
    ),
    Route(
        "POST",
        "/admin/accounts/test-all",
        "accounts",
        "test_all",
        "try all accounts, five at a time",
        ("total", "success", "failed", "results"),
        body=fields(model=MODEL),
    ),
    Route("POST", "/admin/accounts/{identifier:.+}/reset", "accounts", "reset", "close the breakers of an account", ("success",)),
    Route(
        "PUT",
        "/admin/accounts/{identifier:.+}",
        "accounts",
        "edit",
        "edit an account",
        ("success", "total_accounts"),
        body=ACCOUNT,
    ),
    Route("DELETE", "/admin/accounts/{identifier:.+}", "accounts", "delete", "delete an account", ("success", "total_accounts")),
    Route("GET", "/admin/queue/status", "accounts", "queue", "who works and who waits", (*QUEUE, "recommended_concurrency")),
    Route(
        "POST",
        "/admin/test",
        "ops",
        "test",
        "ask a question through the service itself",
        ("success", "status_code", "response"),
        body=TEST,
    ),
    Route("GET", "/admin/requests", "ops", "requests", "turns that run or ended lately", ("running", "ended")),
    Route("GET", "/admin/requests/{id}", "ops", "request", "one of them", ("id", "state")),
    Route("DELETE", "/admin/requests/{id}", "ops", "cancel", "cancel a running turn", ("success",)),
    Route(
        "GET", "/admin/usage", "usage", "usage", "sums by day, and turns page by page", ("daily", "turns", "next"), query=USAGE
    ),
    Route("GET", "/admin/events", "live", "events", "the state and its changes as server-sent events; `Last-Event-ID` goes on"),
    Route("GET", "/admin/series", "live", "series", "the last hour and day, step by step", ("hour", "day")),
    Route(
        "POST",
        "/admin/connect",
        "console",
        "connect",
        "variables and files that lead each client here",
        ("clients",),
        body=fields("base_url", "key", "model", base_url=TEXT, key=TEXT, model=MODEL),
    ),
    Route("GET", "/admin/dev/captures", "ops", "captures", "captured exchanges", ("enabled", "limit", "max_body_bytes", "items")),
    Route("DELETE", "/admin/dev/captures", "ops", "clear_captures", "forget them", ("success", "detail")),
    Route("GET", "/admin/vercel/config", "vercel", "settings", "what a sync would use", ("has_token", "project_id", "team_id")),
    Route(
        "POST",
        "/admin/vercel/sync",
        "vercel",
        "sync",
        "copy the config to Vercel",
        ("success", "validated_accounts", "message"),
        body=SYNC,
    ),
    Route(
        "GET",
        "/admin/vercel/status",
        "vercel",
        "status",
        "whether the copy is up to date",
        ("synced", "last_sync_time", "has_synced_before"),
    ),
    Route(
        "POST",
        "/admin/vercel/status",
        "vercel",
        "compare",
        "the same, for a draft",
        ("synced", "draft_hash", "draft_differs"),
        body=OBJECT,
    ),
)
