"""A file becomes a snapshot, or everything that is wrong with it is said at once."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds2d.config.notices import ConfigErrors
from ds2d.config.parse import parse
from ds2d.core.settings import JsonLogin, OAuth2Login, Secret
from tests.config.world import OPENAI, errors, parsed, warnings

HERE = Path(__file__).parent
CONTRACT = HERE.parents[2] / "shared" / "contracts" / "config.md"
HASH = "sha256:" + "ab" * 32


def contract_example() -> bytes:
    if not CONTRACT.exists():
        pytest.skip("the contract is not beside the clone")
    return CONTRACT.read_text().split("```json\n")[1].split("```")[0].encode()


def key_paths(value: Any, path: str = "") -> set[str]:
    """Every path in a document, without indexes and names that are free."""
    if isinstance(value, list):
        return {found for item in value for found in key_paths(item, path)}
    if not isinstance(value, dict):
        return {path}
    return {path} | {
        found for name, item in value.items() if not name.startswith("_") for found in key_paths(item, f"{path}.{name}")
    }


def test_an_empty_object_is_a_valid_config() -> None:
    config = parsed({})
    assert config.keys == config.upstreams == config.accounts == ()
    assert config.warnings == ()


def test_the_example_of_the_contract_loads_as_it_stands() -> None:
    config = parsed(contract_example())
    assert [upstream.name for upstream in config.upstreams] == ["gpu", "deepseek", "webui", "sso", "demo"]
    assert {warning.path for warning in config.warnings if "no effect" not in warning.message} == {
        "keys[2].key", "upstreams[3].login.client_secret", "accounts[0].token", "admin.password_hash",
    }  # fmt: skip


def test_our_full_example_has_every_key_of_the_contract_s() -> None:
    ours = key_paths(json.loads((HERE / "example_full.json").read_bytes()))
    missing = key_paths(json.loads(contract_example())) - ours
    assert {path for path in missing if not path.startswith((".models.", ".model_aliases."))} == set()


def test_our_full_example_loads() -> None:
    files = {"/etc/ds2d/first.token": b"the token\n", "/run/creds/idp": b"the secret"}
    raw = (HERE / "example_full.json").read_bytes()
    config = parsed(raw, environ={"BLUE_KEY": "sk-blue", "CREDENTIALS_DIRECTORY": "/run/creds"}, files=files)
    assert [warning for warning in config.warnings if "no effect" not in warning.message] == []
    assert config.accounts[0].token == Secret("the token", {"$file": "first.token"})
    assert config.keys[2].expires_at == datetime(2031, 6, 30, 10, tzinfo=UTC)
    login = config.upstreams[3].login
    assert isinstance(login, OAuth2Login)
    assert login.client_secret == Secret("the secret", {"$credential": "idp"})
    assert isinstance(config.upstreams[2].login, JsonLogin)
    assert config.models["deepseek-chat"].upstream == ("rack",)
    assert set(config.files) == set(files)


@pytest.mark.parametrize("value", [2**53, 1e20])
def test_a_number_above_all_bounds_is_told_the_highest(value: float) -> None:
    assert errors({"keys": [{"key": "a", "max_tokens": value}]}) == {"keys[0].max_tokens": "must be 0 to 9007199254740991"}


def test_all_errors_are_said_at_once_each_with_its_place() -> None:
    document = {
        "keys": ["a", "a", {"key": "b", "wieght": 1, "rpm": 0}, 3, {"name": "x"}],
        "port": 5,
        "runtime": {"breaker": {"failures": 0}, "toolcal": {}, "account_max_inflight": 300},
        "upstreams": [
            {"name": "A"},
            {"name": "b", "base_url": "ftp://x", "kind": "opena"},
            {"name": "c", "login": {"type": "jso"}},
        ],
        "accounts": [{"email": "x"}, {"token": {"$fil": "x"}}],
        "models": {"m.x": {"upstream": ["d"]}, "M.X": {"upstream": "c"}},
        "server": {"port": "x", "open_networks": ["10.0.0.0/33"], "root_path": "x/"},
        "log": {"level": "debig"},
    }
    assert errors(document) == {
        "port": "unknown key (did you mean server.port?)",
        "keys[1]": "is the same key as keys[0]",
        "keys[2].wieght": "unknown key (did you mean weight?)",
        "keys[2].rpm": "must be 1 or more",
        "keys[3]": "must be a string or an object",
        "keys[4].key": "is required (only the entry named anonymous has none)",
        "upstreams[0].name": "must match ^[a-z0-9_-]{1,64}$",
        "upstreams[1].kind": "must be one of demo, openai (did you mean openai?)",
        "upstreams[2].login.type": "must be one of json, oauth2",
        "accounts[0]": "needs a token, or email or mobile with password",
        "accounts[1].token": 'must be a string, {"$env": NAME}, {"$file": PATH} or {"$credential": NAME}',
        "runtime.breaker.failures": "must be 1 to 1000",
        "runtime.toolcal": "unknown key (did you mean toolcall?)",
        "runtime.account_max_inflight": "must be 1 to 256",
        'models["m.x"].upstream': "no upstream is named d",
        'models["M.X"]': 'has the same name, but for case, as models["m.x"]',
        "server.port": "must be an integer",
        "server.open_networks[0]": "must be an address or a network as in 10.0.0.0/8",
        "server.root_path": "must be empty or a path as in /ds2d, without a slash at its end",
        "log.level": "must be one of debug, error, info, warning (did you mean debug?)",
    }


@pytest.mark.parametrize("section", ["keys", "upstreams", "accounts", "models", "model_aliases", "runtime", "server"])
def test_a_section_of_the_wrong_type_is_one_error(section: str) -> None:
    assert list(errors({section: 5})) == [section]


@pytest.mark.parametrize("section", ["keys", "accounts", "models", "runtime", "embeddings", "vercel"])
def test_null_in_place_of_a_section_is_its_default(section: str) -> None:
    assert getattr(parsed({section: None}), section) == getattr(parsed({}), section)


def test_notes_may_stand_anywhere_but_in_an_extra_body() -> None:
    document = {
        "_a": 1,
        "keys": [{"key": "k", "_b": {}}],
        "models": {"_c": "x", "m": {"_d": 1, "extra_body": {"_kept": True}}},
        "server": {"_e": []},
        "model_aliases": {"_f": "x"},
    }
    config = parsed(document)
    assert list(config.models) == ["m"]
    assert config.model_aliases == {}
    assert config.models["m"].extra_body == {"_kept": True}


def test_the_reference_system_s_file_loads_as_it_is() -> None:
    config = parsed(
        {
            "keys": ["k1", "k2"],
            "api_keys": [{"key": "k1", "name": "one", "remark": "first"}, {"key": "k3", "name": "three", "remark": ""}],
            "accounts": [
                {"name": "", "email": "a@example.com", "password": "p", "token": "", "proxy_id": "p1"},
                {"mobile": "13800000000", "password": "p", "token": ""},
            ],
            "proxies": [{"id": "p1"}],
            "claude_model_mapping": {"fast": "deepseek-chat", "slow": "deepseek-chat"},
            "compat": {"wide_input_strict_output": True},
            "toolcall": {"mode": "feature_match", "early_emit_confidence": "high"},
            "runtime": {"account_max_inflight": 3, "token_refresh_interval_hours": 6},
            "responses": {"store_ttl_seconds": 900},
            "embeddings": {"provider": "deterministic"},
            "auto_delete": {"mode": "single", "sessions": True},
            "admin": {"password_hash": HASH, "jwt_expire_hours": 24, "jwt_valid_after_unix": 1738400000},
            "current_input_file": {"enabled": True},
            "thinking_injection": {},
            "history_split": {},
        }
    )
    assert [(key.name, key.remark, key.key and key.key.reveal()) for key in config.keys] == [
        ("one", "first", "k1"), (None, "", "k2"), ("three", "", "k3"),
    ]  # fmt: skip
    assert [account.identifier for account in config.accounts] == ["a@example.com", "13800000000"]
    assert config.claude_mapping.slow == "deepseek-chat"
    assert config.admin.jwt_valid_after_unix == 1738400000
    without_place = [warning.message for warning in config.warnings if not warning.path]
    assert len(without_place) == 1
    assert "accounts[].proxy_id" in without_place[0]
    assert "history_split" in without_place[0]


def test_an_error_in_api_keys_is_found_where_it_stands() -> None:
    assert errors({"keys": ["a"], "api_keys": [{"key": "b", "nme": "x"}, {"name": "y"}]}) == {
        "api_keys[0].nme": "unknown key (did you mean name?)",
        "api_keys[1].key": "is required (only the entry named anonymous has none)",
    }


def test_the_new_name_of_the_claude_mapping_wins() -> None:
    assert parsed({"claude_mapping": {"fast": "new"}, "claude_model_mapping": {"fast": "old"}}).claude_mapping.fast == "new"


# keys


def test_a_key_may_be_a_string_a_hash_or_an_object() -> None:
    keys = parsed({"keys": ["sk-a", HASH.upper().replace("SHA256", "sha256"), {"key": "sk-b"}]}).keys
    assert keys[0].digest == hashlib.sha256(b"sk-a").hexdigest()
    assert keys[1].digest == "ab" * 32
    assert keys[2].digest != keys[0].digest


@pytest.mark.parametrize("key", ["sha256:abc", "SHA256:" + "g" * 64, " sk", "sk\n", "s\x00k"])
def test_a_key_that_no_client_can_send_is_refused(key: str) -> None:
    assert list(errors({"keys": [key]})) == ["keys[0].key"]


def test_only_anonymous_has_no_key() -> None:
    assert parsed({"keys": [{"name": "anonymous", "rpm": 5}]}).keys[0].digest is None
    assert list(errors({"keys": [{"name": "someone"}]})) == ["keys[0].key"]
    assert list(errors({"keys": [""]})) == ["keys[0].key"]


def test_names_and_keys_are_unique_hashed_or_not() -> None:
    plain, hashed = "foo", "sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"
    assert list(errors({"keys": [plain, hashed]})) == ["keys[1]"]
    assert list(errors({"keys": [{"key": "a", "name": "x"}, {"key": "b", "name": "x"}]})) == ["keys[1].name"]


@pytest.mark.parametrize(
    "time", ["2027-01-01", "2027-01-01T00:00:00", "tomorrow", 5, "0001-01-01T00:00:00Z", "9999-01-01T00:00:00Z"]
)
def test_times_are_rfc_3339_with_a_zone(time: Any) -> None:
    assert list(errors({"keys": [{"key": "a", "expires_at": time}]})) == ["keys[0].expires_at"]


# secrets


def test_secrets_come_from_variables_files_and_credentials() -> None:
    document = {
        "keys": [{"key": {"$env": "K"}}],
        "accounts": [{"name": "f", "token": {"$file": "t"}}, {"name": "c", "token": {"$credential": "t"}}],
    }
    files = {"/etc/ds2d/t": b"from file\r\n", "/run/c/t": b"from systemd"}
    config = parsed(document, environ={"K": "sk-k", "CREDENTIALS_DIRECTORY": "/run/c"}, files=files)
    assert config.keys[0].key == Secret("sk-k", {"$env": "K"})
    assert [account.token and account.token.reveal() for account in config.accounts] == ["from file", "from systemd"]


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        ({"$env": "GONE"}, "the variable GONE is not set"),
        ({"$env": "EMPTY"}, "the variable EMPTY is not set"),
        ({"$file": "gone"}, "the file is missing"),
        ({"$file": "empty"}, "the file is empty"),
        ({"$file": "binary"}, "the file is not UTF-8"),
        ({"$file": "long"}, "the file is longer than a secret"),
        ({"$credential": "gone"}, "the file is missing"),
        ({"$credential": "../x"}, "a credential's name is no path"),
    ],
)
def test_a_secret_that_cannot_be_read_costs_its_entry_and_nothing_else(reference: dict[str, str], reason: str) -> None:
    document = {"keys": [{"key": reference, "name": "a"}, "sk-b"]}
    files = {"/etc/ds2d/empty": b"\n", "/etc/ds2d/binary": b"\xff", "/etc/ds2d/long": b"x" * 70000}
    config = parsed(document, environ={"EMPTY": "", "CREDENTIALS_DIRECTORY": "/run/c"}, files=files)
    broken, sound = config.keys
    assert (broken.usable, broken.problem, broken.digest) == (False, "secret_unreadable", None)
    assert sound.usable
    assert [str(warning) for warning in config.warnings] == [f"keys[0].key: {reason}; what needs it is out of use"]


def test_a_secret_kept_elsewhere_that_is_malformed_or_another_s_costs_its_entry_and_nothing_else() -> None:
    document = {
        "keys": [
            {"key": {"$file": "two-lines"}, "name": "a"},
            {"key": {"$env": "SAME"}, "name": "b"},
            "sk-same",
            {"key": {"$env": "HASH"}, "name": "d"},
            {"key": {"$env": "SAME"}, "name": "e"},
        ],
        "upstreams": [{**OPENAI, "name": "u"}, {**OPENAI, "name": "v", "headers": {"X": {"$env": "LINES"}}}],
        "accounts": [
            {"upstream": "u", "token": "tok\ninline"},
            {"upstream": "u", "token": {"$env": "LINES"}, "name": "lines"},
            {"upstream": "u", "token": "tok-same"},
            {"upstream": "u", "token": {"$env": "TOKEN"}},
        ],
    }
    environ = {"SAME": "sk-same", "HASH": "sha256:12", "LINES": "tok-x\ntok-y", "TOKEN": "tok-same"}
    config = parsed(document, environ=environ, files={"/etc/ds2d/two-lines": b"sk-one\nsk-two\n"})
    assert [key.usable for key in config.keys] == [False, False, True, False, False]
    assert [key.digest is None for key in config.keys] == [True, True, False, True, True]
    assert [account.problem for account in config.accounts] == ["secret_unusable", "secret_unusable", None, "secret_unusable"]
    assert [upstream.problem for upstream in config.upstreams] == [None, "secret_unusable"]
    told = [str(warning) for warning in config.warnings]
    assert sorted(told) == [
        "accounts[0].token: must be printable ASCII without blanks at its ends; the account is out of use",
        "accounts[1].token: must be printable ASCII without blanks at its ends; the account is out of use",
        "accounts[3].token: is the token of accounts[2]; the account is out of use",
        "keys[0].key: must not hold control characters, or blanks at its ends; the key is out of use",
        "keys[1].key: is the same key as keys[2]; the key is out of use",
        "keys[3].key: must have 64 hex digits after sha256:; the key is out of use",
        "keys[4].key: is the same key as keys[2]; the key is out of use",
        "upstreams[1].headers.X: must be printable ASCII; the upstream is out of use",
    ]


def test_every_file_that_was_asked_for_is_known_so_that_it_can_be_watched() -> None:
    document = {"keys": [{"key": {"$file": "../k"}}, {"key": {"$file": "gone"}}], "upstreams": [{**OPENAI, "ca_file": "ca.pem"}]}
    config = parsed(document, files={"/etc/k": b"sk-k", "/etc/ds2d/ca.pem": b"CA"})
    assert set(config.files) == {"/etc/k", "/etc/ds2d/gone", "/etc/ds2d/ca.pem"}
    assert config.files["/etc/ds2d/gone"] == ""


def test_an_upstream_is_out_of_use_without_its_header_its_client_secret_or_its_ca() -> None:
    login = {"type": "oauth2", "url": "/t", "client_id": "i", "client_secret": {"$env": "GONE"}}
    document = {
        "upstreams": [
            {**OPENAI, "name": "a", "headers": {"X": {"$env": "GONE"}}},
            {**OPENAI, "name": "b", "login": login},
            {**OPENAI, "name": "c", "ca_file": "gone.pem"},
            {**OPENAI, "name": "d", "headers": {"X": ""}},
        ]
    }
    config = parsed(document)
    assert [upstream.problem for upstream in config.upstreams] == [
        "secret_unreadable", "secret_unreadable", "ca_file_unreadable", None,
    ]  # fmt: skip
    assert config.upstreams[3].headers == {}


def test_a_secret_shows_itself_nowhere() -> None:
    config = parsed({"keys": ["sk-visible"], "accounts": [{"email": "e", "password": "pw-visible"}]})
    assert "visible" not in repr(config)
    with pytest.raises(TypeError):
        msgspec.json.encode(config)


# upstreams and accounts


@pytest.mark.parametrize(
    "url",
    [
        "ftp://host", "host:8000", "http://", "http://u:p@host/", "http://169.254.169.254/", "http://[fe80::1]/v1", "http://2852039166/",
        "http://0xa9fea9fe/", "http://0251.0376.0251.0376/", "http://[::ffff:169.254.169.254]/", "http://[64:ff9b::a9fe:a9fe]/",
        "http://metadata.google.internal/", "http://METADATA.google.internal./", "http://100.100.100.200", "http://[fd00:ec2::254]/",
        "http://host/a b", "http://host\\@other/", "http://host:99999/", "http://host:0/", "http://host/\n", "http://host/v1?x=1",
    ],
)  # fmt: skip
def test_base_urls_that_nobody_may_be_sent_to_are_refused(url: str) -> None:
    assert list(errors({"upstreams": [{"name": "a", "base_url": url}]})) == ["upstreams[0].base_url"]


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:8000", "http://[::1]:8000/v1", "https://api.deepseek.com", "http://gpu/v1/", "http://10.0.0.5:3000/api"],
)
def test_base_urls_of_real_servers_are_taken(url: str) -> None:
    assert parsed({"upstreams": [{"name": "a", "base_url": url}]}).upstreams[0].base_url == url


def test_what_an_upstream_needs_by_its_kind() -> None:
    assert errors({"upstreams": [{"name": "a"}]}) == {"upstreams[0].base_url": "is required for kind openai"}
    assert errors({"upstreams": [{"name": "a", "kind": "demo"}]}) == {}
    assert list(errors({"upstreams": [OPENAI, OPENAI]})) == ["upstreams[1].name"]


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"proxy": "socks4://x"}, "proxy"),
        ({"headers": {"Bad Name": "x"}}, 'headers["Bad Name"]'),
        ({"headers": {"Host": "x"}}, "headers.Host"),
        ({"headers": {"X": "a\r\nb"}}, "headers.X"),
        ({"login": {"type": "json"}}, "login.url"),
        ({"login": {"type": "json", "url": "http://169.254.1.1/"}}, "login.url"),
        ({"login": {"type": "oauth2", "url": "/t", "grant": "client_credentials", "client_id": "i"}}, "login.client_secret"),
        ({"login": {"type": "oauth2", "url": "/t", "grant": "client_credentials", "client_secret": "s"}}, "login.client_id"),
        ({"login": {"url": "/t"}}, "login.type"),
    ],
)
def test_an_upstream_that_could_not_be_called_is_an_error(change: dict[str, Any], path: str) -> None:
    assert list(errors({"upstreams": [{**OPENAI, **change}]})) == [f"upstreams[0].{path}"]


@pytest.mark.parametrize("proxy", ["direct", "env", "http://proxy:3128", "http://user:pw@proxy:3128", "", None])
def test_a_proxy_is_direct_the_environment_s_or_a_url(proxy: str | None) -> None:
    assert parsed({"upstreams": [{**OPENAI, "proxy": proxy}]}).upstreams[0].proxy == (proxy or None)


@pytest.mark.parametrize(
    ("upstream", "seconds"),
    [
        ({"base_url": "https://api.deepseek.com"}, 30),
        ({"base_url": "https://api.deepseek.com", "flavour": "generic"}, 2),
        ({"base_url": "https://api.deepseek.com.evil.example"}, 2),
        ({"base_url": "http://host/", "flavour": "deepseek"}, 30),
        ({"base_url": "http://host/", "flavour": "deepseek", "poll_seconds": 5}, 5),
        ({"base_url": "http://host/"}, 2),
    ],
)
def test_the_deepseek_api_is_polled_less_often(upstream: dict[str, Any], seconds: float) -> None:
    assert parsed({"upstreams": [{"name": "a", **upstream}]}).upstreams[0].poll_seconds == seconds


LOGIN = {**OPENAI, "name": "web", "login": {"type": "json", "url": "/signin"}}
CLIENT = {"type": "oauth2", "url": "/t", "grant": "client_credentials", "client_id": "i", "client_secret": "s"}
SERVICE = {**OPENAI, "name": "svc", "login": CLIENT}
DEMO = {"name": "demo", "kind": "demo"}
TOKEN, PASSWORD = {"token": "t"}, {"email": "e", "password": "p"}


@pytest.mark.parametrize(
    ("upstreams", "account", "placed"),
    [
        ([OPENAI, DEMO], TOKEN, "gpu"),
        ([LOGIN], PASSWORD, "web"),
        ([OPENAI, LOGIN], PASSWORD, "web"),
        ([OPENAI, LOGIN], TOKEN, None),
        ([OPENAI], PASSWORD, None),
        ([DEMO], TOKEN, None),
        ([], TOKEN, None),
        ([OPENAI], {**TOKEN, "upstream": "demo"}, None),
        ([OPENAI, DEMO], {**TOKEN, "upstream": "demo"}, None),
        ([OPENAI, LOGIN], {**PASSWORD, "upstream": "gpu"}, None),
        ([OPENAI, LOGIN], {**TOKEN, "upstream": "gpu"}, "gpu"),
        ([SERVICE], {"name": "n", "upstream": "svc"}, "svc"),
    ],
)
def test_an_account_goes_where_its_credential_fits_or_is_kept_out_of_use(
    upstreams: list[dict[str, Any]], account: dict[str, Any], placed: str | None
) -> None:
    config = parsed({"upstreams": upstreams, "accounts": [account]})
    (found,) = config.accounts
    if placed:
        assert (found.upstream, found.problem, config.warnings) == (placed, None, ())
    else:
        assert found.problem == "no_upstream"
        assert len(config.warnings) == 1


def test_a_misspelt_upstream_of_an_account_is_a_warning_with_the_right_name() -> None:
    assert (
        next(iter(parsed({"upstreams": [OPENAI], "accounts": [{**TOKEN, "upstream": "gpi"}]}).warnings)).hint
        == "did you mean gpu?"
    )


@pytest.mark.parametrize(
    "account", [{}, {"name": "x"}, {"email": "e"}, {"password": "p"}, {"token": ""}, {"email": "", "password": "p"}]
)
def test_an_account_without_a_credential_is_an_error(account: dict[str, Any]) -> None:
    assert list(errors({"accounts": [account]})) == ["accounts[0]"]


def test_two_accounts_have_no_name_in_common() -> None:
    email = {"email": "same", "password": "p"}
    assert list(errors({"accounts": [email, {**email, "password": "q"}]})) == ["accounts[1]"]
    assert list(errors({"accounts": [TOKEN, TOKEN]})) == ["accounts[1]"]
    assert list(errors({"accounts": [email, {"token": "t", "name": "same"}]})) == ["accounts[1]"]
    assert errors({"accounts": [{**TOKEN, "name": "a"}, {**TOKEN, "name": "b"}]}) == {}


def test_names_of_accounts_that_differ_in_case_only_are_one() -> None:
    """So callers and operators name them; the second of two could be reached by nobody."""
    found = errors({"accounts": [{"email": "b@x", "password": "p"}, {"token": "t", "name": "b@X"}]})
    assert found == {"accounts[1]": "has the same identifier, but for case, as accounts[0]"}
    assert errors({"accounts": [{"email": "b@x", "password": "p", "name": "B@x"}]}) == {}


def test_an_account_answers_to_all_its_names_and_is_called_by_the_first() -> None:
    (account,) = parsed({"accounts": [{"name": "n", "mobile": "1", "email": "e", "token": "t"}]}).accounts
    assert account.identifiers[:3] == ("e", "1", "n")
    assert account.identifiers[3].startswith("token:")
    assert account.identifier == "e"


# the rest


def test_a_model_may_name_one_upstream_or_several() -> None:
    models = parsed(
        {"upstreams": [OPENAI, DEMO], "models": {"a": {"upstream": "gpu"}, "b": {"upstream": ["gpu", "demo"]}, "c": {}}}
    ).models
    assert [model.upstream for model in models.values()] == [("gpu",), ("gpu", "demo"), ()]


def test_a_model_of_an_unknown_upstream_is_an_error_even_beside_a_faulty_one() -> None:
    document = {"upstreams": [{"name": "gpu"}], "models": {"a": {"upstream": "gpu"}, "b": {"upstream": "gpv"}}}
    assert errors(document) == {
        "upstreams[0].base_url": "is required for kind openai",
        "models.b.upstream": "no upstream is named gpv (did you mean gpu?)",
    }


@pytest.mark.parametrize("section", ["models", "model_aliases"])
def test_names_that_differ_in_case_only_are_one_name(section: str) -> None:
    value: Any = {} if section == "models" else "x"
    assert list(errors({section: {"GPT": value, "gpt": value}})) == [f"{section}.gpt"]
    assert list(errors({section: {" gpt": value}})) == [f'{section}[" gpt"]']


@pytest.mark.parametrize("network", ["10.0.0.0/8", "::1/128", "127.0.0.1", "10.0.0.5/8"])
def test_networks_are_addresses_or_cidr(network: str) -> None:
    assert errors({"server": {"open_networks": [network], "trusted_proxies": [network]}}) == {}


def test_a_network_that_is_everybody_is_warned_of() -> None:
    assert list(warnings({"server": {"open_networks": ["0.0.0.0/0"]}})) == ["server.open_networks[0]"]


def test_a_password_hash_that_cannot_match_is_warned_of() -> None:
    assert list(warnings({"admin": {"password_hash": "scrypt:..."}})) == ["admin.password_hash"]
    assert warnings({"admin": {"password_hash": HASH}}) == {}


def test_the_admin_key_of_the_environment_counts_until_there_is_a_password() -> None:
    environ = {"DS2API_ADMIN_KEY": "adm-x"}
    assert parsed({}, environ=environ).admin_key == Secret("adm-x")
    assert parsed({"admin": {"password_hash": HASH}}, environ=environ).admin_key is None
    assert parsed({}).admin_key is None


@pytest.mark.parametrize(
    ("server", "environ", "folder"),
    [
        ({}, {}, "/etc/ds2d/state"),
        ({}, {"STATE_DIRECTORY": "/var/lib/ds2d:/other"}, "/var/lib/ds2d"),
        ({"state_dir": "../here"}, {"STATE_DIRECTORY": "/var/lib/ds2d"}, "/etc/here"),
        ({"state_dir": "/abs"}, {}, "/abs"),
    ],
)
def test_the_state_folder(server: dict[str, Any], environ: dict[str, str], folder: str) -> None:
    assert parsed({"server": server}, environ=environ).state_dir == folder


# precedence


def test_a_flag_counts_before_a_variable_before_the_file_before_the_default() -> None:
    document = {"server": {"port": 1}}
    environ = {"PORT": "2"}
    assert (parsed({}).server.port, parsed({}).origin("server.port")) == (5001, "default")
    assert (parsed(document).server.port, parsed(document).origin("server.port")) == (1, "file")
    assert parsed(document, environ=environ).origin("server.port") == "$PORT"
    assert parsed(document, environ=environ).server.port == 2
    config = parsed(document, environ=environ, flags={"server.port": 3})
    assert (config.server.port, config.origin("server.port")) == (3, "flag")


def test_the_reference_system_s_limits_in_variables_count_after_the_file() -> None:
    environ = {"DS2API_ACCOUNT_MAX_INFLIGHT": "7", "DS2API_JWT_EXPIRE_HOURS": "5"}
    config = parsed({"runtime": {"account_max_inflight": 3}}, environ=environ)
    assert (config.runtime.account_max_inflight, config.origin("runtime.account_max_inflight")) == (3, "file")
    assert (config.admin.jwt_expire_hours, config.origin("admin.jwt_expire_hours")) == (5, "$DS2API_JWT_EXPIRE_HOURS")


@pytest.mark.parametrize(
    ("name", "value"), [("PORT", "x"), ("PORT", "70000"), ("LOG_LEVEL", "loud"), ("DS2API_JWT_EXPIRE_HOURS", "0")]
)
def test_a_bad_variable_is_an_error_under_its_own_name(name: str, value: str) -> None:
    assert list(errors({}, environ={name: value})) == [f"${name}"]


def test_a_variable_beside_a_faulty_key_of_its_section_leaves_the_error_alone() -> None:
    assert list(errors({"server": {"port": "x", "host": 5}}, environ={"PORT": "80"})) == ["server.host"]


@pytest.mark.parametrize("name", ["PORT", "LOG_LEVEL", "VERCEL_TOKEN", "DS2API_ADMIN_KEY"])
def test_an_empty_variable_counts_as_unset(name: str) -> None:
    assert parsed({}, environ={name: "  "}) == parsed({})


def test_vercel_s_variables_and_log_levels_of_other_systems() -> None:
    config = parsed({}, environ={"VERCEL_TOKEN": "vt", "VERCEL_PROJECT_ID": "p", "LOG_LEVEL": "WARN"})
    assert config.vercel.token == Secret("vt")
    assert (config.vercel.project_id, config.log.level) == ("p", "warning")


# any bytes

NAMES = [
    "keys", "key", "upstreams", "name", "kind", "base_url", "login", "type", "headers", "models", "upstream", "accounts", "token",
    "server", "runtime", "breaker", "api_keys", "claude_model_mapping", "auto_delete", "$env", "$file", "_", "ca_file",
]  # fmt: skip
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=3), inner, max_size=4),
    max_leaves=15,
)


@given(st.dictionaries(st.sampled_from(NAMES), VALUES))
def test_any_document_is_a_config_or_a_list_of_errors(document: dict[str, Any]) -> None:
    raw = json.dumps(document).encode()
    try:
        parse(raw, environ={}, base_dir="/", read_file=lambda _: b"x")
    except ConfigErrors as found:
        if not found.errors:
            raise AssertionError from found


@given(st.binary(max_size=40))
def test_any_bytes_are_a_config_or_a_list_of_errors(raw: bytes) -> None:
    try:
        parse(raw, environ={}, base_dir="/", read_file=lambda _: b"x")
    except ConfigErrors as found:
        if not found.errors:
            raise AssertionError from found
