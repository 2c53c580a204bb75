"""Accounts that log in: a token for email or mobile and password, or for a client's id and secret.

Rule: secrets go into the call and nowhere else: no message, no repr. What a login refuses is UPSTREAM_AUTH, our trouble.
Surprise: a wrong password is a 400 with OAuth2 (RFC 6749 5.2, `invalid_grant`) and with Open WebUI, not a 401.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Generator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote_plus, urlencode, urljoin

import msgspec
import orjson

from ds2d.core.calls import Call, Reply
from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.settings import AccountSpec, JsonLogin, OAuth2Login, UpstreamSpec
from ds2d.upstreams.openai.ask import fixed_headers
from ds2d.upstreams.openai.classify import retry_delay
from ds2d.upstreams.openai.refusal import read_body

UNIX_SECONDS_FROM = 1_000_000_000
"""A number from here on is a point in time, not a span; from a thousand times as much on it is in milliseconds."""


class Token(msgspec.Struct, frozen=True):
    """What a login gave; `expires_in` is seconds from now, None where the server did not say."""

    value: str
    expires_in: float | None = None

    def __repr__(self) -> str:
        return f"Token(…, expires_in={self.expires_in})"


def login(upstream: UpstreamSpec, account: AccountSpec | None, now: float) -> Generator[Call, Reply, Token]:
    """The steps of one login. `now` is Unix seconds, for servers that tell when a token ends.

    Raises GatewayError: UPSTREAM_AUTH for refused or missing credentials, UPSTREAM_RATE_LIMITED with the delay,
    UPSTREAM_NOT_FOUND, UPSTREAM_ERROR, UPSTREAM_GARBLED for an answer without a token.
    """
    spec = upstream.login
    if spec is None:
        raise GatewayError(ErrorKind.UPSTREAM_AUTH, "The upstream has no login configured.")
    call = _json_call(upstream, spec, account) if isinstance(spec, JsonLogin) else _oauth2_call(upstream, spec, account)
    reply = yield call
    if not 200 <= reply.status < 300:
        raise _refused(reply)
    try:
        answer = orjson.loads(reply.body)
    except orjson.JSONDecodeError as error:
        raise GatewayError(ErrorKind.UPSTREAM_GARBLED, "The upstream's login sent an answer that is not JSON.") from error
    paths = (spec.token_path, spec.expires_path) if isinstance(spec, JsonLogin) else ("access_token", "expires_in")
    token = _at(answer, paths[0])
    if not isinstance(token, str) or not token.strip() or not token.isprintable():
        raise GatewayError(ErrorKind.UPSTREAM_GARBLED, "The upstream's login sent an answer without a token.")
    return Token(token.strip(), _expires_in(_at(answer, paths[1]), now) if paths[1] else None)


def _json_call(upstream: UpstreamSpec, spec: JsonLogin, account: AccountSpec | None) -> Call:
    user, password = _credentials(account)
    body = orjson.dumps({spec.user_field: user, spec.password_field: password})
    return _call(upstream, spec.url, "application/json", body)


def _oauth2_call(upstream: UpstreamSpec, spec: OAuth2Login, account: AccountSpec | None) -> Call:
    """RFC 6749 4.3.2, 4.4.2; a client with a secret authenticates by HTTP Basic, its parts form-encoded (2.3.1)."""
    fields: dict[str, str] = {"grant_type": spec.grant}
    if spec.grant == "password":
        fields["username"], fields["password"] = _credentials(account)
    if spec.scope:
        fields["scope"] = spec.scope
    secret = spec.client_secret.reveal() if spec.client_secret else None
    headers = {}
    if secret:
        pair = f"{quote_plus(spec.client_id)}:{quote_plus(secret)}"
        headers["authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
    elif spec.client_id:
        fields["client_id"] = spec.client_id
    return _call(upstream, spec.url, "application/x-www-form-urlencoded", urlencode(fields).encode(), headers)


def _credentials(account: AccountSpec | None) -> tuple[str, str]:
    user = (account.email or account.mobile) if account else None
    password = account.password.reveal() if account and account.password else None
    if not user or not password:
        raise GatewayError(ErrorKind.UPSTREAM_AUTH, "The upstream's account has no user name and password to log in with.")
    return user, password


def _call(upstream: UpstreamSpec, url: str, content_type: str, body: bytes, headers: dict[str, str] | None = None) -> Call:
    ours = {"content-type": content_type, "accept": "application/json", **(headers or {})}
    return Call("POST", urljoin(upstream.base_url, url), {**fixed_headers(upstream), **ours}, body, upstream=upstream)


def _refused(reply: Reply) -> GatewayError:
    if reply.status == 429:
        delay = retry_delay(read_body(reply.body), reply.headers)
        return GatewayError(ErrorKind.UPSTREAM_RATE_LIMITED, "The upstream limits the rate of logins.", retry_after=delay)
    if reply.status in (404, 405):
        return GatewayError(ErrorKind.UPSTREAM_NOT_FOUND, "The upstream has no login at the configured URL.")
    if 400 <= reply.status < 500:
        return GatewayError(ErrorKind.UPSTREAM_AUTH, "The upstream refused the account's login.")
    return GatewayError(ErrorKind.UPSTREAM_ERROR, "The upstream's login failed.")


def _at(answer: Any, path: str | None) -> Any:
    """The value at a path of names joined by dots; None if it is not there."""
    for name in (path or "").split("."):
        answer = answer.get(name) if isinstance(answer, dict) else None
    return answer


def _expires_in(value: Any, now: float) -> float | None:
    """Seconds from now, from a span, a point in Unix time, or RFC 3339; None for anything else or the past."""
    if isinstance(value, str):
        value = _number(value)
    if type(value) not in (int, float) or not math.isfinite(value):
        return None
    if value >= 1000 * UNIX_SECONDS_FROM:
        value /= 1000
    span = value - now if value >= UNIX_SECONDS_FROM else value
    return float(span) if span > 0 else None


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        pass
    try:
        date = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
