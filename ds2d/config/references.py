"""Secrets in the file, and secrets it only points at: `{"$env": NAME}`, `{"$file": PATH}`, `{"$credential": NAME}`.

Rule: what cannot be read is None and a reason, never an exception, so that one missing file costs one entry.
Surprise: an empty string is no secret: the reference system writes `"token": ""` for "none".
"""

from __future__ import annotations

import hashlib
import os.path
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from ds2d.core.settings import Secret

KINDS = ("$env", "$file", "$credential")
MAX_BYTES = 64 * 1024

_WORDS: dict[type[Exception], str] = {FileNotFoundError: "the file is missing", PermissionError: "permission denied"}


class UnreadableError(Exception):
    """Why a secret could not be read: a few words for the operator, without any path."""


class Sources(msgspec.Struct):
    """Where references lead. `read(path)` gives bytes or raises OSError.

    `files` collects every path that was asked for, with the hex SHA-256 of what it held, empty if it could not be read.
    """

    environ: Mapping[str, str]
    base_dir: str
    read: Callable[[str], bytes]
    files: dict[str, str] = {}

    def resolve(self, reference: dict[str, str]) -> str:
        """The secret behind a reference that `is_reference` accepted. Raises UnreadableError."""
        ((kind, name),) = reference.items()
        if kind == "$env":
            value = self.environ.get(name, "")
            if not value:
                raise UnreadableError(f"the variable {name} is not set")
            return value
        if kind == "$file":
            return self._text(os.path.join(self.base_dir, name))
        folder = self.environ.get("CREDENTIALS_DIRECTORY", "")
        if not folder:
            raise UnreadableError("this process was started without credentials")
        if "/" in name or name in {".", ".."}:
            raise UnreadableError("a credential's name is no path")
        return self._text(os.path.join(folder, name))

    def open(self, path: str) -> bytes:
        """The bytes of a file; it counts as one the config was read from. Raises UnreadableError."""
        path = os.path.normpath(path)
        try:
            data = self.read(path)
        except (OSError, ValueError) as error:
            self.files[path] = ""
            raise UnreadableError(_WORDS.get(type(error), "the file cannot be read")) from None
        self.files[path] = digest_of(data)
        return data

    def located(self, name: str) -> tuple[str, str]:
        """The whole path of a file that somebody else reads, and the hex SHA-256 of what it holds. Raises UnreadableError."""
        path = os.path.normpath(os.path.join(self.base_dir, name))
        return path, digest_of(self.open(path))

    def _text(self, path: str) -> str:
        data = self.open(path)
        if len(data) > MAX_BYTES:
            raise UnreadableError("the file is longer than a secret")
        try:
            text = data.decode().rstrip("\r\n")
        except UnicodeDecodeError:
            raise UnreadableError("the file is not UTF-8") from None
        if not text:
            raise UnreadableError("the file is empty")
        return text


def digest_of(data: bytes) -> str:
    """What tells two versions of a file apart: the hex SHA-256."""
    return hashlib.sha256(data).hexdigest()


def is_reference(value: Any) -> bool:
    """Whether it has the form of a reference."""
    return isinstance(value, dict) and len(value) == 1 and all(k in KINDS and isinstance(v, str) and v for k, v in value.items())


def unreadable(value: Any) -> bool:
    """Whether any secret in this value (a secret, a mapping or a struct of them) could not be read."""
    if isinstance(value, Secret):
        return value.reveal() is None
    if isinstance(value, dict):
        return any(map(unreadable, value.values()))
    if isinstance(value, msgspec.Struct):
        return any(unreadable(getattr(value, name)) for name in value.__struct_fields__)
    return False
