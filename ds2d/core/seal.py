"""Text that a client carries for us and brings back: reasoning in encrypted items and thought signatures.

Rule: what comes back is either exactly what we gave out, or nothing; foreign, cut and altered tokens are no error.
Surprise: it is signed, not encrypted. The client may read its own model's reasoning, it just cannot invent any.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import zlib

MAX_TEXT = 8 * 1024 * 1024
"""Bytes of text that a token may hold; longer ones are not opened."""

_VERSION = "ds1_"
_MAC_SIZE = 16


class Sealer:
    """Makes and opens tokens with one key; tokens of another key are foreign. Equal texts give equal tokens."""

    def __init__(self, key: bytes) -> None:
        self._key = hmac.digest(key, b"ds2d seal 1", hashlib.sha256)  # the same key may serve other purposes

    def seal(self, text: str) -> str:
        """A token for `text`: letters, digits, `-` and `_`."""
        packed = zlib.compress(text.encode())
        return _encode(self._mac(packed) + packed)

    def unseal(self, token: str) -> str | None:
        """The text of a token that this key made; None for anything else."""
        raw = _decode(token)
        if raw is None or len(raw) <= _MAC_SIZE:
            return None
        mac, packed = raw[:_MAC_SIZE], raw[_MAC_SIZE:]
        if not hmac.compare_digest(mac, self._mac(packed)):
            return None
        return _unpack(packed)

    def _mac(self, packed: bytes) -> bytes:
        return hmac.digest(self._key, packed, hashlib.sha256)[:_MAC_SIZE]


def _encode(raw: bytes) -> str:
    return _VERSION + base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _decode(token: str) -> bytes | None:
    body = token.removeprefix(_VERSION)
    if len(body) > 2 * MAX_TEXT or not body.isascii():
        return None
    try:
        raw = base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))
    except ValueError:
        return None
    return raw if _encode(raw) == token else None  # one spelling only: no prefix forgotten, no spare bits, no line ends


def _unpack(packed: bytes) -> str | None:
    """Bounded while it grows: a small token can hold a huge text."""
    opener = zlib.decompressobj()
    try:
        text = opener.decompress(packed, MAX_TEXT)
        return text.decode() if opener.eof else None
    except (zlib.error, UnicodeDecodeError):
        return None
