"""`ds2d doctor` names the layer of each fault that is planted: in the model server, in the gateway, in what stands before it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from ds2d.cli import main
from ds2d.cli.doctor.checks import CHECKS
from ds2d.cli.doctor.endpoints import ENDPOINTS
from ds2d.core.errors import ErrorKind, GatewayError
from tests.functional import ailing
from tests.functional.ailing import Decide, Healthy, standing_before
from tests.functional.harness import KEY, Running, config_for, running
from tests.functional.scripted import Scene, ScriptedUpstream, answer, chunk, refuse, scripted_upstream, sse, usage

SERVER, GATE, FRONT = "upstream gpu", "ds2d", "what stands in front of ds2d"


async def doctor(config: Path, *words: str) -> tuple[int, dict[str, Any]]:
    """The exit code and the report."""
    report = config.with_name("report.json")
    line = ["doctor", "--config", str(config), "--key", KEY, "--report", str(report), *words]
    code = await asyncio.get_running_loop().run_in_executor(None, main, line)
    return code, json.loads(report.read_text())


@asynccontextmanager
async def examined(folder: Path, ill: Decide | None = None) -> AsyncIterator[tuple[Running, ScriptedUpstream, Path]]:
    """A daemon before a server with this illness, and a config that leads the doctor to both."""
    async with scripted_upstream() as upstream, running(folder, config_for(upstream.base_url)) as ds2d:
        healthy = Healthy(upstream)
        upstream.decide = lambda seen: (ill(seen) if ill else None) or healthy(seen)
        yield ds2d, upstream, pointing_at(ds2d, ds2d.port)


def pointing_at(ds2d: Running, port: int) -> Path:
    """The daemon's config, for somebody who finds it at this port."""
    path = ds2d.path.with_name(f"at-{port}.json")
    path.write_text(json.dumps({**ds2d.config(), "server": {"port": port}}))
    return path


def culprits(report: dict[str, Any]) -> dict[str, str]:
    """Who is to blame, by check."""
    lines = [line for upstream in report["upstreams"] for line in upstream["checks"]] + report["endpoints"]
    return {line["check"]: line["culprit"] for line in lines if line["culprit"]}


async def test_nothing_is_wrong_where_all_is_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with examined(tmp_path) as (_, upstream, config):
        upstream.tell_routes("/v1/chat/completions", "/tokenize")
        code, report = await doctor(config)
        assert (code, culprits(report)) == (0, {})
        [gpu] = report["upstreams"]
        assert (gpu["flavour"], gpu["version"], gpu["models"]) == ("vllm", "0.32.0", "deepseek-tiny")
        assert {line["check"]: line["state"] for line in gpu["checks"]} == dict.fromkeys(CHECKS, "ok")
        assert all(set(line["found"]) == {SERVER, GATE} for line in gpu["checks"])
        passed = {line["check"] for line in report["endpoints"] if line["state"] == "ok"}
        assert ENDPOINTS.keys() - passed == {"POST /v1/embeddings", "POST /rerank", "POST /classify"}
        assert report["versions"].keys() == {"ds2d", "python", "aiohttp"}
        assert report["date"][:2] == "20"
        shown = capsys.readouterr().out
        for check in (*CHECKS, *ENDPOINTS):
            assert f"  {check}" in shown
        assert upstream.gauges["num_requests_running"] == 0


ILL: list[tuple[Decide, str, bool]] = [
    (ailing.half_a_character, "UTF-8", False),
    (ailing.replaced_character, "UTF-8", False),
    (ailing.closes_early, "early close", True),
    (ailing.resets, "early close", True),
    (ailing.calls_as_text, "parallel tools", True),
    (ailing.refuses_tools, "parallel tools", True),
    (ailing.merges_calls, "parallel tools", True),
    (ailing.forgets_thinking, "thinking replay", False),
    (ailing.small_bodies, "big body", False),
    (ailing.answers_500, "whole answer", False),
    (ailing.refuses_the_key, "whole answer", False),
    (ailing.html, "stream", False),
]


@pytest.mark.parametrize(("ill", "check", "mended"), ILL, ids=[ill.__name__ for ill, _, _ in ILL])
async def test_an_ill_server_is_named(tmp_path: Path, ill: Decide, check: str, mended: bool) -> None:
    async with examined(tmp_path, ill) as (_, _, config):
        code, report = await doctor(config)
        found = culprits(report)
        assert found[check] == SERVER, report
        assert set(found.values()) <= {SERVER, GATE}
        [line] = [line for line in report["upstreams"][0]["checks"] if line["check"] == check]
        if mended:
            assert (line["state"], line["found"][GATE]["state"] in ("ok", "note")) == ("mended", True)
        else:
            assert code == 1


async def test_a_server_that_goes_on_after_its_client_left_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ds2d.cli.doctor.checks.PATIENCE", 0.3)
    async with examined(tmp_path) as (_, upstream, config):
        healthy = upstream.decide

        def deaf(seen: Any) -> Scene | None:
            scene = healthy(seen)
            if "Count" in ailing.text_of(seen):
                upstream.gauges["num_requests_running"] += 1  # and it stays so
            return scene

        upstream.decide = deaf
        code, report = await doctor(config)
        assert (code, culprits(report)["cancel"]) == (1, SERVER)


