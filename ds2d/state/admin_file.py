"""What the admin API must remember over restarts and config.json must not hold: which logins count, what was synced.

Rule: mode 0600, replaced whole; the number of a generation only goes up, and is on disk before it is used.
Surprise: a file that cannot be read ends all logins rather than starting the daemon with old ones. And an older process, which
serves its last connections during an upgrade, may write it, too.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import msgspec
import orjson

NAME = "admin.json"


class Kept(msgspec.Struct, frozen=True):
    """The file's content. `generation` is of logins; times are Unix seconds; `synced_digest` is of the config last synced."""

    generation: int = 1
    synced_digest: str = ""
    synced_at: int = 0


class AdminFile:
    """Owner of the file in the state folder."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME
        self._version = self._current_version()
        self._kept = self._read()

    @property
    def kept(self) -> Kept:
        """What counts now."""
        version = self._current_version()
        if version not in (None, self._version):
            self._version, self._kept = version, self._read()
        return self._kept

    def raise_generation(self) -> int:
        """End all logins made before. Raises OSError."""
        self._replace(msgspec.structs.replace(self.kept, generation=self.kept.generation + 1))
        return self.kept.generation

    def note_sync(self, digest: str, now: int) -> None:
        """The config with this digest was copied elsewhere. Raises OSError."""
        self._replace(msgspec.structs.replace(self.kept, synced_digest=digest, synced_at=now))

    def _current_version(self) -> tuple[int, int] | None:
        """What tells one content of the file from the next; None where there is no file."""
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns

    def _read(self) -> Kept:
        try:
            return msgspec.convert(orjson.loads(self._path.read_bytes()), Kept)
        except FileNotFoundError:
            return Kept()
        except (OSError, ValueError, msgspec.ValidationError):
            return Kept(generation=secrets.randbits(40))

    def _replace(self, kept: Kept) -> None:
        draft = self._path.with_name(f".{NAME}.{os.getpid()}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, orjson.dumps(msgspec.structs.asdict(kept)))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        draft.replace(self._path)
        self._version, self._kept = self._current_version(), kept
