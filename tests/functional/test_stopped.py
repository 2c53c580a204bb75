"""A turn that is ended from outside (cancelled by an administrator, or because the daemon stops), at each of its moments: its
client gets what its row says."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.request import ChatRequest
from ds2d.service.turn import Turn
from ds2d.state.ledger_schema import Row
from tests.functional.harness import KEY, Running, config_for, hold_back, running
from tests.functional.scripted import Scene, Wait, chunk, scripted_upstream, sse
from tests.functional.test_every_dialect import ENDS, QUESTIONS, TEXT, texts
from tests.functional.test_faults import code_in_stream

HEADERS = {"Authorization": f"Bearer {KEY}"}
DIALECTS = ["chat", "responses", "claude", "gemini"]
FUNCTION: dict[str, Any] = {"name": "look", "parameters": {"type": "object", "properties": {}}}
TOOLS: dict[str, list[dict[str, Any]]] = {
    "chat": [{"type": "function", "function": FUNCTION}],
    "responses": [{"type": "function", **FUNCTION}],
    "claude": [{"name": "look", "input_schema": FUNCTION["parameters"]}],
    "gemini": [{"functionDeclarations": [FUNCTION]}],
}


def stop(ds2d: Running) -> None:
    """End what runs."""
    for turn in list(ds2d.daemon.service.turns.values()):
        turn.stop(GatewayError(ErrorKind.SHUTTING_DOWN, "The gateway is shutting down."))


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_text_that_was_held_back_behind_life_signs_begins_the_answer_that_fails(tmp_path: Path, dialect: str) -> None:
    """Half the mark of a call is held back. It goes out as text, so the failure is that of an answer which has begun."""
    _, body, path, more = QUESTIONS[dialect]
    async with scripted_upstream() as upstream:
        config = config_for(upstream.base_url, server={"keepalive_seconds": 1})
        async with running(tmp_path, config) as ds2d:
            begun = sse(chunk({"role": "assistant", "content": ""}), chunk({"content": "<｜tool▁calls"}), done=False)
            upstream.scenes.append(Scene([*begun, Wait()]))
            asked = {**body, **more, "tools": TOOLS[dialect]}
            async with ds2d.http.post(ds2d.url + path, json=asked, headers=HEADERS) as reply:
                assert (await reply.content.readline()).startswith((b":", b"\n"))
                stop(ds2d)
                text = (await reply.content.read()).decode()
            assert "<｜tool▁calls" in text
            code_in_stream(dialect, text)
            (turn,) = ds2d.daemon.books.recent
            assert (turn["state"], turn["cause"]) == ("failed", "shutting_down")
            assert turn["clocks"]["first_ms"] is not None
            assert turn["tokens"]["delivered"] > 0


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("dialect", DIALECTS)
async def test_an_answer_whose_end_only_waits_for_its_row_is_delivered(
    tmp_path: Path, dialect: str, streamed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its row says that it was: whoever got an error instead would ask and pay once more."""
    path, body, stream_path, more = QUESTIONS[dialect]
    where, asked = (stream_path, {**body, **more}) if streamed else (path, body)
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        row = hold_back(monkeypatch, ds2d.daemon.ledger, "close")
        asking = asyncio.create_task(ds2d.ask(where, asked))
        await row.reached.wait()
        stop(ds2d)
        row.until.set()
        status, answer, _ = await asking
        assert status == 200
        assert (ENDS[dialect] in answer) if streamed else (TEXT in texts(answer))
        (turn,) = ds2d.daemon.books.recent
        assert (turn["state"], turn["cause"]) == ("completed", "stop")


async def test_a_background_response_that_is_stopped_while_its_question_is_completed_does_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large question is completed by and by; the stop was lost, and the turn ran on through shutdown or past its deadline."""
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        completing, go_on, completed = asyncio.Event(), asyncio.Event(), ds2d.daemon.service._completed

        async def complete_slowly(turn: Turn) -> ChatRequest:
            completing.set()
            await go_on.wait()
            return await completed(turn)

        monkeypatch.setattr(ds2d.daemon.service, "_completed", complete_slowly)
        told: list[Row] = []
        ds2d.daemon.books.listeners.append(lambda row, _turn: told.append(row))
        asked = {"model": "deepseek-chat", "input": "x", "background": True}
        asking = asyncio.create_task(ds2d.ask("/v1/responses", asked))
        await completing.wait()
        (run,) = ds2d.daemon.responses.runs
        run.stop(GatewayError(ErrorKind.SHUTTING_DOWN, "The gateway is shutting down."))
        go_on.set()
        status, answer, _ = await asking
        assert (status, answer["error"]["code"]) == (503, "shutting_down")
        assert upstream.seen == []
        (row,) = told
        assert (row.state, row.cause) == ("rejected", "shutting_down")
