"""The daemon as systemd runs it: sealed, watched, and never refusing a connection while it restarts (reliability.md, promise 8).

The tests follow one machine from its first start on, in this order.
"""

import itertools
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.functional.booted import Machine
from tests.functional.harness import KEY

pytestmark = pytest.mark.xdist_group("systemd")

WATCHDOG_SECONDS = 8  # short enough to wait for, long enough for a start on a busy machine
CONFIG = json.dumps({"keys": [KEY], "upstreams": [{"name": "demo", "kind": "demo", "pace_ms": 60}]})


def ready(machine: Machine) -> int:
    return httpx.get(machine.url + "/readyz", timeout=10).status_code


def healthy(machine: Machine) -> bool:
    return httpx.get(machine.url + "/healthz", timeout=60).status_code == 200


def test_it_starts_under_the_unit_and_says_when_it_is_up(machine: Machine) -> None:
    machine.wait_for("ds2d.service", "ActiveState", "active")
    assert machine.show("ds2d.service", "StatusText")
    assert healthy(machine)
    assert ready(machine) == 503  # nothing was invented: there is no config yet


def test_it_runs_as_nobody_in_particular_and_may_do_nothing_in_particular(machine: Machine) -> None:
    number = machine.show("ds2d.service", "MainPID")
    status = dict(line.split(":\t", 1) for line in machine.run("cat", f"/proc/{number}/status").splitlines() if ":\t" in line)
    assert int(status["Uid"].split()[0]) >= 61184  # systemd's range of dynamic users
    assert {status[name].strip("0\t ") for name in ("CapEff", "CapPrm", "CapBnd", "CapAmb")} == {""}
    assert (status["NoNewPrivs"].strip(), status["Seccomp"].strip()) == ("1", "2")


def test_a_config_that_root_left_is_given_to_the_service_on_reload(machine: Machine) -> None:
    machine.write_config(CONFIG)
    machine.run("systemctl", "reload", "ds2d.service")
    for _ in range(50):
        if ready(machine) == 200:
            break
        time.sleep(0.1)
    assert ready(machine) == 200, machine.log()


def one_answer(machine: Machine, begun: threading.Event) -> list[str]:
    """The lines of an answer that takes seconds."""
    body = {"model": "deepseek-chat", "stream": True, "messages": [{"role": "user", "content": "Tell me something long"}]}
    headers = {"Authorization": f"Bearer {KEY}"}
    lines = []
    with httpx.stream("POST", machine.url + "/v1/chat/completions", json=body, headers=headers, timeout=60) as reply:
        for line in reply.iter_lines():
            lines.append(line)
            begun.set()
    return [line for line in lines if line]


def test_a_restart_refuses_no_connection_and_cuts_no_answer(machine: Machine) -> None:
    """A caller comes every 50 ms, one answer streams for seconds, and the daemon is another process afterwards."""
    before = machine.show("ds2d.service", "MainPID")
    machine.write_config(CONFIG)  # root's own again: a restart must take that too
    begun = threading.Event()
    with ThreadPoolExecutor(200) as pool:
        answer = pool.submit(one_answer, machine, begun)
        assert begun.wait(20)
        restart = pool.submit(machine.run, "systemctl", "restart", "ds2d.service", check=False)
        callers = []
        while not restart.done():
            callers.append(pool.submit(healthy, machine))
            time.sleep(0.05)
    assert machine.show("ds2d.service", "MainPID") not in {before, "0"}, machine.log()
    assert answer.result()[-1] == "data: [DONE]"
    assert len(callers) > 20
    assert all(caller.result() for caller in callers)


def test_a_reload_is_an_upgrade_that_nobody_notices(machine: Machine) -> None:
    """A caller comes every 50 ms, one answer streams for seconds; the main process is another one afterwards, and watched."""
    before = machine.show("ds2d.service", "MainPID")
    begun = threading.Event()
    with ThreadPoolExecutor(200) as pool:
        answer = pool.submit(one_answer, machine, begun)
        assert begun.wait(20)
        reload = pool.submit(machine.run, "systemctl", "reload", "ds2d.service")
        callers = []
        while not reload.done():
            callers.append(pool.submit(healthy, machine))
            time.sleep(0.05)
        reload.result()
    after = machine.show("ds2d.service", "MainPID")
    assert after not in {before, "0"}, machine.log()
    assert answer.result()[-1] == "data: [DONE]"
    assert len(callers) > 5
    assert all(caller.result() for caller in callers)
    machine.wait_for_processes("ds2d.service", [after])
    assert machine.show("ds2d.service", "ActiveState") == "active"


def test_a_crash_waits_for_no_older_process_and_cuts_none_of_its_answers(machine: Machine) -> None:
    machine.write_config(CONFIG.replace('"pace_ms": 60', '"pace_ms": 400'))
    machine.run("systemctl", "reload", "ds2d.service")
    begun = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(one_answer, machine, begun)
        assert begun.wait(20)
        machine.run("systemctl", "reload", "ds2d.service")
        crashes = machine.show("ds2d.service", "MainPID")
        machine.run("kill", "-KILL", crashes)
        for _ in itertools.repeat(None, 200):
            if machine.show("ds2d.service", "MainPID") not in {crashes, "0"}:
                break
            time.sleep(0.1)
        machine.wait_for("ds2d.service", "ActiveState", "active")
        assert not answer.done()
        assert ready(machine) == 200
        assert answer.result()[-1] == "data: [DONE]"
    machine.wait_for_processes("ds2d.service", [machine.show("ds2d.service", "MainPID")])
    machine.write_config(CONFIG)


def test_a_reload_to_a_version_that_cannot_serve_changes_nothing(machine: Machine) -> None:
    before = machine.show("ds2d.service", "MainPID")
    machine.write_config('{"nonsense": 1}')
    machine.run("systemctl", "reload", "ds2d.service", check=False)
    machine.write_config(CONFIG)
    assert machine.show("ds2d.service", "MainPID") == before
    assert machine.show("ds2d.service", "ReloadResult") != "success"
    machine.wait_for_processes("ds2d.service", [before])
    assert ready(machine) == 200


def test_a_daemon_that_hangs_is_replaced(machine: Machine) -> None:
    """Waits on real time: the watchdog is systemd's own clock."""
    machine.set_watchdog(WATCHDOG_SECONDS)
    machine.run("systemctl", "restart", "ds2d.service")
    machine.run("systemctl", "reload", "ds2d.service")  # the process that took over is watched as the first one was
    hanging = machine.show("ds2d.service", "MainPID")
    time.sleep(WATCHDOG_SECONDS * 1.5)  # long enough for the watchdog to bite, had nobody fed it
    assert machine.show("ds2d.service", "MainPID") == hanging
    machine.run("kill", "-STOP", hanging)
    for _ in itertools.repeat(None, 200):
        if machine.show("ds2d.service", "MainPID") not in {hanging, "0"}:
            break
        time.sleep(0.1)
    machine.wait_for("ds2d.service", "ActiveState", "active")
    assert ready(machine) == 200


def test_a_stop_ends_well(machine: Machine) -> None:
    machine.run("systemctl", "stop", "ds2d.socket", "ds2d.service")
    assert (machine.show("ds2d.service", "ActiveState"), machine.show("ds2d.service", "Result")) == ("inactive", "success")
