"""What environment variables say, and the files they come in.

Rule: pure; the names and their precedence are config.md 4. An empty variable counts as unset.
Surprise: a systemd environment file wins over the process's own variables: systemd copied it into them at the start,
and only the file can have changed since.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any

from ds2d.config.notices import ConfigErrors, Notice

WHOLE = ("DS2API_CONFIG_JSON", "DS2D_CONFIG_JSON", "CONFIG_JSON")
"""Variables that hold a whole config; the first that is set counts."""

PATHS = ("DS2D_CONFIG", "DS2API_CONFIG_PATH")
"""Variables that name the file."""

OVERRIDES = {
    "PORT": "server.port",
    "LOG_LEVEL": "log.level",
    "VERCEL_TOKEN": "vercel.token",
    "VERCEL_PROJECT_ID": "vercel.project_id",
    "VERCEL_TEAM_ID": "vercel.team_id",
}
"""Variables that count before the file."""

FALLBACKS = {
    "DS2API_ACCOUNT_MAX_INFLIGHT": "runtime.account_max_inflight",
    "DS2API_ACCOUNT_MAX_QUEUE": "runtime.account_max_queue",
    "DS2API_GLOBAL_MAX_INFLIGHT": "runtime.global_max_inflight",
    "DS2API_JWT_EXPIRE_HOURS": "admin.jwt_expire_hours",
}
"""Variables that count where the file says nothing, as in the reference system."""

VARIABLES = {
    **dict.fromkeys(PATHS, "the config file; --config counts before it"),
    **dict.fromkeys(WHOLE, "the whole config, as JSON or base64 of it; no file is read then"),
    "DS2D_ENV_FILE": "a systemd environment file that holds one of those; changes in it count at once",
    "DS2API_ADMIN_KEY": "the admin key, while admin.password_hash is empty",
    **{name: f"{path}; counts before the file" for name, path in OVERRIDES.items()},
    **{name: f"{path}; counts where the file says nothing" for name, path in FALLBACKS.items()},
    "DS2D_KEY": "an API key, for commands that ask the daemon or print what a client needs",
    "DS2D_ADMIN_KEY": "the admin key, for commands that ask the daemon",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "where traces go, with the other standard variables of OpenTelemetry; unset: nowhere",
    "HTTPS_PROXY, NO_PROXY": "their usual meaning, for upstreams whose `proxy` is `env`",
}
"""Every variable with its meaning, for people."""

_NUMBERS = frozenset({"PORT", *FALLBACKS})
_LEVELS = {"warn": "warning", "critical": "error", "fatal": "error"}
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ESCAPED_IN_DOUBLE = frozenset('"\\`$')


def overlay(environ: Mapping[str, str], names: Mapping[str, str]) -> dict[str, tuple[Any, str]]:
    """The values of these variables by path, each with its origin (`$NAME`)."""
    return {path: (_value(name, environ[name]), f"${name}") for name, path in names.items() if environ.get(name, "").strip()}


def whole_config(environ: Mapping[str, str]) -> tuple[str, bytes] | None:
    """The variable that holds the config, and its bytes; None if there is none. Raises ConfigErrors on bad base64."""
    for name in WHOLE:
        if text := environ.get(name, "").strip():
            return name, _decode(name, text)
    return None


def parse_env_file(raw: bytes) -> dict[str, str]:
    """The assignments of a systemd environment file (systemd.exec(5), EnvironmentFile=): lines `NAME=value`, comments
    with # or ;, quotes, and a backslash at the end of a line. Lines that are no assignment are passed over, as systemd does.
    """
    text = raw.decode("utf-8", "replace").replace("\r\n", "\n")
    result: dict[str, str] = {}
    at = 0
    while at < len(text):
        line_end = _line_end(text, at)
        name, equals, _ = text[at:line_end].partition("=")
        if equals and not name.lstrip().startswith(("#", ";")) and _NAME.fullmatch(name.strip()):
            result[name.strip()], at = _env_value(text, at + len(name) + 1)
        else:
            at = line_end
        at += 1
    return result


def _env_value(text: str, at: int) -> tuple[str, int]:
    """The value that starts here, and where its line ends.

    Quoted pieces come first, with blanks between them that do not count; once a bare piece has begun, quotes are characters
    like any other up to the end of the line (systemd, env-file.c: PRE_VALUE and VALUE).
    """
    kept: list[str] = []
    while at < len(text) and text[at] in " \t\"'":
        if text[at] in " \t":
            at += 1
        else:
            piece, at = _quoted(text, at)
            kept.append(piece)
    solid = len(kept)  # trailing blanks behind these go
    while at < len(text) and text[at] != "\n":
        if text[at] == "\\" and at + 1 < len(text):
            kept.append("" if text[at + 1] == "\n" else text[at + 1])
            at += 2
            solid = len(kept)
            continue
        kept.append(text[at])
        at += 1
        if kept[-1] not in " \t":
            solid = len(kept)
    return "".join(kept[:solid]), at


def _quoted(text: str, at: int) -> tuple[str, int]:
    """A quoted piece, and what follows its closing quote. Double quotes know backslashes, single ones do not."""
    quote, at = text[at], at + 1
    kept: list[str] = []
    while at < len(text) and text[at] != quote:
        if quote == '"' and text[at] == "\\" and at + 1 < len(text):
            after = text[at + 1]
            kept.append("" if after == "\n" else after if after in _ESCAPED_IN_DOUBLE else "\\" + after)
            at += 2
        else:
            kept.append(text[at])
            at += 1
    return "".join(kept), at + 1


def _line_end(text: str, at: int) -> int:
    end = text.find("\n", at)
    return len(text) if end < 0 else end


def _value(name: str, text: str) -> Any:
    text = text.strip()
    if name in _NUMBERS and re.fullmatch(r"-?[0-9]{1,15}", text):
        return int(text)
    if name == "LOG_LEVEL":
        return _LEVELS.get(text.lower(), text.lower())
    return text


def _decode(name: str, text: str) -> bytes:
    """JSON as it stands, or base64 of it in any alphabet, with or without padding, line breaks and `base64:`."""
    if text.startswith("{"):
        return text.encode("utf-8", "surrogateescape")
    packed = "".join(text.removeprefix("base64:").split()).rstrip("=").translate(str.maketrans("-_", "+/"))
    try:
        return base64.b64decode(packed + "=" * (-len(packed) % 4), validate=True)
    except (ValueError, binascii.Error):
        raise ConfigErrors([Notice(f"${name}", "is neither JSON nor base64 of it")], incomplete=True) from None
