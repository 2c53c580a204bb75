"""Hashes of keys and passwords, and comparing with them.

Rule: comparisons take the same time whatever differs; a stored hash whose costs are absurd is refused, not computed.
Surprise: verifying a scrypt hash takes some 50 ms and 32 MB on purpose: never on the event loop.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re

SCRYPT_N, SCRYPT_R, SCRYPT_P = 2**15, 8, 1
"""Cost of new hashes: 32 MB and tens of milliseconds."""

_MAX_MEMORY = 2**28
_MAX_P = 16
_SHA256 = re.compile(r"sha256:[0-9a-fA-F]{64}")


def hash_key(key: str) -> str:
    """`sha256:` and the hex digest of an API key; one that is a hash already comes back in lower case."""
    if is_hashed(key):
        return key.lower()
    return "sha256:" + hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def is_hashed(key: str) -> bool:
    """Whether it is `sha256:` with 64 hex digits, not a key."""
    return _SHA256.fullmatch(key) is not None


def hash_password(password: str, salt: bytes) -> str:
    """`scrypt:N:r:p:salt:hash`, the last two in base64. `salt` is 16 random bytes."""
    return f"scrypt:{SCRYPT_N}:{SCRYPT_R}:{SCRYPT_P}:{_text(salt)}:{_text(_scrypt(password, salt, SCRYPT_N, SCRYPT_R, SCRYPT_P))}"


def verify_password(stored: str, given: str) -> bool:
    """Whether `given` is the password behind a `scrypt:...` or `sha256:<hex>` hash. False for any other stored text."""
    if is_hashed(stored):
        digest = hashlib.sha256(given.encode("utf-8", "surrogatepass")).hexdigest()
        return hmac.compare_digest(stored.lower(), f"sha256:{digest}")
    parts = _scrypt_parts(stored)
    if parts is None:
        return False
    n, r, p, salt, expected = parts
    return hmac.compare_digest(_scrypt(given, salt, n, r, p), expected)


def is_password_hash(stored: str) -> bool:
    """Whether `verify_password` can say yes to it."""
    return is_hashed(stored) or _scrypt_parts(stored) is not None


def _scrypt(password: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    data = password.encode("utf-8", "surrogatepass")
    return hashlib.scrypt(data, salt=salt, n=n, r=r, p=p, maxmem=2 * _MAX_MEMORY, dklen=32)


def _scrypt_parts(stored: str) -> tuple[int, int, int, bytes, bytes] | None:
    """N, r, p, salt and hash; None if it is not such a hash or its costs are out of bounds."""
    try:
        scheme, *costs, salt_text, hash_text = stored.split(":")
        n, r, p = map(int, costs)
        salt, expected = (base64.b64decode(text, validate=True) for text in (salt_text, hash_text))
    except (ValueError, binascii.Error):
        return None
    sane = n >= 2 and n & (n - 1) == 0 and r >= 1 and 128 * n * r <= _MAX_MEMORY and 1 <= p <= _MAX_P
    if scheme != "scrypt" or not sane or len(salt) < 8 or len(expected) != 32:
        return None
    return n, r, p, salt, expected


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
