"""What the ledger says after turns of every kind: whole, broken off, failed, refused, cut by a stop of the daemon."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from ds2d.core import pipeline as pipeline_module
from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.secrets import hash_key
from ds2d.state import books as books_module
from ds2d.state import ledger_notes
from ds2d.state.ledger_file import NAME
from ds2d.state.ledger_schema import Row
from tests.functional.harness import ADMIN_KEY, CARRIERS, KEY, Running, config_for, hold_back, running
from tests.functional.scripted import END, Scene, ScriptedUpstream, Wait, chunk, refuse, say, scripted_upstream, sse, usage, whole
from tests.state.ledger_world import until

ASK = {"model": "deepseek-chat", "messages": [{"role": "user", "content": "Hello"}]}
HASH = hash_key(KEY).removeprefix("sha256:")


def turns(
    home: Path, columns: str = "state, cause, prompt_tokens, completion_tokens, usage_source, delivered_tokens"
) -> list[Any]:
    db = sqlite3.connect(home / "state" / NAME)
    try:
        return db.execute(f"SELECT {columns} FROM turns ORDER BY began_at, id").fetchall()
    finally:
        db.close()


async def closed(home: Path, count: int = 1) -> None:
    """Wait until so many rows have their last word."""
    await until(lambda: sum(state != "open" for (state,) in turns(home, "state")) >= count)


@pytest.mark.parametrize("stream", [False, True])
async def test_the_row_stands_when_the_answer_is_whole(tmp_path: Path, stream: bool) -> None:
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        status, _, headers = await ds2d.ask("/v1/chat/completions", {**ASK, "stream": stream})
        assert status == 200
        await closed(tmp_path)
        assert turns(tmp_path) == [("completed", "stop", 7, 5, "upstream", 5)]
        names = (
            "request_id, key, dialect, asked, used, upstream, account, streamed, attempts, reported_prompt, reported_completion"
        )
        assert turns(tmp_path, names) == [
            (headers["x-request-id"], HASH, "openai_chat", "deepseek-chat", "deepseek-chat", "gpu", "gpu", stream, 1, 7, 5)
        ]
        ((queue, first, total, completion_id),) = turns(tmp_path, "queue_ms, first_ms, total_ms, completion_id")
        assert queue < total
        assert first is None or first < total
        assert completion_id == "chatcmpl-up"


async def test_what_a_kill_right_after_the_answer_would_leave_holds_its_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ds2d.state.ledger.LAZY", 1000.0)
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        _, _, headers = await ds2d.ask("/v1/chat/completions", ASK)
        assert turns(tmp_path) == []
        ((path, owner),) = ledger_notes.left(tmp_path / "state")
        ((_, fields),) = ledger_notes.read(path, owner)
        row = Row(*fields)
        assert (row.request_id, row.state, row.completion_tokens) == (headers["x-request-id"], "completed", 5)
    assert turns(tmp_path) == [("completed", "stop", 7, 5, "upstream", 5)]
    assert list(ledger_notes.left(tmp_path / "state")) == []


async def test_the_last_frame_waits_for_the_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        gate = asyncio.Event()
        close = ds2d.daemon.ledger.close

        async def held(ticket: Any) -> None:
            await gate.wait()
            await close(ticket)

        monkeypatch.setattr(ds2d.daemon.ledger, "close", held)
        headers = {"Authorization": f"Bearer {KEY}"}
        async with ds2d.http.post(ds2d.url + "/v1/chat/completions", json={**ASK, "stream": True}, headers=headers) as reply:
            seen = b""
            while b"upstream." not in seen:
                seen += await reply.content.readany()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    seen += await reply.content.readany()
            assert b'finish_reason":"stop' not in seen
            assert b"[DONE]" not in seen
            gate.set()
            assert (await reply.read()).endswith(b"data: [DONE]\n\n")


THOUGHT = "Let me think about it."
REPORTS: dict[str, dict[str, Any]] = {
    "no details": {"usage": {"prompt_tokens": 7, "completion_tokens": 50, "total_tokens": 57}},
    "none of it": {"usage": {"prompt_tokens": 7, "completion_tokens": 50, "completion_tokens_details": {"reasoning_tokens": 0}}},
    "no usage": {},
}


def thinking(report: dict[str, Any], *, stream: bool, reasoning: str = THOUGHT) -> Scene:
    """An answer with reasoning, of which the server counted none."""
    if not stream:
        return whole({"content": "Hi.", "reasoning": reasoning}, **{"usage": None, **report})
    last = [{**chunk(), "choices": [], **report}] if report else []
    return Scene(sse(chunk({"reasoning": reasoning}), chunk({"content": "Hi."}), chunk({}, "stop"), *last))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("report", REPORTS)
async def test_reasoning_that_the_server_did_not_count_is_counted(tmp_path: Path, report: str, stream: bool) -> None:
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        await until(lambda: ds2d.daemon.counter.loaded)
        thought = await ds2d.daemon.toolbox.count_text(THOUGHT)

        async def said(path: str, body: dict[str, Any]) -> Any:
            upstream.scenes.append(thinking(REPORTS[report], stream=stream))
            status, answer, _ = await ds2d.ask(path, body)
            assert status == 200
            return answer

        def last(text: str, field: str) -> Any:
            found = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {") and field in line]
            return found[-1]

        answer = await said("/v1/chat/completions", {**ASK, "stream": stream})
        body = last(answer, '"usage"') if stream else answer
        assert body["usage"]["completion_tokens_details"] == {"reasoning_tokens": thought}
        answer = await said("/v1/responses", {"model": "deepseek-chat", "input": "Hello", "stream": stream})
        body = last(answer, "response.completed")["response"] if stream else answer
        assert body["usage"]["output_tokens_details"] == {"reasoning_tokens": thought}
        call = "streamGenerateContent?alt=sse" if stream else "generateContent"
        answer = await said(f"/v1beta/models/deepseek-chat:{call}", {"contents": [{"parts": [{"text": "Hello"}]}]})
        counts = (last(answer, "usageMetadata") if stream else answer)["usageMetadata"]
        assert counts["thoughtsTokenCount"] == thought
        assert counts["candidatesTokenCount"] == counts["totalTokenCount"] - counts["promptTokenCount"] - thought
        await closed(tmp_path, 3)
        assert turns(tmp_path, "reasoning_tokens") == [(thought,)] * 3


async def test_reasoning_is_at_most_the_completion(tmp_path: Path) -> None:
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        upstream.scenes.append(thinking({"usage": usage(7, 5)["usage"]}, stream=False, reasoning=THOUGHT * 9))
        _, answer, _ = await ds2d.ask("/v1/chat/completions", ASK)
        assert answer["usage"]["completion_tokens_details"] == {"reasoning_tokens": 5}


@pytest.mark.parametrize("pieces", [1, 1000])
async def test_long_reasoning_is_counted_or_estimated_but_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pieces: int
) -> None:
    monkeypatch.setattr(pipeline_module, "MAX_THOUGHT", 100)
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        frames = [chunk({"reasoning": "one two "})] * pieces
        upstream.scenes.append(Scene(sse(*frames, chunk({"content": "Hi."}), chunk({}, "stop"), usage(7, 5000))))
        _, text, _ = await ds2d.ask("/v1/chat/completions", {**ASK, "stream": True})
        counted = json.loads(text.split("data: ")[-2])["usage"]["completion_tokens_details"]["reasoning_tokens"]
        assert 2 * pieces <= counted <= 3 * pieces


async def test_a_turn_that_the_client_left_has_its_reasoning_by_length(tmp_path: Path) -> None:
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        await leave_in_the_middle(ds2d, upstream, *sse(chunk({"reasoning": THOUGHT}), chunk({"content": "Hi."}), done=False))
        await closed(tmp_path)
        ((reasoning, completion),) = turns(tmp_path, "reasoning_tokens, completion_tokens")
        assert 0 < reasoning <= completion


async def leave_in_the_middle(ds2d: Running, upstream: ScriptedUpstream, *before: bytes, stream: bool = True) -> None:
    """Ask, wait until the upstream has said so much, and go away."""
    hold = Wait()
    upstream.scenes.append(Scene([*before, hold]))
    work = asyncio.create_task(ds2d.ask("/v1/chat/completions", {**ASK, "stream": stream}))
    await hold.reached.wait()
    said = sum(map(len, before))
    await until(lambda: any(turn.pipeline and turn.pipeline._size >= said for turn in ds2d.daemon.service.turns.values()))
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    hold.until.set()


SAID = sse(chunk({"role": "assistant", "content": ""}), chunk({"content": "one two three"}), done=False)


async def test_a_stream_that_the_client_left_is_counted_here(tmp_path: Path) -> None:
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        await until(lambda: ds2d.daemon.counter.loaded)
        await leave_in_the_middle(ds2d, upstream, *SAID)
        await closed(tmp_path)
        ((state, cause, prompt, completion, source, delivered),) = turns(tmp_path)
        assert (state, cause, source) == ("interrupted", "client_closed", "counted")
        assert prompt > 0
        assert completion == delivered == await ds2d.daemon.toolbox.count_text("one two three")


@pytest.mark.parametrize("left", [True, False])
async def test_of_a_long_answer_only_the_count_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: bool) -> None:
    monkeypatch.setattr(books_module, "MAX_SAID", 5)
    words = ["one two three ", "four five six ", "seven eight nine"]
    frames = sse(*[chunk({"content": word}) for word in words], done=False)
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        await until(lambda: ds2d.daemon.counter.loaded)
        count = ds2d.daemon.toolbox.count_text
        holds = [Wait(), Wait()]
        end = sse(chunk({}, "stop"))
        upstream.scenes.append(Scene([frames[0], holds[0], frames[1], holds[1], *([Wait()] if left else [frames[2], *end])]))
        work = asyncio.create_task(ds2d.ask("/v1/chat/completions", {**ASK, "stream": True}))
        for number, hold in enumerate(holds, 1):
            await hold.reached.wait()
            (turn,) = ds2d.daemon.service.turns.values()
            await until(lambda turn=turn, number=number: turn.pipeline and turn.pipeline.records == number)
            await ds2d.daemon.books.checkpoint(turn)
            assert turn.pipeline is not None
            assert "".join(turn.pipeline.said) == ""
            assert turn.pipeline.counted == sum([await count(word) for word in words[:number]])
            if left and number == 2:
                work.cancel()
            hold.until.set()
        await asyncio.gather(work, return_exceptions=True)
        await closed(tmp_path)
        ((_, _, _, completion, source, _),) = turns(tmp_path)
        assert (completion, source) == (sum([await count(word) for word in words[: 2 if left else 3]]), "counted")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("many", [False, True])
async def test_a_question_that_the_client_left_before_its_answer_costs_its_prompt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stream: bool, many: bool
) -> None:
    if many:
        monkeypatch.setattr(books_module, "MAX_COUNTING", 0)
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        await until(lambda: ds2d.daemon.counter.loaded)
        hold = Wait()
        upstream.scenes.append(Scene([hold], raw=True))
        work = asyncio.create_task(ds2d.ask("/v1/chat/completions", {**ASK, "stream": stream}))
        await hold.reached.wait()
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        await upstream.seen[-1].closed.wait()
        hold.until.set()
        await closed(tmp_path)
        ((state, _, prompt, completion, source, delivered),) = turns(tmp_path)
        assert (state, completion, delivered) == ("interrupted", 0, 0)
        assert (prompt > 0, source) == (True, "estimated" if many else "counted")
        _, body, _ = await ds2d.ask("/v1/usage")
        assert body["used"]["total"]["total_tokens"] == prompt


@pytest.mark.parametrize("leaves", [False, True])
@pytest.mark.parametrize("loads", [False, True])
async def test_an_estimate_is_called_one_and_is_none_of_what_can_be_counted_in_the_end(
    tmp_path: Path, leaves: bool, loads: bool
) -> None:
    keys = [{"key": KEY, "max_tokens": 10_000}]
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url, keys=keys)) as ds2d:
        await until(lambda: ds2d.daemon.counter.loaded)
        ds2d.daemon.counter.loaded = False  # as in the first seconds, and where it cannot be started
        hold = Wait()
        upstream.scenes.append(Scene([*SAID, hold, *sse(chunk({}, "stop"))]))
        work = asyncio.create_task(ds2d.ask("/v1/chat/completions", {**ASK, "stream": True}))
        await hold.reached.wait()
        await until(lambda: any(turn.pipeline and turn.pipeline.said for turn in ds2d.daemon.service.turns.values()))
        ds2d.daemon.counter.loaded = loads
        if leaves:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
        hold.until.set()
        await asyncio.gather(work, return_exceptions=True)
        await closed(tmp_path)
        ((_, _, prompt, completion, source, _),) = turns(tmp_path)
        assert source == ("counted" if loads else "estimated")
        ds2d.daemon.counter.loaded = True
        exact = await ds2d.daemon.toolbox.count_text("one two three")
        assert (completion == exact, prompt < 8) == (loads, loads)


async def test_a_background_response_that_is_cancelled_before_its_answer_costs_its_prompt(tmp_path: Path) -> None:
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        hold = Wait()
        upstream.scenes.append(Scene([hold], raw=True))
        _, answer, _ = await ds2d.ask("/v1/responses", {"model": "deepseek-chat", "input": "Hello", "background": True})
        await hold.reached.wait()
        _, answer, _ = await ds2d.ask(f"/v1/responses/{answer['id']}/cancel", {})
        assert answer["status"] == "cancelled"
        hold.until.set()
        await closed(tmp_path)
        ((state, cause, prompt, completion, _, delivered),) = turns(tmp_path)
        assert (state, cause, completion, delivered) == ("failed", "cancelled", 0, 0)
        assert prompt > 0


async def test_a_question_that_the_client_left_in_the_queue_costs_nothing(tmp_path: Path) -> None:
    async with scripted_upstream() as upstream:
        config = config_for(upstream.base_url)
        config["upstreams"][0]["max_inflight"] = 1
        async with running(tmp_path, config) as ds2d:
            hold = Wait()
            upstream.scenes.append(Scene([hold, *say("late")]))
            first = asyncio.create_task(ds2d.ask("/v1/chat/completions", {**ASK, "stream": True}))
            await hold.reached.wait()
            work = asyncio.create_task(ds2d.ask("/v1/chat/completions", ASK))
            await until(lambda: ds2d.daemon.queue.waiting == 1)
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            await closed(tmp_path)
            assert turns(tmp_path)[-1] == ("interrupted", "client_closed", 0, 0, "", 0)
            hold.until.set()
            await first


@pytest.mark.parametrize("carrier", CARRIERS)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_question_that_the_client_left_before_there_was_a_connection_costs_nothing(
    tmp_path: Path, carrier: str, stream: bool
) -> None:
    """Its server's backlog is full: the kernel answers nothing at all."""
    with contextlib.ExitStack() as sockets:
        listener = sockets.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            sock = sockets.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(listener.getsockname())
        config = config_for(f"http://127.0.0.1:{listener.getsockname()[1]}/v1", models={"m": {"upstream": "gpu", "model": "m"}})
        config["upstreams"][0] |= {"timeouts": {"connect": 0.2}, "poll_seconds": 3600}
        async with running(tmp_path, config, carrier=carrier) as ds2d:
            await until(lambda: ds2d.daemon.counter.loaded)
            ds2d.change(upstreams=[{**config["upstreams"][0], "timeouts": {"connect": 60}}])
            ds2d.daemon.queue.reset()
            work = asyncio.create_task(ds2d.ask("/v1/chat/completions", {**ASK, "model": "m", "stream": stream}))
            await until(lambda: any(turn.tries for turn in ds2d.daemon.service.turns.values()))
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            await closed(tmp_path)
            assert turns(tmp_path) == [("interrupted", "client_closed", 0, 0, "", 0)]


