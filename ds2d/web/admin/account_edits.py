"""Accounts as the admin API lists and changes them.

Rule: passwords and tokens leave here as `has_password`, `has_token` and a preview; an empty one, or the preview itself,
posted back keeps what stands in the file.
Surprise: an account answers to several names, and one that has a token only to `token:<hash>`.
"""

from __future__ import annotations

from typing import Any

from ds2d.config.references import is_reference
from ds2d.config.schema import Config
from ds2d.config.show import shown
from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.redact import MASK
from ds2d.core.settings import AccountSpec, Secret
from ds2d.web.admin.keys import bad

FIELDS = frozenset(AccountSpec.__struct_fields__) - {"problem"}
"""Keys of an account's entry."""

SECRETS = ("password", "token")
NAMES = ("email", "mobile", "name")

ONLY_SHOWN = frozenset(
    {
        "identifier", "has_password", "has_token", "token_preview", "state", "inflight", "put_aside_until", "reason",
        "last_error", "models_aside", "test_status", "problem",
    }
)  # fmt: skip
"""What a listing adds: accepted when it is posted back, and of no effect."""

Entry = dict[str, Any]


def describe(spec: AccountSpec) -> Entry:
    """One account of a listing."""
    kept = shown(spec, defaults=False)
    more = {name: value for name, value in kept.items() if name not in SECRETS}
    return {
        "identifier": spec.identifier,
        "email": spec.email or "",
        "mobile": spec.mobile or "",
        "has_password": spec.password is not None,
        "has_token": spec.token is not None,
        "token_preview": preview(spec.token),
        "name": spec.name or "",
        "upstream": spec.upstream or "",
        **{name: value for name, value in more.items() if name not in {"email", "mobile", "name", "upstream"}},
    }


def preview(secret: Secret | None) -> str:
    """The first characters of a long secret, the name of a reference, nothing of a short one."""
    if secret is None:
        return ""
    if secret.reference:
        ((kind, name),) = secret.reference.items()
        return f"{kind}:{name}"
    value = secret.reveal() or ""
    return (value[:5] if len(value) >= 12 else "") + "..."


def why_unusable(spec: AccountSpec, config: Config) -> str:
    """What in the config keeps an account out of use, as a sentence; empty if nothing does."""
    server = next((server for server in config.upstreams if server.name == spec.upstream), None)
    if spec.disabled:
        return "The account is disabled."
    if spec.problem == "secret_unreadable":
        return "The account's password or token cannot be read."
    if server is None and spec.upstream is None:
        return "Not exactly one upstream takes such an account: say which in `upstream`."
    if server is None:
        return f"There is no upstream {spec.upstream}."
    if spec.problem:
        return f"The upstream {server.name} takes no such credential."
    return "" if server.usable else f"A secret or file of the upstream {server.name} cannot be read."


def find(document: dict[str, Any], config: Config, identifier: str) -> tuple[list[Any], int]:
    """The place of an account. Raises 404."""
    entries: list[Any] = document.get("accounts") or []
    for at, entry in enumerate(entries):
        if any(identifier.lower() == name.lower() for name in names(entry, config)):
            return entries, at
    raise GatewayError(ErrorKind.ROUTE_NOT_FOUND, "There is no such account.")


def names(entry: Any, config: Config) -> list[str]:
    """Every name that an entry of the document answers to, its identifier first."""
    if not isinstance(entry, dict):
        return []
    found = [entry[name] for name in NAMES if isinstance(entry.get(name), str) and entry[name]]
    token = entry.get("token")
    if isinstance(token, str) and token:
        found.append(f"token:{Secret(token).fingerprint}")
    elif is_reference(token):
        known = (spec.token for spec in config.accounts if spec.token is not None and spec.token.reference == token)
        found += [f"token:{secret.fingerprint}" for secret in known]
    return found


def add(document: dict[str, Any], config: Config, posted: Any, path: str = "") -> None:
    """Put a new account in. Raises 400, and 409 where one answers to one of its names."""
    entry = {name: value for name, value in checked(posted, path).items() if value not in ("", None)}
    if any(isinstance(entry.get(name), str) and _is_preview(entry[name]) for name in SECRETS):
        raise bad(f"{path}token: this is a preview, not a token")
    entries = document.setdefault("accounts", [])
    taken = {name.lower() for other in entries for name in names(other, config)}
    if any(name.lower() in taken for name in names(entry, config)):
        raise GatewayError(ErrorKind.INVALID_REQUEST, "An account of this name exists already.", status=409)
    entries.append(entry)


def edit(entries: list[Any], at: int, posted: Any, path: str = "") -> None:
    """Set the posted fields; empty secrets and previews keep the old ones, null takes a field out."""
    entry = dict(entries[at])
    for name, value in checked(posted, path).items():
        if name in SECRETS and (value == "" or (isinstance(value, str) and _is_preview(value))):
            continue
        if value in ("", None) and name != "remark":
            entry.pop(name, None)
        else:
            entry[name] = value
    entries[at] = entry


def replace_all(document: dict[str, Any], config: Config, posted: Any) -> None:
    """Make the posted list the accounts in force, in its order: known ones are edited, others added, the rest goes."""
    if not isinstance(posted, list):
        raise bad("accounts: must be a list")
    old = document.get("accounts", [])
    document["accounts"] = []
    rest = list(old)
    for index, item in enumerate(posted):
        path = f"accounts[{index}]."
        known = next((entry for entry in rest if _same(entry, item, config)), None)
        if known is None:
            add(document, config, item, path)
            continue
        rest = [entry for entry in rest if entry is not known]
        document["accounts"].append(known)
        edit(document["accounts"], len(document["accounts"]) - 1, item, path)


def checked(posted: Any, path: str) -> Entry:
    """The fields of a posted account that are keys of its entry. Raises 400 for an unknown one."""
    if not isinstance(posted, dict):
        raise bad(f"{path.rstrip('.') or 'account'}: must be an object")
    for name in posted:
        if name not in FIELDS and name not in ONLY_SHOWN and not name.startswith("_"):
            raise bad(f"{path}{name[:80]}: unknown field")
    return {name: value for name, value in posted.items() if name in FIELDS or name.startswith("_")}


def _same(entry: Any, posted: Any, config: Config) -> bool:
    if not isinstance(posted, dict):
        return False
    known = {name.lower() for name in names(entry, config)}
    identifier = posted.get("identifier")
    if isinstance(identifier, str) and identifier:
        return identifier.lower() in known
    return any(name.lower() in known for name in names(posted, config))


def _is_preview(text: str) -> bool:
    return text.endswith("...") or MASK in text or text.startswith(("$file:", "$env:", "$credential:"))
