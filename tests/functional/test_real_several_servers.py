"""Two real vLLM servers behind one daemon: one is killed under load and started again, somebody else uses the other.

Rule: they are this test's own, on ports of their own, and end with it; with the server that other tests may have running there
are three at most. The times are the promise that operators get, measured with real processes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from scripts.real_upstream.__main__ import CACHE, MODEL_NAME, ROOT, environment_is_current, model_is_current
from tests.functional.harness import KEY, Running, running
from tests.functional.real_upstream import SKIPPED, START_SECONDS, free_port, stop, wait_until_ready

pytestmark = [pytest.mark.real, pytest.mark.timeout(3 * START_SECONDS)]

CHAT = "/v1/chat/completions"
DOWN_SECONDS, BACK_SECONDS = 3.0, 5.0
PATIENCE = 120.0
"""Seconds with what is no figure of ours, on a machine that does other work."""
LONG = {
    "model": MODEL_NAME,
    "messages": [{"role": "user", "content": "Hello"}],
    "stream": True,
    "max_tokens": 3000,
    "ignore_eos": True,
}
SHORT = {"model": MODEL_NAME, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}


class Vllm:
    """A server that can be killed and started again on its port."""

    def __init__(self, config: pytest.Config) -> None:
        self.port = free_port()
        self.log = CACHE / f"serve-{self.port}.log"
        self._config = config
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "scripts.real_upstream", "serve", "--flavour", "v31", "--port", str(self.port)]
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)

    def wait(self) -> None:
        assert self.process is not None
        wait_until_ready(self.process, self.port, self.log, self._config)

    def kill(self) -> float:
        """The whole of it at once, as an out-of-memory kill does; when it was gone. Until its memory is free, which takes a busy
        machine seconds, its sockets stay open."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        return time.monotonic()

    def end(self) -> None:
        if self.process is not None and self.process.poll() is None:
            stop(self.process)
        self.log.unlink(missing_ok=True)


@pytest.fixture
def servers(request: pytest.FixtureRequest) -> Iterator[dict[str, Vllm]]:
    if not (environment_is_current() and model_is_current("recite")):
        pytest.skip(SKIPPED)
    both = {"a": Vllm(request.config), "b": Vllm(request.config)}
    try:
        for server in both.values():
            server.start()
        for server in both.values():
            server.wait()
        yield both
    finally:
        for server in both.values():
            server.end()


class Stream:
    """A long answer that is being read."""

    def __init__(self, ds2d: Running, url: str, key: str | None = KEY) -> None:
        self.data = bytearray()
        self._ask = (url + CHAT, {"Authorization": f"Bearer {key}"} if key else {})
        self.task = asyncio.create_task(self._run(ds2d.http))

    async def _run(self, http: aiohttp.ClientSession) -> None:
        await self._read(http)

    async def _read(self, http: aiohttp.ClientSession) -> None:
        url, headers = self._ask
        async with http.post(url, json=LONG, headers=headers, timeout=aiohttp.ClientTimeout(total=600)) as reply:
            assert reply.status == 200, await reply.text()
            async for piece in reply.content.iter_any():
                self.data += piece


class Stranger(Stream):
    """Somebody who asks a server past the gateway, for one long answer after the other: a quick server is through with one before
    it was looked at three times."""

    def __init__(self, ds2d: Running, server: Vllm) -> None:
        super().__init__(ds2d, f"http://127.0.0.1:{server.port}", key=None)

    async def _run(self, http: aiohttp.ClientSession) -> None:
        while True:
            await self._read(http)

    async def leave(self) -> None:
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task


async def until(ds2d: Running, condition: Callable[[], bool]) -> None:
    """Return as soon as it holds. If it does not in time, the failure says how the daemon sees its servers."""
    deadline = time.monotonic() + PATIENCE
    while not condition():  # what is waited for has no event
        assert time.monotonic() < deadline, ds2d.daemon.catalog.details()
        await asyncio.sleep(0.01)


def states(ds2d: Running) -> dict[str, str]:
    return dict(ds2d.daemon.catalog.states())


def answered(ds2d: Running, since: int) -> list[str]:
    """The upstreams that answered the turns that ended since then, the latest first."""
    recent: list[dict[str, Any]] = ds2d.daemon.books.recent
    return [turn["tries"][-1]["upstream"] for turn in recent[: len(recent) - since] if turn["state"] == "completed"]


async def test_one_of_two_is_killed_under_load_and_comes_back(
    servers: dict[str, Vllm], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    upstreams = [{"name": name, "base_url": f"http://127.0.0.1:{server.port}/v1"} for name, server in servers.items()]
    async with running(tmp_path, {"keys": [KEY], "upstreams": upstreams, "runtime": {"affinity": {"mode": "off"}}}) as ds2d:
        await until(ds2d, lambda: set(states(ds2d).values()) == {"ready"})
        await asyncio.gather(*(ds2d.ask(CHAT, SHORT) for _ in range(4)))  # a server's first answer takes seconds
        streams = [Stream(ds2d, ds2d.url) for _ in range(2)]  # least loaded: one on each
        turns = ds2d.daemon.service.turns
        await until(ds2d, lambda: len(turns) == 2 and all(turn.upstream for turn in turns.values()))
        where = {turn.upstream: stream for turn, stream in zip(turns.values(), streams, strict=True)}
        assert set(where) == {"a", "b"}
        await until(ds2d, lambda: len(where["a"].data) > 1000)  # of a busy machine the other may come when this one is over

        signalled = time.monotonic()
        killing = asyncio.get_running_loop().run_in_executor(None, servers["a"].kill)
        await until(ds2d, lambda: states(ds2d)["a"] == "down")
        down = time.monotonic()
        gone = await killing
        read = len(where["b"].data)
        since = len(ds2d.daemon.books.recent)
        for _ in range(4):
            status, answer, _ = await ds2d.ask(CHAT, SHORT)
            assert status == 200, answer
        assert set(answered(ds2d, since)) == {"b"}
        await where["a"].task
        assert b'"error"' in where["a"].data
        await until(ds2d, lambda: where["b"].task.done() or len(where["b"].data) > read)  # a quick machine is through by now
        assert b'"error"' not in where["b"].data

        stranger = Stranger(ds2d, servers["b"])
        await until(ds2d, lambda: stranger.task.done() or ds2d.daemon.catalog.health()[1].evidence.orphans == 1)
        await stranger.leave()  # raises what ended it, if something did
        await where["b"].task
        assert b"[DONE]" in where["b"].data

        await asyncio.get_running_loop().run_in_executor(None, servers["a"].start)
        await asyncio.get_running_loop().run_in_executor(None, servers["a"].wait)
        began = time.monotonic()
        await until(ds2d, lambda: states(ds2d)["a"] == "ready")
        back = time.monotonic() - began
        since = len(ds2d.daemon.books.recent)
        await asyncio.gather(*(ds2d.ask(CHAT, SHORT) for _ in range(6)))
        assert set(answered(ds2d, since)) == {"a", "b"}
        figures = (
            f"gone {gone - signalled:.2f} s after the signal, down {down - gone:.2f} s after that; back {back:.2f} s after it was"
        )
        with capsys.disabled():
            sys.stderr.write(f"\n  {figures}\n")
        assert down - gone < DOWN_SECONDS
        assert back < BACK_SECONDS