@pytest.mark.parametrize("more", ["", " four five"])
async def test_a_checkpoint_that_is_being_counted_takes_nothing_from_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: str
) -> None:
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        await until(lambda: ds2d.daemon.counter.loaded)
        count = ds2d.daemon.toolbox.count_text
        counting = hold_back(monkeypatch, ds2d.daemon.toolbox, "count_text")
        hold, end = Wait(), Wait()
        upstream.scenes.append(Scene([*SAID, hold, *(sse(chunk({"content": more}), done=False) if more else []), end]))
        work = asyncio.create_task(ds2d.ask("/v1/chat/completions", {**ASK, "stream": True}))
        await hold.reached.wait()
        (turn,) = ds2d.daemon.service.turns.values()
        await until(lambda: turn.pipeline and turn.pipeline.records == len(SAID))
        checkpoint = asyncio.create_task(ds2d.daemon.books.checkpoint(turn))
        await counting.reached.wait()
        hold.until.set()
        await until(lambda: turn.pipeline and turn.pipeline.records == len(SAID) + bool(more))
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        await until(lambda: ds2d.daemon.books.sizes()["counting"].now == 1)
        counting.until.set()
        end.until.set()
        await checkpoint
        await closed(tmp_path)
        ((state, _, _, completion, source, delivered),) = turns(tmp_path)
        assert (state, source) == ("interrupted", "counted")
        assert completion == delivered == await count("one two three" + more)


