"""The fixture `real_vllm`: a real vLLM with the tiny model of scripts/real-upstream, one at a time.

Rule: a test that uses it is marked `real`; where the environment is missing it is skipped, and the end of the run says
so in words that cannot be overlooked.
Surprise: a server takes 30 to 130 s to start and 3.6 GB, so it lives for the session, and pytest sorts the tests by
flavour. Choose one with @pytest.mark.parametrize("real_vllm", ["v4"], indirect=True); without that it is v31.
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
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from scripts.real_upstream.__main__ import CACHE, MODEL_NAME, ROOT, environment_is_current, model_is_current, model_of
from tests.aloud import NOT_TESTED

START_SECONDS = 400
"""A busy machine of two cores took 130 s."""
STOP_SECONDS = 30
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


@pytest.fixture(scope="session")
def real_vllm(request: pytest.FixtureRequest) -> Iterator[RealServer]:
    """A server of the flavour given as parameter, on a free port; stopped when the next one is wanted."""
    flavour: str = request.param
    if not (environment_is_current() and model_is_current(model_of(flavour))):
        pytest.skip(SKIPPED)
    port = free_port()
    log = CACHE / f"serve-{flavour}.log"
    command = [sys.executable, "-m", "scripts.real_upstream", "serve", "--flavour", flavour, "--port", str(port)]
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        wait_until_ready(process, port, log, request.config)
        yield RealServer(f"http://127.0.0.1:{port}", flavour)
    finally:
        stop(process)


def free_port() -> int:
    """A port that nobody has right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def wait_until_ready(process: subprocess.Popen[bytes], port: int, log: Path, config: pytest.Config) -> None:
    """Wait on real time, because a real program loads; says every ten seconds that it still does."""
    terminal = config.pluginmanager.getplugin("terminalreporter")
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    started = time.monotonic()
    said = 0
    while (waited := time.monotonic() - started) < START_SECONDS:
        if process.poll() is not None:
            break
        try:
            direct.open(f"http://127.0.0.1:{port}/health", timeout=2).close()
        except OSError:
            time.sleep(0.5)
        else:
            return
        if terminal is not None and waited >= said + 10:
            said = int(waited)
            terminal.write_line(f"  starting vLLM: {said} s (usually 30 to 130)", flush=True)
    last_words = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
    pytest.fail(f"vLLM did not start within {START_SECONDS} s; the end of {log}:\n{last_words}", pytrace=False)


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
    """Whoever uses the server is a `real` test, and may wait for it to start."""
    for item in items:
        if "real_vllm" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.real)
            item.add_marker(pytest.mark.timeout(START_SECONDS + 120))
