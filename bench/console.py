"""What an open page costs: CPU of the daemon's process, quiet, with and without a watcher of the event stream.

.venv/bin/python -m bench.console [ACCOUNTS] [SECONDS]
"""

from __future__ import annotations

import http.client
import json
import os
import sys
import tempfile
import threading
import time
from pathlib import Path

from ds2d.core.secrets import hash_password
from tests.functional.test_process import serving

ADMIN_KEY = "adm-bench-0123456789abcdef"


def spent(pid: int) -> float:
    """Seconds of CPU that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def watch(port: int, stop: threading.Event) -> None:
    """An open page, as far as the daemon can see it."""
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    link.request("GET", "/admin/events", headers={"Authorization": f"Bearer {ADMIN_KEY}"})
    reply = link.getresponse()
    while not stop.is_set() and reply.readline():
        pass
    link.close()


def main(accounts: int = 100, seconds: int = 30) -> None:
    """Two lines: without a watcher, and with one."""
    config = {
        "upstreams": [{"name": "gpu", "base_url": "http://127.0.0.1:9/v1"}],
        "accounts": [
            {"upstream": "gpu", "name": f"account {number}", "token": f"tok-{number:016}"} for number in range(accounts)
        ],
        "admin": {"password_hash": hash_password(ADMIN_KEY, b"0123456789abcdef")},
    }
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder), config=config) as process:
        time.sleep(5)  # start-up work is over
        for watchers in (0, 1, 5):
            stop = threading.Event()
            for _ in range(watchers):
                threading.Thread(target=watch, args=(process.port, stop), daemon=True).start()
            time.sleep(2)
            before = spent(process.popen.pid)
            time.sleep(seconds)
            share = (spent(process.popen.pid) - before) / seconds
            print(json.dumps({"accounts": accounts, "watchers": watchers, "percent_of_a_core": round(share * 100, 2)}))
            stop.set()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3]))
