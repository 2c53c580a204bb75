"""What an upstream says of a failure, without the secrets that it was told.

Rule: no secret of the config, nor one that this very question was sent with, is in the words that a caller gets (errors.md,
head): known ones are looked for as they are, for most have no form to be known by.
Surprise: texts are cut, and half a key tells as much as most of it. So a refusal is cleaned before it is read, and where a
text was cut already (an error in a stream) a key that only begins at its end counts too.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from ds2d.config.schema import Config
from ds2d.config.show import secrets_of
from ds2d.core.calls import Reply
from ds2d.core.errors import GatewayError

INSTEAD = "[key]"
LEAST = 4
"""Characters of a text that is a secret, as in core/redact.py: less is found in any word."""

CUT = "…"
"""What stands at the end of a text that was cut."""


class Unsaid:
    """Takes secrets out of errors. Those of a config are collected once for each snapshot."""

    def __init__(self) -> None:
        self._config: Config | None = None
        self._known: list[str] = []

    def reply(self, reply: Reply, config: Config, own: Iterable[str | None]) -> Reply:
        """A refusal that names none. `own`: what this question was sent with."""
        text = reply.body.decode("utf-8", "surrogateescape")
        cleaned = _without(text, self._all(config, own))
        if cleaned is text:
            return reply
        return msgspec.structs.replace(reply, body=cleaned.encode("utf-8", "surrogateescape"))

    def error(self, error: GatewayError, config: Config, own: Iterable[str | None]) -> None:
        """The same for an error that was made of an upstream's words."""
        known = self._all(config, own)
        error.message = _without_beginning(_without(error.message, known), known)
        if error.param and _without(error.param, known) is not error.param:
            error.param = None

    def _all(self, config: Config, own: Iterable[str | None]) -> list[str]:
        if config is not self._config:
            self._config, self._known = config, _longest_first(secrets_of(config))
        return _longest_first([secret for secret in own if secret]) + self._known


def _longest_first(secrets: Iterable[str]) -> list[str]:
    """These, and what stands in a header's value behind the scheme."""
    found = {part for secret in secrets for part in (secret, secret.partition(" ")[2]) if len(part) >= LEAST}
    return sorted(found, key=len, reverse=True)


def _without(text: str, known: list[str]) -> str:
    for secret in known:
        if secret in text:
            text = text.replace(secret, INSTEAD)
    return text


def _without_beginning(text: str, known: list[str]) -> str:
    """A text that was cut, without the key that begins at its end."""
    if not text.endswith(CUT):
        return text
    said = text.removesuffix(CUT)
    for secret in known:
        for size in range(min(len(secret), len(said)), LEAST - 1, -1):
            if said.endswith(secret[:size]):
                return said[:-size] + INSTEAD + CUT
    return text
