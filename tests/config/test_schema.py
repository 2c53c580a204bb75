"""Every key: its default, its bounds, whether it is live and in the admin settings, as config.md 2 says.

The table is written down here once more, by hand, so that a slip in the schema is a difference and not a new truth.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import ds2d
from ds2d.config.describe import Key, keys, value_at
from ds2d.config.notices import nearest
from tests.config.world import OPENAI, errors, parsed

BIG = 2**53 - 1
PACKAGE = Path(ds2d.__file__).parent


class Says(NamedTuple):
    """What the contract says of a key: default, bounds or choices, and its marks (R: restart; S: settings)."""

    default: Any
    allowed: Any = None
    marks: str = ""


TABLE: dict[str, Says] = {
    "keys": Says(()),
    "keys[].key": Says(None),
    "keys[].name": Says(None, (1, 200)),
    "keys[].models": Says(None),
    "keys[].max_tokens": Says(None, (0, BIG)),
    "keys[].max_prompt_tokens": Says(None, (0, BIG)),
    "keys[].max_completion_tokens": Says(None, (0, BIG)),
    "keys[].quota_window": Says("total", {"total", "day", "month"}),
    "keys[].active_days": Says(None, (1, 36500)),
    "keys[].created_at": Says(None),
    "keys[].expires_at": Says(None),
    "keys[].deleted_at": Says(None),
    "keys[].weight": Says(1, (0.1, 100)),
    "keys[].max_inflight": Says(None, (1, 100000)),
    "keys[].rpm": Says(None, (1, BIG)),
    "keys[].tpm": Says(None, (1, BIG)),
    "keys[].admin": Says(False),
    "keys[].priority": Says(False),
    "keys[].disabled": Says(False),
    "keys[].remark": Says("", (None, 1024)),
    "upstreams": Says(()),
    "upstreams[].name": Says(None),
    "upstreams[].kind": Says("openai", {"openai", "demo"}),
    "upstreams[].base_url": Says("", (None, 1024)),
    "upstreams[].flavour": Says(
        "auto", {"auto", "vllm", "sglang", "llamacpp", "llamacpp_python", "transformers", "deepseek", "generic"}
    ),
    "upstreams[].direct_token": Says(False),
    "upstreams[].headers": Says({}),
    "upstreams[].ca_file": Says(None, (1, 200)),
    "upstreams[].escape_special_tokens": Says(False),
    "upstreams[].pace_ms": Says(0, (0, 60000)),
    "upstreams[].login": Says(None),
    "upstreams[].login(json).url": Says(None, (1, 200)),
    "upstreams[].login(json).user_field": Says("email", (1, 200)),
    "upstreams[].login(json).password_field": Says("password", (1, 200)),
    "upstreams[].login(json).token_path": Says("token", (1, 200)),
    "upstreams[].login(json).expires_path": Says(None, (1, 200)),
    "upstreams[].login(oauth2).url": Says(None, (1, 200)),
    "upstreams[].login(oauth2).grant": Says("password", {"password", "client_credentials"}),
    "upstreams[].login(oauth2).client_id": Says("", (None, 1024)),
    "upstreams[].login(oauth2).client_secret": Says(None),
    "upstreams[].login(oauth2).scope": Says("", (None, 1024)),
    "upstreams[].proxy": Says(None, (1, 200)),
    "upstreams[].timeouts.connect": Says(5, (0.1, 86400)),
    "upstreams[].timeouts.headers": Says(630, (0.1, 86400)),
    "upstreams[].timeouts.first_payload": Says(630, (0.1, 86400)),
    "upstreams[].timeouts.payload_gap": Says(120, (0.1, 86400)),
    "upstreams[].timeouts.answer": Says(3600, (0.1, 86400)),
    "upstreams[].timeouts.total": Says(3600, (0.1, 86400)),
    "upstreams[].max_inflight": Says(64, (1, 100000)),
    "upstreams[].poll_seconds": Says(2, (1, 3600)),
    "upstreams[].tools": Says("auto", {"auto", "native", "prompt", "off"}),
    "upstreams[].thinking": Says("auto", {"auto", "template", "deepseek", "effort", "none"}),
    "upstreams[].think_tags": Says("auto", {"auto", "yes", "no"}),
    "accounts": Says(()),
    "accounts[].upstream": Says(None, (1, 200)),
    "accounts[].email": Says(None, (1, 200)),
    "accounts[].mobile": Says(None, (1, 200)),
    "accounts[].password": Says(None),
    "accounts[].token": Says(None),
    "accounts[].name": Says(None, (1, 200)),
    "accounts[].group": Says(None, (1, 200)),
    "accounts[].max_inflight": Says(None, (1, 100000)),
    "accounts[].weight": Says(1, (0.1, 100)),
    "accounts[].disabled": Says(False),
    "accounts[].remark": Says("", (None, 1024)),
    "models": Says({}),
    "models.*.upstream": Says(()),
    "models.*.model": Says(None, (1, 200)),
    "models.*.context": Says(None, (1, BIG)),
    "models.*.max_output": Says(None, (1, BIG)),
    "models.*.thinking": Says("switch", {"on", "off", "switch"}),
    "models.*.tools": Says("auto", {"auto", "native", "prompt", "off"}),
    "models.*.tool_format": Says(
        "auto",
        {"auto", "json", "deepseek_v3", "deepseek_v31", "deepseek_v32", "deepseek_v4", "deepseek_v41", "xml", "hermes", "text"},
    ),
    "models.*.images": Says(False),
    "models.*.system": Says(None, {"keep", "merge_leading", "merge_all"}),
    "models.*.extra_body": Says({}),
    "model_aliases": Says({}, marks="S"),
    "claude_mapping.fast": Says("deepseek-chat", (1, 200), "S"),
    "claude_mapping.slow": Says("deepseek-reasoner", (1, 200), "S"),
    "runtime.account_max_inflight": Says(2, (1, 256), "S"),
    "runtime.account_max_queue": Says(0, (0, 200000), "S"),
    "runtime.global_max_inflight": Says(0, (0, 200000), "S"),
    "runtime.queue_timeout_seconds": Says(60, (0, 3600)),
    "runtime.min_request_gap_ms": Says(0, (0, 600000)),
    "runtime.max_attempts": Says(3, (1, 10)),
    "runtime.retry_budget_percent": Says(10, (0, 100)),
    "runtime.timeout_status": Says(503, {503, 504}),
    "runtime.breaker.failures": Says(5, (1, 1000)),
    "runtime.breaker.open_seconds": Says(60, (1, 3600)),
    "runtime.routing": Says("least_loaded", {"least_loaded", "weighted"}),
    "runtime.affinity.mode": Says("auto", {"auto", "on", "off"}),
    "runtime.affinity.ttl_seconds": Says(3600, (1, 86400)),
    "runtime.affinity.load_ceiling": Says(1.25, (1, 100)),
    "runtime.retry_collapse": Says(True),
    "runtime.retry_grace_seconds": Says(0, (0, 600)),
    "runtime.route_header": Says(True),
    "toolcall.mode": Says("feature_match", {"feature_match", "buffered", "off"}, "S"),
    "toolcall.early_emit_confidence": Says("high", {"high", "low", "off"}, "S"),
    "reasoning.field": Says("reasoning_content", {"reasoning_content", "both"}),
    "reasoning.memory_seconds": Says(3600, (0, 86400)),
    "reasoning.memory_bytes": Says(67108864, (0, 2**40)),
    "reasoning.when_lost": Says("empty", {"empty", "thinking_off"}),
    "images.on_text_model": Says("error", {"error", "drop"}),
    "images.max_bytes": Says(20971520, (0, 2**40)),
    "gemini.stream_default": Says("sse", {"sse", "array"}),
    "responses.store_ttl_seconds": Says(900, (30, 86400), "S"),
    "responses.store_bytes": Says(268435456, (0, 2**40)),
    "responses.background_max": Says(32, (0, 10000)),
    "responses.background_seconds": Says(3600, (1, 86400)),
    "responses.reasoning_events": Says("summary", {"summary", "text", "off"}),
    "responses.persist": Says(True),
    "embeddings.provider": Says(None, {"upstream", "deterministic", "mock", "builtin"}, "S"),
    "embeddings.dimensions": Says(768, (1, 65536)),
    "auto_delete.sessions": Says(False, marks="S"),
    "admin.password_hash": Says("", (None, 1024)),
    "admin.jwt_expire_hours": Says(24, (1, 720), "S"),
    "admin.allowed_hosts": Says(()),
    "admin.jwt_valid_after_unix": Says(0, (0, BIG)),
    "server.host": Says("127.0.0.1", (1, 200), "R"),
    "server.port": Says(5001, (0, 65535), "R"),
    "server.tls.cert_file": Says(None, (1, 200), "R"),
    "server.tls.key_file": Says(None, (1, 200), "R"),
    "server.unix_socket": Says(None, (1, 200), "R"),
    "server.state_dir": Says(None, (1, 200), "R"),
    "server.open_networks": Says(()),
    "server.public_models": Says(True),
    "server.open_token_stats": Says(False),
    "server.drain_seconds": Says(600, (0, 86400)),
    "server.keepalive_seconds": Says(15, (1, 3600)),
    "server.body_limit_bytes": Says(67108864, (1024, 2**32)),
    "server.header_seconds": Says(15, (0.1, 86400)),
    "server.body_seconds": Says(60, (0.1, 86400)),
    "server.idle_seconds": Says(75, (0.1, 86400)),
    "server.write_stall_seconds": Says(60, (0.1, 86400)),
    "server.max_connections": Says(4096, (1, 1000000), "R"),
    "server.trusted_proxies": Says(()),
    "server.root_path": Says("", (None, 1024), "R"),
    "capture.enabled": Says(False),
    "capture.limit": Says(20, (1, 1000)),
    "capture.max_body_bytes": Says(2097152, (1024, 2**28)),
    "ledger.synchronous": Says("full", {"full", "normal"}),
    "ledger.on_disk_full": Says("serve", {"serve", "refuse"}),
    "ledger.checkpoint_seconds": Says(5, (0.1, 3600)),
    "ledger.retention_days": Says(90, (1, 36500)),
    "ledger.default_reserve_tokens": Says(4096, (1, BIG)),
    "metrics.access": Says("auto", {"auto", "open", "key", "admin", "off"}),
    "metrics.key_labels": Says(False),
    "log.level": Says("info", {"debug", "info", "warning", "error"}),
    "log.format": Says("text", {"text", "json"}),
    "vercel.api_base": Says("https://api.vercel.com", (None, 1024)),
    "vercel.token": Says(None),
    "vercel.project_id": Says("", (None, 1024)),
    "vercel.team_id": Says("", (None, 1024)),
}

ROWS = {key.path: key for key in keys()}
NUMBERS = [key for key in ROWS.values() if key.kind in {"integer", "number"}]
CHOICES = [key for key in ROWS.values() if key.kind == "choice"]
LOGINS = {
    "json": {"type": "json", "url": "/signin"},
    "oauth2": {"type": "oauth2", "url": "/token", "client_id": "i", "client_secret": "s"},
}


def document_with(path: str, value: Any) -> tuple[dict[str, Any], str]:
    """A sound document with one value at this path of the schema, and the path of that value in it."""
    head, _, rest = path.partition("[].")
    if rest:
        entry: dict[str, Any] = {"keys": {"key": "sk-x"}, "upstreams": dict(OPENAI), "accounts": {"token": "t"}}[head]
        rest, place = in_login(entry, rest)
        put(entry, rest, value)
        return {head: [entry]}, f"{head}[0].{place}"
    if path.startswith("models.*."):
        name = path.removeprefix("models.*.")
        return {"models": {"m": {name: value}}}, f"models.m.{name}"
    document: dict[str, Any] = {}
    put(document, path, value)
    return document, path


def in_login(entry: dict[str, Any], rest: str) -> tuple[str, str]:
    for tag, login in LOGINS.items():
        if rest.startswith(f"login({tag})."):
            entry["login"] = dict(login)
            rest = rest.replace(f"({tag})", "")
    return rest, rest


def put(into: dict[str, Any], path: str, value: Any) -> None:
    *sections, last = path.split(".")
    for name in sections:
        into = into.setdefault(name, {})
    into[last] = value


def test_the_schema_has_the_keys_of_the_contract_and_no_others() -> None:
    assert set(ROWS) == set(TABLE)


@pytest.mark.parametrize("path", TABLE)
def test_default_bounds_and_marks_are_those_of_the_contract(path: str) -> None:
    key, says = ROWS[path], TABLE[path]
    assert key.default == says.default
    if isinstance(says.allowed, tuple):
        assert (key.least, key.most) == says.allowed
    elif says.allowed:
        assert set(key.choices) == says.allowed
    else:
        assert (key.least, key.most, key.choices) == (None, None, ())
    assert (key.restart, key.settings) == ("R" in says.marks, "S" in says.marks)
    assert key.text


@pytest.mark.parametrize("key", [key for key in ROWS.values() if not key.inside], ids=lambda key: key.path)
def test_an_empty_config_has_the_defaults(key: Key) -> None:
    assert value_at(parsed({}), key.path) == key.default


@pytest.mark.parametrize("key", NUMBERS, ids=lambda key: key.path)
def test_numbers_are_taken_up_to_their_bounds_and_no_further(key: Key) -> None:
    assert key.least is not None
    assert key.most is not None
    for value in (key.least, key.most):
        assert errors(document_with(key.path, value)[0]) == {}
    for value in (key.least - 1, key.most + 1, "1", True, [1]):
        document, place = document_with(key.path, value)
        assert list(errors(document)) == [place]


@pytest.mark.parametrize("key", CHOICES, ids=lambda key: key.path)
def test_a_choice_is_one_of_its_words(key: Key) -> None:
    for value in key.choices:
        assert errors(document_with(key.path, value)[0]) == {}
    for value in ("nonsense", 0, True, []):
        document, place = document_with(key.path, value)
        assert list(errors(document)) == [place]


@pytest.mark.parametrize("key", [key for key in ROWS.values() if key.kind == "true or false"], ids=lambda key: key.path)
def test_a_switch_is_true_or_false(key: Key) -> None:
    for value in (True, False):
        assert errors(document_with(key.path, value)[0]) == {}
    for value in ("true", 1, {}):
        document, place = document_with(key.path, value)
        assert errors(document) == {place: "must be true or false"}


@pytest.mark.parametrize("key", [key for key in ROWS.values() if key.kind == "integer"], ids=lambda key: key.path)
def test_an_integer_may_be_written_with_a_point_but_not_with_a_fraction(key: Key) -> None:
    assert key.least is not None
    assert errors(document_with(key.path, float(key.least))[0]) == {}
    document, place = document_with(key.path, key.least + 0.5)
    assert errors(document) == {place: "must be an integer"}


CODE = "".join(
    file.read_text() for file in PACKAGE.rglob("*.py") if file.parent != PACKAGE / "config" or file.name == "source.py"
)


NOTES = {"keys[].remark", "accounts[].remark"}
"""Kept for people: nothing acts on them."""


@pytest.mark.parametrize("path", [path for path in TABLE if path not in NOTES])
def test_every_key_is_read_by_the_code_that_it_is_for(path: str) -> None:
    """Loosely: its name as an attribute, outside of what parses and shows the config."""
    assert re.search(rf"\.{path.rpartition('.')[2].removesuffix('[]')}\b", CODE)


@pytest.mark.parametrize("path", TABLE)
def test_a_misspelt_key_is_an_error_that_names_the_right_one(path: str) -> None:
    stem, _, name = path.rpartition(".")
    if not stem:
        return
    wrong = name[:-1] + "xy"
    document, place = document_with(f"{stem}.{wrong}", 1)
    found = errors(document)
    assert list(found) == [place]
    siblings = [other.rpartition(".")[2] for other in TABLE if other.rpartition(".")[0] == stem]
    if nearest(wrong, siblings):
        assert "did you mean" in found[place]
