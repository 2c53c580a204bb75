"""The reference system's config.json: taken as it is, for it loads as it is.

What it has and we have not is said by the check that every config goes through (`kept, but without effect`).
"""

from __future__ import annotations

from typing import Any

from ds2d.config.importers.taken import ImportProblem, Taken
from ds2d.config.notices import ConfigErrors
from ds2d.config.strict_json import load


def take(raw: bytes) -> Taken:
    """The document itself. Raises ImportProblem if it is no JSON object."""
    try:
        document = load(raw)
    except ConfigErrors as found:
        raise ImportProblem("; ".join(map(str, found.errors))) from None
    _join(document)
    left = [*_sessions(document), *_logins(document)]
    return Taken(document, left)


def _join(document: dict[str, Any]) -> None:
    """Give the plain keys the names that `api_keys` has for them: merged one by one, the plain one would win."""
    keys, named = document.get("keys"), document.pop("api_keys", None)
    if not isinstance(named, list):
        return
    texts = [entry.get("key") for entry in named if isinstance(entry, dict)]
    plain = [key for key in keys if key not in texts] if isinstance(keys, list) else []
    document["keys"] = [*named, *plain]


def _sessions(document: dict[str, Any]) -> list[str]:
    if document.get("upstreams"):
        return []
    accounts = document.get("accounts")
    count = len(accounts) if isinstance(accounts, list) else 0
    if not count:
        return []
    return [
        f"accounts: {count} logins of a chat site, which are kept and not used: add an upstream "
        "(vLLM, or https://api.deepseek.com with an API key as `token`) and name it in `accounts[].upstream`"
    ]


def _logins(document: dict[str, Any]) -> list[str]:
    admin = document.get("admin")
    if isinstance(admin, dict) and admin.get("password_hash"):
        return []
    return ["admin: there is no default key `admin` here; without DS2API_ADMIN_KEY or admin.password_hash the admin API is off"]
