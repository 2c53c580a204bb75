"""A client that asks the same again gets the answer that runs, or has just ended: one generation, equal answers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from openai import AsyncOpenAI

from ds2d.service import repeats, run
from tests.functional.harness import KEY, Running, config_for, hold_back, running
from tests.functional.scripted import RESET, Scene, ScriptedUpstream, Wait, chunk, refuse, say, scripted_upstream, sse, usage
from tests.functional.test_every_dialect import QUESTIONS
from tests.functional.test_queue import until

CHAT = "/v1/chat/completions"
OTHER_KEY = "sk-other-0123456789abcdef"
FIRST, RETRY = {"x-stainless-retry-count": "0"}, {"x-stainless-retry-count": "1"}
QUESTION = {"model": "deepseek-chat", "messages": [{"role": "user", "content": "Hello"}]}


@contextlib.asynccontextmanager
async def world(folder: Path, **runtime: Any) -> AsyncIterator[tuple[Running, ScriptedUpstream]]:
    async with scripted_upstream() as upstream:
        config = {**config_for(upstream.base_url, runtime=runtime), "keys": [KEY, OTHER_KEY]}
        async with running(folder, config) as ds2d:
            yield ds2d, upstream


def held(upstream: ScriptedUpstream) -> Wait:
    """Every answer stops after its first words, or before its body, until the test lets it go on."""
    wait = Wait()

    def scene(seen: Any) -> Scene | None:
        if seen.path.endswith("/tokenize"):
            return None
        if seen.body.get("stream"):
            role, first, *rest = say(f"answer {len(upstream.seen)}", " of them")
            return Scene([role, first, wait, *rest])
        body = {**chunk(), "choices": [{"index": 0, "message": {"role": "assistant", "content": "x"}, "finish_reason": "stop"}]}
        return Scene([wait, json.dumps({**body, "usage": usage()["usage"]}).encode()], content_type="application/json")

    upstream.decide = scene
    return wait


def send(ds2d: Running, headers: dict[str, str], *, path: str = CHAT, key: str = KEY, **body: Any) -> asyncio.Task[bytes]:
    """A client that reads its answer to the end."""

    async def ask() -> bytes:
        sent = {"Authorization": f"Bearer {key}", **headers}
        async with ds2d.http.post(ds2d.url + path, json={**QUESTION, **body}, headers=sent) as reply:
            return await reply.read()

    return asyncio.create_task(ask())


def joined(ds2d: Running) -> int:
    return ds2d.daemon.service.repeats.joined


def record(ds2d: Running, state: str) -> dict[str, Any]:
    """The only turn that ended so."""
    (one,) = [turn for turn in ds2d.daemon.books.recent if turn["state"] == state]
    return one


# Joined


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("dialect", QUESTIONS)
async def test_one_generation_and_two_equal_answers(tmp_path: Path, dialect: str, streamed: bool) -> None:
    path, body, stream_path, more = QUESTIONS[dialect]
    asked = {"path": stream_path, **body, **more} if streamed else {"path": path, **body}
    async with world(tmp_path) as (ds2d, upstream):
        wait = held(upstream)
        first = asyncio.create_task(raw(ds2d, asked, FIRST))
        await wait_for(wait)
        second = asyncio.create_task(raw(ds2d, asked, RETRY))
        await until(lambda: joined(ds2d) == 1, 10)
        wait.until.set()
        answers = [await first, await second]
        assert answers[0] == answers[1]
        assert len(answers[0]) > 50
        assert len(upstream.seen) == 1
        await until(lambda: not ds2d.daemon.service.turns, 10)


async def raw(ds2d: Running, asked: dict[str, Any], headers: dict[str, str]) -> bytes:
    body = {name: value for name, value in asked.items() if name != "path"}
    sent = {"Authorization": f"Bearer {KEY}", **headers}
    async with ds2d.http.post(ds2d.url + asked["path"], json=body, headers=sent) as reply:
        assert reply.status == 200
        return await reply.read()


async def wait_for(wait: Wait) -> None:
    await asyncio.wait_for(wait.reached.wait(), 10)


async def test_the_cost_is_counted_once_and_both_requests_have_a_row(tmp_path: Path) -> None:
    async with world(tmp_path) as (ds2d, upstream):
        wait = held(upstream)
        first = send(ds2d, FIRST, stream=True)
        await wait_for(wait)
        second = send(ds2d, {**RETRY, "x-request-id": "the-retry"}, stream=True)
        await until(lambda: joined(ds2d) == 1, 10)
        wait.until.set()
        await first
        await second
        rows = {turn["request_id"]: turn for turn in ds2d.daemon.books.recent}
        retry = rows.pop("the-retry")
        (original,) = rows.values()
        assert (retry["state"], original["state"]) == ("completed", "completed")
        assert retry["notes"] == [f"joined={original['request_id']}"]
        assert original["notes"] == ["shared"]
        assert [attempt["end"] for attempt in original["tries"]] == ["answered"]
        assert (retry["tokens"]["prompt"], retry["tokens"]["completion"]) == (0, 0)
        assert original["tokens"]["completion"] == 5


async def test_an_answer_that_has_just_ended_is_joined(tmp_path: Path) -> None:
    async with world(tmp_path) as (ds2d, upstream):
        for streamed in (True, False):
            answers = [await send(ds2d, FIRST, stream=streamed), await send(ds2d, RETRY, stream=streamed)]
            assert answers[0] == answers[1]
        assert len(upstream.seen) == 2
        ended = list(ds2d.daemon.service.repeats._ended.values())
        assert [(one.turn, one.sink) for one in ended] == [
            (None, None)
        ] * 2  # of a question nothing is kept, of an answer its bytes


async def test_an_answer_that_ended_a_while_ago_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeats, "LINGER_SECONDS", 0.0)
    async with world(tmp_path) as (ds2d, upstream):
        await send(ds2d, FIRST)
        await send(ds2d, RETRY)
        assert len(upstream.seen) == 2
        assert ds2d.daemon.service.repeats.held > 0
        ds2d.daemon.service.repeats.expire()
        assert ds2d.daemon.service.repeats.held == 0


async def test_the_same_idempotency_key_joins_without_a_word_of_a_retry(tmp_path: Path) -> None:
    async with world(tmp_path) as (ds2d, upstream):
        wait = held(upstream)
        tasks = [send(ds2d, {"Idempotency-Key": "one"})]
        await wait_for(wait)
        tasks += [send(ds2d, {"Idempotency-Key": "one"}), send(ds2d, {"Idempotency-Key": "two"})]
        await until(lambda: joined(ds2d) == 1 and len(upstream.seen) == 2, 10)
        wait.until.set()
        await asyncio.gather(*tasks)
        assert len(upstream.seen) == 2


async def test_one_who_joined_gets_all_though_the_first_client_leaves(tmp_path: Path) -> None:
    async with world(tmp_path) as (ds2d, upstream):
        wait = held(upstream)
        first = send(ds2d, FIRST, stream=True)
        await wait_for(wait)
        second = send(ds2d, RETRY, stream=True)
        await until(lambda: joined(ds2d) == 1, 10)
        await left(first)
        assert not upstream.seen[0].closed.is_set()
        wait.until.set()
        answer = await second
        assert b"answer 1" in answer
        assert b"[DONE]" in answer
        assert {turn["state"] for turn in ds2d.daemon.books.recent} == {"completed"}


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "whole"])
async def test_who_left_when_the_answer_only_waited_for_its_row_finds_it(
    tmp_path: Path, streamed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its row says that it was delivered: a second answer would be paid for once more."""
    async with world(tmp_path) as (ds2d, upstream):
        row = hold_back(monkeypatch, ds2d.daemon.ledger, "close")
        first = send(ds2d, FIRST, stream=streamed)
        await row.reached.wait()
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        await until(lambda: ds2d.daemon.listener.connections == 0)
        row.until.set()
        assert (b"[DONE]" in await send(ds2d, RETRY, stream=streamed)) == streamed
        assert len(upstream.seen) == 1
        assert [turn["state"] for turn in ds2d.daemon.books.recent] == ["completed", "completed"]
        await until(lambda: (ds2d.daemon.queue.running, ds2d.daemon.service.turns) == (0, {}))