async def test_an_answer_that_is_stopped_while_it_is_counted_is_whole_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        await until(lambda: ds2d.daemon.counter.loaded)
        count = ds2d.daemon.toolbox.count_text
        counting = hold_back(monkeypatch, ds2d.daemon.toolbox, "count_text")
        upstream.scenes.append(Scene([*SAID, *sse(chunk({}, "stop"))]))
        work = asyncio.create_task(ds2d.ask("/v1/chat/completions", {**ASK, "stream": True}))
        await counting.reached.wait()
        (turn,) = ds2d.daemon.service.turns.values()
        turn.stop(GatewayError(ErrorKind.SHUTTING_DOWN, "The gateway is shutting down."))
        counting.until.set()
        _, text, _ = await work
        assert '"error"' not in text
        assert "[DONE]" in text
        await closed(tmp_path)
        ((state, cause, prompt, completion, source, delivered),) = turns(tmp_path)
        assert (state, cause, source) == ("completed", "stop", "counted")
        assert prompt > 0
        assert completion == delivered == await count("one two three")


async def test_an_answer_that_was_left_is_estimated_where_too_many_are_being_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(books_module, "MAX_COUNTING", 0)
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        await leave_in_the_middle(ds2d, upstream, *SAID)
        await closed(tmp_path)
        ((state, _, prompt, completion, source, delivered),) = turns(tmp_path)
        assert (state, source) == ("interrupted", "estimated")
        assert prompt > 0
        assert completion == delivered == 4  # thirteen characters


