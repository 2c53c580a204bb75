"""What people see of a config: values with their origin, no secret; and its schema for editors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ds2d.config.describe import SCHEMA_URL, json_schema
from ds2d.config.show import effective, shown
from tests.config.world import OPENAI, errors, parsed

HERE = Path(__file__).parent
EXAMPLE = HERE.parents[1] / "config.example.json"

PLANTED = {
    "keys": ["sk-planted-0123456789"],
    "upstreams": [
        {
            **OPENAI,
            "headers": {"X-Token": "planted-header-value"},
            "proxy": "http://user:planted-proxy@proxy:3128",
            "login": {"type": "oauth2", "url": "/t", "client_id": "id", "client_secret": "planted-client-secret"},
        }
    ],
    "accounts": [{"email": "e", "password": "planted-password"}, {"name": "n", "token": "planted-account-token"}],
    "models": {"m": {"extra_body": {"api_key": "planted-in-extra-body", "web_search_options": {}}}},
    "vercel": {"token": "planted-vercel-token"},
    "admin": {"password_hash": "sha256:" + "5ecre7" * 10 + "abcd"},
}


def test_no_secret_is_shown() -> None:
    config = parsed(PLANTED, environ={"DS2API_ADMIN_KEY": "planted-admin-key"})
    for text in (json.dumps(shown(config)), json.dumps(shown(config, defaults=False)), json.dumps(effective(config))):
        assert "planted-" not in text
        assert "5ecre75ecre7" not in text
        assert "web_search_options" in text


def test_a_secret_by_reference_is_shown_as_the_reference() -> None:
    config = parsed({"keys": [{"key": {"$env": "K"}}]}, environ={"K": "sk-planted"})
    assert shown(config)["keys"][0]["key"] == {"$env": "K"}


def test_keys_can_be_told_apart() -> None:
    config = parsed({"keys": ["sk-abcdefghijklmnopxy", "sha256:" + "ab12" * 16]})
    assert [key["key"] for key in shown(config)["keys"]] == ["sk-ab…xy", "sha256:ab12…"]


def test_every_value_has_its_origin() -> None:
    config = parsed({"server": {"port": 1}, "keys": []}, environ={"LOG_LEVEL": "debug"}, flags={"server.host": "::1"})
    origins = {path: (value, origin) for path, value, origin in effective(config) if origin != "default"}
    assert origins == {
        "keys": ([], "file"), "server.port": (1, "file"), "log.level": ("debug", "$LOG_LEVEL"), "server.host": ("::1", "flag"),
    }  # fmt: skip


def test_what_is_shown_of_the_full_example_is_the_example_again() -> None:
    """Masked secrets apart, showing only what was set gives back what was written."""
    document = json.loads((HERE / "example_full.json").read_bytes())
    seen = shown(parsed(document), defaults=False)
    assert seen["runtime"] == document["runtime"]
    assert seen["server"] == document["server"]
    assert seen["upstreams"][3]["login"] == {
        "type": "oauth2", "url": "https://login.example/token", "client_id": "gateway", "client_secret": {"$credential": "idp"},
        "scope": "models",
    }  # fmt: skip


def test_the_short_example_loads_and_holds_no_secret() -> None:
    config = parsed(EXAMPLE.read_bytes())
    assert {warning.path for warning in config.warnings} == {"keys[0].key", "accounts[0].token"}
    assert all(not key.usable for key in config.keys)
    ready = parsed(EXAMPLE.read_bytes(), environ={"DS2D_KEY": "sk-x", "DEEPSEEK_API_KEY": "sk-y"})
    assert ready.warnings == ()
    assert ready.accounts[0].upstream == "deepseek"


# the schema for editors


@pytest.fixture(name="valid", scope="module")
def _valid() -> Any:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema).is_valid


def test_the_schema_takes_the_examples(valid: Any) -> None:
    assert json_schema()["$schema"] == SCHEMA_URL
    assert valid({})
    assert valid(json.loads(EXAMPLE.read_bytes()))
    assert valid(json.loads((HERE / "example_full.json").read_bytes()))


@pytest.mark.parametrize(
    "document",
    [
        {"x": 1}, {"keys": [1]}, {"keys": [{"nme": "x"}]}, {"upstreams": [{}]}, {"server": {"port": 70000}},
        {"log": {"level": "loud"}},
        {"runtime": {"breaker": {"failures": 0}}}, {"accounts": [{"token": {"$fil": "x"}}]}, {"generation": 5},
        {"keys": [{"problem": None}]},
        {"upstreams": [{"name": "a", "login": {"type": "saml", "url": "/"}}]}, {"upstreams": [{"name": "a", "ca_digest": "x"}]},
        {"models": {"m": {"upstream": 5}}}, {"models": {"m": {"upstream": [5]}}},
    ],
)  # fmt: skip
def test_the_schema_refuses_what_the_reader_refuses(valid: Any, document: dict[str, Any]) -> None:
    assert not valid(document)
    assert errors(document)


@pytest.mark.parametrize(
    "document",
    [
        {"_note": 1}, {"keys": ["a", {"key": {"$env": "X"}, "_n": 1}]}, {"api_keys": [{"key": "a", "name": "b"}]},
        {"claude_model_mapping": {"fast": "x"}}, {"models": {"m": {"upstream": []}}}, {"model_aliases": {"a": "b"}},
        {"upstreams": [{"name": "a", "kind": "demo", "headers": {"X": {"$file": "f"}}, "proxy": None}]},
        {"embeddings": {"provider": None}},
    ],
)  # fmt: skip
def test_the_schema_takes_what_the_reader_takes(valid: Any, document: dict[str, Any]) -> None:
    assert valid(document)
    assert errors(document) == {}
