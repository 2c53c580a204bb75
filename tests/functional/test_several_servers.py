"""Several servers of one model behind the daemon: one goes and comes back, one hangs, somebody else uses one.

That a server is seen to go within 3 s and to be back within 5 follows from the pauses between looks (tests/state/test_health.py).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.functional.harness import KEY, Running, running
from tests.functional.scripted import Scene, ScriptedUpstream, Wait, say, scripted_upstream
from tests.functional.test_queue import until

CHAT = "/v1/chat/completions"
QUESTION = {"model": "deepseek-tiny", "messages": [{"role": "user", "content": "Hello"}]}
SOUND = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
VIDEO = {"type": "video_url", "video_url": {"url": "https://example.com/a.mp4"}}


@contextlib.asynccontextmanager
async def two(
    folder: Path, poll: float = 2, affinity: str = "off"
) -> AsyncIterator[tuple[Running, ScriptedUpstream, ScriptedUpstream]]:
    async with scripted_upstream() as a, scripted_upstream() as b:
        a.gauges = b.gauges = {"num_requests_running": 0, "generation_tokens_total": 1}
        servers = [("a", a), ("b", b)]
        upstreams = [
            {"name": name, "kind": "openai", "base_url": one.base_url, "flavour": "vllm", "poll_seconds": poll}
            for name, one in servers
        ]
        async with running(folder, {"keys": [KEY], "upstreams": upstreams, "runtime": {"affinity": {"mode": affinity}}}) as ds2d:
            yield ds2d, a, b


def held(*words: str) -> tuple[Scene, Wait]:
    """A streamed answer that stops after its first frame until the test lets it go on."""
    wait = Wait()
    first, *rest = say(*words)
    return Scene([first, rest[0], wait, *rest[1:]]), wait


async def details(ds2d: Running, name: str) -> dict[str, Any]:
    _, body, _ = await ds2d.ask("/readyz?verbose")
    found: dict[str, Any] = body["upstreams"][name]
    return found


async def reading(ds2d: Running) -> bytes:
    """A streamed turn, read to its end."""
    headers = {"Authorization": f"Bearer {KEY}"}
    async with ds2d.http.post(ds2d.url + CHAT, json={**QUESTION, "stream": True}, headers=headers) as reply:
        return await reply.read()


async def test_a_killed_server_is_left_and_taken_back_and_the_streams_of_the_other_do_not_notice(
    tmp_path: Path,
) -> None:
    async with two(tmp_path) as (ds2d, a, b):
        scene, wait = held("Still", " here")
        b.decide = lambda seen: scene if seen.body.get("stream") else None
        a.decide = b.decide
        streams = [asyncio.create_task(reading(ds2d)) for _ in range(2)]  # least loaded: one on each
        await asyncio.wait_for(wait.reached.wait(), 10)
        await until(lambda: len(a.seen) == len(b.seen) == 1, 10)

        await a.stop()
        await until(lambda: ds2d.daemon.catalog.states()["a"] == "down", 20)
        assert ds2d.daemon.catalog.states()["b"] == "ready"
        assert (await details(ds2d, "a"))["why"]
        for _ in range(4):
            status, _, _ = await ds2d.ask(CHAT, QUESTION)
            assert status == 200
        assert len(b.seen) >= 5

        await a.start(a.port)
        await until(lambda: ds2d.daemon.catalog.states()["a"] == "ready", 20)
        before = len(a.seen)
        await asyncio.gather(*(ds2d.ask(CHAT, QUESTION) for _ in range(4)))
        assert len(a.seen) > before

        wait.until.set()
        answers = [await stream for stream in streams]
        assert sum(b"Still" in answer and b"[DONE]" in answer and b"error" not in answer for answer in answers) == 1


async def test_model_list_and_readiness_show_a_server_that_hangs_and_traffic_leaves_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ds2d.state.evidence.STUCK_SECONDS", 0.5)
    async with two(tmp_path, poll=1) as (ds2d, a, b):
        a.gauges = {"num_requests_running": 3, "generation_tokens_total": 100}
        await until(lambda: ds2d.daemon.catalog.states()["a"] == "stuck", 20)
        seen = await details(ds2d, "a")
        assert seen["why"].endswith("with 3 running")
        assert seen["load"]["running"] == 3
        for _ in range(3):
            assert (await ds2d.ask(CHAT, QUESTION))[0] == 200
        assert (len(a.seen), len(b.seen)) == (0, 3)
        b.gauges = a.gauges  # now both: the model is stuck, and still asked, since there is nobody better
        await until(lambda: ds2d.daemon.catalog.states()["b"] == "stuck", 20)
        _, models, _ = await ds2d.ask("/v1/models")
        assert {model["state"] for model in models["data"] if model["id"] == "deepseek-tiny"} == {"stuck"}
        assert (await ds2d.ask("/readyz"))[0] == 503
        assert (await ds2d.ask(CHAT, QUESTION))[0] == 200


async def test_requests_that_are_not_ours_are_reported_and_the_server_is_spared(tmp_path: Path) -> None:
    async with two(tmp_path, poll=1) as (ds2d, a, b):
        a.gauges = {"num_requests_running": 4}  # without its steps, so that they need not go on
        await until(lambda: ds2d.daemon.catalog.health()[0].evidence.orphans == 4, 20)
        assert (await details(ds2d, "a"))["orphans"] == 4
        assert (await details(ds2d, "b"))["orphans"] == 0
        for _ in range(3):
            await ds2d.ask(CHAT, QUESTION)
        assert (len(a.seen), len(b.seen)) == (0, 3)


async def test_while_the_servers_make_requests_wait_the_next_ones_wait_in_our_queue(tmp_path: Path) -> None:
    async with two(tmp_path, poll=1) as (ds2d, a, b):
        scene, wait = held("x")
        a.decide = b.decide = lambda _seen: scene
        tasks = [asyncio.create_task(reading(ds2d)) for _ in range(4)]
        await until(lambda: len(a.seen) == len(b.seen) == 2, 10)
        for server in (a, b):
            server.gauges = {"num_requests_running": 1, "num_requests_waiting": 1}
        queue = ds2d.daemon.queue
        await until(lambda: all(one.evidence.load and one.evidence.load.waiting for one in ds2d.daemon.catalog.health()), 20)
        tasks.append(asyncio.create_task(reading(ds2d)))
        await until(lambda: queue.waiting == 1, 10)
        for server in (a, b):
            server.gauges = {"num_requests_running": 2, "num_requests_waiting": 0}
        await until(lambda: len(a.seen) + len(b.seen) == 5, 20)
        wait.until.set()
        for task in tasks:
            assert b"[DONE]" in await task


# Conversations


def talk(name: str, turn: int) -> dict[str, Any]:
    """A conversation's question: what was said before, and one message more."""
    said = [{"role": role, "content": f"{name} {number}"} for number in range(turn) for role in ("user", "assistant")]
    return {"model": "deepseek-chat", "messages": [*said, {"role": "user", "content": f"{name} {turn}"}]}


