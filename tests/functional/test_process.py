"""The real process: made by `init`, started, told to reload, drain and stop by signals, under a stand-in for systemd.

What waits here waits for a process; nothing else stands between a signal and its effect.
"""

from __future__ import annotations

import base64
import json
import shutil
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.functional.processes import ASK, CHAT, CLEAN, KEY, Process, answers, demo, ds2d, environment, free_port, serving, until


def test_from_an_empty_folder_to_an_answer(tmp_path: Path) -> None:
    made = ds2d(tmp_path, "init", "--no-scan")
    assert made.returncode == 0, made.stderr
    env = dict(line.removeprefix("export ").split("=", 1) for line in (tmp_path / ".ds2d.env").read_text().splitlines())
    secrets = [value.strip("'") for value in env.values()]
    assert {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("config.json", ".ds2d.env")} == {0o600}
    before = (tmp_path / "config.json").read_bytes()
    again = ds2d(tmp_path, "init", "--no-scan")
    assert again.returncode == 1
    assert "exists already" in again.stderr
    assert (tmp_path / "config.json").read_bytes() == before
    assert not any(secret.encode() in before for secret in secrets)
    with serving(tmp_path) as process:
        assert process.ask("/readyz") == (200, '{"status":"ready"}')
        status, text = process.ask(CHAT, ASK, key=secrets[0])
        assert status == 200, text
        assert process.ask(CHAT, ASK, key=secrets[1])[0] == 401
        state = tmp_path / "state"
        assert stat.S_IMODE(state.stat().st_mode) == 0o700
        assert {stat.S_IMODE(file.stat().st_mode) & 0o077 for file in state.rglob("*") if file.is_file()} <= {0}
        assert process.end() == 0
    for said in (process.said(), again.stdout, again.stderr):
        assert not any(secret in said for secret in secrets)


def test_no_secret_is_said_whatever_is_printed(tmp_path: Path) -> None:
    secrets = ["hunter2-password", "tok-very-secret", "hdr-very-secret", KEY]
    config = demo(accounts=[{"name": "a", "upstream": "web", "token": secrets[1]}, {"email": "a@b.c", "password": secrets[0]}])
    config["upstreams"].append(
        {"name": "web", "kind": "openai", "base_url": "http://127.0.0.1:9/v1", "headers": {"X-Secret": secrets[2]},
         "login": {"type": "json", "url": "/login"}})  # fmt: skip
    with serving(tmp_path, "--log-level", "debug", config=config) as process:
        shown = [process.ask("/readyz?verbose")[1], process.ask(CHAT, ASK)[1], process.ask(CHAT, {**ASK, "stream": True})[1]]
        shown.append(process.ask("/v1/messages?key=tok-very-secret", ASK, key="tok-very-secret")[1])
        process.end()
    (tmp_path / "bad.json").write_text(json.dumps({**config, "nonsense": 1}))
    for words in (["config", "show"], ["check-config", "bad.json"], ["check-config"], ["models"]):
        done = ds2d(tmp_path, *words)
        shown += [done.stdout, done.stderr]
    for text in (*shown, process.said()):
        for secret in secrets:
            assert secret not in text


def test_sighup_reloads_and_a_write_counts_by_itself(tmp_path: Path) -> None:
    with serving(tmp_path, config=demo()) as process:
        assert process.ask(CHAT, ASK, key="sk-second-0123456789")[0] == 401
        (tmp_path / "config.json").write_text(json.dumps(demo(keys=["sk-second-0123456789"])))
        process.popen.send_signal(signal.SIGHUP)
        until(lambda: process.ask(CHAT, ASK, key="sk-second-0123456789")[0] == 200, 2)
        assert process.ask(CHAT, ASK)[0] == 401
        (tmp_path / "config.json").write_text("{")
        process.popen.send_signal(signal.SIGHUP)
        until(lambda: "config not taken up" in process.said())
        assert process.ask(CHAT, ASK, key="sk-second-0123456789")[0] == 200
        assert process.end() == 0


