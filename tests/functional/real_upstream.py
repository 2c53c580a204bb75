"""The fixtures `real_vllm` and `real_servers`: real servers with the tiny model of scripts/real-upstream, one or up to three.

Rule: a test that uses them is marked `real`; where the environment is missing it is skipped, and the end of the run says
so in words that cannot be overlooked.
Surprise: a server takes 30 to 130 s to start and 3.6 GB, so it goes on until others are wanted, and the tests are sorted by
what they want. Choose with @pytest.mark.parametrize("real_vllm", ["v4"], indirect=True); without that it is v31. Several:
@pytest.mark.parametrize("real_servers", [("v31", "embed", "llama")], indirect=True).
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from scripts.real_upstream import llama
from scripts.real_upstream.__main__ import CACHE, MODEL_NAME, ROOT, environment_is_current, model_is_current, model_of
from tests.aloud import NOT_TESTED

START_SECONDS = 300
"""A busy machine of two cores took 130 s."""
STOP_SECONDS = 30
MOST_SERVERS = 3
"""At once: memory."""
SKIPPED_LLAMA = NOT_TESTED + "a real llama.cpp: it is not installed (scripts/real-upstream install llama)"
SKIPPED = NOT_TESTED + "a real model server: it is not installed (scripts/real-upstream install && scripts/real-upstream model)"


@dataclass(frozen=True)
class RealServer:
    """A running vLLM; the texts it knows are in scripts/real_upstream/texts.py."""

    url: str
    flavour: str
    model: str = MODEL_NAME

    @property
    def base_url(self) -> str:
        """What an OpenAI client wants to be told."""
        return self.url + "/v1"


class Stage:
    """The servers that run now. `want` stops those that are not wanted and starts those that are missing, all at once.

    One that did not start is not tried again: each try takes minutes, and there is a test for each.
    """

    def __init__(self) -> None:
        self._running: dict[str, tuple[subprocess.Popen[bytes], RealServer]] = {}
        self._failed: dict[str, str] = {}

    def want(self, flavours: Sequence[str], config: pytest.Config) -> list[RealServer]:
        """These, ready, in this order. Skips the test where one is not installed."""
        assert len(flavours) <= MOST_SERVERS
        if not all(map(is_installed, flavours)):
            pytest.skip(SKIPPED_LLAMA if all(is_installed(one) for one in flavours if one != "llama") else SKIPPED)
        for flavour in flavours:
            if flavour in self._failed:
                pytest.fail(f"as before: {self._failed[flavour]}", pytrace=False)
        for flavour in self._running.keys() - set(flavours):
            stop(self._running.pop(flavour)[0])
        started = [self._start(flavour) for flavour in flavours if flavour not in self._running]
        for flavour in started:
            process, server = self._running[flavour]
            port = int(server.url.rpartition(":")[2])
            try:
                wait_until_ready(process, port, log_of(flavour), config, "/v1/models" if flavour == "llama" else "/health")
            except BaseException as error:
                self._failed[flavour] = str(error)
                raise
        return [self._running[flavour][1] for flavour in flavours]

    def clear(self) -> None:
        """Stop all of them."""
        for process, _ in self._running.values():
            stop(process)
        self._running.clear()

    def _start(self, flavour: str) -> str:
        port = free_port()
        command = [sys.executable, "-m", "scripts.real_upstream", "serve", "--flavour", flavour, "--port", str(port)]
        command += ["--embedding", "true"] if flavour == "llama" else []
        with log_of(flavour).open("wb") as output:
            process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
        self._running[flavour] = process, RealServer(f"http://127.0.0.1:{port}", flavour)
        return flavour


def is_installed(flavour: str) -> bool:
    """Whether scripts/real-upstream can serve it."""
    return llama.is_current() if flavour == "llama" else environment_is_current() and model_is_current(model_of(flavour))


def log_of(flavour: str) -> Path:
    """Where its words go."""
    return CACHE / f"serve-{flavour}.log"


@pytest.fixture(scope="session")
def real_stage() -> Iterator[Stage]:
    """What runs, for the session: starting takes minutes."""
    stage = Stage()
    try:
        yield stage
    finally:
        stage.clear()


@pytest.fixture
def real_vllm(request: pytest.FixtureRequest, real_stage: Stage) -> RealServer:
    """A server of the flavour given as parameter, on a free port; stopped when others are wanted."""
    [server] = real_stage.want([request.param], request.config)
    return server


@pytest.fixture
def real_servers(request: pytest.FixtureRequest, real_stage: Stage) -> list[RealServer]:
    """Several servers at once, of the flavours given as parameter (a tuple); "llama" is llama.cpp."""
    return real_stage.want(request.param, request.config)


def free_port() -> int:
    """A port that nobody has right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def wait_until_ready(
    process: subprocess.Popen[bytes], port: int, log: Path, config: pytest.Config, path: str = "/health"
) -> None:
    """Wait on real time, because a real program loads; says every ten seconds that it still does."""
    terminal = config.pluginmanager.getplugin("terminalreporter")
    capture = config.pluginmanager.getplugin("capturemanager")
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    started = time.monotonic()
    said = 0
    while (waited := time.monotonic() - started) < START_SECONDS:
        if process.poll() is not None:
            break
        try:
            direct.open(f"http://127.0.0.1:{port}{path}", timeout=2).close()
        except OSError:
            time.sleep(0.5)
        else:
            return
        if terminal is not None and waited >= said + 10:
            said = int(waited)
            with capture.global_and_fixture_disabled():
                terminal.write_line(f"  starting {log.stem}: {said} s (usually 30 to 130)", flush=True)
    last_words = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
    pytest.fail(f"{log.stem} did not start within {START_SECONDS} s; the end of {log}:\n{last_words}", pytrace=False)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End the server and what it started."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # engine processes that outlived their parent
    process.wait()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """The usual flavour for a test that names none, as a parameter so that it shares the server of those that do."""
    if "real_vllm" not in metafunc.fixturenames:
        return
    if not any("real_vllm" in mark.args[0] for mark in metafunc.definition.iter_markers("parametrize")):
        metafunc.parametrize("real_vllm", ["v31"], indirect=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whoever uses a server is a `real` test, and may wait for it to start; others come first, in their own order."""
    for item in items:
        if _wanted(item):
            item.add_marker(pytest.mark.real)
            item.add_marker(pytest.mark.timeout(START_SECONDS + 120))
    items.sort(key=_wanted)


def _wanted(item: pytest.Item) -> tuple[str, ...]:
    """The flavours that a test needs; tests with the same ones run one after the other."""
    given = getattr(item, "callspec", None)
    found = given.params.get("real_vllm") or given.params.get("real_servers") if given is not None else None
    return (found,) if isinstance(found, str) else tuple(found or ())
