"""Background responses: queued at once, followed by anybody from anywhere, stopped, bounded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import orjson
import pytest

from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.events import Failure, Text
from ds2d.core.request import Envelope
from ds2d.dialects import openai_responses
from ds2d.state import response_routes as routes
from ds2d.state.background import BackgroundResponse
from ds2d.state.responses import Limits
from tests.dialects.responses_kit import check, frames
from tests.state.responses_world import STOP, World

CANCELLED = GatewayError(ErrorKind.CANCELLED, "The response was cancelled.")


async def read(pieces: AsyncIterator[bytes]) -> bytes:
    return b"".join([piece async for piece in pieces])


def following(world: World, name: str, after: int | None = None) -> AsyncIterator[bytes]:
    query = {"stream": "true"} | ({} if after is None else {"starting_after": str(after)})
    assert routes.wants_stream(query)
    return routes.events(world.store, "me", name, query)


def status(world: World, name: str) -> str:
    return str(orjson.loads(routes.retrieve(world.store, "me", name))["status"])


async def test_a_background_response_can_be_polled_from_the_start() -> None:
    world = World()
    made = world.envelope("me", background=True)
    openai_responses.opening(made)
    run = world.store.begin("me", made.request.reply, lambda: openai_responses.queued(made))
    assert status(world, run.id) == "queued"
    encoder = openai_responses.Encoder(made)
    run.snapshot = encoder.snapshot
    run.append(encoder.feed([Text("so far")]))
    found = orjson.loads(routes.retrieve(world.store, "me", run.id))
    assert (found["status"], found["output"][0]["content"][0]["text"]) == ("in_progress", "so far")
    run.append(encoder.feed([STOP]))
    world.store.end(run, made.request.reply)
    assert status(world, run.id) == "completed"
    assert world.store.runs == ()


async def test_every_follower_gets_the_same_bytes_from_where_it_began() -> None:
    world = World()
    run, encoder, made = world.begun()
    followers = [asyncio.create_task(read(following(world, run.id, after))) for after in (None, 0, 4)]
    await asyncio.sleep(0)
    for text in "abc":
        run.append(encoder.feed([Text(text)]))
        await asyncio.sleep(0)
    late = asyncio.create_task(read(following(world, run.id, 2)))
    await asyncio.sleep(0)
    run.append(encoder.feed([Text("d"), STOP]))
    world.store.end(run, made.request.reply)
    whole, after_0, after_4, after_2 = await asyncio.gather(*followers, late)
    checked = check(whole)
    for after, tail in ((0, after_0), (4, after_4), (2, after_2)):
        assert whole.endswith(tail)
        assert frames(tail)[0][1]["sequence_number"] == after + 1
        assert await read(following(world, run.id, after)) == tail, "the replay is the same to the byte"
    assert await read(following(world, run.id)) == whole
    assert await read(following(world, run.id, len(checked.events) + 10)) == b"data: [DONE]\n\n"


async def test_a_follower_that_leaves_leaves_nothing_behind() -> None:
    world = World()
    run, encoder, made = world.begun()
    follower = asyncio.create_task(read(following(world, run.id)))
    await asyncio.sleep(0)
    follower.cancel()
    await asyncio.wait([follower])
    assert run._waiting == []
    run.append(encoder.feed([STOP]))
    world.store.end(run, made.request.reply)
    check(await read(following(world, run.id)))


async def test_long_replays_come_in_pieces_that_end_where_frames_end() -> None:
    world = World()
    run, encoder, made = world.begun()
    for _ in range(3000):
        run.append(encoder.feed([Text("word ")]))
    live = [piece async for piece in _until(following(world, run.id), 5)]
    run.append(encoder.feed([STOP]))
    world.store.end(run, made.request.reply)
    pieces = [piece async for piece in following(world, run.id, 10)]
    assert len(pieces) > 5
    assert all(piece.endswith(b"\n\n") for piece in (*live, *pieces))
    assert all(len(piece) <= 64 * 1024 for piece in pieces)
    check(b"".join([piece async for piece in following(world, run.id)]))


async def _until(pieces: AsyncIterator[bytes], count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield await anext(pieces)


async def test_life_signs_are_not_replayed() -> None:
    world = World()
    run, encoder, made = world.begun()
    run.append(encoder.keep_alive() + encoder.feed([STOP]))
    world.store.end(run, made.request.reply)
    assert b"keep-alive" not in await read(following(world, run.id))


@pytest.mark.parametrize("query", [{"starting_after": "x"}, {"starting_after": "1.5"}])
async def test_a_bad_place_to_begin_is_refused_before_anything_is_sent(query: dict[str, str]) -> None:
    world = World()
    run, _, _ = world.begun()
    with pytest.raises(GatewayError) as caught:
        routes.events(world.store, "me", run.id, query)
    assert caught.value.param == "starting_after"


async def test_only_background_responses_are_streamed_again_or_cancelled() -> None:
    world = World()
    name = world.answered()
    with pytest.raises(GatewayError) as caught:
        following(world, name)
    assert (caught.value.status, caught.value.param) == (400, "stream")
    with pytest.raises(GatewayError) as caught:
        await routes.cancel(world.store, "me", name)
    assert caught.value.status == 400


def work_until_stopped(world: World, run: BackgroundResponse, made: Envelope) -> list[GatewayError]:
    """What the service does when a run is stopped."""
    seen: list[GatewayError] = []

    def stop(error: GatewayError) -> None:
        seen.append(error)
        run.append(openai_responses.fail(made, error))
        world.store.end(run, made.request.reply)

    run.on_stop(stop)
    return seen


async def test_cancel_stops_the_work_and_keeps_what_has_come() -> None:
    world = World()
    run, encoder, made = world.begun()
    seen = work_until_stopped(world, run, made)
    run.append(encoder.feed([Text("so far")]))
    follower = asyncio.create_task(read(following(world, run.id)))
    await asyncio.sleep(0)
    found = orjson.loads(await routes.cancel(world.store, "me", run.id))
    assert [error.kind for error in seen] == [ErrorKind.CANCELLED]
    assert (found["status"], found["error"]) == ("cancelled", None)
    assert found["output"][0]["content"][0]["text"] == "so far"
    assert check(await follower).types()[-1] == "failed"
    again = await routes.cancel(world.store, "me", run.id)
    assert orjson.loads(again) == found
    assert len(seen) == 1


async def test_cancel_waits_for_the_work_to_have_stopped() -> None:
    world = World()
    run, encoder, made = world.begun()
    asked = asyncio.Event()
    run.on_stop(lambda _error: asked.set())
    cancelling = asyncio.create_task(routes.cancel(world.store, "me", run.id))
    await asked.wait()
    assert not cancelling.done()
    run.append(encoder.feed([Failure(CANCELLED)]))
    world.store.end(run, made.request.reply)
    assert orjson.loads(await cancelling)["status"] == "cancelled"


async def test_a_run_stopped_before_its_work_began_learns_it_then() -> None:
    world = World()
    run, _encoder, made = world.begun()
    run.stop(CANCELLED)
    run.stop(GatewayError(ErrorKind.SHUTTING_DOWN, "Later."))
    seen = work_until_stopped(world, run, made)
    assert seen == [CANCELLED]
    assert status(world, run.id) == "cancelled"


async def test_cancel_of_a_finished_response_changes_nothing() -> None:
    world = World()
    run, encoder, made = world.begun()
    run.append(encoder.feed([Text("done"), STOP]))
    world.store.end(run, made.request.reply)
    before = routes.retrieve(world.store, "me", run.id)
    assert await routes.cancel(world.store, "me", run.id) == before
    run.stop(CANCELLED)


async def test_deleting_stops_the_work_first_and_it_stays_deleted() -> None:
    world = World()
    run, _encoder, made = world.begun()
    seen = work_until_stopped(world, run, made)
    follower = asyncio.create_task(read(following(world, run.id)))
    await asyncio.sleep(0)
    routes.delete(world.store, "me", run.id)
    assert [error.kind for error in seen] == [ErrorKind.CANCELLED]
    assert world.store.find("me", run.id) is None
    assert (world.store.bytes, world.store.runs) == (0, ())
    check(await follower)


async def test_shutdown_fails_what_runs() -> None:
    world = World()
    run, _encoder, made = world.begun()
    work_until_stopped(world, run, made)
    for running in world.store.runs:
        running.stop(GatewayError(ErrorKind.SHUTTING_DOWN, "The gateway is shutting down."))
    found = orjson.loads(routes.retrieve(world.store, "me", run.id))
    assert (found["status"], found["error"]["code"]) == ("failed", "server_error")


async def test_only_so_many_run_at_once_and_only_so_long() -> None:
    world = World(background_max=1, background_seconds=60)
    run, encoder, made = world.begun()
    assert run.deadline == world.now + 60
    with pytest.raises(GatewayError) as caught:
        world.begun("you")
    assert (caught.value.status, caught.value.kind) == (429, ErrorKind.QUEUE_FULL)
    assert caught.value.retry_after
    run.append(encoder.feed([STOP]))
    world.store.end(run, made.request.reply)
    world.begun("you")


async def test_the_lifetime_counts_from_the_end_of_the_work() -> None:
    world = World(ttl_seconds=900)
    run, encoder, made = world.begun()
    world.now += 3000
    assert status(world, run.id) == "queued"
    run.append(encoder.feed([STOP]))
    world.store.end(run, made.request.reply)
    world.now += 899
    assert status(world, run.id) == "completed"
    world.now += 1
    assert world.store.find("me", run.id) is None


async def test_events_count_and_one_that_outgrows_the_store_is_told_once() -> None:
    world = World(max_bytes=60_000)
    old = world.answered("x" * 20_000)
    run, encoder, made = world.begun()

    def outgrow() -> None:
        for _ in range(1000):
            run.append(encoder.feed([Text("word " * 10)]))

    with pytest.raises(GatewayError) as caught:
        outgrow()
    assert caught.value.kind is ErrorKind.INTERNAL
    assert world.store.find("me", old) is None, "ended ones go first"
    assert 60_000 < world.store.bytes < 62_000
    run.append(encoder.feed([Failure(caught.value)]))
    world.store.end(run, made.request.reply)
    world.store.apply(Limits(max_bytes=0))
    assert world.store.bytes == 0


async def test_a_running_or_failed_response_cannot_be_continued() -> None:
    world = World()
    run, encoder, made = world.begun()
    for _ in range(2):
        with pytest.raises(GatewayError) as caught:
            world.envelope("me", previous_response_id=run.id)
        assert (caught.value.status, caught.value.param) == (400, "previous_response_id")
        if not run.ended:
            run.append(encoder.feed([Failure(CANCELLED)]))
            world.store.end(run, made.request.reply)


async def test_a_finished_background_response_can_be_continued() -> None:
    world = World()
    run, encoder, made = world.begun()
    run.append(encoder.feed([Text("one"), STOP]))
    world.store.end(run, made.request.reply)
    request = world.envelope("me", previous_response_id=run.id).request
    assert [message["content"] for message in request.messages] == ["hi", "one", "hi"]


async def test_who_was_told_the_end_can_continue_at_once() -> None:
    """The last events go out before the work is quite over: its server's connection and its slot go back after that."""
    world = World()
    run, encoder, made = world.begun()
    run.append(encoder.feed([Text("yes"), STOP]))
    follower = following(world, run.id)
    assert b"response.completed" in await anext(follower)
    next_one = world.envelope("me", previous_response_id=run.id)
    assert [message["role"] for message in next_one.request.messages] == ["user", "assistant", "user"]
    openai_responses.Encoder(next_one).feed([Text("and"), STOP])
    world.store.put("me", next_one.request.reply)
    world.store.end(run, made.request.reply)
    assert status(world, run.id) == "completed"
    for name in (run.id, next_one.request.reply.id):
        assert world.store.delete("me", name)
    assert world.store.bytes == 0