async def test_life_signs_are_no_beginning_of_a_joined_answer(tmp_path: Path) -> None:
    async with scripted_upstream() as upstream:
        config = config_for(upstream.base_url, server={"keepalive_seconds": 1})
        async with running(tmp_path, config) as ds2d:
            wait, sign = Wait(), b": keep-alive\n\n"
            upstream.scenes.append(Scene([wait, *say("one")]))
            sent = {"Authorization": f"Bearer {KEY}", "Idempotency-Key": "one"}
            asked = {"json": {**QUESTION, "stream": True}, "headers": sent}
            async with ds2d.http.post(ds2d.url + CHAT, **asked) as reply, ds2d.http.post(ds2d.url + CHAT, **asked) as other:
                for _ in range(2):
                    assert await reply.content.readuntil(b"\n\n") == await other.content.readuntil(b"\n\n") == sign
                wait.until.set()
                assert await reply.read() == await other.read()
            one, two = (turn["clocks"] for turn in ds2d.daemon.books.recent)
            assert all(clocks["total_ms"] - clocks["first_ms"] < 500 for clocks in (one, two))  # not since the first sign


@pytest.mark.parametrize("turns", range(-1, 4))
@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "whole"])
async def test_who_asks_again_in_the_moment_in_which_the_first_client_leaves_gets_an_answer(
    tmp_path: Path, streamed: bool, turns: int
) -> None:
    """`turns` of the loop lie between the two (-1: the retry is there first). The turn ends with its client, which takes some of
    them: who joined it then got half an answer, none at all, or waited for the clock of the upstream that had been closed."""
    raw = json.dumps({**QUESTION, "stream": streamed}).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {KEY}\r\nIdempotency-Key: one\r\n"
    asked = head.encode() + b"Content-Length: %d\r\n\r\n" % len(raw) + raw
    async with world(tmp_path) as (ds2d, upstream):
        wait = held(upstream)
        first, second = socket.socket(), socket.socket()
        for one in (first, second):
            one.setblocking(False)
            await asyncio.get_running_loop().sock_connect(one, ("127.0.0.1", ds2d.port))
        await until(lambda: ds2d.daemon.listener.connections >= 2)
        first.send(asked)
        await wait.reached.wait()
        if streamed:
            await until(lambda: any(turn.first for turn in ds2d.daemon.service.turns.values()))
        if turns < 0:
            second.send(asked)
        first.close()
        for _ in range(turns):
            await asyncio.sleep(0)
        if turns >= 0:
            second.send(asked)
        reader, writer = await asyncio.open_connection(sock=second)
        await until(lambda: joined(ds2d) == 1 or len(upstream.seen) == 2)
        wait.until.set()
        async with asyncio.timeout(20):
            answer = await reader.read()
        writer.close()
        assert (b"data: [DONE]" if streamed else b'"content":"x"') in answer
        await until(lambda: (ds2d.daemon.queue.running, ds2d.daemon.service.turns) == (0, {}))


