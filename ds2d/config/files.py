"""Reading a file that somebody may be writing, and replacing one without anybody seeing half of it.

Rule: what is read is what stood there at one moment; what is replaced is what the writer had read, or nothing happens.
Surprise: a plain rename would win silently over an editor that saved a moment before. So the new file and the old one
are exchanged in one step (renameat2), the old one is looked at, and exchanged back if it is not the one expected. A file that
is mounted by itself, as containers have theirs, can take no other's place: it is written where it is.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

try:
    import ctypes

    _libc: ctypes.CDLL | None = ctypes.CDLL(None, use_errno=True)
except (ImportError, MemoryError, OSError):  # MemoryDenyWriteExecute= with an old libffi
    _libc = None

MAX_BYTES = 64 * 1024 * 1024
_TRIES = 5
_EXCHANGE = 2
_AT_FDCWD = -100
_MOUNTED = frozenset({errno.EBUSY, errno.EROFS})
"""What renaming says of a file that is a mount of its own; the folder round it may be read-only."""

_UNSUPPORTED = frozenset({errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM})


class ConflictError(Exception):
    """The file on disk is not the one that a change was based on."""


def read_stable(path: str | Path) -> bytes:
    """The bytes of a regular file, read again while it changes under the reading. Raises OSError."""
    data = b""
    for _ in range(_TRIES):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            before = os.fstat(descriptor)
            if not stat.S_ISREG(before.st_mode):
                raise OSError(errno.EINVAL, "not a regular file")
            data = file.read(MAX_BYTES + 1)
            after = os.fstat(descriptor)
        if len(data) > MAX_BYTES:
            raise OSError(errno.EFBIG, "the file is too large")
        if _version(before) == _version(after) and len(data) == after.st_size:
            break
    return data


def create(path: Path, data: bytes) -> None:
    """A new file, mode 0600, whole from the first moment; at the end of a link where one leads nowhere yet. Raises ConflictError
    if there is one, OSError."""
    path = Path(os.path.realpath(path))
    with _draft(path, data) as draft:
        try:
            os.link(draft, path)  # unlike a rename it never replaces
        except FileExistsError:
            raise ConflictError from None
        except OSError:  # a file system without hard links
            if os.path.lexists(path):
                raise ConflictError from None
            os.rename(draft, path)
    _sync_folder(path.parent)


def write_private(path: Path, data: bytes) -> None:
    """Write a file that only its owner may read, whoever could read what stood there. Raises OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):  # /dev/stdout is nobody's to close
            os.fchmod(descriptor, 0o600)
        file.write(data)


def is_open(path: Path) -> bool:
    """Whether every user of this host may read the file; its group may have been given it on purpose."""
    try:
        return bool(os.stat(path).st_mode & stat.S_IROTH)
    except OSError:
        return False


def replace(path: Path, data: bytes, expected: bytes) -> None:
    """Put `data` in the place of `expected`, keeping mode and owner; a link is followed to its target.

    Raises ConflictError if the file holds anything else by then, OSError.
    """
    target = Path(os.path.realpath(path))
    try:
        _take_its_place(target, data, expected)
    except OSError as error:
        if error.errno not in _MOUNTED:
            raise
        _overwrite(target, data, expected)


def _take_its_place(target: Path, data: bytes, expected: bytes) -> None:
    with _draft(target, data, like=os.stat(target)) as draft:
        if not _exchange(draft, target):
            if read_stable(target) != expected:
                raise ConflictError
            os.rename(draft, target)
        elif read_stable(draft) != expected:
            _put_back(draft, target, data)
            raise ConflictError
    _sync_folder(target.parent)


def _overwrite(target: Path, data: bytes, expected: bytes) -> None:
    """Write it in place, never empty: who reads meanwhile sees something that is no JSON, and looks again."""
    with open(os.open(target, os.O_RDWR | os.O_CLOEXEC), "r+b") as file:
        if file.read() != expected:
            raise ConflictError
        file.seek(0)
        file.write(data)
        file.truncate()
        file.flush()
        os.fsync(file.fileno())


def _version(status: os.stat_result) -> tuple[int, ...]:
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


@contextlib.contextmanager
def _draft(path: Path, data: bytes, like: os.stat_result | None = None) -> Iterator[Path]:
    """A file beside `path` that holds `data`, safely on disk; whatever has its name in the end is removed."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            if like is not None:
                _take_after(descriptor, like)
            os.fsync(descriptor)
        yield draft
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(draft)


def _put_back(draft: Path, target: Path, placed: bytes) -> None:
    """Undo an exchange that put `placed` on the target. If something else comes out, somebody wrote meanwhile, and that is
    the newest: it goes in again, until what comes out is what was put in."""
    while True:
        next_placed = read_stable(draft)
        _exchange(draft, target)
        if read_stable(draft) == placed:
            return
        placed = next_placed


def _take_after(descriptor: int, like: os.stat_result) -> None:
    """Owner and mode as the file had that is replaced."""
    mine = os.fstat(descriptor)
    if (mine.st_uid, mine.st_gid) != (like.st_uid, like.st_gid):
        with contextlib.suppress(PermissionError):  # only root may give files away
            os.fchown(descriptor, like.st_uid, like.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(like.st_mode))


def _exchange(one: Path, other: Path) -> bool:
    """Let two files change places in one step; False where kernel or file system cannot."""
    call = getattr(_libc, "renameat2", None)
    if call is None:
        return False
    if call(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in _UNSUPPORTED:
        return False
    raise OSError(code, os.strerror(code))


def _sync_folder(folder: Path) -> None:
    """Make a rename last over a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
