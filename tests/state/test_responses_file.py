"""Stored responses over a graceful restart."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from ds2d.core.events import Text
from ds2d.state import response_file
from ds2d.state import response_routes as routes
from ds2d.state.responses import ResponseStore
from tests.state.responses_world import STOP, World


def restarted(world: World, path: Path, *, down: float, **limits: float) -> World:
    """The world after a restart that took `down` seconds; the new monotonic clock has nothing to do with the old."""
    response_file.save(world.store, path, world.now, 5_000_000.0)
    new = World(**limits)
    new.now = 3.0
    response_file.load(new.store, path, 5_000_000.0 + down)
    return new


def held(store: ResponseStore) -> list[str]:
    return [entry.id for entry in store.entries]


def test_everything_is_there_again_to_the_byte(tmp_path: Path) -> None:
    world = World()
    first = world.answered("one", input="1")
    second = world.answered("two", input="2", previous_response_id=first, metadata={"a": "é\n"})
    run, encoder, made = world.begun()
    run.append(encoder.feed([Text("three"), STOP]))
    world.store.end(run, made.request.reply)
    path = tmp_path / "responses.jsonl"
    new = restarted(world, path, down=10)
    assert held(new.store) == held(world.store) == [first, second, run.id]
    assert new.store.bytes == world.store.bytes
    for name in (first, second, run.id):
        assert routes.retrieve(new.store, "me", name) == routes.retrieve(world.store, "me", name)
        assert routes.input_items(new.store, "me", name, {}) == routes.input_items(world.store, "me", name, {})
    old, again = (where.store.find("me", run.id) for where in (world, new))
    assert old is not None
    assert again is not None
    assert again.events == old.events
    assert [message["content"] for message in new.envelope("me", previous_response_id=second).request.messages] == [
        "1",
        "one",
        "2",
        "two",
        "hi",
    ]
    routes.delete(new.store, "me", second)
    routes.delete(new.store, "me", first)
    routes.delete(new.store, "me", run.id)
    assert new.store.bytes == 0


def test_ages_go_on_while_the_process_is_down(tmp_path: Path) -> None:
    world = World()
    world.answered()
    world.now += 500
    young = world.answered()
    new = restarted(world, tmp_path / "f", down=500)
    assert held(new.store) == [young]
    new.now += 399
    assert new.store.find("me", young)
    new.now += 2
    assert new.store.find("me", young) is None


def test_a_wall_clock_that_stepped_back_ages_nothing(tmp_path: Path) -> None:
    world = World()
    name = world.answered()
    assert held(restarted(world, tmp_path / "f", down=-9_999).store) == [name]


def test_the_new_bounds_hold(tmp_path: Path) -> None:
    world = World()
    names = [world.answered("x" * 10_000) for _ in range(5)]
    new = restarted(world, tmp_path / "f", down=0, max_bytes=30_000)
    assert held(new.store) == names[-2:]


def test_the_file_is_private_and_gone_once_read(tmp_path: Path) -> None:
    world = World()
    world.answered()
    path = tmp_path / "f"
    (tmp_path / "f.new").write_text("left by a crash")
    assert response_file.save(world.store, path, world.now, 1.0) == 1
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]
    assert response_file.load(World().store, path, 1.0) == 1
    assert list(tmp_path.iterdir()) == []
    assert response_file.load(World().store, path, 1.0) == 0


def test_what_still_runs_is_not_saved(tmp_path: Path) -> None:
    world = World()
    world.begun()
    assert response_file.save(world.store, tmp_path / "f", world.now, 1.0) == 0


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"{}",
        b"garbage",
        b'{"version":2,"saved_at":1,"segments":0}\n',
        b'{"version":1,"saved_at":1,"segments":0}\n{"id":1}\n',
    ],
)
def test_a_file_that_is_not_ours_stops_nothing(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "f"
    path.write_bytes(content)
    world = World()
    assert response_file.load(world.store, path, 1.0) == 0
    assert len(world.store) == 0
    assert not path.exists()


def test_a_file_that_lost_its_end_stops_nothing(tmp_path: Path) -> None:
    world = World()
    for _ in range(3):
        world.answered("x" * 100)
    path = tmp_path / "f"
    response_file.save(world.store, path, world.now, 1.0)
    whole = path.read_bytes()
    for cut in range(0, len(whole) - 1, 7):
        path.write_bytes(whole[:cut])
        response_file.load(World().store, path, 1.0)
