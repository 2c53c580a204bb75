"""A file is read as it stood at one moment, and replaced only if it is the one expected."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import threading
from pathlib import Path

import pytest

from ds2d.config import files
from ds2d.config.files import ConflictError, create, read_stable, replace


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(params=["exchange", "rename"])
def _both_ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the kernel's exchange of two files, and as where there is none."""
    if request.param == "rename":
        monkeypatch.setattr(files, "_libc", None)


def test_a_new_file_is_for_its_owner_only_and_never_replaces(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    create(path, b"one")
    assert (path.read_bytes(), mode(path)) == (b"one", 0o600)
    with pytest.raises(ConflictError):
        create(path, b"two")
    assert os.listdir(tmp_path) == ["config.json"]
    assert path.read_bytes() == b"one"


def test_a_new_file_is_made_where_a_link_leads_that_leads_nowhere_yet(tmp_path: Path) -> None:
    """A link to a volume that is still empty: to call that a conflict would be one that no reading anew ends."""
    link, target = tmp_path / "config.json", tmp_path / "volume" / "config.json"
    target.parent.mkdir()
    link.symlink_to("volume/config.json")
    create(link, b"one")
    assert (link.is_symlink(), target.read_bytes(), mode(target)) == (True, b"one", 0o600)
    with pytest.raises(ConflictError):
        create(link, b"two")


@pytest.mark.usefixtures("_both_ways")
@pytest.mark.parametrize("bits", [0o600, 0o640, 0o644])
def test_a_replaced_file_keeps_its_mode_and_leaves_nothing_behind(tmp_path: Path, bits: int) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(b"old")
    path.chmod(bits)
    replace(path, b"new", b"old")
    assert (path.read_bytes(), mode(path), os.listdir(tmp_path)) == (b"new", bits, ["config.json"])


@pytest.mark.usefixtures("_both_ways")
def test_a_file_that_changed_since_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(b"theirs")
    with pytest.raises(ConflictError):
        replace(path, b"ours", b"base")
    assert (path.read_bytes(), os.listdir(tmp_path)) == (b"theirs", ["config.json"])


@pytest.mark.parametrize("code", [errno.EBUSY, errno.EROFS])
def test_a_file_that_is_mounted_by_itself_is_written_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """`docker run -v ./config.json:/app/config.json`: nothing can be put in its place."""
    path = tmp_path / "config.json"
    path.write_bytes(b'{"a": "something longer"}')
    inode = path.stat().st_ino

    def refuse(*_: object, **__: object) -> bool:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(files, "_exchange" if code == errno.EBUSY else "_draft", refuse)
    replace(path, b'{"b": 1}', b'{"a": "something longer"}')
    assert (path.read_bytes(), path.stat().st_ino) == (b'{"b": 1}', inode)
    with pytest.raises(ConflictError):
        replace(path, b'{"c": 1}', b'{"a": 1}')
    assert os.listdir(tmp_path) == ["config.json"]
    assert path.read_bytes() == b'{"b": 1}'


@pytest.mark.usefixtures("_both_ways")
def test_a_link_stays_and_its_target_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    target, link = tmp_path / "real" / "c.json", tmp_path / "config.json"
    target.write_bytes(b"old")
    link.symlink_to("real/c.json")
    replace(link, b"new", b"old")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_a_replaced_file_keeps_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(b"old")
    os.chown(path, 1234, 1235)
    replace(path, b"new", b"old")
    assert (path.stat().st_uid, path.stat().st_gid) == (1234, 1235)


def test_a_file_that_changes_while_it_is_read_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(b"half")
    real, changes = os.fstat, iter([b"", b"whole"])

    def fstat(descriptor: int) -> os.stat_result:
        status = real(descriptor)
        if (text := next(changes, None)) is not None and text:
            path.write_bytes(text)
            return real(descriptor)
        return status

    monkeypatch.setattr(os, "fstat", fstat)
    assert read_stable(path) == b"whole"


def test_what_is_no_regular_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a regular file"):
        read_stable(tmp_path / "pipe")
    with pytest.raises(OSError, match=r"regular|directory"):
        read_stable(tmp_path)


def test_an_edit_that_the_writer_has_not_seen_is_never_lost(tmp_path: Path) -> None:
    """An editor renames over the file as fast as it can, while a writer replaces what it has just read."""
    path = tmp_path / "config.json"
    path.write_bytes(b"0")
    rounds = 300

    def edit() -> None:
        for number in range(rounds):
            (tmp_path / "draft").write_bytes(b"edit %d." % number)
            os.replace(tmp_path / "draft", path)

    editor = threading.Thread(target=edit)
    editor.start()
    while editor.is_alive():
        base = path.read_bytes()
        with contextlib.suppress(ConflictError):
            replace(path, base.partition(b".")[0] + b".ours", base)
    editor.join()
    assert path.read_bytes().startswith(b"edit %d." % (rounds - 1))


def test_of_edits_that_fall_into_an_undo_the_newest_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each exchange of the writer is preceded by another save of the editor, until the editor rests."""
    path = tmp_path / "config.json"
    path.write_bytes(b"base")
    exchange, saves = files._exchange, iter([b"edit 1", b"edit 2", b"edit 3", b"edit 4"])

    def interrupted(one: Path, other: Path) -> bool:
        if (text := next(saves, None)) is not None:
            (tmp_path / "draft").write_bytes(text)
            os.replace(tmp_path / "draft", path)
        return exchange(one, other)

    monkeypatch.setattr(files, "_exchange", interrupted)
    with pytest.raises(ConflictError):
        replace(path, b"ours", b"base")
    assert path.read_bytes() == b"edit 4"
    assert os.listdir(tmp_path) == ["config.json"]