async def test_a_server_that_does_not_tell_its_use_is_noted_and_its_use_is_on_record(tmp_path: Path) -> None:
    async with examined(tmp_path, ailing.silent_on_usage) as (_, _, config):
        code, report = await doctor(config)
        lines = {line["check"]: line for line in report["upstreams"][0]["checks"]}
        assert (code, lines["whole answer"]["state"]) == (0, "note")
        assert "counts by itself" in lines["whole answer"]["found"][SERVER]["detail"]
        assert lines["whole answer"]["found"][GATE]["detail"] == ""
        assert "tokens on record" in lines["usage of cut streams"]["found"][GATE]["detail"]


@pytest.mark.parametrize("front", [False, True], ids=["as the gateway", "before the gateway"])
@pytest.mark.parametrize(
    ("ill", "check"),
    [
        ("buffer", "stream"),
        ("cut", "early close"),
        ("half", "UTF-8"),
        ("small", "big body"),
        ("strip", "whole answer"),
        ("html", "whole answer"),
    ],
)
async def test_an_ill_gateway_and_an_ill_proxy_are_told_apart(tmp_path: Path, ill: str, check: str, front: bool) -> None:
    async with examined(tmp_path) as (ds2d, upstream, config), standing_before(ds2d.url, ill) as between:
        healthy = upstream.decide

        def slow(seen: Any) -> Scene | None:
            if ill == "buffer" and seen.body.get("stream") and "Hello" in ailing.text_of(seen):
                first, *rest = sse(chunk({"content": "Hel"}), chunk({"content": "lo"}), chunk({}, "stop"), usage())
                return Scene([first, 0.5, *rest])
            return healthy(seen)

        upstream.decide = slow
        port = int(between.url.rpartition(":")[2])
        words = ("--url", between.url) if front else ()
        code, report = await doctor(config if front else pointing_at(ds2d, port), *words)
        found = culprits(report)
        assert (code, found[check]) == (1, FRONT if front else GATE), report
        assert SERVER not in found.values()


async def test_who_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with examined(tmp_path) as (ds2d, upstream, config):
        await upstream.stop()
        code, report = await doctor(config)
        lines = {line["check"]: line for line in report["upstreams"][0]["checks"]}
        assert (code, lines["model list"]["culprit"]) == (1, SERVER)
        assert "cannot connect" in lines["model list"]["found"][SERVER]["detail"]
        assert {line["culprit"] for line in lines.values()} == {SERVER}
        nobody = pointing_at(ds2d, 9)
        assert (await doctor(nobody))[1]["daemon"].startswith("nothing answers")
    assert "FAIL" in capsys.readouterr().out


async def test_a_login_that_fails_is_named(tmp_path: Path) -> None:
    async with examined(tmp_path) as (ds2d, upstream, config):
        changed = ds2d.config()
        changed["upstreams"][0]["login"] = {
            "type": "oauth2",
            "url": f"http://127.0.0.1:{upstream.port}/token",
            "grant": "password",
        }
        changed["accounts"] = [{"upstream": "gpu", "email": "a@b.example", "password": "wrong"}]
        config.write_text(json.dumps({**changed, "server": {"port": 9}}))
        upstream.decide = lambda seen: refuse(401, {"error": "invalid_grant"})
        code, report = await doctor(config)
        assert (code, culprits(report)) == (1, {"login": "login of upstream gpu"})


async def test_a_report_for_people_has_everything_but_keys(tmp_path: Path) -> None:
    async with examined(tmp_path, ailing.calls_as_text) as (_, _, config):
        path = tmp_path / "report.md"
        words = ("doctor", "--config", str(config), "--key", KEY, "--report", str(path))
        await asyncio.get_running_loop().run_in_executor(None, main, words)
        text = path.read_text()
        assert text.startswith("# ds2d doctor, 20")
        for word in (*CHECKS, *ENDPOINTS, "calls are left in the text", "mended", "vllm", "0.32.0"):
            assert word in text
        assert KEY not in text


async def test_a_server_that_only_embeds_is_not_asked_to_chat(tmp_path: Path) -> None:
    async with examined(tmp_path) as (ds2d, upstream, config):
        upstream.tell_routes("/v1/embeddings", "/tokenize")
        upstream.decide = lambda seen: answer({"data": [{"index": 0, "embedding": [1.0]}], "tokens": [1], "count": 1})
        ds2d.daemon.catalog.note_failure("gpu", GatewayError(ErrorKind.UPSTREAM_UNREACHABLE, "gone"))
        await ds2d.daemon.first_look()
        code, report = await doctor(config, "--upstream", "gpu")
        assert (code, report["upstreams"][0]["checks"]) == (0, [])
        states = {line["check"]: line["state"] for line in report["endpoints"]}
        assert (states["POST /v1/embeddings"], states["POST /tokenize"]) == ("ok", "ok")
        assert (states["POST /v1/messages"], states["POST /classify"]) == ("skip", "skip")
        assert not any(seen.path.endswith("completions") for seen in upstream.seen)


def test_what_cannot_be_examined_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"keys": [KEY], "upstreams": []}))
    assert main(["doctor", "--config", str(config)]) == 1
    assert "names no upstream" in capsys.readouterr().err
    config.write_text(json.dumps(config_for("http://127.0.0.1:9/v1")))
    assert main(["doctor", "--config", str(config), "--upstream", "nope"]) == 1
    assert "no upstream is called nope" in capsys.readouterr().err
