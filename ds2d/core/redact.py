"""Secrets taken out of what is shown, logged or kept: one function for texts and for structures.

Rule: a secret that is known is masked wherever it stands; one that is not known is recognised by its field's name, its
header, or its form. What is masked keeps its place and type. Linear in the size of the value.
Surprise: a mask shows the first five and last two characters of a long secret, so that people can tell keys apart; of a
short one that would be most of it, so nothing is shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

MASK = "…"

SECRET_NAMES = frozenset(
    {
        "access_token", "admin_key", "api_key", "apikey", "authorization", "client_secret", "cookie", "id_token", "key",
        "new_password", "passwd", "password", "password_hash", "proxy_authorization", "refresh_token", "secret", "set_cookie",
        "token", "vercel_token", "x_api_key", "x_goog_api_key", "x_vercel_protection_bypass",
    }
)  # fmt: skip
"""Names of fields and headers whose text is a secret, in lower case with _ for -."""

_SHORT = 12
_FORMS = re.compile(
    r"(?P<scheme>\b(?:Bearer|Basic)\s+)(?P<credential>[A-Za-z0-9._~+/=-]{8,512})"
    r"|(?P<query>[?&](?:key|token|api_key|access_token)=)(?P<value>[^&\s\"'#]{1,512})"
    r"|(?P<user>://)(?P<info>[^/\s@\"'?#]{1,256}@)"
    r"|(?P<known>\b(?:sk|adm|gh[opsu]|xox[abp]|hf)[-_][A-Za-z0-9_-]{12,256})"
    r"|(?P<jwt>\beyJ[A-Za-z0-9_-]{8,2048}\.[A-Za-z0-9_-]{8,4096}\.[A-Za-z0-9_-]{8,2048})"
    r"|(?P<hash>\bscrypt:[0-9]+:[0-9]+:[0-9]+:[A-Za-z0-9+/=]{1,128}:[A-Za-z0-9+/=]{1,256})",
    re.IGNORECASE,
)


def mask(secret: str) -> str:
    """What may be shown of a secret: `sk-ab…xy`; of a hash `sha256:ab12…`; nothing of a short one."""
    if secret.startswith("sha256:"):
        return secret[:11] + MASK
    if len(secret) < _SHORT:
        return MASK
    return f"{secret[:5]}{MASK}{secret[-2:]}"


def redact(value: Any, secrets: Iterable[str] = ()) -> Any:
    """A copy of a text or of JSON data without secrets: the given ones, and those of a known name or form."""
    known = sorted({secret for secret in secrets if len(secret) >= 4}, key=len, reverse=True)
    return _clean(value, re.compile("|".join(map(re.escape, known))) if known else None)


def _clean(value: Any, known: re.Pattern[str] | None) -> Any:
    if isinstance(value, str):
        text = known.sub(lambda found: mask(found[0]), value) if known else value
        return _FORMS.sub(_masked, text)
    if isinstance(value, dict):
        return {_clean(name, known) if isinstance(name, str) else name: _field(name, item, known) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(item, known) for item in value]
    return value


def _field(name: Any, value: Any, known: re.Pattern[str] | None) -> Any:
    """The value of a field: masked whole where its name says that it is a secret."""
    if isinstance(value, str) and isinstance(name, str) and name.lower().replace("-", "_") in SECRET_NAMES:
        return mask(value) if value else value
    return _clean(value, known)


def _masked(found: re.Match[str]) -> str:
    if found["scheme"]:
        return found["scheme"] + mask(found["credential"])
    if found["query"]:
        return found["query"] + mask(found["value"])
    if found["user"]:
        return f"://{MASK}@"
    return mask(found[0])