def where(name: str, *servers: ScriptedUpstream) -> list[int]:
    """How many questions of a conversation each server got."""
    return [sum(f"{name} 0" in str(seen.body["messages"][0]) for seen in server.seen) for server in servers]


async def test_each_conversation_stays_with_one_server_by_what_it_begins_with(tmp_path: Path) -> None:
    async with two(tmp_path, affinity="on") as (ds2d, a, b):
        for turn in range(3):
            for name in "pqrstu":
                assert (await ds2d.ask(CHAT, talk(name, turn)))[0] == 200
        placed = [where(name, a, b) for name in "pqrstu"]
        assert all(sorted(counts) == [0, 3] for counts in placed)
        assert [3, 0] in placed
        assert [0, 3] in placed
        _, ready, _ = await ds2d.ask("/readyz?verbose")
        assert (ready["affinity"]["known"], ready["affinity"]["followed"]) == (12, 12)


NAMED: dict[str, tuple[str, dict[str, Any], dict[str, str]]] = {
    "claude_code": ("/v1/messages", {"max_tokens": 9}, {"x-claude-code-session-id": "s"}),
    "claude_user_id": ("/v1/messages", {"max_tokens": 9, "metadata": {"user_id": "user_1_account__session_s"}}, {}),
    "codex": ("/v1/responses", {}, {"session-id": "s", "thread-id": "t"}),
    "prompt_cache_key": (CHAT, {"prompt_cache_key": "s"}, {}),
    "opencode": (CHAT, {}, {"x-session-id": "s"}),
    "user": (CHAT, {"user": "s"}, {}),
}


@pytest.mark.parametrize("client", NAMED)
async def test_each_conversation_stays_with_one_server_by_its_name(tmp_path: Path, client: str) -> None:
    path, more, headers = NAMED[client]
    async with two(tmp_path, affinity="on") as (ds2d, a, b):
        for number in range(4):
            content = f"{number} of a talk that shares nothing"
            said = {"input": content} if "responses" in path else {"messages": [{"role": "user", "content": content}]}
            status, _, _ = await ds2d.ask(path, {"model": "deepseek-chat", **more, **said}, headers=headers)
            assert status == 200
        assert sorted([len(a.seen), len(b.seen)]) == [0, 4]


async def test_a_response_that_continues_another_goes_where_that_one_was(tmp_path: Path) -> None:
    async with two(tmp_path, affinity="on") as (ds2d, a, b):
        earlier = None
        for number in range(4):
            body = {"model": "deepseek-chat", "input": f"part {number}", "previous_response_id": earlier}
            _, answer, _ = await ds2d.ask("/v1/responses", body)
            earlier = answer["id"]
            await ds2d.ask(CHAT, talk(f"other{number}", 0))
        places = [sum("part 0" in str(seen.body) for seen in server.seen) for server in (a, b)]
        assert sorted(places) == [0, 4]
        assert a.seen
        assert b.seen


