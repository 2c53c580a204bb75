"""A config parsed from plain data, with files and variables that are dictionaries."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ds2d.config.notices import ConfigErrors
from ds2d.config.parse import parse
from ds2d.config.schema import Config

OPENAI = {"name": "gpu", "base_url": "http://127.0.0.1:8000/v1"}
"""The least that an upstream of kind openai says."""


def parsed(
    document: Any,
    *,
    environ: Mapping[str, str] | None = None,
    files: Mapping[str, bytes] | None = None,
    flags: Mapping[str, Any] | None = None,
) -> Config:
    """The config of a document, or of raw bytes, that lies in /etc/ds2d."""
    raw = document if isinstance(document, bytes) else json.dumps(document).encode()

    def read(path: str) -> bytes:
        if path not in (files or {}):
            raise FileNotFoundError(path)
        return (files or {})[path]

    return parse(raw, environ=environ or {}, base_dir="/etc/ds2d", read_file=read, flags=flags)


def errors(document: Any, **world: Any) -> dict[str, str]:
    """Everything that is wrong with a document: path to message with its hint; empty if nothing is."""
    try:
        parsed(document, **world)
    except ConfigErrors as found:
        return {error.path: str(error).removeprefix(f"{error.path}: ") for error in found.errors}
    return {}


def warnings(document: Any, **world: Any) -> dict[str, str]:
    """What is odd about a document but holds."""
    return {warning.path: warning.message for warning in parsed(document, **world).warnings}
