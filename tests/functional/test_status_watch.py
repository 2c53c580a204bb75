"""`ds2d status --watch`: a page once where nobody looks, a live one on a terminal, nothing of a client's that could harm it."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any

import pytest

from ds2d.cli import main
from ds2d.cli.live import Look, page, samples_of
from ds2d.core.metrics import Counter, render
from tests.functional.admin import ADMIN_KEY, administered
from tests.functional.harness import KEY
from tests.functional.processes import demo, environment, serving
from tests.functional.scripted import Scene, Wait, say

CHAT = "/v1/chat/completions"
ASK: dict[str, Any] = {"model": "deepseek-chat", "messages": [{"role": "user", "content": "Hello"}], "stream": True}
ESCAPES = re.compile(r"\x1b\[[?0-9;]*[A-Za-z]")


async def test_without_a_terminal_it_is_one_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with administered(tmp_path, accounts=[{"name": "main", "upstream": "gpu", "token": "tok-a"}]) as (live, upstream):
        held, frames = Wait(), say("Hel", "lo")
        upstream.scenes.append(Scene([*frames[:2], held, *frames[2:]]))
        turn = asyncio.create_task(live.ask(CHAT, ASK, headers={"x-request-id": "the-one-that-runs"}))
        await held.reached.wait()
        words = ["status", "--watch", "--url", live.url]
        assert await asyncio.to_thread(main, words) == 0
        without = capsys.readouterr().out
        monkeypatch.setenv("DS2D_ADMIN_KEY", ADMIN_KEY)
        assert await asyncio.to_thread(main, words) == 0
        shown = capsys.readouterr().out
        held.until.set()
        await turn
    for text in (without, shown):
        assert "\x1b" not in text
        assert "1 turns, 1 streaming   0 waiting of 2   1 of 2 slots" in text
        assert re.search(r"^main +gpu +ready +\[#{10} {10}\] 1/2$", text, re.MULTILINE), text
        assert re.search(r"^gpu +ready +1 +1 +", text, re.MULTILINE), text
        assert KEY not in text
    assert "the-one-that-runs" not in without
    assert re.search(r"^the-one-that-runs .* deepseek-chat .* streaming$", shown, re.MULTILINE), shown


async def test_where_metrics_are_closed_the_page_says_what_opens_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with administered(tmp_path, metrics={"access": "admin"}) as (live, _):
        assert await asyncio.to_thread(main, ["status", "--watch", "--url", live.url]) == 0
    out = capsys.readouterr().out
    assert "more with the admin key in $DS2D_ADMIN_KEY" in out
    assert "gpu" in out


def test_a_terminal_has_a_page_that_follows_and_comes_back_as_it_was(tmp_path: Path) -> None:
    with serving(tmp_path, config=demo(pace=100)) as process:
        main_end, other_end = pty.openpty()
        fcntl.ioctl(other_end, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 60, 0, 0))
        words = [
            sys.executable,
            "-m",
            "ds2d",
            "status",
            "--watch",
            "--interval",
            "0.1",
            "--url",
            f"http://127.0.0.1:{process.port}",
        ]
        popen = subprocess.Popen(words, stdin=other_end, stdout=other_end, stderr=other_end, env=environment(TERM="xterm"))
        os.close(other_end)
        seen = ""

        def read_until(pattern: str) -> None:
            nonlocal seen
            deadline = time.monotonic() + 30
            while not re.search(pattern, ESCAPES.sub("", seen)):
                assert time.monotonic() < deadline, seen[-2000:]
                if select.select([main_end], [], [], 0.5)[0]:
                    seen += os.read(main_end, 65536).decode()

        try:
            read_until(r"0 turns, 0 streaming")
            with process.stream() as reply:
                read_until(r"1 turns, 1 streaming")
                read_until(r"[1-9]\d* tokens/s")
                reply.read()
            popen.send_signal(signal.SIGINT)
            with contextlib.suppress(OSError):  # how Linux says that the other end is closed
                while True:
                    seen += os.read(main_end, 65536).decode()
            assert popen.wait(20) == 0
        finally:
            popen.kill()
            popen.wait()
            os.close(main_end)
    assert seen.startswith("\x1b[?1049h")
    assert seen.endswith("\x1b[?25h\x1b[?1049l")
    for line in re.split(r"\r?\n|\x1b\[H", seen):
        assert len(ESCAPES.sub("", line)) <= 60


def test_nobody_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--watch", "--url", "http://127.0.0.1:9"]) == 1
    assert "is the daemon running?" in capsys.readouterr().err


def test_names_that_clients_chose_do_nothing_to_a_terminal() -> None:
    evil = 'x\x1b]0;owned\x07\n"y\\'
    counter = Counter("ds2d_account_state", "x", ("account", "upstream", "state"))
    counter.values[evil, "gpu", "ready"] = 1
    samples = tuple(samples_of(render([counter]).decode()))
    assert samples[0].labels["account"] == evil
    turn = {"request_id": evil, "key": evil, "dialect": "d", "model": evil, "account": None, "age_ms": 5, "answering": False}
    for colour in (True, False):
        lines = page(Look(0.0, {"status": "ready"}, samples, (turn,)), None, 200, colour=colour)
        assert "owned" in "".join(lines)
        assert all(ESCAPES.sub("", line).isprintable() for line in lines)
