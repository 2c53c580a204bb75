"""`ds2d upgrade`: a newer process takes over from a running one, and nobody notices (docs/upgrade.md)."""

from __future__ import annotations

import json
import os
import stat
import sys
from pathlib import Path

from tests.functional.processes import ASK, CHAT, daemons, demo, ds2d, free_port, serving, until
from tests.functional.upgrades import Run, main_pids

STREAMS, UPGRADES = 60, 3


async def test_streams_outlive_three_upgrades_and_nobody_is_refused(tmp_path: Path) -> None:
    """In five dialects, beside short requests on new and on kept connections. `scripts/upgrade-test` does it with 200 streams of
    two minutes."""
    seen = await Run(tmp_path, STREAMS, seconds=0, upgrades=UPGRADES, pause=0.1).run()
    assert seen.wrong == []
    assert seen.whole == STREAMS
    assert seen.generations >= UPGRADES  # old ones ran beside new ones
    assert seen.most_at_once == seen.limit  # used up, and by no generation overstepped
    assert seen.rows == {"completed": seen.whole + seen.short}
    assert len(set(main_pids(seen.told))) == UPGRADES + 1
    assert not any("STOPPING" in one for one in seen.told[:-1])
    assert seen.left == 1


def test_a_new_version_that_cannot_start_changes_nothing(tmp_path: Path) -> None:
    with serving(tmp_path, config=demo(pace=50)) as process, process.stream() as stream:
        (tmp_path / "config.json").write_text('{"upstreams": [{"name": "a"}], "servr": {}}')
        done = ds2d(tmp_path, "upgrade", "--state", "state")
        assert done.returncode == 1
        assert "servr" in done.stderr
        assert "nothing has changed" in done.stderr
        assert stream.read().decode().endswith("data: [DONE]\n\n")
        assert process.ask(CHAT, ASK)[0] == 200
        until(lambda: daemons(tmp_path) == [process.popen.pid])
        (tmp_path / "config.json").write_text('{"keys": [], "upstreams": [], "server": {"state_dir": "elsewhere"}}')
        done = ds2d(tmp_path, "upgrade", "--state", "state")
        assert done.returncode == 1
        assert "another state folder" in done.stderr
        assert process.end() == 0


def test_who_may_ask_and_who_is_there(tmp_path: Path) -> None:
    done = ds2d(tmp_path, "upgrade", "--state", str(tmp_path))
    assert done.returncode == 1
    assert "no running daemon" in done.stderr
    with serving(tmp_path, config=demo()) as process:
        control = tmp_path / "state" / "control.sock"
        until(control.exists)
        assert stat.S_IMODE(os.stat(control).st_mode) == 0o600
        assert process.end() == 0
        assert not control.exists()


def test_another_address_is_told_to_need_a_restart_as_long_as_it_does(tmp_path: Path) -> None:
    """The sockets are passed on as they are: an upgrade is no restart."""
    port = free_port()
    config = demo(server={"port": port})
    with serving(tmp_path, config=config, port=port, command=(sys.executable,)) as process:
        (tmp_path / "config.json").write_text(json.dumps({**config, "server": {"port": port + 1, "max_connections": 100}}))
        for _ in range(2):
            done = ds2d(tmp_path, "upgrade", "--state", "state")
            assert done.returncode == 0, done.stderr
            details = json.loads(process.ask("/readyz?verbose")[1])
            assert details["config"]["pending_restart"] == ["server.port"]
