"""The queue, failover and logins over real sockets: L run, Q wait, the next is told so; nobody who left costs anything."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from tests.functional.harness import Running, config_for, running
from tests.functional.scripted import (
    RESET,
    Scene,
    ScriptedUpstream,
    Seen,
    Wait,
    chunk,
    refuse,
    say,
    scripted_upstream,
    sse,
    whole,
)
from tests.functional.test_every_dialect import QUESTIONS

CHAT = "/v1/chat/completions"
Answer = tuple[int, Any, dict[str, str]]


@dataclass
class Crowd:
    """Clients of one daemon whose upstream holds every answer until `hold.until` is set."""

    ds2d: Running
    upstream: ScriptedUpstream
    hold: Wait
    tasks: list[asyncio.Task[Answer]] = field(default_factory=list)

    async def come(self, stream: bool = False) -> asyncio.Task[Answer]:
        """One more client; returns when it runs, waits or has its answer."""
        queue, number = self.ds2d.daemon.queue, len(self.tasks)
        before = queue.running + queue.waiting
        body = {"model": "deepseek-chat", "messages": [{"role": "user", "content": str(number)}], "stream": stream}
        task = asyncio.create_task(self.ds2d.ask(CHAT, body))
        self.tasks.append(task)
        await until(lambda: task.done() or queue.running + queue.waiting > before)
        return task

    def order(self) -> list[int]:
        """The numbers of the clients in the order in which the upstream saw them."""
        return [int(seen.body["messages"][0]["content"]) for seen in self.upstream.seen]


async def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Return as soon as it holds; the seconds are patience with a busy machine, not a figure of ours."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.002)


@asynccontextmanager
async def crowd(folder: Path, run: int, wait: int, patience: float = 60) -> AsyncIterator[Crowd]:
    """A daemon that lets `run` run and `wait` wait."""
    async with scripted_upstream() as upstream:
        hold = Wait()
        scene = whole({"content": "x"})
        upstream.by_model["deepseek-tiny"] = Scene([hold, *scene.pieces], content_type="application/json")
        config = config_for(
            upstream.base_url, runtime={"account_max_queue": wait, "queue_timeout_seconds": patience, "retry_collapse": False}
        )
        config["upstreams"][0]["max_inflight"] = run
        async with running(folder, config) as ds2d:
            yield Crowd(ds2d, upstream, hold)
            hold.until.set()
            for task in crowd_tasks(ds2d):
                task.cancel()


def crowd_tasks(ds2d: Running) -> list[asyncio.Task[Any]]:
    """Turns that a failed test left over."""
    return [turn.task for turn in ds2d.daemon.service.turns.values() if turn.task is not None]


# Limits


async def test_l_run_q_wait_in_order_and_the_next_is_told_at_once(tmp_path: Path) -> None:
    async with crowd(tmp_path, run=2, wait=3) as clients:
        queue = clients.ds2d.daemon.queue
        tasks = [await clients.come(stream=bool(number % 2)) for number in range(5)]
        assert (queue.running, queue.waiting) == (2, 3)
        async with asyncio.timeout(20):  # those who wait do so for 60
            status, answer, headers = await (await clients.come())
        assert (status, answer["error"]["type"], answer["error"]["code"]) == (429, "rate_limit_error", "queue_full")
        assert 1 <= int(headers["retry-after"]) <= 120
        assert clients.order() == [0, 1]
        clients.hold.until.set()
        assert [status for status, _, _ in await asyncio.gather(*tasks)] == [200] * 5
        assert clients.order() == [0, 1, 2, 3, 4]
        assert (queue.running, queue.waiting) == (0, 0)


@pytest.mark.parametrize("dialect", QUESTIONS)
async def test_a_full_queue_is_told_in_every_dialect_in_both_modes(tmp_path: Path, dialect: str) -> None:
    path, body, stream_path, more = QUESTIONS[dialect]
    async with crowd(tmp_path, run=1, wait=1) as clients:
        await clients.come()
        await clients.come()
        for where, what in ((path, body), (stream_path, {**body, **more})):
            status, answer, headers = await clients.ds2d.ask(where, what)
            assert status == 429
            assert headers["content-type"].startswith("application/json")
            assert int(headers["retry-after"]) >= 1
            shown = answer["error"]
            assert {"claude": shown.get("type"), "gemini": shown.get("status")}.get(dialect, shown.get("code")) in (
                "rate_limit_error", "RESOURCE_EXHAUSTED", "queue_full")  # fmt: skip
        assert clients.order() == [0]


async def test_who_leaves_the_queue_frees_the_place_and_reaches_nobody(tmp_path: Path) -> None:
    async with crowd(tmp_path, run=1, wait=2) as clients:
        queue = clients.ds2d.daemon.queue
        _, second, _ = [await clients.come() for _ in range(3)]
        second.cancel()
        await until(lambda: queue.waiting == 1)
        fourth = await clients.come()
        assert queue.waiting == 2
        clients.hold.until.set()
        assert (await fourth)[0] == 200
        await until(lambda: queue.running == 0)
        assert clients.order() == [0, 2, 3]


async def test_who_leaves_answers_in_the_middle_has_used_them_all_the_same(tmp_path: Path) -> None:
    long, short, other = "sk-long-0123456789abcdef", "sk-short-0123456789abcdef", "sk-other-0123456789abcdef"
    async with scripted_upstream() as upstream:
        config = config_for(upstream.base_url, keys=[long, short, other], runtime={"account_max_queue": 2})
        config["upstreams"][0]["max_inflight"] = 1
        async with running(tmp_path, config) as ds2d:
            queue = ds2d.daemon.queue

            def ask(key: str, stream: bool = False) -> asyncio.Task[Answer]:
                body = {"model": "deepseek-chat", "messages": [{"role": "user", "content": key[3:8]}], "stream": stream}
                return asyncio.create_task(ds2d.ask(CHAT, body, key=key))

            hold = Wait()
            upstream.scenes.append(Scene([*sse(chunk({"content": "word " * 8000}), done=False), hold]))
            left = ask(long, stream=True)
            await hold.reached.wait()
            await until(lambda: any(turn.first is not None for turn in ds2d.daemon.service.turns.values()))
            left.cancel()
            await until(lambda: not queue.running)
            hold.until.set()
            used = {"prompt_tokens": 1000, "completion_tokens": 2000, "total_tokens": 3000}
            upstream.scenes.append(whole({"content": "x"}, usage=used))
            assert (await ask(short))[0] == 200
            hold = Wait()
            upstream.scenes.append(Scene([hold, *whole({"content": "x"}).pieces], content_type="application/json"))
            tasks = [ask(other)]
            await hold.reached.wait()
            for number, key in enumerate((long, short), 1):
                tasks.append(ask(key))
                await until(lambda number=number: queue.waiting == number)
            hold.until.set()
            await asyncio.gather(*tasks)
            assert [seen.body["messages"][0]["content"] for seen in upstream.seen[-2:]] == ["short", "long-"]


@pytest.mark.parametrize("stream", [False, True])
async def test_the_wait_has_an_end_and_keeps_its_status(tmp_path: Path, stream: bool) -> None:
    async with crowd(tmp_path, run=1, wait=2, patience=0.3) as clients:
        await clients.come()
        status, answer, headers = await (await clients.come(stream))
        assert (status, answer["error"]["code"]) == (429, "queue_timeout")
        assert int(headers["retry-after"]) >= 1
        assert clients.ds2d.daemon.queue.waiting == 0
        assert clients.order() == [0]


async def test_nobody_waits_where_waiting_is_off(tmp_path: Path) -> None:
    async with crowd(tmp_path, run=1, wait=2, patience=0) as clients:
        await clients.come()
        status, answer, _ = await (await clients.come())
        assert (status, answer["error"]["code"]) == (429, "queue_timeout")


async def test_a_bad_question_is_told_so_though_the_queue_is_full(tmp_path: Path) -> None:
    async with crowd(tmp_path, run=1, wait=1) as clients:
        await clients.come()
        await clients.come()
        for body, expected in (({"temperature": 9}, 400), ({"model": "deepseek-nope"}, 404)):
            question = {"model": "deepseek-chat", "messages": [{"role": "user", "content": "0"}], **body}
            assert (await clients.ds2d.ask(CHAT, question))[0] == expected
        assert (await clients.ds2d.ask(CHAT, {}, key="sk-wrong"))[0] == 401


# Failover

ASK = {"model": "deepseek-chat", "messages": [{"role": "user", "content": "Hello"}]}


@asynccontextmanager
async def accounts(folder: Path, names: str, **runtime: Any) -> AsyncIterator[tuple[Running, ScriptedUpstream]]:
    """A daemon with one account a letter, whose token is `tok-` and the letter."""
    async with scripted_upstream() as upstream:
        listed = [{"name": name, "token": f"tok-{name}"} for name in names]
        async with running(folder, config_for(upstream.base_url, accounts=listed, runtime=runtime)) as ds2d:
            yield ds2d, upstream


def asked(upstream: ScriptedUpstream) -> str:
    """The accounts in the order in which they were used."""
    return "".join(seen.headers["authorization"][-1] for seen in upstream.seen)


FAULTS: dict[str, Scene] = {
    "401": refuse(401, {"error": {"message": "bad key tok-a"}}),
    "402": refuse(402, {"error": {"message": "no money"}}),
    "403": refuse(403, {}),
    "404": refuse(404, {}),
    "429": refuse(429, {}),
    "429 with delay": refuse(429, {}, Retry_After="30"),
    "500": refuse(500, {}),
    "503": refuse(503, b"<html>no</html>"),
    "529": refuse(529, {}),
    "closed": Scene([RESET], raw=True),
    "empty 200": Scene([]),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fault", FAULTS)
async def test_another_account_answers_where_the_first_one_cannot(tmp_path: Path, fault: str, stream: bool) -> None:
    async with accounts(tmp_path, "abc") as (ds2d, upstream):
        upstream.decide = lambda seen: FAULTS[fault] if seen.headers["authorization"][-1] == "a" else None
        status, answer, _ = await ds2d.ask(CHAT, {**ASK, "stream": stream})
        assert status == 200, answer
        assert asked(upstream) in ("ab", "aab" if fault == "closed" else "ab")  # once more where a kept connection was closed
        assert (ds2d.daemon.queue.running, ds2d.daemon.service.retrying) == (0, 0)


async def test_an_account_that_was_refused_rests_and_the_others_serve(tmp_path: Path) -> None:
    async with accounts(tmp_path, "ab") as (ds2d, upstream):
        upstream.scenes.append(FAULTS["429 with delay"])
        for _ in range(4):
            assert (await ds2d.ask(CHAT, ASK))[0] == 200
        assert asked(upstream) == "ab" + "bbb"


async def test_another_server_answers_where_the_first_is_gone(tmp_path: Path) -> None:
    async with scripted_upstream() as first, scripted_upstream() as second:
        config = config_for(first.base_url, models={"tiny": {"upstream": ["one", "two"], "model": "deepseek-tiny"}})
        config["upstreams"] = [
            {"name": name, "kind": "openai", "base_url": server.base_url, "poll_seconds": 3600}
            for name, server in (("one", first), ("two", second))
        ]
        async with running(tmp_path, config) as ds2d:
            await first.stop()
            for stream in (False, True):
                assert (await ds2d.ask(CHAT, {**ASK, "model": "tiny", "stream": stream}))[0] == 200
            assert len(second.seen) == 2


async def test_attempts_are_bounded(tmp_path: Path) -> None:
    async with accounts(tmp_path, "abcde", max_attempts=3) as (ds2d, upstream):
        upstream.scenes += [refuse(500, {"error": {"message": "host 10.0.0.5 down"}})] * 5
        status, answer, headers = await ds2d.ask(CHAT, ASK)
        assert (status, answer["error"]["code"]) == (503, "upstream_error")
        assert "10.0.0.5" not in json.dumps(answer)
        assert int(headers["retry-after"]) >= 1
        assert asked(upstream) == "abc"


async def test_a_wait_for_an_account_that_does_not_come_is_no_try(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "ds2d")
    async with accounts(tmp_path, "a") as (ds2d, upstream):
        upstream.scenes.append(refuse(429, {}, Retry_After="600"))
        status, answer, headers = await ds2d.ask(CHAT, ASK)
        assert (status, answer["error"]["code"], asked(upstream)) == (429, "upstream_rate_limited", "a")
        assert "retries" not in headers["x-ds2d-route"]
        assert ds2d.daemon.service.retrying == 0
        upstream.scenes.append(whole({"content": "Hi."}))
        await ds2d.ask(CHAT, ASK)
    lines = [record.msg.fields for record in caplog.records if record.name == "ds2d.access"]
    assert [line["attempts"] for line in lines] == [1, 0], "the second met no free account at all"
    assert not any(record.getMessage().startswith("retry") for record in caplog.records)


async def test_of_several_accounts_that_say_when_to_come_again_the_first_counts(tmp_path: Path) -> None:
    async with accounts(tmp_path, "abc") as (ds2d, upstream):
        upstream.scenes += [refuse(429, {}, Retry_After=seconds) for seconds in ("60", "40", "50")]
        status, _, headers = await ds2d.ask(CHAT, ASK)
        assert (status, headers["retry-after"], asked(upstream)) == (429, "40", "abc")


async def test_a_further_try_is_counted(tmp_path: Path) -> None:
    async with accounts(tmp_path, "abc") as (ds2d, upstream):
        upstream.scenes += [refuse(500, {}), refuse(500, {})]
        _, _, headers = await ds2d.ask(CHAT, ASK)
        assert "retries=2" in headers["x-ds2d-route"]
        assert asked(upstream) == "abc"


async def test_a_refused_question_is_not_asked_again(tmp_path: Path) -> None:
    async with accounts(tmp_path, "ab") as (ds2d, upstream):
        upstream.scenes.append(refuse(400, {"error": {"message": "top_k is wrong", "param": "top_k", "code": 400}}))
        status, answer, _ = await ds2d.ask(CHAT, ASK)
        assert (status, answer["error"]["param"], answer["error"]["code"]) == (400, "top_k", "invalid_request")
        assert asked(upstream) == "a"


async def test_retries_have_a_budget(tmp_path: Path) -> None:
    async with accounts(tmp_path, "abcd", retry_budget_percent=0) as (ds2d, upstream):
        first, held = Wait(), Wait()
        upstream.scenes += [Scene([first, *refuse(500, {}).pieces], 500), Scene([first, *refuse(500, {}).pieces], 500)]
        upstream.scenes.append(Scene([held, *say("x")]))
        turns = [asyncio.create_task(ds2d.ask(CHAT, {**ASK, "stream": True})) for _ in range(2)]
        await until(lambda: len(upstream.seen) == 2)
        first.until.set()
        await held.reached.wait()  # one of them is being retried, which is all the budget there is
        done, _ = await asyncio.wait(turns, return_when=asyncio.FIRST_COMPLETED)
        assert [task.result()[0] for task in done] == [503]
        held.until.set()
        assert sorted([(await task)[0] for task in turns]) == [200, 503]
        assert len(upstream.seen) == 3
        assert ds2d.daemon.service.retrying == 0


async def test_nothing_is_retried_once_something_was_sent(tmp_path: Path) -> None:
    async with accounts(tmp_path, "ab") as (ds2d, upstream):
        upstream.scenes.append(Scene([*say("Hel", "lo")[:2], RESET]))
        _, text, _ = await ds2d.ask(CHAT, {**ASK, "stream": True})
        assert '"code":"upstream_disconnected"' in text
        assert asked(upstream) == "a"


async def test_nothing_is_retried_for_a_client_that_left(tmp_path: Path) -> None:
    async with accounts(tmp_path, "ab", retry_collapse=False) as (ds2d, upstream):
        held = Wait()
        upstream.scenes.append(Scene([held, RESET], raw=True))
        task = asyncio.create_task(ds2d.ask(CHAT, ASK))
        await held.reached.wait()
        task.cancel()
        await until(lambda: ds2d.daemon.queue.running == 0)
        await until(upstream.seen[0].closed.is_set)  # before the server goes on: a reset of its own hides who closed
        held.until.set()
        await upstream.seen[0].done.wait()
        assert asked(upstream) == "a"


# Logins


@dataclass
class Door:
    """A server that wants a token, and gives one to who knows the password."""

    check: Callable[[Seen], bool]
    field: str = "token"
    logins: int = 0
    spoilt: bool = False
    """The next tokens are worth nothing."""
    open: Wait | None = None

    def __call__(self, seen: Seen) -> Scene | None:
        if seen.path == "/login":
            self.logins += 1
            if not self.check(seen):
                return refuse(400, {"detail": "wrong password hunter2"})
            body = json.dumps({self.field: f"t{self.logins}", "expires_in": 3600}).encode()
            return Scene([*([self.open] if self.open else []), body], content_type="application/json")
        good = seen.headers.get("authorization") == f"Bearer t{self.logins}" and not self.spoilt
        return None if good else refuse(401, {"detail": "token is stale"})


def json_login(seen: Seen) -> bool:
    return seen.body == {"email": "user@example.com", "password": "hunter2"}


def password_grant(seen: Seen) -> bool:
    sent = parse_qs(seen.raw.decode())
    return (sent["grant_type"], sent["username"], sent["password"]) == (["password"], ["user@example.com"], ["hunter2"])


def client_grant(seen: Seen) -> bool:
    basic = seen.headers.get("authorization", "")
    return parse_qs(seen.raw.decode())["grant_type"] == ["client_credentials"] and basic == (
        "Basic " + base64.b64encode(b"ds2d:geheim").decode()
    )


OAUTH = {"type": "oauth2", "url": "/login", "client_id": "ds2d", "client_secret": "geheim"}
LOGINS: dict[str, tuple[dict[str, Any], Callable[[Seen], bool], str]] = {
    "json": ({"type": "json", "url": "/login"}, json_login, "token"),
    "password": ({**OAUTH, "grant": "password"}, password_grant, "access_token"),
    "client": ({**OAUTH, "grant": "client_credentials"}, client_grant, "access_token"),
}
USER = {"email": "user@example.com", "password": "hunter2"}


@asynccontextmanager
async def behind(folder: Path, login: str, **account: Any) -> AsyncIterator[tuple[Running, ScriptedUpstream, Door]]:
    """A daemon whose upstream is behind such a door."""
    spec, check, name = LOGINS[login]
    async with scripted_upstream() as upstream:
        door = Door(check, name)
        upstream.decide = door
        config = config_for(upstream.base_url, accounts=[] if login == "client" else [{**USER, **account}])
        config["upstreams"][0] |= {"login": spec, "poll_seconds": 3600}
        async with running(folder, config) as ds2d:
            yield ds2d, upstream, door


@pytest.mark.parametrize("login", LOGINS)
async def test_one_login_serves_many_turns_and_is_renewed_once_when_refused(tmp_path: Path, login: str) -> None:
    async with behind(tmp_path, login) as (ds2d, upstream, door):
        answers: list[Awaitable[Answer]] = [ds2d.ask(CHAT, ASK) for _ in range(2)]
        assert [status for status, _, _ in await asyncio.gather(*answers)] == [200, 200]
        assert door.logins == 1
        door.logins += 1  # the server has forgotten the token that it gave
        for stream in (True, False):
            status, answer, _ = await ds2d.ask(CHAT, {**ASK, "stream": stream})
            assert status == 200, answer
        assert door.logins == 3
        assert all(seen.headers.get("authorization") for seen in upstream.seen if seen.path != "/login")


async def test_tokens_that_are_always_refused_are_our_trouble_and_tried_once_more(tmp_path: Path) -> None:
    async with behind(tmp_path, "json") as (ds2d, _, door):
        door.spoilt = True
        before = door.logins
        status, answer, _ = await ds2d.ask(CHAT, ASK)
        assert (status, answer["error"]["code"]) == (503, "upstream_auth")
        assert door.logins - before <= 2


async def test_a_wrong_password_is_tried_once_and_told_to_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with behind(tmp_path, "json", password="wrong-secret") as (ds2d, _, door):
        status, answer, _ = await ds2d.ask(CHAT, ASK)
        assert (status, answer["error"]["code"]) in ((503, "upstream_auth"), (503, "model_unavailable"))
        assert door.logins <= 2  # the look at the model list, and the turn
        for word in ("hunter2", "wrong-secret", "user@example.com"):
            assert word not in json.dumps(answer)
        assert "hunter2" not in caplog.text
        assert "wrong-secret" not in caplog.text
        assert ds2d.daemon.queue.running == 0


async def test_a_bad_question_does_not_log_in(tmp_path: Path) -> None:
    async with behind(tmp_path, "json") as (ds2d, _, door):
        ds2d.daemon.logins.retain(())
        before = door.logins
        assert (await ds2d.ask(CHAT, {**ASK, "temperature": 9}))[0] == 400
        assert door.logins == before