def test_sigterm_lets_a_stream_finish_and_exits_0(tmp_path: Path) -> None:
    with serving(tmp_path, config=demo(pace=40)) as process, process.stream() as stream:
        process.popen.send_signal(signal.SIGTERM)
        until(lambda: not answers(process.port), 2)
        assert process.popen.poll() is None
        text = stream.read().decode()
        assert text.endswith("data: [DONE]\n\n")
        assert '"error"' not in text
        assert process.popen.wait(20) == 0


def test_a_second_sigterm_ends_at_once_in_the_dialects_words(tmp_path: Path) -> None:
    with serving(tmp_path, config=demo(pace=400)) as process, process.stream() as stream:
        process.popen.send_signal(signal.SIGTERM)
        until(lambda: "draining" in process.said())
        process.popen.send_signal(signal.SIGTERM)
        text = stream.read().decode()
        assert '"code":"shutting_down"' in text
        assert "[DONE]" not in text
        assert process.popen.wait(20) == 0


def test_a_drain_has_an_end(tmp_path: Path) -> None:
    with serving(tmp_path, config=demo(pace=400, server={"drain_seconds": 0.3})) as process, process.stream() as stream:
        process.popen.send_signal(signal.SIGTERM)
        assert '"code":"shutting_down"' in stream.read().decode()
        assert process.popen.wait(20) == 0


