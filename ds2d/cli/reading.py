"""The config as the verbs that only look at it read it: as `ds2d serve` would start with it.

Rule: what is wrong goes to standard error, one line each, and the verb ends with 1; a file that is missing is no error.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from ds2d.config.notices import ConfigErrors
from ds2d.config.schema import Config
from ds2d.config.source import Source, SourceError


class Found(NamedTuple):
    """A config, and what it was read from."""

    config: Config
    name: str


def find_config(file: Path | None, environ: Mapping[str, str], cwd: Path) -> Found | None:
    """The config that `--config`, the environment and the working folder lead to; None after saying what is wrong with it."""
    source = Source.from_environment(environ, file, cwd=cwd)
    try:
        return _load(source)
    except (ConfigErrors, SourceError) as found:
        tell(found)
        return None


def read_config(file: Path | None, environ: Mapping[str, str], cwd: Path) -> Config | None:
    """`find_config` for those who need not know where it came from."""
    found = find_config(file, environ, cwd)
    return found.config if found else None


def tell(found: ConfigErrors | SourceError) -> None:
    """Say what is wrong, a line each."""
    for notice in found.errors if isinstance(found, ConfigErrors) else (found.notice,):
        print(f"error: {notice}", file=sys.stderr)


def _load(source: Source) -> Found:
    try:
        reading = source.read()
    except SourceError as error:
        if error.kind != "missing":
            raise
        return Found(source.parse(source.empty()), f"nothing ({source.path} is missing)")
    return Found(source.parse(reading), f"${reading.variable}" if reading.variable else str(source.path))