async def test_running_usage_of_the_upstream_counts_more_than_ours(tmp_path: Path) -> None:
    counts = {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14}
    said = sse(chunk({"content": "one two three"}, usage=counts), done=False)
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        await leave_in_the_middle(ds2d, upstream, *said)
        await closed(tmp_path)
        assert turns(tmp_path) == [("interrupted", "client_closed", 11, 3, "upstream", 3)]


async def test_what_the_client_never_saw_is_not_delivered(tmp_path: Path) -> None:
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        await leave_in_the_middle(ds2d, upstream, *SAID, stream=False)
        await closed(tmp_path)
        ((state, _, prompt, completion, _, delivered),) = turns(tmp_path)
        assert (state, delivered) == ("interrupted", 0)
        assert prompt > 0
        assert completion > 0


async def test_a_stream_that_the_upstream_broke_off_failed_with_its_tokens(tmp_path: Path) -> None:
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        await until(lambda: ds2d.daemon.counter.loaded)
        upstream.scenes.append(Scene([*SAID, END]))
        await ds2d.ask("/v1/chat/completions", {**ASK, "stream": True})
        await closed(tmp_path)
        ((state, cause, prompt, completion, source, delivered),) = turns(tmp_path)
        assert (state, cause, source) == ("failed", "upstream_disconnected", "counted")
        assert min(prompt, completion) > 0
        assert delivered == completion


