"""Stored responses on disk, between a graceful stop and the next start.

Rule: the file is read once and removed, so that nothing deleted comes back after a crash; ages go on while the process is
down; mode 0600, replaced whole.
Surprise: the file is lines of JSON, first the shared segments, then the entries that name them by number.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from ds2d.state.responses import Entry, ResponseStore, Segment

VERSION = 1
logger = logging.getLogger("ds2d.responses")


class _Header(msgspec.Struct):
    version: int
    saved_at: float
    segments: int


class Row(msgspec.Struct):
    """An entry; segments by number, `age` in seconds when it was saved."""

    id: str
    caller: str
    status: str
    background: bool
    head: msgspec.Raw
    own: int
    output: int
    memory: int
    before: list[int]
    item_ids: list[str]
    events: str
    age: float


def save(store: ResponseStore, path: Path, clock: float, wall: float) -> int:
    """Write the ended responses; `clock` is the store's, `wall` Unix seconds. Returns how many. Raises OSError."""
    store.expire()
    numbers: dict[int, int] = {}
    segments: list[Segment] = []
    rows: list[bytes] = []
    for entry in store.entries:
        for segment in (*entry.chain, entry.output):
            if id(segment) not in numbers:
                numbers[id(segment)] = len(segments)
                segments.append(segment)
        rows.append(msgspec.json.encode(to_row(entry, numbers, clock)))
    header = msgspec.json.encode(_Header(VERSION, wall, len(segments)))
    _write(path, [header, *(segment.data for segment in segments), *rows])
    return len(rows)


def load(store: ResponseStore, path: Path, wall: float) -> int:
    """Take in what an earlier process saved, without what is too old now, and remove the file. Returns how many it held.

    A file that cannot be understood is logged and removed: stored responses are a convenience, starting is not.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return 0
    path.unlink()
    try:
        header = msgspec.json.decode(lines[0], type=_Header)
        if header.version != VERSION:
            raise msgspec.ValidationError(f"version {header.version}")
        segments = [Segment(line) for line in lines[1 : header.segments + 1]]
        rows = [msgspec.json.decode(line, type=Row) for line in lines[header.segments + 1 :] if line]
        entries = [(from_row(row, segments), row.age) for row in rows]
    except (msgspec.DecodeError, IndexError) as error:
        logger.warning("stored responses of the last run are not readable: %s", error)
        return 0
    down = max(0.0, wall - header.saved_at)
    for entry, age in entries:
        store.restore(entry, age + down)
    store.expire()
    return len(entries)


def to_row(entry: Entry, numbers: dict[int, int], clock: float) -> Row:
    """An entry for another process; `numbers` are its segments' by `id()`, `clock` is the store's."""
    return Row(
        entry.id,
        entry.caller,
        entry.status,
        entry.background,
        msgspec.Raw(entry.head),
        numbers[id(entry.own)],
        numbers[id(entry.output)],
        numbers[id(entry.memory)],
        [numbers[id(segment)] for segment in entry.before],
        list(entry.item_ids),
        entry.events.decode(),
        clock - entry.ended,
    )


def from_row(row: Row, segments: Sequence[Segment]) -> Entry:
    """The entry again. Raises IndexError for a segment that is not there."""
    return Entry(
        row.id,
        row.caller,
        row.status,
        row.background,
        bytes(row.head),
        segments[row.own],
        segments[row.output],
        segments[row.memory],
        tuple(segments[number] for number in row.before),
        tuple(row.item_ids),
        row.events.encode(),
    )


def _write(path: Path, lines: list[bytes]) -> None:
    """Replace the file by these lines, on disk before this returns."""
    draft = path.with_name(path.name + ".new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        for line in lines:
            file.write(line + b"\n")
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
