"""The last configs that were in force, kept for going back to one of them.

Rule: files of mode 0600 in a folder of mode 0700, for they hold what config.json holds; numbers count up over restarts.
Surprise: keeping them is a courtesy. A folder that cannot be written is said in the log and changes nothing else.
"""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

import msgspec

from ds2d.config.files import ConflictError, create

FOLDER = "generations"
KEEP = 10

_NAME = re.compile(r"([0-9]{6,})-([0-9a-f]{64})\.json")


class Generation(msgspec.Struct, frozen=True):
    """A config that was in force: its number, the digest of its bytes, and when it was taken up (Unix seconds)."""

    number: int
    digest: str
    since: float
    path: Path


class History:
    """The generations in one folder."""

    def __init__(self, folder: Path, keep: int = KEEP) -> None:
        self._folder = folder
        self._keep = keep

    def all(self) -> list[Generation]:
        """What is kept, newest first; nothing if the folder cannot be read."""
        found: list[Generation] = []
        with contextlib.suppress(OSError):
            found = [_generation(match, entry) for entry in os.scandir(self._folder) if (match := _NAME.fullmatch(entry.name))]
        return sorted(found, key=lambda generation: generation.number, reverse=True)

    def number_for(self, digest: str) -> int:
        """The number that a config with these bytes has, as the first after a start, or where another process (a command, an
        older daemon) has kept some meanwhile: the newest one's if it is that."""
        newest = next(iter(self.all()), None)
        if newest is None:
            return 1
        return newest.number if newest.digest == digest else newest.number + 1

    def save(self, number: int, digest: str, raw: bytes) -> None:
        """Keep these bytes, and no more than the newest few. Raises OSError."""
        self._folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder.mkdir(mode=0o700, exist_ok=True)
        path = self._folder / f"{number:06d}-{digest}.json"
        if path.exists():
            return
        with contextlib.suppress(ConflictError):  # another process has kept it meanwhile
            create(path, raw)
        for old in self.all()[self._keep :]:
            old.path.unlink(missing_ok=True)


def _generation(match: re.Match[str], entry: os.DirEntry[str]) -> Generation:
    return Generation(int(match[1]), match[2], entry.stat().st_mtime, Path(entry.path))
