"""What a turn holds is let go of with it, not when the collector comes by: a question may be megabytes."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from ds2d.core.calls import Call
from ds2d.core.request import ChatRequest
from ds2d.service.turn import Turn
from tests.functional.harness import config_for, running
from tests.functional.scripted import Scene, Wait, chunk, refuse, say, scripted_upstream, sse, whole
from tests.functional.test_every_dialect import QUESTIONS
from tests.functional.test_queue import until


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Only counted references free anything."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def questions() -> int:
    """How many are held."""
    return sum(type(held) is ChatRequest for held in gc.get_objects())


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("dialect", QUESTIONS)
async def test_a_question_is_let_go_of_with_its_turn(tmp_path: Path, dialect: str) -> None:
    path, body, stream_path, more = QUESTIONS[dialect]
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        before = questions()
        if dialect == "completions":
            upstream.answer_as_completion()
        assert (await ds2d.ask(path, body))[0] == 200
        assert (await ds2d.ask(stream_path, {**body, **more}))[0] == 200
        await until(lambda: questions() == before, 5)


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("streamed", [False, True])
async def test_a_question_with_tools_and_one_that_fails_are_let_go_of(tmp_path: Path, streamed: bool) -> None:
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
    ask = {"model": "deepseek-chat", "messages": [{"role": "user", "content": "Look!"}], "stream": streamed}
    call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    config = config_for("", runtime={"max_attempts": 1})
    async with scripted_upstream() as upstream:
        config["upstreams"][0]["base_url"] = upstream.base_url
        async with running(tmp_path, config) as ds2d:
            before = questions()
            stream = Scene(sse(chunk({"tool_calls": [call]}), chunk(finish="tool_calls")))
            upstream.scenes = [stream if streamed else whole({"content": None, "tool_calls": [call]}, "tool_calls")]
            status, answer, _ = await ds2d.ask("/v1/chat/completions", {**ask, "tools": [tool]})
            assert (status, '"look"' in str(answer).replace("'", '"')) == (200, True)
            upstream.scenes = [refuse(500, {"error": {"message": "no"}})]
            assert (await ds2d.ask("/v1/chat/completions", ask))[0] >= 500
            assert (await ds2d.ask("/v1/chat/completions", {**ask, "model": "nobody-has-it"}))[0] == 404
            await until(lambda: questions() == before, 5)


@pytest.mark.usefixtures("no_collector")
async def test_a_question_that_lasted_over_a_checkpoint_is_let_go_of(tmp_path: Path) -> None:
    """Whoever wrote it down must not hold it until the next time, five seconds later."""
    config = config_for("", ledger={"checkpoint_seconds": 0.1})
    ask = {"model": "deepseek-chat", "messages": [{"role": "user", "content": "Say much!"}], "stream": True}
    async with scripted_upstream() as upstream:
        config["upstreams"][0]["base_url"] = upstream.base_url
        async with running(tmp_path, config) as ds2d:
            before = questions()
            hold, written = Wait(), asyncio.Event()
            checkpoint = ds2d.daemon.books.checkpoint

            async def last(turn: Turn) -> None:
                await checkpoint(turn)
                ds2d.change(ledger={"checkpoint_seconds": 3600})
                written.set()

            ds2d.daemon.books.checkpoint = last
            first, *rest = say("one", "two")
            upstream.scenes = [Scene([first, hold, *rest])]
            turn = asyncio.create_task(ds2d.ask("/v1/chat/completions", ask))
            await written.wait()
            hold.until.set()
            assert (await turn)[0] == 200
            del turn
            await until(lambda: questions() == before, 5)


@pytest.mark.usefixtures("no_collector")
async def test_what_was_sent_upstream_is_not_kept_while_it_is_answered(tmp_path: Path) -> None:
    """A large question would lie beside its answer, written anew, for as long as that lasts."""
    ask = {"model": "deepseek-chat", "messages": [{"role": "user", "content": "Say much!"}], "stream": True}
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        hold = Wait()
        first, *rest = say("one", "two")
        upstream.scenes = [Scene([first, hold, *rest])]
        asking = asyncio.create_task(ds2d.ask("/v1/chat/completions", ask))
        await hold.reached.wait()
        await until(lambda: not any(type(held) is Call and b"Say much!" in (held.body or b"") for held in gc.get_objects()), 5)
        hold.until.set()
        assert (await asking)[0] == 200
