"""What is installed: nothing of the kept list, no code at every start, a parts list, and a question to the advisory service."""

from __future__ import annotations

import http.server
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scripts.audit import advisories
from scripts.sbom import document
from scripts.supply_chain import BAD, LOCKS, bad_in, bad_versions, locked, main, strange_lines

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("what", ["locks", "environment"])
def test_locks_and_environment_are_clean(what: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(what) == 0, capsys.readouterr().out


def test_a_bad_version_in_a_lock_is_named_with_its_reason(tmp_path: Path) -> None:
    lock = tmp_path / "run.txt"
    lock.write_text("LiteLLM[proxy]==1.82.8 \\\n    --hash=sha256:00\naiohttp==3.9.1\nidna==3.10\n")
    found = bad_in([lock], BAD.read_text())
    assert [line.split(":")[1].split(" must")[0] for line in found] == [" litellm 1.82.8", " aiohttp 3.9.1"]
    assert "publishing token" in found[0]


def test_every_line_of_the_list_can_be_read_and_says_why() -> None:
    entries = list(bad_versions(BAD.read_text()))
    assert len(entries) >= 10
    assert all(versions and why for _, versions, why in entries)


def test_code_in_a_pth_file_is_found(tmp_path: Path) -> None:
    (tmp_path / "paths.pth").write_text("/somewhere\n# import os\n")
    assert strange_lines([tmp_path]) == []
    (tmp_path / "x_init.pth").write_text("/a\nimport os; os.system('true')\n")
    (found,) = strange_lines([tmp_path])
    assert "x_init.pth" in found
    assert "os.system" in found


def test_the_parts_list_names_every_locked_part_with_its_hashes() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "scripts.sbom"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    bom = json.loads(done.stdout)
    assert (bom["bomFormat"], bom["specVersion"]) == ("CycloneDX", "1.5")
    assert re.fullmatch(r"urn:uuid:[0-9a-f-]{36}", bom["serialNumber"])
    named = {(part["purl"].split("/")[1].split("@")[0], part["version"]) for part in bom["components"]}
    assert named == set(locked(LOCKS / "run.txt"))
    assert all(part["hashes"] for part in bom["components"])
    assert bom == document((LOCKS / "run.txt").read_text())
    (ours,) = bom["dependencies"]
    assert set(ours["dependsOn"]) == {part["bom-ref"] for part in bom["components"]}


@pytest.fixture(name="service")
def _service() -> Iterator[tuple[str, list[Any]]]:
    """An advisory service that knows one bad version."""
    asked: list[Any] = []

    class Answers(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            queries = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["queries"]
            asked.extend(queries)
            results = [{"vulns": [{"id": "GHSA-x"}]} if query["version"] == "3.9.1" else {} for query in queries]
            body = json.dumps({"results": results}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", asked
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_service_is_asked_about_every_version(service: tuple[str, list[Any]]) -> None:
    url, asked = service
    assert advisories([("aiohttp", "3.9.1"), ("idna", "3.10")], url) == {("aiohttp", "3.9.1"): ["GHSA-x"]}
    assert asked == [
        {"package": {"name": "aiohttp", "ecosystem": "PyPI"}, "version": "3.9.1"},
        {"package": {"name": "idna", "ecosystem": "PyPI"}, "version": "3.10"},
    ]


def test_a_service_that_cannot_be_asked_is_said_and_no_all_clear() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "scripts.audit", "run", "--service", "http://127.0.0.1:9/"],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "could not be asked" in done.stderr
