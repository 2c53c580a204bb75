"""A bar is drawn for somebody who looks, and for nobody else."""

from __future__ import annotations

import io

import pytest

from ds2d.cli.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar_is_drawn_over_and_gone_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    with Progress("testing", 4) as bar:
        for number in range(4):
            bar.step(f"\x1b[2Jaccount-{number}" + "x" * 200)
    drawn = terminal.getvalue().split("\r")
    assert drawn[1].startswith(f"testing [{' ' * 24}] 0/4")
    assert drawn[-2].startswith(f"testing [{'#' * 24}] 4/4 ?[2Jaccount-3")
    assert drawn[-1] == "\x1b[K"
    assert all(len(line.removesuffix("\x1b[K")) <= 78 for line in drawn)


def test_without_a_total_it_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setattr("ds2d.cli.progress.EVERY", 0.0)
    with Progress("rows") as bar:
        bar.step()
        bar.step()
    assert "\rrows 2 " in terminal.getvalue()


def test_a_file_gets_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    monkeypatch.setattr("sys.stderr", file)
    with Progress("testing", 2) as bar:
        bar.step("a")
        bar.clear()
    assert file.getvalue() == ""
