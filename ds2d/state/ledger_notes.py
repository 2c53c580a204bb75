"""Ends of turns, on disk before the ledger's file holds them: an answer waits for an append here, not for pages of tables.

Rule: what stands here is written to the ledger's file too, soon, with many others; only when that is on disk is this file begun
anew. A process that ended in between leaves it behind, and whoever opens the ledger next writes what it says.
Surprise: it is written over from its beginning, not cut: a file that grows costs the disk twice. So each record carries the
check sum of its round as well; what is left of the round before ends the reading.
"""

from __future__ import annotations

import errno
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from ds2d.state.ledger_schema import FIELDS, Row

PREFIX = "ledger.notes-"
DRAFT = "ledger.new-notes-"

ROUND_BYTES = 256 * 1024
"""Size from which a new round is begun as soon as that may be."""

MOST_BYTES = 16 * 1024 * 1024
"""Size beyond which nothing is noted: the tables do not keep up, and what is noted must be read at a start."""

_HEAD = struct.Struct("<II")  # length, check sum

Saved = tuple[int, tuple[Any, ...]]
"""A turn's number in its process, and its fields in the order of `Row`."""

_encode = msgspec.msgpack.Encoder().encode


class Owner(msgspec.Struct, frozen=True, array_like=True):
    """The process that writes a file of notes, as the ledger's `processes` has it; the fields of its rows; and the round."""

    number: int
    pid: int
    started: str
    fields: tuple[str, ...] = FIELDS
    round: int = 0


class Notes:
    """This process's file. `add` blocks and raises OSError; what was added stands when it returns."""

    def __init__(self, folder: Path, owner: Owner) -> None:
        self.path = folder / f"{PREFIX}{owner.pid}-{owner.number}"
        self.owner = owner
        draft = folder / f"{DRAFT}{owner.pid}"  # whoever is killed here must leave nothing that looks like notes
        for old in folder.glob(f"{DRAFT}*"):
            if not Path("/proc", old.name.removeprefix(DRAFT)).exists():
                old.unlink(missing_ok=True)
        self._file = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            self._begin()
            os.pwrite(self._file, bytes(ROUND_BYTES), self._end)
            draft.rename(self.path)
            force(folder)
        except BaseException:
            os.close(self._file)
            draft.unlink(missing_ok=True)
            raise

    @property
    def full(self) -> bool:
        """Whether a new round should begin."""
        return self._end > ROUND_BYTES

    def add(self, batch: Sequence[Saved], force: bool) -> None:
        """Note these turns."""
        if self._end > MOST_BYTES:
            raise OSError(errno.EFBIG, "too much is noted")
        self._end += self._put(_encode(batch), self._end)
        if force:
            os.fdatasync(self._file)

    def restart(self, number: int) -> None:
        """Nothing of what stands here is needed any more. `number` is the process's, which a new ledger changes."""
        self.owner = msgspec.structs.replace(self.owner, number=number, round=self.owner.round + 1)
        self._begin()

    def remove(self) -> None:
        """The same, and there will be no more."""
        os.close(self._file)
        self.path.unlink(missing_ok=True)

    def _begin(self) -> None:
        self._seed = 0
        self._end = self._put(_encode(self.owner), 0)
        self._seed = self.owner.round

    def _put(self, data: bytes, at: int) -> int:
        record = _HEAD.pack(len(data), zlib.crc32(data, self._seed)) + data
        written = os.pwrite(self._file, record, at)
        if written < len(record):
            raise OSError(errno.ENOSPC, "the notes could not be written whole")
        return written


def left(folder: Path) -> Iterator[tuple[Path, Owner]]:
    """The files of notes that are there, and whose they are."""
    for path in sorted(folder.glob(f"{PREFIX}*")):
        first = _record(_contents(path), 0, 0)
        if first is not None:
            yield path, msgspec.msgpack.decode(first, type=Owner)


def read(path: Path, owner: Owner) -> Iterator[Saved]:
    """The turns that stand there, in the order in which they were noted."""
    data = _contents(path)
    first = _record(data, 0, 0)
    at = 0 if first is None else _HEAD.size + len(first)
    while (record := _record(data, at, owner.round)) is not None:
        at += _HEAD.size + len(record)
        for number, values in msgspec.msgpack.decode(record):
            yield number, _as_ours(owner.fields, values)


def _as_ours(names: tuple[str, ...], values: list[Any]) -> tuple[Any, ...]:
    """Fields that another version of us noted."""
    if names == FIELDS:
        return tuple(values)
    return msgspec.structs.astuple(Row(**{name: value for name, value in zip(names, values, strict=True) if name in FIELDS}))


def _contents(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:  # somebody else has taken it over
        return b""


def _record(data: bytes, at: int, seed: int) -> bytes | None:
    """What stands here, if it was written whole and in this round."""
    if at + _HEAD.size > len(data):
        return None
    length, check = _HEAD.unpack_from(data, at)
    record = data[at + _HEAD.size : at + _HEAD.size + length]
    return record if length and len(record) == length and zlib.crc32(record, seed) == check else None


def force(path: Path) -> None:
    """Have the system write what it holds of this file or folder."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