async def test_when_all_have_left_the_upstream_is_closed(tmp_path: Path) -> None:
    async with world(tmp_path) as (ds2d, upstream):
        wait = held(upstream)
        tasks = [send(ds2d, FIRST, stream=True)]
        await wait_for(wait)
        tasks.append(send(ds2d, RETRY, stream=True))
        await until(lambda: joined(ds2d) == 1, 10)
        for task in tasks:
            await left(task)
        await asyncio.wait_for(upstream.seen[0].closed.wait(), 10)
        await until(lambda: not ds2d.daemon.service.turns and ds2d.daemon.queue.running == 0, 10)
        assert ds2d.daemon.service.repeats.held == 0


async def left(task: asyncio.Task[bytes]) -> None:
    """A client that closes its connection."""
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


# Not joined


@pytest.mark.parametrize(
    ("headers", "more"),
    [
        (RETRY, {"key": OTHER_KEY}),
        (RETRY, {"temperature": 0.5}),
        (RETRY, {"path": "/chat/completions"}),
        (FIRST, {}),
        ({}, {}),
        ({**RETRY, "x-stainless-retry-count": "many"}, {}),
        ({**RETRY, "Idempotency-Key": "other"}, {}),
        ({**RETRY, "X-Ds2-Target-Account": "gpu"}, {}),
    ],
    ids=["another key", "another body", "another route", "no retry", "no SDK", "no number", "another attempt", "another account"],
)
async def test_what_is_not_the_same_again_is_answered_by_itself(
    tmp_path: Path, headers: dict[str, str], more: dict[str, Any]
) -> None:
    async with world(tmp_path) as (ds2d, upstream):
        wait = held(upstream)
        tasks = [send(ds2d, FIRST)]
        await wait_for(wait)
        tasks.append(send(ds2d, headers, **more))
        await until(lambda: len(upstream.seen) == 2, 10)
        wait.until.set()
        await asyncio.gather(*tasks)
        assert joined(ds2d) == 0


