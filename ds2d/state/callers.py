"""Which keys there are, and who a credential belongs to.

Rule: one function decides, for every dialect and route; unknown, disabled and expired keys cost the same and, from the
outside, differ only where errors.md says so.
Surprise: keys are looked up by a keyed hash with a secret of this process, so the time of a look-up tells nothing about
how close a guess came, and ten thousand keys cost no more than one.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta

import msgspec
import orjson

from ds2d.core.caller import DIRECT, Caller
from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.settings import KeySpec
from ds2d.core.sizes import Size, Sizes
from ds2d.state.ledger_file import KeyRecord

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


MAX_LENT = 64
"""Credentials for one request that may be out at once."""


class _Entry(msgspec.Struct, frozen=True):
    digest: bytes
    caller: Caller


class Callers:
    """The keys of the current config. `secret` is random per process; `now` gives aware UTC time; `first_used` tells when a
    caller was first seen, for keys whose days count from there."""

    def __init__(
        self, secret: bytes, now: Callable[[], datetime], first_used: Callable[[str], datetime | None] = lambda _caller: None
    ) -> None:
        self._secret = secret
        self._now = now
        self._first_used = first_used
        self._entries: dict[bytes, _Entry] = {}
        self._by_id: dict[str, Caller] = {}
        self._anonymous: Caller = Caller("anonymous", "anonymous")
        self._open: tuple[Network, ...] = ()
        self._direct = False
        self._lent: dict[bytes, str] = {}

    def apply(self, keys: Sequence[KeySpec], open_networks: Iterable[str], direct_token: bool) -> None:
        """Take the keys of a new config; removed ones stop working with the next request."""
        entries: dict[bytes, _Entry] = {}
        anonymous = Caller("anonymous", "anonymous")
        for index, spec in enumerate(keys):
            digest = spec.digest
            if spec.name == "anonymous" and digest is None:
                anonymous = Caller("anonymous", "anonymous", spec)
            elif digest is not None:
                caller = Caller(digest, spec.name or f"key-{index + 1}", spec)
                blinded = self._blind(digest)
                entries[blinded] = _Entry(bytes.fromhex(digest), caller)
        self._entries = entries
        self._by_id = {entry.caller.id: entry.caller for entry in entries.values()}
        self._anonymous = anonymous
        self._open = tuple(ipaddress.ip_network(network, strict=False) for network in open_networks)
        self._direct = direct_token

    def sizes(self) -> Sizes:
        """Credentials that are lent out; the keys are config's own."""
        return {"lent": Size(len(self._lent), MAX_LENT)}

    def find(self, key: str) -> Caller | None:
        """The caller of this key, whatever its state; None for an unknown one."""
        digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
        blinded = self._blind(digest)
        entry = self._entries.get(blinded)
        if entry is None and (lent := self._lent.pop(blinded, None)) is not None:
            return next((entry.caller for entry in self._entries.values() if entry.caller.id == lent), None)
        if entry and hmac.compare_digest(entry.digest, bytes.fromhex(digest)):
            return entry.caller
        return None

    def known(self, caller_id: str) -> Caller:
        """The caller of this id, with its limits where the config has any for it."""
        if caller_id == self._anonymous.id:
            return self._anonymous
        return self._by_id.get(caller_id) or Caller(caller_id, "")

    def lend(self, caller_id: str) -> str:
        """A credential with this caller's rights that is good for one request of ours."""
        key = f"once-{secrets.token_hex(24)}"
        if len(self._lent) >= MAX_LENT:
            self._lent.clear()  # requests that never came
        self._lent[self._blind(hashlib.sha256(key.encode()).hexdigest())] = caller_id
        return key

    def identify(self, credentials: Sequence[str], peer: str | None) -> Caller:
        """Who asks, by errors.md 2: the first known key counts; then a direct token, if it is the only credential; then an
        open network. `peer` is the address the request counts by, None if it must not count as open.

        Raises GatewayError: INVALID_KEY, or KEY_EXPIRED for a known key out of use.
        """
        for credential in credentials:
            caller = self.find(credential)
            if caller is not None:
                return self._usable(caller)
        if self._direct and len(set(credentials)) == 1:
            digest = hashlib.sha256(credentials[0].encode("utf-8", "surrogatepass")).hexdigest()
            return Caller(DIRECT + digest, "direct", None, credentials[0])
        if self.is_open(peer):
            return self._usable(self._anonymous)
        message = "The API key is not valid." if credentials else "An API key is needed: send Authorization: Bearer <key>."
        raise GatewayError(ErrorKind.INVALID_KEY, message)

    def _usable(self, caller: Caller) -> Caller:
        spec = caller.spec
        if spec is None:
            return caller
        if spec.disabled or spec.deleted_at is not None:
            raise GatewayError(ErrorKind.KEY_EXPIRED, "This API key is no longer in use.")
        if (end := expiry(spec, self._first_used(caller.id))) is not None and end <= self._now():
            raise GatewayError(ErrorKind.KEY_EXPIRED, "This API key has expired.")
        return caller

    def is_open(self, peer: str | None) -> bool:
        """Whether a request that counts by this address needs no key; None is none."""
        if peer is None:
            return False
        try:
            address = ipaddress.ip_address(peer)
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None)
        return any((mapped or address) in network or address in network for network in self._open)

    def _blind(self, digest: str) -> bytes:
        return hashlib.blake2b(digest.encode(), digest_size=32, key=self._secret).digest()


def expiry(spec: KeySpec, first_used: datetime | None = None) -> datetime | None:
    """When this key ends: the earlier of `expires_at` and `active_days` after `created_at`, without one after its first use."""
    ends = [spec.expires_at] if spec.expires_at else []
    begins = spec.created_at or first_used
    if spec.active_days is not None and begins is not None:
        ends.append(begins + timedelta(days=spec.active_days))
    return min(ends) if ends else None


def key_records(keys: Iterable[KeySpec]) -> list[KeyRecord]:
    """The keys as the ledger keeps them. `models` is the allow list as JSON."""
    return [
        KeyRecord(
            spec.digest or "anonymous",
            spec.name or f"key-{index}",
            orjson.dumps(spec.models or ("*",)).decode(),
            spec.max_tokens,
            spec.max_prompt_tokens,
            spec.max_completion_tokens,
            spec.active_days,
            *(when.timestamp() if when else None for when in (spec.created_at, spec.expires_at, spec.deleted_at)),
        )
        for index, spec in enumerate(keys, 1)
        if spec.digest is not None or spec.name == "anonymous"
    ]