async def test_an_error_of_the_upstream_is_a_failed_turn_without_tokens(tmp_path: Path) -> None:
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        upstream.scenes.append(refuse(400, {"error": {"message": "no", "type": "x", "code": "x", "param": None}}))
        assert (await ds2d.ask("/v1/chat/completions", ASK))[0] == 400
        await closed(tmp_path)
        assert turns(tmp_path) == [("failed", "upstream_rejected", 0, 0, "", 0)]


@pytest.mark.parametrize("noted", [False, True])
async def test_a_turn_that_failed_before_its_first_byte_costs_nothing_though_a_checkpoint_saw_it_run(
    tmp_path: Path, noted: bool
) -> None:
    async with (
        scripted_upstream() as upstream,
        running(tmp_path, config_for(upstream.base_url, runtime={"max_attempts": 1})) as ds2d,
    ):
        hold = Wait()
        upstream.scenes.append(Scene([*SAID, hold, END]))
        work = asyncio.create_task(ds2d.ask("/v1/chat/completions", ASK))
        await hold.reached.wait()
        (turn,) = ds2d.daemon.service.turns.values()
        await until(lambda: turn.pipeline and turn.pipeline.records == len(SAID))
        if noted:
            await ds2d.daemon.books.checkpoint(turn)
        hold.until.set()
        assert (await work)[0] == 503
        await closed(tmp_path)
        assert turns(tmp_path) == [("failed", "upstream_disconnected", 0, 0, "", 0)]
        _, body, _ = await ds2d.ask("/v1/usage")
        assert body["used"]["total"]["total_tokens"] == 0