async def test_conversations_of_a_server_that_went_go_on_at_another_and_stay_there(tmp_path: Path) -> None:
    async with two(tmp_path, affinity="on") as (ds2d, a, b):
        await ds2d.ask(CHAT, talk("p", 0))
        first, second = (a, b) if a.seen else (b, a)
        await first.stop()
        assert (await ds2d.ask(CHAT, talk("p", 1)))[0] == 200
        await first.start(first.port)
        await until(lambda: set(ds2d.daemon.catalog.states().values()) == {"ready"}, 20)
        for turn in (2, 3):
            assert (await ds2d.ask(CHAT, talk("p", turn)))[0] == 200
        assert (where("p", first), where("p", second)) == ([1], [3])


async def test_affinity_is_switched_while_the_daemon_runs(tmp_path: Path) -> None:
    async with two(tmp_path, affinity="on") as (ds2d, a, b):
        named = {"x-session-id": "s"}
        for _ in range(3):
            await ds2d.ask(CHAT, QUESTION, headers=named)
        assert sorted([len(a.seen), len(b.seen)]) == [0, 3]
        ds2d.change(runtime={"affinity": {"mode": "off"}})
        for _ in range(3):
            await ds2d.ask(CHAT, QUESTION, headers=named)
        assert min(len(a.seen), len(b.seen)) >= 1
        ds2d.change(runtime={"affinity": {"mode": "on", "ttl_seconds": 60}})
        before = len(a.seen), len(b.seen)
        for _ in range(4):
            await ds2d.ask(CHAT, QUESTION, headers=named)
        assert 0 in (len(a.seen) - before[0], len(b.seen) - before[1])


@pytest.mark.parametrize(
    ("path", "more", "able"),
    [
        (CHAT, {**QUESTION, "n": 2}, "a"),
        ("/v1/completions", {"model": "deepseek-tiny", "prompt": [1, 2]}, "a"),
        ("/v1/completions", {"model": "deepseek-tiny", "prompt": "a", "suffix": "c"}, "b"),
        (CHAT, {**QUESTION, "messages": [{"role": "user", "content": [SOUND]}]}, "a"),
        (CHAT, {**QUESTION, "messages": [{"role": "user", "content": [VIDEO]}]}, "a"),
        ("/v1/responses", {"model": "deepseek-tiny", "input": [{"role": "user", "content": [SOUND]}]}, "a"),
        (
            "/v1beta/models/deepseek-tiny:generateContent",
            {"contents": [{"parts": [{"inlineData": {"mimeType": "audio/wav", "data": "AAAA"}}]}]},
            "a",
        ),
    ],
)
async def test_a_question_goes_to_a_server_that_can_answer_it(tmp_path: Path, path: str, more: dict[str, Any], able: str) -> None:
    """The other, which is as free, would refuse it, and that refusal is final."""
    async with scripted_upstream() as a, scripted_upstream() as b:
        servers = {"a": (a, "vllm"), "b": (b, "deepseek")}
        upstreams = [
            {"name": name, "kind": "openai", "base_url": one.base_url, "flavour": flavour}
            for name, (one, flavour) in servers.items()
        ]
        async with running(tmp_path, {"keys": [KEY], "upstreams": upstreams}) as ds2d:
            for _ in range(4):
                status, said, _ = await ds2d.ask(path, more)
                assert status == 200, said
            servers[able][0].scenes.append(Scene([b"{}"], 500, content_type="application/json"))
            assert (await ds2d.ask(path, more))[0] in (200, 503)  # nor does a retry go to the other
            assert {name for name, (one, _) in servers.items() if one.seen} == {able}


async def test_a_question_for_an_account_whose_server_cannot_answer_it_is_refused_by_what_it_asks_for(tmp_path: Path) -> None:
    """Another server of the model could; that one was named all the same is no lack of a server, and no retry mends it."""
    async with scripted_upstream() as a, scripted_upstream() as b:
        upstreams = [
            {"name": name, "kind": "openai", "base_url": one.base_url, "flavour": flavour}
            for name, one, flavour in (("a", a, "vllm"), ("b", b, "deepseek"))
        ]
        async with running(tmp_path, {"keys": [KEY], "upstreams": upstreams}) as ds2d:
            for pin, expected in (("b", (400, "n")), ("a", (200, None)), ("nobody", (503, None))):
                headers = {"X-Ds2-Target-Account": pin}
                status, said, _ = await ds2d.ask(CHAT, {**QUESTION, "n": 2}, headers=headers)
                assert (status, said.get("error", {}).get("param")) == expected, said
            assert (len(a.seen), len(b.seen)) == (1, 0)
