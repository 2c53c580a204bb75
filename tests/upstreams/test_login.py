"""Logins as scripted conversations: what is asked, and what becomes of the answer (config.md 2, RFC 6749)."""

from __future__ import annotations

import base64
from typing import Any
from urllib.parse import parse_qs

import orjson
import pytest

from ds2d.core.calls import Call, Reply
from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.settings import AccountSpec, JsonLogin, OAuth2Login, Secret, UpstreamSpec
from ds2d.upstreams.openai import Token, login

NOW = 1_790_000_000.0
USER = AccountSpec(email="user@example.com", password=Secret("pass word"))
WEBUI = UpstreamSpec(
    name="webui",
    base_url="http://10.0.0.5:3000/api",
    headers={"X-Team": Secret("blue")},
    login=JsonLogin(url="/api/v1/auths/signin", expires_path="data.expires_at"),
)


def sso(**fields: Any) -> UpstreamSpec:
    made = OAuth2Login(url="https://sso.example/token", **fields)
    return UpstreamSpec(name="sso", base_url="http://10.0.0.6:8000/v1", login=made)


def asked(upstream: UpstreamSpec, account: AccountSpec | None = USER) -> Call:
    return next(login(upstream, account, NOW))


def answered(upstream: UpstreamSpec, status: int, body: Any, headers: dict[str, str] | None = None) -> Token:
    """The token of a conversation of one question and this answer."""
    steps = login(upstream, USER, NOW)
    next(steps)
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    try:
        steps.send(Reply(status, headers or {}, raw))
    except StopIteration as stop:
        token: Token = stop.value
        return token
    raise AssertionError("it asked again")


def test_a_json_login_asks_below_the_origin_with_the_configured_fields() -> None:
    call = asked(WEBUI)
    assert (call.method, call.path) == ("POST", "http://10.0.0.5:3000/api/v1/auths/signin")
    assert orjson.loads(call.body or b"") == {"email": "user@example.com", "password": "pass word"}
    assert call.headers["content-type"] == "application/json"
    assert call.headers["x-team"] == "blue"
    assert "authorization" not in call.headers


def test_a_mobile_number_is_a_user_name_too() -> None:
    account = AccountSpec(mobile="+86 1", password=Secret("p"))
    fields = JsonLogin(url="/login", user_field="user", password_field="pw")
    body = asked(UpstreamSpec(name="x", base_url="http://h", login=fields), account).body
    assert orjson.loads(body or b"") == {"user": "+86 1", "pw": "p"}


def form(call: Call) -> dict[str, str]:
    assert call.headers["content-type"] == "application/x-www-form-urlencoded"
    return {name: values[0] for name, values in parse_qs((call.body or b"").decode(), strict_parsing=True).items()}


def test_the_password_grant_sends_a_form_and_the_client_by_basic_authentication() -> None:
    call = asked(sso(client_id="ds2d:x", client_secret=Secret("s&c ret"), scope="a b"))
    assert call.path == "https://sso.example/token"
    assert form(call) == {"grant_type": "password", "username": "user@example.com", "password": "pass word", "scope": "a b"}
    assert base64.b64decode(call.headers["authorization"].removeprefix("Basic ")) == b"ds2d%3Ax:s%26c+ret"


def test_a_public_client_names_itself_in_the_form() -> None:
    call = asked(sso(client_id="ds2d"))
    assert form(call)["client_id"] == "ds2d"
    assert "authorization" not in call.headers


def test_client_credentials_need_no_account() -> None:
    call = asked(sso(grant="client_credentials", client_id="ds2d", client_secret=Secret("s")), None)
    assert form(call) == {"grant_type": "client_credentials"}


@pytest.mark.parametrize(
    ("end", "seconds"),
    [
        (3600, 3600),
        ("3600", 3600),
        (NOW + 60, 60),
        ((NOW + 60) * 1000, 60),
        ("2026-09-21T14:14:20Z", 60),
        ("2026-09-21T14:14:20", 60),
        (NOW - 60, None),
        (0, None),
        (True, None),
        ("nan", None),
        ("inf", None),
        ("soon", None),
        (None, None),
    ],
)
def test_the_end_of_a_token_is_a_span_or_a_point_in_time(end: Any, seconds: float | None) -> None:
    assert answered(WEBUI, 200, {"token": "t", "data": {"expires_at": end}}) == Token("t", seconds)


def test_an_oauth2_answer_gives_its_access_token() -> None:
    body = {"access_token": "t", "token_type": "bearer", "expires_in": 300}
    assert answered(sso(client_id="x"), 200, body) == Token("t", 300)


def test_a_token_may_stand_deeper() -> None:
    upstream = UpstreamSpec(name="x", base_url="http://h", login=JsonLogin(url="/l", token_path="data.auth.token"))
    assert answered(upstream, 201, {"data": {"auth": {"token": " t "}}}) == Token("t", None)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, {"error": "invalid_grant"}, ErrorKind.UPSTREAM_AUTH),
        (400, {"detail": "The email or password provided is incorrect."}, ErrorKind.UPSTREAM_AUTH),
        (401, b"", ErrorKind.UPSTREAM_AUTH),
        (403, b"", ErrorKind.UPSTREAM_AUTH),
        (404, b"", ErrorKind.UPSTREAM_NOT_FOUND),
        (429, b"", ErrorKind.UPSTREAM_RATE_LIMITED),
        (302, b"", ErrorKind.UPSTREAM_ERROR),
        (500, b"", ErrorKind.UPSTREAM_ERROR),
        (200, b"<html>", ErrorKind.UPSTREAM_GARBLED),
        (200, {}, ErrorKind.UPSTREAM_GARBLED),
        (200, [], ErrorKind.UPSTREAM_GARBLED),
        (200, {"token": ""}, ErrorKind.UPSTREAM_GARBLED),
        (200, {"token": "a\r\nX-Evil: 1"}, ErrorKind.UPSTREAM_GARBLED),
        (200, {"token": 7}, ErrorKind.UPSTREAM_GARBLED),
    ],
)
def test_a_login_that_fails_says_why_and_nothing_secret(status: int, body: Any, kind: ErrorKind) -> None:
    with pytest.raises(GatewayError) as caught:
        answered(WEBUI, status, body)
    assert caught.value.kind is kind
    assert "pass word" not in caught.value.message
    assert "user@" not in caught.value.message


def test_a_limited_login_keeps_its_delay() -> None:
    with pytest.raises(GatewayError) as caught:
        answered(WEBUI, 429, b"", {"retry-after": "5"})
    assert caught.value.retry_after == 5


@pytest.mark.parametrize(
    "account", [None, AccountSpec(token=Secret("t")), AccountSpec(email="a"), AccountSpec(email="a", password=Secret(None))]
)
def test_without_credentials_nothing_is_asked(account: AccountSpec | None) -> None:
    with pytest.raises(GatewayError) as caught:
        asked(WEBUI, account)
    assert caught.value.kind is ErrorKind.UPSTREAM_AUTH


def test_an_upstream_without_a_login_has_none() -> None:
    with pytest.raises(GatewayError) as caught:
        asked(UpstreamSpec(name="x", base_url="http://h"))
    assert caught.value.kind is ErrorKind.UPSTREAM_AUTH


def test_a_token_does_not_show_itself() -> None:
    assert "secret" not in f"{Token('secret', 5)!r} {Token('secret')}"