def test_the_service_manager_is_told(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        address = str(tmp_path / "notify")
        manager.bind(address)
        manager.settimeout(10)
        with serving(tmp_path, config=demo(), NOTIFY_SOCKET=address, WATCHDOG_USEC="400000") as process:
            told: list[str] = []
            while not {"READY=1", "WATCHDOG=1"} <= {line for message in told for line in message.splitlines()}:
                told.append(manager.recv(4096).decode())
            assert told[0].startswith(("READY=1", "WATCHDOG=1"))
            assert process.ask("/healthz")[0] == 200
            process.popen.send_signal(signal.SIGTERM)
            while "STOPPING=1" not in told[-1]:
                told.append(manager.recv(4096).decode())
            assert process.popen.wait(20) == 0


PASS_ON = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execv(sys.executable, [sys.executable, "-m", "ds2d", "serve"])
"""


def test_a_socket_that_was_passed_in_is_served(tmp_path: Path) -> None:
    """As systemd does it: descriptor 3, and variables that name this process."""
    (tmp_path / "config.json").write_text(json.dumps(demo()))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        log = tmp_path / "log.txt"
        with log.open("wb") as output:
            popen = subprocess.Popen(
                [sys.executable, "-c", PASS_ON, str(listener.fileno())],
                cwd=tmp_path, env=environment(), pass_fds=[listener.fileno()], stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip
        process = Process(popen, port, log)
        try:
            assert process.ask("/readyz")[0] == 200  # waits in the backlog until the daemon is up
            assert process.ask(CHAT, ASK)[0] == 200
            assert process.end() == 0
            with socket.create_connection(("127.0.0.1", port), 1):
                pass  # the socket is still there: no connection is refused over a restart
        finally:
            popen.kill()
            popen.wait()


@pytest.mark.skipif(shutil.which("systemd-socket-activate") is None, reason="systemd-socket-activate is not here")
def test_socket_activation_by_systemds_own_tool(tmp_path: Path) -> None:
    port = free_port()
    tool = shutil.which("systemd-socket-activate") or ""
    keep = [f"-E{name}" for name in (*CLEAN, "PYTHONPATH", "PYTHONUNBUFFERED") if name in environment()]
    command = (tool, *keep, f"--listen=127.0.0.1:{port}", sys.executable)
    with serving(tmp_path, config=demo(), port=port, command=command) as process:
        assert process.ask("/readyz")[0] == 200
        assert process.ask(CHAT, ASK)[0] == 200
        assert process.end() == 0


def test_a_config_that_is_missing_is_named(tmp_path: Path) -> None:
    with serving(tmp_path, "--config", "typo.json") as process:
        assert f"WARNING ds2d {tmp_path / 'typo.json'} is missing" in process.said()
        assert process.end() == 0


def test_a_config_that_everybody_can_read_is_named_once(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(demo()))
    for mode, times in ((0o644, 1), (0o640, 0)):
        path.chmod(mode)
        with serving(tmp_path) as process:
            assert process.said().count("config.json can be read by every user of this host: chmod 600") == times
            assert process.end() == 0


def test_an_occupied_port_is_said_in_words(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        (tmp_path / "config.json").write_text(json.dumps(demo()))
        done = ds2d(tmp_path, "serve", "--port", str(other.getsockname()[1]))
    assert done.returncode == 1
    assert "cannot listen on 127.0.0.1:" in done.stderr
    assert "--port" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("host", "why"), [("nosuch.invalid", "no such host is known"), ("192.0.2.1", "Cannot assign requested")])
def test_a_host_that_is_not_this_one_is_said_in_words(tmp_path: Path, host: str, why: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps(demo()))
    done = ds2d(tmp_path, "serve", "--host", host, "--port", "0")
    assert done.returncode == 1
    assert f"cannot listen on {host}:" in done.stderr
    assert why in done.stderr
    assert "server.host" in done.stderr
    assert "another ds2d" not in done.stderr


def test_without_the_c_parser_nothing_starts(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(demo()))
    done = ds2d(tmp_path, "serve", "--port", str(free_port()), AIOHTTP_NO_EXTENSIONS="1")
    assert done.returncode == 1
    assert "C parser" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_broken_config_starts_nothing_and_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"upstreams": [{"name": "a"}], "servr": {}}')
    done = ds2d(tmp_path, "serve", "--port", str(free_port()))
    assert done.returncode == 1
    assert "servr" in done.stderr
    assert "upstreams[0]" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("form", ["plain", "base64", "prefixed"])
def test_the_whole_config_may_stand_in_a_variable(tmp_path: Path, form: str) -> None:
    raw = json.dumps(demo())
    coded = base64.urlsafe_b64encode(raw.encode()).decode()
    value = {"plain": raw, "base64": coded, "prefixed": f"base64:{coded}"}[form]
    with serving(tmp_path, DS2API_CONFIG_JSON=value) as process:
        assert process.ask(CHAT, ASK)[0] == 200
        assert process.end() == 0
    assert not (tmp_path / "config.json").exists()


def test_ctrl_c_is_an_orderly_end(tmp_path: Path) -> None:
    with serving(tmp_path, config=demo()) as process:
        assert process.end(signal.SIGINT) == 0
    assert "Traceback" not in process.said()


def test_without_standard_error_the_log_goes_to_standard_output(tmp_path: Path) -> None:
    """It ended with 1, and without a word; and no file of ours may have that number, for whatever writes there."""
    port = free_port()
    command = ("/bin/sh", "-c", 'exec "$0" "${@}" 2>&-', sys.executable)
    with serving(tmp_path, "--port", str(port), config=demo(), port=port, command=command) as process:
        until(lambda: "serving on" in process.said())
        assert process.ask(CHAT, ASK)[0] == 200
        assert process.end() == 0
    assert "stopped" in process.said()
    assert "Traceback" not in process.said()


HANGING = """
import asyncio, sys
from ds2d.app import Daemon
from ds2d.cli import main, serve
async def stop(self):
    await asyncio.get_running_loop().create_future()
Daemon.stop = stop
serve.STOP_SECONDS = 0.5
sys.exit(main(sys.argv[3:]))
"""


def test_an_end_that_hangs_is_cut_short_and_says_where(tmp_path: Path) -> None:
    """A connection that nobody closes is enough, in the event loop's own end; who supervises the process waits for minutes."""
    port = free_port()
    command = (sys.executable, "-c", HANGING)
    with serving(tmp_path, "--port", str(port), config=demo(), port=port, command=command) as process:
        until(lambda: "serving on" in process.said())
        assert process.end() == 1
        assert "Timeout (0:00:00.500000)" in process.said()
