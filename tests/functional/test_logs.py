"""What a daemon writes about a request: the access line, in both forms, at every level, and never a word of the prompt."""

from __future__ import annotations

import json
import logging
import os
import re
from pathlib import Path
from typing import Any

import pytest

from ds2d.core.logs import FORMATS, Event
from tests.functional.harness import KEY, config_for, running
from tests.functional.processes import ASK, CHAT, demo, serving, until
from tests.functional.scripted import Scene, refuse, say, scripted_upstream

SECRET = "the-prompt-itself"
QUESTION: dict[str, Any] = {"model": "gpt-4o", "messages": [{"role": "user", "content": SECRET}]}


def access(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """The access lines so far."""
    events = [record.msg for record in caplog.records if record.name == "ds2d.access"]
    assert all(isinstance(event, Event) for event in events)
    return [dict(event.fields) for event in events if isinstance(event, Event)]


async def test_the_access_line_has_what_became_of_a_turn(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "ds2d")
    accounts = [{"name": "main", "token": "tok-a"}]
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url, accounts=accounts)) as live:
        _, _, headers = await live.ask(CHAT, {**QUESTION, "stream": True})
        upstream.scenes.append(Scene([*say("Hel", "lo")[:3]]))
        await live.ask(CHAT, {**QUESTION, "stream": True})
        upstream.scenes += [refuse(400, {"error": {"message": f"no {SECRET}"}})]
        await live.ask(CHAT, QUESTION)
        await live.ask(CHAT, {**QUESTION, "model": "deepseek-\nnope " + "x" * 500})
        await live.ask("/v1beta/models/deepseek-chat:generateContent?key=" + KEY, {"contents": []}, key=None)
        await live.ask("/healthz", key=None)
    whole, cut, refused, unknown, gemini = access(caplog)
    assert whole["request_id"] == headers["x-request-id"]
    assert whole["ms"] >= whole["first_ms"] >= whole["waited_ms"] == 0
    names = {
        "status": 200,
        "dialect": "openai_chat",
        "model": "gpt-4o",
        "used": "deepseek-chat",
        "upstream": "gpu",
        "account": "main",
    }
    ending = {"attempts": 1, "end": "completed", "cause": "stop", "prompt_tokens": 7, "completion_tokens": 5}
    assert whole.items() >= {"method": "POST", "path": CHAT, **names, **ending}.items()
    assert (cut["status"], cut["end"], cut["cause"]) == (200, "failed", "upstream_disconnected")
    assert (refused["status"], refused["end"], refused["cause"]) == (400, "failed", "upstream_rejected")
    assert unknown["status"] == 404
    assert gemini["path"] == "/v1beta/models/deepseek-chat:generateContent"
    for record in caplog.records:
        assert SECRET not in record.getMessage()
        assert KEY not in record.getMessage()
        assert "\n" not in record.getMessage()


async def test_a_model_that_its_upstream_does_not_know_is_an_error_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def errors() -> list[str]:
        return [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]

    missing = refuse(404, {"error": {"message": "The model does not exist.", "code": 404}})
    runtime = {"max_attempts": 1, "breaker": {"failures": 100, "open_seconds": 1}}
    async with scripted_upstream() as upstream:
        config = config_for(upstream.base_url, accounts=[{"name": "main", "token": "tok-a"}], runtime=runtime)
        async with running(tmp_path, config) as live:
            upstream.scenes += [missing] * 2
            for _ in range(2):
                assert (await live.ask(CHAT, QUESTION))[0] == 503
            (line,) = errors()
            assert "upstream gpu" in line
            assert "model deepseek-tiny" in line
            assert "tok-a" not in line
            assert (await live.ask(CHAT, QUESTION))[0] == 200
            upstream.scenes.append(missing)
            await live.ask(CHAT, QUESTION)
            assert len(errors()) == 2, "it was there in between"


async def test_every_line_of_a_request_has_its_id(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as live:
        handler = logging.StreamHandler()
        handler.setFormatter(FORMATS["json"](False))
        logger = logging.getLogger("ds2d")
        logger.addHandler(handler)
        logger.setLevel("INFO")
        try:
            upstream.scenes += [refuse(503, {"error": {"message": "later"}})]
            status, _, headers = await live.ask(CHAT, QUESTION, headers={"x-request-id": "my-own-id"})
        finally:
            logger.removeHandler(handler)
    assert (status, headers["x-request-id"]) == (200, "my-own-id")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["message"] for line in lines] == ["retry attempt=2 cause=upstream_overloaded", "request"]
    assert {line["request_id"] for line in lines} == {"my-own-id"}


async def test_strangers_cannot_fill_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "ds2d")
    async with running(tmp_path, {"keys": [KEY]}) as live:
        for _ in range(100):
            assert (await live.ask(CHAT, QUESTION, key="sk-wrong"))[0] == 401
        strangers = len(access(caplog))
        assert 20 <= strangers < 100
        for _ in range(30):
            assert (await live.ask("/v1/usage"))[0] == 200
        assert len(access(caplog)) == strangers + 30


def test_level_and_form_change_in_a_running_process(tmp_path: Path) -> None:
    def lines() -> list[str]:
        return [line for line in process.said().splitlines() if "request" in line and CHAT in line]

    def config(**log: str) -> None:
        (tmp_path / "config.json").write_text(json.dumps(demo(log=log)))

    with serving(tmp_path, config=demo()) as process:
        assert process.ask(CHAT, ASK)[0] == 200
        until(lambda: len(lines()) == 1)
        assert " INFO ds2d.access request method=POST " in lines()[0]
        config(format="json")
        until(lambda: "generation 2 is in force" in process.said())
        assert process.ask(CHAT, ASK)[0] == 200
        until(lambda: len(lines()) == 2)
        found = json.loads(lines()[1])
        assert (found["message"], found["status"], found["used"]) == ("request", 200, "deepseek-chat")
        assert found["time"].endswith("Z")
        config(level="error")
        until(lambda: "generation 3 is in force" in process.said())
        assert process.ask(CHAT, ASK)[0] == 200
        assert process.ask("/healthz")[0] == 200
        config(level="debug")
        until(lambda: "generation 4" in process.said() or process.ask("/healthz")[0] != 200 or "/healthz" in process.said())
        assert len(lines()) == 2


def test_a_flag_gives_the_form_and_journald_has_its_own_clock(tmp_path: Path) -> None:
    (tmp_path / "log.txt").touch()
    log = os.stat(tmp_path / "log.txt")
    with serving(tmp_path, "--log-format", "json", config=demo(), JOURNAL_STREAM=f"{log.st_dev}:{log.st_ino}") as process:
        found = [json.loads(line) for line in process.said().splitlines()]
        assert all("time" not in line for line in found)
    with serving(tmp_path, config=demo(), JOURNAL_STREAM=f"{log.st_dev}:{log.st_ino}") as process:
        assert re.match(r"<[46]>(INFO|WARNING) ds2d", process.said())