async def test_nothing_is_joined_where_it_is_off(tmp_path: Path) -> None:
    async with world(tmp_path) as (ds2d, upstream):
        ds2d.change(runtime={"retry_collapse": False})
        wait = held(upstream)
        tasks = [send(ds2d, FIRST)]
        await wait_for(wait)
        tasks.append(send(ds2d, RETRY))
        await until(lambda: len(upstream.seen) == 2, 10)
        wait.until.set()
        await asyncio.gather(*tasks)


async def test_a_retry_of_one_of_two_equal_questions_could_be_of_either_so_it_joins_none(tmp_path: Path) -> None:
    async with world(tmp_path) as (ds2d, upstream):
        wait = held(upstream)
        tasks = [send(ds2d, FIRST), send(ds2d, FIRST)]
        await until(lambda: len(upstream.seen) == 2, 10)
        tasks.append(send(ds2d, RETRY))
        await until(lambda: len(upstream.seen) == 3, 10)
        wait.until.set()
        await asyncio.gather(*tasks)
        assert joined(ds2d) == 0


async def test_a_failure_is_not_joined_the_retry_begins_anew(tmp_path: Path) -> None:
    async with world(tmp_path, max_attempts=1) as (ds2d, upstream):
        upstream.scenes = [refuse(500, {"error": "x"}), Scene([*say("half")[:2], RESET])]
        for streamed in (False, True):
            failed = await send(ds2d, FIRST, stream=streamed)
            assert b"error" in failed
        assert b"Hello from upstream" in await send(ds2d, RETRY)
        assert b"[DONE]" in await send(ds2d, RETRY, stream=True)
        assert joined(ds2d) == 0


async def test_one_who_joined_a_turn_that_fails_is_told_the_same(tmp_path: Path) -> None:
    async with world(tmp_path, max_attempts=1) as (ds2d, upstream):
        wait = Wait()
        upstream.scenes = [Scene([wait, b'{"error":"x"}'], 400, content_type="application/json")]
        first = send(ds2d, FIRST)
        await wait_for(wait)
        second = send(ds2d, RETRY)
        await until(lambda: joined(ds2d) == 1, 10)
        wait.until.set()
        told = [json.loads(await first)["error"]["code"], json.loads(await second)["error"]["code"]]
        assert told[0] == told[1]
        assert len(upstream.seen) == 1


# Bounds


async def test_an_answer_too_long_to_keep_is_not_joined_any_more_and_goes_on_for_those_who_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "MAX_ANSWER", 2000)
    monkeypatch.setattr(run, "BACKLOG", 1000)
    async with world(tmp_path) as (ds2d, upstream):
        early, late = Wait(), Wait()
        words = [chunk({"content": f"word {number} "}) for number in range(40)]
        upstream.scenes = [Scene([*sse(words[0], done=False), early, *sse(*words[1:], done=False), late, *say("end")])]
        first = send(ds2d, FIRST, stream=True)
        await wait_for(early)
        second = send(ds2d, RETRY, stream=True)
        await until(lambda: joined(ds2d) == 1, 10)
        early.until.set()
        await wait_for(late)
        third = send(ds2d, RETRY, stream=True)
        await until(lambda: len(upstream.seen) == 2, 10)
        late.until.set()
        answers = [await first, await second]
        assert answers[0] == answers[1]
        assert answers[0].count(b"word ") == 40
        assert b"[DONE]" in await third
        await until(lambda: ds2d.daemon.service.repeats.held <= 2000, 10)


async def test_the_bytes_of_all_answers_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeats, "MAX_HELD", 3000)
    async with world(tmp_path) as (ds2d, upstream):
        for number in range(20):
            await send(ds2d, FIRST, user=str(number))
        sizes = ds2d.daemon.sizes()
        assert 0 < sizes["repeats.held_bytes"].now <= 3000
        before = len(upstream.seen)
        await send(ds2d, RETRY, user="0")
        await send(ds2d, RETRY, user="19")
        assert len(upstream.seen) == before + 1


# Alone


