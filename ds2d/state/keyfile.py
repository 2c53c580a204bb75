"""Random keys of this installation, kept in the state folder.

Rule: made once, mode 0600, never derived from anything a person chose; two processes that start at once end up with the same.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

KEY_BYTES = 32


def load_key(folder: Path, name: str) -> bytes:
    """The key of that name, made if there is none. Raises OSError where it can be neither read nor made."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / name
    if not path.exists():
        _make(path)
    key = path.read_bytes()
    if len(key) != KEY_BYTES:
        raise OSError(f"{path} does not hold a key of {KEY_BYTES} bytes: move it away and start again")
    return key


def _make(path: Path) -> None:
    """A new key, unless somebody else makes one meanwhile; whole and on disk before it has its name."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(descriptor, secrets.token_bytes(KEY_BYTES))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    try:
        os.link(fresh, path)  # unlike a rename, it fails where a key stands already
    except FileExistsError:
        pass
    finally:
        fresh.unlink()
