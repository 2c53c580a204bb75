"""Who may administer: logins, their tokens, and the one check that stands before every admin route.

Rule: nothing of a body is read before the check; a token's header is compared as a whole, its algorithm is never asked for;
no token outlives 30 days, a change of the key, or a restart into another generation (reliability.md, keys).
Surprise: a token carries a keyed hash of the credential besides the generation, so that a hash edited in config.json by
hand ends all logins as well as a change through the API does.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
import socket
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import urlsplit

import msgspec
from aiohttp import web

from ds2d.config.schema import Config
from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.state.admin_file import AdminFile
from ds2d.web.admin_key import WRONG, AdminKey
from ds2d.web.auth import peer_of

ALGORITHM = "HS256"
HEADER = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9"
"""The first part of every token we make: `{"alg":"HS256","typ":"JWT"}`."""

MAX_SECONDS = 720 * 3600


class Admin(msgspec.Struct, frozen=True):
    """Who asks, for the audit: `who` is `key` or a login's id, `address` is where from. `claims` of a login's token."""

    who: str
    address: str
    claims: dict[str, Any] | None = None


class Sessions:
    """Makes and checks tokens. `secret` is this installation's random key; `wall` is Unix seconds."""

    def __init__(
        self, config: Callable[[], Config], key: AdminKey, secret: bytes, file: AdminFile, wall: Callable[[], float]
    ) -> None:
        self._config = config
        self._key = key
        self._secret = secret
        self._file = file
        self._wall = wall

    @property
    def key(self) -> AdminKey:
        """The admin key itself."""
        return self._key

    @property
    def generation(self) -> int:
        """The generation whose tokens count."""
        return self._file.kept.generation

    def issue(self, hours: int | None = None) -> tuple[str, int]:
        """A token, and the seconds for which it holds."""
        import jwt  # noqa: PLC0415 - brings a library of ciphers, which a start has no time for

        life = (hours or self._config().admin.jwt_expire_hours) * 3600
        now = int(self._wall())
        claims = {"iat": now, "exp": now + life, "jti": secrets.token_hex(16), "gen": self.generation, "key": self._stamp()}
        return jwt.encode(claims, self._secret, ALGORITHM), life

    def end_all(self) -> None:
        """Let no token count that was made before this. Raises OSError."""
        self._file.raise_generation()

    def claims(self, token: str) -> dict[str, Any]:
        """What a token says. Raises INVALID_KEY with the same words whatever is wrong with it."""
        import jwt  # noqa: PLC0415 - see `issue`

        try:
            if not hmac.compare_digest(token.partition(".")[0].encode(), HEADER.encode()):
                raise jwt.InvalidTokenError
            options = {"require": ["iat", "exp", "jti", "gen", "key"], "verify_exp": False, "verify_iat": False}
            claims: dict[str, Any] = jwt.decode(token, self._secret, algorithms=[ALGORITHM], options=options)  # type: ignore[arg-type]
        except (jwt.InvalidTokenError, ValueError):
            raise GatewayError(ErrorKind.INVALID_KEY, WRONG) from None
        if not self._holds(claims):
            raise GatewayError(ErrorKind.INVALID_KEY, WRONG)
        return claims

    def _holds(self, claims: dict[str, Any]) -> bool:
        begun, end, now = claims["iat"], claims["exp"], self._wall()
        if not (isinstance(begun, int) and isinstance(end, int) and 0 < end - begun <= MAX_SECONDS and now < end):
            return False
        same = hmac.compare_digest(str(claims["key"]).encode(), self._stamp().encode())
        return same and claims["gen"] == self.generation and begun >= self._config().admin.jwt_valid_after_unix

    def _stamp(self) -> str:
        return hmac.digest(self._secret, hashlib.sha256(self._key.credential.encode()).digest(), "sha256").hex()[:32]


class Guard:
    """The check before every admin route."""

    def __init__(self, config: Callable[[], Config], sessions: Sessions) -> None:
        self._config = config
        self._sessions = sessions
        self._own = frozenset({socket.gethostname().lower(), socket.getfqdn().lower()})

    async def admit(self, request: web.Request, auth: str) -> Admin:
        """Who asks. `auth` is the route's: `none` (login itself), `jwt`, or `admin` for either.

        Raises FORBIDDEN (admin off, foreign Host or Origin), INVALID_KEY, RATE_LIMITED.
        """
        self._check_origin(request)
        self._sessions.key.check_on()
        address = self.address(request)
        if auth == "none":
            return Admin("login", address)
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            raise GatewayError(ErrorKind.INVALID_KEY, "Authorization: Bearer <token> is needed.")
        if auth == "jwt" or _is_token(token):
            claims = self._sessions.claims(token)
            return Admin(f"login {str(claims['jti'])[:8]}", address, claims)
        await self._sessions.key.check(token, address)
        return Admin("key", address)

    def address(self, request: web.Request) -> str:
        """Where a request comes from: through a trusted proxy what that says, else its connection's other end."""
        peer = peer_of(request, self._config().server.trusted_proxies)
        if peer is None:
            transport = request.transport
            name = transport.get_extra_info("peername") if transport else None
            peer = name[0] if isinstance(name, tuple) and name else "127.0.0.1"
        return str(peer)

    def _check_origin(self, request: web.Request) -> None:
        allowed = self._config().admin.allowed_hosts
        if not self._is_ours(_host_of("//" + request.headers.get("Host", "")), allowed):
            raise GatewayError(ErrorKind.FORBIDDEN, "This Host is not one of this server's: add it to admin.allowed_hosts.")
        origin = request.headers.get("Origin")
        if origin is not None and not self._is_ours(_host_of(origin), allowed):
            raise GatewayError(ErrorKind.FORBIDDEN, "This Origin is not one of this server's: add it to admin.allowed_hosts.")

    def _is_ours(self, host: str, allowed: Iterable[str]) -> bool:
        """Whether no other site's name server can have made a browser believe in this name."""
        if not host:
            return False
        if host == "localhost" or host.endswith(".localhost") or host in self._own:
            return True
        if any(host == name.lower().rstrip(".") for name in allowed):
            return True
        try:
            ipaddress.ip_address(host)
        except ValueError:
            return False
        return True


def _is_token(text: str) -> bool:
    """Whether it has the form of a token; such a text is never tried as a key."""
    return text.startswith("eyJ") and text.count(".") == 2


def _host_of(url: str) -> str:
    try:
        return (urlsplit(url).hostname or "").lower().rstrip(".")
    except ValueError:
        return ""