async def test_refused_turns_have_rows_too(tmp_path: Path) -> None:
    limits = {"account_max_inflight": 1, "queue_timeout_seconds": 0}
    keys = [{"key": KEY, "models": ["deepseek-chat"]}]
    async with (
        scripted_upstream() as upstream,
        running(tmp_path, config_for(upstream.base_url, keys=keys, runtime=limits)) as ds2d,
    ):
        assert (await ds2d.ask("/v1/chat/completions", {**ASK, "model": "nobody-knows"}))[0] == 404
        assert (await ds2d.ask("/v1/chat/completions", {**ASK, "model": "deepseek-reasoner"}))[0] == 403
        upstreams = [{**ds2d.config()["upstreams"][0], "max_inflight": 1}]
        ds2d.change(upstreams=upstreams)
        hold = Wait()
        upstream.scenes.append(Scene([hold, *say("late")]))
        first = asyncio.create_task(ds2d.ask("/v1/chat/completions", {**ASK, "stream": True}))
        await hold.reached.wait()
        assert (await ds2d.ask("/v1/chat/completions", ASK))[0] == 429
        hold.until.set()
        assert (await first)[0] == 200
        await closed(tmp_path, 4)
        found = sorted(turns(tmp_path, "state, cause"))
        assert found == [
            ("completed", "stop"),
            *(("rejected", cause) for cause in ("model_not_allowed", "model_not_found", "queue_timeout")),
        ]


async def test_checkpoints_of_a_running_turn_survive_what_kills_the_process(tmp_path: Path) -> None:
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        hold = Wait()
        upstream.scenes.append(Scene([*SAID, hold, *say("the rest")]))
        work = asyncio.create_task(ds2d.ask("/v1/chat/completions", {**ASK, "stream": True}))
        await hold.reached.wait()
        turn = next(iter(ds2d.daemon.service.turns.values()))
        await until(lambda: turn.pipeline is not None and turn.pipeline.said)
        for _ in range(2):  # the second counts nothing twice
            await ds2d.daemon.books.checkpoint(turn)
        await until(lambda: turns(tmp_path, "checkpoint_at IS NOT NULL") == [(1,)])
        ((state, _, prompt, completion, _, delivered),) = turns(tmp_path)
        assert state == "open"
        assert prompt > 0
        assert completion == delivered == await ds2d.daemon.toolbox.count_text("one two three")
        hold.until.set()
        await work
        await closed(tmp_path)
        assert [row[:4] for row in turns(tmp_path)] == [("completed", "stop", 7, 5)]


@pytest.mark.parametrize("counts", [True, False])
async def test_a_stop_in_the_middle_loses_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counts: bool) -> None:
    async with scripted_upstream() as upstream:
        hold = Wait()
        async with running(tmp_path, config_for(upstream.base_url)) as ds2d:
            if not counts:  # in time
                monkeypatch.setattr(ds2d.daemon.toolbox, "count_text", lambda _text: asyncio.Event().wait())
            upstream.scenes.append(Scene([*SAID, hold]))
            work = asyncio.create_task(ds2d.ask("/v1/chat/completions", {**ASK, "stream": True}))
            await hold.reached.wait()
            await until(lambda: any(turn.pipeline and turn.pipeline.records > 1 for turn in ds2d.daemon.service.turns.values()))
        hold.until.set()
        work.cancel()  # a closed session does not wake its readers
        await asyncio.gather(work, return_exceptions=True)
        ((state, _, prompt, completion, _, delivered),) = turns(tmp_path)
        assert state in ("interrupted", "failed")
        assert prompt > 0
        assert completion == delivered > 0


