"""The OpenAPI 3.1 document of every route, and the same as a table for people: both made of the route tables.

Rule: what a table does not say is not said here; a route that is served and not described fails a test.
Surprise: bodies of business routes are other people's formats, so they are described as objects with the fields that must
stand there; admin bodies are described whole, by the table's own schemas.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import msgspec

from ds2d import __version__
from ds2d.dialects import ENDPOINTS
from ds2d.dialects.tasks import TASKS
from ds2d.web.admin.table import ROUTES, Route, Schema
from ds2d.web.paths import short_form

_WORDS = re.compile(r"\{[a-z_]+:([A-Za-z|]+)\}")
_PARAMETER = re.compile(r"\{([a-z_]+)(?::[^}]*)?\}")

REQUIRED = {
    ("openai_chat", "generate"): ("model", "messages"),
    ("openai_completions", "generate"): ("model",),
    ("openai_responses", "generate"): ("model",),
    ("claude", "generate"): ("model", "messages"),
    ("claude", "count"): ("model", "messages"),
    ("openai_chat", "detokenize"): ("tokens",),
    ("openai_chat", "rerank"): ("query", "documents"),
    ("openai_chat", "transcriptions"): ("model", "file"),
    ("openai_chat", "translations"): ("model", "file"),
    ("gemini", "generate"): ("contents",),
}
"""Fields that a question must have, by dialect and action."""

ACTIONS = {
    "generate": "ask a model",
    "count": "count the tokens of a question",
    "models": "list models",
    "model": "one model",
    "embed": "embed texts",
    "batch_embed": "embed several texts",
    "load": "how many requests are in work or wait",
}

PUBLIC = {"models", "model"}
"""Actions that need no key unless config says so."""

OTHERS = (
    ("GET", "/healthz", "open", "the process is up"),
    ("GET", "/readyz", "open", "whether requests should come here; ?verbose for details"),
    ("GET", "/health", "open", "200 while something can be served"),
    ("GET", "/ping", "open", "alive"),
    ("POST", "/ping", "open", "alive"),
    ("GET", "/metrics", "open", "counts for Prometheus; who may read them is `metrics.access`"),
    ("GET", "/version", "open", "the gateway's version"),
    ("GET", "/", "open", "the playground in a browser; what this is, for people with curl, also at `/v1`, `/anthropic`"),
    ("GET", "/admin", "open", "the console's page for operators"),
    ("GET", "/openapi.json", "open", "this document"),
    ("GET", "/docs", "open", "the manual"),
    ("GET", "/docs/{page}", "open", "a page of it"),
    ("GET", "/v1/usage", "key", "the caller's own limits and use; also `/usage`"),
    ("GET", "/me", "key", "the same for people"),
    ("GET", "/v1/tokens/stats", "admin", "what the accounts do; also for keys with `admin`"),
    ("POST", "/v1/tokens/rotate", "admin", "begin at the next account; also for keys with `admin`"),
    ("POST", "/v1/tokens/reset-stats", "admin", "forget faults of accounts; also for keys with `admin`"),
    ("GET", "/v1/rate-limits/observed", "admin", "limits that upstreams told; also for keys with `admin`"),
)
"""Routes outside of the dialects' and the admin API's tables; a test compares them with what is served."""


class Line(msgspec.Struct, frozen=True):
    """One route as every description of it needs it. `auth`: open, key, jwt or admin."""

    method: str
    path: str
    summary: str
    auth: str
    tag: str
    body: Schema | None = None
    query: dict[str, Schema] = {}
    answer: tuple[str, ...] = ()
    form: bool = False


def lines() -> list[Line]:
    """Every described route, business routes first, each in its canonical form."""
    return [
        *_business(),
        *(Line(method, path, text, auth, "daemon") for method, path, auth, text in OTHERS),
        *map(_admin, ROUTES),
    ]


def document(more: Iterable[Line] = ()) -> dict[str, Any]:
    """The OpenAPI document; `more` are routes that belong to no table."""
    paths: dict[str, dict[str, Any]] = {}
    for line in [*lines(), *more]:
        paths.setdefault(_plain(line.path), {})[line.method.lower()] = _operation(line)
    schemes = {"key": {"type": "http", "scheme": "bearer"}, "admin": {"type": "http", "scheme": "bearer"}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "ds2d", "version": __version__, "summary": "A gateway between AI clients and DeepSeek models"},
        "paths": paths,
        "components": {"securitySchemes": schemes, "schemas": {"Detail": _object({"detail": {"type": "string"}}, ("detail",))}},
    }


def table() -> str:
    """The routes as a Markdown table, for API.md."""
    rows = [f"| `{line.method}` | `{_spelt(line.path)}` | {line.auth} | {line.summary} |" for line in lines()]
    return "\n".join(["| method | path | who | what |", "| --- | --- | --- | --- |", *rows])


def bodies() -> str:
    """The fields of the admin API's bodies as a Markdown table, for API.md."""
    rows = [f"| `{line.method} {_spelt(line.path)}` | {_fields(line.body)} |" for line in map(_admin, ROUTES) if line.body]
    return "\n".join(["| route | fields |", "| --- | --- |", *rows])