async def test_without_grace_a_turn_ends_with_its_client(tmp_path: Path) -> None:
    async with world(tmp_path) as (ds2d, upstream):
        wait = held(upstream)
        first = send(ds2d, FIRST, stream=True)
        await wait_for(wait)
        await left(first)
        await asyncio.wait_for(upstream.seen[0].closed.wait(), 10)
        await until(lambda: bool(ds2d.daemon.books.recent), 10)
        assert record(ds2d, "interrupted")["cause"] == "client_closed"
        assert ds2d.daemon.service.repeats.alone == 0


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "whole"])
async def test_with_grace_a_retry_finds_the_answer_of_the_lost_client_from_its_first_byte(tmp_path: Path, streamed: bool) -> None:
    async with world(tmp_path, retry_grace_seconds=60) as (ds2d, upstream):
        wait = held(upstream)
        first = send(ds2d, FIRST, stream=streamed)
        await wait_for(wait)
        await left(first)
        await until(lambda: ds2d.daemon.service.repeats.alone == 1, 10)
        second = send(ds2d, RETRY, stream=streamed)
        await until(lambda: joined(ds2d) == 1, 10)
        wait.until.set()
        answer = await second
        assert (b"answer 1" in answer and b"[DONE]" in answer) if streamed else b'"content":"x"' in answer
        assert len(upstream.seen) == 1
        notes = [note for turn in ds2d.daemon.books.recent for note in turn["notes"]]
        assert sum(note.startswith("alone_ms=") for note in notes) == 1


async def test_a_turn_that_ends_alone_is_an_interrupted_one_that_is_paid_for_and_says_so(tmp_path: Path) -> None:
    async with world(tmp_path, retry_grace_seconds=60) as (ds2d, upstream):
        wait = held(upstream)
        first = send(ds2d, FIRST, stream=True)
        await wait_for(wait)
        await left(first)
        await until(lambda: ds2d.daemon.service.repeats.alone == 1, 10)
        wait.until.set()
        await until(lambda: not ds2d.daemon.service.turns, 10)
        turn = record(ds2d, "interrupted")
        assert turn["cause"] == "client_closed"
        assert turn["notes"][0].startswith("alone_ms=")
        assert (turn["tokens"]["completion"], turn["tokens"]["source"]) == (5, "upstream")
        assert b"answer 1" in await send(ds2d, RETRY, stream=True)  # it has just ended
        assert len(upstream.seen) == 1


async def test_when_the_grace_is_over_nobody_waits_any_longer(tmp_path: Path) -> None:
    async with world(tmp_path, retry_grace_seconds=0.1) as (ds2d, upstream):
        wait = held(upstream)
        first = send(ds2d, FIRST, stream=True)
        await wait_for(wait)
        await left(first)
        await asyncio.wait_for(upstream.seen[0].closed.wait(), 10)
        await until(lambda: bool(ds2d.daemon.books.recent), 10)
        assert record(ds2d, "interrupted")["notes"][0].startswith("alone_ms=")


async def test_who_leaves_the_queue_frees_its_place_at_once_whatever_the_grace(tmp_path: Path) -> None:
    async with world(tmp_path, retry_grace_seconds=60) as (ds2d, upstream):
        ds2d.change(upstreams=[{**ds2d.config()["upstreams"][0], "max_inflight": 1}])
        wait = held(upstream)
        first = send(ds2d, FIRST, user="1")
        await wait_for(wait)
        second = send(ds2d, FIRST, user="2")
        await until(lambda: ds2d.daemon.queue.waiting == 1, 10)
        await left(second)
        await until(lambda: ds2d.daemon.queue.waiting == 0, 10)
        wait.until.set()
        await first
        assert len(upstream.seen) == 1


async def test_a_daemon_that_stops_leaves_no_turn_alone(tmp_path: Path) -> None:
    async with world(tmp_path, retry_grace_seconds=60) as (ds2d, upstream):
        wait = held(upstream)
        first = send(ds2d, FIRST, stream=True)
        await wait_for(wait)
        await left(first)
        await until(lambda: ds2d.daemon.service.repeats.alone == 1, 10)
        seen = upstream.seen[0]
    await asyncio.wait_for(seen.closed.wait(), 10)


async def test_an_sdk_that_retries_after_its_time_out_gets_the_first_answer(tmp_path: Path) -> None:
    """The real thing: OpenAI's SDK gives up after its time-out, leaves, and asks again by itself."""
    async with world(tmp_path, retry_grace_seconds=60) as (ds2d, upstream):
        wait = held(upstream)
        async with AsyncOpenAI(base_url=ds2d.url + "/v1", api_key=KEY, timeout=2, max_retries=5) as client:
            asking = asyncio.create_task(client.chat.completions.create(**QUESTION))  # type: ignore[call-overload]
            await until(lambda: joined(ds2d) >= 1, 20)
            wait.until.set()
            answer = await asking
        assert answer.choices[0].message.content == "x"
        assert len(upstream.seen) == 1
