"""What the admin API remembers over restarts, where two processes share it: the older serves its last connections."""

from __future__ import annotations

from pathlib import Path

from ds2d.state.admin_file import NAME, AdminFile


def test_what_another_process_wrote_counts_here_and_is_not_undone(tmp_path: Path) -> None:
    newer, older = AdminFile(tmp_path), AdminFile(tmp_path)
    assert older.raise_generation() == 2, "the password was changed over a kept connection"
    assert newer.kept.generation == 2, "the login that came with the answer counts"
    newer.note_sync("digest", 1)
    assert (older.kept.synced_digest, older.kept.generation) == ("digest", 2)
    assert AdminFile(tmp_path).kept == newer.kept
    (tmp_path / NAME).unlink()
    assert newer.kept.generation == 2, "no file revives old logins"