async def test_what_was_decided_is_remembered_and_on_disk(tmp_path: Path) -> None:
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        upstream.scenes.append(refuse(500, {"error": {"message": "boom"}}))
        headers = {"x-request-id": "req_mine"}
        status, _, _ = await ds2d.ask("/v1/chat/completions", {**ASK, "stream": True}, headers=headers)
        why = ds2d.daemon.books.explain("req_mine")
        assert why is not None
        ends = [one["end"] for one in why["tries"]]
        assert ends == ["upstream_error", "answered"] if status == 200 else ["upstream_error"]
        assert why["model"] == {"asked": "deepseek-chat", "used": "deepseek-chat", "why": why["model"]["why"]}
        assert {one["account"] for one in why["tries"]} == {"gpu"}
        assert why["clocks"]["total_ms"] > 0
        assert why["state"] in ("completed", "failed")
        assert ds2d.daemon.books.explain("req_other") is None
        await closed(tmp_path)
        assert '"tries"' in turns(tmp_path, "why")[0][0]


async def test_what_accounts_were_seen_to_do(tmp_path: Path) -> None:
    limited = "Upstream rate limit reached (UserByModelByDay). Retry after ~20663s."
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        upstream.scenes.append(Scene(say("hi"), headers={"x-ratelimit-limit-requests": "60", "x-ratelimit-limit-tokens": "9000"}))
        await ds2d.ask("/v1/chat/completions", {**ASK, "stream": True})
        upstream.scenes.append(refuse(429, {"error": {"message": limited, "type": "rate_limit_exceeded", "code": "rate_limit"}}))
        assert (await ds2d.ask("/v1/chat/completions", ASK))[0] == 429
        (seen,) = ds2d.daemon.observed.report()["data"]
        assert (seen["model"], seen["account"], seen["rpm"], seen["tpm"]) == ("deepseek-chat", "gpu", 1, 12)
        assert (seen["limit_rpm"], seen["limit_tpm"], seen["concurrency"], seen["evidence"]) == (60, 9000, 1, 2)
        assert seen["window"] == "UserByModelByDay"
        assert 20000 < seen["retry_after"] <= 20663


async def test_operators_page_through_the_ledger(tmp_path: Path) -> None:
    config = {"admin": {"password_hash": hash_key(ADMIN_KEY)}, "keys": [{"key": KEY, "name": "team-a"}]}
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url, **config)) as ds2d:
        for number in range(3):
            await ds2d.ask("/v1/chat/completions", ASK, headers={"x-request-id": f"req_{number}"})
        names, after = [], ""
        while True:
            status, body, _ = await ds2d.ask(f"/admin/usage?key=team-a&limit=2{after}", key=ADMIN_KEY)
            assert status == 200
            names += [turn["request_id"] for turn in body["turns"]]
            if body["next"] is None:
                break
            after = f"&after={body['next']}"
        assert names == ["req_0", "req_1", "req_2"]
        assert [(day["key_name"], day["requests"], day["prompt_tokens"]) for day in body["daily"]] == [("team-a", 3, 21)]
        assert HASH not in str(body)
        for bad in ("limit=0", "limit=0001005", "since=yesterday", "state=lost", "after=x", f"after=1.0_{2**63}"):
            assert (await ds2d.ask(f"/admin/usage?{bad}", key=ADMIN_KEY))[0] == 400, bad
        for far in ("since=0001-01-01T00:00:00%2B14:00", "until=9999-12-31T23:59:59-14:00"):
            assert len((await ds2d.ask(f"/admin/usage?{far}", key=ADMIN_KEY))[1]["turns"]) == 3, far
        assert (await ds2d.ask("/admin/usage?until=0001-01-01", key=ADMIN_KEY))[1]["turns"] == []
        assert (await ds2d.ask("/admin/usage"))[0] == 401