def _fields(body: Schema) -> str:
    """The names of a body's fields, those that must stand there with a star."""
    required = body.get("required", [])
    names = [*body.get("properties", {}), *(name for name in required if name not in body.get("properties", {}))]
    return ", ".join(f"`{name}`{'*' if name in required else ''}" for name in names) or "any"


def _business() -> list[Line]:
    found: dict[tuple[str, str], Line] = {}
    for name, endpoint in ENDPOINTS:
        task = TASKS.get(endpoint.action)
        required = REQUIRED.get((name, endpoint.action), ())
        body = {"type": "object", "required": [*required]} if endpoint.method == "POST" else None
        summary = task.summary if task else f"{ACTIONS.get(endpoint.action, endpoint.action.replace('_', ' '))} ({name})"
        if short := short_form(endpoint.path):
            summary += f"; also `{_spelt(short)}`"
        auth = "key"
        if endpoint.action in PUBLIC:
            auth = "open"
            summary += "; with a key those that are its own (`server.public_models`)"
        line = Line(endpoint.method, endpoint.path, summary, auth, name, body, form=bool(task and task.form))
        found.setdefault((endpoint.method, endpoint.path), line)
    return list(found.values())


def _admin(route: Route) -> Line:
    auth = {"none": "open", "jwt": "jwt", "admin": "admin"}[route.auth]
    return Line(route.method, route.path, route.summary, auth, "admin", route.body, route.query, route.answer)


def _operation(line: Line) -> dict[str, Any]:
    path = re.sub(r"\(\?!.*\)", "", line.path)  # what a parameter is not
    name = re.sub(r"[^a-z0-9]+", "_", f"{line.method} {path}".lower()).strip("_")
    operation: dict[str, Any] = {"operationId": name, "summary": line.summary, "tags": [line.tag]}
    parameters = [_parameter(found, "path", {"type": "string", "minLength": 1}) for found in _PARAMETER.findall(line.path)]
    parameters += [_parameter(found, "query", schema) for found, schema in line.query.items()]
    if parameters:
        operation["parameters"] = parameters
    if line.body is not None:
        required = bool(line.body.get("required"))
        kind = "multipart/form-data" if line.form else "application/json"
        operation["requestBody"] = {"required": required, "content": {kind: {"schema": line.body}}}
    if line.auth != "open":
        operation["security"] = [{"key" if line.auth == "key" else "admin": []}]
    operation["responses"] = _responses(line)
    return operation


def _responses(line: Line) -> dict[str, Any]:
    answer = _object({field: {} for field in line.answer}, line.answer)
    error = {"$ref": "#/components/schemas/Detail"} if line.tag == "admin" else {"type": "object"}
    return {
        "200": {"description": "done", **({"content": {"application/json": {"schema": answer}}} if line.answer else {})},
        "default": {"description": "refused or failed", "content": {"application/json": {"schema": error}}},
    }


def _plain(path: str) -> str:
    """The path with its parameters' names only."""
    return _PARAMETER.sub(r"{\1}", path)


def _spelt(path: str) -> str:
    """The path for people: a parameter that can only be certain words is those words."""
    return _plain(_WORDS.sub(r"\1", path)).replace("|", r"\|")


def _parameter(name: str, place: str, schema: Schema) -> dict[str, Any]:
    return {"name": name, "in": place, "required": place == "path", "schema": schema}


def _object(properties: dict[str, Any], required: tuple[str, ...]) -> Schema:
    return {"type": "object", "properties": properties, **({"required": list(required)} if required else {})}
